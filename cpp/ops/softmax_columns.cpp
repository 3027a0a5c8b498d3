// Softmax of many lines at once, side by side in packed tiles.
//
// A tile holds all rows of as many lines as the cache takes. Its rows are read, worked on and,
// while the next tile comes in, written out block by block, so that memory and arithmetic overlap.
#include <algorithm>
#include <cstring>

#include "core/checked.hpp"
#include "ops/softmax_forms.hpp"

namespace unitstride {
namespace {

// How the innermost outer axis is cut into tiles.
struct Tiling {
    std::ptrdiff_t width;  // lines of a tile, padded to whole vectors
    std::ptrdiff_t
        skew;  // by how much the first tile is shorter, so that the others begin on a cache line
    std::ptrdiff_t neighbours;  // length of the axis
    std::ptrdiff_t per_axis;    // tiles that cover it
    std::ptrdiff_t tiles;

    explicit Tiling(const SoftmaxCall& call) {
        const std::ptrdiff_t lanes = call.kernels.lanes;
        const std::ptrdiff_t bytes = compute_bytes(call.storage());
        const LinesPlan& plan = call.plan;
        const Axis& across = plan.outer.axis[plan.outer.count - 1];
        neighbours = across.length;
        const std::ptrdiff_t tile_bytes =
            across.stride[operand_x] == 1 ? call.table.wide_tile_bytes : call.table.tile_bytes;
        const std::ptrdiff_t fitting = tile_bytes / (plan.length * bytes);
        width = std::clamp(fitting / lanes * lanes, lanes, call.table.tile_width);
        width = std::min(width, round_up(neighbours, lanes));
        skew = alignment_skew(call) % width;
        per_axis = (neighbours + skew + width - 1) / width;
        tiles = checked_multiply(per_axis, plan.lines / neighbours);
    }

  private:
    std::ptrdiff_t alignment_skew(const SoftmaxCall& call) const {
        const Axis& axis = call.plan.outer.axis[call.plan.outer.count - 1];
        const bool out_by_rows = call.arguments.out && axis.stride[operand_out] == 1;
        if (!out_by_rows && axis.stride[operand_x] != 1) return 0;
        const char* first = out_by_rows ? call.arguments.out.data : call.arguments.x.data;
        const auto address = reinterpret_cast<std::uintptr_t>(first);
        const auto misplaced = address % scratch_alignment;
        const auto bytes = static_cast<std::uintptr_t>(storage_bytes(call.storage()));
        return misplaced % bytes == 0 ? static_cast<std::ptrdiff_t>(misplaced / bytes) : 0;
    }
};

// One tile on its way through.
class Tile {
  public:
    Tile(const SoftmaxCall& call, const Tiling& tiling, char* state)
        : call_(call), tiling_(tiling) {
        task_.length = call.plan.length;
        task_.width = tiling.width;
        task_.constants = call.exp();
        task_.state = state;
        task_.sums =
            reinterpret_cast<LineSum*>(static_cast<char*>(task_.state) + state_bytes(call, tiling));
        task_.keep_sums = call.wants_sums() || call.arguments.output != SoftmaxOutput::softmax;
        task_.output = call.arguments.output;
    }

    // What a tile keeps beside its buffer.
    static std::ptrdiff_t bytes(const SoftmaxCall& call, const Tiling& tiling) {
        return state_bytes(call, tiling) +
               round_up(tiling.width * static_cast<std::ptrdiff_t>(sizeof(LineSum)),
                        scratch_alignment);
    }
    static std::ptrdiff_t buffer_bytes(const SoftmaxCall& call, const Tiling& tiling) {
        return round_up(call.plan.length * tiling.width * compute_bytes(call.storage()),
                        scratch_alignment);
    }

    void begin(std::ptrdiff_t number, char* buffer) {
        task_.tile = buffer;
        const std::ptrdiff_t group = number / tiling_.per_axis, place = number % tiling_.per_axis;
        const std::ptrdiff_t from =
            std::max<std::ptrdiff_t>(place * tiling_.width - tiling_.skew, 0);
        const std::ptrdiff_t to =
            std::min((place + 1) * tiling_.width - tiling_.skew, tiling_.neighbours);
        lines_ = to - from;
        call_.plan.offsets_of(group * tiling_.neighbours + from, offset_);
        undefined_ = false;
        call_.kernels.columns_begin(task_);
    }

    void fill(std::ptrdiff_t row, std::ptrdiff_t end) {
        const Storage storage = call_.storage();
        const std::ptrdiff_t x_offset = offset_[operand_x] + row * along(operand_x);
        call_.table.pack[static_cast<int>(storage)].pack({call_.x_at(x_offset), row_at(row),
                                                          end - row, lines_, along(operand_x),
                                                          across(operand_x), tiling_.width, false});
        if (call_.masked()) mask_rows(row, end, call_.fill());
        if (lines_ < tiling_.width) clear_padding(row, end);
        call_.kernels.columns_max(task_, row, end);
    }
    void filled() { call_.kernels.columns_origin(task_); }

