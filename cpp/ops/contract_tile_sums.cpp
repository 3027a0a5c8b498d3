// Sums of products, tile by tile, where rows or columns of the product are missing.
//
// The columns of a tile run along the axis on which most is contiguous. Where that axis is summed
// a tile gives dot products; where it is kept, sums down its columns, or products if the rows are
// kept as well. The sums of tiles are added up without loss (TwoSum), in an order that depends on
// the problem alone.
#include <cmath>

#include "core/checked.hpp"
#include "core/scratch.hpp"
#include "ops/contract_tiles.hpp"

namespace unitstride {
namespace {

template <class T>
void add_exactly(T* total, T* lost, const T* part, std::ptrdiff_t count) {
    for (std::ptrdiff_t i = 0; i < count; ++i) {
        const T sum = total[i] + part[i];
        if (std::isfinite(sum)) {
            const T added = sum - total[i];
            lost[i] += (total[i] - (sum - added)) + (part[i] - added);
        }
        total[i] = sum;
    }
}

template <class T>
class TileSums : Tiles {
  public:
    explicit TileSums(const ContractPlan& plan) : Tiles(plan) {
        choose_columns();
        choose_rows();
        const bool fetches =
            crosses_ || plan.element_c == Element::float16 || plan.element_c == Element::bfloat16;
        width_ = std::min<std::ptrdiff_t>(columns_.length, fetches ? 256 : dots_ ? 4096 : 1024);
        const std::ptrdiff_t rows = fetches ? most_rows : 32 * 1024 / width_;
        height_ = std::min(rows_.length, std::min(rows, most_rows));
        swaps_ = product_ != Product::by_parts && columns_.stride[operand_a] == 0 &&
                 columns_.stride[operand_b] != 0;
        across_ = blocks_of(columns_.length, width_);
        down_ = blocks_of(rows_.length, height_);
        blocks_ = kept_.elements() * (dots_ ? 1 : across_) * (rows_are_kept_ ? down_ : 1);
        tiles_ = checked_multiply(depth_.elements(),
                                  (dots_ ? across_ : 1) * (rows_are_kept_ ? 1 : down_));
        sums_ = parts() * (dots_ ? 1 : width_) * (rows_are_kept_ ? height_ : 1);
        parts_bytes_ = round_up(sums_ * real_bytes_, 64);
    }

    unsigned run() {
        const double elements = static_cast<double>(blocks_) * static_cast<double>(tiles_) *
                                static_cast<double>(width_ * height_);
        // Few results: the tiles of each are shared out in pieces.
        std::ptrdiff_t pieces = 1;
        if (blocks_ < enough && (dots_ || !rows_are_kept_))
            pieces = std::min(tiles_, blocks_of(4 * enough, blocks_));
        const std::ptrdiff_t piece = blocks_of(tiles_, pieces);
        pieces = blocks_of(tiles_, piece);
        const std::ptrdiff_t items = checked_multiply(blocks_, pieces);
        const int team = workers_for(
            elements * static_cast<double>(product_bytes()) / bytes_per_nanosecond, items);
        const std::ptrdiff_t tile_bytes = round_up(width_ * height_ * product_bytes(), 64);
        const std::ptrdiff_t part_bytes =
            std::max(parts_bytes_, round_up(height_ * product_bytes(), 64));
        // Per worker: three tiles, the sums of one tile, and totals with what they lost.
        const Scratch scratch(3 * tile_bytes + part_bytes + 2 * parts_bytes_, team);
        const Scratch shared(pieces > 1 ? checked_multiply(items, 2 * parts_bytes_) : 1, 1);
        const auto totals_of = [&](char* own, std::ptrdiff_t item) {
            return reinterpret_cast<T*>(pieces > 1 ? shared.of_worker(0) + item * 2 * parts_bytes_
                                                   : own);
        };
        const unsigned raised =
            parallel_for(team, items, [&](Worker& worker, std::ptrdiff_t item, std::ptrdiff_t end) {
                char* const memory = scratch.of_worker(worker.index());
                Own own = {memory, memory + tile_bytes, memory + 2 * tile_bytes, nullptr, nullptr};
                own.part = reinterpret_cast<T*>(memory + 3 * tile_bytes);
                for (; item < end; ++item) {
                    own.total = totals_of(memory + 3 * tile_bytes + part_bytes, item);
                    const std::ptrdiff_t first = item % pieces * piece;
                    if (!sum_tiles(worker, own, item / pieces, first,
                                   std::min(first + piece, tiles_)))
                        return;
                    if (pieces == 1) finish(own, item);
                }
            });
        if (pieces == 1) return raised;
        return raised | parallel_for(1, 1, [&](Worker&, std::ptrdiff_t, std::ptrdiff_t) {
                   char* const memory = scratch.of_worker(0);
                   Own own = {memory, memory, memory + 2 * tile_bytes, nullptr, nullptr};
                   for (std::ptrdiff_t block = 0; block < blocks_; ++block) {
                       own.total = totals_of(nullptr, block * pieces);
                       for (std::ptrdiff_t k = 1; k < pieces; ++k) {
                           const T* const other = totals_of(nullptr, block * pieces + k);
                           add_exactly(own.total, lost_of(own.total), other, sums_);
                           for (std::ptrdiff_t i = 0; i < sums_; ++i)
                               lost_of(own.total)[i] += other[parts_bytes_ / real_bytes_ + i];
                       }
                       finish(own, block);
                   }
               });
    }

