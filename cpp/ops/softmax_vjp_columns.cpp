// Gradients of many lines at once, side by side in tiles.
//
// The sums of a tile have to be known before its first result, so it is kept whole, lines as many
// as the cache takes. While its results leave, the rows of the next tile come in. Where lines are
// too long for that, and for logsumexp, which needs no sums, rows are read from the arrays for
// results.
#include <algorithm>
#include <cstdint>
#include <cstring>

#include "core/checked.hpp"
#include "core/parallel.hpp"
#include "core/scratch.hpp"
#include "ops/softmax_vjp_forms.hpp"

namespace unitstride {
namespace {

constexpr std::ptrdiff_t least_tiles = 32;

// How the innermost outer axis is cut into tiles: a head up to the first cache line of the output,
// tiles of whole vectors, and a tail.
struct VjpTiling {
    bool straight;         // tiles of whole vectors are read and written where they lie
    bool kept;             // tiles have memory of their own
    std::ptrdiff_t width;  // most lines of a tile
    std::ptrdiff_t head, body, neighbours;  // lines: of the head, of whole vectors, of the axis
    std::ptrdiff_t per_axis;                // tiles
    std::ptrdiff_t tiles;

    explicit VjpTiling(const VjpCall& call)
        : straight(vjp_columns_lie_straight(call)), kept(!call.is_long()) {
        const LinesPlan& plan = call.plan;
        neighbours = plan.outer.axis[plan.outer.count - 1].length;
        const std::ptrdiff_t lanes = call.kernels.lanes;
        // Whole cache lines of the arrays.
        const std::ptrdiff_t step =
            std::max(lanes, scratch_alignment / storage_bytes(call.storage()));
        const std::ptrdiff_t bytes =
            straight ? storage_bytes(call.storage()) : compute_bytes(call.storage());
        // Both operands of a tile take three tiles' memory. Tiles that are not kept may be as wide
        // as they like, but there are threads to share them.
        const std::ptrdiff_t wanted = call.is_long() || (straight && call.by_line())
                                          ? round_up(neighbours / least_tiles, step)
                                          : 3 * call.table.tile_bytes / 2 / (plan.length * bytes);
        width = std::clamp(wanted / step * step, step, call.table.tile_width);
        width = std::min(width, round_up(neighbours, lanes));
        head = kept && straight ? std::min(lines_to_alignment(call), neighbours) : 0;
        body = straight ? (neighbours - head) / lanes * lanes : neighbours - head;
        per_axis = (head > 0) + (body + width - 1) / width + (head + body < neighbours);
        tiles = checked_multiply(per_axis, plan.lines / neighbours);
    }
    // The lines of a tile.
    void bounds(std::ptrdiff_t place, std::ptrdiff_t& from, std::ptrdiff_t& to) const {
        from = head > 0 ? (place == 0 ? 0 : head + (place - 1) * width) : place * width;
        from = std::min(from, head + body);
        to = head > 0 && place == 0 ? head
             : from == head + body  ? neighbours
                                    : std::min(from + width, head + body);
    }
    // The memory in which a tile keeps one operand.
    std::ptrdiff_t operand_bytes(const VjpCall& call) const {
        if (!kept) return 0;
        return round_up(checked_multiply(call.plan.length * width, compute_bytes(call.storage())),
                        scratch_alignment);
    }

  private:
    static std::ptrdiff_t lines_to_alignment(const VjpCall& call) {
        const auto misplaced =
            reinterpret_cast<std::uintptr_t>(call.arguments.out.data) % scratch_alignment;
        const auto bytes = static_cast<std::uintptr_t>(storage_bytes(call.storage()));
        if (misplaced == 0 || misplaced % bytes != 0) return 0;
        return (scratch_alignment - static_cast<std::ptrdiff_t>(misplaced)) /
               storage_bytes(call.storage());
    }
};

// One tile on its way through.
class VjpTile {
  public:
    VjpTile(const VjpCall& call, const VjpTiling& tiling, char* memory)
        : call_(call), tiling_(tiling) {
        task_.common = call.common;
        task_.length = call.plan.length;
        task_.state = memory;
        log_sums_ = memory + state_bytes(call, tiling);
        line_cotangents_ = log_sums_ + values_bytes(call, tiling);
        task_.log_sum = log_sums_;
        task_.line_cotangent = line_cotangents_;
    }

    // What a tile has beside its operands.
    static std::ptrdiff_t bytes(const VjpCall& call, const VjpTiling& tiling) {
        return state_bytes(call, tiling) + 2 * values_bytes(call, tiling);
    }

