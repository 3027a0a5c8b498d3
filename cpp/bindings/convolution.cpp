// convolve(x, k, out, axis, start, boundary) -> status bits, the same by Fourier transforms, and
// the plain calls as a whole:
// convolve_fast and correlate_fast(x, k, mode, axis) -> array or None.
#include "ops/convolution.hpp"

#include <cmath>
#include <cstring>
#include <optional>

#include "bindings/module.hpp"
#include "core/checked.hpp"
#include "ops/convolution_fft.hpp"
#include "ops/convolution_range.hpp"
#include "ops/lines.hpp"

namespace unitstride {
namespace {

constexpr const char* name = "convolve";
constexpr int most_logarithm = 20;

[[noreturn]] void refuse(const char* argument, const char* text) {
    throw Error(Error::Kind::value, quoted(name, argument) + text);
}

// The checked arguments of a call, whose arrays outlive it.
ConvolutionArguments checked(const py::array& x, const py::array& k, const py::array& out, int axis,
                             std::ptrdiff_t start, int boundary) {
    ConvolutionArguments arguments;
    arguments.storage = storage_of(x, name, "x");
    check_type(k, x.dtype().num(), name, "k");
    check_type(out, x.dtype().num(), name, "out");
    input_view(arguments.x, x, name, "x");
    input_view(arguments.k, k, name, "k");
    output_view(arguments.out, out, name, "out");
    const int axes = arguments.x.axes;
    if (axis < 0 || axis >= axes) refuse("axis", "is out of range");
    if (arguments.k.axes != axes || arguments.out.axes != axes)
        refuse("k", "and `out` must have the axes of `x`");
    for (int a = 0; a < axes; ++a) {
        const std::ptrdiff_t length = arguments.out.shape[a];
        if (a != axis && (arguments.x.shape[a] != length || arguments.k.shape[a] != length))
            refuse("k", "must have the shape of `out` but along the axis");
    }
    const std::ptrdiff_t length = arguments.x.shape[axis], taps = arguments.k.shape[axis];
    if (length < 1 || taps < 1) refuse("x", "and `k` must not be empty");
    if (start < 0 || arguments.out.shape[axis] > length + taps - 1 - start)
        refuse("start", "is out of range");
    if (boundary < 0 || boundary > static_cast<int>(Boundary::symmetric))
        refuse("boundary", "is out of range");
    arguments.axis = axis;
    arguments.start = start;
    arguments.boundary = static_cast<Boundary>(boundary);
    return arguments;
}

unsigned general_call(const py::array& x, const py::array& k, const py::array& out, int axis,
                      std::ptrdiff_t start, int boundary) {
    const ConvolutionArguments arguments = checked(x, k, out, axis, start, boundary);
    return without_gil(checked_multiply(x.size(), arguments.k.shape[axis]),
                       [&] { return convolve(arguments); });
}

// A spectrum comes with the logarithm of its length.
int transform_call(const py::array& x, const py::array& k, const py::array& out, int axis,
                   std::ptrdiff_t start, int boundary, bool complex_x, bool complex_k,
                   const std::optional<py::array>& spectrum, int logarithm) {
    TransformArguments arguments = {checked(x, k, out, axis, start, boundary), complex_x, complex_k,
                                    nullptr, 0};
    if (spectrum) {
        const ConvolutionArguments& call = arguments.convolution;
        const py::ssize_t bytes = compute_bytes(call.storage);
        if (logarithm < 1 || logarithm > most_logarithm ||
            spectrum->nbytes() != (bytes << (logarithm + 1)) ||
            call.k.shape[axis] > (std::ptrdiff_t{1} << logarithm) ||
            (spectrum->flags() & py::array::c_style) == 0)
            refuse("spectrum", "must be that of the kernel");
        for (int a = 0; a < call.k.axes; ++a)
            if (a != axis && call.k.shape[a] > 1 && call.k.strides[a] != 0)
                refuse("spectrum", "must be that of the only kernel");
        arguments.spectrum = static_cast<const char*>(spectrum->data());
        arguments.logarithm = logarithm;
    }
    return without_gil(out.size(), [&] { return convolve_fft(arguments); });
}

void spectrum_call(const py::array& k, bool complex_k, int logarithm, py::array& spectrum) {
    if (k.ndim() != 1 || k.size() == 0) refuse("k", "must have one axis, and not be empty");
    TransformArguments arguments = {};
    ConvolutionArguments& call = arguments.convolution;
    call.storage = storage_of(k, name, "k");
    input_view(call.x, k, name, "k");
    input_view(call.k, k, name, "k");
    call.out.axes = 1;  // as long as the kernel; it is not written
    call.out.shape = call.k.shape;
    call.out.strides[0] = 1;
    arguments.complex_k = complex_k;
    if (logarithm < 1 || logarithm > most_logarithm ||
        call.k.shape[0] > (std::ptrdiff_t{1} << logarithm))
        refuse("logarithm", "is out of range");
    if (spectrum.nbytes() != (py::ssize_t{compute_bytes(call.storage)} << (logarithm + 1)) ||
        (spectrum.flags() & py::array::c_style) == 0)
        refuse("spectrum", "must be contiguous, with two numbers for each point");
    spectrum_of(arguments, logarithm, static_cast<char*>(spectrum.mutable_data()));
}

double range_call(const py::array& x, const py::array& k, int axis, std::ptrdiff_t segment) {
    RangeArguments arguments;
    arguments.storage = storage_of(x, "convolution_range", "x");
    check_type(k, x.dtype().num(), "convolution_range", "k");
    input_view(arguments.x, x, "convolution_range", "x");
    input_view(arguments.k, k, "convolution_range", "k");
    const int axes = arguments.x.axes;
    if (axis < 0 || axis >= axes || arguments.k.axes != axes) refuse("axis", "is out of range");
    for (int a = 0; a < axes; ++a)
        if (a != axis && arguments.x.shape[a] != arguments.k.shape[a])
            refuse("k", "must have the shape of `x` but along the axis");
    if (segment < 1) refuse("segment", "must be positive");
    arguments.axis = axis;
    arguments.segment = segment;
    return without_gil(x.size(), [&] { return convolution_range(arguments); });
}

double transform_time(std::ptrdiff_t lines, std::ptrdiff_t kernels, std::ptrdiff_t length,
                      std::ptrdiff_t taps, std::ptrdiff_t outputs, bool is_complex,
                      bool is_double) {
    return convolve_fft_nanoseconds(lines, kernels, length, taps, outputs, is_complex,
                                    is_double ? Storage::float64 : Storage::float32);
}

// A native float32 or float64 array whose steps are whole elements.
bool recognise(PyObject* object, InputView& view, int& type_number) {
    const auto& api = py::detail::npy_api::get();
    if (Py_TYPE(object) != api.PyArray_Type_) return false;
    const auto* proxy = py::detail::array_proxy(object);
    const auto* type = py::detail::array_descriptor1_proxy(proxy->descr);
    type_number = type->type_num;
    if (type->byteorder != '=' || (type_number != type_float32 && type_number != type_float64))
        return false;
    if (proxy->nd < 1) return false;
    const std::ptrdiff_t item = type_number == type_float32 ? 4 : 8;
    view.data = proxy->data;
    view.axes = proxy->nd;
    view.shape = proxy->dimensions;
    for (int axis = 0; axis < proxy->nd; ++axis) {
        if (proxy->dimensions[axis] < 1 || proxy->strides[axis] % item != 0) return false;
        view.strides[axis] = proxy->dimensions[axis] > 1 ? proxy->strides[axis] / item : 0;
    }
    return true;
}

template <class T>
bool all_finite(const InputView& taps) {
    bool finite = true;
    for (std::ptrdiff_t j = 0; j < taps.shape[0]; ++j) {
        T value;
        std::memcpy(&value,
                    taps.data + j * taps.strides[0] * static_cast<std::ptrdiff_t>(sizeof(T)),
                    sizeof value);
        finite = finite && std::isfinite(value);
    }
    return finite;
}

// Where the outputs of a mode begin in the whole convolution, and how many there are.
bool find_mode(PyObject* mode, std::ptrdiff_t length, std::ptrdiff_t taps, std::ptrdiff_t& start,
               std::ptrdiff_t& outputs) {
    if (!PyUnicode_CheckExact(mode)) return false;
    const auto is = [&](const char* word) {
        return PyUnicode_CompareWithASCIIString(mode, word) == 0;
    };
    start = 0;
    outputs = length;
    if (is("full")) {
        outputs = length + taps - 1;
    } else if (is("same")) {
        start = (taps - 1) / 2;
    } else if (is("valid")) {
        start = taps - 1;
        outputs = length - taps + 1;
    } else if (!is("causal")) {
        return false;
    }
    return outputs > 0;
}

// Whether the direct method is what method="auto" takes: see `_convolution_methods.py`.
bool is_surely_direct(std::ptrdiff_t lines, std::ptrdiff_t outputs, std::ptrdiff_t taps) {
    constexpr std::ptrdiff_t few_taps = 64, little_work = 1 << 20;
    return taps <= few_taps || (lines < little_work && outputs < little_work / lines / taps);
}

// An array of `array`'s shape with other lengths along the axis, and the shape of one kernel.
struct Shapes {
    std::ptrdiff_t out[max_axes], kernel[max_axes];
    std::ptrdiff_t lines = 1;

