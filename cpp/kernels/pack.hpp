// Moving rectangles between arrays of any strides and packed tiles.
#pragma once

#include <cstddef>

namespace unitstride {

// A rectangle in an array, `row_stride` and `column_stride` in elements, and a tile of the compute
// type whose rows are contiguous and `tile_stride` elements apart.
struct PackTask {
    const void* array;  // written by unpack
    void* tile;
    std::ptrdiff_t rows, columns;
    std::ptrdiff_t row_stride, column_stride, tile_stride;
    bool streaming;  // unpack: stores go past the caches where they are aligned
};

// A boolean mask over the same rectangle: elements where it is false become `fill` in the tile.
struct MaskTask {
    const unsigned char* mask;
    void* tile;
    std::ptrdiff_t rows, columns;
    std::ptrdiff_t row_stride, column_stride, tile_stride;
    double fill;
};

// One set per storage type.
struct PackKernels {
    void (*pack)(const PackTask&) noexcept;
    void (*unpack)(const PackTask&) noexcept;
    void (*mask)(const MaskTask&) noexcept;
};

}  // namespace unitstride
