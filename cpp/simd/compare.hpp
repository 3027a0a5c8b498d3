// Questions about equal lanes.
#pragma once

#include "simd/vec.hpp"

namespace unitstride::UNITSTRIDE_ISA {
namespace {

// `v` with +0.0 in the lanes where `a == b`.
inline F32 zero_where_equal(F32 a, F32 b, F32 v) noexcept {
#if defined(__AVX512F__)
    return _mm512_mask_mov_ps(v, _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ), _mm512_setzero_ps());
#else
    return reinterpret_cast<F32>(reinterpret_cast<I32>(v) & ~reinterpret_cast<I32>(a == b));
#endif
}
inline F64 zero_where_equal(F64 a, F64 b, F64 v) noexcept {
#if defined(__AVX512F__)
    return _mm512_mask_mov_pd(v, _mm512_cmp_pd_mask(a, b, _CMP_EQ_OQ), _mm512_setzero_pd());
#else
    return reinterpret_cast<F64>(reinterpret_cast<I64>(v) & ~reinterpret_cast<I64>(a == b));
#endif
}
// `count` plus one in the lanes where `a == b`.
inline I32 count_equal(F32 a, F32 b, I32 count) noexcept {
#if defined(__AVX512F__)
    const auto one = _mm512_set1_epi32(1);
    const auto c = reinterpret_cast<__m512i>(count);
    return reinterpret_cast<I32>(
        _mm512_mask_add_epi32(c, _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ), c, one));
#else
    return count - reinterpret_cast<I32>(a == b);
#endif
}
inline I64 count_equal(F64 a, F64 b, I64 count) noexcept {
#if defined(__AVX512F__)
    const auto one = _mm512_set1_epi64(1);
    const auto c = reinterpret_cast<__m512i>(count);
    return reinterpret_cast<I64>(
        _mm512_mask_add_epi64(c, _mm512_cmp_pd_mask(a, b, _CMP_EQ_OQ), c, one));
#else
    return count - reinterpret_cast<I64>(a == b);
#endif
}

template <class V>
inline bool any_nonzero(V v) noexcept {
#if defined(__AVX512F__)
    const auto bits = reinterpret_cast<__m512i>(v);
    return _mm512_test_epi64_mask(bits, bits) != 0;
#elif defined(__AVX2__)
    const auto bits = reinterpret_cast<__m256i>(v);
    return !_mm256_testz_si256(bits, bits);
#else
    const auto words = reinterpret_cast<I64>(v);
    return (words[0] | words[1]) != 0;
#endif
}

// Whether any lane of the vectors equals its lane of `b`.
template <class V, std::size_t n>
[[gnu::always_inline]] inline bool any_equal(const V (&v)[n], V b) noexcept {
#if defined(__AVX512F__)
    unsigned found = 0;
#pragma GCC unroll 4
    for (std::size_t k = 0; k < n; ++k) {
        if constexpr (sizeof(v[0][0]) == 4) {
            found |= _mm512_cmp_ps_mask(v[k], b, _CMP_EQ_OQ);
        } else {
            found |= _mm512_cmp_pd_mask(v[k], b, _CMP_EQ_OQ);
        }
    }
    return found != 0;
#else
    auto found = v[0] == b;
#pragma GCC unroll 4
    for (std::size_t k = 1; k < n; ++k) found |= v[k] == b;
    return any_nonzero(found);
#endif
}

}  // namespace
}  // namespace unitstride::UNITSTRIDE_ISA
