// Matrix multiplication of tensors: panels of A and B are packed from wherever their elements lie,
// C is updated wherever its elements lie, and no operand is ever copied whole.
//
// Note [Phases]. The work falls into phases: one block of B (block_depth x block_columns), packed
// once for all threads, times all rows of A. Each phase has packing tasks and, after them,
// multiplication tasks of block_rows rows. Threads take tasks in one order from one counter and
// wait, where needed, for tasks that come earlier in that order; so somebody always proceeds.
// Packed B has two places in turn, so that a thread that is done with a phase packs for the next
// one while the other still multiplies. Which tasks there are depends on the problem alone, and
// the sums into one element of C are taken in the order of the phases.
#include <algorithm>
#include <atomic>
#include <new>
#include <thread>

#include "core/carver.hpp"
#include "core/checked.hpp"
#include "core/parallel.hpp"
#include "core/scratch.hpp"
#include "isa/dispatch.hpp"
#include "ops/contract_forms.hpp"

namespace unitstride {
namespace {

using Count = std::atomic<std::ptrdiff_t>;

std::ptrdiff_t blocks_of(std::ptrdiff_t total, std::ptrdiff_t block) {
    return (total + block - 1) / block;
}

// Sums longer than this are cut into blocks: the error of one chain of additions grows with the
// root of its length.
constexpr std::ptrdiff_t short_depth = 128;

// Blocks of equal length, so that no short one is left at the end.
std::ptrdiff_t even_block(std::ptrdiff_t total, std::ptrdiff_t block, std::ptrdiff_t multiple) {
    return std::min(total, round_up(blocks_of(total, blocks_of(total, block)), multiple));
}

std::ptrdiff_t depth_of_blocks(std::ptrdiff_t depth, std::ptrdiff_t longest) {
    if (depth <= short_depth) return std::max<std::ptrdiff_t>(depth, 1);
    return even_block(depth, std::min(longest, blocks_of(depth, 2)), 16);
}

// One block of B times all rows of A.
struct Phase {
    std::ptrdiff_t batch, row, column, columns, depth, depths;
    bool first, last;  // of the blocks that are summed into the same elements of C
};

class Gemm {
  public:
    explicit Gemm(const ContractPlan& plan)
        : plan_(plan),
          kernels_(kernels().gemm[static_cast<int>(plan.element_c)]),
          packers_(kernels().gemm_packers[static_cast<int>(plan.element_c)]),
          columns_(even_block(plan.column_count, kernels_.block_columns, kernels_.columns)),
          depth_(depth_of_blocks(plan.depth_count, kernels_.block_depth)),
          rows_(even_block(plan.row_count, kernels_.block_rows, kernels_.rows)),
          band_rows_(kernels_.round ? std::min(rounded_rows / rows_ * rows_, plan.row_count)
                                    : plan.row_count),
          bands_(blocks_of(plan.row_count, band_rows_)),
          column_blocks_(blocks_of(plan.column_count, columns_)),
          depth_blocks_(std::max<std::ptrdiff_t>(blocks_of(plan.depth_count, depth_), 1)),
          row_tasks_(blocks_of(band_rows_, rows_)),
          packs_rows_(ends_contiguous(plan.columns, operand_b)),
          pack_tasks_(packs_rows_ ? blocks_of(depth_, pack_depth)
                                  : blocks_of(columns_, kernels_.columns * pack_panels)),
          phases_(checked_multiply(checked_multiply(plan.batches, bands_),
                                   checked_multiply(column_blocks_, depth_blocks_))) {}

    unsigned run() { return small_batches() || few_rows() ? run_groups() : run_phases(); }

  private:
    // Products that are too small for several threads, but many.
    bool small_batches() const noexcept {
        return plan_.batches > 1 &&
               plan_.operations() / static_cast<double>(plan_.batches) < shared_from;
    }

    // Too few blocks of rows for threads to share a block of columns evenly, but enough of those.
    bool few_rows() const noexcept {
        const std::ptrdiff_t threads = threads_in_effect();
        return threads > 1 && row_tasks_ < 4 * threads && groups() >= 4 * threads;
    }

    // Blocks of columns (of a band, of a batch): all that is summed into the same elements of C.
    std::ptrdiff_t groups() const noexcept { return phases_ / depth_blocks_; }

