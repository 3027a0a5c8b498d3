// Small products, and many of them: matrices are read where they lie, threads share batches and
// rows.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "core/parallel.hpp"
#include "core/scratch.hpp"
#include "isa/dispatch.hpp"
#include "ops/contract_forms.hpp"

namespace unitstride {
namespace {

constexpr std::ptrdiff_t most_depth = 256;  // of one chain of additions
// Rereads of B stay near the processor: in a first-level cache and a half. For few rows, packing
// costs more than rereads from a quarter of the second level, where the rows of B lie close enough
// for the hardware to fetch them ahead and those of A run along the depth.
constexpr std::ptrdiff_t small_bytes_of_b = 64 << 10, most_bytes_of_b = 512 << 10;
constexpr std::ptrdiff_t few_rows = 320;
constexpr std::ptrdiff_t close_rows = 2048;  // bytes from row to row
constexpr double item_operations = 1 << 19;  // multiply-adds that a thread takes at a time
constexpr double multiply_adds_per_nanosecond = 40;
constexpr std::ptrdiff_t copy_worth_rows = 128;  // that share a copy of B

std::ptrdiff_t stride_of(const AxisList& axes, int operand) noexcept {
    return axes.count == 0 ? 0 : axes.axis[0].stride[operand];
}

bool contiguous(const AxisList& axes, int operand) noexcept {
    return axes.count == 0 || axes.axis[0].stride[operand] == 1;
}

// Whether the axes are one in an operand, and its stride.
bool is_one_axis(const AxisList& axes, int operand, std::ptrdiff_t& stride) noexcept {
    if (axes.count == 0) return false;
    stride = axes.axis[axes.count - 1].stride[operand];
    std::ptrdiff_t next = stride;
    for (int a = axes.count - 1; a >= 0; next *= axes.axis[a--].length)
        if (axes.axis[a].stride[operand] != next) return false;
    return true;
}

bool is_shared(const AxisList& batch, int operand) noexcept {
    for (int a = 0; a < batch.count; ++a)
        if (batch.axis[a].stride[operand] != 0) return false;
    return true;
}

template <class T>
void copy_matrix(const ContractPlan& plan, char* to) {
    std::vector<std::ptrdiff_t> column(static_cast<std::size_t>(plan.column_count));
    list_offsets(plan.columns, operand_b, 0, plan.column_count, column.data());
    for (std::ptrdiff_t k = 0; k < plan.depth_count; ++k) {
        std::ptrdiff_t offset;
        list_offsets(plan.depth, operand_b, k, 1, &offset);
        for (std::ptrdiff_t i : column) {
            std::memcpy(to, plan.b + (offset + i) * static_cast<std::ptrdiff_t>(sizeof(T)),
                        sizeof(T));
            to += sizeof(T);
        }
    }
}

}  // namespace

bool direct_with_copy(const ContractPlan& plan, unsigned& raised) {
    if (plan.element_c != Element::float32 && plan.element_c != Element::float64) return false;
    if (plan.row_count * plan.batches < copy_worth_rows || !is_shared(plan.batch, operand_b))
        return false;
    Axis column = {plan.column_count, {}}, depth = {plan.depth_count, {}};
    if (!is_one_axis(plan.columns, operand_c, column.stride[operand_c]) ||
        !is_one_axis(plan.depth, operand_a, depth.stride[operand_a]))
        return false;
    column.stride[operand_b] = 1;
    depth.stride[operand_b] = plan.column_count;
    ContractPlan copied = plan;
    copied.columns.axis[0] = column;
    copied.depth.axis[0] = depth;
    copied.columns.count = copied.depth.count = 1;
    if (!can_be_direct(copied)) return false;
    const Scratch scratch(plan.column_count * plan.depth_count * element_bytes(plan.element_c), 1);
    copied.b = scratch.of_worker(0);
    if (plan.element_c == Element::float32) {
        copy_matrix<float>(plan, scratch.of_worker(0));
    } else {
        copy_matrix<double>(plan, scratch.of_worker(0));
    }
    raised = contract_direct(copied);
    return true;
}

bool can_be_direct(const ContractPlan& plan) {
    if (plan.element_c != Element::float32 && plan.element_c != Element::float64) return false;
    if (plan.rows.count > 1 || plan.columns.count > 1 || plan.depth.count > 1) return false;
    if (plan.row_count < 2 || plan.column_count < 2 || plan.depth_count < 2) return false;
    if (!contiguous(plan.columns, operand_b) || !contiguous(plan.columns, operand_c)) return false;
    const std::ptrdiff_t bytes = element_bytes(plan.element_c);
    const std::ptrdiff_t step = std::abs(stride_of(plan.depth, operand_b)) * bytes;
    const bool rereads =
        step <= close_rows && plan.row_count <= few_rows && stride_of(plan.depth, operand_a) == 1;
    const std::ptrdiff_t most = rereads ? most_bytes_of_b : small_bytes_of_b;
    return plan.depth_count <= most_depth && plan.column_count <= most &&
           plan.column_count * plan.depth_count <= most / bytes;
}

unsigned contract_direct(const ContractPlan& plan) {
    const std::ptrdiff_t bytes = element_bytes(plan.element_c);
    const auto& kernel = kernels().direct[plan.element_c == Element::float64];
    DirectTask whole = {};
    whole.a_row = stride_of(plan.rows, operand_a);
    whole.c_row = stride_of(plan.rows, operand_c);
    whole.a_depth = stride_of(plan.depth, operand_a);
    whole.b_depth = stride_of(plan.depth, operand_b);
    whole.columns = plan.column_count;
    whole.depth = plan.depth_count;
    whole.alpha = plan.alpha;
    whole.beta = plan.beta;
    // The last axis of the batch is the kernel's own loop.
    const Axis last = plan.batch.count > 0 ? plan.batch.axis[plan.batch.count - 1] : Axis{1, {}};
    whole.a_batch = last.stride[operand_a];
    whole.b_batch = last.stride[operand_b];
    whole.c_batch = last.stride[operand_c];

    const double per_row = static_cast<double>(plan.column_count) *
                           static_cast<double>(std::max<std::ptrdiff_t>(plan.depth_count, 1));
    const auto rows = static_cast<std::ptrdiff_t>(
        std::clamp(item_operations / per_row, 24.0, static_cast<double>(plan.row_count) + 24));
    const std::ptrdiff_t chunk = std::min(plan.row_count, rows / 24 * 24);
    const std::ptrdiff_t chunks = (plan.row_count + chunk - 1) / chunk;
    const std::ptrdiff_t items = plan.batches * chunks;
    const int workers = workers_for(plan.operations() / multiply_adds_per_nanosecond, items);
    const auto body = [&](Worker& worker, std::ptrdiff_t begin, std::ptrdiff_t end) {
        const auto most = static_cast<std::ptrdiff_t>(
            std::max(1.0, item_operations / (per_row * static_cast<double>(chunk))));
        while (begin < end && worker.proceed()) {
            const std::ptrdiff_t batch = begin / chunks, row = begin % chunks * chunk;
            DirectTask task = whole;
            std::ptrdiff_t offset[contract_operands];
            for (int k = 0; k < contract_operands; ++k)
                list_offsets(plan.batch, k, batch, 1, offset + k);
            task.a = plan.a + (offset[operand_a] + row * whole.a_row) * bytes;
            task.b = plan.b + offset[operand_b] * bytes;
            task.c = plan.c + (offset[operand_c] + row * whole.c_row) * bytes;
            task.rows = std::min(chunk, plan.row_count - row);
            // Batches along the last axis go together, as many as a thread takes at a time.
            task.batches =
                chunks > 1 ? 1 : std::min({end - begin, last.length - batch % last.length, most});
            kernel.multiply(task);
            begin += task.batches;
        }
    };
    return parallel_for(workers, items, body);
}

}  // namespace unitstride
