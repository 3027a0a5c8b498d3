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

// Calls body(run) for lanes that one distance in each array takes to the next: neighbouring blocks
// of a line, or the only blocks of lines.
template <class Body>
void SignalMover::for_each_run(const Signals& signals, int part, Body&& body) const {
    const bool two_blocks = is_real && plan_.blocks > 1;
    const auto find = [&](std::ptrdiff_t line, std::ptrdiff_t (&offset)[max_operands]) {
        lines.offsets_of(one_kernel ? line : order_[static_cast<std::size_t>(line)], offset);
    };
    SignalRun run{};
    run.across = several_ && signals_ == 1;
    for (; run.lane < signals.count; run.lane += run.count) {
        std::ptrdiff_t line = signals.line, signal = signals.first + run.lane;
        run.count = signals.count - run.lane;
        if (several_) {
            line = signal / signals_;
            signal %= signals_;
            if (!run.across) run.count = std::min(run.count, signals_ - signal);
        }
        run.block = two_blocks ? signal + part * signals_ : signal;
        find(line, run.offset);
        if (run.across) {
            std::ptrdiff_t next[max_operands];
            const std::ptrdiff_t most = run.count;
            for (run.count = 1; run.count < most; ++run.count) {
                find(line + run.count, next);
                bool goes_on = true;
                for (int operand = 0; operand < operand_count; ++operand) {
                    const std::ptrdiff_t far = next[operand] - run.offset[operand];
                    if (run.count == 1) run.step[operand] = far;
                    goes_on = goes_on && far == run.count * run.step[operand];
                }
                if (!goes_on) break;
            }
        }
        body(run);
    }
}

bool SignalMover::reaches_beyond(const Signals& signals, int part) const noexcept {
    if (signals.count < lanes) return true;
    if (several_ && signals_ == 1) return false;
    const std::ptrdiff_t first = several_ ? 0 : signals.first;
    const std::ptrdiff_t last = several_ ? signals_ - 1 : signals.first + signals.count - 1;
    const std::ptrdiff_t block = is_real && plan_.blocks > 1 ? part * signals_ : 0;
    const auto begin = [&](std::ptrdiff_t signal) {
        return call.start + (block + signal) * plan_.step - plan_.skip;
    };
    return begin(first) + plan_.points <= 0 || begin(last) >= length;
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
void SignalMover::pack_lanes(const char* from, std::ptrdiff_t stride, std::ptrdiff_t lane_stride,
                             std::ptrdiff_t rows, std::ptrdiff_t count, char* target) const {
    const std::ptrdiff_t row = 2 * lanes;
    if (stride == 1 || count == 1) {
        pack.pack({from, target, rows, count, stride, lane_stride, row, false});
        return;
    }
    in_squares(rows, [&](std::ptrdiff_t first, std::ptrdiff_t some, char* square) {
        pack.pack({from + first * stride * storage, square, count, some, lane_stride, stride,
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

// The same window of several lines.
void SignalMover::load_across(const SignalRun& run, const char* line, char* target,
                              char* scratch) const {
    const std::ptrdiff_t begin = call.start + run.block * plan_.step - plan_.skip;
    const std::ptrdiff_t first = std::clamp<std::ptrdiff_t>(begin, 0, length);
    const std::ptrdiff_t last = std::clamp<std::ptrdiff_t>(begin + plan_.points, 0, length);
    const std::ptrdiff_t step = run.step[operand_x];
    if (last - first < plan_.points && call.boundary != Boundary::zero) {
        for (std::ptrdiff_t lane = 0; lane < run.count; ++lane)
            fetch(begin, line + lane * step * storage, target + lane * compute, scratch);
        return;
    }
    const std::ptrdiff_t row = 2 * lanes * compute;
    const auto zero = [&](std::ptrdiff_t from, std::ptrdiff_t to) {
        for (; from < to; ++from)
            std::memset(target + from * row, 0, static_cast<std::size_t>(run.count * compute));
    };
    zero(0, first - begin);
    zero(last - begin, plan_.points);
    if (first < last)
        pack_lanes(line + first * x_stride_ * storage, x_stride_, step, last - first, run.count,
                   target + (first - begin) * row);
}

void SignalMover::load(const Signals& signals, int part, char* workspace, char* scratch) const {
    const char* const array = call.x.data + (arguments.complex_x ? part * storage : 0);
    char* const tile = part_of(workspace, part);
    for_each_run(signals, part, [&](const SignalRun& run) {
        const char* const line = array + run.offset[operand_x] * storage;
        char* target = tile + run.lane * compute;
        if (run.across) return load_across(run, line, target, scratch);
        for (std::ptrdiff_t done = 0, now = 1; done < run.count; done += now) {
            const std::ptrdiff_t begin = call.start + (run.block + done) * plan_.step - plan_.skip;
            const std::ptrdiff_t room = length - plan_.points - begin;
            now = 1;
            if (begin >= 0 && room >= 0) {
                now = std::min(run.count - done, room / plan_.step + 1);
                pack_lanes(line + begin * x_stride_ * storage, x_stride_, plan_.step * x_stride_,
                           plan_.points, now, target);
            } else if (call.boundary != Boundary::zero ||
                       (begin < length && begin + plan_.points > 0)) {
                fetch(begin, line, target, scratch);
            }
            target += now * compute;
        }
    });
}

void SignalMover::load_own_taps(const Signals& signals, char* workspace) const {
    for_each_run(signals, 1, [&](const SignalRun& run) {
        pack_lanes(call.k.data + run.offset[operand_k] * storage, k_stride_, run.step[operand_k],
                   taps, run.count, part_of(workspace, 1) + run.lane * compute);
    });
}

void SignalMover::store(const Signals& signals, int part, char* workspace) const {
    char* const array = call.out.data + (is_real ? 0 : part * storage);
    char* const tile = part_of(workspace, part) + plan_.skip * 2 * lanes * compute;
    for_each_run(signals, part, [&](const SignalRun& run) {
        char* const line = array + run.offset[operand_out] * storage;
        char* source = tile + run.lane * compute;
        const std::ptrdiff_t step = run.across ? run.step[operand_out] : plan_.step * out_stride_;
        for (std::ptrdiff_t done = 0, now = 1; done < run.count; done += now) {
            const std::ptrdiff_t begin = (run.block + (run.across ? 0 : done)) * plan_.step;
            const std::ptrdiff_t room = outputs - begin;
            if (room <= 0) return;
            now = run.across ? run.count
                             : std::clamp<std::ptrdiff_t>(room / plan_.step, 1, run.count - done);
            unpack_lanes(line + begin * out_stride_ * storage, step, std::min(plan_.step, room),
                         now, source);
            source += now * compute;
        }
    });
}

void SignalMover::load_taps(const TapLanes& from, int part, char* workspace) const {
    const std::ptrdiff_t offset =
        kernel_offset_[static_cast<std::size_t>(from.kernel)] + from.first * k_stride_ + part;
    pack_lanes(call.k.data + offset * storage, k_stride_, from.count * k_stride_, from.count,
               from.pieces, part_of(workspace, part) + from.lane * compute);
}

}  // namespace unitstride