    // Each thread packs and multiplies groups of its own.
    unsigned run_groups() {
        const int workers =
            workers_for(plan_.operations() / multiply_adds_per_nanosecond, groups());
        Carver sizes(nullptr);
        carve_shared(sizes);
        Own unused;
        carve_own(sizes, unused);
        const Scratch scratch(sizes.used(), workers);
        const std::ptrdiff_t phases = depth_blocks_;
        return parallel_for(
            workers, groups(), [&](Worker& worker, std::ptrdiff_t begin, std::ptrdiff_t end) {
                Carver carver(scratch.of_worker(worker.index()));
                const Shared shared = carve_shared(carver);
                Own own;
                carve_own(carver, own);
                own.sums = shared.sums;
                for (std::ptrdiff_t p = begin * phases; p < end * phases && worker.proceed(); ++p) {
                    const Phase phase = phase_of(p);
                    for (std::ptrdiff_t task = 0; task < pack_tasks_; ++task)
                        pack_columns(own, phase, task, shared.packed[0]);
                    for (std::ptrdiff_t task = 0; task < row_tasks_; ++task)
                        multiply_rows(own, phase, task, shared.packed[0]);
                }
            });
    }

    unsigned run_phases() {
        const std::ptrdiff_t items = checked_multiply(phases_, pack_tasks_ + row_tasks_);
        const int workers =
            workers_for(plan_.operations() / multiply_adds_per_nanosecond, row_tasks_);
        Carver sizes(nullptr);
        carve_shared(sizes);
        Carver own_sizes(nullptr);
        Own unused;
        carve_own(own_sizes, unused);
        const std::ptrdiff_t own_bytes = own_sizes.used();
        const Scratch scratch(checked_add(sizes.used(), checked_multiply(own_bytes, workers)), 1);
        Carver memory(scratch.of_worker(0));
        shared_ = carve_shared(memory);
        for (std::ptrdiff_t task = 0; task < row_tasks_; ++task) new (shared_.done + task) Count(0);
        char* const own_memory = scratch.of_worker(0) + memory.used();
        return parallel_for(workers, workers, [&](Worker& worker, std::ptrdiff_t, std::ptrdiff_t) {
            Own own;
            Carver carver(own_memory + worker.index() * own_bytes);
            carve_own(carver, own);
            own.sums = shared_.sums;
            for (std::ptrdiff_t item; (item = next_.fetch_add(1)) < items;)
                if (!do_item(worker, own, item)) return;
        });
    }

    // What the threads of a call have in common.
    struct Shared {
        char* packed[2];
        Count* done;  // phases that each block of rows has been through
        float* sums;  // of 16-bit types
    };

    static constexpr double multiply_adds_per_nanosecond = 50;
    static constexpr double shared_from = 1 << 21;  // multiply-adds that threads share
    // One packing task: so many steps of the depth, or so many panels of B.
    static constexpr std::ptrdiff_t pack_depth = 32, pack_panels = 4;
    static constexpr std::ptrdiff_t rounded_rows = 1024;  // sums of so many are kept in float

    // What each thread has for itself.
    struct Own {
        char* panel;  // of A
        std::ptrdiff_t* row_offset;
        Run* across;
        Run* along_a;
        std::ptrdiff_t along_a_runs = 0, depth_listed = -1;
        Run* along_b;
        Run* column_runs;
        PanelColumns* panels;
        float* sums;
        std::ptrdiff_t* sum_offset;
        Run* sum_runs;
        PanelColumns* sum_panels;
        std::ptrdiff_t column_listed = -1;
    };

    Shared carve_shared(Carver& carver) const {
        Shared shared;
        for (char*& packed : shared.packed)
            packed = carver.take<char>(checked_multiply(
                checked_multiply(blocks_of(columns_, kernels_.columns), kernels_.b_panel_bytes),
                depth_));
        shared.done = carver.take<Count>(row_tasks_);
        shared.sums =
            carver.take<float>(kernels_.round ? checked_multiply(band_rows_, columns_) : 0);
        return shared;
    }
    void carve_own(Carver& carver, Own& own) const {
        own.panel = carver.take<char>(kernels_.a_panel_bytes * depth_);
        own.row_offset = carver.take<std::ptrdiff_t>(kernels_.rows);
        own.across = carver.take<Run>(std::max(kernels_.rows, most_runs(plan_.columns, columns_)));
        own.along_a = carver.take<Run>(most_runs(plan_.depth, depth_));
        own.along_b = carver.take<Run>(most_runs(plan_.depth, depth_));
        const std::ptrdiff_t panels = blocks_of(columns_, kernels_.columns);
        own.column_runs = carver.take<Run>(panels + most_runs(plan_.columns, columns_) * 2);
        own.panels = carver.take<PanelColumns>(panels);
        own.sum_offset = carver.take<std::ptrdiff_t>(kernels_.rows);
        own.sum_runs = carver.take<Run>(panels);
        own.sum_panels = carver.take<PanelColumns>(panels);
    }

