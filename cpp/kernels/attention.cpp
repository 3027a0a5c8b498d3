// Both products of attention on the register tile of the matrix product, with the softmax between
// them while the scores are in the first-level cache.
#include "kernels/attention.hpp"

#include "kernels/attention_adjust.hpp"
#include "kernels/attention_softmax.hpp"
#include "kernels/gemm_tile.hpp"
#include "kernels/table.hpp"
#include "simd/compare.hpp"

namespace unitstride::UNITSTRIDE_ISA {
namespace {

template <class T>
constexpr size strip_keys = attention_strip_bytes / static_cast<size>(sizeof(T));

template <class T>
void scores(const AttentionStrip& strip) noexcept {
    constexpr size width = tile_columns<T>;
    const T* query = static_cast<const T*>(strip.query);
    const T* keys = static_cast<const T*>(strip.keys) + strip.begin * strip.features;
    T* highest = static_cast<T*>(strip.highest);
    for (size r = 0; r < tile_rows; ++r) store(highest + r * lanes<T>, splat(-infinity<T>));
    for (size k = strip.begin; k < strip.end; k += width, keys += width * strip.features) {
        Vec<T> sum[tile_rows][tile_vectors];
        multiply_panels<T, tile_rows, tile_vectors>(query, keys, strip.features, sum);
        T* to = static_cast<T*>(strip.scores) + k;
#pragma GCC unroll 16
        for (size r = 0; r < tile_rows; ++r)
#pragma GCC unroll 4
            for (size v = 0; v < tile_vectors; ++v)
                store(to + r * strip_keys<T> + v * lanes<T>, sum[r][v]);
        if (k < strip.plain_begin || k >= strip.plain_end) continue;
#pragma GCC unroll 16
        for (size r = 0; r < tile_rows; ++r) {
            Vec<T> most = load(highest + r * lanes<T>);
#pragma GCC unroll 4
            for (size v = 0; v < tile_vectors; ++v) most = max_or_second(most, sum[r][v]);
            store(highest + r * lanes<T>, most);
        }
    }
}

template <class T>
void weigh(AttentionStrip& strip) noexcept {
    weigh_rows<T, strip_keys<T>>(strip, [&](size r, size k, const Vec<T>* weight) {
        T* to = static_cast<T*>(strip.scores) + r * strip_keys<T> + k;
#pragma GCC unroll 4
        for (int v = 0; v < vectors_in_step; ++v) store(to + v * lanes<T>, weight[v]);
    });
}

// `depth` weights of every row, rows strip_keys apart, times a panel of values.
template <class T>
inline void multiply_weights(const T* weights, const T* values, size depth,
                             Accumulators<T, tile_rows, tile_vectors> sum) noexcept {
    constexpr size ahead = 16;
    for (size k = 0; k < depth; ++k, ++weights, values += tile_columns<T>) {
        Vec<T> row[tile_vectors];
#pragma GCC unroll 4
        for (size v = 0; v < tile_vectors; ++v) {
            row[v] = load(values + v * lanes<T>);
            prefetch(values + ahead * tile_columns<T> + v * lanes<T>);
        }
#pragma GCC unroll 16
        for (size r = 0; r < tile_rows; ++r) {
            const Vec<T> weight = splat(weights[r * strip_keys<T>]);
#pragma GCC unroll 4
            for (size v = 0; v < tile_vectors; ++v)
                sum[r][v] = multiply_add(weight, row[v], sum[r][v]);
        }
    }
}

// Sums over many keys are cut: the error of a chain grows with its length, and what is summed up so
// far is rounded with every term.
constexpr size piece_keys = 64;

template <class T>
void average(const AttentionStrip& strip) noexcept {
    constexpr size width = tile_columns<T>;
    const T* weights = static_cast<const T*>(strip.scores) + strip.begin;
    const T* values = static_cast<const T*>(strip.values) + strip.begin * width;
    const T* rescale = static_cast<const T*>(strip.rescale);
    const size depth = strip.end - strip.begin;
    T* to = static_cast<T*>(strip.averages);
    for (size p = 0; p < strip.value_panels;
         ++p, values += strip.value_depth * width, to += tile_rows * width)
        for (size k = 0; k < depth; k += piece_keys) {
            Vec<T> sum[tile_rows][tile_vectors];
            clear_tile<T, tile_rows, tile_vectors>(sum);
            multiply_weights<T>(weights + k, values + k * width,
                                depth - k < piece_keys ? depth - k : piece_keys, sum);
            const bool adds = k > 0 || !strip.first, rescales = k == 0 && strip.rescales;
#pragma GCC unroll 16
            for (size r = 0; r < tile_rows; ++r)
#pragma GCC unroll 4
                for (size v = 0; v < tile_vectors; ++v) {
                    T* const place = to + r * width + v * lanes<T>;
                    if (adds) {
                        const Vec<T> old = load(place);
                        sum[r][v] = sum[r][v] + (rescales ? old * splat(rescale[r]) : old);
                    }
                    store(place, sum[r][v]);
                }
        }
}

template <class T>
void gradient(const AttentionGradient& task) noexcept {
    constexpr int step = tile_vectors;
    const Vec<T> factor = splat(static_cast<T>(task.factor));
    const Vec<T> scale = splat(static_cast<T>(task.scale));
    for (size r = 0; r < task.rows; ++r) {
        const Vec<T> high = splat(static_cast<const T*>(task.level_high)[r]);
        const Vec<T> low = splat(static_cast<const T*>(task.level_low)[r]);
        const bool far = low[0] == infinity<T>;  // Note [Far levels]
        const Vec<T> delta = splat(static_cast<const T*>(task.delta)[r]);
        T* score = static_cast<T*>(task.scores) + r * strip_keys<T>;
        T* product = static_cast<T*>(task.gradients) + r * strip_keys<T>;
        const T* derivative = static_cast<const T*>(task.derivative);
        if (derivative) derivative += r * strip_keys<T>;
        for (size k = task.begin; k < task.end; k += step * lanes<T>) {
            Vec<T> x[step], weight[step];
#pragma GCC unroll 4
            for (int v = 0; v < step; ++v) {
                const Vec<T> s = load(score + k + v * lanes<T>);
                x[v] = far ? (s - high) * factor : multiply_add(s, factor, -high) - low;
            }
            exp2_in_step<T>(x, weight);
#pragma GCC unroll 4
            for (int v = 0; v < step; ++v) {
                const size at = k + v * lanes<T>;
                store(score + at, weight[v]);
                Vec<T> slope = weight[v] * scale;
                if (derivative) slope = slope * load(derivative + at);
                slope = slope * (load(product + at) - delta);
                // What is excluded has no gradient, whatever its product is.
                store(product + at, zero_where_equal(weight[v], Vec<T>{}, slope));
            }
        }
    }
}

template <class T>
void accumulate(const AttentionAccumulate& task) noexcept {
    constexpr size width = tile_columns<T>;
    for (size p = 0; p < task.panels; ++p)
        for (size key = task.begin; key < task.end; key += tile_rows) {
            const T* weights = static_cast<const T*>(task.weights) + key;
            const T* elements =
                static_cast<const T*>(task.elements) + p * task.element_depth * width;
            T* to = static_cast<T*>(task.sums) + (p * task.keys + key) * width;
            Vec<T> sum[tile_rows][tile_vectors];
#pragma GCC unroll 16
            for (size r = 0; r < tile_rows; ++r)
#pragma GCC unroll 4
                for (size v = 0; v < tile_vectors; ++v)
                    sum[r][v] = load(to + r * width + v * lanes<T>);
            for (size k = 0; k < task.depth; ++k, weights += strip_keys<T>, elements += width) {
                Vec<T> row[tile_vectors];
#pragma GCC unroll 4
                for (size v = 0; v < tile_vectors; ++v) row[v] = load(elements + v * lanes<T>);
#pragma GCC unroll 16
                for (size r = 0; r < tile_rows; ++r) {
                    const Vec<T> weight = splat(weights[r]);
#pragma GCC unroll 4
                    for (size v = 0; v < tile_vectors; ++v)
                        sum[r][v] = multiply_add(weight, row[v], sum[r][v]);
                }
            }
#pragma GCC unroll 16
            for (size r = 0; r < tile_rows; ++r)
#pragma GCC unroll 4
                for (size v = 0; v < tile_vectors; ++v)
                    store(to + r * width + v * lanes<T>, sum[r][v]);
        }
}

template <class T>
constexpr AttentionKernels kernels_of = {
    .rows = tile_rows,
    .columns = tile_columns<T>,
    .lanes = lanes<T>,
    .strip_keys = strip_keys<T>,
    .depth_unit = 1,
    .query_bytes = tile_rows * static_cast<size>(sizeof(T)),
    .key_bytes = tile_columns<T> * static_cast<size>(sizeof(T)),
    .weight_bytes = 0,
    .scores = scores<T>,
    .adjust = adjust<T, strip_keys<T>>,
    .weigh = weigh<T>,
    .average = average<T>,
    .meet = nullptr,
    .finish = finish<T, tile_rows, tile_columns<T>>,
    .gradient = gradient<T>,
    .accumulate = accumulate<T>,
    .mask_state = mask_state,
    .all_finite = all_finite<T>,
};

}  // namespace

extern constinit const AttentionKernels attention_kernels[2] = {kernels_of<float>,
                                                                kernels_of<double>};

}  // namespace unitstride::UNITSTRIDE_ISA
