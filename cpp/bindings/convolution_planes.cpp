// convolve_planes(x, k, out, start, boundary, bias, silu, step, spread) -> status bits, and the
// gradients of its taps: convolution_products(x, slopes, sums, begin, step, spread, taps).
#include "ops/convolution_planes.hpp"

#include <optional>
#include <utility>

#include "bindings/module.hpp"
#include "core/checked.hpp"

namespace unitstride {
namespace {

using Pair = std::pair<std::ptrdiff_t, std::ptrdiff_t>;

constexpr const char* planes = "convolve_planes";
constexpr const char* products = "convolution_products";
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

// Whether an axis fits; one of length one serves for any.
bool broadcast(InputView& view, int axis, std::ptrdiff_t length) {
    if (view.shape[axis] == 1) view.strides[axis] = 0;
    return view.shape[axis] == 1 || view.shape[axis] == length;
}

void check_place(const PlanesArguments& arguments, int i) {
    const int a = arguments.x.axes - 2 + i;
    const std::ptrdiff_t length = arguments.x.shape[a], taps = arguments.k.shape[a];
    if (length < 1 || taps < 1) refuse(planes, "x", "and `k` must not be empty");
    if (arguments.boundary == Boundary::zero) {
        if (taps > farthest / arguments.spread[i] ||
            arguments.out.shape[a] > farthest / arguments.step[i])
            refuse(planes, "spread", "and `step` reach too far");
        return;
    }
    if (arguments.step[i] != 1 || arguments.spread[i] != 1)
        refuse(planes, "step", "and `spread` must be 1 with this boundary");
    if (arguments.start[i] < 0 || arguments.out.shape[a] > length + taps - 1 - arguments.start[i])
        refuse(planes, "start", "is out of range");
}

unsigned planes_call(const py::array& x, const py::array& k, const py::array& out,
                     const Pair& start, int boundary, const std::optional<py::array>& bias,
                     bool silu, const Pair& step, const Pair& spread) {
    PlanesArguments arguments;
    arguments.storage = storage_of(x, planes, "x");
    check_type(k, x.dtype().num(), planes, "k");
    check_type(out, x.dtype().num(), planes, "out");
    input_view(arguments.x, x, planes, "x");
    input_view(arguments.k, k, planes, "k");
    output_view(arguments.out, out, planes, "out");
    const int axes = arguments.x.axes;
    if (axes < 2 || arguments.k.axes != axes || arguments.out.axes != axes)
        refuse(planes, "k", "and `out` must have the axes of `x`, two or more");
    if (bias) {
        check_type(*bias, x.dtype().num(), planes, "bias");
        input_view(arguments.bias, *bias, planes, "bias");
        if (arguments.bias.axes != axes - 2) refuse(planes, "bias", "must have the axes of planes");
    }
    bool fits = true;
    for (int a = 0; a < axes - 2; ++a) {
        const std::ptrdiff_t length = arguments.out.shape[a];
        fits = broadcast(arguments.x, a, length) && broadcast(arguments.k, a, length) &&
               (!bias || broadcast(arguments.bias, a, length)) && fits;
    }
    if (!fits) refuse(planes, "k", "must have the shape of `out` but for the planes");
    if (boundary < 0 || boundary > static_cast<int>(Boundary::symmetric))
        refuse(planes, "boundary", "is out of range");
    arguments.boundary = static_cast<Boundary>(boundary);
    arguments.silu = silu;
    take(planes, "start", start, -farthest, arguments.start);
    take(planes, "step", step, 1, arguments.step);
    take(planes, "spread", spread, 1, arguments.spread);
    for (int i = 0; i < 2; ++i) check_place(arguments, i);
    return without_gil(out.size(), [&] { return convolve_planes(arguments); });
}

unsigned products_call(const py::array& x, const py::array& slopes, py::array_t<double>& sums,
                       const Pair& begin, const Pair& step, const Pair& spread, const Pair& taps) {
    ProductsArguments arguments;
    arguments.storage = storage_of(x, products, "x");
    check_type(slopes, x.dtype().num(), products, "slopes");
    input_view(arguments.x, x, products, "x");
    input_view(arguments.slopes, slopes, products, "slopes");
    take(products, "begin", begin, -farthest, arguments.begin);
    take(products, "step", step, 1, arguments.step);
    take(products, "spread", spread, 1, arguments.spread);
    take(products, "taps", taps, 1, arguments.taps);
    const int axes = arguments.x.axes;
    if (axes < 3 || arguments.slopes.axes != axes)
        refuse(products, "slopes", "must have the axes of `x`, three or more");
    std::ptrdiff_t planes_count = 1;
    for (int a = 0; a < axes; ++a) {
        const std::ptrdiff_t length = arguments.slopes.shape[a];
        if (length < 1 || arguments.x.shape[a] < 1)
            refuse(products, "slopes", "and `x` must not be empty");
        if (a < axes - 2 && !broadcast(arguments.x, a, length))
            refuse(products, "slopes", "must have the shape of `x` but for the planes");
        if (a > 0 && a < axes - 2) planes_count = checked_multiply(planes_count, length);
    }
    for (int i = 0; i < 2; ++i)
        if (arguments.taps[i] > farthest / arguments.spread[i] ||
            arguments.slopes.shape[axes - 2 + i] > farthest / arguments.step[i])
            refuse(products, "spread", "and `step` reach too far");
    const std::ptrdiff_t width = checked_multiply(arguments.taps[0], arguments.taps[1]) + 1;
    if (sums.ndim() != 3 || sums.shape(0) < 1 || sums.shape(1) != planes_count ||
        sums.shape(2) != width || (sums.flags() & py::array::c_style) == 0)
        refuse(products, "sums", "must be contiguous, (chunks, planes, taps + 1)");
    arguments.sums = sums.mutable_data();
    arguments.chunks = sums.shape(0);
    return without_gil(slopes.size(), [&] { return convolution_products(arguments); });
}

}  // namespace

void register_convolution_planes(py::module_& module) {
    module.def(planes, planes_call, py::arg("x"), py::arg("k"), py::arg("out"), py::arg("start"),
               py::arg("boundary"), py::arg("bias"), py::arg("silu"), py::arg("step") = Pair(1, 1),
               py::arg("spread") = Pair(1, 1));
    module.def(products, products_call, py::arg("x"), py::arg("slopes"),
               py::arg("sums").noconvert(), py::arg("begin"), py::arg("step"), py::arg("spread"),
               py::arg("taps"));
}

}  // namespace unitstride
