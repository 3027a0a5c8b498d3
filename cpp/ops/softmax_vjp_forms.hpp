// The ways to compute the gradients of lines: straight or packed rows, pieces of long lines, and
// columns.
#pragma once

#include "ops/exp_constants.hpp"
#include "ops/lines.hpp"
#include "ops/softmax_vjp.hpp"

namespace unitstride {

enum VjpOperand : int {
    operand_primal,
    operand_cotangent,
    operand_result,
    operand_selection,
    operand_level,  // logsumexp
    vjp_operand_count
};

struct VjpCall {
    const SoftmaxVjpArguments& arguments;
    const LinesPlan& plan;
    const KernelTable& table;
    const SoftmaxVjpKernels& kernels;          // of the storage type
    const SoftmaxVjpKernels& compute_kernels;  // of the compute type, for packed lines
    VjpCommon common;
    bool streaming;

    Storage storage() const noexcept { return arguments.storage; }
    bool by_line() const noexcept { return arguments.gradient == SoftmaxVjp::logsumexp; }
    bool masked() const noexcept { return static_cast<bool>(arguments.where); }
    const PackKernels& packing() const noexcept { return table.pack[static_cast<int>(storage())]; }
    const char* input(const InputView& view, std::ptrdiff_t offset) const noexcept {
        return view.data + offset * storage_bytes(storage());
    }
    char* out_at(std::ptrdiff_t offset) const noexcept {
        return arguments.out.data + offset * storage_bytes(storage());
    }
    std::ptrdiff_t across(int operand) const noexcept {
        return plan.outer.count == 0 ? 0 : plan.outer.axis[plan.outer.count - 1].stride[operand];
    }
    double nanoseconds() const noexcept {
        return 0.1 * static_cast<double>(compute_bytes(storage())) *
               static_cast<double>(plan.lines) * static_cast<double>(plan.length);
    }
    double masked_primal() const noexcept {
        return arguments.gradient == SoftmaxVjp::softmax ? 0.0 : -__builtin_huge_val();
    }
    bool is_long() const noexcept {
        return plan.length * compute_bytes(storage()) > table.line_scratch_bytes;
    }
    // Elements that long lines are added up by, whatever the layout.
    std::ptrdiff_t piece() const noexcept {
        return is_long() ? table.piece_bytes / compute_bytes(storage()) : plan.length;
    }
    // The values of `lines` neighbouring lines, of the compute type. `offset` is of the first.
    void load_line_values(const std::ptrdiff_t (&offset)[max_operands], std::ptrdiff_t lines,
                          void* log_sums, void* cotangents) const {
        packing().pack({input(arguments.log_sum, offset[operand_level]), log_sums, 1, lines, 0,
                        across(operand_level), 0, false});
        packing().pack({input(arguments.cotangent, offset[operand_cotangent]), cotangents, 1, lines,
                        0, across(operand_cotangent), 0, false});
    }
};

// Each returns the floating-point flags that the workers raised.
unsigned softmax_vjp_rows(const VjpCall& call);
unsigned softmax_vjp_long_rows(const VjpCall& call);
unsigned softmax_vjp_columns(const VjpCall& call);
// Whether every tile can be read and written by whole vectors where it lies.
bool vjp_columns_lie_straight(const VjpCall& call) noexcept;

}  // namespace unitstride
