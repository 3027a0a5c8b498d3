// Softmax line by line: straight from the arrays where lines are contiguous, through packed scratch
// where not.
#include <algorithm>

#include "core/checked.hpp"
#include "ops/softmax_forms.hpp"

namespace unitstride {
namespace {

// Lines that are taken at a time: about a block of bytes, and no more than the sums' buffer holds.
constexpr std::ptrdiff_t most_lines = 256;

std::ptrdiff_t lines_per_block(const SoftmaxCall& call) {
    const std::ptrdiff_t line_bytes = call.plan.length * compute_bytes(call.storage());
    return std::clamp<std::ptrdiff_t>(call.table.block_bytes / line_bytes, 1, most_lines);
}

// How many lines from `line` on, at most `most`, lie evenly along the innermost outer axis.
std::ptrdiff_t even_lines(const LinesPlan& plan, std::ptrdiff_t line, std::ptrdiff_t most) {
    if (plan.outer.count == 0) return 1;
    const std::ptrdiff_t length = plan.outer.axis[plan.outer.count - 1].length;
    return std::min(most, length - line % length);
}

// A line in scratch, with room for a whole vector past its end.
std::ptrdiff_t scratch_line_bytes(const SoftmaxCall& call) {
    return round_up(call.plan.length * compute_bytes(call.storage()), scratch_alignment) +
           scratch_alignment;
}

unsigned run_rows(const SoftmaxCall& call, std::ptrdiff_t line, std::ptrdiff_t lines,
                  void* scratch) {
    LineSum sums[most_lines];
    std::ptrdiff_t offset[max_operands];
    call.plan.offsets_of(line, offset);
    SoftmaxRows task = {call.x_at(offset[operand_x]),
                        call.out_at(offset[operand_out]),
                        lines,
                        call.plan.length,
                        call.across(operand_x),
                        call.across(operand_out),
                        call.exp(),
                        scratch,
                        scratch_line_bytes(call) / compute_bytes(call.storage()),
                        call.wants_sums() ? sums : nullptr,
                        call.arguments.output,
                        call.streaming,
                        0};
    if (reads_every_second(call)) {
        task.x_stride /= 2;
        call.kernels.rows_every_second(task);
    } else {
        call.kernels.rows(task);
    }
    if (call.wants_sums()) task.status |= call.write_log_sums(sums, lines, offset);
    return task.status;
}

// One line through scratch: `source` receives it packed, `work` and `result` are as long.
class PackedLine {
  public:
    PackedLine(const SoftmaxCall& call, char* scratch, std::ptrdiff_t line_bytes)
        : call_(call),
          source_(scratch),
          work_(scratch + line_bytes),
          result_(scratch + 2 * line_bytes) {}

    unsigned run(std::ptrdiff_t line) {
        call_.plan.offsets_of(line, offset_);
        const Storage storage = call_.storage();
        pack_stretch(call_.table, storage, call_.plan, operand_x, call_.x_at(offset_[operand_x]), 0,
                     call_.plan.length, source_);
        bool selected = true;
        if (call_.masked()) {
            const char* mask = call_.where_at(offset_[operand_where]);
            mask_stretch(call_.table, storage, call_.plan, operand_where, mask, 0,
                         call_.plan.length, source_, call_.fill());
            selected = any_selected(call_.plan, operand_where, mask, call_.plan.length);
        }
        return compute(selected);
    }

  private:
    unsigned compute(bool selected) {
        const LinesPlan& plan = call_.plan;
        const Storage storage = call_.storage();
        const bool straight_out = call_.arguments.out && !call_.masked() &&
                                  storage == compute_storage(storage) &&
                                  line_is_contiguous(plan, operand_out);
        char* out = call_.out_at(offset_[operand_out]);
        LineSum sum;
        SoftmaxRows task = {source_,
                            straight_out ? out : result_,
                            1,
                            plan.length,
                            0,
                            0,
                            call_.exp(),
                            work_,
                            0,
                            call_.wants_sums() || call_.masked() ? &sum : nullptr,
                            call_.arguments.output,
                            call_.streaming && straight_out,
                            0};
        call_.kernels.packed_rows(task);
        const unsigned overflow = call_.wants_sums() ? call_.write_log_sums(&sum, 1, offset_) : 0u;
        if (out == nullptr || straight_out) return task.status | overflow;
        // A line of NaN, and one with nothing selected, still have their masked-out values.
        if (call_.masked() && sum.excess != sum.excess)
            mask_stretch(call_.table, storage, plan, operand_where,
                         call_.where_at(offset_[operand_where]), 0, plan.length, result_,
                         call_.masked_output());
        unpack_stretch(call_.table, storage, plan, operand_out, out, 0, plan.length, result_,
                       call_.streaming);
        return (selected ? task.status : 0u) | overflow;
    }

    const SoftmaxCall& call_;
    char *source_, *work_, *result_;
    std::ptrdiff_t offset_[max_operands];
};

}  // namespace

bool reads_every_second(const SoftmaxCall& call) noexcept {
    const LinesPlan& plan = call.plan;
    return plan.line.count == 1 && plan.line.axis[0].stride[operand_x] == 2 &&
           call.across(operand_x) % 2 == 0;
}

unsigned softmax_contiguous_rows(const SoftmaxCall& call) {
    const std::ptrdiff_t block = lines_per_block(call);
    const int workers = workers_for(call.nanoseconds(), call.plan.lines);
    const Scratch scratch(checked_multiply(2, scratch_line_bytes(call)), workers);
    SharedStatus status;
    const unsigned flags = parallel_for(
        workers, call.plan.lines, [&](Worker& worker, std::ptrdiff_t begin, std::ptrdiff_t end) {
            for (std::ptrdiff_t line = begin; line < end;) {
                const std::ptrdiff_t lines =
                    even_lines(call.plan, line, std::min(block, end - line));
                status.raise(run_rows(call, line, lines, scratch.of_worker(worker.index())));
                line += lines;
                if (line < end && !worker.proceed()) return;
            }
        });
    status.raise_overflow(call, flags);
    return status.bits();
}

unsigned softmax_packed_rows(const SoftmaxCall& call) {
    const std::ptrdiff_t line_bytes = scratch_line_bytes(call);
    const std::ptrdiff_t block = lines_per_block(call);
    const int workers = workers_for(2 * call.nanoseconds(), call.plan.lines);
    const Scratch scratch(checked_multiply(3, line_bytes), workers);
    SharedStatus status;
    const unsigned flags = parallel_for(
        workers, call.plan.lines, [&](Worker& worker, std::ptrdiff_t begin, std::ptrdiff_t end) {
            PackedLine packed(call, scratch.of_worker(worker.index()), line_bytes);
            for (std::ptrdiff_t line = begin; line < end; ++line) {
                status.raise(packed.run(line));
                if ((line - begin) % block == block - 1 && !worker.proceed()) return;
            }
        });
    status.raise_overflow(call, flags);
    return status.bits();
}

}  // namespace unitstride
