// The kernel table of the instruction set this file is compiled for.
#include "kernels/table.hpp"

namespace unitstride::UNITSTRIDE_ISA {

extern constinit const KernelTable table = {
#if defined(__AVX512F__)
    .name = "avx512",
    .vector_bytes = 64,
    .fused = true,
#elif defined(__AVX2__)
    .name = "avx2",
    .vector_bytes = 32,
    .fused = true,
#else
    .name = "baseline",
    .vector_bytes = 16,
#if defined(__aarch64__)
    .fused = true,
#else
    .fused = false,
#endif
#endif
    .line_scratch_bytes = 640 << 10,
    .piece_bytes = 64 << 10,
    .tile_bytes = 512 << 10,
    .wide_tile_bytes = 1 << 20,
    .tile_width = 512,
    .block_bytes = 4 << 20,
    .streaming_bytes = 8 << 20,
    .short_line_elements = 32,
    .pack = pack_kernels,
    .softmax = softmax_kernels,
    .softmax_vjp = softmax_vjp_kernels,
    .probe = &probe_kernels,
    .gemm = gemm_kernels,
    .gemm_packers = gemm_packers,
    .matrix_unit = nullptr,
    .direct = direct_kernels,
    .stream = stream_kernels,
    .complex_stream = complex_stream_kernels,
    .fetch = fetch_kernels,
    .optim = optim_kernels,
    .narrow = &narrow_kernels,
    .window = window_kernels,
    .planes = plane_kernels,
    .neighbours = neighbour_kernels,
    .transform = transform_kernels,
    .attention = attention_kernels,
    .attention_direct = attention_direct_kernels,
};

}  // namespace unitstride::UNITSTRIDE_ISA
