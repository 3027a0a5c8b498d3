#include "ops/optim.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <utility>

#include "core/parallel.hpp"
#include "core/scratch.hpp"
#include "isa/dispatch.hpp"
#include "ops/optim_lines.hpp"
#include "ops/optim_plan.hpp"

namespace unitstride {
namespace {

// Sums of squares outside are computed once more, scaled.
constexpr double highest_squares = 0x1p1000, lowest_squares = 0x1p-900;

void add(WideSum& sum, const WideSum& term) {
    const double high = sum.high + term.high;
    const double part = high - sum.high;
    sum.low += term.low + ((sum.high - (high - part)) + (term.high - part));
    sum.high = high;
}

double rounded(const WideSum& sum) {
    return std::isfinite(sum.high) ? sum.high + sum.low : sum.high;
}

void run_piece(const StepPlan& plan, const StepPiece& piece, PieceWork work, char* scratch) {
    const StepLayout& layout = plan.layouts[static_cast<std::size_t>(piece.layout)];
    const StepTensor& tensor = *layout.tensor;
    work.kernels = &kernels().optim[is_wide(tensor) ? 1 : 0];
    if (layout.axes > 0) return run_lines(plan, layout, work, scratch, piece.begin, piece.end);
    StepTask task = {{}, piece.end - piece.begin, work.constants, work.norm, {}, {}};
    for (int k = 0; k < step_operands; ++k)
        if (layout.data[k] != nullptr)
            task.line[k] = layout.data[k] + piece.begin * storage_size(tensor.array[k].storage);
    work.run(task);
}

// Runs over all pieces and returns the sum of the squares: of each piece, then in their order.
double run_all(const StepProblem& problem, const StepPlan& plan, const StepConstants* constants,
               bool wants_norm, double norm_scale) {
    const auto count = static_cast<std::ptrdiff_t>(plan.pieces.size());
    std::vector<WideSum> sums(wants_norm ? plan.pieces.size() : 0);
    const int workers = workers_for(plan.nanoseconds, count);
    std::ptrdiff_t bytes = step_scratch_bytes;
    for (const StepLayout& layout : plan.layouts) {
        if (!turns_gradient(plan, layout)) continue;
        const std::ptrdiff_t length =
            plan.axes[static_cast<std::size_t>(layout.first_axis + layout.axes - 1)].length;
        const std::ptrdiff_t size = is_wide(*layout.tensor) ? 8 : 4;
        bytes = std::max(bytes, step_scratch_bytes + turned_rows * length * size);
    }
    const Scratch scratch(bytes, workers);
    parallel_for(workers, count, [&](Worker& worker, std::ptrdiff_t begin, std::ptrdiff_t end) {
        for (std::ptrdiff_t p = begin; p < end && worker.proceed(); ++p) {
            const auto index = static_cast<std::size_t>(p);
            const PieceWork work = {nullptr, constants, norm_scale,
                                    wants_norm ? &sums[index] : nullptr,
                                    static_cast<int>(problem.rule)};
            run_piece(plan, plan.pieces[index], work, scratch.of_worker(worker.index()));
        }
    });
    WideSum total;
    for (const WideSum& sum : sums) add(total, sum);
    return rounded(total);
}

// Squares of double may leave its range; powers of two bring them back.
double norm_of(const StepProblem& problem, const StepPlan& plan, double squares) {
    constexpr double shift = 0x1p600;
    double back = 1.0;
    if (squares > highest_squares || std::isnan(squares)) {
        const double smaller = run_all(problem, plan, nullptr, true, 1.0 / shift);
        squares = smaller, back = shift;
    } else if (squares < lowest_squares) {
        const double larger = run_all(problem, plan, nullptr, true, shift);
        if (larger > 0.0 && larger < highest_squares) squares = larger, back = 1.0 / shift;
    }
    return std::sqrt(squares) * back * std::abs(problem.scale);
}

double clipping_factor(const StepProblem& problem, double norm) {
    if (problem.clipping == Clipping::none) return 1.0;
    if (problem.clipping == Clipping::optax)
        return norm < problem.max_norm ? 1.0 : problem.max_norm / norm;
    const double factor = problem.max_norm / (norm + 1e-6);
    return factor < 1.0 || std::isnan(factor) ? factor : 1.0;
}

struct Extent {
    std::uintptr_t begin, end;
    bool is_written;
};

Extent extent_of(const StepProblem& problem, const StepTensor& tensor, int k) {
    const std::ptrdiff_t size = storage_size(tensor.array[k].storage);
    std::ptrdiff_t low = 0, high = tensor.axes == 0 ? tensor.elements - 1 : 0;
    for (int a = 0; a < tensor.axes; ++a) {
        const StepAxis& axis = problem.axes[static_cast<std::size_t>(tensor.first_axis + a)];
        const std::ptrdiff_t reach = (axis.length - 1) * axis.stride[k];
        (reach < 0 ? low : high) += reach;
    }
    const auto begin = reinterpret_cast<std::uintptr_t>(tensor.array[k].data);
    return {begin + static_cast<std::uintptr_t>(low * size),
            begin + static_cast<std::uintptr_t>((high + 1) * size), k != step_grad};
}

// No two elements of a written array are one: its axes nest. Others need a closer look.
bool axes_nest(const StepProblem& problem, const StepTensor& tensor, int k) {
    const StepAxis* axes = problem.axes.data() + tensor.first_axis;
    std::vector<std::pair<std::ptrdiff_t, std::ptrdiff_t>> steps;
    for (int a = 0; a < tensor.axes; ++a)
        if (axes[a].length > 1) steps.emplace_back(std::abs(axes[a].stride[k]), axes[a].length);
    std::sort(steps.begin(), steps.end());
    std::ptrdiff_t reach = 1;
    for (const auto& [step, length] : steps) {
        if (step < reach) return false;
        reach += step * (length - 1);
    }
    return true;
}

}  // namespace

bool extents_are_disjoint(const StepProblem& problem) {
    for (const StepTensor& tensor : problem.tensors)
        for (int k = 0; k < step_operands && tensor.axes > 0 && tensor.elements > 0; ++k)
            if (k != step_grad && tensor.array[k].data && !axes_nest(problem, tensor, k))
                return false;
    std::vector<Extent> extents;
    extents.reserve(problem.tensors.size() * 4);
    const auto before = [](const Extent& a, const Extent& b) { return a.begin < b.begin; };
    // Arrays of one kind often lie in the order of the list.
    for (int k = 0; k < step_operands; ++k) {
        const auto sorted = static_cast<std::ptrdiff_t>(extents.size());
        for (const StepTensor& tensor : problem.tensors)
            if (tensor.array[k].data != nullptr && tensor.elements > 0)
                extents.push_back(extent_of(problem, tensor, k));
        const auto middle = extents.begin() + sorted;
        if (!std::is_sorted(middle, extents.end(), before))
            std::sort(middle, extents.end(), before);
        std::inplace_merge(extents.begin(), middle, extents.end(), before);
    }
    std::uintptr_t reach = 0, written_reach = 0;
    for (const Extent& extent : extents) {
        if (extent.begin < (extent.is_written ? reach : written_reach)) return false;
        reach = std::max(reach, extent.end);
        if (extent.is_written) written_reach = std::max(written_reach, extent.end);
    }
    return true;
}

StepOutcome optim_step(const StepProblem& problem) {
    const StepPlan plan = plan_step(problem);
    StepConstants constants = problem.constants;
    const bool looks_first = problem.skips_nonfinite || problem.clipping != Clipping::none;
    double norm = 0.0;
    if (looks_first) {
        norm = norm_of(problem, plan, run_all(problem, plan, nullptr, true, 1.0));
        if (problem.skips_nonfinite && !std::isfinite(norm)) return {norm, false};
        constants.factor *= clipping_factor(problem, norm);
    }
    const double squares = run_all(problem, plan, &constants, !looks_first, 1.0);
    if (!looks_first) norm = norm_of(problem, plan, squares);
    return {norm, true};
}

bool optim_step_small(Rule rule, const StepConstants& constants, const StepTensor& tensor,
                      StepOutcome& outcome) {
    WideSum sum;
    StepTask task = {{}, tensor.elements, &constants, nullptr, {}, {}};
    for (int k = 0; k < step_operands; ++k) task.line[k] = tensor.array[k].data;
    const OptimKernels& chosen = kernels().optim[is_wide(tensor) ? 1 : 0];
    parallel_for(1, 1, [&](Worker&, std::ptrdiff_t, std::ptrdiff_t) {
        chosen.squares(task.line[step_grad], task.count, 1.0, sum);
        const bool in_range = sum.high < highest_squares && sum.high > lowest_squares;
        if (in_range || sum.high == 0.0) chosen.step[static_cast<int>(rule)](task);
        outcome.stepped = in_range || sum.high == 0.0;
    });
    outcome.norm = std::sqrt(rounded(sum));
    return outcome.stepped;
}

double optim_norm(const StepProblem& problem) {
    const StepPlan plan = plan_step(problem);
    return norm_of(problem, plan, run_all(problem, plan, nullptr, true, 1.0));
}

}  // namespace unitstride
