#include "ops/softmax_vjp.hpp"

#include <optional>

#include "bindings/module.hpp"

namespace unitstride {
namespace {

using OptionalArray = std::optional<py::array>;

unsigned run(const char* function, SoftmaxVjp gradient, const py::array& primal,
             const py::array& cotangent, const py::array& out, const py::tuple& axes,
             const OptionalArray& where, double temperature, const OptionalArray& log_sum) {
    const char* name = gradient == SoftmaxVjp::logsumexp ? "x" : "y";
    SoftmaxVjpArguments arguments;
    arguments.storage = storage_of(primal, function, name);
    arguments.gradient = gradient;
    arguments.temperature = temperature;
    const int type_number = primal.dtype().num();
    check_type(cotangent, type_number, function, "dy");
    check_type(out, type_number, function, "out");
    input_view(arguments.primal, primal, function, name);
    mark_axes(axes, arguments.primal.axes, arguments.along_line, function);
    input_view(arguments.cotangent, cotangent, function, "dy");
    output_view(arguments.out, out, function, "out");
    check_same_shape(arguments.out, arguments.primal, function, "out");
    if (log_sum) {
        check_type(*log_sum, type_number, function, "lse");
        input_view(arguments.log_sum, *log_sum, function, "lse");
        spread_view(arguments.log_sum, arguments.primal, arguments.along_line, function, "lse");
        spread_view(arguments.cotangent, arguments.primal, arguments.along_line, function, "dy");
    } else {
        check_same_shape(arguments.cotangent, arguments.primal, function, "dy");
    }
    if (where) {
        check_type(*where, type_bool, function, "where");
        input_view(arguments.where, *where, function, "where");
        check_same_shape(arguments.where, arguments.primal, function, "where");
    }
    return without_gil(primal.size(), [&] { return softmax_vjp(arguments); });
}

}  // namespace

void register_softmax_vjp(py::module_& module) {
    module.def(
        "softmax_vjp",
        [](const py::array& y, const py::array& dy, const py::array& out, const py::tuple& axes,
           const OptionalArray& where, double temperature) {
            return run("softmax_vjp", SoftmaxVjp::softmax, y, dy, out, axes, where, temperature,
                       std::nullopt);
        },
        py::arg("y"), py::arg("dy"), py::arg("out"), py::arg("axes"), py::arg("where"),
        py::arg("temperature"));
    module.def(
        "log_softmax_vjp",
        [](const py::array& y, const py::array& dy, const py::array& out, const py::tuple& axes,
           const OptionalArray& where, double temperature) {
            return run("log_softmax_vjp", SoftmaxVjp::log_softmax, y, dy, out, axes, where,
                       temperature, std::nullopt);
        },
        py::arg("y"), py::arg("dy"), py::arg("out"), py::arg("axes"), py::arg("where"),
        py::arg("temperature"));
    module.def(
        "logsumexp_vjp",
        [](const py::array& x, const py::array& lse, const py::array& dy, const py::array& out,
           const py::tuple& axes, const OptionalArray& where, double temperature) {
            return run("logsumexp_vjp", SoftmaxVjp::logsumexp, x, dy, out, axes, where, temperature,
                       lse);
        },
        py::arg("x"), py::arg("lse"), py::arg("dy"), py::arg("out"), py::arg("axes"),
        py::arg("where"), py::arg("temperature"));
}

}  // namespace unitstride
