// Windows of a few taps over planes: y[r, i] = sum over p and q of taps[p, q] * x[r + p, i + q].
//
// Note [Shared rows]: a vector of x that begins at an uneven place crosses a cache line, which
// takes two cycles and more, so that one load for each multiply-add reaches a quarter of the speed.
// A tile of four rows of results loads each vector of x once for up to four rows of the kernel: the
// six rows that three rows of taps meet take 18 loads for 36 multiply-adds.
//
// Taps are added one after the other in every form, so results depend neither on the tile nor on
// the place in it; `line`, for strides between results and between taps, begins anew after 128.
//
// The gradient of a tap is a sum over a whole plane. Lanes add at most 128 products, and their sums
// go on in double precision.
//
// Accuracy: a chain of at most 128 multiply-adds, and one addition for each 128 of them.
#include "kernels/planes.hpp"

#include "kernels/table.hpp"
#include "simd/silu.hpp"
#include "simd/vec.hpp"

namespace unitstride::UNITSTRIDE_ISA {
namespace {

constexpr size chain = 128;
constexpr int tile_rows = 4;

#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int tile_vectors = 4, line_vectors = 16;
#else
constexpr int tile_vectors = 2, line_vectors = 8;  // with the taps of 4 rows: 13 of 16 registers
#endif
constexpr int slack_vectors = 4;

template <class T, int height>
[[gnu::always_inline]] inline void finish(const PlaneTask& task, Vec<T> (&sum)[height]) noexcept {
    if (task.bias != nullptr) {
        const Vec<T> bias = splat(load_scalar(static_cast<const T*>(task.bias)));
#pragma GCC unroll 16
        for (int t = 0; t < height; ++t) sum[t] += bias;
    }
    if (task.silu)
        for (int t = 0; t < height; ++t) sum[t] = silu<T>(sum[t]);
}

// One row of x on the rows of results from `first` to `last`; `taps` is that of the last of them.
template <class T, int vectors, int rows, int first, int last>
[[gnu::always_inline]] inline void add_row(const PlaneTask& task, Vec<T> (&sum)[rows * vectors],
                                           const T* x, const T* taps) noexcept {
    for (size q = 0; q < task.tap_columns; ++q) {
        Vec<T> k[last - first + 1];
#pragma GCC unroll 4
        for (int i = first; i <= last; ++i)
            k[i - first] = splat(load_scalar(taps + (last - i) * task.tap_columns + q));
        const T* from = x + task.places[q];
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) {
            const Vec<T> value = load(from + v * lanes<T>);
#pragma GCC unroll 4
            for (int i = first; i <= last; ++i)
                sum[i * vectors + v] = multiply_add(k[i - first], value, sum[i * vectors + v]);
        }
    }
}

// Which rows of results a row of x meets is known when this is compiled.
template <class T, int vectors, int rows, int first, int last>
[[gnu::always_inline]] inline void choose_row(const PlaneTask& task, Vec<T> (&sum)[rows * vectors],
                                              const T* x, const T* taps, size low,
                                              size high) noexcept {
    if (low == first && high == last) {
        add_row<T, vectors, rows, first, last>(task, sum, x, taps);
    } else if constexpr (last > first) {
        choose_row<T, vectors, rows, first, last - 1>(task, sum, x, taps, low, high);
    } else if constexpr (first + 1 < rows) {
        choose_row<T, vectors, rows, first + 1, rows - 1>(task, sum, x, taps, low, high);
    }
}

template <class T, int vectors, int rows>
inline void strip(const PlaneTask& task, const T* x, T* y) noexcept {
    const T* taps = static_cast<const T*>(task.taps);
    Vec<T> sum[rows * vectors];
#pragma GCC unroll 16
    for (int t = 0; t < rows * vectors; ++t) sum[t] = Vec<T>{};
    for (size r = 0; r < task.tap_rows + rows - 1; ++r) {
        const size low = r < task.tap_rows ? 0 : r - task.tap_rows + 1;
        const size high = r < rows ? r : rows - 1;
        choose_row<T, vectors, rows, 0, rows - 1>(task, sum, x + r * task.x_step,
                                                  taps + (r - high) * task.tap_columns, low, high);
    }
    finish<T>(task, sum);
#pragma GCC unroll 4
    for (int i = 0; i < rows; ++i)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v)
            store(y + i * task.y_step + v * lanes<T>, sum[i * vectors + v]);
}

// All columns of `rows` rows.
template <class T, int rows>
inline void strips(const PlaneTask& task, const T* x, T* y) noexcept {
    size vectors = (task.columns + lanes<T> - 1) / lanes<T>;
    const auto advance = [&](int by) {
        x += by * lanes<T>;
        y += by * lanes<T>;
        vectors -= by;
    };
    for (; vectors >= tile_vectors; advance(tile_vectors)) strip<T, tile_vectors, rows>(task, x, y);
    if constexpr (tile_vectors > 2) {
        if (vectors >= 2) {
            strip<T, 2, rows>(task, x, y);
            advance(2);
        }
    }
    if (vectors > 0) strip<T, 1, rows>(task, x, y);
}

// The last four rows may overlap those before: they have the same bits either way.
template <class T>
void tile(const PlaneTask& task) noexcept {
    const T* x = static_cast<const T*>(task.x);
    T* y = static_cast<T*>(task.y);
    if (task.rows < tile_rows) {
        for (size r = 0; r < task.rows; ++r)
            strips<T, 1>(task, x + r * task.x_step, y + r * task.y_step);
        return;
    }
    for (size r = 0; r < task.rows; r += tile_rows) {
        const size top = r + tile_rows <= task.rows ? r : task.rows - tile_rows;
        strips<T, tile_rows>(task, x + top * task.x_step, y + top * task.y_step);
    }
}

