// The parts of a softmax that the row form and the column form share.
#pragma once

#include "kernels/softmax.hpp"
#include "kernels/wide_sum.hpp"
#include "simd/compare.hpp"
#include "simd/exp.hpp"
#include "simd/log.hpp"
#include "simd/storage.hpp"

namespace unitstride::UNITSTRIDE_ISA {
namespace {

// What a pass of exponentials adds up.
//   plain:  all elements, for the normalisation
//   excess: all elements that are not the maximum, and how often the maximum occurs: the logarithm
//   of a sum that one
//           element dominates is log1p of the others
template <class T>
struct LineAccumulators {
    WideSum<T> plain, excess;
    IntVec<T> maxima;
};

template <class T, bool with_plain, bool with_excess>
[[gnu::always_inline]] inline void accumulate_group(const Vec<T> (&x)[group_vectors],
                                                    const Vec<T> (&p)[group_vectors],
                                                    Vec<T> highest,
                                                    LineAccumulators<T>& sums) noexcept {
    const Vec<T> all = (p[0] + p[1]) + (p[2] + p[3]);
    if constexpr (with_plain) sums.plain.add(all);
    if constexpr (with_excess) {
        if (!any_equal(x, highest)) [[likely]] {  // few groups hold a maximum
            sums.excess.add(all);
            return;
        }
        Vec<T> others[group_vectors];
#pragma GCC unroll 4
        for (int k = 0; k < group_vectors; ++k) {
            others[k] = zero_where_equal(x[k], highest, p[k]);
            sums.maxima = count_equal(x[k], highest, sums.maxima);
        }
        sums.excess.add((others[0] + others[1]) + (others[2] + others[3]));
    }
}

// 1 / (sum + error) in two words: doubles are scaled with both, floats with the first alone.
struct Reciprocal {
    F64 first, rest;
};
inline Reciprocal reciprocal(F64 sum, F64 error) noexcept {
    const F64 inverse = splat(1.0) / sum;
    if constexpr (!has_fma) return {inverse - inverse * (error * inverse), F64{}};
    return {inverse, inverse * (multiply_add(-sum, inverse, splat(1.0)) - error * inverse)};
}

inline F32 scaled(F32 p, F32 scale, F32) noexcept { return p * scale; }
inline F64 scaled(F64 p, F64 scale, F64 rest) noexcept {
    if constexpr (!has_fma) return p * scale;
    return multiply_add(p, scale, p * rest);
}

// exp((max - shift) / temperature) / 2^offset: what the scaled exponential of the maximum is, but
// for the scale.
template <class T>
inline F64 maximum_power(F64 near_part, F64 offset, const ExpConstants<T>& constants) noexcept {
    if constexpr (sizeof(T) == 8) {
        return exp_of_remainder(reduce<double>(near_part, offset, constants) *
                                splat(constants.inverse_temperature));
    } else {
        // offset is below 1000: what ln2 lacks does not show in float
        constexpr double ln2 = 0x1.62e42fefa39efp-1;
        return exp_of_remainder(near_part * splat(constants.inverse_temperature_wide) -
                                offset * splat(ln2));
    }
}

template <class T>
constexpr double unscale = sizeof(T) == 8 ? 0x1p-512 : 0x1p-64;  // 2^-scale_bits

// Sum of exp((x - max) / temperature) over all elements but one maximum, from the scaled sum over
// the others. `near_part` is max - shift and `offset` the powers of two taken off, of the line's
// origin.
template <class T>
inline F64 excess_of(F64 others, F64 maxima, F64 near_part, F64 offset,
                     const ExpConstants<T>& constants) noexcept {
    return (maxima - splat(1.0)) +
           (others * splat(unscale<T>)) / maximum_power<T>(near_part, offset, constants);
}

// (x - max) / temperature - log_sum. Neither term is positive, so nothing cancels, and at a
// temperature of 1 the plain differences are within 1.5 ULP. At others, a difference beyond the
// range of the type may come back into it: the wider type, or the rounding errors kept, take care.
template <class T>
struct LogSumOrigin;
template <>
struct LogSumOrigin<float> {
    F32 highest, log_sum;
    F64 wide_highest[2], wide_log_sum[2];  // of the lower and the upper lanes
    LogSumOrigin() = default;
    LogSumOrigin(const F64 (&h)[2], const F64 (&l)[2]) noexcept
        : highest(narrow(h[0], h[1])),
          log_sum(narrow(l[0], l[1])),
          wide_highest{h[0], h[1]},
          wide_log_sum{l[0], l[1]} {}
};
template <>
struct LogSumOrigin<double> {
    F64 highest, log_sum;
    LogSumOrigin() = default;
    LogSumOrigin(const F64 (&h)[1], const F64 (&l)[1]) noexcept : highest(h[0]), log_sum(l[0]) {}
};

[[gnu::always_inline]] inline F32 subtract_log_sum(F32 x, const LogSumOrigin<float>& origin,
                                                   const ExpConstants<float>& constants) noexcept {
    if (!constants.tempered) return (x - origin.highest) - origin.log_sum;
    const F64 inverse = splat(constants.inverse_temperature_wide);
    return narrow((widen_low(x) - origin.wide_highest[0]) * inverse - origin.wide_log_sum[0],
                  (widen_high(x) - origin.wide_highest[1]) * inverse - origin.wide_log_sum[1]);
}
[[gnu::always_inline]] inline F64 subtract_log_sum(F64 x, const LogSumOrigin<double>& origin,
                                                   const ExpConstants<double>& constants) noexcept {
    const F64 d = x - origin.highest;
    if (!constants.tempered) return d - origin.log_sum;
    const F64 part = d - x;
    const F64 error = (x - (d - part)) - (origin.highest + part);
    const F64 inverse = splat(constants.inverse_temperature);
    const F64 y = multiply_add(d, inverse, -origin.log_sum) + error * inverse;
    return d > splat(-0x1.fffffffffffffp1023) ? y : d;  // -inf has no error term; NaN stays
}

template <class S>
inline bool holds_nan(const S* x, size length) noexcept {
    bool found = false;
    for (size i = 0; i < length; i += lanes<Compute<S>>) {
        const size count = length - i < lanes<Compute<S>> ? length - i : lanes<Compute<S>>;
        const auto v = load_first_as(x + i, count, Compute<S>(0));
        for (size l = 0; l < count; ++l) found |= v[l] != v[l];
    }
    return found;
}

}  // namespace
}  // namespace unitstride::UNITSTRIDE_ISA
