// Panels of A times panels of B, and the update of C wherever its elements lie.
//
// The sums of a register tile are plain chains of multiply-adds over at most block_depth steps;
// longer sums are cut into blocks that are added in memory, so the error grows with the root of
// block_depth at the most. A panel of A stays in the first-level cache while it meets the panels
// of B, which stream from the second level; C is fetched one tile ahead.
#include "kernels/gemm.hpp"

#include <type_traits>
#include <utility>

#include "kernels/gemm_tile.hpp"
#include "kernels/gemm_write.hpp"
#include "kernels/table.hpp"
#include "simd/storage.hpp"

namespace unitstride::UNITSTRIDE_ISA {
namespace {

// (re, im) pairs of one half of the lanes of two vectors.
template <class T, size first, std::size_t... lane>
inline Vec<T> paired(Vec<T> real, Vec<T> imag, std::index_sequence<lane...>) noexcept {
    const IntVec<T> index = {static_cast<IntLane<T>>(first + static_cast<size>(lane) / 2 +
                                                     (lane % 2 ? lanes<T> : 0))...};
    return __builtin_shuffle(real, imag, index);
}

// Whole vectors of contiguous complex numbers, real factors; returns how many were written.
template <class T>
inline size write_pairs(T* to, const T* real, const T* imag, size count, T alpha, T beta) noexcept {
    using Lanes = std::make_index_sequence<static_cast<std::size_t>(lanes<T>)>;
    const Vec<T> alphas = splat(alpha), betas = splat(beta);
    size i = 0;
    for (; i + lanes<T> <= count; i += lanes<T>, to += 2 * lanes<T>) {
        const Vec<T> x = load(real + i), y = load(imag + i);
        Vec<T> low = alphas * paired<T, 0>(x, y, Lanes{});
        Vec<T> high = alphas * paired<T, lanes<T> / 2>(x, y, Lanes{});
        if (beta != T(0)) {
            low = low + betas * load(to);
            high = high + betas * load(to + lanes<T>);
        }
        store(to, low);
        store(to + lanes<T>, high);
    }
    return i;
}

// A tile whose rows are real and imaginary parts in turn.
template <class T>
void scatter_complex_tile(const SweepTask& task, const PanelColumns& panel,
                          const T* sums) noexcept {
    const T alpha_real = static_cast<T>(task.alpha), alpha_imag = static_cast<T>(task.alpha_imag);
    const T beta_real = static_cast<T>(task.beta), beta_imag = static_cast<T>(task.beta_imag);
    const bool reads = beta_real != T(0) || beta_imag != T(0);
    for (size r = 0; r < task.rows; ++r, sums += 2 * tile_columns<T>) {
        Complex<T>* row = static_cast<Complex<T>*>(task.c) + task.row_offset[r];
        const T* real = sums;
        const T* imag = sums + tile_columns<T>;
        for (size p = 0; p < panel.count;
             real += panel.runs[p].count, imag += panel.runs[p++].count) {
            const Run& run = panel.runs[p];
            size i = 0;
            if (run.step == 1 && alpha_imag == T(0) && beta_imag == T(0))
                i = write_pairs(&row[run.offset].real, real, imag, run.count, alpha_real,
                                beta_real);
            for (; i < run.count; ++i) {
                T* to = &row[run.offset + i * run.step].real;
                T x = alpha_real * real[i], y = alpha_real * imag[i];
                if (alpha_imag != T(0)) {
                    x -= alpha_imag * imag[i];
                    y += alpha_imag * real[i];
                }
                if (reads) {
                    const T old_real = load_scalar(to), old_imag = load_scalar(to + 1);
                    x += beta_real * old_real;
                    y += beta_real * old_imag;
                    if (beta_imag != T(0)) {
                        x -= beta_imag * old_imag;
                        y += beta_imag * old_real;
                    }
                }
                store_scalar(to, x);
                store_scalar(to + 1, y);
            }
        }
    }
}

template <class T, bool is_complex>
void sweep(const SweepTask& task) noexcept {
    using Stored = std::conditional_t<is_complex, Complex<T>, T>;
    using Rows = std::make_integer_sequence<size, tile_rows>;
    constexpr size parts = is_complex ? 2 : 1;
    alignas(64) T buffer[tile_rows * tile_columns<T>];
    const size panel_length = tile_columns<T> * task.depth * parts;
    const T* a = static_cast<const T*>(task.a);
    const T* b = static_cast<const T*>(task.b);
    TileTarget<T> target = {
        nullptr, task.row_offset, 0, static_cast<T>(task.alpha), static_cast<T>(task.beta),
        nullptr};
    Fetching fetching(task.ahead, (task.columns + tile_columns<T> - 1) / tile_columns<T>);
    for (size begin = 0, p = 0; begin < task.columns;
         begin += tile_columns<T>, ++p, b += panel_length) {
        const PanelColumns& panel = task.panels[p];
        target.columns =
            task.columns - begin < tile_columns<T> ? task.columns - begin : tile_columns<T>;
        const bool direct = !is_complex && panel.count == 1 && panel.runs[0].step == 1;
        target.c = static_cast<T*>(task.c) + panel.runs[0].offset;
        target.buffer = direct ? nullptr : buffer;
        prefetch_rows<Stored, tile_columns<T>>(task, panel.runs[0].offset);
        fetching.some();
        const size vectors = target.columns > lanes<T> ? 2 : 1;
        tile_function<T>(task.rows * parts, vectors, Rows{})(a, b, task.depth * parts, target);
        if (direct) continue;
        if constexpr (is_complex) {
            scatter_complex_tile(task, panel, buffer);
        } else {
            scatter_tile<T, tile_columns<T>>(task, panel, buffer);
        }
    }
}

template <class S>
void round_rows(const RoundTask& task) noexcept {
    const F32 alpha = splat(static_cast<float>(task.alpha));
    const F32 beta = splat(static_cast<float>(task.beta));
    const bool reads = task.beta != 0;
    for (size r = 0; r < task.rows; ++r) {
        const float* sum = task.sums + r * task.stride;
        S* row = static_cast<S*>(task.c) + task.row_offset[r];
        for (size p = 0; p < task.panel_count; ++p)
            for (size q = 0; q < task.panels[p].count; ++q) {
                const Run& run = task.panels[p].runs[q];
                const size step = run.step, width = step == 1 ? lanes<float> : 1;
                for (size i = 0; i < run.count; i += width, sum += width) {
                    const size now = run.count - i < width ? run.count - i : width;
                    S* to = row + run.offset + i * step;
                    const F32 scaled = alpha * load_first(sum, now, 0.0f);
                    const F32 result =
                        reads ? multiply_add(beta, load_first_as(to, now, 0.0f), scaled) : scaled;
                    if (now == lanes<float>) {
                        store_as(to, result);
                    } else {
                        store_first_as(to, result, now);
                    }
                    if (now < width) sum -= width - now;
                }
            }
    }
}

// Block sizes: a panel of A and one of B share the first-level cache, packed B fills half of the
// second level.
template <class S>
constexpr auto rounding() noexcept -> void (*)(const RoundTask&) noexcept {
    if constexpr (sizeof(S) == 2) return round_rows<S>;
    return nullptr;
}

template <class S>
constexpr GemmKernels kernels_of = {
    .rows = tile_rows,
    .columns = tile_columns<Compute<S>>,
    .block_depth = sizeof(Compute<S>) == 4 ? 320 : 192,
    .short_depth = 128,
    .depth_unit = 1,
    .block_columns = 1024,
    .block_rows = 4 * tile_rows,
    .a_panel_bytes = tile_rows * static_cast<size>(sizeof(Compute<S>)),
    .b_panel_bytes = tile_columns<Compute<S>> * static_cast<size>(sizeof(Compute<S>)),
    .sums_per_column = 0,
    .sweep = sweep<Compute<S>, false>,
    .round = rounding<S>(),
};

template <class T>
constexpr GemmKernels complex_kernels_of = {
    .rows = tile_rows / 2,
    .columns = tile_columns<T>,
    .block_depth = kernels_of<T>.block_depth / 2,
    .short_depth = 128,
    .depth_unit = 1,
    .block_columns = kernels_of<T>.block_columns,
    .block_rows = 4 * tile_rows,
    .a_panel_bytes = 2 * kernels_of<T>.a_panel_bytes,
    .b_panel_bytes = 2 * kernels_of<T>.b_panel_bytes,
    .sums_per_column = 0,
    .sweep = sweep<T, true>,
    .round = nullptr,
};

}  // namespace

extern constinit const GemmKernels gemm_kernels[element_count] = {
    kernels_of<float>,    kernels_of<double>,        kernels_of<Float16>,
    kernels_of<BFloat16>, complex_kernels_of<float>, complex_kernels_of<double>};

}  // namespace unitstride::UNITSTRIDE_ISA
