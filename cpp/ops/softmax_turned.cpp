// Softmax of lines that lie side by side in x and one after the other in the output.
//
// As many lines as the cache takes are turned into contiguous ones, by squares transposed in
// registers; from there on they are rows like any others, which go to their places whole.
#include <algorithm>

#include "core/checked.hpp"
#include "ops/softmax_forms.hpp"

namespace unitstride {
namespace {

// Positions along the lines that are turned together: every row of x is used in full while its
// parts of the turned lines stay in the first-level cache.
constexpr std::ptrdiff_t positions = 64;
constexpr std::ptrdiff_t most_lines = 256;

// How the innermost outer axis is cut into batches of lines.
struct Batches {
    std::ptrdiff_t lines;       // of a batch
    std::ptrdiff_t skew;        // by how much the first one is shorter, so that the others begin
                                // on a cache line of x
    std::ptrdiff_t neighbours;  // length of the axis
    std::ptrdiff_t per_axis;    // batches that cover it
    std::ptrdiff_t count;
    std::ptrdiff_t line_bytes;  // of a line in scratch, with room for a whole vector past its end

    explicit Batches(const SoftmaxCall& call) {
        const std::ptrdiff_t lanes = call.kernels.lanes, bytes = compute_bytes(call.storage());
        neighbours = call.plan.outer.axis[call.plan.outer.count - 1].length;
        const std::ptrdiff_t fitting = call.table.wide_tile_bytes / (call.plan.length * bytes);
        lines = std::clamp(fitting / lanes * lanes, lanes, most_lines);
        lines = std::min(lines, round_up(neighbours, lanes));
        const auto misplaced = static_cast<std::ptrdiff_t>(
            reinterpret_cast<std::uintptr_t>(call.arguments.x.data) % scratch_alignment);
        skew = misplaced % bytes == 0 ? misplaced / bytes % lines : 0;
        per_axis = (neighbours + skew + lines - 1) / lines;
        count = checked_multiply(per_axis, call.plan.lines / neighbours);
        line_bytes = round_up(call.plan.length * bytes, scratch_alignment) + scratch_alignment;
    }
};

// `scratch` holds two lines for the row kernel, then the turned ones.
unsigned run_batch(const SoftmaxCall& call, const Batches& batches, std::ptrdiff_t number,
                   char* scratch) {
    const std::ptrdiff_t bytes = compute_bytes(call.storage());
    const std::ptrdiff_t stride = batches.line_bytes / bytes;
    const std::ptrdiff_t begin = number % batches.per_axis * batches.lines - batches.skew;
    const std::ptrdiff_t from = std::max<std::ptrdiff_t>(begin, 0);
    const std::ptrdiff_t lines = std::min(begin + batches.lines, batches.neighbours) - from;
    const std::ptrdiff_t along = call.plan.line.axis[0].stride[operand_x];
    std::ptrdiff_t offset[max_operands];
    call.plan.offsets_of(number / batches.per_axis * batches.neighbours + from, offset);
    char* tile = scratch + 2 * batches.line_bytes;
    for (std::ptrdiff_t i = 0; i < call.plan.length; i += positions)
        call.table.pack[static_cast<int>(call.storage())].pack(
            {call.x_at(offset[operand_x] + i * along), tile + i * bytes, lines,
             std::min(positions, call.plan.length - i), 1, along, stride, false});
    LineSum sums[most_lines];
    SoftmaxRows task = {tile,
                        call.out_at(offset[operand_out]),
                        lines,
                        call.plan.length,
                        stride,
                        call.across(operand_out),
                        call.exp(),
                        scratch,
                        stride,
                        call.wants_sums() ? sums : nullptr,
                        call.arguments.output,
                        call.streaming,
                        0};
    call.kernels.packed_rows(task);
    if (call.wants_sums()) task.status |= call.write_log_sums(sums, lines, offset);
    return task.status;
}

}  // namespace

unsigned softmax_turned_rows(const SoftmaxCall& call) {
    const Batches batches(call);
    const int workers = workers_for(2 * call.nanoseconds(), batches.count);
    const Scratch scratch(checked_multiply(batches.lines + 2, batches.line_bytes), workers);
    SharedStatus status;
    const unsigned flags = parallel_for(
        workers, batches.count, [&](Worker& worker, std::ptrdiff_t begin, std::ptrdiff_t end) {
            for (std::ptrdiff_t number = begin; number < end; ++number) {
                status.raise(run_batch(call, batches, number, scratch.of_worker(worker.index())));
                if (!worker.proceed()) return;
            }
        });
    status.raise_overflow(call, flags);
    return status.bits();
}

}  // namespace unitstride
