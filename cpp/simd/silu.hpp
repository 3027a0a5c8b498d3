// v / (1 + exp(-v)).
//
// With e = exp(-|v|) it is v / (1 + e), or v e / (1 + e) below zero, so that nothing overflows. The
// product of |v| and log2(e) is taken in two words. Error: below 4 ULP; results below 1e-36 (1e-305
// for double) in magnitude are zero.
#pragma once

#include "simd/exp2.hpp"

namespace unitstride::UNITSTRIDE_ISA {
namespace {

// What rounding takes from the product t of a and log2(e).
template <class T>
[[gnu::always_inline]] inline Vec<T> rest_of_product(Vec<T> a, Vec<T> t) noexcept {
    constexpr long double log2_of_e = 1.442695040888963407359924681L;
    if constexpr (has_fma) {
        constexpr T high = static_cast<T>(log2_of_e);
        constexpr T low = static_cast<T>(log2_of_e - static_cast<long double>(high));
        return multiply_add(a, splat(low), multiply_add(a, splat(high), -t));
    } else {
        // Half of the digits each: their product is exact.
        constexpr T high = sizeof(T) == 4 ? T(0x1.714p+0) : T(0x1.7154764p+0);
        constexpr T low = static_cast<T>(log2_of_e - static_cast<long double>(high));
        constexpr auto upper = static_cast<IntLane<T>>(~((IntLane<T>(1) << 4 * sizeof(T)) - 1));
        const Vec<T> head = reinterpret_cast<Vec<T>>(reinterpret_cast<IntVec<T>>(a) & upper);
        return ((head * high - t) + (a - head) * high) + a * low;
    }
}

template <class T>
[[gnu::always_inline]] inline Vec<T> silu(Vec<T> v) noexcept {
    constexpr T log2_of_e = static_cast<T>(1.442695040888963407359924681L);
    constexpr T ln2 = static_cast<T>(0.693147180559945309417L), far = sizeof(T) == 4 ? -200 : -2000;
    const Vec<T> a = max_or_second(v < Vec<T>{} ? v : -v, splat(far));
    const Vec<T> t = a * log2_of_e, rest = rest_of_product<T>(a, t);
    Vec<T> power[1];
    const Vec<T> exponent[1] = {t};
    exp2_in_step<T>(exponent, power);
    const Vec<T> e = multiply_add(power[0] * rest, splat(ln2), power[0]);
    return (v < Vec<T>{} ? v * e : v) / (e + T(1));
}

}  // namespace
}  // namespace unitstride::UNITSTRIDE_ISA
