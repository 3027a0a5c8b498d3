// Tiles of arrays of any strides and type, brought to contiguous rows and back.
#pragma once

#include <cstddef>

namespace unitstride {

// to[r * to_row + i] = from[r * from_row + i * from_column]: 16-bit types become float, others move
// as they are. `from_row` may run backwards.
struct FetchTask {
    const void* from;
    void* to;
    std::ptrdiff_t rows, columns, from_row, from_column, to_row;
};

// to[r * to_row + i * to_column] = from[r * from_row + i], rounded to 16 bits where the type is.
struct SpillTask {
    const void* from;
    void* to;
    std::ptrdiff_t rows, columns, from_row, to_row, to_column;
    bool streaming;  // stores of 16-bit types go past the caches where rows are contiguous
};

struct FetchKernels {
    void (*fetch)(const FetchTask&) noexcept;
    void (*fetch_twice)(const FetchTask&) noexcept;  // reals only: x, x; `to_row` counts pairs
    void (*spill)(const SpillTask&) noexcept;
};

}  // namespace unitstride
