// Both products of attention on the matrix unit: strips of 32 rows, blocks of 128 keys.
//
// Weights are positive and are cut into bfloat16 parts by their bits: three parts hold a float, two
// are enough where results have eleven bits or fewer. Parts of weights below 2^-126 count as zero:
// what is lost is below 2^-8 of a weight of 2^-118, whatever else the row holds.
#include "kernels/amx/matrix_unit.hpp"
#include "kernels/amx/squares.hpp"
#include "kernels/attention_adjust.hpp"
#include "kernels/attention_softmax.hpp"
#include "simd/compare.hpp"

namespace unitstride::UNITSTRIDE_ISA {
namespace {

constexpr size strip_keys = 128;

template <class S>
constexpr size weight_parts = parts_of<S> == 3 ? 3 : 2;

constexpr size steps_of(size depth) noexcept { return (depth + step_depth - 1) / step_depth; }

template <class S, bool both_rows>
void multiply_keys(const AttentionStrip& strip) noexcept {
    using Tile = Sums<both_rows, true>;
    constexpr Corners corners = {strip_keys, side, side * strip_keys};
    const size steps = steps_of(strip.features);
    const char* keys =
        static_cast<const char*>(strip.keys) + strip.begin / panel_lines * steps * step_bytes<S>;
    for (size k = strip.begin; k < strip.end; k += panel_lines) {
        const char* query = static_cast<const char*>(strip.query);
        Tile::zero();
        for (size step = 0; step < steps; ++step) {
            Tile::template add_step<parts_of<S>, parts_of<S>>(query, keys);
            query += step_bytes<S>;
            keys += step_bytes<S>;
        }
        Tile::store(static_cast<float*>(strip.scores) + k, corners);
    }
}

template <class S>
void scores(const AttentionStrip& strip) noexcept {
    const Squares registers;
    if (strip.rows > side) {
        multiply_keys<S, true>(strip);
    } else {
        multiply_keys<S, false>(strip);
    }
    for (size r = 0; r < strip.rows; ++r) {
        const float* score = static_cast<const float*>(strip.scores) + r * strip_keys;
        F32 most[2] = {splat(-infinity<float>), splat(-infinity<float>)};
        for (size k = strip.plain_begin; k < strip.plain_end; k += panel_lines)
#pragma GCC unroll 2
            for (size v = 0; v < 2; ++v)
                most[v] = max_or_second(most[v], load(score + k + v * side));
        store(static_cast<float*>(strip.highest) + r * side, max_or_second(most[0], most[1]));
    }
}

// The upper halves of two vectors of floats, as pairs.
inline __m512i heads_of(F32 low, F32 high) noexcept {
    return _mm512_mask_blend_epi16(0xaaaaaaaa,
                                   _mm512_srli_epi32(reinterpret_cast<__m512i>(low), 16),
                                   reinterpret_cast<__m512i>(high));
}
// What the upper half leaves.
inline F32 rest_of(F32 v) noexcept {
    return v - reinterpret_cast<F32>(reinterpret_cast<U32>(v) & 0xffff0000u);
}

template <class S>
void weigh(AttentionStrip& strip) noexcept {
    constexpr size parts = weight_parts<S>;
    weigh_rows<float, strip_keys>(strip, [&](size r, size k, const F32* weight) {
        char* to = static_cast<char*>(strip.weights) + k / step_depth * parts * part_bytes +
                   r / side * square_bytes + r % side * 64;
        F32 low = weight[0], high = weight[1];
#pragma GCC unroll 3
        for (size part = 0; part < parts; ++part) {
            _mm512_storeu_si512(to + part * part_bytes, heads_of(low, high));
            low = rest_of(low);
            high = rest_of(high);
        }
    });
}

inline void rescale_averages(const AttentionStrip& strip) noexcept {
    float* row = static_cast<float*>(strip.averages);
    const float* rescale = static_cast<const float*>(strip.rescale);
    for (size p = 0; p < strip.value_panels; ++p, row += panel_lines * panel_lines)
        for (size r = 0; r < strip.rows; ++r) {
            float* to = row + r * panel_lines;
            store(to, load(to) * splat(rescale[r]));
            store(to + side, load(to + side) * splat(rescale[r]));
        }
}

template <class S, bool both_rows>
void add_values(const AttentionStrip& strip) noexcept {
    using Tile = Sums<both_rows, true>;
    constexpr Corners corners = {panel_lines, side, side * panel_lines};
    constexpr size weight_bytes = weight_parts<S> * part_bytes;
    const size begin = strip.begin / step_depth, end = steps_of(strip.end);
    const char* panel = static_cast<const char*>(strip.values) + begin * step_bytes<S>;
    float* averages = static_cast<float*>(strip.averages);
    for (size p = 0; p < strip.value_panels; ++p) {
        const char* weights = static_cast<const char*>(strip.weights) + begin * weight_bytes;
        const char* values = panel;
        if (strip.first) {
            Tile::zero();
        } else {
            Tile::load(averages, corners);
        }
        for (size step = begin; step < end; ++step) {
            Tile::template add_step<weight_parts<S>, parts_of<S>>(weights, values);
            weights += weight_bytes;
            values += step_bytes<S>;
        }
        Tile::store(averages, corners);
        panel += strip.value_depth / step_depth * step_bytes<S>;
        averages += panel_lines * panel_lines;
    }
}

template <class S>
void average(const AttentionStrip& strip) noexcept {
    if (strip.rescales && !strip.first) rescale_averages(strip);
    const Squares registers;
    if (strip.rows > side) {
        add_values<S, true>(strip);
    } else {
        add_values<S, false>(strip);
    }
}

template <class S>
constexpr AttentionKernels kernels_of = {
    .rows = panel_lines,
    .columns = panel_lines,
    .lanes = side,
    .strip_keys = strip_keys,
    .depth_unit = step_depth,
    .query_bytes = step_bytes<S> / step_depth,
    .key_bytes = step_bytes<S> / step_depth,
    .weight_bytes = weight_parts<S> * part_bytes / step_depth,
    .scores = scores<S>,
    .adjust = adjust<float, strip_keys>,
    .weigh = weigh<S>,
    .average = average<S>,
    .finish = finish<float, panel_lines, panel_lines>,
    .gradient = nullptr,
    .accumulate = nullptr,
    .mask_state = mask_state,
    .all_finite = all_finite<float>,
};

}  // namespace

extern constinit const AttentionKernels part_attention[element_count] = {
    kernels_of<float>, {}, kernels_of<Float16>, kernels_of<BFloat16>, {}, {}};

}  // namespace unitstride::UNITSTRIDE_ISA