  private:
    static constexpr std::ptrdiff_t most_rows = 64, enough = 16;
    static constexpr std::ptrdiff_t short_axis = 8;

    struct Own {
        char *a, *b, *c;
        T *part, *total;  // after the totals: what they lost
    };

    T* lost_of(T* total) const { return total + parts_bytes_ / real_bytes_; }

    double elements_of(int operand) const {
        double elements = 1;
        for (const AxisList* list : {&kept_, &depth_})
            for (int axis = 0; axis < list->count; ++axis)
                if (list->axis[axis].stride[operand] != 0)
                    elements *= static_cast<double>(list->axis[axis].length);
        return elements;
    }

    // How well an axis suits rows of tiles.
    double worth(const Axis& axis) const {
        double sum = 0;
        for (const int operand : {operand_a, operand_b}) {
            const std::ptrdiff_t step = axis.stride[operand];
            const double ease = contiguous_or_constant(step) ? 4
                                : step == -1                 ? 3
                                : step == 2                  ? 2
                                                             : 0;
            sum += ease * elements_of(operand);
        }
        const auto length = std::min(axis.length, short_axis);
        return sum * static_cast<double>(length) / short_axis;
    }

    void choose_columns() {
        double best = -1;
        int chosen = -1;
        for (AxisList* list : {&depth_, &kept_})
            for (int axis = list->count - 1; axis >= 0; --axis)
                if (const double value = worth(list->axis[axis]); value > best) {
                    best = value;
                    chosen = axis;
                    dots_ = list == &depth_;
                }
        AxisList& from = dots_ ? depth_ : kept_;
        move_to_end(from, chosen);
        columns_ = take_last(from);
    }

    void choose_rows() {
        for (AxisList* list : {&depth_, &kept_})
            for (const int operand : {operand_a, operand_b}) {
                const int axis = crossing_axis(*list, operand, columns_.stride[operand]);
                if (axis < 0 || crosses_) continue;
                crosses_ = true;
                take_rows(*list, axis);
            }
        if (crosses_) return;
        // Dot products beside each other, or rows that are added up: the longest axis for that.
        AxisList& list = dots_ && kept_.count > 0 ? kept_ : depth_;
        int longest = 0;
        for (int axis = 1; axis < list.count; ++axis)
            if (list.axis[axis].length > list.axis[longest].length) longest = axis;
        if (list.count > 0) {
            take_rows(list, longest);
        } else {
            rows_ = Axis{1, {}};
            rows_are_kept_ = dots_;
        }
    }

    void take_rows(AxisList& list, int axis) {
        rows_are_kept_ = &list == &kept_;
        move_to_end(list, axis);
        rows_ = take_last(list);
    }

    bool sum_tiles(Worker& worker, Own& own, std::ptrdiff_t block, std::ptrdiff_t first,
                   std::ptrdiff_t end) const {
        std::fill(own.total, own.total + sums_, T(0));
        std::fill(lost_of(own.total), lost_of(own.total) + sums_, T(0));
        for (std::ptrdiff_t tile = first; tile < end; ++tile) {
            if (!worker.proceed()) return false;
            sum_tile(own, block, tile);
        }
        return true;
    }

    struct Corner {
        Place place;
        std::ptrdiff_t rows, columns;
    };

    // Where a tile lies; of the output where `tile` is 0.
    Corner corner_of(std::ptrdiff_t block, std::ptrdiff_t tile) const {
        std::ptrdiff_t row = 0, column = 0;
        const auto part = [](std::ptrdiff_t& index, std::ptrdiff_t count) {
            const std::ptrdiff_t found = index % count;
            index /= count;
            return found;
        };
        row = part(rows_are_kept_ ? block : tile, down_) * height_;
        column = part(dots_ ? tile : block, across_) * width_;
        Corner corner = {Place(kept_, block), std::min(height_, rows_.length - row),
                         std::min(width_, columns_.length - column)};
        const Place turn(depth_, tile);
        for (int k = 0; k < contract_operands; ++k)
            corner.place.offset[k] +=
                turn.offset[k] + row * rows_.stride[k] + column * columns_.stride[k];
        return corner;
    }

