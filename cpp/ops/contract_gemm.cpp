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
#include "ops/gemm_blocks.hpp"
#include "ops/packed_powers.hpp"

namespace unitstride {
namespace {

using Count = std::atomic<std::ptrdiff_t>;

class Gemm {
  public:
    Gemm(const ContractPlan& plan, const GemmKernels& kernels, const GemmPackers& packers)
        : plan_(plan), kernels_(kernels), packers_(packers), blocks_(plan, kernels) {}

    unsigned run() { return blocks_.in_groups ? run_groups() : run_phases(); }
    // Whether an element had no place in a panel: C is not what was asked for, the work ends.
    bool refused() const noexcept { return !powers_.fit(); }

  private:
    // Each thread packs and multiplies groups of its own.
    unsigned run_groups() {
        const int workers =
            workers_for(plan_.operations() / multiply_adds_per_nanosecond, blocks_.groups());
        Carver sizes(nullptr);
        carve_shared(sizes);
        Own unused;
        carve_own(sizes, unused);
        const Scratch scratch(sizes.used(), workers);
        const std::ptrdiff_t phases = blocks_.depth_blocks;
        return parallel_for(workers, blocks_.groups(),
                            [&](Worker& worker, std::ptrdiff_t begin, std::ptrdiff_t end) {
                                Carver carver(scratch.of_worker(worker.index()));
                                const Shared shared = carve_shared(carver);
                                Own own;
                                carve_own(carver, own);
                                own.kept_rows = shared.kept_rows;
                                if (blocks_.depth_blocks > 1) own.sums = shared.sums;
                                for (std::ptrdiff_t p = begin * phases;
                                     p < end * phases && proceed(worker); ++p) {
                                    const Phase phase = blocks_.phase(p);
                                    for (std::ptrdiff_t task = 0; task < blocks_.pack_tasks; ++task)
                                        pack_columns(own, phase, task, shared.packed[0]);
                                    for (std::ptrdiff_t task = 0; task < blocks_.row_tasks; ++task)
                                        multiply_rows(own, phase, task, shared.packed[0]);
                                }
                            });
    }

    unsigned run_phases() {
        const std::ptrdiff_t items =
            checked_multiply(blocks_.phases, blocks_.pack_tasks + blocks_.row_tasks);
        const int workers =
            workers_for(plan_.operations() / multiply_adds_per_nanosecond, blocks_.row_tasks);
        Carver sizes(nullptr);
        carve_shared(sizes);
        Carver own_sizes(nullptr);
        Own unused;
        carve_own(own_sizes, unused);
        const std::ptrdiff_t own_bytes = own_sizes.used();
        const Scratch scratch(checked_add(sizes.used(), checked_multiply(own_bytes, workers)), 1);
        Carver memory(scratch.of_worker(0));
        shared_ = carve_shared(memory);
        for (std::ptrdiff_t task = 0; task < blocks_.row_tasks; ++task)
            new (shared_.done + task) Count(0);
        char* const own_memory = scratch.of_worker(0) + memory.used();
        return parallel_for(workers, workers, [&](Worker& worker, std::ptrdiff_t, std::ptrdiff_t) {
            Own own;
            Carver carver(own_memory + worker.index() * own_bytes);
            carve_own(carver, own);
            own.kept_rows = shared_.kept_rows;
            if (blocks_.depth_blocks > 1) own.sums = shared_.sums;
            for (std::ptrdiff_t item; (item = next_.fetch_add(1)) < items;)
                if (!do_item(worker, own, item)) return;
        });
    }

    // What the threads of a call have in common.
    struct Shared {
        char* packed[2];
        char* kept_rows;
        Count* done;  // phases that each block of rows has been through
        float* sums;  // of 16-bit types
    };

    static constexpr double multiply_adds_per_nanosecond = 50;

    // What each thread has for itself.
    struct Own {
        char* panel;  // of A
        char* kept_rows = nullptr;
        std::ptrdiff_t kept_band = -1, kept_at_column = 0;  // where they were packed
        std::ptrdiff_t* row_offset;
        Run* across;
        Run* along_a;
        std::ptrdiff_t along_a_runs = 0, depth_listed = -1;
        Run* along_b;
        Run* column_runs;
        PanelColumns* panels;
        float* sums;
        float* waiting_sums;  // of the sweep
        std::ptrdiff_t* sum_offset;
        Run* sum_runs;
        PanelColumns* sum_panels;
        std::ptrdiff_t column_listed = -1;
    };

