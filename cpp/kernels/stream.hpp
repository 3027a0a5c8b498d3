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
    double alpha, beta;  // beta == 0: c is not read
    bool streaming;      // stores go past the caches where c is contiguous
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

// c[i, j] = alpha * a[i, j]: a is contiguous along i, c along j.
struct TransposeTask {
    const void* a;
    void* c;
    std::ptrdiff_t rows, columns;  // i, j
    std::ptrdiff_t a_column, c_row;
    double alpha;
    bool streaming;
};

struct StreamKernels {
    void (*map)(const MapTask&) noexcept;
    void (*dots)(const DotTask&) noexcept;
    void (*columns)(const ColumnTask&) noexcept;
    void (*transpose)(const TransposeTask&) noexcept;
};

}  // namespace unitstride
