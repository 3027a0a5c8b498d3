// What the kernels of the softmax gradients offer.
#pragma once

#include <cstddef>

#include "core/storage.hpp"
#include "kernels/softmax.hpp"

namespace unitstride {

enum class SoftmaxVjp : int { softmax, log_softmax, logsumexp };

// What all lines of a call have in common.
struct VjpCommon {
    SoftmaxVjp gradient;
    double inverse_temperature;
    const void* constants;  // ExpConstants of the compute type; of temperature 1 for log_softmax
};

// Contiguous lines. `primal` is y for softmax and log_softmax, x for logsumexp.
struct VjpRows {
    VjpCommon common;
    const void* primal;
    const void* cotangent;  // null for logsumexp
    void* out;
    std::ptrdiff_t rows, length;
    std::ptrdiff_t primal_stride, cotangent_stride, out_stride;
    const void* log_sum;         // logsumexp: one per line, of the compute type
    const void* line_cotangent;  // logsumexp: one per line, of the compute type
    bool streaming;
};

// A sum in two words.
struct VjpSum {
    double sum, error;
};

// Lines side by side: `width` of them, a multiple of the lanes.
struct VjpColumns {
    VjpCommon common;
    std::ptrdiff_t length, width;
    void* state;                 // columns_state_bytes(width), aligned to 64 bytes
    const void* log_sum;         // logsumexp: one per line, of the compute type
    const void* line_cotangent;  // logsumexp: one per line, of the compute type
};

// Rows of lines side by side: elements of neighbouring lines are neighbours.
struct VjpOperands {
    const void* primal;
    const void* cotangent;
    std::ptrdiff_t primal_stride, cotangent_stride;  // elements from row to row
};

// A pass over rows: those of `leaving` become results, those of `entering` are added up, and kept
// in its tile, which may be the memory where `leaving` has its own.
struct VjpTurn {
    const VjpColumns* entering;  // null: nothing enters
    const VjpColumns* leaving;   // null: nothing leaves
    VjpOperands from;            // of `entering`
    void* primal_tile;           // where `entering` is kept, `width` elements a row; null: nowhere
    void* cotangent_tile;
    VjpOperands source;  // of `leaving`
    void* out;
    std::ptrdiff_t out_stride;
    bool streaming;  // `out` and its rows are aligned to cache lines
};

struct SoftmaxVjpKernels {
    void (*rows)(const VjpRows&) noexcept;
    // Every second element of the inputs, whose strides count pairs.
    void (*rows_every_second)(const VjpRows&) noexcept;
    // The halves of `rows` for a piece (one row) of a longer line.
    VjpSum (*sum)(const VjpRows&) noexcept;
    void (*write)(const VjpRows&, VjpSum) noexcept;
    // Columns run in this order; ranges of a turn begin at multiples of `group`. `columns_piece`
    // comes after each piece of the lines.
    std::ptrdiff_t (*columns_state_bytes)(std::ptrdiff_t width) noexcept;
    void (*columns_begin)(const VjpColumns&) noexcept;
    void (*columns_turn)(const VjpTurn&, std::ptrdiff_t begin, std::ptrdiff_t end) noexcept;
    void (*columns_piece)(const VjpColumns&, std::ptrdiff_t length) noexcept;
    void (*columns_summed)(const VjpColumns&) noexcept;
    std::ptrdiff_t lanes;  // of the compute type
    std::ptrdiff_t group;  // elements that are added up before the accumulator takes them
};

// The next sum of a line whose pieces are added up in order.
inline VjpSum add_piece(VjpSum total, VjpSum part) noexcept {
    const double sum = total.sum + part.sum, moved = sum - total.sum;
    total.error += part.error + ((total.sum - (sum - moved)) + (part.sum - moved));
    total.sum = sum;
    return total;
}

}  // namespace unitstride
