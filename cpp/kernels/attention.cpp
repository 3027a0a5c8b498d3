// Both products of attention on the register tile of the matrix product, with the softmax between
// them while the scores are in the first-level cache.
//
// Note [Late rescaling]. Exponentials are powers of two measured from `level`, a score. It is
// raised to the block's highest score only when that lies more than 2^8 above it: until then
// weights are at most 2^8, nothing overflows, and the averages need no multiplication. The division
// at the end makes the choice of the level invisible.
//
// Note [Far levels]. score * factor - level * factor is one operation when the second product is
// rounded first. Its rounding error moves the level, which does not show while it is a fraction of
// one; but that of 10^10 is beyond the range of exponents. Scores that large come from biases that
// stand for a mask. Rows whose level lies beyond `far_level` subtract first, which is exact for
// all scores that count.
#include "kernels/attention.hpp"

#include "kernels/attention_adjust.hpp"
#include "kernels/gemm_tile.hpp"
#include "kernels/table.hpp"
#include "simd/compare.hpp"
#include "simd/exp2.hpp"

namespace unitstride::UNITSTRIDE_ISA {
namespace {

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
inline bool is_far(T level, T factor) noexcept {
    const T power = level * factor;
    return !(power <= far_level<T> && -power <= far_level<T>);
}

// How many powers of two `score` lies above the level `from`; both are what weights are measured
// from, see Note [Far levels].
template <class T>
inline T powers_above(T score, T from, T factor) noexcept {
    if (is_far(from, factor))
        return is_far(score, factor)
                   ? (score - from) * factor
                   : -multiply_add(splat(from), splat(factor), splat(-(score * factor)))[0];
    return is_far(score, factor)
               ? multiply_add(splat(score), splat(factor), splat(-(from * factor)))[0]
               : score * factor - from * factor;
}

// Raises the level of row `r` where a block needs it; returns what its exponents are measured from.
template <class T>
inline T raise_level(AttentionStrip& strip, size r) noexcept {
    constexpr T margin = 8;
    const T factor = static_cast<T>(strip.factor);
    T& level = static_cast<T*>(strip.level)[r];
    T& rescale = static_cast<T*>(strip.rescale)[r];
    const T now = highest_lane(load(static_cast<T*>(strip.highest) + r * lanes<T>));
    rescale = 1;
    if (level == -infinity<T>) {
        if (now > level) {
            rescale = 0;
            level = now;
            strip.rescales = true;
        }
        return level == -infinity<T> ? T(0) : level;
    }
    const T above = powers_above(now, level, factor);
    if (above > margin) {
        rescale = exp2_flushed<T>(splat(-above))[0];
        level = now;
        strip.rescales = true;
    }
    return level;
}

// Exponents of a few vectors of scores; `base` is the level, times the factor where it is near.
template <class T, bool far>
inline void exponents(const T* score, T base, Vec<T> factor, Vec<T>* x) noexcept {
#pragma GCC unroll 4
    for (int v = 0; v < tile_vectors; ++v) {
        const Vec<T> s = load(score + v * lanes<T>);
        x[v] = far ? (s - splat(base)) * factor : multiply_add(s, factor, splat(-base));
    }
}

// Scores of a row to weights, added to `total`.
template <class T, bool far>
inline void weigh_row(T* score, size begin, size end, T base, Vec<T> factor,
                      Vec<T>* total) noexcept {
    constexpr int step = tile_vectors;
    for (size k = begin; k < end; k += step * lanes<T>) {
        Vec<T> x[step], weight[step];
        exponents<T, far>(score + k, base, factor, x);
        exp2_in_step<T>(x, weight);
#pragma GCC unroll 4
        for (int v = 0; v < step; ++v) {
            store(score + k + v * lanes<T>, weight[v]);
            total[v] = total[v] + weight[v];
        }
    }
}

template <class T>
void weigh(AttentionStrip& strip) noexcept {
    constexpr int step = tile_vectors;
    const Vec<T> factor = splat(static_cast<T>(strip.factor));
    strip.rescales = false;
    for (size r = 0; r < strip.rows; ++r) {
        const T level = raise_level<T>(strip, r);
        T* score = static_cast<T*>(strip.scores) + r * strip_keys<T>;
        T* sums = static_cast<T*>(strip.sums) + r * lanes<T>;
        Vec<T> total[step] = {};
        total[0] = load(sums) * splat(static_cast<T*>(strip.rescale)[r]);
        if (is_far(level, factor[0]))
            weigh_row<T, true>(score, strip.begin, strip.end, level, factor, total);
        else
            weigh_row<T, false>(score, strip.begin, strip.end, level * factor[0], factor, total);
        store(sums, total[0] + total[1]);
    }
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

template <class T>
void average(const AttentionStrip& strip) noexcept {
    constexpr size width = tile_columns<T>;
    const T* weights = static_cast<const T*>(strip.scores) + strip.begin;
    const T* values = static_cast<const T*>(strip.values) + strip.begin * width;
    const T* rescale = static_cast<const T*>(strip.rescale);
    T* to = static_cast<T*>(strip.averages);
    for (size p = 0; p < strip.value_panels;
         ++p, values += strip.value_depth * width, to += tile_rows * width) {
        Vec<T> sum[tile_rows][tile_vectors];
#pragma GCC unroll 16
        for (size r = 0; r < tile_rows; ++r)
#pragma GCC unroll 4
            for (size v = 0; v < tile_vectors; ++v)
                sum[r][v] = strip.first ? Vec<T>{} : load(to + r * width + v * lanes<T>);
        if (strip.rescales && !strip.first) {
#pragma GCC unroll 16
            for (size r = 0; r < tile_rows; ++r)
#pragma GCC unroll 4
                for (size v = 0; v < tile_vectors; ++v) sum[r][v] = sum[r][v] * splat(rescale[r]);
        }
        multiply_weights<T>(weights, values, strip.end - strip.begin, sum);
#pragma GCC unroll 16
        for (size r = 0; r < tile_rows; ++r)
#pragma GCC unroll 4
            for (size v = 0; v < tile_vectors; ++v) store(to + r * width + v * lanes<T>, sum[r][v]);
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

inline double sum_of_lanes(F64 v) noexcept {
#pragma GCC unroll 8
    for (size half = lanes<double> / 2; half > 0; half /= 2)
        for (size lane = 0; lane < half; ++lane) v[lane] += v[lane + half];
    return v[0];
}
inline double sum_of_lanes(F32 v) noexcept { return sum_of_lanes(widen_low(v) + widen_high(v)); }

template <class T>
void finish(const AttentionStrip& strip) noexcept {
    constexpr size width = tile_columns<T>;
    for (size r = 0; r < strip.rows; ++r) {
        const T* sums = static_cast<const T*>(strip.sums) + r * lanes<T>;
        const double total = sum_of_lanes(load(sums));
        strip.totals[r] = total;
        const Vec<T> inverse = splat(total == 0 ? T(0) : static_cast<T>(1 / total));
        T* row = static_cast<T*>(strip.averages) + r * width;
        for (size p = 0; p < strip.value_panels; ++p, row += tile_rows * width)
#pragma GCC unroll 4
            for (size v = 0; v < tile_vectors; ++v)
                store(row + v * lanes<T>,
                      strip.first ? Vec<T>{} : load(row + v * lanes<T>) * inverse);
    }
}

MaskState mask_state(const AttentionStrip& strip) noexcept {
    typedef unsigned char Bytes __attribute__((vector_size(16)));
    Bytes unset = {}, set = {};
    for (size r = 0; r < strip.rows; ++r)
        for (size k = strip.begin; k < strip.end; k += 16) {
            const auto bytes = load_vector<Bytes>(strip.row[r].mask + k);
            const auto is_zero = reinterpret_cast<Bytes>(bytes == Bytes{});
            unset |= is_zero;
            set |= ~is_zero;
        }
    bool any_unset = false, any_set = false;
    for (int lane = 0; lane < 16; ++lane) {
        any_unset = any_unset || unset[lane];
        any_set = any_set || set[lane];
    }
    return !any_unset ? MaskState::all : any_set ? MaskState::some : MaskState::none;
}

template <class T>
bool all_finite(const void* elements, size count) noexcept {
    const T* from = static_cast<const T*>(elements);
    Vec<T> sum = {};
    for (size i = 0; i < count; i += lanes<T>) sum = multiply_add(load(from + i), Vec<T>{}, sum);
    for (size lane = 0; lane < lanes<T>; ++lane)
        if (!(sum[lane] == T(0))) return false;
    return true;
}

template <class T>
constexpr AttentionKernels kernels_of = {
    .rows = tile_rows,
    .columns = tile_columns<T>,
    .lanes = lanes<T>,
    .strip_keys = strip_keys<T>,
    .scores = scores<T>,
    .adjust = adjust<T>,
    .weigh = weigh<T>,
    .average = average<T>,
    .finish = finish<T>,
    .gradient = gradient<T>,
    .accumulate = accumulate<T>,
    .mask_state = mask_state,
    .all_finite = all_finite<T>,
};

}  // namespace

extern constinit const AttentionKernels attention_kernels[2] = {kernels_of<float>,
                                                                kernels_of<double>};

}  // namespace unitstride::UNITSTRIDE_ISA
