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

constexpr size steps_ahead = 8;  // of four rows each

// The rows of one step: `count` of them, `lanes` apart, from `first` on.
struct TurnStep {
    size first, count;
};

// A vector of each row of the tile goes to the output, scaled.
template <class S>
[[gnu::always_inline]] inline void leave_step(const SoftmaxTurn& turn, const TurnStep& step, size c,
                                              const Compute<S>* place, size place_stride,
                                              Vec<Compute<S>> factor,
                                              Vec<Compute<S>> rest) noexcept {
    S* to = static_cast<S*>(turn.out) + step.first * turn.out_stride + c;
    const size to_stride = lanes<Compute<S>> * turn.out_stride;
#pragma GCC unroll 4
    for (int k = 0; k < group_vectors; ++k, to += to_stride, place += place_stride) {
        if (k >= step.count) break;
        const Vec<Compute<S>> result = scaled(load(place), factor, rest);
        if (turn.streaming) {
            store_streaming_as(to, result);
        } else {
            store_as(to, result);
        }
    }
}

// The exponentials of a vector of each row of x come into the tile.
template <class S>
[[gnu::always_inline]] inline void enter_step(const SoftmaxTurn& turn, const TurnStep& step, size c,
                                              size steps_to_prefetched, Compute<S>* place,
                                              size place_stride,
                                              const ColumnsState<Compute<S>>& state,
                                              const ExpConstants<Compute<S>>& constants,
                                              WideSum<Compute<S>>& plain) noexcept {
    using T = Compute<S>;
    const S* from = static_cast<const S*>(turn.x) + step.first * turn.x_stride + c;
    const LineOrigin<T> origin = state.origin(c);
    LineAccumulators<T> sums = {};
    sums.plain = plain;
    Vec<T> v[group_vectors], e[group_vectors], best = load(state.highest + c);
#pragma GCC unroll 4
    for (int k = 0; k < group_vectors; ++k, from += lanes<T> * turn.x_stride) {
        v[k] = splat(-static_cast<T>(__builtin_huge_val()));
        if (k >= step.count) continue;
        prefetch_second_level(from + steps_to_prefetched * turn.x_stride);
        v[k] = load_as(from);
        best = max_or_second(v[k], best);
    }
    exp_scaled<T, is_coarse<S>>(v, origin, constants, e);
#pragma GCC unroll 4
    for (int k = 0; k < group_vectors; ++k) {
        if (k < step.count) {
            store(place + k * place_stride, e[k]);
        } else {
            e[k] = Vec<T>{};
        }
    }
    accumulate_group<T, true, false>(v, e, origin.highest, sums);
    plain = sums.plain;
    store(state.highest + c, best);
}

template <class S, bool enters, bool leaves>
inline void turn_rows(const SoftmaxTurn& turn, size begin, size end) noexcept {
    using T = Compute<S>;
    constexpr size width = lanes<T>, group = group_vectors * width;
    const SoftmaxColumns& entering = *turn.entering;
    const ExpConstants<T> constants = exp_constants<T>(entering);
    const ColumnsState<T> state(entering), leaving(leaves ? *turn.leaving : entering);
    const size blocks = entering.width / width, place_stride = width * entering.width;
    for (size lane = 0; lane < width && begin + lane < end; ++lane) {
        const TurnStep step = {begin + lane, (end - begin - lane + width - 1) / width};
        const size ahead = lane + steps_ahead < width ? steps_ahead : steps_ahead - width + group;
        T* row = tile_row<T>(entering, step.first);
        const auto do_step = [&](const TurnStep& rows) [[gnu::always_inline]] {
            for (size block = 0; block < blocks; ++block) {
                const size c = block * width;
                if constexpr (leaves)
                    leave_step<S>(turn, rows, c, row + c, place_stride, load(leaving.factor + c),
                                  load(leaving.factor_rest + c));
                if constexpr (enters)
                    enter_step<S>(turn, rows, c, ahead, row + c, place_stride, state, constants,
                                  state.plain[lane * blocks + block]);
            }
        };
        if (step.count >= group_vectors) {  // a constant, so that no row is asked for
            do_step({step.first, group_vectors});
        } else {
            do_step(step);
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