    // Whether rows can be read, or written, by whole vectors where they lie.
    bool enters_straight() const {
        return !call_.masked() && across(operand_x) == 1 && lines_ == tiling_.width;
    }
    bool leaves_straight() const {
        return !call_.masked() && !undefined_ && across(operand_out) == 1 &&
               lines_ == tiling_.width;
    }
    void guess_origin() {
        const std::ptrdiff_t rows = std::min(call_.kernels.lanes, call_.plan.length);
        call_.kernels.columns_first_max(task_, call_.x_at(offset_[operand_x]), along(operand_x),
                                        rows);
        call_.kernels.columns_early_origin(task_);
    }
    void take_turn(const Tile* leaving, std::ptrdiff_t row, std::ptrdiff_t end) {
        SoftmaxTurn turn = {
            &task_, nullptr, call_.x_at(offset_[operand_x]), nullptr, along(operand_x), 0, false};
        if (leaving != nullptr) {
            turn.leaving = &leaving->task_;
            turn.out = leaving->call_.out_at(leaving->offset_[operand_out]);
            turn.out_stride = along(operand_out);
            const std::ptrdiff_t row_bytes = turn.out_stride * storage_bytes(call_.storage());
            turn.streaming = call_.streaming && row_bytes % scratch_alignment == 0 &&
                             reinterpret_cast<std::uintptr_t>(turn.out) % scratch_alignment == 0;
        }
        call_.kernels.columns_turn(turn, row, end);
    }
    void restart() { call_.kernels.columns_begin(task_); }
    bool guess_holds() const { return call_.kernels.columns_origin_holds(task_); }

    void exponentiate(std::ptrdiff_t row, std::ptrdiff_t end) {
        call_.kernels.columns_exp(task_, row, end);
    }
    unsigned exponentiated() {
        call_.kernels.columns_sum(task_);
        unsigned status = 0;
        for (std::ptrdiff_t line = 0; line < lines_; ++line)
            if (task_.sums[line].has_nan) status |= settle_undefined_line(line);
        if (call_.wants_sums()) status |= call_.write_log_sums(task_.sums, lines_, offset_);
        return status;
    }

    // The block of rows [row, end), moved so that it begins and ends on cache lines of the output
    // where lines are contiguous there.
    void write(std::ptrdiff_t row, std::ptrdiff_t end) {
        if (!call_.arguments.out) return;
        const std::ptrdiff_t lead = std::min(rows_before_cache_line(), task_.length);
        if (row == 0) write_rows(0, lead);
        write_rows(row + lead, std::min(end + lead, task_.length));
    }

  private:
    void write_rows(std::ptrdiff_t row, std::ptrdiff_t end) {
        if (row >= end) return;
        call_.kernels.columns_finish(task_, row, end);
        if (undefined_ && call_.masked()) mask_rows(row, end, call_.masked_output());
        const Storage storage = call_.storage();
        const std::ptrdiff_t out_offset = offset_[operand_out] + row * along(operand_out);
        call_.table.pack[static_cast<int>(storage)].unpack(
            {call_.out_at(out_offset), row_at(row), end - row, lines_, along(operand_out),
             across(operand_out), tiling_.width, call_.streaming});
    }
    // Elements of a line of the output before its first cache line, if all lines have as many.
    std::ptrdiff_t rows_before_cache_line() const {
        const std::ptrdiff_t bytes = storage_bytes(call_.storage());
        const auto misplaced = static_cast<std::ptrdiff_t>(
            reinterpret_cast<std::uintptr_t>(call_.out_at(offset_[operand_out])) %
            scratch_alignment);
        const bool even = along(operand_out) == 1 &&
                          across(operand_out) * bytes % scratch_alignment == 0 &&
                          misplaced % bytes == 0;
        return even && misplaced > 0 ? (scratch_alignment - misplaced) / bytes : 0;
    }
    static std::ptrdiff_t state_bytes(const SoftmaxCall& call, const Tiling& tiling) {
        return round_up(call.kernels.columns_state_bytes(tiling.width), scratch_alignment);
    }

