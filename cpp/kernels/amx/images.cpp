// Images as records of parts, and their products with taps: see Note [Records], kernels/images.hpp.
#include "kernels/images.hpp"

#include <type_traits>

#include "kernels/amx/matrix_unit.hpp"
#include "kernels/amx/parts.hpp"
#include "kernels/amx/squares.hpp"
#include "simd/storage.hpp"
#include "simd/transpose.hpp"

namespace unitstride::UNITSTRIDE_ISA {
namespace {

// Of 16 elements, the values at up to 16 neighbouring places: one element in each row, or one place
// once they are transposed.
inline void load_elements(const RecordTask& task, size first, size at, size count,
                          F32 (&row)[side]) noexcept {
    for (size i = 0; i < side; ++i) {
        if (first + i >= task.elements) {
            row[i] = F32{};
            continue;
        }
        const float* from = task.planes + task.place[first + i] + at;
        row[i] = count == side ? load(from) : load_first(from, count, 0.0f);
    }
    transpose<float>(row);
}

template <size parts>
void records(const RecordTask& task) noexcept {
    Magnitudes magnitudes;
    char* to = task.records;
    for (size at = 0; at < task.length; at += side) {
        const size count = task.length - at < side ? task.length - at : side;
        F32 low[side], high[side];
        load_elements(task, 0, at, count, low);
        if (task.elements > side) {
            load_elements(task, side, at, count, high);
        } else {
            for (F32& row : high) row = F32{};
        }
        for (size i = 0; i < count; ++i, to += 64)
            write_parts<parts>(to, low[i], high[i], magnitudes, task.part_bytes);
    }
    magnitudes.widen(*task.range);
}

// Squares of places by kernels.
constexpr Corners one_after_other = {side, side * side, 2 * side * side};
constexpr size tile_sums = 4 * side * side;

// sums = (first ? 0 : sums) + the products of `steps` steps.
template <bool both_rows, bool both_columns, size parts>
void add_steps(const ImageTask& task, const char* records, const char* weights, const size* step,
               size steps, float* sums, bool first) noexcept {
    using Tile = Sums<both_rows, both_columns>;
    if (first) {
        Tile::zero();
    } else {
        Tile::load(sums, one_after_other);
    }
    for (size s = 0; s < steps; ++s, weights += parts * part_bytes)
        Tile::template add_step<parts, parts>(records + step[s], weights, task.part_bytes);
    Tile::store(sums, one_after_other);
}

using AddSteps = void (*)(const ImageTask&, const char*, const char*, const size*, size, float*,
                          bool) noexcept;

template <size parts>
inline AddSteps add_function(bool both_rows, bool both_columns) noexcept {
    static constexpr AddSteps functions[2][2] = {
        {add_steps<false, false, parts>, add_steps<false, true, parts>},
        {add_steps<true, false, parts>, add_steps<true, true, parts>}};
    return functions[both_rows][both_columns];
}

// The sums of a tile to the lines of their kernels.
inline void write_tile(const ImageTask& task, const float* sums, size position) noexcept {
    for (size square = 0; square < 4; ++square) {
        const size first = square % 2 * side, kernels = task.kernels - first;
        const size at = position + square / 2 * side;
        if (kernels <= 0 || at >= task.positions) continue;
        F32 row[side];
        for (size i = 0; i < side; ++i) row[i] = load(sums + square * side * side + i * side);
        transpose<float>(row);
        float* to = task.results + first * task.result_stride + at;
        for (size i = 0; i < side && i < kernels; ++i, to += task.result_stride)
            store(to, task.bias ? row[i] + splat(task.bias[first + i]) : row[i]);
    }
}

// Steps whose taps stay in the first-level cache while the records stream past.
template <size parts>
constexpr size stretch_steps = parts == 3 ? 4 : (parts == 2 ? 5 : 10);

template <size parts>
void multiply(const ImageTask& task) noexcept {
    const Squares registers;
    const bool whole = task.steps <= stretch_steps<parts>;
    for (size begin = 0; begin < task.steps; begin += stretch_steps<parts>) {
        const size left = task.steps - begin;
        const size steps = left < stretch_steps<parts> ? left : stretch_steps<parts>;
        const char* weights = task.weights + begin * parts * part_bytes;
        const char* records = task.records;
        float* sums = task.sums;
        for (size at = 0; at < task.positions; at += panel_lines) {
            add_function<parts>(task.positions - at > side, task.kernels > side)(
                task, records, weights, task.step + begin, steps, sums, begin == 0);
            if (left == steps) write_tile(task, sums, at);
            records += panel_lines * 64;
            sums += whole ? 0 : tile_sums;
        }
    }
}

template <class S>
constexpr ImageKernels kernels_of = {
    .lines = panel_lines,
    .depth = step_depth,
    .parts = parts_of<S>,
    .record_bytes = 64,
    .step_bytes = step_bytes<S>,
    .products = PartOrder<parts_of<S>, parts_of<S>>::count,
    .records = records<parts_of<S>>,
    .multiply = multiply<parts_of<S>>,
};

}  // namespace

extern constinit const ImageKernels part_images[element_count] = {
    kernels_of<float>, {}, kernels_of<Float16>, kernels_of<BFloat16>, {}, {}};

}  // namespace unitstride::UNITSTRIDE_ISA
