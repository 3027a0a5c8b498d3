// Weights of attention as bfloat16 parts, and products of them.
//
// Weights and their gradients are cut into parts by their bits: three parts hold a float, two are
// enough where results have eleven bits or fewer. Parts below 2^-126 count as zero: nothing is lost
// of weights down to 2^-102.
#pragma once

#include "kernels/amx/squares.hpp"

namespace unitstride::UNITSTRIDE_ISA {
namespace {

template <class S>
constexpr size weight_parts = parts_of<S> == 3 ? 3 : 2;

constexpr size stretch_keys = 128;  // at most, that are under way at a time

constexpr size steps_of(size depth) noexcept { return (depth + step_depth - 1) / step_depth; }

// The upper halves of two vectors of floats, as pairs.
inline __m512i heads_of(F32 low, F32 high) noexcept {
    return _mm512_mask_blend_epi16(0xaaaaaaaa,
                                   _mm512_srli_epi32(reinterpret_cast<__m512i>(low), 16),
                                   reinterpret_cast<__m512i>(high));
}
// What the upper half leaves.
inline F32 rest_of(F32 v) noexcept {
    return v - reinterpret_cast<F32>(reinterpret_cast<U32>(v) & 0xffff0000u);
}

// Two vectors as a row of the square of each part.
template <size parts>
inline void put_parts(char* to, F32 low, F32 high) noexcept {
#pragma GCC unroll 3
    for (size part = 0; part < parts; ++part) {
        _mm512_storeu_si512(to + part * part_bytes, heads_of(low, high));
        low = rest_of(low);
        high = rest_of(high);
    }
}

// A row from square to square, and which of a strip's.
constexpr size row_place(size r) noexcept { return r / side * square_bytes + r % side * 64; }

// Some of a strip's keys.
inline size within(size key, const AttentionStrip& stretch) noexcept {
    return key < stretch.begin ? stretch.begin : (key > stretch.end ? stretch.end : key);
}
inline AttentionStrip stretch_of(const AttentionStrip& strip, size begin, size length) noexcept {
    AttentionStrip stretch = strip;
    const size last = begin + length;
    stretch.begin = begin;
    stretch.end = last < strip.end ? last : strip.end;
    stretch.plain_begin = within(strip.plain_begin, stretch);
    stretch.plain_end = within(strip.plain_end, stretch);
    return stretch;
}

}  // namespace
}  // namespace unitstride::UNITSTRIDE_ISA
