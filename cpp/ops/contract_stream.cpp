#include "ops/contract_stream.hpp"

#include "ops/contract_tiles.hpp"

namespace unitstride {

unsigned Stream::run_map() {
    const Axis inner = take_last(kept_), outer = take_last(kept_);
    const double bytes = static_cast<double>(kept_count_) * static_cast<double>(bytes_);
    MapTask whole = {};
    whole.alpha = plan_.alpha;
    whole.beta = plan_.beta;
    whole.streaming = bytes > static_cast<double>(kernels().streaming_bytes);
    whole.a_row = outer.stride[operand_a];
    whole.b_row = outer.stride[operand_b];
    whole.c_row = outer.stride[operand_c];
    whole.a_column = inner.stride[operand_a];
    whole.b_column = inner.stride[operand_b];
    whole.c_column = inner.stride[operand_c];
    // Items: stretches of the inner axis, or some rows.
    const std::ptrdiff_t most = item_bytes / bytes_;
    const std::ptrdiff_t length = std::min(inner.length, most);
    const std::ptrdiff_t rows = std::clamp<std::ptrdiff_t>(most / length, 1, outer.length);
    const std::ptrdiff_t lengths = blocks_of(inner.length, length);
    const std::ptrdiff_t row_blocks = blocks_of(outer.length, rows);
    const std::ptrdiff_t items = kept_.elements() * row_blocks * lengths;
    return parallel_for(workers(traffic(), items), items,
                        [&](Worker& worker, std::ptrdiff_t item, std::ptrdiff_t end) {
                            for (; item < end && worker.proceed(); ++item) {
                                const std::ptrdiff_t begin = item % lengths * length;
                                const std::ptrdiff_t row = item / lengths % row_blocks * rows;
                                Place place(kept_, item / lengths / row_blocks);
                                for (int k = 0; k < contract_operands; ++k)
                                    place.offset[k] +=
                                        begin * inner.stride[k] + row * outer.stride[k];
                                MapTask task = whole;
                                task.a = a(place);
                                task.b = b(place);
                                task.c = c(place);
                                task.rows = std::min(rows, outer.length - row);
                                task.columns = std::min(length, inner.length - begin);
                                kernels_.map(task);
                            }
                        });
}

bool can_be_streamed(const ContractPlan& plan) {
    if (plan.depth_count == 0) return false;
    return plan.depth_count == 1 || plan.row_count == 1 || plan.column_count == 1;
}

unsigned contract_streaming(const ContractPlan& plan) {
    if (plan.element_c == Element::float32 || plan.element_c == Element::float64) {
        Stream stream(plan);
        if (stream.applies()) return stream.run();
    }
    return plan.depth_count == 1 ? map_tiles(plan) : sum_tiles(plan);
}

}  // namespace unitstride