    std::ptrdiff_t along(int operand) const {
        return call_.plan.line.count == 0 ? 0 : call_.plan.line.axis[0].stride[operand];
    }
    std::ptrdiff_t across(int operand) const {
        return call_.plan.outer.axis[call_.plan.outer.count - 1].stride[operand];
    }
    char* row_at(std::ptrdiff_t row) const {
        return static_cast<char*>(task_.tile) +
               row * tiling_.width * compute_bytes(call_.storage());
    }
    void mask_rows(std::ptrdiff_t row, std::ptrdiff_t end, double value) {
        const auto* mask = reinterpret_cast<const unsigned char*>(
            call_.where_at(offset_[operand_where] + row * along(operand_where)));
        call_.table.pack[static_cast<int>(call_.storage())].mask(
            {mask, row_at(row), end - row, lines_, along(operand_where), across(operand_where),
             tiling_.width, value});
    }
    void clear_padding(std::ptrdiff_t row, std::ptrdiff_t end) {
        const std::ptrdiff_t bytes = compute_bytes(call_.storage());
        for (; row < end; ++row)
            std::memset(row_at(row) + lines_ * bytes, 0,
                        static_cast<std::size_t>((tiling_.width - lines_) * bytes));
    }
    // A line whose sum is NaN: is there a NaN in it, or was it made of infinities, or is nothing
    // selected?
    unsigned settle_undefined_line(std::ptrdiff_t line) {
        undefined_ = true;
        const char* mask =
            call_.masked() ? call_.where_at(offset_[operand_where] + line * across(operand_where))
                           : nullptr;
        const char* x = call_.x_at(offset_[operand_x] + line * across(operand_x));
        LineSum& sum = task_.sums[line];
        sum.has_nan =
            line_holds_nan(call_.plan, call_.storage(), operand_x, x, operand_where, mask);
        const bool selected =
            mask == nullptr || any_selected(call_.plan, operand_where, mask, call_.plan.length);
        const bool invalid =
            selected && !sum.has_nan && call_.arguments.output != SoftmaxOutput::none;
        return invalid ? unsigned{status_invalid} : 0u;
    }

    const SoftmaxCall& call_;
    const Tiling& tiling_;
    SoftmaxColumns task_;
    std::ptrdiff_t lines_ = 0;
    std::ptrdiff_t offset_[max_operands];
    bool undefined_ = false;
};

// Two tiles take turns in one buffer: each block of rows that one of them has written out gives its
// place to a block of the next.
class TileTurns {
  public:
    TileTurns(const SoftmaxCall& call, const Tiling& tiling, char* memory)
        : call_(call),
          buffer_(memory),
          tile_{{call, tiling, memory + Tile::buffer_bytes(call, tiling)},
                {call, tiling,
                 memory + Tile::buffer_bytes(call, tiling) + Tile::bytes(call, tiling)}} {}

    unsigned run(std::ptrdiff_t first, std::ptrdiff_t last, Worker& worker) {
        unsigned status = 0;
        Tile* leaving = nullptr;
        for (std::ptrdiff_t number = first; number < last; ++number) {
            Tile& tile = tile_[number % 2];
            tile.begin(number, buffer_);
            if (!turn(tile, leaving)) {
                for_each_block([&](std::ptrdiff_t row, std::ptrdiff_t end) {
                    if (leaving != nullptr) leaving->write(row, end);
                    tile.fill(row, end);
                });
                tile.filled();
                for_each_block(
                    [&](std::ptrdiff_t row, std::ptrdiff_t end) { tile.exponentiate(row, end); });
            }
            status |= tile.exponentiated();
            leaving = &tile;
            if (!worker.proceed()) return status;
        }
        if (leaving != nullptr)
            for_each_block(
                [&](std::ptrdiff_t row, std::ptrdiff_t end) { leaving->write(row, end); });
        return status;
    }

  private:
    template <class Body>
    void for_each_block(Body&& body) {
        const std::ptrdiff_t block = call_.kernels.group;
        for (std::ptrdiff_t row = 0; row < call_.plan.length; row += block)
            body(row, std::min(row + block, call_.plan.length));
    }
    // Fills `tile` while `leaving` is written out, in one pass (Note [Early origin]). False if the
    // tile does not lie in the array as it is here, or if the guess was bad: then `leaving` is null
    // and `tile` has to be filled again.
    bool turn(Tile& tile, Tile*& leaving) {
        const bool sums_plainly =
            call_.arguments.output == SoftmaxOutput::softmax && !call_.wants_sums();
        if (!sums_plainly || !tile.enters_straight()) return false;
        const bool at_once = leaving == nullptr || leaving->leaves_straight();
        tile.guess_origin();
        for_each_block([&](std::ptrdiff_t row, std::ptrdiff_t end) {
            if (!at_once) leaving->write(row, end);
            tile.take_turn(at_once ? leaving : nullptr, row, end);
        });
        leaving = nullptr;
        if (tile.guess_holds()) return true;
        tile.restart();
        return false;
    }

    const SoftmaxCall& call_;
    char* buffer_;
    Tile tile_[2];
};

}  // namespace

unsigned softmax_columns(const SoftmaxCall& call) {
    const Tiling tiling(call);
    const int workers = workers_for(2 * call.nanoseconds(), tiling.tiles);
    const Scratch scratch(
        checked_add(Tile::buffer_bytes(call, tiling), 2 * Tile::bytes(call, tiling)), workers);
    SharedStatus status;
    const unsigned flags = parallel_for(
        workers, tiling.tiles, [&](Worker& worker, std::ptrdiff_t begin, std::ptrdiff_t end) {
            status.raise(
                TileTurns(call, tiling, scratch.of_worker(worker.index())).run(begin, end, worker));
        });
    status.raise_overflow(call, flags);
    return status.bits();
}

}  // namespace unitstride
