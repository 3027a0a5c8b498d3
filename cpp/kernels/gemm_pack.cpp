// Packing of panels for every element type.
#include "kernels/gemm_pack.hpp"

#include "kernels/table.hpp"

namespace unitstride::UNITSTRIDE_ISA {
namespace {

constexpr size staged_depth = 32;  // steps of a panel of complex numbers that are moved at a time

// The part of `along` from `begin` on, at most `count` elements, as runs.
struct Stretch {
    Run runs[staged_depth];
    size count;
};
inline Stretch stretch_of(const PanelTask& task, size& run, size& within) noexcept {
    Stretch stretch = {};
    size left = staged_depth;
    while (left > 0 && run < task.along_runs) {
        const Run& along = task.along[run];
        const size now = along.count - within < left ? along.count - within : left;
        stretch.runs[stretch.count++] = {along.offset + within * along.step, along.step, now};
        left -= now;
        within += now;
        if (within == along.count) ++run, within = 0;
    }
    return stretch;
}

// Moves complex numbers as they are into a small panel [staged_depth][width], from where they are
// spread as `spread(panel row, complex row)`.
template <class T, size width, class Spread>
inline void pack_staged(const PanelTask& task, Spread&& spread) noexcept {
    using Moved = typename MovedAs<Complex<T>>::type;
    alignas(64) Moved staged[staged_depth * width];
    PanelTask part = task;
    part.panel = staged;
    const size lines = elements_of(task.across, task.across_runs);
    for (size run = 0, within = 0; run < task.along_runs;) {
        const Stretch stretch = stretch_of(task, run, within);
        part.along = stretch.runs;
        part.along_runs = stretch.count;
        const size depth = elements_of(stretch.runs, stretch.count);
        if constexpr (sizeof(T) == 4) {
            pack_panel<Moved, width>(part);
        } else {
            size across[width];
            list_lines<width>(task, across);
            Moved* to = staged;
            for (size a = 0; a < stretch.count; to += stretch.runs[a++].count * width)
                gather_run<Moved, Moved, width>(static_cast<const Moved*>(task.array), across,
                                                lines, stretch.runs[a], to);
        }
        const T* from = reinterpret_cast<const T*>(staged);
        for (size k = 0; k < depth; ++k, from += 2 * width) spread(from, lines);
    }
}

// Row i of A: (re, -im) in row 2 i and (im, re) in row 2 i + 1 of the panel, at depths 2 k and
// 2 k + 1.
template <class T>
void pack_complex_rows(const PanelTask& task) noexcept {
    T* panel = static_cast<T*>(task.panel);
    pack_staged<T, tile_rows / 2>(task, [&](const T* from, size) {
        for (size i = 0; i < tile_rows; i += 2) {
            panel[i] = from[i];
            panel[i + 1] = from[i + 1];
            panel[tile_rows + i] = -from[i + 1];
            panel[tile_rows + i + 1] = from[i];
        }
        panel += 2 * tile_rows;
    });
}

// Column j of B: re at depth 2 k, im at depth 2 k + 1. Past the last column, the last one again.
template <class T>
void pack_complex_columns(const PanelTask& task) noexcept {
    constexpr size width = tile_columns<T>;
    for_each_panel<width>(task, [](const PanelTask& part) {
        T* panel = static_cast<T*>(part.panel);
        pack_staged<T, width>(part, [&](const T* from, size lines) {
            for (size i = 0; i < width; ++i) {
                const size line = i < lines ? i : lines - 1;
                panel[i] = from[2 * line];
                panel[width + i] = from[2 * line + 1];
            }
            panel += 2 * width;
        });
    });
}

}  // namespace

extern constinit const GemmPackers gemm_packers[element_count] = {
    {pack_panel<float, tile_rows>, pack_panels<float, tile_columns<float>>},
    {pack_panel<double, tile_rows>, pack_panels<double, tile_columns<double>>},
    {pack_panel<Float16, tile_rows>, pack_panels<Float16, tile_columns<float>>},
    {pack_panel<BFloat16, tile_rows>, pack_panels<BFloat16, tile_columns<float>>},
    {pack_complex_rows<float>, pack_complex_columns<float>},
    {pack_complex_rows<double>, pack_complex_columns<double>},
};

}  // namespace unitstride::UNITSTRIDE_ISA
