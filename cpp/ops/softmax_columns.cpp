// Softmax of many lines at once, side by side in packed tiles.
//
// Three tiles are under way at a time: while one is filled, the one before is exponentiated and the one before that is
// written out, block of rows by block of rows. Memory reads, arithmetic and memory writes thus overlap without any
// tile being larger than the cache.
#include <algorithm>
#include <cstring>

#include "core/checked.hpp"
#include "ops/softmax_forms.hpp"

namespace unitstride {
namespace {

constexpr std::ptrdiff_t tiles_under_way = 3;

// How the innermost outer axis is cut into tiles.
struct Tiling {
    std::ptrdiff_t width;       // lines of a tile, padded to whole vectors
    std::ptrdiff_t skew;        // by how much the first tile is shorter, so that the others begin on a cache line
    std::ptrdiff_t neighbours;  // length of the axis
    std::ptrdiff_t per_axis;    // tiles that cover it
    std::ptrdiff_t tiles;

    explicit Tiling(const SoftmaxCall& call) {
        const std::ptrdiff_t lanes = call.kernels.lanes;
        const std::ptrdiff_t bytes = compute_bytes(call.storage());
        const LinesPlan& plan = call.plan;
        neighbours = plan.outer.axis[plan.outer.count - 1].length;
        const std::ptrdiff_t fitting = call.table.tile_bytes / (plan.length * bytes);
        width = std::clamp(fitting / lanes * lanes, lanes, call.table.tile_width);
        width = std::min(width, round_up(neighbours, lanes));
        skew = alignment_skew(call);
        per_axis = (neighbours + skew + width - 1) / width;
        tiles = checked_multiply(per_axis, plan.lines / neighbours);
    }

  private:
    std::ptrdiff_t alignment_skew(const SoftmaxCall& call) const {
        const Axis& axis = call.plan.outer.axis[call.plan.outer.count - 1];
        if (!call.arguments.out || axis.stride[operand_out] != 1) return 0;
        const auto address = reinterpret_cast<std::uintptr_t>(call.arguments.out.data);
        const auto misplaced = address % scratch_alignment;
        const auto bytes = static_cast<std::uintptr_t>(storage_bytes(call.storage()));
        return misplaced % bytes == 0 ? static_cast<std::ptrdiff_t>(misplaced / bytes) : 0;
    }
};

// One tile on its way through.
class Tile {
  public:
    Tile(const SoftmaxCall& call, const Tiling& tiling, char* memory) : call_(call), tiling_(tiling) {
        task_.tile = memory;
        task_.length = call.plan.length;
        task_.width = tiling.width;
        task_.constants = call.exp();
        task_.state = memory + tile_bytes(call, tiling);
        task_.sums = reinterpret_cast<LineSum*>(static_cast<char*>(task_.state) + state_bytes(call, tiling));
        task_.keep_sums = call.wants_sums() || call.arguments.output != SoftmaxOutput::softmax;
        task_.output = call.arguments.output;
    }

    static std::ptrdiff_t bytes(const SoftmaxCall& call, const Tiling& tiling) {
        return tile_bytes(call, tiling) + state_bytes(call, tiling) +
               round_up(tiling.width * static_cast<std::ptrdiff_t>(sizeof(LineSum)), scratch_alignment);
    }

    void begin(std::ptrdiff_t number) {
        const std::ptrdiff_t group = number / tiling_.per_axis, place = number % tiling_.per_axis;
        const std::ptrdiff_t from = std::max<std::ptrdiff_t>(place * tiling_.width - tiling_.skew, 0);
        const std::ptrdiff_t to = std::min((place + 1) * tiling_.width - tiling_.skew, tiling_.neighbours);
        lines_ = to - from;
        call_.plan.offsets_of(group * tiling_.neighbours + from, offset_);
        undefined_ = false;
        call_.compute_kernels.columns_begin(task_);
    }

    void fill(std::ptrdiff_t row, std::ptrdiff_t end) {
        const Storage storage = call_.storage();
        const std::ptrdiff_t x_offset = offset_[operand_x] + row * along(operand_x);
        call_.table.pack[static_cast<int>(storage)].pack({call_.x_at(x_offset), row_at(row), end - row, lines_,
                                                          along(operand_x), across(operand_x), tiling_.width, false});
        if (call_.masked()) mask_rows(row, end, call_.fill());
        if (lines_ < tiling_.width) clear_padding(row, end);
        call_.compute_kernels.columns_max(task_, row, end);
    }
    void filled() { call_.compute_kernels.columns_origin(task_); }

    void exponentiate(std::ptrdiff_t row, std::ptrdiff_t end) { call_.compute_kernels.columns_exp(task_, row, end); }
    unsigned exponentiated() {
        call_.compute_kernels.columns_sum(task_);
        unsigned status = 0;
        for (std::ptrdiff_t line = 0; line < lines_; ++line)
            if (task_.sums[line].has_nan) status |= settle_undefined_line(line);
        if (call_.wants_sums())
            call_.write_log_sums(task_.sums, lines_, offset_[operand_log_sum], across(operand_log_sum));
        return status;
    }

