// Products that memory limits: each element of the inputs is used once or a few times.
#pragma once

#include <cstddef>

namespace unitstride {

// c[r, i] = alpha * a[r, i] * b[r, i] + beta * c[r, i]; strides in elements, any.
struct MapTask {
    const void* a;
    const void* b;
    void* c;
    std::ptrdiff_t rows, columns;
    std::ptrdiff_t a_row, b_row, c_row, a_column, b_column, c_column;
    double alpha, beta;            // beta == 0: c is not read
    bool streaming;                // stores go past the caches where c is contiguous
    double alpha_imag, beta_imag;  // of complex numbers
};

// sums[r * sum_stride] = sum of a[r, k] * b[r, k]; a is contiguous along k, b too or constant.
struct DotTask {
    const void* a;
    const void* b;
    void* sums;
    std::ptrdiff_t rows, depth;
    std::ptrdiff_t a_row, b_row, b_depth, sum_stride;
    bool adds;  // to what is in `sums`
};

// sums[i] = sum over k of a[k, i] * b[k, i]; a is contiguous along i, b too or constant.
struct ColumnTask {
    const void* a;
    const void* b;
    void* sums;
    std::ptrdiff_t columns, depth;
    std::ptrdiff_t a_depth, b_depth, b_column;
    bool adds;  // to what is in `sums`
};

struct StreamKernels {
    void (*map)(const MapTask&) noexcept;
    void (*dots)(const DotTask&) noexcept;
    void (*columns)(const ColumnTask&) noexcept;
};

// The same of complex numbers: c is contiguous, a and b are contiguous or constant along a row; all
// strides count pairs. By parts: b is real, every number twice, or one number for both parts.
struct ComplexStreamKernels {
    void (*map)(const MapTask&) noexcept;
    void (*dots)(const DotTask&) noexcept;
    void (*dots_by_parts)(const DotTask&) noexcept;
    void (*columns)(const ColumnTask&) noexcept;
};

}  // namespace unitstride
