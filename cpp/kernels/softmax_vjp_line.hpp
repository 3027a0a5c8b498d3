// The parts of the softmax gradients that the row form and the column form share: a line's sum, and
// the results that follow from it.
//
// Note [Two words of the sum]. A float result is computed in float. The line's sum is one of
// doubles; softmax takes it in two words, s and its rest: dy - s is exact where the two are near
// each other (Sterbenz), and y (dy - s) - y rest has one more rounding, so that the difference may
// cancel without harm. Of 1 / temperature the part above 1 goes to y and the part below 1 to the
// result, and dy - s is halved meanwhile: nothing overflows unless the result does.
//
// Note [Scaled weights]. Exponentials carry a factor 2^scale_bits that leaves them normal however
// small they are (Note [Scaled exponentials]); what they are multiplied with carries its inverse.
// Where that would be too small itself, exponentials below the normal numbers do not show in the
// result, and neither carries it.
#pragma once

#include "kernels/softmax_line.hpp"
#include "kernels/softmax_vjp.hpp"

namespace unitstride::UNITSTRIDE_ISA {
namespace {

// As many floats from memory as a vector of doubles has lanes: cheaper than the halves of a vector.
inline F64 load_widened(const float* source) noexcept {
    typedef float Half __attribute__((vector_size(vector_bytes / 2)));
    return __builtin_convertvector(load_vector<Half>(source), F64);
}

// A vector in the precision of its sum.
struct WideFloats {
    F64 low, high;
};
inline WideFloats widened(F32 v) noexcept { return {widen_low(v), widen_high(v)}; }
inline F64 widened(F64 v) noexcept { return v; }
template <class T>
using WideVector = decltype(widened(Vec<T>{}));

template <class S>
[[gnu::always_inline]] inline WideVector<Compute<S>> load_wide(const S* source) noexcept {
    return widened(load_as(source));
}
[[gnu::always_inline]] inline WideFloats load_wide(const float* source) noexcept {
    return {load_widened(source), load_widened(source + lanes<double>)};
}

// What the elements of four vectors add to a sum: sum(cotangent * primal) or sum(cotangent).
// Products of floats are exact in double.
template <bool with_product>
[[gnu::always_inline]] inline void add_group(
    WideSum<float>& total, const WideFloats (&primal)[group_vectors],
    const WideFloats (&cotangent)[group_vectors]) noexcept {
    F64 low = cotangent[0].low, high = cotangent[0].high;
    if constexpr (with_product) {
        low = low * primal[0].low;
        high = high * primal[0].high;
    }
#pragma GCC unroll 4
    for (int k = 1; k < group_vectors; ++k) {
        if constexpr (with_product) {
            low = multiply_add(cotangent[k].low, primal[k].low, low);
            high = multiply_add(cotangent[k].high, primal[k].high, high);
        } else {
            low = low + cotangent[k].low;
            high = high + cotangent[k].high;
        }
    }
    total.low = total.low + low;
    total.high = total.high + high;
}
template <bool with_product>
[[gnu::always_inline]] inline void add_group(WideSum<double>& total,
                                             const F64 (&primal)[group_vectors],
                                             const F64 (&cotangent)[group_vectors]) noexcept {
    WideSum<double> group = {};
#pragma GCC unroll 4
    for (int k = 0; k < group_vectors; ++k) {
        F64 term = cotangent[k], error = {};
        if constexpr (with_product) {
            term = cotangent[k] * primal[k];
            if constexpr (has_fma) error = multiply_add(cotangent[k], primal[k], -term);
        }
        if (k == 0) {
            group = {term, error};
        } else {
            add_two_words(group.sum, group.error, term, error);
        }
    }
    total.merge(group);
}

// What turns the elements of one line into results.
template <class T>
struct LineSlope {
    T factor = 0, rest = 0;              // see the slopes below
    T lowest = 0, shift = 0, upper = 0;  // of the exponential's argument; NaN: no exponential
    T rounder = 0;
};
// The same for one line per lane.
template <class T>
struct VectorSlope {
    Vec<T> factor, rest, lowest, shift, upper, rounder;
    bool shifted;  // any of them is
};
template <class T>
inline VectorSlope<T> every_lane(const LineSlope<T>& slope) noexcept {
    return {splat(slope.factor), splat(slope.rest),    splat(slope.lowest), splat(slope.shift),
            splat(slope.upper),  splat(slope.rounder), slope.shift != 0};
}

// 1 / temperature as a factor of at least 1 and one of at most 1.
template <class T>
struct TemperatureFactors {
    T above, below;
    explicit TemperatureFactors(const VjpCommon& common) noexcept {
        const T inverse = static_cast<T>(common.inverse_temperature);
        above = inverse > 1 ? inverse : T(1);
        below = inverse > 1 ? T(1) : inverse;
    }
};

inline bool is_finite(double value) noexcept { return value - value == 0; }

// Powers of two that exponentials carry beside a factor of this size (Note [Scaled weights]).
template <class T>
inline int scale_beside(double factor) noexcept {
    constexpr double least = sizeof(T) == 8 ? 0x1p-60 : 0x1p-40;
    return factor < least && factor > -least ? 0 : ExpFormat<T>::scale_bits;
}
template <class T>
inline void set_scaled(LineSlope<T>& slope, double factor, T near_part, T rounder,
                       const ExpConstants<T>& constants) noexcept {
    // The exponential of this is a normal number without a factor.
    constexpr double least_normal = sizeof(T) == 8 ? 706.0 : 86.0;
    if (scale_beside<T>(factor) != 0) {
        slope.factor = static_cast<T>(factor * unscale<T>);
        slope.lowest = near_part - constants.reach;
        slope.rounder = rounder;
    } else {
        slope.factor = static_cast<T>(factor);
        slope.lowest =
            near_part - static_cast<T>(least_normal / constants.inverse_temperature_wide);
        slope.rounder = rounder - static_cast<T>(ExpFormat<T>::scale_bits);
    }
}

// exp(x / temperature) times the factors of the line's slope, of x not far above the origin.
template <class T>
[[gnu::always_inline]] inline Vec<T> bounded_exp(Vec<T> x, const VectorSlope<T>& slope,
                                                 const ExpConstants<T>& constants) noexcept {
    const LineOrigin<T> origin = {Vec<T>{}, slope.lowest, slope.shift, slope.shifted,
                                  slope.rounder};
    return exp_scaled<T>(min_or_second(slope.upper, x), origin, constants);
}

// y (dy - sum) / temperature.
template <class T>
struct SoftmaxSlope {
    static constexpr bool with_product = true, with_cotangent = true;
    VectorSlope<T> slope;
    Vec<T> above_twice, below;

