// What the softmax kernels of every instruction set offer: plain data and function pointers.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/exp_constants.hpp"
#include "core/float_status.hpp"
#include "core/storage.hpp"

namespace unitstride {

enum class SoftmaxOutput : int {
    softmax,      // exp(x - max) / sum
    log_softmax,  // (x - max) - log sum
    none,         // only the log of the sum
};

// What one line sums to: max / temperature + log1p(excess) is its logsumexp.
struct LineSum {
    double highest;  // of the line, in units of x
    double excess;   // sum of exp((x - max) / temperature) over all elements but one that is the
                     // maximum
    bool has_nan;
};

// Lines of contiguous elements, one after the other.
struct SoftmaxRows {
    const void* x;
    void* out;  // contiguous lines of the same storage
    std::ptrdiff_t rows, length;
    std::ptrdiff_t x_stride, out_stride;  // elements from line to line
    const void* constants;                // ExpConstants of the compute type
    void* scratch;  // two lines of the compute type, aligned to 64 bytes, 64 bytes spare each
    std::ptrdiff_t scratch_stride;  // elements between them
    LineSum* sums;                  // one per line, or null
    SoftmaxOutput output;
    bool streaming;   // stores go past the caches
    unsigned status;  // FloatStatus of the lines, accumulated
};

// Lines side by side: element i of line c at tile[i * width + c]; `width` is a multiple of the
// lanes.
struct SoftmaxColumns {
    void* tile;
    std::ptrdiff_t length, width;
    const void* constants;
    void* state;  // columns_state_bytes(width), aligned to 64 bytes
    LineSum*
        sums;  // `width` of them; `has_nan` is set where the line's sum is NaN, for whatever reason
    bool keep_sums;  // `sums` are wanted, or the output is not softmax
    SoftmaxOutput output;
};

// Two tiles that change places, row by row: `leaving` goes to `out`, scaled, and the exponentials
// of `x` come in. Both tiles share memory, width and length; elements of neighbouring lines are
// neighbours in x and out.
struct SoftmaxTurn {
    const SoftmaxColumns* entering;  // also names the memory where nothing enters
    const SoftmaxColumns* leaving;
    const void* x;                        // row 0 of the tile; null: nothing enters
    void* out;                            // null: nothing leaves
    std::ptrdiff_t x_stride, out_stride;  // elements from row to row
    bool streaming;                       // `out` and its rows are aligned to vectors
};

// A piece of a line too long for the scratch.
struct SoftmaxPiece {
    const void* x;
    void* out;
    std::ptrdiff_t length;
    const void* constants;
    double highest;  // of the whole line
    double scale;    // softmax: 1 / sum in units of exp(max / temperature); log_softmax: the log of
                     // the sum
    void* scratch;
    bool streaming;
};

// One set per storage type.
struct SoftmaxKernels {
    void (*rows)(SoftmaxRows&) noexcept;
    // Every second element of x: `x_stride` counts pairs.
    void (*rows_every_second)(SoftmaxRows&) noexcept;
    // Lines of the compute type, packed from this storage.
    void (*packed_rows)(SoftmaxRows&) noexcept;
    // Columns run in this order over ranges of rows of the tile; ranges begin at multiples of
    // `group`.
    std::ptrdiff_t (*columns_state_bytes)(std::ptrdiff_t width) noexcept;
    void (*columns_begin)(SoftmaxColumns&) noexcept;
    void (*columns_max)(SoftmaxColumns&, std::ptrdiff_t begin, std::ptrdiff_t end) noexcept;
    void (*columns_origin)(SoftmaxColumns&) noexcept;
    // An origin from the rows seen so far, and whether it serves when all have been seen (Note
    // [Early origin]).
    void (*columns_early_origin)(SoftmaxColumns&) noexcept;
    bool (*columns_origin_holds)(const SoftmaxColumns&) noexcept;
    void (*columns_exp)(SoftmaxColumns&, std::ptrdiff_t begin, std::ptrdiff_t end) noexcept;
    void (*columns_sum)(SoftmaxColumns&) noexcept;
    void (*columns_finish)(SoftmaxColumns&, std::ptrdiff_t begin, std::ptrdiff_t end) noexcept;
    void (*columns_first_max)(SoftmaxColumns&, const void* x, std::ptrdiff_t stride,
                              std::ptrdiff_t rows) noexcept;
    void (*columns_turn)(const SoftmaxTurn&, std::ptrdiff_t begin, std::ptrdiff_t end) noexcept;
    void (*piece)(SoftmaxPiece&, SoftmaxOutput output) noexcept;
    void (*packed_piece)(SoftmaxPiece&, SoftmaxOutput output) noexcept;
    // value[i] = highest * inverse_temperature + log1p(excess), with the limits that NaN and
    // infinities have.
    void (*logs)(const LineSum* sums, double* value, std::ptrdiff_t count,
                 double inverse_temperature) noexcept;
    std::ptrdiff_t lanes;  // of the compute type
    std::ptrdiff_t group;  // elements whose sum is formed before the wide accumulator takes it
};

}  // namespace unitstride
