// Scores in place: scale, soft-cap, bias, distance, exclusion. Part of attention.cpp.
#pragma once

#include <cstdint>
#include <utility>

#include "kernels/attention.hpp"
#include "simd/exp.hpp"
#include "simd/exp2.hpp"

namespace unitstride::UNITSTRIDE_ISA {
namespace {

template <class T>
constexpr T infinity = static_cast<T>(__builtin_huge_val());

// 0, 1, 2, ...
template <class T, std::size_t... lane>
constexpr Vec<T> counting(std::index_sequence<lane...>) noexcept {
    return Vec<T>{static_cast<T>(lane)...};
}

// tanh(s / cap), accurate to a few ULP down to the smallest scores.
template <class T>
inline Vec<T> saturated(Vec<T> s, T cap) noexcept {
    constexpr T log2_e = static_cast<T>(0x1.71547652b82fep+0);
    constexpr T ln2_high =
        sizeof(T) == 4 ? static_cast<T>(0x1.62e4p-1) : static_cast<T>(0x1.62e42feep-1);
    constexpr T ln2_low = static_cast<T>(0x1.62e42fefa39efp-1 - static_cast<double>(ln2_high));
    constexpr T flat = sizeof(T) == 4 ? T(20) : T(40);  // tanh is 1 beyond half of it
    constexpr T rounder = sizeof(T) == 4 ? static_cast<T>(0x1.8p23) : static_cast<T>(0x1.8p52);
    const Vec<T> twice = s * splat(T(2) / cap);
    const Vec<T> size_of = max_or_second(-twice, twice);
    const Vec<T> y = min_or_second(splat(flat), size_of);  // NaN stays
    const Vec<T> n = (y * splat(log2_e) + splat(rounder)) - splat(rounder);
    const Vec<T> r = (y - n * splat(ln2_high)) - n * splat(ln2_low);
    const Vec<T> power = exp2_flushed<T>(n);
    const Vec<T> grown = multiply_add(exp_minus_one_small<T>(r), power, power - splat(T(1)));
    const Vec<T> result = grown / (grown + splat(T(2)));
    return s < Vec<T>{} ? -result : result;
}

// `s`, -inf in the lanes whose byte is zero.
template <class T>
inline Vec<T> masked(Vec<T> s, const unsigned char* mask) noexcept {
    const Vec<T> low = splat(-infinity<T>);
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4) {
        const auto bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(mask));
        return _mm512_mask_mov_ps(low, _mm_test_epi8_mask(bytes, bytes), s);
    } else {
        const auto bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(mask));
        return _mm512_mask_mov_pd(
            low, static_cast<__mmask8>(_mm_test_epi8_mask(bytes, bytes) & 0xff), s);
    }
#elif defined(__AVX2__)
    IntVec<T> wide;
    if constexpr (sizeof(T) == 4) {
        wide = reinterpret_cast<I32>(
            _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(mask))));
    } else {
        std::int32_t bytes;
        __builtin_memcpy(&bytes, mask, sizeof bytes);
        wide = reinterpret_cast<I64>(_mm256_cvtepu8_epi64(_mm_cvtsi32_si128(bytes)));
    }
    return wide != 0 ? s : low;
#else
    for (size lane = 0; lane < lanes<T>; ++lane) s[lane] = mask[lane] ? s[lane] : low[lane];
    return s;
#endif
}

template <class T>
inline Vec<T> transformed(const AttentionStrip& strip, const AttentionRow& row, Vec<T> s, size key,
                          T* derivative) noexcept {
    using Lanes = std::make_index_sequence<static_cast<std::size_t>(lanes<T>)>;
    const Vec<T> scale = splat(static_cast<T>(strip.scale)), low = splat(-infinity<T>);
    if (row.bias && strip.softcap == 0) {
        const Vec<T> bias = load(static_cast<const T*>(row.bias) + key);
        s = bias == low ? low : multiply_add(s, scale, bias);  // an excluded score may be NaN
    } else {
        s = s * scale;
    }
    if (strip.softcap != 0) {
        const T cap = static_cast<T>(strip.softcap);
        const Vec<T> share = saturated<T>(s, cap);
        s = splat(cap) * share;
        if (derivative) store(derivative + key, splat(T(1)) - share * share);
    }
    if (row.bias && strip.softcap != 0) {
        const Vec<T> bias = load(static_cast<const T*>(row.bias) + key);
        s = bias == low ? low : s + bias;
    }
    if (row.slope != 0) {
        const Vec<T> distance = counting<T>(Lanes{}) + splat(static_cast<T>(key - row.diagonal));
        s = s - splat(static_cast<T>(row.slope)) * max_or_second(-distance, distance);
    }
    return s;
}

