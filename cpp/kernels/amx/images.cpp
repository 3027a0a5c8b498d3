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
inline void load_elements(const RecordTask& task, size first, size at, F32 (&row)[side]) noexcept {
    const size left = task.length - at, count = left < side ? left : side;
    if (count <= 0) {
        for (F32& none : row) none = F32{};
        return;
    }
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
        load_elements(task, 0, at, low);
        load_elements(task, side, at, high);
        for (size i = 0; i < count; ++i, to += 64)
            write_parts<parts>(to, low[i], high[i], magnitudes, task.part_bytes);
    }
    magnitudes.widen(*task.range);
}

// The same with an element's value and that 16 places on as a pair, of up to 16 elements.
template <size parts>
void pairs(const RecordTask& task) noexcept {
    Magnitudes magnitudes;
    char* to = task.records;
    F32 now[side], next[side];
    load_elements(task, 0, 0, now);
    for (size at = 0; at < task.length; at += side) {
        const size count = task.length - at < side ? task.length - at : side;
        load_elements(task, 0, at + side, next);
        for (size i = 0; i < count; ++i, to += 64) {
            write_parts<parts>(to, now[i], next[i], magnitudes, task.part_bytes);
            now[i] = next[i];
        }
    }
    magnitudes.widen(*task.range);
}

// Lines of floats as panels of A, the places along the summed index.
template <size parts>
void lines(const LinesTask& task) noexcept {
    Magnitudes magnitudes;
    char* step = task.panel;
    for (size at = 0; at < task.length; at += step_depth, step += parts * part_bytes) {
        const size left = task.length - at;
        const size low = left < side ? left : side, high = left - low < side ? left - low : side;
        for (size line = 0; line < task.lines; ++line) {
            const float* from = task.planes + line * task.stride + at;
            write_parts<parts>(
                step + line / side * square_bytes + line % side * 64,
                low == side ? load(from) : load_first(from, low, 0.0f),
                high == side ? load(from + side) : load_first(from + side, high, 0.0f), magnitudes);
        }
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
        Tile::template add_step<parts, parts>(
            Blocks{records + step[s], task.part_bytes, square_bytes}, weights);
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

// Stretches of a panel of slopes that stay in the first-level cache while pairs stream past.
template <bool both_rows, bool both_columns, size parts>
void add_tap(const ImageProductsTask& task, const char* slopes, const char* pairs, size steps,
             float* sums) noexcept {
    using Tile = Sums<both_rows, both_columns>;
    Tile::load(sums, one_after_other);
    for (size s = 0; s < steps; ++s, slopes += parts * part_bytes, pairs += step_depth * 64)
        Tile::template add_step<parts, parts>(slopes,
                                              Blocks{pairs, task.part_bytes, task.block_bytes});
    Tile::store(sums, one_after_other);
}

template <size parts>
void add_products(const ImageProductsTask& task) noexcept {
    using AddTap =
        void (*)(const ImageProductsTask&, const char*, const char*, size, float*) noexcept;
    static constexpr AddTap functions[2][2] = {
        {add_tap<false, false, parts>, add_tap<false, true, parts>},
        {add_tap<true, false, parts>, add_tap<true, true, parts>}};
    const AddTap add = functions[task.lines > side][task.elements > side];
    const Squares registers;
    const size all = (task.positions + step_depth - 1) / step_depth;
    for (size begin = 0; begin < all; begin += stretch_steps<parts>) {
        const size left = all - begin;
        const size steps = left < stretch_steps<parts> ? left : stretch_steps<parts>;
        for (size tap = 0; tap < task.taps; ++tap)
            add(task, task.slopes + begin * parts * part_bytes,
                task.pairs + task.tap[tap] + begin * step_depth * 64, steps,
                task.sums + tap * tile_sums);
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
    .pairs = pairs<parts_of<S>>,
    .lines_of = lines<parts_of<S>>,
    .add_products = add_products<parts_of<S>>,
};

}  // namespace

extern constinit const ImageKernels part_images[element_count] = {
    kernels_of<float>, {}, kernels_of<Float16>, kernels_of<BFloat16>, {}, {}};

}  // namespace unitstride::UNITSTRIDE_ISA
