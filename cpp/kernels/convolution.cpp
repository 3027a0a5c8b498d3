// Direct convolution: y[i] = sum over j of taps[j] * x[i + j].
//
// Note [Polyphase tile]: a vector of x that begins at an uneven place crosses a cache line and
// takes two loads' time, so one load for each multiply-add would reach half the speed. Taps whose
// numbers are equal modulo the vector's lanes see the same vectors of x, one further each: with X_s
// = x[i + r + lanes * s ...], vector t of the tile takes taps[r + lanes * q] * X_(t+q). A tile of
// 16 vectors and 4 such taps loads 19 vectors for 64 multiply-adds.
//
// Lines side by side (axis 0 of a matrix) use the same tile: "vector t" is place i + lanes * t of
// 16 (or 8 ...) lines. Both forms add the terms of one output in the same order, so results do not
// depend on the layout: taps in blocks of at most 128; in a block by residue r, then by q. Rows of
// few taps share a block.
//
// Accuracy: a chain of at most 128 multiply-adds for each block, and one addition for each block.
#include "kernels/convolution.hpp"

#include "kernels/table.hpp"
#include "simd/silu.hpp"
#include "simd/vec.hpp"

namespace unitstride::UNITSTRIDE_ISA {
namespace {

constexpr size block_taps = 128;
constexpr int reach = 4;  // taps of one residue that share their loads

#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int tile_height = 16;
#else
constexpr int tile_height = 8;  // with 4 taps and a vector of x: 13 of 16 registers
#endif

template <class T, bool partial>
[[gnu::always_inline]] inline Vec<T> load_lanes(const T* source, size count) noexcept {
    if constexpr (partial) return load_first(source, count, T(0));
    return load(source);
}

// The taps r, r + lanes, ... (`taps` of them) of a block on all vectors of the tile.
template <class T, int height, int taps, bool partial>
[[gnu::always_inline]] inline void add_taps(Vec<T> (&sum)[height], const T* x, size step,
                                            const T* tap, size count) noexcept {
    Vec<T> k[taps];
#pragma GCC unroll 4
    for (int q = 0; q < taps; ++q) k[q] = splat(load_scalar(tap + q * lanes<T>));
#pragma GCC unroll 32
    for (int s = 0; s < height + taps - 1; ++s) {
        const Vec<T> v = load_lanes<T, partial>(x + s * step, count);
#pragma GCC unroll 4
        for (int q = 0; q < taps; ++q)
            if (s >= q && s - q < height) sum[s - q] = multiply_add(k[q], v, sum[s - q]);
    }
}

// One block of taps. `unit` is the step from one place of a line to the next.
template <class T, int height, bool partial>
[[gnu::always_inline]] inline void add_block(Vec<T> (&sum)[height], const T* x, size unit,
                                             const T* tap, size taps, size count) noexcept {
    constexpr size width = lanes<T>;
    const size step = width * unit;
    for (size first = 0; first < taps; first += reach * width) {
        const size left = taps - first;
        for (size r = 0; r < width && r < left; ++r) {
            const T* from = x + (first + r) * unit;
            const T* own = tap + first + r;
            const size chain = (left - r + width - 1) / width;
            if (chain >= 4) {
                add_taps<T, height, 4, partial>(sum, from, step, own, count);
            } else if (chain == 3) {
                add_taps<T, height, 3, partial>(sum, from, step, own, count);
            } else if (chain == 2) {
                add_taps<T, height, 2, partial>(sum, from, step, own, count);
            } else {
                add_taps<T, height, 1, partial>(sum, from, step, own, count);
            }
        }
    }
}

template <class T, int height, bool partial>
inline void tile(const WindowTask& task, const T* x, size unit, T* y, size y_unit,
                 size count) noexcept {
    const T* taps = static_cast<const T*>(task.taps);
    const size y_step = lanes<T> * y_unit;
    Vec<T> sum[height];
#pragma GCC unroll 16
    for (int t = 0; t < height; ++t) sum[t] = Vec<T>{};
    size chain = 0;
    bool begun = false;
    const auto add_begun = [&] {
#pragma GCC unroll 16
        for (int t = 0; t < height; ++t)
            if (begun) sum[t] += load_lanes<T, partial>(y + t * y_step, count);
    };
    const auto write = [&] {
#pragma GCC unroll 16
        for (int t = 0; t < height; ++t) {
            if constexpr (partial) {
                store_first(y + t * y_step, sum[t], count);
            } else {
                store(y + t * y_step, sum[t]);
            }
        }
    };
    for (size row = 0; row < task.tap_rows; ++row) {
        for (size first = 0; first < task.tap_count; first += block_taps) {
            const size left = task.tap_count - first;
            const size now = left < block_taps ? left : block_taps;
            if (chain + now > block_taps) {
                add_begun();
                write();
                begun = true;
                chain = 0;
#pragma GCC unroll 16
                for (int t = 0; t < height; ++t) sum[t] = Vec<T>{};
            }
            add_block<T, height, partial>(sum, x + row * task.row_step + first * unit, unit,
                                          taps + row * task.tap_count + first, now, count);
            chain += now;
        }
    }
    add_begun();
    if (task.bias != nullptr) {
        const Vec<T> bias = splat(load_scalar(static_cast<const T*>(task.bias)));
#pragma GCC unroll 16
        for (int t = 0; t < height; ++t) sum[t] += bias;
    }
    if (task.silu)
        for (int t = 0; t < height; ++t) sum[t] = silu<T>(sum[t]);
    write();
}

template <class T>
void line(const WindowTask& task) noexcept {
    const T* x = static_cast<const T*>(task.x);
    T* y = static_cast<T*>(task.y);
    constexpr size width = lanes<T>;
    size i = 0;
    for (; i + tile_height * width <= task.outputs; i += tile_height * width)
        tile<T, tile_height, false>(task, x + i, 1, y + i, 1, width);
    for (; i + 4 * width <= task.outputs; i += 4 * width)
        tile<T, 4, false>(task, x + i, 1, y + i, 1, width);
    for (; i + width <= task.outputs; i += width)
        tile<T, 1, false>(task, x + i, 1, y + i, 1, width);
    if (i < task.outputs) tile<T, 1, true>(task, x + i, 1, y + i, 1, task.outputs - i);
}

constexpr size most_packed_taps = 256;

// All places of one vector of lines. Those of a tile are `lanes` apart; the tiles that begin at
// each of the places in between take turns, and see the same part of x. Unless there are many taps,
// that part is copied next to one another: vectors a whole number of pages apart, as in rows of a
// power of two, share few sets of the cache.
template <class T, bool partial>
void places(const WindowTask& task, const T* x, T* y, size count) noexcept {
    constexpr size width = lanes<T>, most = tile_height * width;
    alignas(64) T packed[(most + most_packed_taps) * width];
    const bool packs = task.tap_count <= most_packed_taps;
    const size in = packs ? width : task.x_stride, out = task.y_stride;
    for (size base = 0; base < task.outputs; base += most) {
        const size left = task.outputs - base;
        const T* from = x + base * task.x_stride;
        if (packs) {
            const size rows = (left < most ? left : most) + task.tap_count - 1;
            for (size row = 0; row < rows; ++row, from += task.x_stride)
                store(packed + row * width, load_lanes<T, partial>(from, count));
            from = packed;
        }
        for (size r = 0; r < width && r < left; ++r) {
            const size found = (left - r + width - 1) / width;
            const size high = found < tile_height ? found : tile_height;
            size t = 0;
            const auto at = [&](size place) { return r + place * width; };
            T* const to = y + base * out;
            for (; t + tile_height <= high; t += tile_height)
                tile<T, tile_height, partial>(task, from + at(t) * in, in, to + at(t) * out, out,
                                              count);
            for (; t + 4 <= high; t += 4)
                tile<T, 4, partial>(task, from + at(t) * in, in, to + at(t) * out, out, count);
            for (; t < high; ++t)
                tile<T, 1, partial>(task, from + at(t) * in, in, to + at(t) * out, out, count);
        }
    }
}

template <class T>
void columns(const WindowTask& task) noexcept {
    const T* x = static_cast<const T*>(task.x);
    T* y = static_cast<T*>(task.y);
    constexpr size width = lanes<T>;
    size c = 0;
    for (; c + width <= task.columns; c += width) places<T, false>(task, x + c, y + c, width);
    if (c < task.columns) places<T, true>(task, x + c, y + c, task.columns - c);
}

}  // namespace

extern constinit const WindowKernels window_kernels[2] = {
    {line<float>, columns<float>},
    {line<double>, columns<double>},
};

}  // namespace unitstride::UNITSTRIDE_ISA
