// Attention of few rows to keys and values as they lie in memory: contiguous features, any distance
// from key to key.
//
// Memory is read in the order in which it lies, so that the processor fetches it by itself: it
// brings more lines at a time than fetching them by instructions does. What is loaded meets up to
// four rows. The sum of a score runs along the features lane by lane, whatever is computed beside
// it.
#include "kernels/attention.hpp"
#include "kernels/gemm_tile.hpp"
#include "kernels/table.hpp"
#include "simd/storage.hpp"

namespace unitstride::UNITSTRIDE_ISA {
namespace {

constexpr int rows_at_once = 4;
// Of features: sums of all rows stay in registers.
constexpr size vectors_at_once(int rows) noexcept { return rows == 1 ? 8 : 4; }
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

template <class S, int rows>
inline void multiply_key(const S* key, const Compute<S>* query, size features,
                         Compute<S>* to) noexcept {
    using T = Compute<S>;
    Vec<T> sum[rows] = {};
    size d = 0;
    for (; d + lanes<T> <= features; d += lanes<T>) {
        const Vec<T> part = load_as(key + d);
#pragma GCC unroll 4
        for (int r = 0; r < rows; ++r)
            sum[r] = multiply_add(part, load(query + r * features + d), sum[r]);
    }
    if (d < features) {
        const Vec<T> part = load_first_as(key + d, features - d, T(0));
        for (int r = 0; r < rows; ++r)
            sum[r] = multiply_add(part, load_first(query + r * features + d, features - d, T(0)),
                                  sum[r]);
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; ++r) to[r * row_stride<T>] = sum_of_lanes(sum[r]);
}

template <class S, int rows>
void score_rows(const AttentionStrip& strip, const AttentionDirect& block, size first) noexcept {
    using T = Compute<S>;
    const T* query = static_cast<const T*>(strip.query) + first * strip.features;
    T* scores = static_cast<T*>(strip.scores) + first * row_stride<T>;
    const S* key = static_cast<const S*>(block.array) + strip.begin * block.stride;
    for (size k = strip.begin; k < block.used; ++k, key += block.stride)
        multiply_key<S, rows>(key, query, strip.features, scores + k);
    for (size r = 0; r < rows; ++r)
        for (size rest = block.used; rest < strip.end; ++rest)
            scores[r * row_stride<T> + rest] = T(0);
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

// Keys of a block whose values are summed before they are added to what there is: the error of a
// chain grows with its length, and what is summed up so far is rounded with every term.
struct Piece {
    size begin, end;
    bool first;
};
constexpr size piece_keys = 128;

// The averages of some rows for `vectors` vectors of features.
template <class S, int rows, int vectors>
inline void average_rows(const AttentionStrip& strip, const AttentionDirect& block,
                         const Piece& piece, size row, size feature) noexcept {
    using T = Compute<S>;
    constexpr size width = tile_columns<T>;
    const S* values = static_cast<const S*>(block.array) + feature;
    const T* weights = static_cast<const T*>(strip.scores) + row * row_stride<T>;
    const size left = block.features - feature - (vectors - 1) * lanes<T>;  // in the last vector
    Vec<T> sum[rows][vectors] = {};
    for (size k = piece.begin; k < piece.end; ++k) {
        Vec<T> part[vectors];
#pragma GCC unroll 8
        for (int v = 0; v < vectors; ++v) {
            const S* from = values + k * block.stride + v * lanes<T>;
            part[v] = v < vectors - 1 || left >= lanes<T> ? load_as(from)
                                                          : load_first_as(from, left, T(0));
        }
#pragma GCC unroll 4
        for (int r = 0; r < rows; ++r) {
            const Vec<T> weight = splat(weights[r * row_stride<T> + k]);
#pragma GCC unroll 8
            for (int v = 0; v < vectors; ++v) sum[r][v] = multiply_add(weight, part[v], sum[r][v]);
        }
    }
    const bool rescales = piece.first && strip.rescales;
#pragma GCC unroll 4
    for (int r = 0; r < rows; ++r) {
        const T factor = rescales ? static_cast<const T*>(strip.rescale)[row + r] : T(1);
#pragma GCC unroll 8
        for (int v = 0; v < vectors; ++v) {
            const size f = feature + v * lanes<T>;
            T* const place = static_cast<T*>(strip.averages) +
                             (f / width * tile_rows + row + r) * width + f % width;
            store(place, load(place) * splat(factor) + sum[r][v]);
        }
    }
}

template <class S, int rows>
void average_features(const AttentionStrip& strip, const AttentionDirect& block, const Piece& piece,
                      size row) noexcept {
    constexpr size step = lanes<Compute<S>>, vectors = vectors_at_once(rows);
    size feature = 0;
    for (; feature + vectors * step <= block.features; feature += vectors * step)
        average_rows<S, rows, vectors>(strip, block, piece, row, feature);
    for (; feature < block.features; feature += step)
        average_rows<S, rows, 1>(strip, block, piece, row, feature);
}

template <class S>
void average(const AttentionStrip& strip, const AttentionDirect& block) noexcept {
    for (size k = strip.begin; k < block.used; k += piece_keys) {
        const size end = block.used - k < piece_keys ? block.used : k + piece_keys;
        const Piece piece = {k, end, k == strip.begin};
        size row = 0;
        for (; row + rows_at_once <= strip.rows; row += rows_at_once)
            average_features<S, rows_at_once>(strip, block, piece, row);
        for (; row < strip.rows; ++row) average_features<S, 1>(strip, block, piece, row);
    }
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
