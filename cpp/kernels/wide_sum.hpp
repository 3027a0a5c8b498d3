// Sums that do not lose what they are made of: float into double, double into a pair (TwoSum).
//
// Note [One order of summation]. A line of any layout is summed in one order. Its elements are
// taken in groups of four vectors (v0, v1, v2, v3); lane l of a group gives (v0 + v1) + (v2 + v3);
// lane l of all groups goes into wide accumulator l; the accumulators are folded in halves. The row
// form has the lanes of a line in one vector, the column form has them in consecutive rows of the
// tile; both do the same additions, so they give the same bits. Elements past the end are +0.
#pragma once

#include "simd/vec.hpp"

namespace unitstride::UNITSTRIDE_ISA {
namespace {

constexpr int group_vectors = 4;

template <class V>
inline void add_two_words(V& sum, V& error, V other_sum, V other_error) noexcept {
    const V total = sum + other_sum;
    const V part = total - sum;
    const V lost = (sum - (total - part)) + (other_sum - part);
    error = (error + other_error) + lost;
    sum = total;
}

template <class T>
struct WideSum;

template <>
struct WideSum<float> {
    F64 low, high;  // the lower and the upper lanes
    void add(F32 v) noexcept {
        low = low + widen_low(v);
        high = high + widen_high(v);
    }
    void merge(const WideSum& other) noexcept {
        low = low + other.low;
        high = high + other.high;
    }
    // First words of the lanes [0, lanes<double>) or the ones above; second words.
    F64 words(int half) const noexcept { return half ? high : low; }
    F64 rests(int) const noexcept { return F64{}; }
};

template <>
struct WideSum<double> {
    F64 sum, error;
    void add(F64 v) noexcept { add_two_words(sum, error, v, F64{}); }
    void merge(const WideSum& other) noexcept { add_two_words(sum, error, other.sum, other.error); }
    F64 words(int) const noexcept { return sum; }
    F64 rests(int) const noexcept { return error; }
};

struct TwoWords {
    double sum, error;
};

// The fold across the lanes of one line.
inline TwoWords fold_lanes(const WideSum<float>& wide) noexcept {
    const F64 both = wide.low + wide.high;
    double lane[lanes<double>];
    store(lane, both);
#pragma GCC unroll 8
    for (size half = lanes<double> / 2; half > 0; half /= 2)
        for (size l = 0; l < half; ++l) lane[l] = lane[l] + lane[l + half];
    return {lane[0], 0.0};
}
inline TwoWords fold_lanes(const WideSum<double>& wide) noexcept {
    double sum[lanes<double>], error[lanes<double>];
    store(sum, wide.sum);
    store(error, wide.error);
#pragma GCC unroll 8
    for (size half = lanes<double> / 2; half > 0; half /= 2)
        for (size l = 0; l < half; ++l)
            add_two_words(sum[l], error[l], sum[l + half], error[l + half]);
    return {sum[0], error[0]};
}

// The fold across accumulators, each holding one lane position of many lines; the first `used` are
// not zero.
template <class T>
inline void fold_accumulators(WideSum<T>* accumulator, size step, size used) noexcept {
    for (size half = lanes<T> / 2; half > 0; half /= 2)
        for (size l = 0; l < half && l + half < used; ++l)
            accumulator[l * step].merge(accumulator[(l + half) * step]);
}

}  // namespace
}  // namespace unitstride::UNITSTRIDE_ISA