    explicit SoftmaxSlope(const VjpCommon& common) noexcept {
        const TemperatureFactors<T> factors(common);
        above_twice = splat(T(2) * factors.above);
        below = splat(factors.below);
    }
    static LineSlope<T> of(VjpSum total, const VjpCommon&) noexcept {
        LineSlope<T> slope;
        const double half = 0.5 * total.sum;
        slope.factor = static_cast<T>(half);
        const double rest = (half - static_cast<double>(slope.factor)) + 0.5 * total.error;
        slope.rest = is_finite(total.sum) ? static_cast<T>(rest) : T(0);
        return slope;
    }
    [[gnu::always_inline]] Vec<T> operator()(Vec<T> y, Vec<T> dy) const noexcept {
        const Vec<T> weight = y * above_twice;
        const Vec<T> half = multiply_add(dy, splat(T(0.5)), -slope.factor);
        return multiply_add(weight, half, -(weight * slope.rest)) * below;
    }
};

// (dy - exp(y) sum) / temperature.
template <class T>
struct LogSoftmaxSlope {
    static constexpr bool with_product = false, with_cotangent = true;
    VectorSlope<T> slope;
    Vec<T> above, below;
    ExpConstants<T> constants;

    explicit LogSoftmaxSlope(const VjpCommon& common) noexcept
        : constants(exp_constants<T>(common)) {
        constants.tempered = false;
        const TemperatureFactors<T> factors(common);
        above = splat(factors.above);
        below = splat(factors.below);
    }
    static LineSlope<T> of(VjpSum total, const VjpCommon& common) noexcept {
        const ExpConstants<T> constants = exp_constants<T>(common);
        LineSlope<T> slope;
        const double sum = is_finite(total.sum) ? total.sum + total.error : total.sum;
        const double below = static_cast<double>(TemperatureFactors<T>(common).below);
        set_scaled<T>(slope, -sum * below, T(0), line_origin<T>(Vec<T>{}, constants).rounder[0],
                      constants);
        slope.upper = T(40);  // log-probabilities are at most 0
        return slope;
    }
    [[gnu::always_inline]] Vec<T> operator()(Vec<T> y, Vec<T> dy) const noexcept {
        const Vec<T> p = bounded_exp<T>(y, slope, constants);
        return multiply_add(p, slope.factor, dy * below) * above;
    }
};

// dy exp(x / temperature - lse) / temperature, dy and lse being the line's. With `undefined` lines,
// whose lse is not finite: 0 where there is nothing to weigh, NaN where weights are infinite.
template <class T, bool undefined>
struct LogSumExpSlope {
    static constexpr bool with_product = false, with_cotangent = false;
    VectorSlope<T> slope;
    ExpConstants<T> constants;

