// Matrix multiplication of packed panels: what the kernels of every instruction set offer.
//
// C = alpha A B + beta C. A is packed into panels of `rows` rows, B into panels of `columns`
// columns, both with the summed index outside: a register tile of C takes a column of a panel of A
// and a row of a panel of B at each step. Packing and the update of C know the strides of tensors;
// the multiplication in between does not.
#pragma once

#include <cstddef>

#include "core/storage.hpp"

namespace unitstride {

// Places of elements at a constant distance: offset, offset + step, ... (in elements).
struct Run {
    std::ptrdiff_t offset, step, count;
};

// The magnitudes of elements, zeros aside, lie from 2^lowest up to 2^(highest + 1). NaN and
// infinity are above all powers, subnormals below.
struct PowerRange {
    int lowest = 128, highest = -128;
};

// Panels one after the other: `across` are the rows of A (or columns of B) in them, `along` is the
// summed index.
struct PanelTask {
    const void* array;
    void* panel;
    std::ptrdiff_t panel_bytes;  // from panel to panel
    const Run* across;
    std::ptrdiff_t across_runs;
    const Run* along;
    std::ptrdiff_t along_runs;
    PowerRange* range;  // widened by packers of matrix units to what they meet
};

// The columns of C that belong to one panel of B.
struct PanelColumns {
    const Run* runs;
    std::ptrdiff_t count;
};

// Stretches of memory that will be read next: `count` of them, `step` bytes apart.
struct Ahead {
    const char* memory;
    std::ptrdiff_t step, count, bytes;
};

// One panel of A times `columns` columns of packed B.
struct SweepTask {
    const void* a;
    const void* b;
    std::ptrdiff_t rows, columns, depth;
    void* c;
    const std::ptrdiff_t* row_offset;  // [rows], in elements of C
    const PanelColumns* panels;
    double alpha, beta;            // beta == 0: C is not read
    double alpha_imag, beta_imag;  // complex C only
    Ahead ahead;
    float* sums;  // [columns][sums_per_column], memory of the thread's own
};

// Sums that were kept wider than C, [rows] lines `stride` apart, rounded into C once.
struct RoundTask {
    const float* sums;
    std::ptrdiff_t rows, stride;
    void* c;
    const std::ptrdiff_t* row_offset;
    const PanelColumns* panels;
    std::ptrdiff_t panel_count;
    double alpha, beta;
};

// One set per element type. The panels of complex numbers are real: row i of A becomes the rows
// (re, -im) and (im, re) of twice the depth, column j of B gives re and im in turn along the depth;
// their real product is that of the complex numbers.
struct GemmKernels {
    std::ptrdiff_t rows, columns;  // of the register tile, in elements of C
    std::ptrdiff_t block_depth;    // longest stretch of the summed index in one panel
    std::ptrdiff_t short_depth;    // sums up to this length are not cut
    std::ptrdiff_t depth_unit;     // panels are filled up with zeros to a multiple of this
    std::ptrdiff_t block_columns;  // columns of B that are packed at a time
    std::ptrdiff_t block_rows;     // rows of A that a thread takes at a time
    std::ptrdiff_t a_panel_bytes, b_panel_bytes;  // per step of the summed index
    std::ptrdiff_t sums_per_column;               // kept between stretches of the summed index
    void (*sweep)(const SweepTask&) noexcept;
    // 16-bit types: `sweep` writes float, this rounds it.
    void (*round)(const RoundTask&) noexcept;
};

struct GemmPackers {
    void (*rows)(const PanelTask&) noexcept;
    void (*columns)(const PanelTask&) noexcept;
};

// Units that multiply matrices of bfloat16 whole. Their panels hold each element as a sum of such
// parts, and refuse elements that are not one: infinities, NaN, and what is very large or small.
struct AttentionKernels;
struct AttentionReturnKernels;
struct ImageKernels;
struct MatrixUnit {
    GemmKernels kernels;
    GemmPackers packers;
    const AttentionKernels* attention;
    const AttentionReturnKernels* attention_vjp;
    const ImageKernels* images;
};

// Products of matrices as they lie in memory, `batches` of them: columns of B and C are contiguous,
// the other strides (in elements) are any.
struct DirectTask {
    const void* a;
    const void* b;
    void* c;
    std::ptrdiff_t rows, columns, depth, batches;
    std::ptrdiff_t a_row, a_depth, b_depth, c_row;
    std::ptrdiff_t a_batch, b_batch, c_batch;
    double alpha, beta;  // beta == 0: C is not read
};

struct DirectKernels {
    void (*multiply)(const DirectTask&) noexcept;
};

}  // namespace unitstride
