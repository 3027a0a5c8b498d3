// Floats cut into bfloat16 parts, and the powers of two that were met: see panel.hpp.
#pragma once

#include <immintrin.h>

#include "kernels/amx/panel.hpp"
#include "kernels/gemm.hpp"

namespace unitstride::UNITSTRIDE_ISA {
namespace {

// The largest and smallest magnitudes of bfloat16 seen, zeros aside.
class Magnitudes {
  public:
    void see(F32 low, F32 high, __m512i pairs) noexcept {
        const auto bits = _mm512_add_epi16(pairs, pairs);  // without the signs
        highest_ = _mm512_max_epu16(highest_, bits);
        lowest_ = _mm512_min_epu16(lowest_, _mm512_sub_epi16(bits, _mm512_set1_epi16(1)));
        any_ |= reinterpret_cast<U32>(low) | reinterpret_cast<U32>(high);
    }
    void widen(PowerRange& range) const noexcept {
        const int highest = power_of(0xffff - least_lane(~highest_));
        const int least = least_lane(lowest_);
        if (highest > range.highest) range.highest = highest;
        if (least < 0xffff && power_of(least + 1) < range.lowest)
            range.lowest = power_of(least + 1);
        const auto any = reinterpret_cast<__m512i>(any_);
        if (_mm512_test_epi32_mask(any, _mm512_set1_epi32(0xffff)) != 0) range.lowest = -128;
    }

  private:
    static int power_of(int doubled_bits) noexcept { return (doubled_bits >> 8) - 127; }
    static int least_lane(__m512i v) noexcept {
        const auto half =
            _mm256_min_epu16(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64(v, 1));
        const auto quarter =
            _mm_min_epu16(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
        return _mm_extract_epi16(_mm_minpos_epu16(quarter), 0);
    }

    U32 any_ = {};  // bits below those of a bfloat16: subnormals have no head
    __m512i highest_ = _mm512_setzero_si512(), lowest_ = _mm512_set1_epi16(-1);
};

// v rounded to the eight bits of a bfloat16.
inline F32 head_of(F32 v) noexcept {
    const F32 scaled = v * splat(65537.0f);
    return scaled - (scaled - v);
}

// Two bfloat16 in each lane, from the upper halves of floats.
inline __m512i pairs_of(F32 low, F32 high) noexcept {
    return reinterpret_cast<__m512i>((reinterpret_cast<U32>(low) >> 16) |
                                     reinterpret_cast<U32>(high));
}

// 16 pairs of each part, `distance` bytes from part to part: a row of each one's square.
template <size parts>
inline void write_parts(char* to, F32 low, F32 high, Magnitudes& magnitudes,
                        size distance = part_bytes) noexcept {
    for (size part = 0;; to += distance) {
        const bool is_last = ++part == parts;
        const F32 low_head = is_last ? low : head_of(low),
                  high_head = is_last ? high : head_of(high);
        const auto pairs = pairs_of(low_head, high_head);
        if (part == 1)
            magnitudes.see(low_head, high_head,
                           pairs);  // the first part is as large as the element
        _mm512_storeu_si512(to, pairs);
        if (is_last) return;
        low = low - low_head;
        high = high - high_head;
    }
}

}  // namespace
}  // namespace unitstride::UNITSTRIDE_ISA
