// Vectors of the instruction set this file is compiled for.
//
// A thin layer over the compiler's vector extensions: `F32`, `F64` (and their integer twins `I32`,
// `I64`) are plain vector types, so + - * / and the comparisons are the language's own; the
// functions below are the words that the extensions lack. Included by kernels only, once per
// instruction set, in that set's namespace.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "core/storage.hpp"

namespace unitstride::UNITSTRIDE_ISA {
namespace {

#if defined(__AVX512F__)
constexpr std::size_t vector_bytes = 64;
#elif defined(__AVX2__)
constexpr std::size_t vector_bytes = 32;
#else
constexpr std::size_t vector_bytes = 16;
#endif
#if defined(__FMA__) || defined(__aarch64__)
constexpr bool has_fma = true;
#else
constexpr bool has_fma = false;
#endif

typedef float F32 __attribute__((vector_size(vector_bytes)));
typedef double F64 __attribute__((vector_size(vector_bytes)));
typedef std::int32_t I32 __attribute__((vector_size(vector_bytes)));
typedef std::int64_t I64 __attribute__((vector_size(vector_bytes)));
typedef std::uint32_t U32 __attribute__((vector_size(vector_bytes)));
typedef std::int16_t I16 __attribute__((vector_size(vector_bytes)));
typedef std::uint16_t U16 __attribute__((vector_size(vector_bytes)));
typedef std::uint16_t U16Half __attribute__((vector_size(vector_bytes / 2)));

template <class T>
struct VecTypes;
template <>
struct VecTypes<float> {
    using Vec = F32;
    using Int = I32;
    using Lane = std::int32_t;
};
template <>
struct VecTypes<double> {
    using Vec = F64;
    using Int = I64;
    using Lane = std::int64_t;
};
template <class T>
using Vec = typename VecTypes<T>::Vec;
template <class T>
using IntVec = typename VecTypes<T>::Int;
template <class T>
using IntLane = typename VecTypes<T>::Lane;
template <class T>
constexpr std::ptrdiff_t lanes = vector_bytes / sizeof(T);

using size = std::ptrdiff_t;

// ---- constants, memory
// -------------------------------------------------------------------------------------------

template <class T>
inline Vec<T> splat(T value) noexcept {
    return value - Vec<T>{};  // value - 0 keeps the sign of -0.0
}

// Any alignment: arrays of NumPy need not even be aligned to their element.
template <class V, class T>
inline V load_vector(const T* source) noexcept {
    V v;
    __builtin_memcpy(&v, source, sizeof v);
    return v;
}
inline F32 load(const float* source) noexcept { return load_vector<F32>(source); }
inline F64 load(const double* source) noexcept { return load_vector<F64>(source); }

template <class V, class T>
inline void store_vector(T* target, V v) noexcept {
    __builtin_memcpy(target, &v, sizeof v);
}
inline void store(float* target, F32 v) noexcept { store_vector(target, v); }
inline void store(double* target, F64 v) noexcept { store_vector(target, v); }

template <class T>
inline T load_scalar(const T* source) noexcept {
    T value;
    __builtin_memcpy(&value, source, sizeof value);
    return value;
}
template <class T>
inline void store_scalar(T* target, T value) noexcept {
    __builtin_memcpy(target, &value, sizeof value);
}

// Past the caches; `target` is aligned to the vector. `finish_streaming` orders these stores before
// what follows.
inline void store_streaming(float* target, F32 v) noexcept {
#if defined(__AVX512F__)
    _mm512_stream_ps(target, v);
#elif defined(__AVX2__)
    _mm256_stream_ps(target, v);
#elif defined(__x86_64__)
    _mm_stream_ps(target, v);
#else
    store(target, v);
#endif
}
inline void store_streaming(double* target, F64 v) noexcept {
    store_streaming(reinterpret_cast<float*>(target), reinterpret_cast<F32>(v));
}
inline void finish_streaming() noexcept {
#if defined(__x86_64__)
    _mm_sfence();
#endif
}

template <class T>
inline void prefetch(const T* address) noexcept {
    __builtin_prefetch(address, 0, 3);
}
// Not into the first level, where lines a power of two apart would push each other out.
template <class T>
inline void prefetch_second_level(const T* address) noexcept {
    __builtin_prefetch(address, 0, 2);
}

// The first `count` lanes from memory, `fill` in the others; memory past them is not touched.
inline F32 load_first(const float* source, size count, float fill) noexcept {
#if defined(__AVX512F__)
    return _mm512_mask_loadu_ps(splat(fill), static_cast<__mmask16>((1u << count) - 1u), source);
#else
    F32 v = splat(fill);
    for (size lane = 0; lane < lanes<float>; ++lane)
        if (lane < count) v[lane] = load_scalar(source + lane);
    return v;
#endif
}
inline F64 load_first(const double* source, size count, double fill) noexcept {
#if defined(__AVX512F__)
    return _mm512_mask_loadu_pd(splat(fill), static_cast<__mmask8>((1u << count) - 1u), source);
#else
    F64 v = splat(fill);
    for (size lane = 0; lane < lanes<double>; ++lane)
        if (lane < count) v[lane] = load_scalar(source + lane);
    return v;
#endif
}
inline void store_first(float* target, F32 v, size count) noexcept {
#if defined(__AVX512F__)
    _mm512_mask_storeu_ps(target, static_cast<__mmask16>((1u << count) - 1u), v);
#else
    for (size lane = 0; lane < count; ++lane) store_scalar(target + lane, v[lane]);
#endif
}
inline void store_first(double* target, F64 v, size count) noexcept {
#if defined(__AVX512F__)
    _mm512_mask_storeu_pd(target, static_cast<__mmask8>((1u << count) - 1u), v);
#else
    for (size lane = 0; lane < count; ++lane) store_scalar(target + lane, v[lane]);
#endif
}

// `v` with +0.0 past the first `count` lanes.
inline F32 keep_first(F32 v, size count) noexcept {
#if defined(__AVX512F__)
    return _mm512_maskz_mov_ps(static_cast<__mmask16>((1u << count) - 1u), v);
#else
    for (size lane = 0; lane < lanes<float>; ++lane) v[lane] = lane < count ? v[lane] : 0.0f;
    return v;
#endif
}
inline F64 keep_first(F64 v, size count) noexcept {
#if defined(__AVX512F__)
    return _mm512_maskz_mov_pd(static_cast<__mmask8>((1u << count) - 1u), v);
#else
    for (size lane = 0; lane < lanes<double>; ++lane) v[lane] = lane < count ? v[lane] : 0.0;
    return v;
#endif
}

// ---- arithmetic
// --------------------------------------------------------------------------------------------------

// a * b + c: one rounding where the instruction set has it, two otherwise (`has_fma`).
inline F32 multiply_add(F32 a, F32 b, F32 c) noexcept {
#if defined(__AVX512F__)
    return _mm512_fmadd_ps(a, b, c);
#elif defined(__FMA__)
    return _mm256_fmadd_ps(a, b, c);
#elif defined(__aarch64__)
    return vfmaq_f32(c, a, b);
#else
    return a * b + c;
#endif
}
inline F64 multiply_add(F64 a, F64 b, F64 c) noexcept {
#if defined(__AVX512F__)
    return _mm512_fmadd_pd(a, b, c);
#elif defined(__FMA__)
    return _mm256_fmadd_pd(a, b, c);
#elif defined(__aarch64__)
    return vfmaq_f64(c, a, b);
#else
    return a * b + c;
#endif
}

// Evaluates `v` for the floating-point flags it raises: results rounded in integer arithmetic raise
// none.
inline void signal_overflow(F32 v) noexcept {
#if defined(__AVX512F__)
    asm volatile("" : : "v"(v));
#elif defined(__x86_64__)
    asm volatile("" : : "x"(v));
#else
    asm volatile("" : : "w"(v));
#endif
}

// `b` where either is NaN (the rule of the x86 instruction, kept everywhere).
inline F32 max_or_second(F32 a, F32 b) noexcept {
#if defined(__AVX512F__)
    return _mm512_max_ps(a, b);
#elif defined(__AVX2__)
    return _mm256_max_ps(a, b);
#elif defined(__x86_64__)
    return _mm_max_ps(a, b);
#else
    return a > b ? a : b;
#endif
}
inline F64 max_or_second(F64 a, F64 b) noexcept {
#if defined(__AVX512F__)
    return _mm512_max_pd(a, b);
#elif defined(__AVX2__)
    return _mm256_max_pd(a, b);
#elif defined(__x86_64__)
    return _mm_max_pd(a, b);
#else
    return a > b ? a : b;
#endif
}

// `b` where either is NaN, too.
inline F32 min_or_second(F32 a, F32 b) noexcept {
#if defined(__AVX512F__)
    return _mm512_min_ps(a, b);
#elif defined(__AVX2__)
    return _mm256_min_ps(a, b);
#elif defined(__x86_64__)
    return _mm_min_ps(a, b);
#else
    return a < b ? a : b;
#endif
}
inline F64 min_or_second(F64 a, F64 b) noexcept {
#if defined(__AVX512F__)
    return _mm512_min_pd(a, b);
#elif defined(__AVX2__)
    return _mm256_min_pd(a, b);
#elif defined(__x86_64__)
    return _mm_min_pd(a, b);
#else
    return a < b ? a : b;
#endif
}

// In halves: one lane after the other would take several times as long.
template <class V>
inline auto highest_lane(V v) noexcept {
    constexpr size count = sizeof(V) / sizeof(v[0]);
#if defined(__AVX512F__)
    if constexpr (count == 16) {
        return _mm512_reduce_max_ps(v);
    } else {
        return _mm512_reduce_max_pd(v);
    }
#else
#pragma GCC unroll 8
    for (size half = count / 2; half > 0; half /= 2)
        for (size lane = 0; lane < half; ++lane)
            v[lane] = v[lane] > v[lane + half] ? v[lane] : v[lane + half];
    return v[0];
#endif
}

// How many vectors of double hold the lanes of one vector of T.
template <class T>
constexpr int halves = static_cast<int>(sizeof(double) / sizeof(T));
// The lower and the upper half of the lanes, in double precision.
inline F64 widen_low(F32 v) noexcept {
#if defined(__AVX512F__)
    return _mm512_cvtps_pd(_mm512_castps512_ps256(v));
#elif defined(__AVX2__)
    return _mm256_cvtps_pd(_mm256_castps256_ps128(v));
#elif defined(__x86_64__)
    return _mm_cvtps_pd(v);
#else
    return vcvt_f64_f32(vget_low_f32(v));
#endif
}
inline F64 widen_high(F32 v) noexcept {
#if defined(__AVX512F__)
    return _mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1));
#elif defined(__AVX2__)
    return _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1));
#elif defined(__x86_64__)
    return _mm_cvtps_pd(_mm_movehl_ps(v, v));
#else
    return vcvt_high_f64_f32(v);
#endif
}
inline F32 narrow(F64 low, F64 high) noexcept {
    F32 v;
#if defined(__AVX512F__)
    v = _mm512_insertf32x8(_mm512_castps256_ps512(_mm512_cvtpd_ps(low)), _mm512_cvtpd_ps(high), 1);
#elif defined(__AVX2__)
    v = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm256_cvtpd_ps(low)), _mm256_cvtpd_ps(high),
                             1);
#else
    for (size lane = 0; lane < lanes<double>; ++lane) {
        v[lane] = static_cast<float>(low[lane]);
        v[lane + lanes<double>] = static_cast<float>(high[lane]);
    }
#endif
    return v;
}

}  // namespace
}  // namespace unitstride::UNITSTRIDE_ISA
