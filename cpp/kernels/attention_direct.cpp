// Attention of few rows to keys and values as they lie in memory: contiguous features, any distance
// from key to key.
//
// Keys go four at a time, values by four vectors of features; both meet up to four rows per load.
// The sum of a score runs along the features lane by lane, whatever is computed beside it.
#include "kernels/attention.hpp"
#include "kernels/gemm_tile.hpp"
#include "kernels/table.hpp"
#include "simd/storage.hpp"

namespace unitstride::UNITSTRIDE_ISA {
namespace {

constexpr int keys_at_once = 4, rows_at_once = 4;
constexpr size vectors_at_once = 4;
constexpr size keys_ahead = 16;  // that are fetched early
template <class T>
constexpr size row_stride = attention_strip_bytes / static_cast<size>(sizeof(T));

template <class V>
inline auto sum_of_lanes(V v) noexcept {
#pragma GCC unroll 8
    for (size half = static_cast<size>(sizeof(V) / sizeof(v[0])) / 2; half > 0; half /= 2)
        for (size lane = 0; lane < half; ++lane) v[lane] += v[lane + half];
    return v[0];
}
#if defined(__AVX512F__)
inline float sum_of_lanes(F32 v) noexcept { return _mm512_reduce_add_ps(v); }
inline double sum_of_lanes(F64 v) noexcept { return _mm512_reduce_add_pd(v); }
#endif

template <class S, int rows, int keys>
inline void multiply_keys(const S* key, size stride, const Compute<S>* query, size features,
                          Compute<S>* to) noexcept {
    using T = Compute<S>;
    Vec<T> sum[keys][rows] = {};
    size d = 0;
    for (; d + lanes<T> <= features; d += lanes<T>) {
        Vec<T> part[keys];
#pragma GCC unroll 4
        for (int j = 0; j < keys; ++j) {
            const S* from = key + j * stride + d;
            part[j] = load_as(from);
            prefetch(from + keys_ahead * stride);
        }
#pragma GCC unroll 4
        for (int r = 0; r < rows; ++r) {
            const Vec<T> own = load(query + r * features + d);
#pragma GCC unroll 4
            for (int j = 0; j < keys; ++j) sum[j][r] = multiply_add(part[j], own, sum[j][r]);
        }
    }
    if (d < features)
        for (int j = 0; j < keys; ++j) {
            const Vec<T> part = load_first_as(key + j * stride + d, features - d, T(0));
            for (int r = 0; r < rows; ++r)
                sum[j][r] = multiply_add(
                    part, load_first(query + r * features + d, features - d, T(0)), sum[j][r]);
        }
#pragma GCC unroll 4
    for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
        for (int j = 0; j < keys; ++j) to[r * row_stride<T> + j] = sum_of_lanes(sum[j][r]);
}

template <class S, int rows>
void score_rows(const AttentionStrip& strip, const AttentionDirect& block, size first) noexcept {
    using T = Compute<S>;
    const T* query = static_cast<const T*>(strip.query) + first * strip.features;
    T* scores = static_cast<T*>(strip.scores) + first * row_stride<T>;
    const S* keys = static_cast<const S*>(block.array);
    size k = strip.begin;
    for (; k + keys_at_once <= block.used; k += keys_at_once)
        multiply_keys<S, rows, keys_at_once>(keys + k * block.stride, block.stride, query,
                                             strip.features, scores + k);
    for (; k < block.used; ++k)
        multiply_keys<S, rows, 1>(keys + k * block.stride, block.stride, query, strip.features,
                                  scores + k);
    for (size r = 0; r < rows; ++r)
        for (size rest = k; rest < strip.end; ++rest) scores[r * row_stride<T> + rest] = T(0);
}

template <class S>
void scores(const AttentionStrip& strip, const AttentionDirect& block) noexcept {
    using T = Compute<S>;
    size first = 0;
    for (; first + rows_at_once <= strip.rows; first += rows_at_once)
        score_rows<S, rows_at_once>(strip, block, first);
    for (; first < strip.rows; ++first) score_rows<S, 1>(strip, block, first);
    for (size r = 0; r < strip.rows; ++r) {
        const T* score = static_cast<const T*>(strip.scores) + r * row_stride<T>;
        Vec<T> most = splat(static_cast<T>(-__builtin_huge_val()));
        for (size k = strip.plain_begin; k < strip.plain_end; k += lanes<T>)
            most = max_or_second(most, load(score + k));
        store(static_cast<T*>(strip.highest) + r * lanes<T>, most);
    }
}

// The averages of some rows for `vectors` vectors of features.
template <class S, int rows, int vectors>
inline void average_rows(const AttentionStrip& strip, const AttentionDirect& block, size row,
                         size feature) noexcept {
    using T = Compute<S>;
    constexpr size width = tile_columns<T>;
    const S* values = static_cast<const S*>(block.array) + feature;
    const T* weights = static_cast<const T*>(strip.scores) + row * row_stride<T>;
    const auto place = [&](size r, size v) {
        const size f = feature + v * lanes<T>;
        return static_cast<T*>(strip.averages) + (f / width * tile_rows + row + r) * width +
               f % width;
    };
    const size left = block.features - feature - (vectors - 1) * lanes<T>;  // in the last vector
    Vec<T> sum[rows][vectors];
#pragma GCC unroll 4
    for (int r = 0; r < rows; ++r) {
        const T factor = strip.rescales ? static_cast<const T*>(strip.rescale)[row + r] : T(1);
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) sum[r][v] = load(place(r, v)) * splat(factor);
    }
    for (size k = strip.begin; k < block.used; ++k) {
        Vec<T> part[vectors];
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) {
            const S* from = values + k * block.stride + v * lanes<T>;
            prefetch(from + keys_ahead * block.stride);
            part[v] = v < vectors - 1 || left >= lanes<T> ? load_as(from)
                                                          : load_first_as(from, left, T(0));
        }
#pragma GCC unroll 4
        for (int r = 0; r < rows; ++r) {
            const Vec<T> weight = splat(weights[r * row_stride<T> + k]);
#pragma GCC unroll 4
            for (int v = 0; v < vectors; ++v) sum[r][v] = multiply_add(weight, part[v], sum[r][v]);
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) store(place(r, v), sum[r][v]);
}

template <class S, int rows>
void average_features(const AttentionStrip& strip, const AttentionDirect& block,
                      size row) noexcept {
    constexpr size step = lanes<Compute<S>>;
    size feature = 0;
    for (; feature + vectors_at_once * step <= block.features; feature += vectors_at_once * step)
        average_rows<S, rows, vectors_at_once>(strip, block, row, feature);
    for (; feature < block.features; feature += step)
        average_rows<S, rows, 1>(strip, block, row, feature);
}

template <class S>
void average(const AttentionStrip& strip, const AttentionDirect& block) noexcept {
    size row = 0;
    for (; row + rows_at_once <= strip.rows; row += rows_at_once)
        average_features<S, rows_at_once>(strip, block, row);
    for (; row < strip.rows; ++row) average_features<S, 1>(strip, block, row);
}

template <class S>
bool all_finite(const AttentionStrip& strip, const AttentionDirect& block) noexcept {
    using T = Compute<S>;
    Vec<T> sum = {};
    for (size k = strip.begin; k < block.used; ++k) {
        const S* from = static_cast<const S*>(block.array) + k * block.stride;
        for (size f = 0; f < block.features; f += lanes<T>) {
            const size left = block.features - f;
            const Vec<T> part =
                left >= lanes<T> ? load_as(from + f) : load_first_as(from + f, left, T(0));
            sum = multiply_add(part, Vec<T>{}, sum);
        }
    }
    for (size lane = 0; lane < lanes<T>; ++lane)
        if (!(sum[lane] == T(0))) return false;
    return true;
}

template <class S>
constexpr AttentionDirectKernels kernels_of = {scores<S>, average<S>, all_finite<S>};

}  // namespace

extern constinit const AttentionDirectKernels attention_direct_kernels[storage_count] = {
    kernels_of<float>, kernels_of<double>, kernels_of<Float16>, kernels_of<BFloat16>};

}  // namespace unitstride::UNITSTRIDE_ISA