    Shared carve_shared(Carver& carver) const {
        Shared shared;
        for (char*& packed : shared.packed) packed = carver.take<char>(blocks_.packed_bytes());
        shared.kept_rows = carver.take<char>(blocks_.kept_bytes());
        shared.done = carver.take<Count>(blocks_.row_tasks);
        shared.sums = carver.take<float>(blocks_.shared_sums());
        return shared;
    }
    void carve_own(Carver& carver, Own& own) const {
        own.panel = carver.take<char>(blocks_.panel_bytes());
        own.waiting_sums = carver.take<float>(round_up(blocks_.columns, kernels_.columns) *
                                              kernels_.sums_per_column);
        own.row_offset = carver.take<std::ptrdiff_t>(kernels_.rows);
        own.across =
            carver.take<Run>(std::max(kernels_.rows, most_runs(plan_.columns, blocks_.columns)));
        own.along_a = carver.take<Run>(most_runs(plan_.depth, blocks_.depth));
        own.along_b = carver.take<Run>(most_runs(plan_.depth, blocks_.depth));
        const std::ptrdiff_t panels = blocks_of(blocks_.columns, kernels_.columns);
        own.column_runs = carver.take<Run>(panels + most_runs(plan_.columns, blocks_.columns) * 2);
        own.panels = carver.take<PanelColumns>(panels);
        own.sums = carver.take<float>(blocks_.own_sums());
        own.sum_offset = carver.take<std::ptrdiff_t>(kernels_.rows);
        own.sum_runs = carver.take<Run>(panels);
        own.sum_panels = carver.take<PanelColumns>(panels);
    }

    bool do_item(Worker& worker, Own& own, std::ptrdiff_t item) {
        const std::ptrdiff_t tasks = blocks_.pack_tasks + blocks_.row_tasks;
        const std::ptrdiff_t index = item / tasks, task = item % tasks, use = index / 2;
        const Phase phase = blocks_.phase(index);
        Count& packed = packed_count_[index % 2];
        Count& multiplied = multiplied_count_[index % 2];
        if (task < blocks_.pack_tasks) {
            if (!wait_for(worker, multiplied, use * blocks_.row_tasks)) return false;
            pack_columns(own, phase, task, shared_.packed[index % 2]);
            packed.fetch_add(1, std::memory_order_release);
            return proceed(worker);
        }
        const std::ptrdiff_t row_task = task - blocks_.pack_tasks;
        if (!wait_for(worker, packed, (use + 1) * blocks_.pack_tasks) ||
            !wait_for(worker, shared_.done[row_task], index))
            return false;
        multiply_rows(own, phase, row_task, shared_.packed[index % 2]);
        shared_.done[row_task].fetch_add(1, std::memory_order_release);
        multiplied.fetch_add(1, std::memory_order_release);
        return proceed(worker);
    }

    bool proceed(Worker& worker) const { return !refused() && worker.proceed(); }

