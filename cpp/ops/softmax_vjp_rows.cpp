// Gradients line by line: straight from the arrays where lines are contiguous, through packed
// scratch where not, and in pieces where a line does not fit the cache.
#include <algorithm>
#include <vector>

#include "core/checked.hpp"
#include "core/parallel.hpp"
#include "core/scratch.hpp"
#include "ops/softmax_vjp_forms.hpp"

namespace unitstride {
namespace {

constexpr std::ptrdiff_t most_lines = 64;

bool reads_every_second(const VjpCall& call) {
    const LinesPlan& plan = call.plan;
    const auto steps_by_two = [&](int operand) {
        return plan.line.count == 1 && plan.line.axis[0].stride[operand] == 2 &&
               call.across(operand) % 2 == 0;
    };
    return !call.masked() && line_is_contiguous(plan, operand_result) && !call.is_long() &&
           steps_by_two(operand_primal) && (call.by_line() || steps_by_two(operand_cotangent));
}

bool is_packed(const VjpCall& call) {
    if (reads_every_second(call)) return false;
    return call.masked() || !line_is_contiguous(call.plan, operand_primal) ||
           !line_is_contiguous(call.plan, operand_result) ||
           (!call.by_line() && !line_is_contiguous(call.plan, operand_cotangent));
}

// A stretch [begin, begin + count) of `lines` neighbouring lines, contiguous: in place, or packed
// into scratch.
class Stretch {
  public:
    Stretch(const VjpCall& call, char* scratch, std::ptrdiff_t line, std::ptrdiff_t lines,
            std::ptrdiff_t begin, std::ptrdiff_t count)
        : call_(call), lines_(lines), begin_(begin), count_(count), packed_(is_packed(call)) {
        call.plan.offsets_of(line, offset_);
        task_ = {};
        task_.common = call.common;
        task_.rows = lines;
        task_.length = count;
        task_.log_sum = log_sums_;
        task_.line_cotangent = line_cotangents_;
        if (call.by_line()) call.load_line_values(offset_, lines, log_sums_, line_cotangents_);
        if (packed_) {
            pack(scratch);
        } else {
            point_at_arrays();
        }
    }
    void run() {
        if (reads_every_second(call_)) {
            kernels().rows_every_second(task_);
        } else {
            kernels().rows(task_);
        }
        if (packed_) unpack();
    }
    VjpSum sum() const { return kernels().sum(task_); }
    void write(VjpSum total) {
        kernels().write(task_, total);
        if (packed_) unpack();
    }

    static std::ptrdiff_t scratch_bytes(const VjpCall& call, std::ptrdiff_t lines,
                                        std::ptrdiff_t count) {
        if (!is_packed(call)) return 0;
        return checked_multiply(2, tile_bytes(call, lines, count));
    }

  private:
    static std::ptrdiff_t tile_bytes(const VjpCall& call, std::ptrdiff_t lines,
                                     std::ptrdiff_t count) {
        return round_up(checked_multiply(lines * compute_bytes(call.storage()), count),
                        scratch_alignment);
    }
    const SoftmaxVjpKernels& kernels() const {
        return packed_ ? call_.compute_kernels : call_.kernels;
    }
    void point_at_arrays() {
        const SoftmaxVjpArguments& arguments = call_.arguments;
        const std::ptrdiff_t step = reads_every_second(call_) ? 2 : 1;  // in elements
        task_.primal = call_.input(arguments.primal, offset_[operand_primal] + begin_);
        task_.primal_stride = call_.across(operand_primal) / step;
        if (!call_.by_line()) {
            task_.cotangent = call_.input(arguments.cotangent, offset_[operand_cotangent] + begin_);
            task_.cotangent_stride = call_.across(operand_cotangent) / step;
        }
        task_.out = call_.out_at(offset_[operand_result] + begin_);
        task_.out_stride = call_.across(operand_result);
        task_.streaming = call_.streaming;
    }
    void pack(char* scratch) {
        const SoftmaxVjpArguments& arguments = call_.arguments;
        const std::ptrdiff_t bytes = tile_bytes(call_, lines_, count_);
        pack_operand(arguments.primal, operand_primal, scratch, call_.masked_primal());
        task_.primal = scratch;
        task_.primal_stride = count_;
        if (!call_.by_line()) {
            pack_operand(arguments.cotangent, operand_cotangent, scratch + bytes, 0.0);
            task_.cotangent = scratch + bytes;
            task_.cotangent_stride = count_;
        }
        task_.out = scratch;  // in place of the primal
        task_.out_stride = count_;
    }
    bool is_rectangle() const { return call_.plan.line.count <= 1; }
    std::ptrdiff_t along(int operand) const {
        return call_.plan.line.count == 0 ? 1 : call_.plan.line.axis[0].stride[operand];
    }

