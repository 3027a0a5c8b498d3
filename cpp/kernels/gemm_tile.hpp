// The register tile: rows x vectors accumulators, one broadcast of A and one row of B per step.
//
// Note [Register tile]. With 32 registers the tile is 14 rows by 2 vectors: 28 accumulators, two
// vectors of B and a broadcast of A leave one register free, and a step of 28 multiply-adds loads
// 16 times, fewer than the two a cycle that the first-level cache delivers. With 16 registers it is
// 6 by 2.
#pragma once

#include <utility>

#include "simd/vec.hpp"

namespace unitstride::UNITSTRIDE_ISA {
namespace {

#if defined(__AVX512F__)
constexpr size tile_rows = 14;
#elif defined(__aarch64__)
constexpr size tile_rows = 14;
#else
constexpr size tile_rows = 6;
#endif
constexpr size tile_vectors = 2;
template <class T>
constexpr size tile_columns = tile_vectors * lanes<T>;

template <class T, size rows, size vectors>
using Accumulators = Vec<T> (&)[rows][vectors];

template <class T, size rows, size vectors>
inline void clear_tile(Accumulators<T, rows, vectors> sum) noexcept {
#pragma GCC unroll 16
    for (size r = 0; r < rows; ++r)
#pragma GCC unroll 4
        for (size v = 0; v < vectors; ++v) sum[r][v] = Vec<T>{};
}

// A row of B times as many neighbours as the tile has rows.
template <class T, size rows, size vectors>
inline void multiply_step(const T* a, const T* b, Accumulators<T, rows, vectors> sum) noexcept {
    constexpr size ahead = 16;  // rows of B that are fetched early from the second-level cache
    Vec<T> row[vectors];
#pragma GCC unroll 4
    for (size v = 0; v < vectors; ++v) {
        row[v] = load(b + v * lanes<T>);
        prefetch(b + ahead * tile_columns<T> + v * lanes<T>);
    }
#pragma GCC unroll 16
    for (size r = 0; r < rows; ++r) {
        const Vec<T> factor = splat(a[r]);
#pragma GCC unroll 4
        for (size v = 0; v < vectors; ++v) sum[r][v] = multiply_add(factor, row[v], sum[r][v]);
    }
}

template <class T, size rows, size vectors>
inline void multiply_panels(const T* a, const T* b, size depth,
                            Accumulators<T, rows, vectors> sum) noexcept {
    clear_tile<T, rows, vectors>(sum);
    for (size k = 0; k < depth; ++k, a += tile_rows, b += tile_columns<T>)
        multiply_step<T, rows, vectors>(a, b, sum);
}

// Where a register tile goes: rows of C that are contiguous, or a buffer of tile_columns<T>.
template <class T>
struct TileTarget {
    T* c;
    const std::ptrdiff_t* row_offset;
    size columns;
    T alpha, beta;
    T* buffer;  // not null: the bare sums
};

template <class T, size rows, size vectors>
inline void write_tile(const TileTarget<T>& target, Accumulators<T, rows, vectors> sum) noexcept {
    if (target.buffer) {
#pragma GCC unroll 16
        for (size r = 0; r < rows; ++r)
#pragma GCC unroll 4
            for (size v = 0; v < vectors; ++v)
                store(target.buffer + r * tile_columns<T> + v * lanes<T>, sum[r][v]);
        return;
    }
    const Vec<T> alpha = splat(target.alpha), beta = splat(target.beta);
    const size rest = target.columns - (vectors - 1) * lanes<T>;  // in the last vector
    const bool whole = rest == lanes<T>, reads = target.beta != T(0);
#pragma GCC unroll 16
    for (size r = 0; r < rows; ++r) {
        T* row = target.c + target.row_offset[r];
#pragma GCC unroll 4
        for (size v = 0; v < vectors; ++v) {
            T* to = row + v * lanes<T>;
            if (v < vectors - 1 || whole) {
                store(to,
                      reads ? multiply_add(alpha, sum[r][v], beta * load(to)) : alpha * sum[r][v]);
            } else {
                const Vec<T> old = reads ? beta * load_first(to, rest, T(0)) : Vec<T>{};
                store_first(to, reads ? multiply_add(alpha, sum[r][v], old) : alpha * sum[r][v],
                            rest);
            }
        }
    }
}

template <class T, size rows, size vectors>
void multiply_tile(const T* a, const T* b, size depth, const TileTarget<T>& target) noexcept {
    Vec<T> sum[rows][vectors];
    multiply_panels<T, rows, vectors>(a, b, depth, sum);
    write_tile<T, rows, vectors>(target, sum);
}

template <class T>
using TileFunction = void (*)(const T*, const T*, size, const TileTarget<T>&) noexcept;

template <class T, size... index>
inline TileFunction<T> tile_function(size rows, size vectors,
                                     std::integer_sequence<size, index...>) noexcept {
    static constexpr TileFunction<T> one[] = {multiply_tile<T, index + 1, 1>...};
    static constexpr TileFunction<T> two[] = {multiply_tile<T, index + 1, 2>...};
    return (vectors == 1 ? one : two)[rows - 1];
}

}  // namespace
}  // namespace unitstride::UNITSTRIDE_ISA
