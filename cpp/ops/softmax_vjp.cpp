#include "ops/softmax_vjp.hpp"

#include <algorithm>
#include <vector>

#include "core/checked.hpp"
#include "core/float_environment.hpp"
#include "core/parallel.hpp"
#include "core/scratch.hpp"
#include "isa/dispatch.hpp"
#include "ops/exp_constants.hpp"
#include "ops/lines.hpp"

namespace unitstride {
namespace {

enum Operand : int { primal, cotangent, result, selection, log_sum, operand_count };

constexpr std::ptrdiff_t most_lines = 64;

struct VjpCall {
    const SoftmaxVjpArguments& arguments;
    const LinesPlan& plan;
    const KernelTable& table;
    const AnyExpConstants& constants;
    bool streaming;
    std::ptrdiff_t
        piece;  // elements that are worked on at a time: the whole line unless it is too long

    Storage storage() const noexcept { return arguments.storage; }
    bool by_line() const noexcept { return arguments.gradient == SoftmaxVjp::logsumexp; }
    bool packs() const noexcept {
        return arguments.where || !line_is_contiguous(plan, primal) ||
               !line_is_contiguous(plan, result) ||
               (!by_line() && !line_is_contiguous(plan, cotangent));
    }
    const char* input(const InputView& view, std::ptrdiff_t offset) const noexcept {
        return view.data + offset * storage_bytes(storage());
    }
    std::ptrdiff_t across(int operand) const noexcept {
        return plan.outer.count == 0 ? 0 : plan.outer.axis[plan.outer.count - 1].stride[operand];
    }
    double nanoseconds() const noexcept {
        return 0.2 * static_cast<double>(compute_bytes(storage())) *
               static_cast<double>(plan.lines) * static_cast<double>(plan.length);
    }
    double masked_primal() const noexcept {
        return arguments.gradient == SoftmaxVjp::softmax ? 0.0 : -__builtin_huge_val();
    }
};

// A stretch [begin, begin + count) of `lines` neighbouring lines, contiguous: in place, or packed
// into scratch.
class Stretch {
  public:
    Stretch(const VjpCall& call, char* scratch, std::ptrdiff_t line, std::ptrdiff_t lines,
            std::ptrdiff_t begin, std::ptrdiff_t count)
        : call_(call), lines_(lines), begin_(begin), count_(count) {
        call.plan.offsets_of(line, offset_);
        const Storage storage = call.storage();
        packed_ = call.packs();
        task_ = {};
        task_.rows = lines;
        task_.length = count;
        task_.constants = call.arguments.gradient == SoftmaxVjp::log_softmax
                              ? unit_constants(storage)
                              : call.constants.of(storage);
        task_.inverse_temperature = call.constants.of_double.inverse_temperature_wide;
        task_.gradient = call.arguments.gradient;
        task_.log_sum = log_sums_;
        task_.line_cotangent = line_cotangents_;
        if (call.by_line()) load_line_values();
        if (packed_) {
            pack(scratch);
        } else {
            point_at_arrays();
        }
    }
    void run() {
        kernels().rows(task_);
        if (packed_) unpack();
    }
    VjpSum sum() const { return kernels().sum(task_); }
    void write(VjpSum total) {
        kernels().write(task_, total);
        if (packed_) unpack();
    }

    static std::ptrdiff_t scratch_bytes(const VjpCall& call, std::ptrdiff_t lines,
                                        std::ptrdiff_t count) {
        if (!call.packs()) return 0;
        return checked_multiply(2, tile_bytes(call, lines, count));
    }

