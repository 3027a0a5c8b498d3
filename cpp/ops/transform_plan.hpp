// How a convolution is cut for Fourier transforms.
//
// Note [Overlap-save]: outputs come in blocks of `step`. A transform of `points` sees the `skip`
// inputs before a block and those of the block itself, so that the circular products with `taps` of
// the kernel are right from `skip` on. A kernel longer than that falls into pieces of `taps`; then
// step, skip and taps are the same, and what piece p needs for block b is the window of block
// b - p: each window is transformed once.
//
// Where the whole line fits, the kernel may be longer than `skip`: what wraps around falls on
// places that are not wanted.
#pragma once

#include <cstddef>

namespace unitstride {

struct TransformShape {
    std::ptrdiff_t lines, kernels;  // kernels: 1, or one for each of several lines
    std::ptrdiff_t length, taps;    // of a line and a kernel
    std::ptrdiff_t start, outputs;  // of the whole convolution
    bool is_real;                   // two real signals make a complex one
    bool may_wrap;                  // zeros lie beyond the ends
    std::ptrdiff_t lanes;
    std::ptrdiff_t vector_bytes;
};

enum class TransformForm {
    blocks,      // a block in each lane; the kernel in one piece
    pieces,      // the same of one line; several pieces
    whole_lines  // a line in each lane, as the real part, and its own kernel as the imaginary one
};

struct TransformPlan {
    TransformForm form;
    int logarithm;
    std::ptrdiff_t points, skip, step, blocks;
    std::ptrdiff_t taps, pieces;
    double nanoseconds;  // estimated, on one thread
};

TransformPlan plan_transform(const TransformShape& shape);
// In blocks, of a length that is given: taps <= 2^logarithm.
TransformPlan plan_blocks(const TransformShape& shape, int logarithm);

}  // namespace unitstride
