#include "ops/softmax.hpp"

#include <algorithm>
#include <cmath>

#include "core/float_environment.hpp"
#include "isa/dispatch.hpp"
#include "ops/logsumexp_refine.hpp"
#include "ops/softmax_forms.hpp"

namespace unitstride {
namespace {

// Lines side by side pay where neighbours are contiguous in an array, and where lines are too short
// to fill vectors.
bool prefers_columns(const SoftmaxCall& call) {
    const LinesPlan& plan = call.plan;
    if (plan.outer.count == 0 || plan.line.count > 1) return false;
    const Axis& neighbours = plan.outer.axis[plan.outer.count - 1];
    const std::ptrdiff_t lanes = call.kernels.lanes;
    if (neighbours.length < lanes / 2) return false;
    if (plan.length <= call.table.short_line_elements) return true;
    const bool x_by_columns =
        neighbours.stride[operand_x] == 1 && !line_is_contiguous(plan, operand_x);
    const bool out_by_columns = call.arguments.out && neighbours.stride[operand_out] == 1 &&
                                !line_is_contiguous(plan, operand_out);
    return x_by_columns || out_by_columns;
}

// Of lines side by side: whether those of x become contiguous ones on the way to the output.
bool can_turn(const SoftmaxCall& call) {
    return call.plan.length > call.table.short_line_elements && !call.masked() &&
           call.arguments.out && line_is_contiguous(call.plan, operand_out) &&
           call.across(operand_x) == 1 && call.storage() == compute_storage(call.storage());
}

// The outer axis along which x, or else the output, is contiguous goes last: it is the one that
// tiles span.
void put_neighbours_last(AxisList& outer) {
    for (const int operand : {operand_out, operand_x})
        for (int a = 0; a < outer.count; ++a)
            if (outer.axis[a].stride[operand] == 1) {
                std::rotate(outer.axis + a, outer.axis + a + 1, outer.axis + outer.count);
                break;
            }
}

void fill_empty_sums(const SoftmaxCall& call) {
    const LineSum empty = {-__builtin_huge_val(), __builtin_nan(""), false};
    for (std::ptrdiff_t line = 0; line < call.plan.lines; ++line) {
        std::ptrdiff_t offset[max_operands];
        call.plan.offsets_of(line, offset);
        call.write_log_sums(&empty, 1, offset);
    }
}

unsigned run(SoftmaxCall& call) {
    const std::ptrdiff_t line_bytes = call.plan.length * compute_bytes(call.storage());
    if (call.plan.length == 0) {
        if (call.wants_sums()) fill_empty_sums(call);
        return 0;
    }
    if (line_bytes > call.table.line_scratch_bytes) return softmax_long_lines(call);
    if (prefers_columns(call))
        return can_turn(call) ? softmax_turned_rows(call) : softmax_columns(call);
    const bool direct = !call.masked() &&
                        (line_is_contiguous(call.plan, operand_x) || reads_every_second(call)) &&
                        (!call.arguments.out || line_is_contiguous(call.plan, operand_out));
    return direct ? softmax_contiguous_rows(call) : softmax_packed_rows(call);
}

unsigned run_planned(const SoftmaxArguments& arguments, const LinesPlan& plan) {
    const KernelTable& table = kernels();
    const AnyExpConstants constants = any_exp_constants(arguments.temperature, table.fused);
    const double out_bytes =
        arguments.out ? static_cast<double>(plan.lines) * static_cast<double>(plan.length) *
                            static_cast<double>(storage_bytes(arguments.storage))
                      : 0.0;
    SoftmaxCall call = {arguments, plan,
                        table,     table.softmax[static_cast<int>(arguments.storage)],
                        constants, out_bytes > static_cast<double>(table.streaming_bytes)};
    return run(call);
}

}  // namespace

unsigned SoftmaxCall::write_log_sums(const LineSum* sums, std::ptrdiff_t count,
                                     const std::ptrdiff_t (&offset)[max_operands]) const {
    constexpr std::ptrdiff_t batch = 64;
    constexpr double may_overflow = 6e4;  // beyond the smallest of the storage types' ranges
    double value[batch];
    unsigned status = 0;
    const double inverse_temperature = constants.of_double.inverse_temperature_wide;
    for (std::ptrdiff_t begin = 0; begin < count; begin += batch) {
        const std::ptrdiff_t now = std::min(batch, count - begin);
        kernels.logs(sums + begin, value, now, inverse_temperature);
        for (std::ptrdiff_t i = 0; i < now; ++i) {
            std::ptrdiff_t place[max_operands];
            for (int k = 0; k < operand_count; ++k) place[k] = offset[k] + (begin + i) * across(k);
            if (nearly_cancels(value[i], sums[begin + i], inverse_temperature))
                value[i] = refined_log_sum(*this, place, sums[begin + i], value[i]);
            char* target =
                arguments.log_sum.data + place[operand_log_sum] * storage_bytes(storage());
            store_value(target, storage(), value[i]);
            const bool is_large = std::abs(value[i]) > may_overflow && std::isfinite(value[i]);
            if (is_large && std::isinf(load_value(target, storage()))) status |= status_over;
        }
    }
    return status;
}

unsigned softmax(const SoftmaxArguments& arguments) {
    if (arguments.out && arguments.log_sum && arguments.out.data == arguments.x.data) {
        // In place: the sums first, as some of them look at x again (Note [Cancellation in
        // logsumexp]).
        SoftmaxArguments sums = arguments, results = arguments;
        sums.out.data = nullptr;
        sums.output = SoftmaxOutput::none;
        results.log_sum.data = nullptr;
        return softmax(sums) | softmax(results);
    }
    const std::ptrdiff_t* strides[] = {arguments.x.strides,
                                       arguments.out ? arguments.out.strides : nullptr,
                                       arguments.where ? arguments.where.strides : nullptr,
                                       arguments.log_sum ? arguments.log_sum.strides : nullptr};
    LinesPlan plan = plan_lines(arguments.x.axes, arguments.x.shape, arguments.along_line,
                                operand_count, strides);
    if (plan.lines == 0) return 0;
    put_neighbours_last(plan.outer);
    return run_planned(arguments, plan);
}

unsigned softmax_contiguous(Storage storage, SoftmaxOutput output, const char* x, char* out,
                            char* log_sum, std::ptrdiff_t rows, std::ptrdiff_t length) {
    SoftmaxArguments arguments;
    arguments.storage = storage;
    arguments.output = output;
    arguments.x.data = x;
    arguments.out.data = out;
    arguments.log_sum.data = log_sum;
    arguments.temperature = 1.0;
    LinesPlan plan;
    plan.operands = operand_count;
    plan.lines = rows;
    plan.length = length;
    plan.outer.count = 1;
    plan.outer.axis[0] = {rows, {length, length, 0, 1}};
    plan.line.count = 1;
    plan.line.axis[0] = {length, {1, 1, 0, 0}};
    if (rows == 0) return 0;
    return run_planned(arguments, plan);
}

}  // namespace unitstride