    void sum_tile(Own& own, std::ptrdiff_t block, std::ptrdiff_t tile) const {
        const Corner corner = corner_of(block, tile);
        const int x = swaps_ ? operand_b : operand_a, y = swaps_ ? operand_a : operand_b;
        const auto rows_at = [&](int operand, bool full, char* memory) {
            return rows_of(operand, at(operand, corner.place), rows_.stride[operand],
                           columns_.stride[operand], corner.rows, corner.columns, full, memory);
        };
        const TileRows a = rows_at(x, true, own.a), b = rows_at(y, false, own.b);
        T* const lost = lost_of(own.total);
        if (dots_) {
            dot_rows(a, b, corner, own.part);
            const std::ptrdiff_t step = rows_are_kept_ ? corner.rows : 1;
            for (std::ptrdiff_t r = 0; r < corner.rows; r += step)
                add_exactly(own.total, lost, own.part + r * parts(), step * parts());
        } else if (rows_are_kept_) {
            multiply(product_, a, b, own.part, corner.columns, corner.rows, corner.columns,
                     {1, 0, 0, 0}, false);
            add_exactly(own.total, lost, own.part, corner.rows * corner.columns * parts());
        } else {
            add_columns(a, b, corner, own.part);
            add_exactly(own.total, lost, own.part, corner.columns * parts());
        }
    }

    void dot_rows(const TileRows& a, const TileRows& b, const Corner& corner, T* part) const {
        DotTask task = {};
        task.a = a.data;
        task.b = b.data;
        task.sums = part;
        task.rows = corner.rows;
        task.depth = corner.columns;
        task.a_row = a.row;
        task.b_row = b.row;
        task.b_depth = b.column;
        task.sum_stride = 1;
        const ComplexStreamKernels& pairs = kernels().complex_stream[is_double()];
        switch (product_) {
            case Product::real: return kernels().stream[is_double()].dots(task);
            case Product::by_parts: return pairs.dots_by_parts(task);
            case Product::complex: return pairs.dots(task);
        }
    }

    void add_columns(const TileRows& a, const TileRows& b, const Corner& corner, T* part) const {
        const std::ptrdiff_t scale = product_ == Product::by_parts ? 2 : 1;
        ColumnTask task = {};
        task.a = a.data;
        task.b = b.data;
        task.sums = part;
        task.columns = corner.columns * scale;
        task.depth = corner.rows;
        task.a_depth = a.row * scale;
        task.b_depth = b.column == 1 ? b.row * scale : b.row;
        task.b_column = b.column;
        if (product_ == Product::complex) {
            kernels().complex_stream[is_double()].columns(task);
        } else {
            kernels().stream[is_double()].columns(task);
        }
    }

    // Totals of a block to their places.
    void finish(const Own& own, std::ptrdiff_t block) const {
        T* const total = own.total;
        const T* const lost = lost_of(total);
        for (std::ptrdiff_t i = 0; i < sums_; ++i)
            if (std::isfinite(total[i])) total[i] += lost[i];
        static constexpr T one[2] = {1, 0};
        const TileFactors factors = {plan_.alpha, plan_.beta, plan_.alpha_imag, plan_.beta_imag};
        // By parts where that will do: an infinite part times zero would be NaN.
        const Product product =
            product_ == Product::complex && factors.is_real() ? Product::by_parts : product_;
        const Corner corner = corner_of(block, 0);
        char* const c = plan_.c + corner.place.offset[operand_c] * bytes_[operand_c];
        const Axis single = {1, {}};
        const Axis& down = rows_are_kept_ && !dots_ ? rows_ : single;
        const Axis& along = !dots_ ? columns_ : rows_are_kept_ ? rows_ : single;
        const std::ptrdiff_t rows = rows_are_kept_ && !dots_ ? corner.rows : 1;
        const std::ptrdiff_t columns = !dots_ ? corner.columns : rows_are_kept_ ? corner.rows : 1;
        emit(product, {total, columns, 1}, {one, 0, 0}, c, down.stride[operand_c],
             along.stride[operand_c], rows, columns, factors, false, own.c);
    }

    Axis rows_, columns_;
    bool dots_ = false, rows_are_kept_ = false, crosses_ = false, swaps_ = false;
    std::ptrdiff_t height_, width_, across_, down_, blocks_, tiles_, sums_, parts_bytes_;
};

}  // namespace

unsigned sum_tiles(const ContractPlan& plan) {
    if (real_part_of(plan.element_c) == Element::float64) return TileSums<double>(plan).run();
    return TileSums<float>(plan).run();
}

}  // namespace unitstride
