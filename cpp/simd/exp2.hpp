// Powers of two with any exponent, zero where they would be subnormal.
//
// Arguments below -126 (-1022 for double) give zero exactly, -inf among them; NaN gives NaN. Others
// give 2^n (1 + r q(r)) with n = round(x), the remainder r exact, and a polynomial whose relative
// error is 2.6e-9 (1.8e-17): below 1 ULP. Arguments above 127 (1023) are outside the domain. For
// results of 16 bits there is a shorter polynomial (`coarse`), whose error is 2.9e-6.
#pragma once

#include "simd/vec.hpp"

namespace unitstride::UNITSTRIDE_ISA {
namespace {

template <class T>
struct Exp2Format;
template <>
struct Exp2Format<float> {
    static constexpr float rounder = 0x1.8p23f + 127;  // leaves the biased exponent in the low bits
    static constexpr float lowest = -126;
    static constexpr int fraction_bits = 23;
    static constexpr float polynomial[] = {0x1.470b4ap-13f, 0x1.5f7276p-10f, 0x1.3b270ep-7f,
                                           0x1.c6ae72p-5f,  0x1.ebfbe2p-3f,  0x1.62e432p-1f};
    static constexpr float coarse_polynomial[] = {0x1.39f3a6p-7f, 0x1.c9fb52p-5f, 0x1.ec03b6p-3f,
                                                  0x1.62e132p-1f};
};
template <>
struct Exp2Format<double> {
    static constexpr double rounder = 0x1.8p52 + 1023;
    static constexpr double lowest = -1022;
    static constexpr int fraction_bits = 52;
    static constexpr double polynomial[] = {
        0x1.c0638527edf34p-32, 0x1.e605f979c7a5dp-28, 0x1.b54167a0b9061p-24, 0x1.62bfd49ed0adfp-20,
        0x1.ffcbee3b0af8cp-17, 0x1.4309130961163p-13, 0x1.5d87fe7bbbe07p-10, 0x1.3b2ab6fba1e1cp-7,
        0x1.c6b08d7048f31p-5,  0x1.ebfbdff82c598p-3,  0x1.62e42fefa39f3p-1};
};

// a * b + c, +0.0 in the lanes where x < lowest.
inline F32 multiply_add_from(F32 x, float lowest, F32 a, F32 b, F32 c) noexcept {
#if defined(__AVX512F__)
    return _mm512_maskz_fmadd_ps(_mm512_cmp_ps_mask(x, splat(lowest), _CMP_NLT_UQ), a, b, c);
#else
    const F32 v = multiply_add(a, b, c);
    return reinterpret_cast<F32>(reinterpret_cast<I32>(v) & ~reinterpret_cast<I32>(x < lowest));
#endif
}
inline F64 multiply_add_from(F64 x, double lowest, F64 a, F64 b, F64 c) noexcept {
#if defined(__AVX512F__)
    return _mm512_maskz_fmadd_pd(_mm512_cmp_pd_mask(x, splat(lowest), _CMP_NLT_UQ), a, b, c);
#else
    const F64 v = multiply_add(a, b, c);
    return reinterpret_cast<F64>(reinterpret_cast<I64>(v) & ~reinterpret_cast<I64>(x < lowest));
#endif
}

// q(r) of `n` vectors in step.
template <class T, std::size_t terms, int n>
[[gnu::always_inline]] inline void add_terms(const T (&polynomial)[terms], const Vec<T> (&r)[n],
                                             Vec<T> (&q)[n]) noexcept {
#pragma GCC unroll 4
    for (int k = 0; k < n; ++k) q[k] = splat(polynomial[0]);
#pragma GCC unroll 16
    for (std::size_t i = 1; i < terms; ++i) {
#pragma GCC unroll 4
        for (int k = 0; k < n; ++k) q[k] = multiply_add(q[k], r[k], splat(polynomial[i]));
    }
}

// `n` vectors in step.
template <class T, bool coarse = false, int n>
[[gnu::always_inline]] inline void exp2_in_step(const Vec<T> (&x)[n],
                                                Vec<T> (&result)[n]) noexcept {
    using Format = Exp2Format<T>;
    const Vec<T> rounder = splat(Format::rounder);
    Vec<T> r[n], power[n], q[n];
#pragma GCC unroll 4
    for (int k = 0; k < n; ++k) {
        const Vec<T> shifted = x[k] + rounder;
        r[k] = x[k] - (shifted - rounder);
        power[k] =
            reinterpret_cast<Vec<T>>(reinterpret_cast<IntVec<T>>(shifted) << Format::fraction_bits);
    }
    if constexpr (coarse) {
        add_terms<T>(Format::coarse_polynomial, r, q);
    } else {
        add_terms<T>(Format::polynomial, r, q);
    }
#pragma GCC unroll 4
    for (int k = 0; k < n; ++k)
        result[k] = multiply_add_from(x[k], Format::lowest, q[k], r[k] * power[k], power[k]);
}
template <class T>
inline Vec<T> exp2_flushed(Vec<T> x) noexcept {
    const Vec<T> argument[1] = {x};
    Vec<T> result[1];
    exp2_in_step<T>(argument, result);
    return result[0];
}

}  // namespace
}  // namespace unitstride::UNITSTRIDE_ISA
