// The lines of one piece of a step: gathered to the compute type, or used where they lie.
#pragma once

#include "core/scratch.hpp"
#include "isa/dispatch.hpp"
#include "ops/optim_plan.hpp"

namespace unitstride {

// Lines a multiple of 4 KiB apart would have loads wait for stores to other lines.
constexpr std::ptrdiff_t step_line_bytes =
    step_batch * static_cast<std::ptrdiff_t>(sizeof(double)) + 5 * scratch_alignment;
constexpr std::ptrdiff_t step_scratch_bytes = step_operands * step_line_bytes;

// What runs on the lines of one piece.
struct PieceWork {
    const OptimKernels* kernels;
    const StepConstants* constants;  // null: the norm alone
    double norm_scale;
    WideSum* norm;  // null: not wanted
    int rule;

    void run(const StepTask& task) const {
        if (constants != nullptr) {
            kernels->step[rule](task);
        } else {
            kernels->squares(task.line[step_grad], task.count, norm_scale, *norm);
        }
    }
};

// Runs over the elements of a layout from `begin` to `end`.
void run_lines(const StepPlan& plan, const StepLayout& layout, const PieceWork& work, char* scratch,
               std::ptrdiff_t begin, std::ptrdiff_t end);

}  // namespace unitstride
