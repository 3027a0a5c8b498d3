#include "ops/optim.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <utility>

#include "core/parallel.hpp"
#include "core/scratch.hpp"
#include "isa/dispatch.hpp"
#include "ops/optim_plan.hpp"

namespace unitstride {
namespace {

// Lines a multiple of 4 KiB apart would have loads wait for stores to other lines.
constexpr std::ptrdiff_t line_bytes =
    step_batch * static_cast<std::ptrdiff_t>(sizeof(double)) + 5 * scratch_alignment;
constexpr std::ptrdiff_t scratch_bytes = step_operands * line_bytes;
// Sums of squares outside are computed once more, scaled.
constexpr double highest_squares = 0x1p1000, lowest_squares = 0x1p-900;
constexpr std::ptrdiff_t short_line = 64;  // shorter ones are gathered, several at a time

void add(WideSum& sum, const WideSum& term) {
    const double high = sum.high + term.high;
    const double part = high - sum.high;
    sum.low += term.low + ((sum.high - (high - part)) + (term.high - part));
    sum.high = high;
}

double rounded(const WideSum& sum) {
    return std::isfinite(sum.high) ? sum.high + sum.low : sum.high;
}

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

// One piece whose arrays are gathered to lines of the compute type, or used where they lie.
class PieceLines {
  public:
    PieceLines(const StepPlan& plan, const StepLayout& layout, const PieceWork& work, char* scratch)
        : plan_(plan), layout_(layout), work_(work), scratch_(scratch) {
        const StepTensor& tensor = *layout.tensor;
        compute_ = is_wide(tensor) ? Storage::float64 : Storage::float32;
        for (int k = 0; k < step_operands; ++k) {
            size_[k] = storage_size(tensor.array[k].storage);
            takes_part_[k] = layout.data[k] != nullptr && k != step_copy &&
                             (work.constants != nullptr || k == step_grad);
        }
        last_ = plan.axes.data() + layout.first_axis + layout.axes - 1;
        turns_ = turns_gradient(plan, layout);
    }

    void run(std::ptrdiff_t begin, std::ptrdiff_t end) {
        StepCursor cursor(plan_, layout_, begin);
        const bool is_short = layout_.axes > 1 && last_->length < short_line;
        while (begin < end) {
            const std::ptrdiff_t most = std::min(step_batch, end - begin);
            const std::ptrdiff_t count = is_short ? most : std::min(most, cursor.run());
            batch(cursor, count, is_short);
            begin += count;
        }
    }

  private:
    std::ptrdiff_t step(int k) const { return layout_.axes == 0 ? 1 : last_->stride[k]; }
    char* line(int k) const { return scratch_ + k * line_bytes; }
    bool lies_ready(int k, bool is_short) const {
        return !is_short && layout_.tensor->array[k].storage == compute_ && last_->stride[k] == 1;
    }

    // Leaves the cursor behind the batch.
    void batch(StepCursor& cursor, std::ptrdiff_t count, bool is_short) {
        StepTask task = {{}, count, work_.constants, work_.norm};
        bool gathers[step_operands] = {};
        for (int k = 0; k < step_operands; ++k) {
            if (!takes_part_[k]) continue;
            gathers[k] = !lies_ready(k, is_short);
            task.line[k] = gathers[k] ? line(k) : layout_.data[k] + cursor.offset(k) * size_[k];
        }
        if (turns_ && !is_short) {
            gathers[step_grad] = false;
            task.line[step_grad] = turned_line(cursor);
        }
        const bool is_one_run = count <= cursor.run();
        std::optional<StepCursor> start;  // runs are walked twice; one of them needs no copy
        if (is_one_run) {
            for (int k = 0; k < step_operands; ++k)
                if (gathers[k]) gather(k, cursor, count, 0);
        } else {
            start = cursor;
            for (std::ptrdiff_t done = 0; done < count;) {
                const std::ptrdiff_t run = std::min(cursor.run(), count - done);
                for (int k = 0; k < step_operands; ++k)
                    if (gathers[k]) gather(k, cursor, run, done);
                cursor.advance(run);
                done += run;
            }
        }
        work_.run(task);
        gathers[step_grad] = false;
        gathers[step_copy] = layout_.data[step_copy] != nullptr;
        if (work_.constants != nullptr)
            scatter_all(task, gathers, is_one_run ? cursor : *start, count);
        if (is_one_run) cursor.advance(count);
    }

