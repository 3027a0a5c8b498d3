// Dot products and sums down columns, cut into pieces whatever the threads.
#include <cmath>

#include "core/checked.hpp"
#include "core/scratch.hpp"
#include "ops/contract_stream.hpp"

namespace unitstride {
namespace {

// A sum that keeps what additions lose (TwoSum), as long as it is finite.
struct ExactSum {
    double sum = 0, lost = 0;
    void add(double value) {
        const double total = sum + value;
        if (std::isfinite(total)) {
            const double part = total - sum;
            lost += (sum - (total - part)) + (value - part);
        }
        sum = total;
    }
    double value() const { return std::isfinite(sum) ? sum + lost : sum; }
};

}  // namespace

template <class T>
unsigned Stream::run_dots_of() {
    const Axis line = take_last(depth_), neighbours = take_last(kept_);
    const std::ptrdiff_t pieces = blocks_of(line.length, dot_piece), turns = depth_.elements();
    const std::ptrdiff_t parts = turns * pieces;
    const double terms = static_cast<double>(plan_.depth_count);
    const double most = static_cast<double>(item_bytes / bytes_);
    DotTask whole = {};
    whole.a_row = first_stride(neighbours);
    whole.b_row = second_stride(neighbours);
    whole.b_depth = second_stride(line);
    whole.sum_stride = 1;
    // The sums of part number `part` of `count` elements from `place` on.
    const auto dots = [&](Place place, std::ptrdiff_t part, std::ptrdiff_t count, T* sums) {
        const Place turn(depth_, part / pieces);
        const std::ptrdiff_t begin = part % pieces * dot_piece;
        for (int k = 0; k < contract_operands; ++k)
            place.offset[k] += turn.offset[k] + begin * line.stride[k];
        swap_inputs(place);
        DotTask task = whole;
        task.a = first(place);
        task.b = second(place);
        task.rows = count;
        task.depth = std::min(dot_piece, line.length - begin);
        task.sums = sums;
        kernels_.dots(task);
    };
    if (terms > most) {  // one element is many items
        const std::ptrdiff_t items = checked_multiply(kept_count_, parts);
        const Scratch scratch(checked_multiply(items, bytes_), 1);
        T* const sums = reinterpret_cast<T*>(scratch.of_worker(0));
        const auto place_of = [&](std::ptrdiff_t element) {
            Place place(kept_, element / neighbours.length);
            for (int k = 0; k < contract_operands; ++k)
                place.offset[k] += element % neighbours.length * neighbours.stride[k];
            return place;
        };
        const unsigned raised =
            parallel_for(workers(traffic(), items), items,
                         [&](Worker& worker, std::ptrdiff_t item, std::ptrdiff_t end) {
                             for (; item < end && worker.proceed(); ++item)
                                 dots(place_of(item / parts), item % parts, 1, sums + item);
                         });
        return raised | parallel_for(1, 1, [&](Worker&, std::ptrdiff_t, std::ptrdiff_t) {
                   for (std::ptrdiff_t element = 0; element < kept_count_; ++element) {
                       ExactSum sum;
                       for (std::ptrdiff_t part = 0; part < parts; ++part)
                           sum.add(static_cast<double>(sums[element * parts + part]));
                       const T rounded = static_cast<T>(sum.value());
                       finish(&rounded, c(place_of(element)), 1, 1);
                   }
               });
    }
    constexpr std::ptrdiff_t most_rows = 256;
    const std::ptrdiff_t rows = std::clamp<std::ptrdiff_t>(
        static_cast<std::ptrdiff_t>(most / terms), 1, std::min(most_rows, neighbours.length));
    const std::ptrdiff_t row_blocks = blocks_of(neighbours.length, rows);
    const std::ptrdiff_t items = kept_.elements() * row_blocks;
    return parallel_for(workers(traffic(), items), items,
                        [&](Worker& worker, std::ptrdiff_t item, std::ptrdiff_t end) {
                            T sums[most_rows];
                            for (; item < end && worker.proceed(); ++item) {
                                const std::ptrdiff_t row = item % row_blocks * rows;
                                const std::ptrdiff_t count =
                                    std::min(rows, neighbours.length - row);
                                Place place(kept_, item / row_blocks);
                                for (int k = 0; k < contract_operands; ++k)
                                    place.offset[k] += row * neighbours.stride[k];
                                if (parts == 1) {
                                    dots(place, 0, count, sums);
                                } else {
                                    ExactSum wide[most_rows];
                                    for (std::ptrdiff_t part = 0; part < parts; ++part) {
                                        dots(place, part, count, sums);
                                        for (std::ptrdiff_t r = 0; r < count; ++r)
                                            wide[r].add(static_cast<double>(sums[r]));
                                    }
                                    for (std::ptrdiff_t r = 0; r < count; ++r)
                                        sums[r] = static_cast<T>(wide[r].value());
                                }
                                finish(sums, c(place), count, neighbours.stride[operand_c]);
                            }
                        });
}

template <class T>
unsigned Stream::run_columns_of() {
    for (int axis = 0; axis < depth_.count; ++axis)  // the longest axis goes down the columns
        if (depth_.axis[axis].length > depth_.axis[depth_.count - 1].length)
            std::swap(depth_.axis[axis], depth_.axis[depth_.count - 1]);
    const Axis down = take_last(depth_), line = take_last(kept_);
    const std::ptrdiff_t pieces = blocks_of(down.length, column_piece);
    const std::ptrdiff_t parts = checked_multiply(depth_.elements(), pieces);
    const std::ptrdiff_t width = std::min(strip, line.length),
                         strips = blocks_of(line.length, width);
    const std::ptrdiff_t blocks = checked_multiply(kept_.elements(), strips);
    ColumnTask whole = {};
    whole.a_depth = first_stride(down);
    whole.b_depth = second_stride(down);
    whole.b_column = second_stride(line);
    const auto place_of = [&](std::ptrdiff_t block) {
        Place place(kept_, block / strips);
        for (int k = 0; k < contract_operands; ++k)
            place.offset[k] += block % strips * width * line.stride[k];
        return place;
    };
    const auto columns_of = [&](std::ptrdiff_t block) {
        return std::min(width, line.length - block % strips * width);
    };
    const auto sum_part = [&](std::ptrdiff_t block, std::ptrdiff_t part, T* sums) {
        Place place = place_of(block);
        const Place turn(depth_, part / pieces);
        const std::ptrdiff_t begin = part % pieces * column_piece;
        for (int k = 0; k < contract_operands; ++k)
            place.offset[k] += turn.offset[k] + begin * down.stride[k];
        swap_inputs(place);
        ColumnTask task = whole;
        task.a = first(place);
        task.b = second(place);
        task.columns = columns_of(block);
        task.depth = std::min(column_piece, down.length - begin);
        task.sums = sums;
        kernels_.columns(task);
    };
    const auto add = [](T* total, const T* sums, std::ptrdiff_t count) {
        for (std::ptrdiff_t i = 0; i < count; ++i) total[i] += sums[i];
    };
    constexpr std::ptrdiff_t enough = 8;  // blocks for threads to share
    if (blocks >= enough || parts == 1) {
        const int team = workers(traffic(), blocks);
        const Scratch scratch(2 * width * bytes_, team);
        return parallel_for(
            team, blocks, [&](Worker& worker, std::ptrdiff_t block, std::ptrdiff_t end) {
                T* const total = reinterpret_cast<T*>(scratch.of_worker(worker.index()));
                T* const sums = total + width;
                for (; block < end; ++block) {
                    for (std::ptrdiff_t part = 0; part < parts; ++part) {
                        if (!worker.proceed()) return;
                        sum_part(block, part, part == 0 ? total : sums);
                        if (part > 0) add(total, sums, columns_of(block));
                    }
                    finish(total, c(place_of(block)), columns_of(block), line.stride[operand_c]);
                }
            });
    }
    const std::ptrdiff_t items = checked_multiply(blocks, parts);
    const Scratch scratch(checked_multiply(checked_multiply(items, width), bytes_), 1);
    T* const sums = reinterpret_cast<T*>(scratch.of_worker(0));
    const unsigned raised =
        parallel_for(workers(traffic(), items), items,
                     [&](Worker& worker, std::ptrdiff_t item, std::ptrdiff_t end) {
                         for (; item < end && worker.proceed(); ++item)
                             sum_part(item / parts, item % parts, sums + item * width);
                     });
    return raised | parallel_for(1, 1, [&](Worker&, std::ptrdiff_t, std::ptrdiff_t) {
               for (std::ptrdiff_t block = 0; block < blocks; ++block) {
                   T* const total = sums + block * parts * width;
                   for (std::ptrdiff_t part = 1; part < parts; ++part)
                       add(total, total + part * width, columns_of(block));
                   finish(total, c(place_of(block)), columns_of(block), line.stride[operand_c]);
               }
           });
}

unsigned Stream::run_dots() { return bytes_ == 4 ? run_dots_of<float>() : run_dots_of<double>(); }
unsigned Stream::run_columns() {
    return bytes_ == 4 ? run_columns_of<float>() : run_columns_of<double>();
}

}  // namespace unitstride
