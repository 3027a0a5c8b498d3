#include "engine_calls.hpp"

#include <optional>
#include <stdexcept>

#include "ops/lines.hpp"
#include "ops/softmax.hpp"
#include "ops/softmax_vjp.hpp"

namespace unitstride::test {
namespace {

using Optional = std::optional<StridedArray>;

void place(Optional& array, const Problem& problem, const Shape& shape, const Layout& layout,
           const Bytes& elements) {
    array.emplace(storage_bytes(problem.storage), shape, layout);
    array->assign(elements);
}

void check_unchanged(const Optional& array, const Bytes& elements, const char* name) {
    if (!array) return;
    if (array->elements() != elements) throw std::logic_error(std::string(name) + " was changed");
}

void check_gaps(const Optional& array, const char* name) {
    if (array && !array->gaps_are_intact())
        throw std::logic_error("bytes between the elements of " + std::string(name) +
                               " were written");
}

struct Arrays {
    Optional primal, cotangent, log_sum, mask, own_out;

    Arrays(const Problem& problem, const Layouts& layouts) {
        const Shape reduced = problem.reduced_shape();
        place(primal, problem, problem.shape, layouts.primal, problem.primal);
        if (is_gradient(problem.operation))
            place(cotangent, problem, problem.cotangent_is_reduced() ? reduced : problem.shape,
                  layouts.cotangent, problem.cotangent);
        if (problem.operation == Operation::logsumexp_vjp)
            place(log_sum, problem, reduced, layouts.log_sum, problem.log_sum);
        if (problem.operation == Operation::logsumexp ||
            problem.operation == Operation::softmax_with_sum)
            log_sum.emplace(storage_bytes(problem.storage), reduced, layouts.log_sum);
        if (!problem.mask.empty()) {
            mask.emplace(1, problem.shape, layouts.mask);
            mask->assign(problem.mask);
        }
        if (problem.operation != Operation::logsumexp && !layouts.in_place)
            own_out.emplace(storage_bytes(problem.storage), problem.shape, layouts.out);
    }
};

unsigned call_forward(const Problem& problem, const Arrays& arrays, const Optional& out) {
    SoftmaxArguments arguments;
    arguments.storage = problem.storage;
    arguments.output = problem.operation == Operation::logsumexp     ? SoftmaxOutput::none
                       : problem.operation == Operation::log_softmax ? SoftmaxOutput::log_softmax
                                                                     : SoftmaxOutput::softmax;
    arguments.temperature = problem.temperature;
    arrays.primal->fill_view(arguments.x, problem.shape);
    if (problem.operation != Operation::logsumexp) out->fill_view(arguments.out, problem.shape);
    if (arrays.mask) arrays.mask->fill_view(arguments.where, problem.shape);
    if (arrays.log_sum) arrays.log_sum->fill_view(arguments.log_sum, problem.shape);
    for (std::size_t axis = 0; axis < problem.shape.size(); ++axis)
        arguments.along_line[axis] = problem.along_line[axis] != 0;
    return softmax(arguments);
}

unsigned call_gradient(const Problem& problem, const Arrays& arrays, const Optional& out) {
    SoftmaxVjpArguments arguments;
    arguments.storage = problem.storage;
    arguments.gradient = problem.operation == Operation::softmax_vjp       ? SoftmaxVjp::softmax
                         : problem.operation == Operation::log_softmax_vjp ? SoftmaxVjp::log_softmax
                                                                           : SoftmaxVjp::logsumexp;
    arguments.temperature = problem.temperature;
    arrays.primal->fill_view(arguments.primal, problem.shape);
    arrays.cotangent->fill_view(arguments.cotangent, problem.shape);
    out->fill_view(arguments.out, problem.shape);
    if (arrays.mask) arrays.mask->fill_view(arguments.where, problem.shape);
    if (arrays.log_sum) arrays.log_sum->fill_view(arguments.log_sum, problem.shape);
    for (std::size_t axis = 0; axis < problem.shape.size(); ++axis)
        arguments.along_line[axis] = problem.along_line[axis] != 0;
    return softmax_vjp(arguments);
}

std::string text_of(const Layout& layout) {
    std::string text = "order";
    for (const int axis : layout.order) text += " " + std::to_string(axis);
    text += " step";
    for (const auto step : layout.step) text += " " + std::to_string(step);
    if (layout.misaligned) text += " misaligned";
    return text + " place " + std::to_string(static_cast<int>(layout.place));
}

}  // namespace

const char* name_of(Operation operation) {
    constexpr const char* names[] = {"softmax",     "softmax with sum", "log_softmax",  "logsumexp",
                                     "softmax_vjp", "log_softmax_vjp",  "logsumexp_vjp"};
    return names[static_cast<int>(operation)];
}

std::ptrdiff_t Problem::elements() const {
    std::ptrdiff_t product = 1;
    for (const auto length : shape) product *= length;
    return product;
}

Shape Problem::reduced_shape() const {
    Shape reduced = shape;
    for (std::size_t axis = 0; axis < shape.size(); ++axis)
        if (along_line[axis]) reduced[axis] = 1;
    return reduced;
}

std::string Problem::text() const {
    constexpr const char* names[] = {"float32", "float64", "float16", "bfloat16"};
    std::string text =
        std::string(name_of(operation)) + " " + names[static_cast<int>(storage)] + " (";
    for (std::size_t axis = 0; axis < shape.size(); ++axis)
        text += std::to_string(shape[axis]) + (along_line[axis] ? "* " : " ");
    return text + ") temperature " + std::to_string(temperature) + (mask.empty() ? "" : " masked");
}

std::string Layouts::text() const {
    return "  primal: " + text_of(primal) + "\n  cotangent: " + text_of(cotangent) +
           "\n  log_sum: " + text_of(log_sum) + "\n  mask: " + text_of(mask) +
           "\n  out: " + (in_place ? "in place" : text_of(out));
}

Layouts all_contiguous(int axes) {
    const Layout plain = contiguous(axes);
    return {plain, plain, plain, plain, plain};
}

Result run(const Problem& problem, const Layouts& layouts) {
    const Arrays arrays(problem, layouts);
    const Optional& out = layouts.in_place ? arrays.primal : arrays.own_out;
    Result result;
    if (is_gradient(problem.operation)) {
        result.status = call_gradient(problem, arrays, out);
    } else {
        result.status = call_forward(problem, arrays, out);
    }
    if (!layouts.in_place) check_unchanged(arrays.primal, problem.primal, "the primal");
    check_unchanged(arrays.cotangent, problem.cotangent, "the cotangent");
    if (problem.operation == Operation::logsumexp_vjp)
        check_unchanged(arrays.log_sum, problem.log_sum, "the log sum");
    check_gaps(arrays.primal, "the primal");
    check_gaps(arrays.log_sum, "the log sum");
    check_gaps(arrays.own_out, "the output");
    if (problem.operation != Operation::logsumexp) result.out = out->elements();
    if (!is_gradient(problem.operation) && arrays.log_sum) result.sums = arrays.log_sum->elements();
    return result;
}

}  // namespace unitstride::test
