// What the files of this level show one another.
#pragma once

#include "kernels/attention.hpp"
#include "kernels/gemm.hpp"
#include "kernels/images.hpp"

namespace unitstride::UNITSTRIDE_ISA {

extern const GemmPackers part_packers[element_count];
extern const GemmKernels part_kernels[element_count];
extern const ImageKernels part_images[element_count];
extern const AttentionKernels part_attention[element_count];
extern const AttentionReturnKernels part_attention_vjp[element_count];

}  // namespace unitstride::UNITSTRIDE_ISA
