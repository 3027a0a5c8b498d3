// convolve_channels(x, w, bias, out, groups, begin, step, spread) -> status bits, or -1 where there is
// nothing to be gained by a matrix unit.
#include "ops/convolution_channels.hpp"

#include <optional>
#include <utility>

#include "bindings/module.hpp"

namespace unitstride {
namespace {

using Pair = std::pair<std::ptrdiff_t, std::ptrdiff_t>;

constexpr const char* name = "convolve_channels";
constexpr std::ptrdiff_t farthest = std::ptrdiff_t{1} << 40;  // no sum of places overflows

[[noreturn]] void refuse(const char* argument, const char* text) {
    throw Error(Error::Kind::value, quoted(name, argument) + text);
}

void take(const char* argument, const Pair& values, std::ptrdiff_t least, std::ptrdiff_t (&to)[2]) {
    to[0] = values.first;
    to[1] = values.second;
    for (const std::ptrdiff_t value : to)
        if (value < least || value > farthest) refuse(argument, "is out of range");
}

int channels_call(const py::array& x, const py::array& w, const std::optional<py::array>& bias,
                  const py::array& out, std::ptrdiff_t groups, const Pair& begin, const Pair& step,
                  const Pair& spread) {
    ChannelsArguments arguments;
    arguments.storage = storage_of(x, name, "x");
    const int number = x.dtype().num();
    check_type(w, number, name, "w");
    check_type(out, number, name, "out");
    input_view(arguments.x, x, name, "x");
    input_view(arguments.w, w, name, "w");
    output_view(arguments.out, out, name, "out");
    if (x.ndim() != 4 || w.ndim() != 4 || out.ndim() != 4)
        refuse("x", "and `w` and `out` must have four axes");
    if (x.size() == 0 || w.size() == 0 || out.size() == 0)
        refuse("x", "and `w` and `out` must not be empty");
    arguments.groups = groups;
    if (groups < 1 || w.shape(0) % groups != 0 || x.shape(1) % groups != 0 ||
        x.shape(1) / groups != w.shape(1))
        refuse("groups", "must divide the channels of `x` and the kernels of `w`");
    if (out.shape(0) != x.shape(0) || out.shape(1) != w.shape(0))
        refuse("out", "must have the images of `x` and the kernels of `w`");
    if (bias) {
        check_type(*bias, number, name, "bias");
        input_view(arguments.bias, *bias, name, "bias");
        if (bias->ndim() != 1 || bias->shape(0) != w.shape(0))
            refuse("bias", "must have a number for each kernel of `w`");
    }
    take("begin", begin, -farthest, arguments.begin);
    take("step", step, 1, arguments.step);
    take("spread", spread, 1, arguments.spread);
    for (int axis = 0; axis < 2; ++axis)
        if (w.shape(2 + axis) > farthest / arguments.spread[axis] ||
            out.shape(2 + axis) > farthest / arguments.step[axis])
            refuse("spread", "and `step` reach too far");
    return without_gil(out.size(), [&] { return convolve_channels(arguments); });
}

}  // namespace

void register_convolution_channels(py::module_& module) {
    module.def(name, channels_call, py::arg("x"), py::arg("w"), py::arg("bias"), py::arg("out"),
               py::arg("groups"), py::arg("begin"), py::arg("step"), py::arg("spread"));
}

}  // namespace unitstride
