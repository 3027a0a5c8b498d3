// Products of elements, tile by tile: nothing is summed.
#include <cstdint>

#include "core/scratch.hpp"
#include "ops/contract_tiles.hpp"

namespace unitstride {
namespace {

class TileMap : Tiles {
  public:
    explicit TileMap(const ContractPlan& plan) : Tiles(plan) {
        const double bytes =
            static_cast<double>(kept_.elements()) * static_cast<double>(bytes_[operand_c]);
        streaming_ = bytes > static_cast<double>(kernels().streaming_bytes);
        columns_ = take_last(kept_);
        int across = -1, source = operand_a;
        for (const int operand : {operand_a, operand_b})
            if (across < 0) {
                across = crossing_axis(kept_, operand, columns_.stride[operand]);
                source = operand;
            }
        crosses_ = across >= 0;
        if (crosses_) move_to_end(kept_, across);
        rows_ = take_last(kept_);
        if (crosses_) {
            choose_crossing_tiles(source);
        } else {  // long rows, or many short ones
            width_ = std::min(columns_.length, straight_elements);
            height_ = std::min(rows_.length, straight_elements / width_);
        }
    }

    unsigned run() {
        const std::ptrdiff_t across = blocks_of(columns_.length + lead_columns_, width_);
        const std::ptrdiff_t down = blocks_of(rows_.length + lead_rows_, height_);
        const std::ptrdiff_t items = kept_.elements() * across * down;
        const double elements = total_elements();
        const int team = workers_for(
            elements * static_cast<double>(product_bytes()) / bytes_per_nanosecond, items);
        const std::ptrdiff_t place = width_ * height_ * product_bytes();
        const Scratch scratch(contract_operands * place, team);
        return parallel_for(
            team, items, [&](Worker& worker, std::ptrdiff_t item, std::ptrdiff_t end) {
                char* const memory = scratch.of_worker(worker.index());
                for (; item < end && worker.proceed(); ++item) {
                    const std::ptrdiff_t row =
                        (crosses_ ? item % down : item / across % down) * height_ - lead_rows_;
                    const std::ptrdiff_t column =
                        (crosses_ ? item / down % across : item % across) * width_ - lead_columns_;
                    do_tile(item / across / down, row, column, memory, place);
                }
            });
    }

  private:
    static constexpr std::ptrdiff_t line_bytes = 64, crossing_bytes = 512, crossing_columns = 64;
    static constexpr std::ptrdiff_t straight_elements = 4096;

    // Several cache lines both ways. Tiles begin on the lines of the source and of the output.
    void choose_crossing_tiles(int source) {
        width_ = std::min(columns_.length, crossing_columns);
        height_ = crossing_bytes / bytes_[source] * (crossing_columns / width_);
        height_ = std::min(rows_.length, height_);
        const auto lead = [](const char* data, std::ptrdiff_t bytes) {
            return static_cast<std::ptrdiff_t>(reinterpret_cast<std::uintptr_t>(data) %
                                               line_bytes) /
                   bytes;
        };
        const bool whole_lines = columns_.stride[operand_c] == 1 &&
                                 rows_.stride[operand_c] * bytes_[operand_c] % line_bytes == 0;
        if (whole_lines && width_ == crossing_columns)
            lead_columns_ = lead(plan_.c, bytes_[operand_c]);
        if (rows_.stride[source] == 1) lead_rows_ = lead(data_[source], bytes_[source]);
        if (lead_rows_ >= height_) lead_rows_ = 0;
        streaming_ = streaming_ && whole_lines;  // parts of lines past the caches cost a read
    }

    double total_elements() const {
        return static_cast<double>(kept_.elements()) * static_cast<double>(rows_.length) *
               static_cast<double>(columns_.length);
    }

    // The first row and column may lie before the operands' own.
    void do_tile(std::ptrdiff_t block, std::ptrdiff_t row, std::ptrdiff_t column, char* memory,
                 std::ptrdiff_t bytes) const {
        const std::ptrdiff_t rows =
            std::min(row + height_, rows_.length) - std::max<std::ptrdiff_t>(row, 0);
        const std::ptrdiff_t columns =
            std::min(column + width_, columns_.length) - std::max<std::ptrdiff_t>(column, 0);
        row = std::max<std::ptrdiff_t>(row, 0);
        column = std::max<std::ptrdiff_t>(column, 0);
        Place place(kept_, block);
        for (int k = 0; k < contract_operands; ++k)
            place.offset[k] += row * rows_.stride[k] + column * columns_.stride[k];
        const auto rows_at = [&](int operand) {
            return rows_of(operand, at(operand, place), rows_.stride[operand],
                           columns_.stride[operand], rows, columns, false,
                           memory + operand * bytes);
        };
        const TileFactors factors = {plan_.alpha, plan_.beta, plan_.alpha_imag, plan_.beta_imag};
        char* const c = plan_.c + place.offset[operand_c] * bytes_[operand_c];
        emit(product_, rows_at(operand_a), rows_at(operand_b), c, rows_.stride[operand_c],
             columns_.stride[operand_c], rows, columns, factors, streaming_,
             memory + operand_c * bytes);
    }

    Axis rows_, columns_;
    std::ptrdiff_t height_, width_;
    std::ptrdiff_t lead_rows_ = 0, lead_columns_ = 0;
    bool crosses_, streaming_;
};

}  // namespace

unsigned map_tiles(const ContractPlan& plan) { return TileMap(plan).run(); }

}  // namespace unitstride