    // Moves the cursor on if there is more than one run.
    void scatter_all(const StepTask& task, const bool (&wanted)[step_operands], StepCursor& cursor,
                     std::ptrdiff_t count) const {
        for (std::ptrdiff_t done = 0; done < count;) {
            const std::ptrdiff_t run = std::min(cursor.run(), count - done);
            for (int k = 0; k < step_operands; ++k)
                if (wanted[k])
                    scatter(k, cursor, run,
                            static_cast<const char*>(task.line[k == step_copy ? step_param : k]),
                            done);
            done += run;
            if (done < count) cursor.advance(run);
        }
    }

    // A part of a line of a gradient that is contiguous from line to line: some lines are
    // transposed in registers together, and wait in scratch for their turn.
    char* turned_line(const StepCursor& cursor) {
        const std::ptrdiff_t row = cursor.index(layout_.axes - 2), own = row % turned_rows;
        const std::ptrdiff_t length = last_->length, column = length - cursor.run();
        const std::ptrdiff_t back = own + column * last_->stride[step_grad];
        const char* const from = place(step_grad, cursor) - back * size_[step_grad];
        char* const tile = scratch_ + step_operands * line_bytes;
        if (turned_from_ != from) {
            const std::ptrdiff_t rows = std::min(turned_rows, last_[-1].length - (row - own));
            const auto storage = static_cast<int>(layout_.tensor->array[step_grad].storage);
            kernels().pack[storage].pack(
                {from, tile, rows, length, 1, last_->stride[step_grad], length, false});
            turned_from_ = from;
        }
        return tile + (own * length + column) * compute_size();
    }

    std::ptrdiff_t compute_size() const { return storage_size(compute_); }
    char* place(int k, const StepCursor& cursor) const {
        return layout_.data[k] + cursor.offset(k) * size_[k];
    }
    void gather(int k, const StepCursor& cursor, std::ptrdiff_t run, std::ptrdiff_t done) const {
        work_.kernels->gather[static_cast<int>(layout_.tensor->array[k].storage)](
            place(k, cursor), last_->stride[k], run, line(k) + done * compute_size());
    }
    void scatter(int k, const StepCursor& cursor, std::ptrdiff_t run, const char* from,
                 std::ptrdiff_t done) const {
        work_.kernels->scatter[static_cast<int>(layout_.tensor->array[k].storage)](
            from + done * compute_size(), run, place(k, cursor), last_->stride[k]);
    }

    const StepPlan& plan_;
    const StepLayout& layout_;
    const PieceWork& work_;
    char* const scratch_;
    const StepAxis* last_;
    Storage compute_;
    std::ptrdiff_t size_[step_operands];
    bool takes_part_[step_operands];
    bool turns_;
    const char* turned_from_ = nullptr;  // where the lines in scratch begin
};

void run_piece(const StepPlan& plan, const StepPiece& piece, PieceWork work, char* scratch) {
    const StepLayout& layout = plan.layouts[static_cast<std::size_t>(piece.layout)];
    const StepTensor& tensor = *layout.tensor;
    work.kernels = &kernels().optim[is_wide(tensor) ? 1 : 0];
    if (layout.axes > 0) return PieceLines(plan, layout, work, scratch).run(piece.begin, piece.end);
    StepTask task = {{}, piece.end - piece.begin, work.constants, work.norm};
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
    std::ptrdiff_t bytes = scratch_bytes;
    for (const StepLayout& layout : plan.layouts) {
        if (!turns_gradient(plan, layout)) continue;
        const std::ptrdiff_t length =
            plan.axes[static_cast<std::size_t>(layout.first_axis + layout.axes - 1)].length;
        const std::ptrdiff_t size = is_wide(*layout.tensor) ? 8 : 4;
        bytes = std::max(bytes, scratch_bytes + turned_rows * length * size);
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
    StepTask task = {{}, tensor.elements, &constants, nullptr};
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