// Stretches of a row that are wholly within reach, where nothing but a mask or a bias acts.
template <class T>
inline Vec<T> mask_stretch(T* score, const unsigned char* mask, size begin, size end,
                           Vec<T> most) noexcept {
    for (size k = begin; k < end; k += lanes<T>) {
        const Vec<T> s = masked<T>(load(score + k), mask + k);
        store(score + k, s);
        most = max_or_second(most, s);
    }
    return most;
}
template <class T>
inline Vec<T> bias_stretch(T* score, const T* biases, T factor, size begin, size end,
                           Vec<T> most) noexcept {
    const Vec<T> scale = splat(factor), low = splat(-infinity<T>);
    for (size k = begin; k < end; k += lanes<T>) {
        const Vec<T> bias = load(biases + k);
        const Vec<T> sum = multiply_add(load(score + k), scale, bias);
        const Vec<T> s = bias == low ? low : sum;  // an excluded score may be NaN
        store(score + k, s);
        most = max_or_second(most, s);
    }
    return most;
}

// One vector of a row: whatever acts on it.
template <class T>
inline Vec<T> adjusted(const AttentionStrip& strip, const AttentionRow& row, const T* score, size k,
                       T* derivative) noexcept {
    using Lanes = std::make_index_sequence<static_cast<std::size_t>(lanes<T>)>;
    const Vec<T> low = splat(-infinity<T>);
    if (k >= row.end || k + lanes<T> <= row.begin) return low;
    Vec<T> s = load(score + k);
    if (strip.transforms) s = transformed<T>(strip, row, s, k, derivative);
    if (row.mask) s = masked<T>(s, row.mask + k);
    if (k < row.begin || k + lanes<T> > row.end) {
        const Vec<T> place = counting<T>(Lanes{});
        s = place < splat(static_cast<T>(row.begin - k)) ? low : s;
        s = place >= splat(static_cast<T>(row.end - k)) ? low : s;
    }
    return s;
}

// Scores lie `row_keys` apart from row to row.
template <class T, size row_keys>
void adjust(const AttentionStrip& strip) noexcept {
    for (size r = 0; r < strip.rows; ++r) {
        const AttentionRow& row = strip.row[r];
        T* score = static_cast<T*>(strip.scores) + r * row_keys;
        T* highest = static_cast<T*>(strip.highest) + r * lanes<T>;
        T* derivative = static_cast<T*>(strip.derivative);
        if (derivative) derivative += r * row_keys;
        const bool masks = row.mask && !strip.transforms;
        const bool biases = row.bias && !row.mask && strip.softcap == 0 && row.slope == 0;
        Vec<T> most = load(highest);
        for (size k = strip.begin; k < strip.end;) {
            if (k == strip.plain_begin && k < strip.plain_end) {
                k = strip.plain_end;
                continue;
            }
            size stop = k < strip.plain_begin ? strip.plain_begin : strip.end;
            if (row.end < stop) stop = k + (row.end - k) / lanes<T> * lanes<T>;
            if ((masks || biases) && k >= row.begin && stop > k) {
                most = masks ? mask_stretch<T>(score, row.mask, k, stop, most)
                             : bias_stretch<T>(score, static_cast<const T*>(row.bias),
                                               static_cast<T>(strip.scale), k, stop, most);
                k = stop;
                continue;
            }
            const Vec<T> s = adjusted<T>(strip, row, score, k, derivative);
            store(score + k, s);
            most = max_or_second(most, s);
            k += lanes<T>;
        }
        store(highest, most);
    }
}

}  // namespace
}  // namespace unitstride::UNITSTRIDE_ISA
