// Windows that move over planes: sums of products with a few taps, and the taps' own gradients.
#pragma once

#include <cstddef>

namespace unitstride {

// y[r, i] = sum over taps t of taps[t] * x[r * x_step + i + places[t]], in the compute type. `tile`
// takes rows of taps: row p meets x p * x_step further, and `places` are those of one row. `line`
// takes one row of results and a place for each tap (tap_rows is 1).
//
// Whole vectors are computed: `slack_bytes` beyond the results of each row (of `tile`) or of the
// line (of `line`) must be there to be written in y and read in x.
struct PlaneTask {
    const void* x;
    const void* taps;
    void* y;
    std::ptrdiff_t rows, columns, x_step, y_step;
    std::ptrdiff_t tap_rows, tap_columns;
    const std::ptrdiff_t* places;
    const void* bias;  // what is added to each sum (null: nothing)
    bool silu;         // whether a result v is v / (1 + exp(-v))
};

// sums[t] += sum over r and i of slopes[r, i] * x[r * x_step + i + places[t]], and sums[taps] +=
// sum of the slopes. Nothing beyond the columns is read.
struct ProductTask {
    const void* x;
    const void* slopes;
    double* sums;
    std::ptrdiff_t rows, columns, x_step, slope_step;
    std::ptrdiff_t taps;
    const std::ptrdiff_t* places;
};

struct PlaneKernels {
    void (*tile)(const PlaneTask&) noexcept;
    void (*line)(const PlaneTask&) noexcept;
    void (*products)(const ProductTask&) noexcept;
    std::ptrdiff_t slack_bytes;
};

}  // namespace unitstride
