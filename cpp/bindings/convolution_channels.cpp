// Convolution with channels on a matrix unit: convolve_channels(x, w, bias, out, groups, begin,
// step, spread) -> status bits, or -1 where nothing is gained by one; and the gradients of its
// taps, convolution_channel_products(x, slopes, out, groups, begin, step, spread).
#include "ops/convolution_channels.hpp"

#include <optional>
#include <utility>

#include "bindings/module.hpp"

namespace unitstride {
namespace {

using Pair = std::pair<std::ptrdiff_t, std::ptrdiff_t>;

constexpr const char* convolve = "convolve_channels";
constexpr const char* multiply = "convolution_channel_products";
constexpr std::ptrdiff_t farthest = std::ptrdiff_t{1} << 40;  // no sum of places overflows

[[noreturn]] void refuse(const char* function, const char* argument, const char* text) {
    throw Error(Error::Kind::value, quoted(function, argument) + text);
}

void take(const char* function, const char* argument, const Pair& values, std::ptrdiff_t least,
          std::ptrdiff_t (&to)[2]) {
    to[0] = values.first;
    to[1] = values.second;
    for (const std::ptrdiff_t value : to)
        if (value < least || value > farthest) refuse(function, argument, "is out of range");
}

// Images, kernels and results of a convolution.
void check_shapes(const char* function, const py::array& x, const py::array& w,
                  const py::array& results, std::ptrdiff_t groups) {
    if (x.ndim() != 4 || w.ndim() != 4 || results.ndim() != 4)
        refuse(function, "x", "and the other arrays must have four axes");
    if (x.size() == 0 || w.size() == 0 || results.size() == 0)
        refuse(function, "x", "and the other arrays must not be empty");
    if (groups < 1 || w.shape(0) % groups != 0 || x.shape(1) % groups != 0 ||
        x.shape(1) / groups != w.shape(1))
        refuse(function, "groups", "must divide the channels of `x` and the kernels");
    if (results.shape(0) != x.shape(0) || results.shape(1) != w.shape(0))
        refuse(function, "x",
               "must have as many images as results, and these as many channels as "
               "there are kernels");
}

template <class Arguments>
void take_places(Arguments& arguments, const char* function, const py::array& x, const py::array& w,
                 const py::array& results, const Pair& begin, const Pair& step,
                 const Pair& spread) {
    arguments.storage = storage_of(x, function, "x");
    input_view(arguments.x, x, function, "x");
    take(function, "begin", begin, -farthest, arguments.begin);
    take(function, "step", step, 1, arguments.step);
    take(function, "spread", spread, 1, arguments.spread);
    for (int axis = 0; axis < 2; ++axis)
        if (w.shape(2 + axis) > farthest / arguments.spread[axis] ||
            results.shape(2 + axis) > farthest / arguments.step[axis])
            refuse(function, "spread", "and `step` reach too far");
}

int convolve_call(const py::array& x, const py::array& w, const std::optional<py::array>& bias,
                  const py::array& out, std::ptrdiff_t groups, const Pair& begin, const Pair& step,
                  const Pair& spread) {
    ChannelsArguments arguments;
    check_shapes(convolve, x, w, out, groups);
    take_places(arguments, convolve, x, w, out, begin, step, spread);
    const int number = x.dtype().num();
    check_type(w, number, convolve, "w");
    check_type(out, number, convolve, "out");
    input_view(arguments.w, w, convolve, "w");
    output_view(arguments.out, out, convolve, "out");
    arguments.groups = groups;
    if (bias) {
        check_type(*bias, number, convolve, "bias");
        input_view(arguments.bias, *bias, convolve, "bias");
        if (bias->ndim() != 1 || bias->shape(0) != w.shape(0))
            refuse(convolve, "bias", "must have a number for each kernel of `w`");
    }
    return without_gil(out.size(), [&] { return convolve_channels(arguments); });
}

int products_call(const py::array& x, const py::array& slopes, const py::array& out,
                  std::ptrdiff_t groups, const Pair& begin, const Pair& step, const Pair& spread) {
    ChannelProductsArguments arguments;
    check_shapes(multiply, x, out, slopes, groups);
    take_places(arguments, multiply, x, out, slopes, begin, step, spread);
    const int number = x.dtype().num();
    check_type(slopes, number, multiply, "slopes");
    check_type(out, number, multiply, "out");
    input_view(arguments.slopes, slopes, multiply, "slopes");
    output_view(arguments.out, out, multiply, "out");
    arguments.groups = groups;
    return without_gil(slopes.size(), [&] { return convolution_channel_products(arguments); });
}

}  // namespace

void register_convolution_channels(py::module_& module) {
    module.def(convolve, convolve_call, py::arg("x"), py::arg("w"), py::arg("bias"), py::arg("out"),
               py::arg("groups"), py::arg("begin"), py::arg("step"), py::arg("spread"));
    module.def(multiply, products_call, py::arg("x"), py::arg("slopes"), py::arg("out"),
               py::arg("groups"), py::arg("begin"), py::arg("step"), py::arg("spread"));
}

}  // namespace unitstride