    Phase phase_of(std::ptrdiff_t index) const noexcept {
        Phase phase;
        const std::ptrdiff_t depth = index % depth_blocks_;
        index /= depth_blocks_;
        phase.column = index % column_blocks_ * columns_;
        index /= column_blocks_;
        phase.row = index % bands_ * band_rows_;
        phase.batch = index / bands_;
        phase.columns = std::min(columns_, plan_.column_count - phase.column);
        phase.depth = depth * depth_;
        phase.depths = std::min(depth_, plan_.depth_count - phase.depth);
        phase.first = depth == 0;
        phase.last = depth == depth_blocks_ - 1;
        return phase;
    }

    bool do_item(Worker& worker, Own& own, std::ptrdiff_t item) {
        const std::ptrdiff_t tasks = pack_tasks_ + row_tasks_;
        const std::ptrdiff_t index = item / tasks, task = item % tasks, use = index / 2;
        const Phase phase = phase_of(index);
        Count& packed = packed_count_[index % 2];
        Count& multiplied = multiplied_count_[index % 2];
        if (task < pack_tasks_) {
            if (!wait_for(worker, multiplied, use * row_tasks_)) return false;
            pack_columns(own, phase, task, shared_.packed[index % 2]);
            packed.fetch_add(1, std::memory_order_release);
            return worker.proceed();
        }
        const std::ptrdiff_t row_task = task - pack_tasks_;
        if (!wait_for(worker, packed, (use + 1) * pack_tasks_) ||
            !wait_for(worker, shared_.done[row_task], index))
            return false;
        multiply_rows(own, phase, row_task, shared_.packed[index % 2]);
        shared_.done[row_task].fetch_add(1, std::memory_order_release);
        multiplied.fetch_add(1, std::memory_order_release);
        return worker.proceed();
    }

    static bool wait_for(Worker& worker, const Count& count, std::ptrdiff_t value) {
        constexpr int patience = 4096;  // looks before the processor is offered to others
        for (int looks = 0; count.load(std::memory_order_acquire) < value; ++looks) {
            if (looks % 64 == 63 && !worker.proceed()) return false;
            if (looks > patience) std::this_thread::yield();
        }
        return true;
    }

    std::ptrdiff_t batch_offset(std::ptrdiff_t batch, int operand) const noexcept {
        std::ptrdiff_t offset;
        list_offsets(plan_.batch, operand, batch, 1, &offset);
        return offset;
    }

    // A task is a stretch of the depth where rows of B are contiguous, some panels otherwise.
    void pack_columns(Own& own, const Phase& phase, std::ptrdiff_t task, char* packed) const {
        const std::ptrdiff_t width = kernels_.columns;
        const std::ptrdiff_t first = packs_rows_ ? 0 : task * pack_panels * width;
        const std::ptrdiff_t columns = packs_rows_ ? phase.columns : pack_panels * width;
        const std::ptrdiff_t step = packs_rows_ ? task * pack_depth : 0;
        const std::ptrdiff_t steps = packs_rows_ ? pack_depth : phase.depths;
        if (first >= phase.columns || step >= phase.depths) return;
        PanelTask panels = {};
        panels.array =
            plan_.b + batch_offset(phase.batch, operand_b) * element_bytes(plan_.element_b);
        panels.panel_bytes = kernels_.b_panel_bytes * phase.depths;
        panels.panel = packed + first / width * panels.panel_bytes + step * kernels_.b_panel_bytes;
        panels.across = own.across;
        panels.across_runs = list_runs(plan_.columns, operand_b, phase.column + first,
                                       std::min(columns, phase.columns - first), own.across);
        panels.along = own.along_b;
        panels.along_runs = list_runs(plan_.depth, operand_b, phase.depth + step,
                                      std::min(steps, phase.depths - step), own.along_b);
        packers_.columns(panels);
    }

    void list_columns(Own& own, const Phase& phase) const {
        if (own.column_listed == phase.column) return;
        own.column_listed = phase.column;
        Run* runs = own.column_runs;
        for (std::ptrdiff_t p = 0; p * kernels_.columns < phase.columns; ++p) {
            const std::ptrdiff_t begin = p * kernels_.columns;
            const std::ptrdiff_t count =
                list_runs(plan_.columns, operand_c, phase.column + begin,
                          std::min(kernels_.columns, phase.columns - begin), runs);
            own.panels[p] = {runs, count};
            runs += count;
            own.sum_runs[p] = {begin, 1, kernels_.columns};
            own.sum_panels[p] = {own.sum_runs + p, 1};
        }
    }

