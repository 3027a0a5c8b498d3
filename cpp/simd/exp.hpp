// exp without a rounded subtraction.
//
// Note [Exact shift]. A softmax needs exp((x - max) / temperature). Rounding `x - max` costs up to
// |x - max| / 2 ULP of the result, so the maximum is taken off where it costs nothing: in the
// exponent of the result. With n = round(x / step), step = temperature * ln 2, the remainder x - n
// * step is computed by fma without any rounding error but that of step's second word, and the
// result is exp(remainder / temperature) * 2^(n - offset) where `offset` is round(max / step).
// Where max is so far from zero that n would be large, every x within reach of the maximum has at
// least half its magnitude, x - max is exact (Sterbenz), and it is subtracted first (`shift`).
//
// Note [Scaled exponentials]. Results carry the factor 2^scale_bits, so that neither they nor their
// sums ever are subnormal, down to results that are zero in the final type; the factor goes into
// the normalisation. Arguments further below the maximum than `reach` are raised to it: what they
// stand for is zero in the final type.
//
// Results of 16 bits take a shorter polynomial and one word of the remainder (`coarse`): an error
// of 2^-22 does not show in their 11 bits.
//
// Error of float: below 0.92 ULP over all 2^32 arguments; of double: below 0.96 ULP
// (docs/accuracy.md). The remainder is kept in two words for that.
#pragma once

#include "core/exp_constants.hpp"
#include "simd/compare.hpp"
#include "simd/vec.hpp"