    void write(std::ptrdiff_t row, std::ptrdiff_t end) {
        if (!call_.arguments.out) return;
        call_.compute_kernels.columns_finish(task_, row, end);
        if (undefined_ && call_.masked()) mask_rows(row, end, call_.masked_output());
        const Storage storage = call_.storage();
        const std::ptrdiff_t out_offset = offset_[operand_out] + row * along(operand_out);
        call_.table.pack[static_cast<int>(storage)].unpack({call_.out_at(out_offset), row_at(row), end - row, lines_,
                                                            along(operand_out), across(operand_out), tiling_.width,
                                                            call_.streaming});
    }

  private:
    static std::ptrdiff_t tile_bytes(const SoftmaxCall& call, const Tiling& tiling) {
        return round_up(call.plan.length * tiling.width * compute_bytes(call.storage()), scratch_alignment);
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
        return static_cast<char*>(task_.tile) + row * tiling_.width * compute_bytes(call_.storage());
    }
    void mask_rows(std::ptrdiff_t row, std::ptrdiff_t end, double value) {
        const auto* mask = reinterpret_cast<const unsigned char*>(
            call_.where_at(offset_[operand_where] + row * along(operand_where)));
        call_.table.pack[static_cast<int>(call_.storage())].mask({mask, row_at(row), end - row, lines_,
                                                                  along(operand_where), across(operand_where),
                                                                  tiling_.width, value});
    }
    void clear_padding(std::ptrdiff_t row, std::ptrdiff_t end) {
        const std::ptrdiff_t bytes = compute_bytes(call_.storage());
        for (; row < end; ++row)
            std::memset(row_at(row) + lines_ * bytes, 0, static_cast<std::size_t>((tiling_.width - lines_) * bytes));
    }
    // A line whose sum is NaN: is there a NaN in it, or was it made of infinities, or is nothing selected?
    unsigned settle_undefined_line(std::ptrdiff_t line) {
        undefined_ = true;
        const char* mask = call_.masked()
                               ? call_.where_at(offset_[operand_where] + line * across(operand_where))
                               : nullptr;
        const char* x = call_.x_at(offset_[operand_x] + line * across(operand_x));
        LineSum& sum = task_.sums[line];
        sum.has_nan = line_holds_nan(call_.plan, call_.storage(), operand_x, x, operand_where, mask);
        const bool selected = mask == nullptr || any_selected(call_.plan, operand_where, mask, call_.plan.length);
        const bool invalid = selected && !sum.has_nan && call_.arguments.output != SoftmaxOutput::none;
        return invalid ? unsigned{status_invalid} : 0u;
    }

    const SoftmaxCall& call_;
    const Tiling& tiling_;
    SoftmaxColumns task_;
    std::ptrdiff_t lines_ = 0;
    std::ptrdiff_t offset_[max_operands];
    bool undefined_ = false;
};

// Runs tiles [first, last) through the three stages.
unsigned run_tiles(const SoftmaxCall& call, const Tiling& tiling, char* memory, Worker& worker, std::ptrdiff_t first,
                   std::ptrdiff_t last) {
    const std::ptrdiff_t bytes = Tile::bytes(call, tiling);
    Tile tile[tiles_under_way] = {{call, tiling, memory}, {call, tiling, memory + bytes},
                                  {call, tiling, memory + 2 * bytes}};
    const std::ptrdiff_t block = call.compute_kernels.group;
    unsigned status = 0;
    for (std::ptrdiff_t step = first; step < last + 2; ++step) {
        Tile& filling = tile[step % tiles_under_way];
        Tile& working = tile[(step + 2) % tiles_under_way];
        Tile& leaving = tile[(step + 1) % tiles_under_way];
        const bool fills = step < last, works = step > first && step <= last, leaves = step > first + 1;
        if (fills) filling.begin(step);
        for (std::ptrdiff_t row = 0; row < call.plan.length; row += block) {
            const std::ptrdiff_t end = std::min(row + block, call.plan.length);
            if (fills) filling.fill(row, end);
            if (works) working.exponentiate(row, end);
            if (leaves) leaving.write(row, end);
        }
        if (fills) filling.filled();
        if (works) status |= working.exponentiated();
        if (step + 1 < last + 2 && !worker.proceed()) break;
    }
    return status;
}

}  // namespace

unsigned softmax_columns(const SoftmaxCall& call) {
    const Tiling tiling(call);
    const int workers = workers_for(2 * call.nanoseconds(), tiling.tiles);
    const Scratch scratch(checked_multiply(tiles_under_way, Tile::bytes(call, tiling)), workers);
    SharedStatus status;
    parallel_for(workers, tiling.tiles, [&](Worker& worker, std::ptrdiff_t begin, std::ptrdiff_t end) {
        status.raise(run_tiles(call, tiling, scratch.of_worker(worker.index()), worker, begin, end));
    });
    return status.bits();
}

}  // namespace unitstride
