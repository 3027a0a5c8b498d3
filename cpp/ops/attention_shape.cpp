#include "ops/attention_shape.hpp"

#include "isa/dispatch.hpp"
#include "ops/packed_powers.hpp"

namespace unitstride {

AttentionShape::AttentionShape(const AttentionArguments& call) : arguments(call) {
    const InputView& query = call.query;
    for (int axis = 0; axis < query.axes - 3; ++axis)
        batch = checked_multiply(batch, query.shape[axis]);
    heads = query.shape[query.axes - 3];
    queries = query.shape[query.axes - 2];
    features = query.shape[query.axes - 1];
    key_heads = call.key.shape[query.axes - 3];
    keys = call.key.shape[query.axes - 2];
    value_features = call.value.shape[query.axes - 1];
    group = key_heads > 0 ? heads / key_heads : 1;
    row_count = checked_multiply(group, queries);
    shared = checked_multiply(batch, key_heads);
}

double AttentionShape::multiply_adds() const {
    return static_cast<double>(batch) * static_cast<double>(heads) * static_cast<double>(queries) *
           static_cast<double>(keys) * static_cast<double>(features + value_features);
}

void AttentionShape::reach_of(std::ptrdiff_t entry, std::ptrdiff_t position, std::ptrdiff_t& begin,
                              std::ptrdiff_t& end) const {
    begin = end = 0;
    if (position >= arguments.query_lengths[entry]) return;
    const std::ptrdiff_t diagonal = position + arguments.offset[entry];
    begin = std::max<std::ptrdiff_t>(0, diagonal + arguments.lowest);
    end = std::min<std::ptrdiff_t>(arguments.key_lengths[entry], diagonal + arguments.highest + 1);
    if (begin >= end) begin = end = 0;
}

// Both ends of a reach grow with the position, but that of an empty one is nowhere.
AttentionExtent AttentionShape::extent_of(const AttentionRows& rows) const {
    AttentionExtent extent = {keys, 0, 0, keys};
    const std::ptrdiff_t last = (rows.first + rows.count - 1) / group;
    for (std::ptrdiff_t position = rows.first / group; position <= last; ++position) {
        std::ptrdiff_t begin, end;
        reach_of(rows.entry, position, begin, end);
        if (begin < end) {
            extent.begin = std::min(extent.begin, begin);
            extent.end = std::max(extent.end, end);
        }
        extent.inner_begin = std::max(extent.inner_begin, begin);
        extent.inner_end = std::min(extent.inner_end, end);
    }
    return extent;
}

std::ptrdiff_t AttentionShape::list_rows(const AttentionRows& rows, std::ptrdiff_t position_stride,
                                         std::ptrdiff_t head_stride, Run* runs) const {
    std::ptrdiff_t row = rows.first, left = rows.count, count = 0;
    if (group == 1) {
        runs[0] = {row * position_stride, position_stride, left};
        return 1;
    }
    while (left > 0) {
        const std::ptrdiff_t head = row % group, now = std::min(group - head, left);
        runs[count++] = {row / group * position_stride + head * head_stride, head_stride, now};
        row += now;
        left -= now;
    }
    return count;
}

void AttentionLists::keep_refused() {
    for (std::ptrdiff_t list = 0; list < count; ++list)
        if (refused(list)) kept_.push_back(list);
    count = static_cast<std::ptrdiff_t>(kept_.size());
    refused_.clear();
}

bool attention_reaches(const PowerRange& range) {
    return range.lowest >= lowest_element_power && range.highest <= highest_product_power / 2;
}

const MatrixUnit* matrix_unit_for(const AttentionShape& shape) {
    constexpr std::ptrdiff_t fewest_rows = 24, fewest_keys = 32;
    const MatrixUnit* units = kernels().matrix_unit;
    if (!units || shape.row_count < fewest_rows || shape.keys < fewest_keys ||
        shape.features == 0 || shape.value_features == 0)
        return nullptr;
    const MatrixUnit& unit = units[static_cast<int>(shape.arguments.storage)];
    if (!unit.attention->meet) return nullptr;
    const std::ptrdiff_t padded = round_up(shape.features, unit.attention->depth_unit) +
                                  round_up(shape.value_features, unit.attention->columns);
    return 3 * padded <= 4 * (shape.features + shape.value_features) ? &unit : nullptr;
}

double attention_cost(const AttentionArguments& arguments) {
    return AttentionShape(arguments).multiply_adds();
}

}  // namespace unitstride
