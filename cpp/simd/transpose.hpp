// Square transposition in registers.
#pragma once

#include <utility>

#include "simd/vec.hpp"

namespace unitstride::UNITSTRIDE_ISA {
namespace {

// One step of the transposition by halves: lanes whose index has the bit `half` set change places
// between `a` and `b`.
template <class T, size half, std::size_t... lane>
inline void exchange(Vec<T>& a, Vec<T>& b, std::index_sequence<lane...>) noexcept {
    constexpr size count = lanes<T>;
    const IntVec<T> lower = {(static_cast<size>(lane) & half
                                  ? count + static_cast<size>(lane) - half
                                  : static_cast<size>(lane))...};
    const IntVec<T> upper = {(static_cast<size>(lane) & half ? count + static_cast<size>(lane)
                                                             : static_cast<size>(lane) + half)...};
    const Vec<T> first = __builtin_shuffle(a, b, lower);
    b = __builtin_shuffle(a, b, upper);
    a = first;
}

template <class T, size half>
inline void transpose_step(Vec<T> (&row)[lanes<T>]) noexcept {
#pragma GCC unroll 16
    for (size i = 0; i < lanes<T>; ++i)
        if (!(i & half))
            exchange<T, half>(row[i], row[i + half], std::make_index_sequence<lanes<T>>{});
    if constexpr (half > 1) transpose_step<T, half / 2>(row);
}

template <class T>
inline void transpose(Vec<T> (&row)[lanes<T>]) noexcept {
    transpose_step<T, lanes<T> / 2>(row);
}

// All lanes backwards.
template <class T, std::size_t... lane>
inline Vec<T> backwards(Vec<T> a, std::index_sequence<lane...>) noexcept {
    const IntVec<T> index = {static_cast<IntLane<T>>(lanes<T> - 1 - static_cast<size>(lane))...};
    return __builtin_shuffle(a, index);
}

}  // namespace
}  // namespace unitstride::UNITSTRIDE_ISA