    void pack_operand(const InputView& view, int operand, char* tile, double masked_out) {
        if (is_rectangle()) {
            const char* from = call_.input(view, offset_[operand] + begin_ * along(operand));
            call_.packing().pack(
                {from, tile, lines_, count_, call_.across(operand), along(operand), count_, false});
        } else {
            pack_stretch(call_.table, call_.storage(), call_.plan, operand,
                         call_.input(view, offset_[operand]), begin_, count_, tile);
        }
        mask_tile(tile, masked_out);
    }
    void mask_tile(void* tile, double value) {
        if (!call_.masked()) return;
        const char* mask = call_.arguments.where.data + offset_[operand_selection];
        if (is_rectangle()) {
            const auto* from =
                reinterpret_cast<const unsigned char*>(mask + begin_ * along(operand_selection));
            call_.packing().mask({from, tile, lines_, count_, call_.across(operand_selection),
                                  along(operand_selection), count_, value});
        } else {
            mask_stretch(call_.table, call_.storage(), call_.plan, operand_selection, mask, begin_,
                         count_, tile, value);
        }
    }
    void unpack() {
        mask_tile(task_.out, 0.0);
        char* out = call_.out_at(offset_[operand_result]);
        if (is_rectangle()) {
            call_.packing().unpack(
                {out + begin_ * along(operand_result) * storage_bytes(call_.storage()), task_.out,
                 lines_, count_, call_.across(operand_result), along(operand_result), count_,
                 call_.streaming});
        } else {
            unpack_stretch(call_.table, call_.storage(), call_.plan, operand_result, out, begin_,
                           count_, task_.out, call_.streaming);
        }
    }

    const VjpCall& call_;
    std::ptrdiff_t lines_, begin_, count_;
    bool packed_;
    VjpRows task_;
    std::ptrdiff_t offset_[max_operands];
    double log_sums_[most_lines], line_cotangents_[most_lines];  // of the compute type
};

}  // namespace

unsigned softmax_vjp_rows(const VjpCall& call) {
    const LinesPlan& plan = call.plan;
    const std::ptrdiff_t neighbours =
        plan.outer.count == 0 ? 1 : plan.outer.axis[plan.outer.count - 1].length;
    const std::ptrdiff_t line_bytes = plan.length * compute_bytes(call.storage());
    const std::ptrdiff_t block_bytes =
        is_packed(call) ? call.table.tile_bytes / 2 : call.table.block_bytes;
    std::ptrdiff_t group = std::clamp<std::ptrdiff_t>(block_bytes / line_bytes, 1, most_lines);
    if (plan.line.count > 1) group = 1;
    group = std::min(group, neighbours);
    const std::ptrdiff_t per_axis = (neighbours + group - 1) / group;
    const std::ptrdiff_t groups = checked_multiply(per_axis, plan.lines / neighbours);
    const int workers = workers_for(call.nanoseconds(), groups);
    const Scratch scratch(Stretch::scratch_bytes(call, group, plan.length), workers);
    return parallel_for(workers, groups,
                        [&](Worker& worker, std::ptrdiff_t begin, std::ptrdiff_t end) {
                            for (std::ptrdiff_t i = begin; i < end; ++i) {
                                const std::ptrdiff_t place = i % per_axis * group;
                                const std::ptrdiff_t line = i / per_axis * neighbours + place;
                                Stretch(call, scratch.of_worker(worker.index()), line,
                                        std::min(group, neighbours - place), 0, plan.length)
                                    .run();
                                if (i + 1 < end && !worker.proceed()) return;
                            }
                        });
}

unsigned softmax_vjp_long_rows(const VjpCall& call) {
    const std::ptrdiff_t piece = call.piece();
    const std::ptrdiff_t pieces = (call.plan.length + piece - 1) / piece;
    const int workers =
        workers_for(call.nanoseconds() / static_cast<double>(call.plan.lines), pieces);
    const Scratch scratch(Stretch::scratch_bytes(call, 1, piece), workers);
    count_allocation();
    std::vector<VjpSum> sums(static_cast<std::size_t>(pieces));
    unsigned flags = 0;
    for (std::ptrdiff_t line = 0; line < call.plan.lines; ++line) {
        const auto sweep = [&](auto&& body) {
            flags |= parallel_for(
                workers, pieces, [&](Worker& worker, std::ptrdiff_t begin, std::ptrdiff_t end) {
                    for (std::ptrdiff_t i = begin; i < end; ++i) {
                        const std::ptrdiff_t count = std::min(piece, call.plan.length - i * piece);
                        Stretch stretch(call, scratch.of_worker(worker.index()), line, 1, i * piece,
                                        count);
                        body(i, stretch);
                        if (!worker.proceed()) return;
                    }
                });
        };
        VjpSum total = {0.0, 0.0};
        if (!call.by_line()) {
            sweep([&](std::ptrdiff_t i, const Stretch& stretch) {
                sums[static_cast<std::size_t>(i)] = stretch.sum();
            });
            for (const VjpSum& part : sums) total = add_piece(total, part);
        }
        sweep([&](std::ptrdiff_t, Stretch& stretch) { stretch.write(total); });
    }
    return flags;
}

}  // namespace unitstride