namespace unitstride::UNITSTRIDE_ISA {
namespace {

template <class T>
struct ExpFormat;
template <>
struct ExpFormat<float> {
    static constexpr float rounder = 0x1.8p23f;  // adding it leaves round(value) in the low bits
    static constexpr int fraction_bits = 23, bias = 127, scale_bits = 64;
    static constexpr float polynomial[] = {0x1.6d117cp-10f, 0x1.120be2p-7f, 0x1.555518p-5f,
                                           0x1.5554dcp-3f, 0.5f};
    static constexpr float coarse_polynomial[] = {0x1.1057f6p-7f, 0x1.572806p-5f, 0x1.5557ccp-3f,
                                                  0x1.fffe0ap-2f, 1.0f};
};
template <>
struct ExpFormat<double> {
    static constexpr double rounder = 0x1.8p52;
    static constexpr int fraction_bits = 52, bias = 1023, scale_bits = 512;
    static constexpr double polynomial[] = {
        0x1.af390ba7e6f47p-26, 0x1.2891d4ffbb0f9p-22, 0x1.71de0d85293b8p-19, 0x1.a019b8ca26fcfp-16,
        0x1.a01a01a7cebcdp-13, 0x1.6c16c1789d1d7p-10, 0x1.11111111109a6p-7,  0x1.5555555553d37p-5,
        0x1.5555555555556p-3,  0x1.0000000000001p-1};
};

// The constants of a task, as a copy: stores through other pointers cannot change it, so its
// vectors stay in registers.
template <class T, class Task>
inline ExpConstants<T> exp_constants(const Task& task) noexcept {
    return *static_cast<const ExpConstants<T>*>(task.constants);
}

// exp(first + rest) - 1 for |first + rest| <= ln 2 / 2, rest being about the rounding error of
// first.
template <class T, int n>
[[gnu::always_inline]] inline void exp_minus_one_small(const Vec<T> (&first)[n],
                                                       const Vec<T> (&rest)[n],
                                                       Vec<T> (&result)[n]) noexcept {
    using Format = ExpFormat<T>;
    Vec<T> r[n], q[n];
#pragma GCC unroll 4
    for (int k = 0; k < n; ++k) r[k] = first[k] + rest[k];
#pragma GCC unroll 4
    for (int k = 0; k < n; ++k) q[k] = splat(Format::polynomial[0]);
#pragma GCC unroll 16
    for (std::size_t i = 1; i < sizeof Format::polynomial / sizeof(T); ++i) {
#pragma GCC unroll 4
        for (int k = 0; k < n; ++k) q[k] = multiply_add(q[k], r[k], splat(Format::polynomial[i]));
    }
#pragma GCC unroll 4
    for (int k = 0; k < n; ++k) result[k] = first[k] + multiply_add(r[k] * r[k], q[k], rest[k]);
}
template <class T>
[[gnu::always_inline]] inline Vec<T> exp_minus_one_small(Vec<T> r) noexcept {
    const Vec<T> first[1] = {r}, rest[1] = {};
    Vec<T> result[1];
    exp_minus_one_small<T>(first, rest, result);
    return result[0];
}

template <class T, int n>
[[gnu::always_inline]] inline void coarse_exp_minus_one(Vec<T> (&r)[n]) noexcept {
    using Format = ExpFormat<T>;
    Vec<T> q[n];
#pragma GCC unroll 4
    for (int k = 0; k < n; ++k) q[k] = splat(Format::coarse_polynomial[0]);
#pragma GCC unroll 16
    for (std::size_t i = 1; i < sizeof Format::coarse_polynomial / sizeof(T); ++i) {
#pragma GCC unroll 4
        for (int k = 0; k < n; ++k)
            q[k] = multiply_add(q[k], r[k], splat(Format::coarse_polynomial[i]));
    }
#pragma GCC unroll 4
    for (int k = 0; k < n; ++k) r[k] = q[k] * r[k];
}

// Where a line's exponentials are measured from, one line per lane.
template <class T>
struct LineOrigin {
    Vec<T> highest;
    Vec<T> lowest;  // of x - shift
    Vec<T> shift;
    bool shifted;    // whether any lane is
    Vec<T> rounder;  // adding it to a quotient leaves the exponent of the result in the low bits
};

// x - n * step without rounding, n = round(x / step) as bits (`quotient`) and value.
template <class T>
[[gnu::always_inline]] inline Vec<T> reduce(Vec<T> x, Vec<T> n,
                                            const ExpConstants<T>& constants) noexcept {
    Vec<T> r = multiply_add(n, splat(constants.minus_step_high), x);
    if constexpr (!has_fma) r = multiply_add(n, splat(constants.minus_step_middle), r);
    return multiply_add(n, splat(constants.minus_step_low), r);
}

// `n` vectors in step.
template <class T, bool coarse, int n>
[[gnu::always_inline]] inline void exp_scaled_in_step(const Vec<T>* x, const LineOrigin<T>& origin,
                                                      const ExpConstants<T>& constants,
                                                      Vec<T>* result) noexcept {
    using Format = ExpFormat<T>;
    const Vec<T> rounder = origin.rounder;
    Vec<T> quotient[n], r[n], rest[n], power[n];
#pragma GCC unroll 4
    for (int k = 0; k < n; ++k) r[k] = x[k];
    if (origin.shifted) {
#pragma GCC unroll 4
        for (int k = 0; k < n; ++k) r[k] = r[k] - origin.shift;
    }
#pragma GCC unroll 4
    for (int k = 0; k < n; ++k) r[k] = max_or_second(origin.lowest, r[k]);
#pragma GCC unroll 4
    for (int k = 0; k < n; ++k)
        quotient[k] = multiply_add(r[k], splat(constants.inverse_step), rounder);
    // The remainder in two words: the first without error, the second what the first lacks.
#pragma GCC unroll 4
    for (int k = 0; k < n; ++k) {
        const Vec<T> whole = quotient[k] - rounder;
        r[k] = multiply_add(whole, splat(constants.minus_step_high), r[k]);
        if constexpr (coarse && has_fma) {
            r[k] = multiply_add(whole, splat(constants.minus_step_low), r[k]);
            continue;
        }
        rest[k] = whole * splat(constants.minus_step_low);
        if constexpr (!has_fma)
            rest[k] = multiply_add(whole, splat(constants.minus_step_middle), rest[k]);
        if constexpr (coarse) r[k] = r[k] + rest[k];
    }
#pragma GCC unroll 4
    for (int k = 0; k < n; ++k)
        power[k] = reinterpret_cast<Vec<T>>(reinterpret_cast<IntVec<T>>(quotient[k])
                                            << Format::fraction_bits);
    if (constants.tempered) {
        const Vec<T> inverse = splat(constants.inverse_temperature);
#pragma GCC unroll 4
        for (int k = 0; k < n; ++k) {
            const Vec<T> product = r[k] * inverse;
            if constexpr (!coarse) rest[k] = rest[k] * inverse;
            if constexpr (has_fma && !coarse)
                rest[k] = rest[k] + multiply_add(r[k], inverse, -product);
            r[k] = product;
        }
    }
    if constexpr (coarse) {
        coarse_exp_minus_one<T>(r);
    } else {
        exp_minus_one_small<T>(r, rest, r);
    }
#pragma GCC unroll 4
    for (int k = 0; k < n; ++k) result[k] = multiply_add(r[k], power[k], power[k]);
}
// Vectors go in pairs: singly they would fill the core's queue with instructions that wait for the
// one before, and more at a time do not fit the registers.
template <class T, bool coarse = false, int n>
[[gnu::always_inline]] inline void exp_scaled(const Vec<T> (&x)[n], const LineOrigin<T>& origin,
                                              const ExpConstants<T>& constants,
                                              Vec<T> (&result)[n]) noexcept {
    constexpr int step = 2;
    static_assert(n % step == 0);
#pragma GCC unroll 4
    for (int k = 0; k < n; k += step)
        exp_scaled_in_step<T, coarse, step>(x + k, origin, constants, result + k);
}
template <class T, bool coarse = false>
[[gnu::always_inline]] inline Vec<T> exp_scaled(Vec<T> x, const LineOrigin<T>& origin,
                                                const ExpConstants<T>& constants) noexcept {
    Vec<T> result;
    exp_scaled_in_step<T, coarse, 1>(&x, origin, constants, &result);
    return result;
}

// The bits of a number's exponent, and with them the results' own factor.
template <class T>
constexpr T exponent_base = static_cast<T>(ExpFormat<T>::scale_bits + ExpFormat<T>::bias);

// The origin of lines whose maxima are `highest`. Offsets are even: whatever the offset, quotients
// halfway between two integers then go to the same one.
template <class T>
inline LineOrigin<T> line_origin(Vec<T> highest, const ExpConstants<T>& constants) noexcept {
    using Format = ExpFormat<T>;
    const Vec<T> far = splat(constants.far);
    const auto is_near = (highest < far) & (highest > -far);  // false for NaN and the infinities
    const Vec<T> zero = {};
    const Vec<T> near_part = is_near ? highest : zero, shift = is_near ? zero : highest;
    const Vec<T> rounder = splat(Format::rounder);
    const Vec<T> half = multiply_add(near_part, splat(constants.inverse_step * T(0.5)), rounder);
    const Vec<T> offset = splat(T(2)) * (half - rounder);
    return {highest, near_part - splat(constants.reach), shift, any_nonzero(shift),
            (rounder + splat(exponent_base<T>)) - offset};
}

// exp(r) of what an even number of powers of two leaves: |r| is at most about ln 2.
inline F64 exp_of_remainder(F64 r) noexcept {
    constexpr double half_ln2 = 0x1.62e42fefa39efp-2;
    constexpr double ln2_first = 0x1.62e42feep-1, ln2_second = 0x1.a39ef35793c76p-33;
    const F64 whole = r > splat(half_ln2) ? splat(1.0) : r < splat(-half_ln2) ? splat(-1.0) : F64{};
    const F64 power = whole > F64{} ? splat(2.0) : whole < F64{} ? splat(0.5) : splat(1.0);
    const F64 rest = (r - whole * splat(ln2_first)) - whole * splat(ln2_second);
    return (splat(1.0) + exp_minus_one_small<double>(rest)) * power;
}

// By how many powers of two the line's exponentials are divided: about (max - shift) / step.
template <class T>
inline Vec<T> origin_offset(const LineOrigin<T>& origin) noexcept {
    return splat(ExpFormat<T>::rounder + exponent_base<T>) - origin.rounder;
}

}  // namespace
}  // namespace unitstride::UNITSTRIDE_ISA
