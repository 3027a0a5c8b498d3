// log1p in double precision.
//
// 1 + x is kept as a pair of words; the first is brought to f in [sqrt(1/2), sqrt(2)) by a power of
// two, and log(f) = g - g^2/2 + s (g^2/2 + s^2 R(s^2)), g = f - 1, s = g / (2 + g), with R the
// atanh series as a Chebyshev fit (relative error 3e-20). The second word adds its quotient. Error
// below 1 ULP for every x >= 0.
#pragma once

#include "simd/vec.hpp"

namespace unitstride::UNITSTRIDE_ISA {
namespace {

constexpr double ln2_high = 0x1.62e42feep-1;  // 32 bits: its product with an exponent is exact
constexpr double ln2_low = 0x1.a39ef35793c76p-33;

inline F64 log1p_positive(F64 x) noexcept {
    const F64 one = splat(1.0);
    const F64 sum = one + x;
    const F64 part = sum - one;
    const F64 error = (one - (sum - part)) + (x - part);
    // Exponent such that the fraction lies in [sqrt(1/2), sqrt(2)).
    const I64 bits = reinterpret_cast<I64>(sum) - 0x3fe6a09e667f3bcd;
    const I64 exponent = bits >> 52;
    const F64 fraction = reinterpret_cast<F64>(reinterpret_cast<I64>(sum) - (exponent << 52));
    const F64 n = __builtin_convertvector(exponent, F64);
    const F64 g = fraction - one;
    const F64 s = g / (g + splat(2.0));
    const F64 z = s * s;
    constexpr double series[] = {0x1.0c0aff044a970p-3, 0x1.0fbde0f4ad17bp-3, 0x1.3b1c3c1c81c8fp-3,
                                 0x1.745cf8e4bba1bp-3, 0x1.c71c7201a55d7p-3, 0x1.2492492476a1ap-2,
                                 0x1.9999999999a39p-2, 0x1.5555555555555p-1};
    F64 tail = splat(series[0]);
#pragma GCC unroll 16
    for (std::size_t i = 1; i < sizeof series / sizeof(double); ++i)
        tail = multiply_add(tail, z, splat(series[i]));
    const F64 half_square = splat(0.5) * g * g;
    const F64 correction = multiply_add(n, splat(ln2_low), error / sum);
    const F64 inner = multiply_add(s, multiply_add(z, tail, half_square), correction);
    const F64 result = multiply_add(n, splat(ln2_high), g - (half_square - inner));
    return x < splat(0x1p1000) ? result : x;  // infinite, NaN: as they came
}

}  // namespace
}  // namespace unitstride::UNITSTRIDE_ISA