template <class T, int height>
inline void stretch(const PlaneTask& task, const T* x, T* y) noexcept {
    const T* taps = static_cast<const T*>(task.taps);
    for (size begin = 0; begin < task.tap_columns; begin += chain) {
        const size end = begin + chain < task.tap_columns ? begin + chain : task.tap_columns;
        Vec<T> sum[height];
#pragma GCC unroll 16
        for (int t = 0; t < height; ++t) sum[t] = Vec<T>{};
        for (size q = begin; q < end; ++q) {
            const Vec<T> k = splat(load_scalar(taps + q));
            const T* from = x + task.places[q];
#pragma GCC unroll 16
            for (int t = 0; t < height; ++t)
                sum[t] = multiply_add(k, load(from + t * lanes<T>), sum[t]);
        }
        if (begin > 0) {
#pragma GCC unroll 16
            for (int t = 0; t < height; ++t) sum[t] += load(y + t * lanes<T>);
        }
        if (end == task.tap_columns) finish<T>(task, sum);
#pragma GCC unroll 16
        for (int t = 0; t < height; ++t) store(y + t * lanes<T>, sum[t]);
    }
}

template <class T>
void line(const PlaneTask& task) noexcept {
    const T* x = static_cast<const T*>(task.x);
    T* y = static_cast<T*>(task.y);
    size i = 0;
    for (; i + line_vectors * lanes<T> <= task.columns; i += line_vectors * lanes<T>)
        stretch<T, line_vectors>(task, x + i, y + i);
    for (; i < task.columns; i += slack_vectors * lanes<T>)
        stretch<T, slack_vectors>(task, x + i, y + i);
}

// ---- gradients of the taps

// Sums of lanes that go on in double precision.
template <class T, int count>
struct WideSums {
    F64 wide[count][halves<T>] = {};

    [[gnu::always_inline]] void take(Vec<T> (&sum)[count]) noexcept {
#pragma GCC unroll 16
        for (int t = 0; t < count; ++t) {
            if constexpr (halves<T> == 2) {
                wide[t][0] += widen_low(sum[t]);
                wide[t][1] += widen_high(sum[t]);
            } else {
                wide[t][0] += sum[t];
            }
            sum[t] = Vec<T>{};
        }
    }
    double total(int t) const noexcept {
        double result = 0;
        for (int half = 0; half < halves<T>; ++half)
            for (size lane = 0; lane < lanes<double>; ++lane) result += wide[t][half][lane];
        return result;
    }
};

// `count` taps at a time: the slopes are loaded once for them. `sums_slopes`: of which the last one
// meets ones.
template <class T, int count, bool sums_slopes>
inline void add_products(const ProductTask& task, const size* places, size used,
                         double* sums) noexcept {
    constexpr int taps = sums_slopes ? count - 1 : count;
    const T* from[taps];  // repeated beyond the used ones
    for (int t = 0; t < taps; ++t)
        from[t] = static_cast<const T*>(task.x) + places[t < used ? t : used - 1];
    WideSums<T, count> wide;
    Vec<T> sum[count] = {};
    size added = 0;
    const auto add = [&](size place, Vec<T> slope, auto&& value) {
#pragma GCC unroll 16
        for (int t = 0; t < taps; ++t) sum[t] = multiply_add(slope, value(from[t] + place), sum[t]);
        if constexpr (sums_slopes) sum[taps] += slope;
    };
    const T* slopes = static_cast<const T*>(task.slopes);
    for (size r = 0; r < task.rows; ++r, slopes += task.slope_step) {
        const size row = r * task.x_step;
        for (size i = 0; i < task.columns;) {
            if (added == chain) {
                wide.take(sum);
                added = 0;
            }
            const size whole = (task.columns - i) / lanes<T>;
            if (whole == 0) {
                const size rest = task.columns - i;
                add(row + i, load_first(slopes + i, rest, T(0)),
                    [&](const T* x) { return load_first(x, rest, T(0)); });
                ++added;
                break;
            }
            const size now = whole < chain - added ? whole : chain - added;
            const size end = i + now * lanes<T>;
            for (; i < end; i += lanes<T>)
                add(row + i, load(slopes + i), [](const T* x) { return load(x); });
            added += now;
        }
    }
    wide.take(sum);
    for (int t = 0; t < used; ++t) sums[t] += wide.total(t);
    if constexpr (sums_slopes) task.sums[task.taps] += wide.total(taps);
}

template <class T>
void products(const ProductTask& task) noexcept {
    constexpr int many = 9, few = 5;  // with the slopes: 11 of 16 registers
    size t = 0;
    const auto left = [&](int count) { return task.taps - t < count ? task.taps - t : count; };
    if (task.taps < few) {
        add_products<T, few, true>(task, task.places, left(few - 1), task.sums);
        return;
    }
    add_products<T, many + 1, true>(task, task.places, left(many), task.sums);
    for (t = many; t < task.taps; t += many)
        add_products<T, many, false>(task, task.places + t, left(many), task.sums + t);
}

constexpr size slack = slack_vectors * vector_bytes;

}  // namespace

extern constinit const PlaneKernels plane_kernels[2] = {
    {tile<float>, line<float>, products<float>, slack},
    {tile<double>, line<double>, products<double>, slack},
};

}  // namespace unitstride::UNITSTRIDE_ISA
