// Gradients of lines that lie side by side: row i holds element i of every line.
//
// Rows are read where they lie in the arrays, added to the accumulators of their lines and kept in
// a tile, until the sums are known; then they become results while the rows of the next tile take
// their places. The order of summation is that of the row form (Note [One order of summation]), so
// both give the same bits.
#pragma once

#include "kernels/softmax_vjp_line.hpp"

namespace unitstride::UNITSTRIDE_ISA {
namespace {

// Views into VjpColumns::state.
template <class T>
struct VjpColumnsState {
    WideSum<T>* total;  // [lanes][width / lanes]
    double *sum, *error;
    T *factor, *rest, *lowest, *shift, *upper, *rounder;
    bool* has_undefined;

    static size bytes(size width) noexcept {
        const size line = 2 * static_cast<size>(sizeof(double)) + 6 * static_cast<size>(sizeof(T));
        return width * (static_cast<size>(sizeof(WideSum<T>)) + line) + 64;
    }
    explicit VjpColumnsState(const VjpColumns& task) noexcept {
        const size width = task.width;
        total = static_cast<WideSum<T>*>(task.state);
        sum = reinterpret_cast<double*>(total + width);
        error = sum + width;
        factor = reinterpret_cast<T*>(error + width);
        rest = factor + width;
        lowest = rest + width;
        shift = lowest + width;
        upper = shift + width;
        rounder = upper + width;
        has_undefined = reinterpret_cast<bool*>(rounder + width);
    }
    void set(size column, const LineSlope<T>& slope) const noexcept {
        factor[column] = slope.factor;
        rest[column] = slope.rest;
        lowest[column] = slope.lowest;
        shift[column] = slope.shift;
        upper[column] = slope.upper;
        rounder[column] = slope.rounder;
    }
    VectorSlope<T> slope(size column) const noexcept {
        const Vec<T> shifts = load(shift + column);
        return {load(factor + column), load(rest + column),    load(lowest + column), shifts,
                load(upper + column),  load(rounder + column), any_nonzero(shifts)};
    }
};

template <class T>
std::ptrdiff_t vjp_columns_state_bytes(std::ptrdiff_t width) noexcept {
    return VjpColumnsState<T>::bytes(width);
}

template <class T>
void vjp_columns_begin(const VjpColumns& task) noexcept {
    const VjpColumnsState<T> state(task);
    for (size i = 0; i < task.width; ++i) state.total[i] = WideSum<T>{};
    for (size c = 0; c < task.width; ++c) state.sum[c] = state.error[c] = 0;
}

// The accumulators of a piece of `length` elements go into the sums of the lines.
template <class T>
void vjp_columns_piece(const VjpColumns& task, std::ptrdiff_t length) noexcept {
    const VjpColumnsState<T> state(task);
    const size blocks = task.width / lanes<T>, used = length < lanes<T> ? length : lanes<T>;
    for (size block = 0; block < blocks; ++block) {
        fold_accumulators<T>(state.total + block, blocks, used);
        const WideSum<T>& total = state.total[block];
        for (size l = 0; l < lanes<T>; ++l) {
            const int half = static_cast<int>(l / lanes<double>);
            const size c = block * lanes<T> + l, lane = l % lanes<double>;
            const VjpSum sum = add_piece({state.sum[c], state.error[c]},
                                         {total.words(half)[lane], total.rests(half)[lane]});
            state.sum[c] = sum.sum;
            state.error[c] = sum.error;
        }
    }
    for (size i = 0; i < task.width; ++i) state.total[i] = WideSum<T>{};
}

// From the sums of the lines, or from what is known of them, to their slopes.
template <class T>
void vjp_columns_summed(const VjpColumns& task) noexcept {
    const VjpColumnsState<T> state(task);
    *state.has_undefined = false;
    if (task.common.gradient == SoftmaxVjp::logsumexp) {
        LineSlope<T> slopes[lanes<double>];
        for (size c = 0; c < task.width; c += lanes<double>) {
            if (!log_sum_slopes<T>(task.common, static_cast<const T*>(task.log_sum) + c,
                                   static_cast<const T*>(task.line_cotangent) + c, lanes<double>,
                                   slopes))
                *state.has_undefined = true;
            for (size l = 0; l < lanes<double>; ++l) state.set(c + l, slopes[l]);
        }
        return;
    }
    for (size c = 0; c < task.width; ++c) {
        const VjpSum total = {state.sum[c], state.error[c]};
        state.set(c, task.common.gradient == SoftmaxVjp::softmax
                         ? SoftmaxSlope<T>::of(total, task.common)
                         : LogSoftmaxSlope<T>::of(total, task.common));
    }
}

// For how far ahead memory is asked: a row is often a page of its own.
constexpr size vjp_steps_ahead = 2;  // of four rows each
constexpr size vjp_rows_ahead = 4;

template <class S>
struct VjpRowReader {
    const S *primal, *cotangent;
    size primal_stride, cotangent_stride;
    explicit VjpRowReader(const VjpOperands& operands) noexcept
        : primal(static_cast<const S*>(operands.primal)),
          cotangent(static_cast<const S*>(operands.cotangent)),
          primal_stride(operands.primal_stride),
          cotangent_stride(operands.cotangent_stride) {}
    const S* primal_at(size row, size c) const noexcept { return primal + row * primal_stride + c; }
    const S* cotangent_at(size row, size c) const noexcept {
        return cotangent + row * cotangent_stride + c;
    }
};

template <class S>
[[gnu::always_inline]] inline void copy_vector(void* tile, size place, const S* source) noexcept {
    struct Bytes {
        unsigned char byte[stored_vector_bytes<S>];
    };
    __builtin_memcpy(static_cast<S*>(tile) + place, source, sizeof(Bytes));
}

// Rows that only become results, one after the other.
template <class S, class Slope>
inline void vjp_write_rows(const VjpTurn& turn, size begin, size end) noexcept {
    using T = Compute<S>;
    constexpr size width = lanes<T>;
    const VjpColumns& leaving = *turn.leaving;
    const VjpColumnsState<T> state(leaving);
    const VjpRowReader<S> source(turn.source);
    const bool streams = turn.streaming;
    const size columns = leaving.width;
    S* out = static_cast<S*>(turn.out);
    Slope slope(leaving.common);
    for (size row = begin; row < end; ++row) {
        for (size c = 0; c < columns; c += width) {
            slope.slope = state.slope(c);
            prefetch_second_level(source.primal_at(row + vjp_rows_ahead, c));
            Vec<T> dy = {};
            if constexpr (Slope::with_cotangent) dy = load_as(source.cotangent_at(row, c));
            const Vec<T> result = slope(load_as(source.primal_at(row, c)), dy);
            S* to = out + row * turn.out_stride + c;
            if (streams) {
                store_streaming_as(to, result);
            } else {
                store_as(to, result);
            }
        }
    }
}

// Rows that come in and, if `leaves`, rows of another tile that become results.
template <class S, class Slope, bool leaves>
inline void vjp_turn_rows(const VjpTurn& turn, size begin, size end) noexcept {
    using T = Compute<S>;
    constexpr size width = lanes<T>, group = group_vectors * width;
    const VjpColumns& entering = *turn.entering;
    const VjpColumnsState<T> state(entering), leaving(leaves ? *turn.leaving : entering);
    const VjpRowReader<S> from(turn.from), source(turn.source);
    const bool keeps = turn.primal_tile != nullptr, streams = turn.streaming;
    const size columns = entering.width, blocks = columns / width;
    S* out = static_cast<S*>(turn.out);
    Slope slope(entering.common);
    for (size lane = 0; lane < width && begin + lane < end; ++lane) {
        const size ahead =
            lane + vjp_steps_ahead < width ? vjp_steps_ahead : vjp_steps_ahead - width + group;
        for (size block = 0; block < blocks; ++block) {
            const size c = block * width;
            if constexpr (leaves) slope.slope = leaving.slope(c);
            WideVector<T> primal[group_vectors] = {}, cotangent[group_vectors] = {};
#pragma GCC unroll 4
            for (int k = 0; k < group_vectors; ++k) {
                const size row = begin + lane + k * width;
                if (row >= end) continue;
                if constexpr (leaves) {
                    const Vec<T> result = slope(load_as(source.primal_at(row, c)),
                                                load_as(source.cotangent_at(row, c)));
                    S* to = out + row * turn.out_stride + c;
                    if (streams) {
                        store_streaming_as(to, result);
                    } else {
                        store_as(to, result);
                    }
                }
                const S* dy = from.cotangent_at(row, c);
                prefetch_second_level(dy + ahead * from.cotangent_stride);
                cotangent[k] = load_wide(dy);
                if (keeps) copy_vector(turn.cotangent_tile, row * columns + c, dy);
                const S* y = from.primal_at(row, c);
                if (keeps || Slope::with_product)
                    prefetch_second_level(y + ahead * from.primal_stride);
                if constexpr (Slope::with_product) primal[k] = load_wide(y);
                if (keeps) copy_vector(turn.primal_tile, row * columns + c, y);
            }
            add_group<Slope::with_product>(state.total[lane * blocks + block], primal, cotangent);
        }
    }
}

template <class S, class Slope>
inline void vjp_turn_as(const VjpTurn& turn, size begin, size end) noexcept {
    if (turn.entering == nullptr) {
        vjp_write_rows<S, Slope>(turn, begin, end);
    } else if (turn.leaving == nullptr) {
        vjp_turn_rows<S, Slope, false>(turn, begin, end);
    } else {
        vjp_turn_rows<S, Slope, true>(turn, begin, end);
    }
}

template <class S>
void vjp_columns_turn(const VjpTurn& turn, std::ptrdiff_t begin, std::ptrdiff_t end) noexcept {
    using T = Compute<S>;
    const VjpColumns& either = turn.leaving != nullptr ? *turn.leaving : *turn.entering;
    if (either.common.gradient == SoftmaxVjp::softmax) {
        vjp_turn_as<S, SoftmaxSlope<T>>(turn, begin, end);
    } else if (either.common.gradient == SoftmaxVjp::log_softmax) {
        vjp_turn_as<S, LogSoftmaxSlope<T>>(turn, begin, end);
    } else if (*VjpColumnsState<T>(either).has_undefined) {
        vjp_write_rows<S, LogSumExpSlope<T, true>>(turn, begin, end);
    } else {
        vjp_write_rows<S, LogSumExpSlope<T, false>>(turn, begin, end);
    }
    if (turn.streaming) finish_streaming();
}

}  // namespace
}  // namespace unitstride::UNITSTRIDE_ISA
