// Sums of products of a window that moves along a line: direct convolution.
#pragma once

#include <cstddef>

namespace unitstride {

// y[i] = sum over j of taps[j] * x[i + j], `outputs` values of i, all in the compute type; `taps`
// are in the order in which they meet x.
struct WindowTask {
    const void* x;
    const void* taps;
    void* y;
    std::ptrdiff_t outputs, tap_count;
    // Lines side by side: how many, and the elements from one place of a line to the next.
    std::ptrdiff_t columns, x_stride, y_stride;
};

struct WindowKernels {
    void (*line)(const WindowTask&) noexcept;     // one contiguous line; `columns` is not used
    void (*columns)(const WindowTask&) noexcept;  // lines side by side, contiguous across
};

}  // namespace unitstride