    void multiply_rows(Own& own, const Phase& phase, std::ptrdiff_t task,
                       const char* packed) const {
        list_columns(own, phase);
        if (own.depth_listed != phase.depth) {
            own.depth_listed = phase.depth;
            own.along_a_runs =
                list_runs(plan_.depth, operand_a, phase.depth, phase.depths, own.along_a);
        }
        PanelTask panel = {};
        panel.array =
            plan_.a + batch_offset(phase.batch, operand_a) * element_bytes(plan_.element_a);
        panel.panel = own.panel;
        panel.across = own.across;
        panel.along = own.along_a;
        panel.along_runs = own.along_a_runs;
        SweepTask sweep = {};
        sweep.a = own.panel;
        sweep.b = packed;
        sweep.columns = phase.columns;
        sweep.depth = phase.depths;
        sweep.c = plan_.c + batch_offset(phase.batch, operand_c) * element_bytes(plan_.element_c);
        sweep.row_offset = own.row_offset;
        sweep.panels = own.panels;
        sweep.alpha = plan_.alpha;
        sweep.alpha_imag = plan_.alpha_imag;
        sweep.beta = phase.first ? plan_.beta : 1;
        sweep.beta_imag = phase.first ? plan_.beta_imag : 0;
        const std::ptrdiff_t band_end = std::min(phase.row + band_rows_, plan_.row_count);
        const std::ptrdiff_t begin = phase.row + task * rows_;
        const std::ptrdiff_t end = std::min(begin + rows_, band_end);
        for (std::ptrdiff_t row = begin; row < end; row += kernels_.rows) {
            sweep.rows = std::min(kernels_.rows, end - row);
            panel.across_runs = list_runs(plan_.rows, operand_a, row, sweep.rows, own.across);
            packers_.rows(panel);
            const std::ptrdiff_t next = row + kernels_.rows;
            sweep.ahead = next < band_end ? rows_ahead(panel, next) : Ahead{};
            list_offsets(plan_.rows, operand_c, row, sweep.rows, own.row_offset);
            if (kernels_.round) {
                sweep_rounded(own, phase, sweep, row - phase.row);
            } else {
                kernels_.sweep(sweep);
            }
        }
    }

    // The elements of the next panel of A, where they lie regularly.
    Ahead rows_ahead(const PanelTask& panel, std::ptrdiff_t row) const {
        const std::ptrdiff_t bytes = element_bytes(plan_.element_a);
        if (panel.across_runs != 1 || panel.along_runs != 1) return {};
        std::ptrdiff_t offset;
        list_offsets(plan_.rows, operand_a, row, 1, &offset);
        const Run &across = panel.across[0], &along = panel.along[0];
        const char* memory =
            static_cast<const char*>(panel.array) + (offset + along.offset) * bytes;
        if (along.step == 1)
            return {memory, across.step * bytes, across.count, along.count * bytes};
        if (across.step == 1)
            return {memory, along.step * bytes, along.count, across.count * bytes};
        return {};
    }

    // The sums go to memory of our own, and from there to C when they are complete.
    void sweep_rounded(Own& own, const Phase& phase, const SweepTask& task,
                       std::ptrdiff_t row) const {
        SweepTask sweep = task;
        float* sums = own.sums + row * columns_;
        sweep.c = sums;
        for (std::ptrdiff_t r = 0; r < sweep.rows; ++r) own.sum_offset[r] = r * columns_;
        sweep.row_offset = own.sum_offset;
        sweep.panels = own.sum_panels;
        sweep.alpha = 1;
        sweep.beta = phase.first ? 0 : 1;
        kernels_.sweep(sweep);
        if (!phase.last) return;
        RoundTask round = {};
        round.sums = sums;
        round.rows = task.rows;
        round.stride = columns_;
        round.c = task.c;
        round.row_offset = task.row_offset;
        round.panels = task.panels;
        round.panel_count = blocks_of(phase.columns, kernels_.columns);
        round.alpha = plan_.alpha;
        round.beta = plan_.beta;
        kernels_.round(round);
    }

    const ContractPlan& plan_;
    const GemmKernels& kernels_;
    const GemmPackers& packers_;
    const std::ptrdiff_t columns_, depth_, rows_;
    const std::ptrdiff_t band_rows_, bands_, column_blocks_, depth_blocks_, row_tasks_;
    const bool packs_rows_;
    const std::ptrdiff_t pack_tasks_, phases_;
    Shared shared_ = {};
    Count next_{0};
    Count packed_count_[2] = {0, 0}, multiplied_count_[2] = {0, 0};
};

}  // namespace

unsigned contract_packed(const ContractPlan& plan) { return Gemm(plan).run(); }

}  // namespace unitstride
