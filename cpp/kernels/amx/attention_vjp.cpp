// Gradients of attention on the matrix unit.
//
// Gradients of keys and values are sums over rows, and are found transposed: [features][keys]. So
// weights and gradients of scores are wanted by columns, a pair of rows in each lane, as they come
// from rows in registers; gradients of scores by rows too, for the queries.
#include "kernels/amx/matrix_unit.hpp"
#include "kernels/amx/weights.hpp"
#include "kernels/attention_adjust.hpp"
#include "simd/compare.hpp"
#include "simd/exp2.hpp"

namespace unitstride::UNITSTRIDE_ISA {
namespace {

constexpr size row_keys = stretch_keys;

// sums = (adds ? sums : 0) + a b, over `steps`.
template <size a_parts, size b_parts>
inline void multiply(const char* a, const char* b, size steps, float* sums, size row,
                     bool adds) noexcept {
    using Tile = Sums<true, true>;
    const Corners corners = {row, side, side * row};
    if (adds) {
        Tile::load(sums, corners);
    } else {
        Tile::zero();
    }
    for (size step = 0; step < steps; ++step) {
        Tile::template add_step<a_parts, b_parts>(a, b);
        a += a_parts * part_bytes;
        b += b_parts * part_bytes;
    }
    Tile::store(sums, corners);
}

// Products of a strip's rows and a stretch's keys, or of their cotangents and values.
template <class S>
inline void multiply_rows(const AttentionStrip& stretch, const void* rows, const void* keys,
                          size features, float* to) noexcept {
    const size steps = steps_of(features);
    for (size k = stretch.begin; k < stretch.end; k += panel_lines)
        multiply<parts_of<S>, parts_of<S>>(
            static_cast<const char*>(rows),
            static_cast<const char*>(keys) + k / panel_lines * steps * step_bytes<S>, steps,
            to + (k - stretch.begin), row_keys, false);
}

// What the weights of a row are measured from.
struct RowLevels {
    F32 high, low, delta;
    bool far, used;  // `far`: see Note [Far levels], attention_softmax.hpp
};
inline RowLevels levels_of(const AttentionGradient& task, size r) noexcept {
    if (r >= task.rows) return RowLevels();
    const float low = static_cast<const float*>(task.level_low)[r];
    return {splat(static_cast<const float*>(task.level_high)[r]), splat(low),
            splat(static_cast<const float*>(task.delta)[r]), low == infinity<float>, true};
}

// Weights of two vectors of scores, and gradients of the scores.
template <bool coarse>
inline void differentiate(const AttentionGradient& task, const RowLevels& row, size at,
                          F32 (&weight)[2], F32 (&slope)[2]) noexcept {
    if (!row.used) {
        weight[0] = weight[1] = slope[0] = slope[1] = F32{};
        return;
    }
    const F32 factor = splat(static_cast<float>(task.factor));
    const float* score = static_cast<const float*>(task.scores) + at;
    const float* product = static_cast<const float*>(task.gradients) + at;
    const float* derivative = static_cast<const float*>(task.derivative);
    F32 x[2];
#pragma GCC unroll 2
    for (size v = 0; v < 2; ++v) {
        const F32 s = load(score + v * side);
        x[v] = row.far ? (s - row.high) * factor : multiply_add(s, factor, -row.high) - row.low;
    }
    exp2_in_step<float, coarse>(x, weight);
#pragma GCC unroll 2
    for (size v = 0; v < 2; ++v) {
        F32 scaled = weight[v] * splat(static_cast<float>(task.scale));
        if (derivative) scaled = scaled * load(derivative + at + v * side);
        scaled = scaled * (load(product + v * side) - row.delta);
        // What is excluded has no gradient, whatever its product is.
        slope[v] = zero_where_equal(weight[v], F32{}, scaled);
    }
}

template <class S>
void differentiate_rows(const AttentionGradient& task, const AttentionReturn& to, size begin,
                        size end) noexcept {
    constexpr size parts = weight_parts<S>;
    for (size r = 0; r < side; ++r) {
        const RowLevels first = levels_of(task, r), second = levels_of(task, r + side);
        for (size k = begin; k < end; k += panel_lines) {
            const size at = r * row_keys + k - begin;
            F32 weight[2][2], slope[2][2];
            differentiate < parts<3>(task, first, at, weight[0], slope[0]);
            differentiate < parts<3>(task, second, at + side * row_keys, weight[1], slope[1]);
            const size panel = k / panel_lines * to.panel_bytes + r * 64;
            char* const weights = static_cast<char*>(to.weights) + panel;
            char* const gradients = static_cast<char*>(to.gradients) + panel;
            char* const rows = static_cast<char*>(to.row_gradients) +
                               (k - begin) / step_depth * parts * part_bytes + r * 64;
            for (size v = 0; v < 2; ++v) {
                put_parts<parts>(weights + v * square_bytes, weight[0][v], weight[1][v]);
                put_parts<parts>(gradients + v * square_bytes, slope[0][v], slope[1][v]);
                put_parts<parts>(rows + v * square_bytes, slope[v][0], slope[v][1]);
            }
        }
    }
}

// One strip and one block of keys.
template <class S>
void go_back(const AttentionReturn& task, bool adjusts) noexcept {
    const AttentionStrip& strip = task.strip;
    float* const scores = static_cast<float*>(strip.scores);
    float* const products = static_cast<float*>(task.products);
    const Squares registers;
    for (size begin = strip.begin; begin < strip.end; begin += row_keys) {
        AttentionStrip stretch = stretch_of(strip, begin, row_keys);
        multiply_rows<S>(stretch, strip.query, strip.keys, strip.features, scores);
        multiply_rows<S>(stretch, task.cotangents, task.values, task.value_features, products);
        asm volatile("" ::: "memory");  // GCC does not know what the unit reads and writes
        stretch.scores = scores - begin;
        if (strip.derivative) stretch.derivative = static_cast<float*>(strip.derivative) - begin;
        if (adjusts) adjust<float, row_keys>(stretch);
        AttentionGradient gradient = task.gradient;
        gradient.scores = scores;
        gradient.gradients = products;
        gradient.derivative = strip.derivative;
        differentiate_rows<S>(gradient, task, begin, stretch.end);
        asm volatile("" ::: "memory");
        const char* panel =
            static_cast<const char*>(strip.values) + begin / step_depth * step_bytes<S>;
        float* sums = static_cast<float*>(strip.averages);
        for (size p = 0; p < strip.value_panels; ++p) {
            multiply<weight_parts<S>, parts_of<S>>(static_cast<const char*>(task.row_gradients),
                                                   panel, (stretch.end - begin) / step_depth, sums,
                                                   panel_lines, true);
            panel += strip.value_depth / step_depth * step_bytes<S>;
            sums += panel_lines * panel_lines;
        }
        asm volatile("" ::: "memory");
    }
}

// sums[panel][feature][keys] += elements weights, over the rows of a chunk.
template <class S>
void accumulate(const AttentionAccumulate& task) noexcept {
    constexpr size b_bytes = weight_parts<S> * part_bytes;
    const Squares registers;
    asm volatile("" ::: "memory");
    const size steps = steps_of(task.depth), stride = task.element_depth / step_depth;
    const char* elements = static_cast<const char*>(task.elements);
    float* sums = static_cast<float*>(task.sums);
    for (size p = 0; p < task.panels; ++p) {
        for (size key = task.begin; key < task.end; key += panel_lines)
            multiply<parts_of<S>, weight_parts<S>>(
                elements,
                static_cast<const char*>(task.weights) + key / panel_lines * stride * b_bytes,
                steps, sums + key, task.keys, true);
        elements += stride * step_bytes<S>;
        sums += panel_lines * task.keys;
    }
    asm volatile("" ::: "memory");
}

template <class S>
constexpr AttentionReturnKernels kernels_of = {
    .weight_bytes = weight_parts<S> * part_bytes,
    .stretch_keys = row_keys,
    .go_back = go_back<S>,
    .accumulate = accumulate<S>,
};

}  // namespace

extern constinit const AttentionReturnKernels part_attention_vjp[element_count] = {
    kernels_of<float>, {}, kernels_of<Float16>, kernels_of<BFloat16>, {}, {}};

}  // namespace unitstride::UNITSTRIDE_ISA
