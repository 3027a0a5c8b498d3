// The kernels of one instruction set, with what is known about it, as data.
#pragma once

#include "core/storage.hpp"
#include "kernels/attention.hpp"
#include "kernels/channels.hpp"
#include "kernels/convolution.hpp"
#include "kernels/fetch.hpp"
#include "kernels/gemm.hpp"
#include "kernels/images.hpp"
#include "kernels/optim.hpp"
#include "kernels/optim_narrow.hpp"
#include "kernels/pack.hpp"
#include "kernels/planes.hpp"
#include "kernels/probe.hpp"
#include "kernels/softmax.hpp"
#include "kernels/softmax_vjp.hpp"
#include "kernels/stream.hpp"
#include "kernels/transform.hpp"

namespace unitstride {

struct KernelTable {
    const char* name;
    std::ptrdiff_t vector_bytes;
    bool fused;  // multiply_add rounds once
    std::ptrdiff_t
        line_scratch_bytes;      // longest line (in the compute type) that is kept whole in cache
    std::ptrdiff_t piece_bytes;  // longer lines are worked on in pieces of this size
    std::ptrdiff_t tile_bytes;   // one packed tile
    std::ptrdiff_t wide_tile_bytes;  // one whose rows lie in the array as they are: wider rows are
                                     // read faster, and there is little else in the cache
    std::ptrdiff_t tile_width;       // most lines side by side in a tile
    std::ptrdiff_t block_bytes;      // what a thread takes at a time
    std::ptrdiff_t streaming_bytes;  // outputs above this are stored past the caches
    std::ptrdiff_t
        short_line_elements;        // contiguous lines up to this length are packed side by side
    const PackKernels* pack;        // [storage_count]
    const SoftmaxKernels* softmax;  // [storage_count]
    const SoftmaxVjpKernels* softmax_vjp;  // [storage_count]
    const ProbeKernels* probe;
    const GemmKernels* gemm;          // [element_count]
    const GemmPackers* gemm_packers;  // [element_count]
    const MatrixUnit* matrix_unit;    // [element_count], without kernels where it has none; or null
    const DirectKernels* direct;      // float, double
    const StreamKernels* stream;      // float, double
    const ComplexStreamKernels* complex_stream;  // of float, of double
    const FetchKernels* fetch;                   // [element_count]
    const OptimKernels* optim;                   // float, double
    const NarrowKernels* narrow;
    const WindowKernels* window;                     // float, double
    const PlaneKernels* planes;                      // float, double
    const NeighbourKernels* neighbours;              // float, double
    const TransformKernels* transform;               // float, double
    const AttentionKernels* attention;               // float, double
    const AttentionDirectKernels* attention_direct;  // [storage_count]
};

}  // namespace unitstride

#ifdef UNITSTRIDE_ISA
namespace unitstride::UNITSTRIDE_ISA {

// The only names with external linkage in the objects of an instruction set.
extern const PackKernels pack_kernels[storage_count];
extern const SoftmaxKernels softmax_kernels[storage_count];
extern const SoftmaxVjpKernels softmax_vjp_kernels[storage_count];
extern const ProbeKernels probe_kernels;
extern const GemmKernels gemm_kernels[element_count];
extern const GemmPackers gemm_packers[element_count];
extern const DirectKernels direct_kernels[2];
extern const StreamKernels stream_kernels[2];
extern const ComplexStreamKernels complex_stream_kernels[2];
extern const FetchKernels fetch_kernels[element_count];
extern const OptimKernels optim_kernels[2];
extern const NarrowKernels narrow_kernels;
extern const WindowKernels window_kernels[2];
extern const PlaneKernels plane_kernels[2];
extern const NeighbourKernels neighbour_kernels[2];
extern const TransformKernels transform_kernels[2];
extern const AttentionKernels attention_kernels[2];
extern const AttentionDirectKernels attention_direct_kernels[storage_count];
extern const KernelTable table;

}  // namespace unitstride::UNITSTRIDE_ISA
#endif
