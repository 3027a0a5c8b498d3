#include "ops/softmax.hpp"

#include <optional>

#include "bindings/module.hpp"

namespace unitstride {
namespace {

using OptionalArray = std::optional<py::array>;

// `out` and `log_sum` as the output asks for them.
unsigned run(const char* function, SoftmaxOutput output, const py::array& x,
             const OptionalArray& out, const py::tuple& axes, const OptionalArray& where,
             double temperature, const OptionalArray& log_sum) {
    SoftmaxArguments arguments;
    arguments.storage = storage_of(x, function, "x");
    arguments.output = output;
    arguments.temperature = temperature;
    input_view(arguments.x, x, function, "x");
    mark_axes(axes, arguments.x.axes, arguments.along_line, function);
    if (out) {
        check_type(*out, x.dtype().num(), function, "out");
        output_view(arguments.out, *out, function, "out");
        check_same_shape(arguments.out, arguments.x, function, "out");
    }
    if (where) {
        check_type(*where, type_bool, function, "where");
        input_view(arguments.where, *where, function, "where");
        check_same_shape(arguments.where, arguments.x, function, "where");
    }
    if (log_sum) {
        check_type(*log_sum, x.dtype().num(), function, "lse");
        output_view(arguments.log_sum, *log_sum, function, "lse");
        spread_view(arguments.log_sum, arguments.x, arguments.along_line, function, "lse");
    }
    return without_gil(x.size(), [&] { return softmax(arguments); });
}

}  // namespace

void register_softmax(py::module_& module) {
    module.def(
        "softmax",
        [](const py::array& x, const py::array& out, const py::tuple& axes,
           const OptionalArray& where, double temperature, const OptionalArray& lse) {
            return run("softmax", SoftmaxOutput::softmax, x, out, axes, where, temperature, lse);
        },
        py::arg("x"), py::arg("out"), py::arg("axes"), py::arg("where"), py::arg("temperature"),
        py::arg("lse"));
    module.def(
        "log_softmax",
        [](const py::array& x, const py::array& out, const py::tuple& axes,
           const OptionalArray& where, double temperature) {
            return run("log_softmax", SoftmaxOutput::log_softmax, x, out, axes, where, temperature,
                       std::nullopt);
        },
        py::arg("x"), py::arg("out"), py::arg("axes"), py::arg("where"), py::arg("temperature"));
    module.def(
        "logsumexp",
        [](const py::array& x, const py::array& out, const py::tuple& axes,
           const OptionalArray& where, double temperature) {
            return run("logsumexp", SoftmaxOutput::none, x, std::nullopt, axes, where, temperature,
                       out);
        },
        py::arg("x"), py::arg("out"), py::arg("axes"), py::arg("where"), py::arg("temperature"));
}

}  // namespace unitstride
