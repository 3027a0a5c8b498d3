// How a product of packed panels is cut: blocks of rows, columns and depth, and the phases of the
// work. See Note [Phases] in contract_gemm.cpp.
#pragma once

#include "ops/contract_plan.hpp"

namespace unitstride {

// One block of B times all rows of A.
struct Phase {
    std::ptrdiff_t batch, row, column, columns, depth, depths;
    bool first, last;  // of the blocks that are summed into the same elements of C
};

std::ptrdiff_t blocks_of(std::ptrdiff_t total, std::ptrdiff_t block) noexcept;

class GemmBlocks {
  public:
    GemmBlocks(const ContractPlan& plan, const GemmKernels& kernels);

    Phase phase(std::ptrdiff_t index) const noexcept;
    // Blocks of columns (of a band, of a batch): all that is summed into the same elements of C.
    std::ptrdiff_t groups() const noexcept { return phases / depth_blocks; }

    // A depth, filled up as panels are.
    std::ptrdiff_t filled(std::ptrdiff_t some_depth) const noexcept;
    std::ptrdiff_t panel_bytes() const noexcept;  // of A
    std::ptrdiff_t packed_bytes() const;          // a block of B
    // Packed rows: the place of the panel that begins at `row`, and all of them.
    std::ptrdiff_t kept_place(const Phase& phase, std::ptrdiff_t row) const noexcept;
    std::ptrdiff_t kept_bytes() const;
    // Of 16-bit types: sums of the blocks of depth so far, and those of one panel.
    std::ptrdiff_t shared_sums() const;
    std::ptrdiff_t own_sums() const;

    // One packing task: so many steps of the depth, or so many panels of B.
    static constexpr std::ptrdiff_t pack_depth = 32, pack_panels = 4;

  private:
    const ContractPlan& plan_;
    const GemmKernels& kernels_;

    bool has_matrix_unit() const noexcept { return kernels_.sums_per_column > 0; }
    std::ptrdiff_t columns_of_block() const noexcept;
    std::ptrdiff_t depth_of_block() const noexcept;
    std::ptrdiff_t rows_of_task() const noexcept;
    std::ptrdiff_t rows_of_band() const noexcept;
    bool small_batches() const noexcept;
    bool few_rows() const noexcept;
    bool pays_to_keep_rows() const noexcept;

  public:
    const std::ptrdiff_t columns, depth, rows;  // of a block; `rows` are a task
    const std::ptrdiff_t column_blocks, depth_blocks;
    const bool in_groups;   // each thread takes blocks of columns for itself
    const bool keeps_rows;  // packed, for all blocks of columns
    const std::ptrdiff_t band_rows, bands, row_tasks;
    const bool packs_rows;  // of B, in the order in which they lie
    const std::ptrdiff_t pack_tasks, phases;
};

}  // namespace unitstride