    // `primal` and `cotangent`: the memory in which it is kept.
    void begin(std::ptrdiff_t number, char* primal, char* cotangent) {
        primal_ = primal;
        cotangent_ = cotangent;
        const std::ptrdiff_t group = number / tiling_.per_axis, place = number % tiling_.per_axis;
        std::ptrdiff_t from, to;
        tiling_.bounds(place, from, to);
        lines_ = to - from;
        task_.width = round_up(lines_, call_.kernels.lanes);
        call_.plan.offsets_of(group * tiling_.neighbours + from, offset_);
        call_.kernels.columns_begin(task_);
        if (!call_.by_line()) return;
        const auto bytes = static_cast<std::size_t>(values_bytes(call_, tiling_));
        std::memset(log_sums_, 0, 2 * bytes);
        call_.load_line_values(offset_, lines_, log_sums_, line_cotangents_);
    }
    // Whether its rows are used where they lie.
    bool is_straight() const { return tiling_.straight && lines_ == task_.width; }
    // Whether rows of this tile may take the places of the other one's.
    bool takes_places_of(const VjpTile& other) const {
        return is_straight() == other.is_straight() && task_.width == other.task_.width;
    }

    // Rows of this tile come in and those of `leaving`, which may be null, go out. Both lie
    // straight.
    void turn(const VjpTile* leaving, std::ptrdiff_t row, std::ptrdiff_t end) {
        VjpTurn turn = {};
        turn.entering = &task_;
        turn.from = in_arrays();
        if (tiling_.kept) {
            turn.primal_tile = primal_;
            turn.cotangent_tile = cotangent_;
        }
        if (leaving != nullptr) leaving->add_to(turn, leaving->in_tile());
        call_.kernels.columns_turn(turn, row, end);
    }
    void leave_straight(std::ptrdiff_t row, std::ptrdiff_t end) const {
        VjpTurn turn = {};
        add_to(turn, tiling_.kept && !call_.by_line() ? in_tile() : in_arrays());
        call_.kernels.columns_turn(turn, row, end);
    }
    void pack(std::ptrdiff_t row, std::ptrdiff_t end) {
        pack_operand(call_.arguments.primal, operand_primal, row, end, primal_,
                     call_.masked_primal());
        if (call_.by_line()) return;
        pack_operand(call_.arguments.cotangent, operand_cotangent, row, end, cotangent_, 0.0);
        VjpTurn turn = {};
        turn.entering = &task_;
        turn.from = in_tile();
        call_.compute_kernels.columns_turn(turn, row, end);
    }
    void leave_packed(std::ptrdiff_t row, std::ptrdiff_t end) const {
        VjpTurn turn = {};
        turn.leaving = &task_;
        turn.source = in_tile();
        turn.out = primal_;
        turn.out_stride = task_.width;
        call_.compute_kernels.columns_turn(turn, row, end);
        mask_rows(row, end, primal_, 0.0);
        const std::ptrdiff_t to = offset_[operand_result] + row * along(operand_result);
        call_.packing().unpack({call_.out_at(to), tile_row(primal_, row), end - row, lines_,
                                along(operand_result), call_.across(operand_result), task_.width,
                                call_.streaming});
    }
    void leave(std::ptrdiff_t row, std::ptrdiff_t end) const {
        if (is_straight()) {
            leave_straight(row, end);
        } else {
            leave_packed(row, end);
        }
    }
    void end_of_piece(std::ptrdiff_t length) { call_.kernels.columns_piece(task_, length); }
    void summed() { call_.kernels.columns_summed(task_); }

  private:
    static std::ptrdiff_t state_bytes(const VjpCall& call, const VjpTiling& tiling) {
        return round_up(call.kernels.columns_state_bytes(tiling.width), scratch_alignment);
    }
    static std::ptrdiff_t values_bytes(const VjpCall& call, const VjpTiling& tiling) {
        return round_up(tiling.width * compute_bytes(call.storage()), scratch_alignment);
    }
    std::ptrdiff_t along(int operand) const {
        return call_.plan.line.count == 0 ? 0 : call_.plan.line.axis[0].stride[operand];
    }
    VjpOperands in_tile() const { return {primal_, cotangent_, task_.width, task_.width}; }
    VjpOperands in_arrays() const {
        return {call_.input(call_.arguments.primal, offset_[operand_primal]),
                call_.input(call_.arguments.cotangent, offset_[operand_cotangent]),
                along(operand_primal), along(operand_cotangent)};
    }
    void add_to(VjpTurn& turn, const VjpOperands& source) const {
        turn.leaving = &task_;
        turn.source = source;
        turn.out = call_.out_at(offset_[operand_result]);
        turn.out_stride = along(operand_result);
        const std::ptrdiff_t row_bytes = turn.out_stride * storage_bytes(call_.storage());
        turn.streaming = call_.streaming && row_bytes % scratch_alignment == 0 &&
                         reinterpret_cast<std::uintptr_t>(turn.out) % scratch_alignment == 0;
    }
    char* tile_row(char* tile, std::ptrdiff_t row) const {
        return tile + row * task_.width * compute_bytes(call_.storage());
    }
    void pack_operand(const InputView& view, int operand, std::ptrdiff_t row, std::ptrdiff_t end,
                      char* tile, double masked_out) {
        call_.packing().pack({call_.input(view, offset_[operand] + row * along(operand)),
                              tile_row(tile, row), end - row, lines_, along(operand),
                              call_.across(operand), task_.width, false});
        mask_rows(row, end, tile, masked_out);
        if (lines_ == task_.width) return;
        const std::ptrdiff_t bytes = compute_bytes(call_.storage());
        for (; row < end; ++row)
            std::memset(tile_row(tile, row) + lines_ * bytes, 0,
                        static_cast<std::size_t>((task_.width - lines_) * bytes));
    }
    void mask_rows(std::ptrdiff_t row, std::ptrdiff_t end, char* tile, double value) const {
        if (!call_.masked()) return;
        const auto* mask = reinterpret_cast<const unsigned char*>(call_.arguments.where.data +
                                                                  offset_[operand_selection] +
                                                                  row * along(operand_selection));
        call_.packing().mask({mask, tile_row(tile, row), end - row, lines_,
                              along(operand_selection), call_.across(operand_selection),
                              task_.width, value});
    }

