// What a contraction is, once names and layout are gone: four groups of axes.
#pragma once

#include "core/layout.hpp"
#include "kernels/gemm.hpp"
#include "ops/contract.hpp"

namespace unitstride {

// Operands in the strides of a plan's axes.
enum ContractOperand : int { operand_a, operand_b, operand_c, contract_operands };

// Axes are ordered from large strides to small ones, those of C first; merged where all operands
// allow it; strides are in elements.
struct ContractPlan {
    AxisList batch;    // in a, b and c
    AxisList rows;     // in a and c
    AxisList columns;  // in b and c
    AxisList depth;    // summed
    std::ptrdiff_t batches = 1, row_count = 1, column_count = 1, depth_count = 1;
    const char* a = nullptr;
    const char* b = nullptr;
    char* c = nullptr;
    Element element_a, element_b, element_c;
    double alpha, beta, alpha_imag, beta_imag;

    bool empty() const noexcept { return batches == 0 || row_count == 0 || column_count == 0; }
    double operations() const noexcept;  // multiply-adds of reals
};

std::ptrdiff_t element_bytes(Element element) noexcept;
// The number one of an element type, as an operand without axes.
const char* one_of(Element element) noexcept;
inline bool is_complex(Element element) noexcept { return element >= Element::complex64; }
Element real_part_of(Element element) noexcept;

// Throws Error where labels or sizes do not fit together.
ContractPlan plan_contraction(const ContractArguments& arguments);

// Large strides of C outside, then merged.
void order_axes(AxisList& axes);
// Rows and columns in an order in which panels are packed well: Note [Two contiguous axes].
void order_for_panels(ContractPlan& plan);
// Whether the last of the axes is contiguous in an operand.
bool ends_contiguous(const AxisList& axes, int operand) noexcept;

// Offsets of elements begin, begin + 1, ... of a group of axes in one operand, the last axis
// fastest.
void list_offsets(const AxisList& axes, int operand, std::ptrdiff_t begin, std::ptrdiff_t count,
                  std::ptrdiff_t* offsets) noexcept;
// The same as runs of constant steps; returns how many.
std::ptrdiff_t list_runs(const AxisList& axes, int operand, std::ptrdiff_t begin,
                         std::ptrdiff_t count, Run* runs) noexcept;
// The most runs that so many elements make.
std::ptrdiff_t most_runs(const AxisList& axes, std::ptrdiff_t count) noexcept;

}  // namespace unitstride