    Shapes(const InputView& x, int axis, std::ptrdiff_t outputs, std::ptrdiff_t taps) {
        for (int a = 0; a < x.axes; ++a) {
            out[a] = a == axis ? outputs : x.shape[a];
            kernel[a] = a == axis ? taps : x.shape[a];
            if (a != axis) lines *= x.shape[a];
        }
    }
};

PyObject* plain_call(PyObject* const* objects, bool correlates) {
    ConvolutionArguments call;
    InputView taps;
    int type, taps_type;
    if (!recognise(objects[0], call.x, type) || !recognise(objects[1], taps, taps_type) ||
        type != taps_type || taps.axes != 1 || !PyLong_CheckExact(objects[3]))
        Py_RETURN_NONE;
    int overflow;
    const long wanted = PyLong_AsLongAndOverflow(objects[3], &overflow);
    const int axes = call.x.axes;
    if (overflow != 0 || wanted < -axes || wanted >= axes) Py_RETURN_NONE;
    call.axis = static_cast<int>(wanted < 0 ? wanted + axes : wanted);
    const std::ptrdiff_t count = taps.shape[0];
    std::ptrdiff_t outputs;
    if (!find_mode(objects[2], call.x.shape[call.axis], count, call.start, outputs)) Py_RETURN_NONE;
    const Shapes shapes(call.x, call.axis, outputs, count);
    if (!is_surely_direct(shapes.lines, outputs, count)) Py_RETURN_NONE;
    const bool is_single = type == type_float32;
    if (!(is_single ? all_finite<float>(taps) : all_finite<double>(taps))) Py_RETURN_NONE;

    call.storage = is_single ? Storage::float32 : Storage::float64;
    call.boundary = Boundary::zero;
    call.k.axes = call.out.axes = axes;
    call.k.shape = shapes.kernel;
    for (int a = 0; a < axes; ++a) call.k.strides[a] = 0;
    const std::ptrdiff_t step = taps.strides[0];
    call.k.data = taps.data + (correlates ? (count - 1) * step * (is_single ? 4 : 8) : 0);
    call.k.strides[call.axis] = correlates ? -step : step;

    PyObject* result = new_array(type, axes, shapes.out);
    if (result == nullptr) return nullptr;
    const auto owner = py::reinterpret_steal<py::object>(result);
    call.out.data = py::detail::array_proxy(result)->data;
    call.out.shape = shapes.out;
    std::ptrdiff_t stride = 1;
    for (int a = axes - 1; a >= 0; --a) {
        call.out.strides[a] = stride;
        stride *= shapes.out[a];
    }
    const unsigned status = without_gil(stride * count / 16, [&] { return convolve(call); });
    if (status != 0) Py_RETURN_NONE;  // the general way reports it
    return owner.inc_ref().ptr();
}

template <bool correlates>
PyObject* fast_call(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
    if (count != 4) Py_RETURN_NONE;
    try {
        return plain_call(arguments, correlates);
    } catch (const Interrupted&) {
        if (!PyErr_Occurred()) PyErr_SetNone(PyExc_KeyboardInterrupt);
    } catch (const std::bad_alloc&) {
        PyErr_NoMemory();
    } catch (py::error_already_set& error) {
        error.restore();
    } catch (const std::exception& error) {
        PyErr_SetString(PyExc_RuntimeError, error.what());
    }
    return nullptr;
}

template <bool correlates>
PyCFunction entry() {
    return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&fast_call<correlates>));
}

