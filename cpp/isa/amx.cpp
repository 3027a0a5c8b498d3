// The level of AVX-512 with a matrix unit: its own kernels, and those of AVX-512 for the rest.
#include "kernels/table.hpp"

namespace unitstride {
namespace avx512 {
extern const KernelTable table;
}

namespace amx {
extern const GemmKernels part_kernels[element_count];
extern const GemmPackers part_packers[element_count];
extern const AttentionKernels part_attention[element_count];
extern const AttentionReturnKernels part_attention_vjp[element_count];
extern const ImageKernels part_images[element_count];
extern const KernelTable table;

namespace {

// The last step of 16-bit products is that of AVX-512.
MatrixUnit unit_of(Element element) {
    const int index = static_cast<int>(element);
    MatrixUnit unit = {part_kernels[index], part_packers[index], &part_attention[index],
                       &part_attention_vjp[index], &part_images[index]};
    unit.kernels.round = avx512::table.gemm[index].round;
    return unit;
}

const MatrixUnit matrix_units[element_count] = {
    unit_of(Element::float32),  unit_of(Element::float64),   unit_of(Element::float16),
    unit_of(Element::bfloat16), unit_of(Element::complex64), unit_of(Element::complex128)};

KernelTable with_matrix_unit(KernelTable table) {
    table.name = "amx";
    table.matrix_unit = matrix_units;
    return table;
}

}  // namespace

const KernelTable table = with_matrix_unit(avx512::table);

}  // namespace amx
}  // namespace unitstride
