// Softmax of lines that lie side by side in a tile: row i of the tile holds element i of every
// line.
//
// The tile is filled and emptied by the op, which alternates these functions over blocks of rows
// with the filling of the next tile and the emptying of the last one, so that memory and arithmetic
// overlap. A line's sum is formed in the order of Note [One order of summation], hence to the bits
// of the row form.
#pragma once

#include "kernels/softmax_line.hpp"

namespace unitstride::UNITSTRIDE_ISA {
namespace {

// Views into SoftmaxColumns::state.
template <class T>
struct ColumnsState {
    T *highest, *lowest, *shift, *rounder, *factor, *factor_rest;
    IntLane<T>* maxima;
    double* log_sum;
    WideSum<T>*plain, *excess;  // [lanes][width / lanes]

    static constexpr size wide_bytes = static_cast<size>(sizeof(WideSum<T>));
    static size bytes(size width) noexcept {
        return width * static_cast<size>(6 * sizeof(T) + sizeof(IntLane<T>) + sizeof(double)) +
               2 * width * wide_bytes;
    }
    explicit ColumnsState(const SoftmaxColumns& task) noexcept {
        const size width = task.width;
        plain = static_cast<WideSum<T>*>(task.state);  // lanes * (width / lanes) of them
        excess = plain + width;
        highest = reinterpret_cast<T*>(excess + width);
        lowest = highest + width;
        shift = lowest + width;
        rounder = shift + width;
        factor = rounder + width;
        factor_rest = factor + width;
        maxima = reinterpret_cast<IntLane<T>*>(factor_rest + width);
        log_sum = reinterpret_cast<double*>(maxima + width);
    }
    LineOrigin<T> origin(size column) const noexcept {
        const Vec<T> off = load(shift + column);
        return {load(highest + column), load(lowest + column), off, any_nonzero(off),
                load(rounder + column)};
    }
};

template <class T>
inline T* tile_row(const SoftmaxColumns& task, size row) noexcept {
    return static_cast<T*>(task.tile) + row * task.width;
}

template <class T>
void columns_begin(SoftmaxColumns& task) noexcept {
    const ColumnsState<T> state(task);
    const size used = task.length < lanes<T> ? task.length : lanes<T>;
    const size blocks = task.width / lanes<T>;
    for (size i = 0; i < used * blocks; ++i) state.plain[i] = WideSum<T>{};
    for (size i = 0; i < used * blocks; ++i) state.excess[i] = WideSum<T>{};
    for (size c = 0; c < task.width; ++c) {
        state.highest[c] = -static_cast<T>(__builtin_huge_val());
        state.maxima[c] = 0;
    }
}

template <class T>
void columns_max(SoftmaxColumns& task, size begin, size end) noexcept {
    const ColumnsState<T> state(task);
    for (size c = 0; c < task.width; c += lanes<T>) {
        Vec<T> even = load(state.highest + c), odd = even;
        size row = begin;
        for (; row + 2 <= end; row += 2) {
            even = max_or_second(load(tile_row<T>(task, row) + c), even);
            odd = max_or_second(load(tile_row<T>(task, row + 1) + c), odd);
        }
        if (row < end) even = max_or_second(load(tile_row<T>(task, row) + c), even);
        store(state.highest + c, max_or_second(even, odd));
    }
}

template <class T>
inline void store_origin(const ColumnsState<T>& state, size c,
                         const LineOrigin<T>& origin) noexcept {
    store(state.lowest + c, origin.lowest);
    store(state.shift + c, origin.shift);
    store(state.rounder + c, origin.rounder);
}

template <class T>
void columns_origin(SoftmaxColumns& task) noexcept {
    const ColumnsState<T> state(task);
    const ExpConstants<T> constants = exp_constants<T>(task);
    for (size c = 0; c < task.width; c += lanes<T>)
        store_origin<T>(state, c, line_origin<T>(load(state.highest + c), constants));
}

// Note [Early origin]. Scaled exponentials relative to another power of two are the same but for
// that power, exactly, as long as nothing overflows or is so small that it cannot matter. So a
// line's exponentials may be computed before its maximum is known, from an offset that the first
// rows suggest: memory is then read and worked on in one go. If in the end the maximum lies too far
// from the guess (or is not finite), the tile is done again with the right one.
// Powers of two by which the guess may miss.
template <class T>
constexpr T guess_below = 30;
template <class T>
constexpr T guess_above = 58;

template <class T>
void columns_early_origin(SoftmaxColumns& task) noexcept {
    const ColumnsState<T> state(task);
    const ExpConstants<T> constants = exp_constants<T>(task);
    const Vec<T> far = splat(constants.far), zero = {};
    for (size c = 0; c < task.width; c += lanes<T>) {
        const Vec<T> seen = load(state.highest + c);
        const auto is_near = (seen < far) & (seen > -far);
        store_origin<T>(state, c, line_origin<T>(is_near ? seen : zero, constants));
    }
}

template <class T>
bool columns_origin_holds(const SoftmaxColumns& task) noexcept {
    const ColumnsState<T> state(task);
    const ExpConstants<T> constants = exp_constants<T>(task);
    const Vec<T> far = splat(constants.far);
    IntVec<T> holds = ~IntVec<T>{};
    for (size c = 0; c < task.width; c += lanes<T>) {
        const Vec<T> highest = load(state.highest + c);
        const Vec<T> missed = load(state.rounder + c) - line_origin<T>(highest, constants).rounder;
        const auto is_near = (highest < far) & (highest > -far);
        holds &= reinterpret_cast<IntVec<T>>(is_near & (missed <= splat(guess_below<T>)) &
                                             (missed >= splat(-guess_above<T>)));
    }
    bool all = true;
    for (size l = 0; l < lanes<T>; ++l) all &= holds[l] != 0;
    return all;
}

template <class S, bool keep, bool with_plain, bool with_excess>
inline void columns_exp_as(SoftmaxColumns& task, size begin, size end) noexcept {
    using T = Compute<S>;
    constexpr size width = lanes<T>, group = group_vectors * width;
    const ColumnsState<T> state(task);
    const ExpConstants<T> constants = exp_constants<T>(task);
    const size blocks = task.width / width;
    for (size first = begin; first < end; first += group) {
        const size used =
            end - first < width ? end - first : width;  // lane positions that have an element
        for (size block = 0; block < blocks; ++block) {
            const size c = block * width;
            const LineOrigin<T> origin = state.origin(c);
            LineAccumulators<T> sums = {};
            sums.maxima = load_vector<IntVec<T>>(state.maxima + c);
            for (size lane = 0; lane < used; ++lane) {
                Vec<T> v[group_vectors], e[group_vectors];
#pragma GCC unroll 4
                for (int k = 0; k < group_vectors; ++k) {
                    const size row = first + lane + k * width;
                    v[k] = splat(-static_cast<T>(__builtin_huge_val()));
                    e[k] = Vec<T>{};
                    if (row >= end) continue;
                    T* place = tile_row<T>(task, row) + c;
                    v[k] = load(place);
                    e[k] = exp_scaled<T, is_coarse<S>>(v[k], origin, constants);
                    if constexpr (keep) store(place, e[k]);
                }
                if constexpr (with_plain) sums.plain = state.plain[lane * blocks + block];
                if constexpr (with_excess) sums.excess = state.excess[lane * blocks + block];
                accumulate_group<T, with_plain, with_excess>(v, e, origin.highest, sums);
                if constexpr (with_plain) state.plain[lane * blocks + block] = sums.plain;
                if constexpr (with_excess) state.excess[lane * blocks + block] = sums.excess;
            }
            store_vector(state.maxima + c, sums.maxima);
        }
    }
}

template <class S>
void columns_exp(SoftmaxColumns& task, size begin, size end) noexcept {
    if (task.output != SoftmaxOutput::softmax) {
        columns_exp_as<S, false, false, true>(task, begin, end);
    } else if (task.keep_sums) {
        columns_exp_as<S, true, true, true>(task, begin, end);
    } else {
        columns_exp_as<S, true, true, false>(task, begin, end);
    }
}

template <class T>
inline void store_factors(T* factor, size half, F64 scale, F64* kept) noexcept {
    if constexpr (sizeof(T) == 8) {
        store(factor, scale);
    } else if (half == 0) {
        *kept = scale;
    } else {
        store(factor, narrow(*kept, scale));
    }
}

// The scale factors of `lanes<double>` lines from their plain sums.
template <class T>
inline Reciprocal scale_of(const WideSum<T>& plain, int half) noexcept {
    return reciprocal(plain.words(half), plain.rests(half));
}

// `half` picks the lower or upper lanes of float, which are one vector of double each.
template <class T>
inline F64 widen_half(Vec<T> v, int half) noexcept {
    if constexpr (sizeof(T) == 8) {
        return v;
    } else {
        return half ? widen_high(v) : widen_low(v);
    }
}

template <class T>
inline void sum_half_block(SoftmaxColumns& task, const ColumnsState<T>& state, size block,
                           int half) noexcept {
    const ExpConstants<T> constants = exp_constants<T>(task);
    const LineOrigin<T> origin = state.origin(block * lanes<T>);
    const size c = block * lanes<T> + half * lanes<double>;
    F64 maxima;
    for (size l = 0; l < lanes<double>; ++l) maxima[l] = static_cast<double>(state.maxima[c + l]);
    const auto& others = state.excess[block];
    const F64 excess = excess_of<T>(others.words(half) + others.rests(half), maxima,
                                    widen_half<T>(origin.highest - origin.shift, half),
                                    widen_half<T>(origin_offset<T>(origin), half), constants);
    if (task.output == SoftmaxOutput::log_softmax) store(state.log_sum + c, log1p_positive(excess));
    for (size l = 0; l < lanes<double>; ++l)
        task.sums[c + l] = {static_cast<double>(state.highest[c + l]), excess[l],
                            excess[l] != excess[l]};
}

// Scale factors, sums and logarithms of all lines.
template <class T>
void columns_sum(SoftmaxColumns& task) noexcept {
    const ColumnsState<T> state(task);
    const size blocks = task.width / lanes<T>;
    const size used = task.length < lanes<T> ? task.length : lanes<T>;
    for (size block = 0; block < blocks; ++block) {
        if (task.keep_sums) {
            fold_accumulators<T>(state.excess + block, blocks, used);
            for (int half = 0; half < halves<T>; ++half)
                sum_half_block<T>(task, state, block, half);
        }
        if (task.output != SoftmaxOutput::softmax) continue;
        fold_accumulators<T>(state.plain + block, blocks, used);
        T* factor = state.factor + block * lanes<T>;
        if constexpr (halves<T> == 1) {
            const Reciprocal inverse = scale_of<T>(state.plain[block], 0);
            store(factor, inverse.first);
            store(state.factor_rest + block * lanes<T>, inverse.rest);
        } else {
            store(factor, narrow(scale_of<T>(state.plain[block], 0).first,
                                 scale_of<T>(state.plain[block], 1).first));
            store(state.factor_rest + block * lanes<T>, Vec<T>{});
        }
        for (size l = 0; l < lanes<T>; ++l)
            task.sums[block * lanes<T> + l].has_nan = factor[l] != factor[l];
    }
}

template <class T>
inline void finish_softmax(SoftmaxColumns& task, const ColumnsState<T>& state, size begin,
                           size end) noexcept {
    for (size c = 0; c < task.width; c += lanes<T>) {
        const Vec<T> factor = load(state.factor + c), rest = load(state.factor_rest + c);
        const auto defined = factor == factor;
        const Vec<T> nan = splat(static_cast<T>(__builtin_nan("")));
        for (size row = begin; row < end; ++row) {
            T* place = tile_row<T>(task, row) + c;
            store(place, defined ? scaled(load(place), factor, rest) : nan);
        }
    }
}

template <class T>
inline void finish_log(SoftmaxColumns& task, const ColumnsState<T>& state, size begin,
                       size end) noexcept {
    const ExpConstants<T> constants = exp_constants<T>(task);
    const Vec<T> nan = splat(static_cast<T>(__builtin_nan("")));
    for (size c = 0; c < task.width; c += lanes<T>) {
        F64 highest[halves<T>], log_sum[halves<T>];
        for (int half = 0; half < halves<T>; ++half) {
            highest[half] = widen_half<T>(load(state.highest + c), half);
            log_sum[half] = load(state.log_sum + c + half * lanes<double>);
        }
        const LogSumOrigin<T> origin(highest, log_sum);
        const auto defined = origin.log_sum == origin.log_sum;
        for (size row = begin; row < end; ++row) {
            T* place = tile_row<T>(task, row) + c;
            store(place, defined ? subtract_log_sum(load(place), origin, constants) : nan);
        }
    }
}

// The tile's rows become results.
template <class T>
void columns_finish(SoftmaxColumns& task, size begin, size end) noexcept {
    const ColumnsState<T> state(task);
    if (task.output == SoftmaxOutput::softmax) finish_softmax<T>(task, state, begin, end);
    if (task.output == SoftmaxOutput::log_softmax) finish_log<T>(task, state, begin, end);
}

}  // namespace
}  // namespace unitstride::UNITSTRIDE_ISA