PyMethodDef methods[] = {
    {"convolve_fast", entry<false>(), METH_FASTCALL, nullptr},
    {"correlate_fast", entry<true>(), METH_FASTCALL, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

void register_convolution(py::module_& module) {
    module.def(name, general_call, py::arg("x"), py::arg("k"), py::arg("out"), py::arg("axis"),
               py::arg("start"), py::arg("boundary"));
    module.def("convolve_fft", transform_call, py::arg("x"), py::arg("k"), py::arg("out"),
               py::arg("axis"), py::arg("start"), py::arg("boundary"), py::arg("complex_x"),
               py::arg("complex_k"), py::arg("spectrum") = py::none(), py::arg("logarithm") = 0);
    module.def("convolution_spectrum", spectrum_call, py::arg("k"), py::arg("complex_k"),
               py::arg("logarithm"), py::arg("spectrum"));
    module.def("convolution_range", range_call, py::arg("x"), py::arg("k"), py::arg("axis"),
               py::arg("segment"));
    module.def("convolve_fft_nanoseconds", transform_time, py::arg("lines"), py::arg("kernels"),
               py::arg("length"), py::arg("taps"), py::arg("outputs"), py::arg("is_complex"),
               py::arg("is_double"));
    if (PyModule_AddFunctions(module.ptr(), methods) != 0) throw py::error_already_set();
}

}  // namespace unitstride
