#include "ops/gemm_blocks.hpp"

#include <algorithm>

#include "core/checked.hpp"
#include "core/parallel.hpp"

namespace unitstride {
namespace {

constexpr double shared_from = 1 << 21;        // multiply-adds that threads share
constexpr std::ptrdiff_t rounded_rows = 1024;  // sums of so many are kept in float
// Of packed rows, for all threads and for one.
constexpr std::ptrdiff_t most_kept = 12 << 20, most_kept_in_groups = 4 << 20;

// Blocks of equal length, so that no short one is left at the end.
std::ptrdiff_t even_block(std::ptrdiff_t total, std::ptrdiff_t block, std::ptrdiff_t multiple) {
    return std::min(total, round_up(blocks_of(total, blocks_of(total, block)), multiple));
}

}  // namespace

std::ptrdiff_t blocks_of(std::ptrdiff_t total, std::ptrdiff_t block) noexcept {
    return (total + block - 1) / block;
}

GemmBlocks::GemmBlocks(const ContractPlan& plan, const GemmKernels& kernels)
    : plan_(plan),
      kernels_(kernels),
      columns(even_block(plan.column_count, columns_of_block(), kernels.columns)),
      depth(depth_of_block()),
      rows(even_block(plan.row_count, rows_of_task(), kernels.rows)),
      column_blocks(blocks_of(plan.column_count, columns)),
      depth_blocks(std::max<std::ptrdiff_t>(blocks_of(plan.depth_count, depth), 1)),
      in_groups(small_batches() || few_rows()),
      keeps_rows(pays_to_keep_rows()),
      band_rows(rows_of_band()),
      bands(blocks_of(plan.row_count, band_rows)),
      row_tasks(blocks_of(band_rows, rows)),
      packs_rows(ends_contiguous(plan.columns, operand_b)),
      pack_tasks(packs_rows ? blocks_of(depth, pack_depth)
                            : blocks_of(columns, kernels.columns * pack_panels)),
      phases(checked_multiply(checked_multiply(plan.batches, bands),
                              checked_multiply(column_blocks, depth_blocks))) {}

// A matrix unit is so fast that threads have to share even a few rows well.
std::ptrdiff_t GemmBlocks::columns_of_block() const noexcept {
    const std::ptrdiff_t shares = 4 * threads_in_effect();
    if (!has_matrix_unit() || plan_.row_count >= shares * kernels_.rows)
        return kernels_.block_columns;
    const std::ptrdiff_t block =
        std::clamp(plan_.column_count / shares, 2 * kernels_.columns, kernels_.block_columns);
    const bool enough = plan_.batches * blocks_of(plan_.column_count, block) >= shares;
    return enough ? block : kernels_.block_columns;
}

// Sums longer than a kernel's short_depth are cut into blocks: the error of one chain of additions
// grows with the root of its length.
std::ptrdiff_t GemmBlocks::depth_of_block() const noexcept {
    const std::ptrdiff_t whole = plan_.depth_count;
    if (whole <= kernels_.short_depth) return std::max<std::ptrdiff_t>(whole, 1);
    return even_block(whole, std::min(kernels_.block_depth, blocks_of(whole, 2)),
                      std::max<std::ptrdiff_t>(16, kernels_.depth_unit));
}

std::ptrdiff_t GemmBlocks::rows_of_task() const noexcept {
    if (!has_matrix_unit()) return kernels_.block_rows;
    return std::clamp(plan_.row_count / (4 * threads_in_effect()), kernels_.rows,
                      kernels_.block_rows);
}

std::ptrdiff_t GemmBlocks::rows_of_band() const noexcept {
    std::ptrdiff_t most = plan_.row_count;
    if (keeps_rows && !in_groups)
        most = most_kept * kernels_.rows / kernels_.a_panel_bytes / filled(depth);
    if (kernels_.round && depth_blocks > 1) most = std::min(most, rounded_rows);
    return std::min(std::max<std::ptrdiff_t>(most / rows, 1) * rows, plan_.row_count);
}

// Products that are too small for several threads, but many.
bool GemmBlocks::small_batches() const noexcept {
    return plan_.batches > 1 &&
           plan_.operations() / static_cast<double>(plan_.batches) < shared_from;
}

// Too few blocks of rows for threads to share a block of columns evenly, but enough of those.
bool GemmBlocks::few_rows() const noexcept {
    const std::ptrdiff_t threads = threads_in_effect();
    return threads > 1 && blocks_of(plan_.row_count, rows) < 4 * threads &&
           plan_.batches * column_blocks >= 4 * threads;
}

// In groups, a thread keeps the rows of all depths.
bool GemmBlocks::pays_to_keep_rows() const noexcept {
    if (!has_matrix_unit() || column_blocks == 1) return false;
    if (!in_groups) return kernels_.round == nullptr || depth_blocks == 1;
    return static_cast<double>(plan_.row_count) * static_cast<double>(plan_.depth_count) <
           static_cast<double>(most_kept_in_groups * kernels_.rows / kernels_.a_panel_bytes);
}

std::ptrdiff_t GemmBlocks::filled(std::ptrdiff_t some_depth) const noexcept {
    return round_up(some_depth, kernels_.depth_unit);
}

std::ptrdiff_t GemmBlocks::panel_bytes() const noexcept {
    return kernels_.a_panel_bytes * filled(depth);
}

std::ptrdiff_t GemmBlocks::packed_bytes() const {
    return checked_multiply(
        checked_multiply(blocks_of(columns, kernels_.columns), kernels_.b_panel_bytes),
        filled(depth));
}

std::ptrdiff_t GemmBlocks::kept_place(const Phase& at, std::ptrdiff_t row) const noexcept {
    const std::ptrdiff_t block = in_groups ? at.depth / depth : 0;
    const std::ptrdiff_t panels = blocks_of(band_rows, kernels_.rows);
    return (block * panels + (row - at.row) / kernels_.rows) * panel_bytes();
}

std::ptrdiff_t GemmBlocks::kept_bytes() const {
    if (!keeps_rows) return 0;
    return checked_multiply(blocks_of(band_rows, kernels_.rows) * panel_bytes(),
                            in_groups ? depth_blocks : 1);
}

std::ptrdiff_t GemmBlocks::shared_sums() const {
    return kernels_.round && depth_blocks > 1 ? checked_multiply(band_rows, columns) : 0;
}

std::ptrdiff_t GemmBlocks::own_sums() const {
    return kernels_.round && depth_blocks == 1 ? checked_multiply(kernels_.rows, columns) : 0;
}

// Blocks of depth follow one another, unless packed rows are kept for all columns.
Phase GemmBlocks::phase(std::ptrdiff_t index) const noexcept {
    Phase phase;
    const bool depth_first = !keeps_rows || in_groups;
    const std::ptrdiff_t inner = depth_first ? depth_blocks : column_blocks;
    const std::ptrdiff_t outer = depth_first ? column_blocks : depth_blocks;
    const std::ptrdiff_t first = index % inner, second = index / inner % outer;
    index /= inner * outer;
    const std::ptrdiff_t block = depth_first ? first : second;
    phase.column = (depth_first ? second : first) * columns;
    phase.row = index % bands * band_rows;
    phase.batch = index / bands;
    phase.columns = std::min(columns, plan_.column_count - phase.column);
    phase.depth = block * depth;
    phase.depths = std::min(depth, plan_.depth_count - phase.depth);
    phase.first = block == 0;
    phase.last = block == depth_blocks - 1;
    return phase;
}

}  // namespace unitstride