    bool wait_for(Worker& worker, const Count& count, std::ptrdiff_t value) const {
        constexpr int patience = 4096;  // looks before the processor is offered to others
        for (int looks = 0; count.load(std::memory_order_acquire) < value; ++looks) {
            if (looks % 64 == 63 && !proceed(worker)) return false;
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
        PowerRange range;
        const std::ptrdiff_t width = kernels_.columns;
        const std::ptrdiff_t first =
            blocks_.packs_rows ? 0 : task * GemmBlocks::pack_panels * width;
        const std::ptrdiff_t columns =
            blocks_.packs_rows ? phase.columns : GemmBlocks::pack_panels * width;
        const std::ptrdiff_t step = blocks_.packs_rows ? task * GemmBlocks::pack_depth : 0;
        const std::ptrdiff_t steps = blocks_.packs_rows ? GemmBlocks::pack_depth : phase.depths;
        if (first >= phase.columns || step >= phase.depths) return;
        PanelTask panels = {};
        panels.array =
            plan_.b + batch_offset(phase.batch, operand_b) * element_bytes(plan_.element_b);
        panels.range = &range;
        panels.panel_bytes = kernels_.b_panel_bytes * blocks_.filled(phase.depths);
        panels.panel = packed + first / width * panels.panel_bytes + step * kernels_.b_panel_bytes;
        panels.across = own.across;
        panels.across_runs = list_runs(plan_.columns, operand_b, phase.column + first,
                                       std::min(columns, phase.columns - first), own.across);
        panels.along = own.along_b;
        panels.along_runs = list_runs(plan_.depth, operand_b, phase.depth + step,
                                      std::min(steps, phase.depths - step), own.along_b);
        packers_.columns(panels);
        powers_.widen(1, range);
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
        PowerRange range;
        PanelTask panel = {};
        panel.range = &range;
        panel.array =
            plan_.a + batch_offset(phase.batch, operand_a) * element_bytes(plan_.element_a);
        panel.across = own.across;
        panel.along = own.along_a;
        panel.along_runs = own.along_a_runs;
        SweepTask sweep = {};
        sweep.b = packed;
        sweep.columns = phase.columns;
        sweep.depth = phase.depths;
        sweep.sums = own.waiting_sums;
        sweep.c = plan_.c + batch_offset(phase.batch, operand_c) * element_bytes(plan_.element_c);
        sweep.row_offset = own.row_offset;
        sweep.panels = own.panels;
        sweep.alpha = plan_.alpha;
        sweep.alpha_imag = plan_.alpha_imag;
        sweep.beta = phase.first ? plan_.beta : 1;
        sweep.beta_imag = phase.first ? plan_.beta_imag : 0;
        const std::ptrdiff_t band_end = std::min(phase.row + blocks_.band_rows, plan_.row_count);
        const std::ptrdiff_t begin = phase.row + task * blocks_.rows;
        const std::ptrdiff_t end = std::min(begin + blocks_.rows, band_end);
        const bool is_packed = rows_are_packed(own, phase);
        for (std::ptrdiff_t row = begin; row < end; row += kernels_.rows) {
            sweep.rows = std::min(kernels_.rows, end - row);
            panel.panel = place_of_rows(own, phase, row);
            sweep.a = panel.panel;
            const std::ptrdiff_t next = row + kernels_.rows;
            sweep.ahead = {};
            if (is_packed) {
                if (next < end)
                    sweep.ahead = {place_of_rows(own, phase, next), 0, 1, blocks_.panel_bytes()};
            } else {
                panel.across_runs = list_runs(plan_.rows, operand_a, row, sweep.rows, own.across);
                packers_.rows(panel);
                powers_.widen(0, range);
                if (next < band_end) sweep.ahead = rows_ahead(panel, next);
            }
            list_offsets(plan_.rows, operand_c, row, sweep.rows, own.row_offset);
            if (kernels_.round) {
                sweep_rounded(own, phase, sweep, row - phase.row);
            } else {
                kernels_.sweep(sweep);
            }
        }
    }

    char* place_of_rows(const Own& own, const Phase& phase, std::ptrdiff_t row) const noexcept {
        return blocks_.keeps_rows ? own.kept_rows + blocks_.kept_place(phase, row) : own.panel;
    }

    // The first block of columns of a band packs its rows for all.
    bool rows_are_packed(Own& own, const Phase& phase) const noexcept {
        if (!blocks_.keeps_rows) return false;
        if (!blocks_.in_groups) return phase.column > 0;
        const std::ptrdiff_t band = phase.batch * blocks_.bands + phase.row / blocks_.band_rows;
        if (own.kept_band != band) {
            own.kept_band = band;
            own.kept_at_column = phase.column;
        }
        return phase.column != own.kept_at_column;
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
        float* sums = own.sums + (blocks_.depth_blocks > 1 ? row * blocks_.columns : 0);
        sweep.c = sums;
        for (std::ptrdiff_t r = 0; r < sweep.rows; ++r) own.sum_offset[r] = r * blocks_.columns;
        sweep.row_offset = own.sum_offset;
        sweep.panels = own.sum_panels;
        sweep.alpha = 1;
        sweep.beta = phase.first ? 0 : 1;
        kernels_.sweep(sweep);
        if (!phase.last) return;
        RoundTask round = {};
        round.sums = sums;
        round.rows = task.rows;
        round.stride = blocks_.columns;
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
    const GemmBlocks blocks_;
    Shared shared_ = {};
    mutable PackedPowers powers_;
    Count next_{0};
    Count packed_count_[2] = {0, 0}, multiplied_count_[2] = {0, 0};
};

// Whether the squares of a matrix unit pay. Elements of float32 are three parts each: that takes
// squares that are filled and elements that are used often, but for few rows, of which the vector
// kernels make little.
bool suits_matrix_unit(const ContractPlan& plan) {
    constexpr std::ptrdiff_t least_depth = 24, least_columns = 17, few_rows = 128;
    constexpr double least_operations = 48e6;
    if (plan.element_c != Element::float32) return plan.depth_count >= least_depth;
    const std::ptrdiff_t filled = round_up(plan.depth_count, 32);
    return plan.depth_count * 4 >= filled * 3 && filled > 32 &&
           plan.column_count >= least_columns &&
           (plan.row_count <= few_rows || plan.operations() >= least_operations);
}

// C is written again where the matrix unit refuses an element, so it must not be read.
const MatrixUnit* matrix_unit_for(const ContractPlan& plan) {
    const MatrixUnit* units = kernels().matrix_unit;
    if (units == nullptr || plan.beta != 0 || plan.beta_imag != 0) return nullptr;
    const MatrixUnit& unit = units[static_cast<int>(plan.element_c)];
    return unit.kernels.sweep && suits_matrix_unit(plan) ? &unit : nullptr;
}

}  // namespace

unsigned contract_packed(const ContractPlan& plan) {
    if (const MatrixUnit* unit = matrix_unit_for(plan)) {
        Gemm product(plan, unit->kernels, unit->packers);
        const unsigned raised = product.run();
        if (!product.refused()) return raised;
    }
    const int element = static_cast<int>(plan.element_c);
    return Gemm(plan, kernels().gemm[element], kernels().gemm_packers[element]).run();
}

}  // namespace unitstride
