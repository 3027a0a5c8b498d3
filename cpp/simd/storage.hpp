// Loads and stores of every storage type as vectors of its compute type.
#pragma once

#include <type_traits>
#include <utility>

#include "simd/vec.hpp"

namespace unitstride::UNITSTRIDE_ISA {
namespace {

// float16 <-> float in integer arithmetic, for instruction sets without a conversion. Exact down to
// the subnormals one way, rounded to nearest even the other way.
inline F32 float16_to_float(U32 half) noexcept {
    const U32 sign = (half & 0x8000u) << 16;
    const U32 magnitude = half & 0x7fffu;
    // Exponent and fraction moved into place; the factor 2^112 corrects the bias, subnormals
    // included.
    const F32 scaled = reinterpret_cast<F32>(magnitude << 13) * splat(0x1p112f);
    const U32 special = reinterpret_cast<U32>(magnitude > 0x7bffu);
    const U32 inf_or_nan = (magnitude << 13) | 0x7f800000u;
    const U32 bits = (special & inf_or_nan) | (~special & reinterpret_cast<U32>(scaled));
    return reinterpret_cast<F32>(bits | sign);
}
inline U32 float_to_float16(F32 value) noexcept {
    const U32 bits = reinterpret_cast<U32>(value);
    const U32 sign = (bits >> 16) & 0x8000u;
    const U32 magnitude = bits & 0x7fffffffu;
    // Below 2^-14: adding 0.5 lets the float adder round at the subnormal's last place.
    const U32 tiny =
        reinterpret_cast<U32>(reinterpret_cast<F32>(magnitude) + splat(0.5f)) - 0x3f000000u;
    const U32 odd = (magnitude >> 13) & 1u;
    const U32 normal = (magnitude - 0x38000000u + 0xfffu + odd) >> 13;
    const U32 is_tiny = reinterpret_cast<U32>(magnitude < 0x38800000u);
    const U32 is_large = reinterpret_cast<U32>(magnitude >= 0x477ff000u);
    const U32 is_nan = reinterpret_cast<U32>(magnitude > 0x7f800000u);
    U32 half = (is_tiny & tiny) | (~is_tiny & normal);
    half = (is_large & 0x7c00u) | (~is_large & half);
    half |= is_nan & 0x200u;
    // 2^112 brings what overflows float16 to the end of the floats' own range.
    signal_overflow(reinterpret_cast<F32>(magnitude) * splat(0x1p112f) + splat(0x1p116f));
    return half | sign;
}

inline F32 load_as(const Float16* source) noexcept {
#if defined(__AVX512F__)
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(source)));
#elif defined(__AVX2__)
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(source)));
#else
    return float16_to_float(__builtin_convertvector(load_vector<U16Half>(source), U32));
#endif
}
inline F32 load_as(const BFloat16* source) noexcept {
    // The compiler's own conversion goes by halves.
#if defined(__AVX512F__)
    const auto bits =
        _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(source)));
    return reinterpret_cast<F32>(_mm512_slli_epi32(bits, 16));
#elif defined(__AVX2__)
    const auto bits =
        _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(source)));
    return reinterpret_cast<F32>(_mm256_slli_epi32(bits, 16));
#else
    return reinterpret_cast<F32>(__builtin_convertvector(load_vector<U16Half>(source), U32) << 16);
#endif
}
inline F32 load_as(const float* source) noexcept { return load(source); }
inline F64 load_as(const double* source) noexcept { return load(source); }
inline F32 load_as(const Widened* source) noexcept { return load_vector<F32>(source); }

