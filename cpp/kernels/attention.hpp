// Attention of a strip of query rows to a block of keys: what the kernels of every instruction set
// offer.
//
// A strip is as many rows as the register tile of the matrix product; its scores against a block
// stay in the first-level cache between the two products. Rows carry their own state from block to
// block: `level`, the score from which their exponentials are measured, the sum of the
// exponentials lane by lane, and the averages before their division by the sum.
#pragma once

#include <cstddef>

#include "kernels/gemm.hpp"

namespace unitstride {

constexpr std::ptrdiff_t attention_strip_bytes = 1024;  // a row of scores

// Levels beyond this many powers of two are far: see Note [Far levels], kernels/attention.cpp.
template <class T>
constexpr T far_level = sizeof(T) == 4 ? static_cast<T>(0x1p20) : static_cast<T>(0x1p49);

// What tells a row's scores in a block apart from bare products. Positions count from the block's
// first key; the pointers too are those of that key.
struct AttentionRow {
    std::ptrdiff_t begin, end;  // the keys within reach
    const unsigned char* mask;  // zero: excluded; null: none
    const void* bias;           // of the compute type; null: none
    double slope;               // taken off for every key of distance to the diagonal
    std::ptrdiff_t diagonal;    // the key of distance 0
};

struct AttentionStrip {
    const void* query;        // packed rows: [features][rows]
    const void* keys;         // packed columns: panels of [features][columns]
    const void* values;       // packed columns: panels of [value_depth][columns]
    std::ptrdiff_t features;  // of queries and keys
    std::ptrdiff_t value_panels, value_depth;
    std::ptrdiff_t begin, end;  // the keys of the block that count: multiples of `columns`
    std::ptrdiff_t plain_begin, plain_end;  // of these, the ones that `adjust` leaves alone
    std::ptrdiff_t rows;                    // that are used
    const AttentionRow* row;                // [rows]
    double scale, softcap;                  // of `adjust`; softcap 0: none
    bool transforms;                        // `adjust` scales, caps or biases, not only excludes
    double factor;                          // of a score, in powers of two
    bool first;                             // no block came before
    void* scores;                           // [tile rows][strip_keys]
    void* weights;                          // where they are not floats in place of the scores
    void* highest;                          // [tile rows] vectors, lane by lane
    void* level;                            // [tile rows]
    void* sums;                             // [tile rows] vectors
    void* rescale;     // [tile rows]: by what `average` multiplies what it finds
    void* averages;    // [value_panels][tile rows][columns]
    double* totals;    // [rows], of `finish`
    void* derivative;  // of the softcap, kept by `adjust` where not null, as scores are
    bool rescales;     // set by `weigh`
    Ahead ahead;       // what `meet` fetches meanwhile
};

// Scores become weights, and products of cotangents and values the gradients of the scores.
struct AttentionGradient {
    void* scores;            // [rows][strip_keys]: in scores, out weights
    void* gradients;         // the same: in products, out gradients
    const void* derivative;  // of the softcap, or null
    std::ptrdiff_t begin, end, rows;
    double factor;  // of a score, in powers of two
    double scale;   // of the gradients
    // [rows]: the log of the row's sum, in powers of two, in two words; where it is a far level,
    // the score that it equals, and infinity.
    const void* level_high;
    const void* level_low;
    const void* delta;  // [rows]: sum of the weights times the products
};

// sums[panel][key][columns] += weights^T elements, over `depth` rows strip_keys apart.
struct AttentionAccumulate {
    const void* weights;   // [depth][strip_keys]
    const void* elements;  // panels of [element_depth][columns]
    void* sums;            // panels of [keys][columns]
    std::ptrdiff_t depth, element_depth, panels;
    std::ptrdiff_t keys;        // of a panel of sums: a multiple of the tile's rows
    std::ptrdiff_t begin, end;  // the keys that count: multiples of the tile's rows
};

enum class MaskState : int { none, some, all };

// One set per compute type.
struct AttentionKernels {
    std::ptrdiff_t rows, columns, lanes;
    std::ptrdiff_t strip_keys;    // most keys of a block, and from row to row of scores
    std::ptrdiff_t depth_unit;    // panels are filled up with zeros to a multiple of this
    std::ptrdiff_t query_bytes;   // of a packed strip, for each feature
    std::ptrdiff_t key_bytes;     // of a panel of columns, for each step of its depth
    std::ptrdiff_t weight_bytes;  // of weights beside the scores
    // Products of queries and keys, and each row's highest of the plain ones.
    void (*scores)(const AttentionStrip&) noexcept;
    // Scale, cap, bias, exclusion; each row's highest of all.
    void (*adjust)(const AttentionStrip&) noexcept;
    // Scores to weights, level and sums.
    void (*weigh)(AttentionStrip&) noexcept;
    // Weights times values onto the averages.
    void (*average)(const AttentionStrip&) noexcept;
    // All of these on a matrix unit, a few keys at a time; or null.
    void (*meet)(AttentionStrip&, bool adjusts) noexcept;
    // Averages divided by the sums, which go to `totals`.
    void (*finish)(const AttentionStrip&) noexcept;
    void (*gradient)(const AttentionGradient&) noexcept;
    void (*accumulate)(const AttentionAccumulate&) noexcept;
    // Which of the rows' mask bytes in [begin, end) are set.
    MaskState (*mask_state)(const AttentionStrip&) noexcept;
    // Whether all of `count` elements are finite; `count` is a multiple of the columns.
    bool (*all_finite)(const void* elements, std::ptrdiff_t count) noexcept;
};

// A strip of rows and a block of keys on the way back, on a matrix unit: the strip's `values` are
// the keys as rows of panels, its `averages` the sums of the queries' gradients.
struct AttentionReturn {
    AttentionStrip strip;
    AttentionGradient gradient;  // scale, factor, rows, levels and deltas
    const void* cotangents;      // packed as `strip.query`
    const void* values;          // packed as `strip.keys`
    std::ptrdiff_t value_features;
    void* products;              // as `strip.scores`
    void* weights;               // parts by columns: the strip's step in the first panel of keys
    void* gradients;             // the same
    void* row_gradients;         // parts by rows, of a stretch of keys
    std::ptrdiff_t panel_bytes;  // from panel to panel of `weights` and `gradients`
};

struct AttentionReturnKernels {
    std::ptrdiff_t weight_bytes;  // of a step of 32 rows and 32 keys
    std::ptrdiff_t stretch_keys;  // from row to row of scores
    void (*go_back)(const AttentionReturn&, bool adjusts) noexcept;
    // sums[panel][feature][keys] += elements weights; `elements` and `weights` are packed.
    void (*accumulate)(const AttentionAccumulate&) noexcept;
};

// Keys or values as they lie, from the block's first key on: features are contiguous.
struct AttentionDirect {
    const void* array;
    std::ptrdiff_t stride;    // elements from key to key
    std::ptrdiff_t features;  // of values
    std::ptrdiff_t used;      // keys that are there: scores from it to the strip's end are zero
};

// One set per storage type, for strips of which `query` is [rows][features].
struct AttentionDirectKernels {
    void (*scores)(const AttentionStrip&, const AttentionDirect&) noexcept;
    void (*average)(const AttentionStrip&, const AttentionDirect&) noexcept;
    bool (*all_finite)(const AttentionStrip&, const AttentionDirect&) noexcept;
};

}  // namespace unitstride
