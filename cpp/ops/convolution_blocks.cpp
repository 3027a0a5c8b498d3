#include "ops/convolution_blocks.hpp"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <unordered_map>

#include "core/checked.hpp"
#include "core/scratch.hpp"
#include "isa/dispatch.hpp"
#include "ops/lines.hpp"

namespace unitstride {
namespace {

enum Operand { operand_x, operand_out, operand_k, operand_count };

constexpr std::ptrdiff_t rows_at_once = 64, most_lane_bytes = 64;

// Calls body(first, rows, square) for a few rows at a time; `square` has room for them, lane after
// lane.
template <class Body>
void in_squares(std::ptrdiff_t rows, Body&& body) {
    alignas(scratch_alignment) char square[rows_at_once * most_lane_bytes];
    for (std::ptrdiff_t first = 0; first < rows; first += rows_at_once)
        body(first, std::min(rows_at_once, rows - first), square);
}

}  // namespace

SignalMover::SignalMover(const TransformArguments& given)
    : arguments(given),
      call(given.convolution),
      table(unitstride::kernels()),
      pack(table.pack[static_cast<int>(call.storage)]),
      move(table.pack[static_cast<int>(compute_storage(call.storage))]),
      storage(storage_bytes(call.storage)),
      compute(compute_bytes(call.storage)),
      length(call.x.shape[call.axis]),
      taps(call.k.shape[call.axis]),
      outputs(call.out.shape[call.axis]),
      is_real(!given.complex_x && !given.complex_k),
      x_stride_(call.x.strides[call.axis]),
      k_stride_(call.k.strides[call.axis]),
      out_stride_(call.out.strides[call.axis]) {
    lanes = table.vector_bytes / compute;
    std::ptrdiff_t shape[max_axes];
    bool along_line[max_axes];
    for (int axis = 0; axis < call.x.axes; ++axis) {
        along_line[axis] = axis == call.axis;
        shape[axis] = along_line[axis] ? 1 : call.out.shape[axis];
        if (!along_line[axis] && shape[axis] > 1 && call.k.strides[axis] != 0) one_kernel = false;
    }
    const std::ptrdiff_t* const strides[] = {call.x.strides, call.out.strides, call.k.strides};
    lines = plan_lines(call.x.axes, shape, along_line, operand_count, strides);
    number_kernels();
}

void SignalMover::number_kernels() {
    kernel_offset_.assign(1, 0);
    if (one_kernel) return;
    const auto count = static_cast<std::size_t>(lines.lines);
    std::unordered_map<std::ptrdiff_t, std::ptrdiff_t> number_at;
    std::vector<std::ptrdiff_t> number(count);
    kernel_offset_.clear();
    for (std::size_t line = 0; line < count; ++line) {
        std::ptrdiff_t offset[max_operands];
        lines.offsets_of(static_cast<std::ptrdiff_t>(line), offset);
        const auto [found, is_new] = number_at.try_emplace(offset[operand_k], kernels());
        if (is_new) kernel_offset_.push_back(offset[operand_k]);
        number[line] = found->second;
    }
    const auto of = [&](std::ptrdiff_t line) { return number[static_cast<std::size_t>(line)]; };
    order_.resize(count);
    std::iota(order_.begin(), order_.end(), std::ptrdiff_t{0});
    std::stable_sort(order_.begin(), order_.end(),
                     [&](std::ptrdiff_t a, std::ptrdiff_t b) { return of(a) < of(b); });
    for (const std::ptrdiff_t line : order_) kernel_of_.push_back(of(line));
}

void SignalMover::set_plan(const TransformPlan& plan) {
    plan_ = plan;
    const bool whole_lines = plan.form == TransformForm::whole_lines;
    several_ = whole_lines || (one_kernel && plan.form == TransformForm::blocks);
    across_ = is_real && several_ && !whole_lines && plan.blocks == 1;
    signals_ = is_real ? (plan.blocks + 1) / 2 : plan.blocks;
}

std::ptrdiff_t SignalMover::signal_bytes() const noexcept {
    return plan_.points * 2 * table.vector_bytes;
}
std::ptrdiff_t SignalMover::workspace_bytes() const noexcept {
    return signal_bytes() + round_up(plan_.points * compute, scratch_alignment) + scratch_alignment;
}

// Calls body(lane, offsets of the line, block, count) for neighbouring blocks of one line.
template <class Body>
void SignalMover::for_each_run(const Signals& signals, int part, Body&& body) const {
    const bool two_blocks = is_real && plan_.blocks > 1;
    std::ptrdiff_t offset[max_operands];
    for (std::ptrdiff_t lane = 0, count = 0; lane < signals.count; lane += count) {
        std::ptrdiff_t line = signals.line, signal = signals.first + lane;
        count = signals.count - lane;
        if (several_) {
            line = signal / signals_;
            signal %= signals_;
            count = std::min(count, signals_ - signal);
        }
        lines.offsets_of(one_kernel ? line : order_[static_cast<std::size_t>(line)], offset);
        body(lane, offset, two_blocks ? signal + part * signals_ : signal, count);
    }
}

// One window that reaches beyond the ends of the line, down a lane.
void SignalMover::fetch(std::ptrdiff_t begin, const char* line, char* target, char* scratch) const {
    const auto copy = [&](std::ptrdiff_t element, std::ptrdiff_t place, std::ptrdiff_t count) {
        pack.pack({line + element * x_stride_ * storage, scratch + (place - begin) * compute, 1,
                   count, 0, x_stride_, 0, false});
    };
    const auto zero = [&](std::ptrdiff_t place, std::ptrdiff_t count) {
        std::memset(scratch + (place - begin) * compute, 0,
                    static_cast<std::size_t>(count * compute));
    };
    for_extended(begin, begin + plan_.points, length, call.boundary, copy, zero);
    move.pack({scratch, target, plan_.points, 1, 1, 0, 2 * lanes, false});
}

// Elements down the lanes, `lane_stride` from one to the next. Others than contiguous ones are
// brought together in the order in which they lie in memory.
void SignalMover::pack_lanes(const char* from, std::ptrdiff_t lane_stride, std::ptrdiff_t rows,
                             std::ptrdiff_t count, char* target) const {
    const std::ptrdiff_t row = 2 * lanes;
    if (x_stride_ == 1 || count == 1) {
        pack.pack({from, target, rows, count, x_stride_, lane_stride, row, false});
        return;
    }
    in_squares(rows, [&](std::ptrdiff_t first, std::ptrdiff_t some, char* square) {
        pack.pack({from + first * x_stride_ * storage, square, count, some, lane_stride, x_stride_,
                   rows_at_once, false});
        move.pack(
            {square, target + first * row * compute, some, count, 1, rows_at_once, row, false});
    });
}

void SignalMover::unpack_lanes(char* to, std::ptrdiff_t lane_stride, std::ptrdiff_t rows,
                               std::ptrdiff_t count, char* source) const {
    const std::ptrdiff_t row = 2 * lanes;
    if (out_stride_ == 1 || count == 1) {
        pack.unpack({to, source, rows, count, out_stride_, lane_stride, row, false});
        return;
    }
    in_squares(rows, [&](std::ptrdiff_t first, std::ptrdiff_t some, char* square) {
        move.unpack(
            {square, source + first * row * compute, some, count, 1, rows_at_once, row, false});
        pack.unpack({to + first * out_stride_ * storage, square, count, some, lane_stride,
                     out_stride_, rows_at_once, false});
    });
}

void SignalMover::load(const Signals& signals, int part, char* workspace, char* scratch) const {
    const char* const array = call.x.data + (arguments.complex_x ? part * storage : 0);
    char* const tile = part_of(workspace, part);
    for_each_run(signals, part,
                 [&](std::ptrdiff_t lane, const std::ptrdiff_t* offset, std::ptrdiff_t block,
                     std::ptrdiff_t count) {
                     const char* line = array + offset[operand_x] * storage;
                     for (std::ptrdiff_t done = 0, now = 1; done < count; done += now) {
                         const std::ptrdiff_t begin =
                             call.start + (block + done) * plan_.step - plan_.skip;
                         const std::ptrdiff_t room = length - plan_.points - begin;
                         char* const target = tile + (lane + done) * compute;
                         now = 1;
                         if (begin >= 0 && room >= 0) {
                             now = std::min(count - done, room / plan_.step + 1);
                             pack_lanes(line + begin * x_stride_ * storage, plan_.step * x_stride_,
                                        plan_.points, now, target);
                         } else {
                             fetch(begin, line, target, scratch);
                         }
                     }
                 });
}

void SignalMover::store(const Signals& signals, int part, char* workspace) const {
    char* const array = call.out.data + (is_real ? 0 : part * storage);
    char* const tile = part_of(workspace, part) + plan_.skip * 2 * lanes * compute;
    for_each_run(
        signals, part,
        [&](std::ptrdiff_t lane, const std::ptrdiff_t* offset, std::ptrdiff_t block,
            std::ptrdiff_t count) {
            for (std::ptrdiff_t done = 0, now = 1; done < count; done += now) {
                const std::ptrdiff_t begin = (block + done) * plan_.step, room = outputs - begin;
                if (room <= 0) return;
                now = std::clamp<std::ptrdiff_t>(room / plan_.step, 1, count - done);
                char* const target = array + (offset[operand_out] + begin * out_stride_) * storage;
                unpack_lanes(target, plan_.step * out_stride_, std::min(plan_.step, room), now,
                             tile + (lane + done) * compute);
            }
        });
}

void SignalMover::load_taps(std::ptrdiff_t kernel, std::ptrdiff_t first, std::ptrdiff_t count,
                            int part, int array_part, std::ptrdiff_t lane, char* workspace) const {
    const std::ptrdiff_t offset = kernel_offset_[static_cast<std::size_t>(kernel)];
    const char* const from = call.k.data + (offset + first * k_stride_ + array_part) * storage;
    pack.pack({from, part_of(workspace, part) + lane * compute, count, 1, k_stride_, 0, 2 * lanes,
               false});
}

}  // namespace unitstride
