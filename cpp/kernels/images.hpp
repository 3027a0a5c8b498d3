// Convolution of images with channels on a unit that multiplies matrices.
//
// Note [Records]. Where an image's element stands, its channels stand next to one another as
// bfloat16 parts, one record of each part: a row of the unit's squares. A tap meets the records of
// neighbouring results in neighbouring places, so that it is a distance, and every element is cut
// into parts once for all taps. The kernels' taps are packed as panels of B.
#pragma once

#include "kernels/gemm.hpp"

namespace unitstride {

// Planes of floats to records: `place` is where each element of a record finds its first value.
struct RecordTask {
    const float* planes;
    const std::ptrdiff_t* place;
    std::ptrdiff_t elements, length;  // of a record, up to `depth`, and how many records
    char* records;
    std::ptrdiff_t part_bytes;  // from part to part
    PowerRange* range;
};

// Results of up to `lines` kernels at `positions` neighbouring places: results[kernel * stride +
// position] = bias + the sum over all steps of records times weights.
struct ImageTask {
    const char* records;
    const std::ptrdiff_t* step;  // [steps], bytes from `records` to those of each step
    std::ptrdiff_t steps, positions, part_bytes;
    const char* weights;  // a panel
    std::ptrdiff_t kernels;
    const float* bias;  // null: none
    float* sums;        // [positions, filled up to `lines`][lines], memory of the thread's own
    float* results;     // the same places
    std::ptrdiff_t result_stride;
};

// Lines of floats to a panel of A, of which the places are the summed index.
struct LinesTask {
    const float* planes;
    std::ptrdiff_t stride, lines, length;
    char* panel;
    PowerRange* range;
};

// sums[tap] += slopes[line, position] * pairs[position + tap's distance, element], summed over
// positions: four squares of up to `lines` lines by as many elements, one after the other.
struct ImageProductsTask {
    const char* slopes;  // a panel
    const char* pairs;
    const std::ptrdiff_t* tap;  // [taps], bytes from `pairs` to those of each tap
    std::ptrdiff_t taps, positions, lines, elements;
    std::ptrdiff_t part_bytes, block_bytes;  // of pairs: from part to part, to the next elements
    float* sums;                             // [taps][lines of a panel][the same]
};

struct ImageKernels {
    std::ptrdiff_t lines;  // of a panel
    std::ptrdiff_t depth;  // of a step
    std::ptrdiff_t parts, record_bytes, step_bytes;
    std::ptrdiff_t products;  // of parts
    void (*records)(const RecordTask&) noexcept;
    void (*multiply)(const ImageTask&) noexcept;
    void (*pairs)(const RecordTask&) noexcept;  // of half as many elements
    void (*lines_of)(const LinesTask&) noexcept;
    void (*add_products)(const ImageProductsTask&) noexcept;
};

}  // namespace unitstride