  private:
    static std::ptrdiff_t tile_bytes(const VjpCall& call, std::ptrdiff_t lines,
                                     std::ptrdiff_t count) {
        return round_up(checked_multiply(lines * compute_bytes(call.storage()), count),
                        scratch_alignment);
    }
    const void* unit_constants(Storage storage) {
        unit_ = any_exp_constants(1.0, call_.table.fused);
        return unit_.of(storage);
    }
    const SoftmaxVjpKernels& kernels() const {
        const Storage storage = packed_ ? compute_storage(call_.storage()) : call_.storage();
        return call_.table.softmax_vjp[static_cast<int>(storage)];
    }
    void load_line_values() {
        const SoftmaxVjpArguments& arguments = call_.arguments;
        for (std::ptrdiff_t i = 0; i < lines_; ++i) {
            log_sums_[i] = load_value(
                call_.input(arguments.log_sum, offset_[log_sum] + i * call_.across(log_sum)),
                call_.storage());
            line_cotangents_[i] = load_value(
                call_.input(arguments.cotangent, offset_[cotangent] + i * call_.across(cotangent)),
                call_.storage());
        }
    }
    void point_at_arrays() {
        const SoftmaxVjpArguments& arguments = call_.arguments;
        task_.primal = call_.input(arguments.primal, offset_[primal] + begin_);
        task_.primal_stride = call_.across(primal);
        if (!call_.by_line()) {
            task_.cotangent = call_.input(arguments.cotangent, offset_[cotangent] + begin_);
            task_.cotangent_stride = call_.across(cotangent);
        }
        task_.out =
            arguments.out.data + (offset_[result] + begin_) * storage_bytes(call_.storage());
        task_.out_stride = call_.across(result);
        task_.streaming = call_.streaming;
    }
    void pack(char* scratch) {
        const SoftmaxVjpArguments& arguments = call_.arguments;
        const std::ptrdiff_t bytes = tile_bytes(call_, lines_, count_);
        pack_operand(arguments.primal, primal, scratch, call_.masked_primal());
        task_.primal = scratch;
        task_.primal_stride = count_;
        if (!call_.by_line()) {
            pack_operand(arguments.cotangent, cotangent, scratch + bytes, 0.0);
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

    void pack_operand(const InputView& view, int operand, char* tile, double fill) {
        const Storage storage = call_.storage();
        const PackKernels& pack = call_.table.pack[static_cast<int>(storage)];
        if (is_rectangle()) {
            const char* from = call_.input(view, offset_[operand] + begin_ * along(operand));
            pack.pack(
                {from, tile, lines_, count_, call_.across(operand), along(operand), count_, false});
        } else {
            pack_stretch(call_.table, storage, call_.plan, operand,
                         call_.input(view, offset_[operand]), begin_, count_, tile);
        }
        if (!call_.arguments.where) return;
        const char* mask = call_.arguments.where.data + offset_[selection];
        if (is_rectangle()) {
            const auto* from =
                reinterpret_cast<const unsigned char*>(mask + begin_ * along(selection));
            pack.mask({from, tile, lines_, count_, call_.across(selection), along(selection),
                       count_, fill});
        } else {
            mask_stretch(call_.table, storage, call_.plan, selection, mask, begin_, count_, tile,
                         fill);
        }
    }
    void unpack() {
        const Storage storage = call_.storage();
        char* out = call_.arguments.out.data + offset_[result] * storage_bytes(storage);
        if (is_rectangle()) {
            call_.table.pack[static_cast<int>(storage)].unpack(
                {out + begin_ * along(result) * storage_bytes(storage), task_.out, lines_, count_,
                 call_.across(result), along(result), count_, call_.streaming});
        } else {
            unpack_stretch(call_.table, storage, call_.plan, result, out, begin_, count_, task_.out,
                           call_.streaming);
        }
    }

    const VjpCall& call_;
    std::ptrdiff_t lines_, begin_, count_;
    bool packed_;
    AnyExpConstants unit_;
    VjpRows task_;
    std::ptrdiff_t offset_[max_operands];
    double log_sums_[most_lines], line_cotangents_[most_lines];
};

unsigned run_short_lines(const VjpCall& call) {
    const LinesPlan& plan = call.plan;
    const std::ptrdiff_t neighbours =
        plan.outer.count == 0 ? 1 : plan.outer.axis[plan.outer.count - 1].length;
    const std::ptrdiff_t line_bytes = plan.length * compute_bytes(call.storage());
    std::ptrdiff_t group =
        std::clamp<std::ptrdiff_t>(call.table.block_bytes / line_bytes, 1, most_lines);
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

unsigned run_long_lines(const VjpCall& call) {
    const std::ptrdiff_t pieces = (call.plan.length + call.piece - 1) / call.piece;
    const int workers =
        workers_for(call.nanoseconds() / static_cast<double>(call.plan.lines), pieces);
    const Scratch scratch(Stretch::scratch_bytes(call, 1, call.piece), workers);
    count_allocation();
    std::vector<VjpSum> sums(static_cast<std::size_t>(pieces));
    unsigned flags = 0;
    for (std::ptrdiff_t line = 0; line < call.plan.lines; ++line) {
        const auto sweep = [&](auto&& body) {
            flags |= parallel_for(
                workers, pieces, [&](Worker& worker, std::ptrdiff_t begin, std::ptrdiff_t end) {
                    for (std::ptrdiff_t i = begin; i < end; ++i) {
                        const std::ptrdiff_t count =
                            std::min(call.piece, call.plan.length - i * call.piece);
                        Stretch stretch(call, scratch.of_worker(worker.index()), line, 1,
                                        i * call.piece, count);
                        body(i, stretch);
                        if (!worker.proceed()) return;
                    }
                });
        };
        sweep([&](std::ptrdiff_t i, const Stretch& stretch) {
            sums[static_cast<std::size_t>(i)] = stretch.sum();
        });
        VjpSum total = {0.0, 0.0};
        for (const VjpSum& part : sums) {
            const double sum = total.sum + part.sum, moved = sum - total.sum;
            total.error += part.error + ((total.sum - (sum - moved)) + (part.sum - moved));
            total.sum = sum;
        }
        sweep([&](std::ptrdiff_t, Stretch& stretch) { stretch.write(total); });
    }
    return flags;
}

}  // namespace

unsigned softmax_vjp(const SoftmaxVjpArguments& arguments) {
    const std::ptrdiff_t* strides[] = {arguments.primal.strides, arguments.cotangent.strides,
                                       arguments.out.strides,
                                       arguments.where ? arguments.where.strides : nullptr,
                                       arguments.log_sum ? arguments.log_sum.strides : nullptr};
    const LinesPlan plan = plan_lines(arguments.primal.axes, arguments.primal.shape,
                                      arguments.along_line, operand_count, strides);
    if (plan.lines == 0 || plan.length == 0) return 0;
    const KernelTable& table = kernels();
    const AnyExpConstants constants = any_exp_constants(arguments.temperature, table.fused);
    const std::ptrdiff_t bytes = compute_bytes(arguments.storage);
    const double out_bytes = static_cast<double>(plan.lines) * static_cast<double>(plan.length) *
                             static_cast<double>(storage_bytes(arguments.storage));
    const bool is_long = plan.length * bytes > table.line_scratch_bytes;
    const VjpCall call = {arguments,
                          plan,
                          table,
                          constants,
                          out_bytes > static_cast<double>(table.streaming_bytes),
                          is_long ? table.piece_bytes / bytes : plan.length};
    const unsigned flags = is_long ? run_long_lines(call) : run_short_lines(call);
    return FloatEnvironment::has_overflow(flags) ? unsigned{status_over} : 0u;
}

}  // namespace unitstride
