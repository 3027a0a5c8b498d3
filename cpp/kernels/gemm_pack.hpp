// Packing of panels: [depth][width], from tensors of any strides.
//
// Whichever direction is contiguous in memory is read by vectors: across the panel by copying,
// along the summed index by transposing squares in registers. Steps of two and backwards are picked
// out of contiguous loads. What remains goes element by element. Past the last column of B, up to
// a whole vector, the last column is repeated: the multiplication raises no floating-point flags
// there that the product itself would not raise.
#pragma once

#include "kernels/gemm.hpp"
#include "kernels/gemm_tile.hpp"
#include "simd/storage.hpp"
#include "simd/transpose.hpp"

namespace unitstride::UNITSTRIDE_ISA {
namespace {

struct Pair {
    double first, second;
};
// Two floats that move as one double.
template <class S>
struct MovedAs {
    using type = S;
};
template <>
struct MovedAs<Complex<float>> {
    using type = double;
};
template <>
struct MovedAs<Complex<double>> {
    using type = Pair;
};

template <class S>
inline Compute<S> load_element(const S* source) noexcept {
    if constexpr (sizeof(S) >= 4) {
        return load_scalar(source);
    } else {
        return load_first_as(source, 1, 0.0f)[0];
    }
}
inline Pair load_element(const Pair* source) noexcept { return load_scalar(source); }

inline size elements_of(const Run* runs, size count) noexcept {
    size total = 0;
    for (size i = 0; i < count; ++i) total += runs[i].count;
    return total;
}

// Calls body(part) for each panel of a task, with the lines that belong to it.
template <size width, class Body>
inline void for_each_panel(const PanelTask& task, Body&& body) noexcept {
    Run across[width];
    PanelTask part = task;
    part.across = across;
    size run = 0, within = 0;
    for (size panel = 0; run < task.across_runs; ++panel) {
        part.across_runs = 0;
        for (size left = width; left > 0 && run < task.across_runs;) {
            const Run& whole = task.across[run];
            const size now = whole.count - within < left ? whole.count - within : left;
            across[part.across_runs++] = {whole.offset + within * whole.step, whole.step, now};
            left -= now;
            within += now;
            if (within == whole.count) ++run, within = 0;
        }
        part.panel = static_cast<char*>(task.panel) + panel * task.panel_bytes;
        body(part);
    }
}

template <class S>
inline void copy_line(Compute<S>* to, const S* from, size count) noexcept {
    using T = Compute<S>;
    size i = 0;
    for (; i + lanes<T> <= count; i += lanes<T>) store(to + i, load_as(from + i));
    if (i < count) store_first(to + i, load_first_as(from + i, count - i, T(0)), count - i);
}

template <class S, size width>
void pack_by_copying(const PanelTask& task) noexcept {
    using T = Compute<S>;
    const S* array = static_cast<const S*>(task.array);
    T* panel = static_cast<T*>(task.panel);
    const bool whole = task.across_runs == 1 && task.across[0].count == width;
    for (size a = 0; a < task.along_runs; ++a) {
        const Run along = task.along[a];
        for (size k = 0; k < along.count; ++k, panel += width) {
            const S* line = array + along.offset + k * along.step;
            if (whole) {
                copy_line(panel, line + task.across[0].offset, width);
                continue;
            }
            T* to = panel;
            for (size r = 0; r < task.across_runs; to += task.across[r++].count)
                copy_line(to, line + task.across[r].offset, task.across[r].count);
        }
    }
}

// One vector along the summed index, elements `step` apart, the first `count` of them.
template <class S, size step>
inline Vec<Compute<S>> load_along(const S* from, size count) noexcept {
    using T = Compute<S>;
    using Lanes = std::make_index_sequence<static_cast<std::size_t>(lanes<T>)>;
    if constexpr (step == 1) {
        return count == lanes<T> ? load_as(from) : load_first_as(from, count, T(0));
    } else if (count == lanes<T>) {
        if constexpr (step == -1) return backwards<T>(load_as(from - (lanes<T> - 1)), Lanes{});
        if constexpr (step == 2) return load_every_second(from, Lanes{});
    }
    Vec<T> v = {};
    for (size i = 0; i < count; ++i) v[i] = load_element(from + i * step);
    return v;
}

template <class S, size width, size step>
inline void transpose_run(const S* array, const size* across, size lines, const Run& along,
                          Compute<S>* panel) noexcept {
    using T = Compute<S>;
    for (size k = 0; k < along.count; k += lanes<T>) {
        const size steps = along.count - k < lanes<T> ? along.count - k : lanes<T>;
        const S* from = array + along.offset + k * step;
#pragma GCC unroll 4
        for (size begin = 0; begin < width; begin += lanes<T>) {
            if (begin >= lines) break;
            Vec<T> square[lanes<T>];
#pragma GCC unroll 16
            for (size i = 0; i < lanes<T>; ++i) {
                const size line = begin + i < lines ? begin + i : lines - 1;
                if (begin + i < width) {
                    square[i] = load_along<S, step>(from + across[line], steps);
                    // Lines are too many for the processor to foresee each of them.
                    __builtin_prefetch(from + across[line] + 4 * step * lanes<T>, 0, 2);
                } else {
                    square[i] = Vec<T>{};
                }
            }
            transpose<T>(square);
            T* to = panel + k * width + begin;
            const size room = width - begin < lanes<T> ? width - begin : lanes<T>;
#pragma GCC unroll 16
            for (size i = 0; i < lanes<T>; ++i) {
                if (i >= steps) break;
                if (room == lanes<T>)
                    store(to + i * width, square[i]);
                else
                    store_first(to + i * width, square[i], room);
            }
        }
    }
}

template <class Moved, class Result, size width>
void gather_run(const Moved* array, const size* across, size lines, const Run& along,
                Result* panel) noexcept {
    for (size k = 0; k < along.count; ++k, panel += width) {
        const Moved* line = array + along.offset + k * along.step;
        for (size i = 0; i < lines; ++i) panel[i] = load_element(line + across[i]);
    }
}

// Offsets of the lines of a panel.
template <size width>
inline size list_lines(const PanelTask& task, size (&across)[width]) noexcept {
    size lines = 0;
    for (size r = 0; r < task.across_runs; ++r)
        for (size i = 0; i < task.across[r].count; ++i)
            across[lines++] = task.across[r].offset + i * task.across[r].step;
    return lines;
}

template <class S, size width>
void pack_by_lines(const PanelTask& task) noexcept {
    using T = Compute<S>;
    const S* array = static_cast<const S*>(task.array);
    T* panel = static_cast<T*>(task.panel);
    size across[width];
    const size lines = list_lines<width>(task, across);
    constexpr size worth = lanes<T> / 2;
    for (size a = 0; a < task.along_runs; panel += task.along[a++].count * width) {
        const Run& along = task.along[a];
        if (along.count < worth) {
            gather_run<S, T, width>(array, across, lines, along, panel);
        } else if (along.step == 1) {
            transpose_run<S, width, 1>(array, across, lines, along, panel);
        } else if (along.step == 2) {
            transpose_run<S, width, 2>(array, across, lines, along, panel);
        } else if (along.step == -1) {
            transpose_run<S, width, -1>(array, across, lines, along, panel);
        } else {
            gather_run<S, T, width>(array, across, lines, along, panel);
        }
    }
}

template <class T, size width>
void repeat_last_line(T* panel, size lines, size depth) noexcept {
    const size filled = (lines + lanes<T> - 1) / lanes<T> * lanes<T>;
    for (size k = 0; k < depth; ++k, panel += width)
        for (size i = lines; i < filled && i < width; ++i) panel[i] = panel[lines - 1];
}

// Whether the lines of a task are worth copying, rather than transposing what runs along them.
inline bool prefers_copying(const PanelTask& task, size lines, size depth) noexcept {
    size contiguous = 0, along_contiguous = 0;
    for (size r = 0; r < task.across_runs; ++r)
        contiguous += task.across[r].step == 1 || task.across[r].count == 1 ? 1 : 0;
    for (size a = 0; a < task.along_runs; ++a)
        along_contiguous += task.along[a].step == 1 ? task.along[a].count : 0;
    return contiguous == task.across_runs &&
           (task.across_runs * 4 <= lines || along_contiguous * 2 < depth);
}

template <class S, size width>
void pack_panel(const PanelTask& task) noexcept {
    const size lines = elements_of(task.across, task.across_runs);
    const size depth = elements_of(task.along, task.along_runs);
    if (prefers_copying(task, lines, depth)) {
        pack_by_copying<S, width>(task);
    } else {
        pack_by_lines<S, width>(task);
    }
    if (lines % lanes<Compute<S>> != 0 && width % lanes<Compute<S>> == 0)
        repeat_last_line<Compute<S>, width>(static_cast<Compute<S>*>(task.panel), lines, depth);
}

// Whole rows of B to many panels: memory is read in the order in which it lies.
template <class S, size width>
void copy_rows_to_panels(const PanelTask& task) noexcept {
    using T = Compute<S>;
    const S* array = static_cast<const S*>(task.array);
    T* panel = static_cast<T*>(task.panel);
    const size panel_stride = task.panel_bytes / static_cast<size>(sizeof(T));
    const Run across = task.across[0];
    const size whole = across.count / width * width, rest = across.count - whole;
    const size filled = (rest + lanes<T> - 1) / lanes<T> * lanes<T>;
    for (size a = 0; a < task.along_runs; ++a) {
        const Run along = task.along[a];
        for (size k = 0; k < along.count; ++k, panel += width) {
            const S* line = array + along.offset + k * along.step + across.offset;
            T* to = panel;
            const S* later =
                line + 2 * along.step;  // it may lie outside: a prefetch does not fault
            for (size i = 0; i < across.count; i += 64 / static_cast<size>(sizeof(S)))
                __builtin_prefetch(later + i, 0, 2);
            for (size i = 0; i < whole; i += width, to += panel_stride)
#pragma GCC unroll 4
                for (size v = 0; v < width; v += lanes<T>) store(to + v, load_as(line + i + v));
            if (rest == 0) continue;
            copy_line(to, line + whole, rest);
            for (size i = rest; i < filled; ++i) to[i] = to[rest - 1];
        }
    }
}

template <class S, size width>
void pack_panels(const PanelTask& task) noexcept {
    if (task.across_runs == 1 && task.across[0].step == 1) {
        const size depth = elements_of(task.along, task.along_runs);
        if (prefers_copying(task, task.across[0].count, depth))
            return copy_rows_to_panels<S, width>(task);
    }
    for_each_panel<width>(task, [](const PanelTask& part) { pack_panel<S, width>(part); });
}

}  // namespace
}  // namespace unitstride::UNITSTRIDE_ISA
