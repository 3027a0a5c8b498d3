// Small products, and many of them: matrices are read where they lie, threads share batches and
// rows.
#include <algorithm>

#include "core/parallel.hpp"
#include "isa/dispatch.hpp"
#include "ops/contract_forms.hpp"

namespace unitstride {
namespace {

constexpr std::ptrdiff_t most_depth = 256;            // of one chain of additions
constexpr std::ptrdiff_t most_bytes_of_b = 64 << 10;  // rereads of B stay near the processor
constexpr double item_operations = 1 << 19;           // multiply-adds that a thread takes at a time
constexpr double multiply_adds_per_nanosecond = 40;

std::ptrdiff_t stride_of(const AxisList& axes, int operand) noexcept {
    return axes.count == 0 ? 0 : axes.axis[0].stride[operand];
}

bool contiguous(const AxisList& axes, int operand) noexcept {
    return axes.count == 0 || axes.axis[0].stride[operand] == 1;
}

}  // namespace

bool can_be_direct(const ContractPlan& plan) {
    if (plan.element_c != Element::float32 && plan.element_c != Element::float64) return false;
    if (plan.rows.count > 1 || plan.columns.count > 1 || plan.depth.count > 1) return false;
    if (plan.row_count < 2 || plan.column_count < 2 || plan.depth_count < 2) return false;
    if (!contiguous(plan.columns, operand_b) || !contiguous(plan.columns, operand_c)) return false;
    const std::ptrdiff_t bytes = element_bytes(plan.element_c);
    return plan.depth_count <= most_depth &&
           plan.column_count <=
               most_bytes_of_b / bytes / std::max<std::ptrdiff_t>(plan.depth_count, 1);
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
