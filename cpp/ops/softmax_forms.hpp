// The ways a softmax is walked (softmax.cpp chooses).
#pragma once

#include <cstdint>

#include "core/float_environment.hpp"
#include "core/parallel.hpp"
#include "core/scratch.hpp"
#include "ops/exp_constants.hpp"
#include "ops/lines.hpp"
#include "ops/softmax.hpp"

namespace unitstride {

// Operands of the plan, in this order.
enum SoftmaxOperand : int { operand_x, operand_out, operand_where, operand_log_sum, operand_count };

struct SoftmaxCall {
    const SoftmaxArguments& arguments;
    const LinesPlan& plan;
    const KernelTable& table;
    const SoftmaxKernels& kernels;  // of the storage type
    const AnyExpConstants& constants;
    bool streaming;

    Storage storage() const noexcept { return arguments.storage; }
    const void* exp() const noexcept { return constants.of(arguments.storage); }
    bool wants_sums() const noexcept { return static_cast<bool>(arguments.log_sum); }
    bool masked() const noexcept { return static_cast<bool>(arguments.where); }
    double fill() const noexcept { return -__builtin_huge_val(); }
    // What a masked-out element of the output is.
    double masked_output() const noexcept {
        return arguments.output == SoftmaxOutput::softmax ? 0.0 : fill();
    }
    double nanoseconds() const noexcept {
        return 0.15 * static_cast<double>(compute_bytes(storage())) *
               static_cast<double>(plan.lines) * static_cast<double>(plan.length);
    }

    const char* x_at(std::ptrdiff_t offset) const noexcept {
        return arguments.x.data + offset * storage_bytes(storage());
    }
    char* out_at(std::ptrdiff_t offset) const noexcept {
        return arguments.out ? arguments.out.data + offset * storage_bytes(storage()) : nullptr;
    }
    const char* where_at(std::ptrdiff_t offset) const noexcept {
        return arguments.where.data + offset;
    }
    // Logarithms of the sums of `count` lines, which lie evenly along the innermost outer axis from
    // `offset` on, to their places in the result. Returns FloatStatus bits.
    unsigned write_log_sums(const LineSum* sums, std::ptrdiff_t count,
                            const std::ptrdiff_t (&offset)[max_operands]) const;
    std::ptrdiff_t across(int operand) const noexcept {
        return plan.outer.count == 0 ? 0 : plan.outer.axis[plan.outer.count - 1].stride[operand];
    }
};

// Whether lines of x are views x[::2] that the row kernels read as they are.
bool reads_every_second(const SoftmaxCall& call) noexcept;
unsigned softmax_contiguous_rows(const SoftmaxCall& call);
unsigned softmax_packed_rows(const SoftmaxCall& call);
unsigned softmax_turned_rows(const SoftmaxCall& call);
unsigned softmax_columns(const SoftmaxCall& call);
unsigned softmax_long_lines(const SoftmaxCall& call);

// Status bits that several workers raise.
class SharedStatus {
  public:
    void raise(unsigned bits) noexcept {
        if (bits) bits_.fetch_or(bits, std::memory_order_relaxed);
    }
    // What the workers' floating-point flags say: only where an overflow on the way is one of the
    // result.
    void raise_overflow(const SoftmaxCall& call, unsigned flags) noexcept {
        const bool is_log = call.arguments.output == SoftmaxOutput::log_softmax;
        if (is_log && FloatEnvironment::has_overflow(flags)) raise(status_over);
    }
    unsigned bits() const noexcept { return bits_.load(std::memory_order_relaxed); }

  private:
    std::atomic<unsigned> bits_{0};
};

}  // namespace unitstride