inline U16Half to_storage(F32 v, const Float16*) noexcept {
#if defined(__AVX512F__)
    return reinterpret_cast<U16Half>(_mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
#elif defined(__AVX2__)
    return reinterpret_cast<U16Half>(_mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
#else
    return __builtin_convertvector(float_to_float16(v), U16Half);
#endif
}
// Rounds to nearest even on the bits: the instruction for it flushes subnormals.
inline U16Half to_storage(F32 v, const BFloat16*) noexcept {
    const U32 bits = reinterpret_cast<U32>(v);
    const U32 rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    // Adds half of a bfloat16's last place at the end of the range.
    signal_overflow(reinterpret_cast<F32>(bits & 0x7fffffffu) + splat(0x1p119f));
#if defined(__AVX512F__)
    const auto is_nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
    const auto quiet = _mm512_set1_epi32(0x40);
    return reinterpret_cast<U16Half>(_mm512_cvtepi32_epi16(_mm512_mask_or_epi32(
        reinterpret_cast<__m512i>(rounded), is_nan, reinterpret_cast<__m512i>(bits >> 16), quiet)));
#else
    const U32 is_nan = reinterpret_cast<U32>((bits & 0x7fffffffu) > 0x7f800000u);
    const U32 nan = (bits >> 16) | 0x40u;
    return __builtin_convertvector((is_nan & nan) | (~is_nan & rounded), U16Half);
#endif
}
inline F32 to_storage(F32 v, const float*) noexcept { return v; }
inline F64 to_storage(F64 v, const double*) noexcept { return v; }
inline F32 to_storage(F32 v, const Widened*) noexcept { return v; }

template <class S>
inline void store_as(S* target, Vec<Compute<S>> v) noexcept {
    store_vector(target, to_storage(v, target));
}

template <class S>
inline Vec<Compute<S>> load_first_as(const S* source, size count, Compute<S> fill) noexcept {
    if constexpr (sizeof(S) >= 4) {
        return load_first(reinterpret_cast<const Compute<S>*>(source), count, fill);
    } else {
        S lane[lanes<float>] = {};
        for (size i = 0; i < count; ++i) lane[i] = load_scalar(source + i);
        const F32 v = load_as(lane);
        float values[lanes<float>];
        store(values, v);
        return load_first(values, count, fill);
    }
}
// Past `count` elements the first one again: what is computed of it raises no flags of its own.
template <class S>
inline Vec<Compute<S>> load_first_repeated(const S* source, size count) noexcept {
    if constexpr (sizeof(S) >= 4) {
        const auto* element = reinterpret_cast<const Compute<S>*>(source);
        return load_first(element, count, load_scalar(element));
    } else {
        S lane[lanes<float>];
        for (size i = 0; i < lanes<float>; ++i) lane[i] = load_scalar(source + (i < count ? i : 0));
        return load_as(lane);
    }
}
// Every second element from `first` on. The second load begins one element early, so that nothing
// past the last element is touched.
template <class S, std::size_t... lane>
inline Vec<Compute<S>> load_every_second(const S* first, std::index_sequence<lane...>) noexcept {
    using T = Compute<S>;
    constexpr std::size_t half = sizeof...(lane) / 2;
    const IntVec<T> index = {static_cast<IntLane<T>>(lane < half ? 2 * lane : 2 * lane + 1)...};
    return __builtin_shuffle(load_as(first), load_as(first + lanes<T> - 1), index);
}
template <class S>
inline Vec<Compute<S>> load_as(const EverySecond<S>* source) noexcept {
    return load_every_second(reinterpret_cast<const S*>(source),
                             std::make_index_sequence<lanes<Compute<S>>>{});
}
template <class S>
inline Vec<Compute<S>> load_first_as(const EverySecond<S>* source, size count,
                                     Compute<S> fill) noexcept {
    const S* first = reinterpret_cast<const S*>(source);
    Vec<Compute<S>> v = splat(fill);
    for (size l = 0; l < lanes<Compute<S>>; ++l)
        if (l < count) v[l] = load_first_as(first + 2 * l, 1, fill)[0];
    return v;
}

template <class S>
inline Vec<Compute<S>> load_first_repeated(const EverySecond<S>* source, size count) noexcept {
    return load_first_as(source, count, load_first_as(source, 1, Compute<S>(0))[0]);
}

template <class S>
inline void store_first_as(S* target, Vec<Compute<S>> v, size count) noexcept {
    if constexpr (sizeof(S) >= 4) {
        store_first(reinterpret_cast<Compute<S>*>(target), v, count);
    } else {
        S lane[lanes<float>];
        store_as(lane, v);
        for (size i = 0; i < count; ++i) store_scalar(target + i, lane[i]);
    }
}
// `target` is aligned to the bytes stored.
template <class S>
inline void store_streaming_as(S* target, Vec<Compute<S>> v) noexcept {
    if constexpr (sizeof(S) >= 4) {
        store_streaming(reinterpret_cast<Compute<S>*>(target), v);
    } else {
#if defined(__AVX512F__)
        _mm256_stream_si256(reinterpret_cast<__m256i*>(target),
                            reinterpret_cast<__m256i>(to_storage(v, target)));
#elif defined(__AVX2__)
        _mm_stream_si128(reinterpret_cast<__m128i*>(target),
                         reinterpret_cast<__m128i>(to_storage(v, target)));
#else
        store_as(target, v);
#endif
    }
}
#if defined(__AVX512F__)
// The bits of a bfloat16 in the lower half of each lane.
inline __m512i bounded_bfloat16(F32 v) noexcept {
    const auto bits = reinterpret_cast<__m512i>(v);
    const auto half = _mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff));
    const auto is_odd = _mm512_test_epi32_mask(bits, _mm512_set1_epi32(0x10000));
    const auto one = _mm512_set1_epi32(1);
    return _mm512_srli_epi32(_mm512_mask_add_epi32(half, is_odd, half, one), 16);
}
#endif

// Elements of a cache line.
template <class S>
constexpr size cache_line = 64 / static_cast<size>(sizeof(S));

// A cache line past the caches; `vector_at(i)` gives the elements from i. `bounded`: they are
// numbers from 0 to about 1, which round to 16 bits with less care.
template <bool bounded, class S, class VectorAt>
[[gnu::always_inline]] inline void store_streaming_line(S* target,
                                                        const VectorAt& vector_at) noexcept {
#if defined(__AVX512F__)
    if constexpr (bounded && std::is_same_v<S, BFloat16>) {
        const auto first = bounded_bfloat16(vector_at(0));
        const auto second = bounded_bfloat16(vector_at(lanes<float>));
        const auto order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
        const auto packed = _mm512_permutexvar_epi64(order, _mm512_packus_epi32(first, second));
        _mm512_stream_si512(reinterpret_cast<__m512i*>(target), packed);
        return;
    } else if constexpr (sizeof(S) == 2) {  // halves of a line would go out one by one
        const auto first = reinterpret_cast<__m256i>(to_storage(vector_at(0), target));
        const auto second = reinterpret_cast<__m256i>(to_storage(vector_at(lanes<float>), target));
        const auto packed = _mm512_inserti64x4(_mm512_castsi256_si512(first), second, 1);
        _mm512_stream_si512(reinterpret_cast<__m512i*>(target), packed);
        return;
    }
#endif
#pragma GCC unroll 8
    for (size i = 0; i < cache_line<S>; i += lanes<Compute<S>>)
        store_streaming_as(target + i, vector_at(i));
}

// Bytes of storage that one vector of the compute type fills.
template <class S>
constexpr std::uintptr_t stored_vector_bytes = vector_bytes / sizeof(Compute<S>) * sizeof(S);

template <class S>
inline bool can_stream(const S* target) noexcept {
    return reinterpret_cast<std::uintptr_t>(target) % stored_vector_bytes<S> == 0;
}

}  // namespace
}  // namespace unitstride::UNITSTRIDE_ISA
