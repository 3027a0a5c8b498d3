// Sums of products of a window that moves along a line: direct convolution.
#pragma once

#include <cstddef>

namespace unitstride {

// y[i] = sum over r and j of taps[r, j] * x[r * row_step + i + j], `outputs` values of i, all in
// the compute type; `taps` are in the order in which they meet x.
struct WindowTask {
    const void* x;
    const void* taps;
    void* y;
    std::ptrdiff_t outputs, tap_count;
    // Lines side by side: how many, and the elements from one place of a line to the next.
    std::ptrdiff_t columns, x_stride, y_stride;
    // One contiguous line only: rows of taps, `tap_count` each; what is added to each sum (null:
    // nothing); and whether a result v is v / (1 + exp(-v)).
    std::ptrdiff_t tap_rows = 1, row_step = 0;
    const void* bias = nullptr;
    bool silu = false;
};

struct WindowKernels {
    void (*line)(const WindowTask&) noexcept;     // one contiguous line; `columns` is not used
    void (*columns)(const WindowTask&) noexcept;  // lines side by side, contiguous across
};

}  // namespace unitstride
