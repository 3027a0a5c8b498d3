// Products of a large tensor with few rows, where the tensor and the output are contiguous along
// different axes of the columns: packing would read whole cache lines for single elements. Slabs of
// the tensor that stay in a cache are brought into the order of the output by tiles, and multiplied
// from there.
#include <algorithm>

#include "core/checked.hpp"
#include "core/scratch.hpp"
#include "ops/contract_tiles.hpp"

namespace unitstride {
namespace {

constexpr std::ptrdiff_t slab_bytes = 1 << 20, least_bytes = 256 << 10;
constexpr std::ptrdiff_t most_rows = 128;  // beyond, the multiplication takes the time
constexpr std::ptrdiff_t least_piece = 64;

int contiguous_axis(const AxisList& axes, int operand) {
    for (int axis = 0; axis < axes.count; ++axis)
        if (axes.axis[axis].stride[operand] == 1) return axis;
    return -1;
}

// An axis that is contiguous nowhere, if there is one; the contiguous one of B otherwise.
int axis_to_cut(const AxisList& columns) {
    const int found = contiguous_axis(columns, operand_b);
    for (int axis = 0; axis + 1 < columns.count; ++axis)
        if (axis != found) return axis;
    return found;
}

// Steps of B that lies in the order of the output, columns innermost.
void place_in_order(AxisList& columns, AxisList& depth) {
    std::ptrdiff_t step = 1;
    for (AxisList* list : {&columns, &depth})
        for (int axis = list->count - 1; axis >= 0; --axis) {
            list->axis[axis].stride[operand_b] = step;
            step = checked_multiply(step, list->axis[axis].length);
        }
}

// `to` = B of `part`, in the order of `columns` and `depth`.
unsigned copy_slab(const ContractPlan& part, const AxisList& columns, const AxisList& depth,
                   char* to) {
    ContractPlan copy = part;
    copy.a = part.b;
    copy.b = one_of(part.element_b);
    copy.c = to;
    copy.element_a = copy.element_c = part.element_b;
    copy.batch.count = copy.columns.count = copy.depth.count = 0;
    copy.rows = part.columns;
    append(copy.rows, part.depth);
    AxisList target = columns;
    append(target, depth);
    for (int axis = 0; axis < copy.rows.count; ++axis) {
        std::ptrdiff_t* const stride = copy.rows.axis[axis].stride;
        stride[operand_a] = stride[operand_b];
        stride[operand_b] = 0;
        stride[operand_c] = target.axis[axis].stride[operand_b];
    }
    copy.row_count = checked_multiply(part.column_count, part.depth_count);
    copy.batches = copy.column_count = copy.depth_count = 1;
    copy.alpha = 1;
    copy.beta = copy.alpha_imag = copy.beta_imag = 0;
    return map_tiles(copy);
}

}  // namespace

bool needs_slabs(const ContractPlan& plan) {
    const int found = contiguous_axis(plan.columns, operand_b);
    return plan.batches == 1 && plan.row_count <= most_rows && plan.depth_count > 1 &&
           !is_complex(plan.element_c) && found >= 0 && found != plan.columns.count - 1 &&
           plan.column_count * plan.depth_count * element_bytes(plan.element_b) >= least_bytes;
}

unsigned contract_slabs(const ContractPlan& plan) {
    const int cut = axis_to_cut(plan.columns);
    const Axis& whole = plan.columns.axis[cut];
    const std::ptrdiff_t unit =
        checked_multiply(plan.column_count / whole.length, plan.depth_count);
    const std::ptrdiff_t bytes = element_bytes(plan.element_b);
    const std::ptrdiff_t least = whole.stride[operand_b] == 1 ? least_piece : 1;
    const std::ptrdiff_t most = std::min(whole.length, std::max(slab_bytes / bytes / unit, least));
    const Scratch scratch(checked_multiply(checked_multiply(most, unit), bytes), 1);
    unsigned raised = 0;
    for (std::ptrdiff_t begin = 0; begin < whole.length; begin += most) {
        ContractPlan part = plan;
        part.columns.axis[cut].length = std::min(most, whole.length - begin);
        part.column_count = plan.column_count / whole.length * part.columns.axis[cut].length;
        part.b += begin * whole.stride[operand_b] * bytes;
        part.c += begin * whole.stride[operand_c] * element_bytes(plan.element_c);
        AxisList columns = part.columns, depth = part.depth;
        place_in_order(columns, depth);
        raised |= copy_slab(part, columns, depth, scratch.of_worker(0));
        part.b = scratch.of_worker(0);
        part.columns = columns;
        part.depth = depth;
        raised |= contract_packed(part);
    }
    return raised;
}

}  // namespace unitstride