    explicit LogSumExpSlope(const VjpCommon& common) noexcept
        : constants(exp_constants<T>(common)) {}
    [[gnu::always_inline]] Vec<T> operator()(Vec<T> x, Vec<T>) const noexcept {
        if constexpr (undefined) {
            const Vec<T> infinity = splat(static_cast<T>(__builtin_huge_val())), zero = {},
                         nan = splat(static_cast<T>(__builtin_nan("")));
            const auto defined = slope.upper == slope.upper;
            const Vec<T> p = bounded_exp<T>(defined ? x : zero, slope, constants);
            const Vec<T> limit = x < infinity ? slope.factor : nan;
            return defined ? p * slope.factor : limit;
        }
        return bounded_exp<T>(x, slope, constants) * slope.factor;
    }
};

// The slopes of up to lanes<double> lines of logsumexp. True if all are defined.
template <class T>
inline bool log_sum_slopes(const VjpCommon& common, const T* log_sum, const T* dy, size count,
                           LineSlope<T>* slopes) noexcept {
    const ExpConstants<T> constants = exp_constants<T>(common);
    const double inverse = constants.inverse_temperature_wide;
    constexpr double ln2_first = 0x1.62e42feep-1, ln2_second = 0x1.a39ef35793c76p-33;
    Vec<T> at = {};
    for (size l = 0; l < count; ++l) {
        const double value = static_cast<double>(log_sum[l]);
        at[l] = is_finite(value) ? static_cast<T>(value / inverse) : T(0);
    }
    const LineOrigin<T> origin = line_origin<T>(at, constants);
    const Vec<T> offsets = origin_offset<T>(origin);
    F64 remainder = {};
    for (size l = 0; l < count; ++l) {
        const double offset = static_cast<double>(offsets[l]);
        const double near_part =
            static_cast<double>(log_sum[l]) - static_cast<double>(origin.shift[l]) * inverse;
        remainder[l] = (near_part - offset * ln2_first) - offset * ln2_second;
    }
    const F64 power = exp_of_remainder(remainder);
    bool all_defined = true;
    for (size l = 0; l < count; ++l) {
        LineSlope<T>& slope = slopes[l];
        if (is_finite(static_cast<double>(log_sum[l]))) {
            const double factor = static_cast<double>(dy[l]) * inverse / power[l];
            set_scaled<T>(slope, factor, at[l] - origin.shift[l], origin.rounder[l], constants);
            slope.shift = origin.shift[l];
            slope.upper = at[l] + T(40) / constants.inverse_temperature;
        } else {
            const bool has_nan = log_sum[l] != log_sum[l] || dy[l] != dy[l];
            slope = {};
            slope.factor = has_nan ? static_cast<T>(__builtin_nan("")) : T(0);
            slope.upper = static_cast<T>(__builtin_nan(""));
            all_defined = false;
        }
    }
    return all_defined;
}

}  // namespace
}  // namespace unitstride::UNITSTRIDE_ISA
