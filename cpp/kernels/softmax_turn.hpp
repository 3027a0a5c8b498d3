// One tile's exponentials and the results of the tile before it, in a single pass over rows of the
// array.
//
// Lines lie side by side in the array itself, so rows need no packing: a vector of x is loaded, its
// exponential takes the place in the tile of one of the tile before, which goes to the output,
// scaled, at that moment. Four rows of a group are worked on together, whole, and the rows of the
// steps to come are asked for: a row is often a page of its own, and its address translation is the
// dearest part of reading it.
#pragma once

#include "kernels/softmax_columns.hpp"

namespace unitstride::UNITSTRIDE_ISA {
namespace {

constexpr size steps_ahead = 4;  // of four rows each

template <class S, bool enters, bool leaves>
inline void turn_rows(const SoftmaxTurn& turn, size begin, size end) noexcept {
    using T = Compute<S>;
    constexpr size width = lanes<T>, group = group_vectors * width;
    const SoftmaxColumns& entering = *turn.entering;
    const ExpConstants<T> constants = exp_constants<T>(entering);
    const ColumnsState<T> state(entering), leaving(leaves ? *turn.leaving : entering);
    const size blocks = entering.width / width;
    T* tile = static_cast<T*>(entering.tile);
    const S* x = static_cast<const S*>(turn.x);
    S* out = static_cast<S*>(turn.out);
    const bool streams = turn.streaming;
    for (size lane = 0; lane < width && begin + lane < end; ++lane) {
        for (size block = 0; block < blocks; ++block) {
            const size c = block * width;
            LineOrigin<T> origin;
            LineAccumulators<T> sums = {};
            Vec<T> best = {}, factor = {}, rest = {};
            if constexpr (enters) {
                origin = state.origin(c);
                best = load(state.highest + c);
                sums.plain = state.plain[lane * blocks + block];
            }
            if constexpr (leaves) {
                factor = load(leaving.factor + c);
                rest = load(leaving.factor_rest + c);
            }
            Vec<T> v[group_vectors], e[group_vectors];
#pragma GCC unroll 4
            for (int k = 0; k < group_vectors; ++k) {
                const size row = begin + lane + k * width;
                e[k] = Vec<T>{};
                if (row >= end) continue;
                T* place = tile + row * entering.width + c;
                if constexpr (leaves) {
                    S* to = out + row * turn.out_stride + c;
                    const Vec<T> result = scaled(load(place), factor, rest);
                    if (streams) {
                        store_streaming_as(to, result);
                    } else {
                        store_as(to, result);
                    }
                }
                if constexpr (enters) {
                    const S* from = x + row * turn.x_stride + c;
                    const size ahead =
                        lane + steps_ahead < width ? steps_ahead : steps_ahead - width + group;
                    prefetch(from + ahead * turn.x_stride);
                    v[k] = load_as(from);
                    best = max_or_second(v[k], best);
                    e[k] = exp_scaled<T, is_coarse<S>>(v[k], origin, constants);
                    store(place, e[k]);
                }
            }
            if constexpr (enters) {
                accumulate_group<T, true, false>(v, e, origin.highest, sums);
                state.plain[lane * blocks + block] = sums.plain;
                store(state.highest + c, best);
            }
        }
    }
}

template <class S>
void columns_turn(const SoftmaxTurn& turn, std::ptrdiff_t begin, std::ptrdiff_t end) noexcept {
    if (turn.x == nullptr) {
        turn_rows<S, false, true>(turn, begin, end);
    } else if (turn.out == nullptr) {
        turn_rows<S, true, false>(turn, begin, end);
    } else {
        turn_rows<S, true, true>(turn, begin, end);
    }
    if (turn.streaming && turn.out != nullptr) finish_streaming();
}

// The origin that the first rows suggest, before any exponential: rows as they lie in the array.
template <class S>
void columns_first_max(SoftmaxColumns& task, const void* array, std::ptrdiff_t stride,
                       std::ptrdiff_t rows) noexcept {
    using T = Compute<S>;
    const ColumnsState<T> state(task);
    const S* x = static_cast<const S*>(array);
    for (size row = 0; row < rows; ++row)
        for (size c = 0; c < task.width; c += lanes<T>)
            store(state.highest + c,
                  max_or_second(load_as(x + row * stride + c), load(state.highest + c)));
}

}  // namespace
}  // namespace unitstride::UNITSTRIDE_ISA
