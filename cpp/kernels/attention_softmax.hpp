// Scores to weights and their sums; the division at the end. Part of every attention.cpp.
//
// Note [Late rescaling]. Exponentials are powers of two measured from `level`, a score. It is
// raised to the block's highest score only when that lies more than 2^8 above it: until then
// weights are at most 2^8, nothing overflows, and the averages need no multiplication. The division
// at the end makes the choice of the level invisible.
//
// Note [Far levels]. score * factor - level * factor is one operation when the second product is
// rounded first. Its rounding error moves the level, which does not show while it is a fraction of
// one; but that of 10^10 is beyond the range of exponents. Scores that large come from biases that
// stand for a mask. Rows whose level lies beyond `far_level` subtract first, which is exact for
// all scores that count.
#pragma once

#include "kernels/attention.hpp"
#include "simd/exp2.hpp"

namespace unitstride::UNITSTRIDE_ISA {
namespace {

constexpr int vectors_in_step = 2;
template <class T>
constexpr T level_margin = 8;

template <class T>
inline bool is_far(T level, T factor) noexcept {
    const T power = level * factor;
    return !(power <= far_level<T> && -power <= far_level<T>);
}

// How many powers of two `score` lies above the level `from`; both are what weights are measured
// from, see Note [Far levels].
template <class T>
inline T powers_above(T score, T from, T factor) noexcept {
    if (is_far(from, factor))
        return is_far(score, factor)
                   ? (score - from) * factor
                   : -multiply_add(splat(from), splat(factor), splat(-(score * factor)))[0];
    return is_far(score, factor)
               ? multiply_add(splat(score), splat(factor), splat(-(from * factor)))[0]
               : score * factor - from * factor;
}

// Raises the level of row `r` where a block needs it; returns what its exponents are measured from.
template <class T>
inline T raise_level(AttentionStrip& strip, size r) noexcept {
    const T factor = static_cast<T>(strip.factor);
    T& level = static_cast<T*>(strip.level)[r];
    T& rescale = static_cast<T*>(strip.rescale)[r];
    const T now = highest_lane(load(static_cast<T*>(strip.highest) + r * lanes<T>));
    rescale = 1;
    if (level == -infinity<T>) {
        if (now > level) {
            rescale = 0;
            level = now;
            strip.rescales = true;
        }
        return level == -infinity<T> ? T(0) : level;
    }
    const T above = powers_above(now, level, factor);
    if (above > level_margin<T>) {
        rescale = exp2_flushed<T>(splat(-above))[0];
        level = now;
        strip.rescales = true;
    }
    return level;
}

// Exponents of a few vectors of scores; `base` is the level, times the factor where it is near.
template <class T, bool far>
inline void exponents(const T* score, T base, Vec<T> factor, Vec<T>* x) noexcept {
#pragma GCC unroll 4
    for (int v = 0; v < vectors_in_step; ++v) {
        const Vec<T> s = load(score + v * lanes<T>);
        x[v] = far ? (s - splat(base)) * factor : multiply_add(s, factor, splat(-base));
    }
}

// Scores of a row to weights, added to `total` and given to put(row, key, weights).
template <class T, bool far, bool coarse = false, class Put>
inline void weigh_row(const T* score, size r, size begin, size end, T base, Vec<T> factor,
                      Vec<T>* total, const Put& put) noexcept {
    constexpr int step = vectors_in_step;
    for (size k = begin; k < end; k += step * lanes<T>) {
        Vec<T> x[step], weight[step];
        exponents<T, far>(score + k, base, factor, x);
        exp2_in_step<T, coarse>(x, weight);
#pragma GCC unroll 4
        for (int v = 0; v < step; ++v) total[v] = total[v] + weight[v];
        put(r, k, weight);
    }
}

// Scores lie `row_keys` apart from row to row.
template <class T, size row_keys, class Put>
inline void weigh_rows(AttentionStrip& strip, const Put& put) noexcept {
    const Vec<T> factor = splat(static_cast<T>(strip.factor));
    strip.rescales = false;
    for (size r = 0; r < strip.rows; ++r) {
        const T level = raise_level<T>(strip, r);
        const T* score = static_cast<const T*>(strip.scores) + r * row_keys;
        T* sums = static_cast<T*>(strip.sums) + r * lanes<T>;
        Vec<T> total[vectors_in_step] = {};
        total[0] = load(sums) * splat(static_cast<T*>(strip.rescale)[r]);
        if (is_far(level, factor[0]))
            weigh_row<T, true>(score, r, strip.begin, strip.end, level, factor, total, put);
        else
            weigh_row<T, false>(score, r, strip.begin, strip.end, level * factor[0], factor, total,
                                put);
        store(sums, total[0] + total[1]);
    }
}

inline double sum_of_lanes(F64 v) noexcept {
#pragma GCC unroll 8
    for (size half = lanes<double> / 2; half > 0; half /= 2)
        for (size lane = 0; lane < half; ++lane) v[lane] += v[lane + half];
    return v[0];
}
inline double sum_of_lanes(F32 v) noexcept { return sum_of_lanes(widen_low(v) + widen_high(v)); }

// Of averages in panels of `rows` x `width`.
template <class T, size rows, size width>
void finish(const AttentionStrip& strip) noexcept {
    for (size r = 0; r < strip.rows; ++r) {
        const T* sums = static_cast<const T*>(strip.sums) + r * lanes<T>;
        const double total = sum_of_lanes(load(sums));
        strip.totals[r] = total;
        const Vec<T> inverse = splat(total == 0 ? T(0) : static_cast<T>(1 / total));
        T* row = static_cast<T*>(strip.averages) + r * width;
        for (size p = 0; p < strip.value_panels; ++p, row += rows * width)
#pragma GCC unroll 4
            for (size at = 0; at < width; at += lanes<T>)
                store(row + at, strip.first ? Vec<T>{} : load(row + at) * inverse);
    }
}

MaskState mask_state(const AttentionStrip& strip) noexcept {
    typedef unsigned char Bytes __attribute__((vector_size(16)));
    Bytes unset = {}, set = {};
    for (size r = 0; r < strip.rows; ++r)
        for (size k = strip.begin; k < strip.end; k += 16) {
            const auto bytes = load_vector<Bytes>(strip.row[r].mask + k);
            const auto is_zero = reinterpret_cast<Bytes>(bytes == Bytes{});
            unset |= is_zero;
            set |= ~is_zero;
        }
    bool any_unset = false, any_set = false;
    for (int lane = 0; lane < 16; ++lane) {
        any_unset = any_unset || unset[lane];
        any_set = any_set || set[lane];
    }
    return !any_unset ? MaskState::all : any_set ? MaskState::some : MaskState::none;
}

template <class T>
bool all_finite(const void* elements, size count) noexcept {
    const T* from = static_cast<const T*>(elements);
    Vec<T> sum = {};
    for (size i = 0; i < count; i += lanes<T>) sum = multiply_add(load(from + i), Vec<T>{}, sum);
    for (size lane = 0; lane < lanes<T>; ++lane)
        if (!(sum[lane] == T(0))) return false;
    return true;
}

}  // namespace
}  // namespace unitstride::UNITSTRIDE_ISA
