#include "ops/softmax_vjp.hpp"

#include <algorithm>

#include "core/float_environment.hpp"
#include "isa/dispatch.hpp"
#include "ops/softmax_vjp_forms.hpp"

namespace unitstride {
namespace {

// Lines side by side pay where neighbours are contiguous in an array, and where lines are too short
// to fill vectors.
bool prefers_columns(const VjpCall& call) {
    const LinesPlan& plan = call.plan;
    if (plan.outer.count == 0 || plan.line.count > 1) return false;
    const Axis& neighbours = plan.outer.axis[plan.outer.count - 1];
    if (neighbours.length < call.kernels.lanes / 2) return false;
    if (call.is_long()) return vjp_columns_lie_straight(call);
    if (plan.length <= call.table.short_line_elements) return true;
    const auto by_columns = [&](int operand) {
        return neighbours.stride[operand] == 1 && !line_is_contiguous(plan, operand);
    };
    // One operand among rows is cheaper to transpose than the others.
    const int columns = by_columns(operand_primal) + by_columns(operand_result) +
                        (!call.by_line() && by_columns(operand_cotangent));
    return columns >= 2;
}

// The outer axis along which the primal, or else the output, is contiguous goes last: it is the one
// that tiles span.
void put_neighbours_last(AxisList& outer) {
    for (const int operand : {operand_result, operand_primal})
        for (int a = 0; a < outer.count; ++a)
            if (outer.axis[a].stride[operand] == 1) {
                std::rotate(outer.axis + a, outer.axis + a + 1, outer.axis + outer.count);
                break;
            }
}

}  // namespace

unsigned softmax_vjp(const SoftmaxVjpArguments& arguments) {
    const std::ptrdiff_t* strides[] = {arguments.primal.strides, arguments.cotangent.strides,
                                       arguments.out.strides,
                                       arguments.where ? arguments.where.strides : nullptr,
                                       arguments.log_sum ? arguments.log_sum.strides : nullptr};
    LinesPlan plan = plan_lines(arguments.primal.axes, arguments.primal.shape, arguments.along_line,
                                vjp_operand_count, strides);
    if (plan.lines == 0 || plan.length == 0) return 0;
    put_neighbours_last(plan.outer);
    const KernelTable& table = kernels();
    // The exponential of a log-probability knows no temperature.
    const bool is_tempered = arguments.gradient != SoftmaxVjp::log_softmax;
    const AnyExpConstants constants =
        any_exp_constants(is_tempered ? arguments.temperature : 1.0, table.fused);
    const double out_bytes = static_cast<double>(plan.lines) * static_cast<double>(plan.length) *
                             static_cast<double>(storage_bytes(arguments.storage));
    const VjpCall call = {
        arguments,
        plan,
        table,
        table.softmax_vjp[static_cast<int>(arguments.storage)],
        table.softmax_vjp[static_cast<int>(compute_storage(arguments.storage))],
        {arguments.gradient, 1.0 / arguments.temperature, constants.of(arguments.storage)},
        out_bytes > static_cast<double>(table.streaming_bytes)};
    const unsigned flags = prefers_columns(call) ? softmax_vjp_columns(call)
                           : call.is_long()      ? softmax_vjp_long_rows(call)
                                                 : softmax_vjp_rows(call);
    return FloatEnvironment::has_overflow(flags) ? unsigned{status_over} : 0u;
}

}  // namespace unitstride