    const VjpCall& call_;
    const VjpTiling& tiling_;
    VjpColumns task_;
    char *log_sums_, *line_cotangents_;
    char *primal_ = nullptr, *cotangent_ = nullptr;
    std::ptrdiff_t lines_ = 0;
    std::ptrdiff_t offset_[max_operands];
};

// Tiles one after the other; two of them take turns in one memory.
class VjpTileTurns {
  public:
    VjpTileTurns(const VjpCall& call, const VjpTiling& tiling, char* memory)
        : call_(call),
          primal_(memory),
          cotangent_(memory + tiling.operand_bytes(call)),
          keeps_(tiling.kept),
          tile_{{call, tiling, memory + 2 * tiling.operand_bytes(call)},
                {call, tiling,
                 memory + 2 * tiling.operand_bytes(call) + VjpTile::bytes(call, tiling)}} {}

    static std::ptrdiff_t bytes(const VjpCall& call, const VjpTiling& tiling) {
        return checked_add(checked_multiply(2, tiling.operand_bytes(call)),
                           2 * VjpTile::bytes(call, tiling));
    }

    void run(std::ptrdiff_t first, std::ptrdiff_t last, Worker& worker) {
        for (std::ptrdiff_t number = first; number < last && !stopped_; ++number) {
            VjpTile& tile = tile_[number % 2];
            tile.begin(number, primal_, cotangent_);
            if (call_.by_line()) {
                tile.summed();
                for_each_block(worker, [&](std::ptrdiff_t row, std::ptrdiff_t end) {
                    if (!tile.is_straight()) tile.pack(row, end);
                    tile.leave(row, end);
                });
                continue;
            }
            if (leaving_ != nullptr && !tile.takes_places_of(*leaving_)) leave(worker);
            enter(tile, worker);
            leaving_ = &tile;
            if (!keeps_) leave(worker);
        }
        if (leaving_ != nullptr && !stopped_) leave(worker);
    }

  private:
    template <class Body>
    void for_each_block(Worker& worker, Body&& body) {
        constexpr std::ptrdiff_t asks_every = 16;  // blocks
        const std::ptrdiff_t block = call_.kernels.group, length = call_.plan.length;
        for (std::ptrdiff_t row = 0; row < length && !stopped_; row += block) {
            body(row, std::min(row + block, length));
            if (row / block % asks_every == asks_every - 1) stopped_ = !worker.proceed();
        }
        stopped_ = stopped_ || !worker.proceed();
    }
    void enter(VjpTile& tile, Worker& worker) {
        const std::ptrdiff_t piece = call_.piece();
        for_each_block(worker, [&](std::ptrdiff_t row, std::ptrdiff_t end) {
            if (tile.is_straight()) {
                tile.turn(leaving_, row, end);
            } else {
                if (leaving_ != nullptr) leaving_->leave(row, end);
                tile.pack(row, end);
            }
            if (end % piece == 0 || end == call_.plan.length)
                tile.end_of_piece(end - (end - 1) / piece * piece);
        });
        tile.summed();
    }
    void leave(Worker& worker) {
        for_each_block(worker,
                       [&](std::ptrdiff_t row, std::ptrdiff_t end) { leaving_->leave(row, end); });
        leaving_ = nullptr;
    }

    const VjpCall& call_;
    char *primal_, *cotangent_;
    bool keeps_, stopped_ = false;
    VjpTile tile_[2];
    VjpTile* leaving_ = nullptr;
};

}  // namespace

bool vjp_columns_lie_straight(const VjpCall& call) noexcept {
    const LinesPlan& plan = call.plan;
    const std::ptrdiff_t neighbours = plan.outer.axis[plan.outer.count - 1].length;
    return !call.masked() && call.across(operand_primal) == 1 && call.across(operand_result) == 1 &&
           (call.by_line() || call.across(operand_cotangent) == 1) &&
           (!call.is_long() || neighbours % call.kernels.lanes == 0);
}

unsigned softmax_vjp_columns(const VjpCall& call) {
    const VjpTiling tiling(call);
    const int workers = workers_for(2 * call.nanoseconds(), tiling.tiles);
    const Scratch scratch(VjpTileTurns::bytes(call, tiling), workers);
    return parallel_for(
        workers, tiling.tiles, [&](Worker& worker, std::ptrdiff_t begin, std::ptrdiff_t end) {
            VjpTileTurns(call, tiling, scratch.of_worker(worker.index())).run(begin, end, worker);
        });
}

}  // namespace unitstride
