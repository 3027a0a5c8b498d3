// The plain small call: an exact, C-contiguous float32 or float64 array and an integer axis,
// nothing else. Anything it does not recognise it answers with None, and Python takes the general
// way.
#include "bindings/module.hpp"
#include "ops/softmax.hpp"

namespace unitstride {
namespace {

struct PlainArray {
    const char* data;
    Storage storage;
    int type_number, axes;
    const std::ptrdiff_t* shape;
    std::ptrdiff_t rows, length;
};

// Fills `array` if `x` and `axis` ask for the last axis of a plain array.
bool recognise(PyObject* x, PyObject* axis, PlainArray& array) {
    const auto& api = py::detail::npy_api::get();
    if (Py_TYPE(x) != api.PyArray_Type_ || !PyLong_CheckExact(axis)) return false;
    const auto* proxy = py::detail::array_proxy(x);
    constexpr int c_contiguous_and_aligned = 0x1 | 0x100;
    if ((proxy->flags & c_contiguous_and_aligned) != c_contiguous_and_aligned || proxy->nd < 1)
        return false;
    const auto* type = py::detail::array_descriptor1_proxy(proxy->descr);
    if (type->byteorder != '=') return false;
    array.type_number = type->type_num;
    if (array.type_number != type_float32 && array.type_number != type_float64) return false;
    const long wanted = PyLong_AsLong(axis);
    if (wanted == -1 && PyErr_Occurred()) {
        PyErr_Clear();
        return false;
    }
    if (wanted != -1 && wanted != proxy->nd - 1) return false;
    array.storage = array.type_number == type_float32 ? Storage::float32 : Storage::float64;
    array.data = proxy->data;
    array.axes = proxy->nd;
    array.shape = proxy->dimensions;
    array.length = proxy->dimensions[proxy->nd - 1];
    array.rows = 1;
    for (int a = 0; a < proxy->nd - 1; ++a) array.rows *= proxy->dimensions[a];
    return array.length > 0 && array.rows > 0;
}

template <SoftmaxOutput output>
PyObject* fast_call(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
    PlainArray x;
    if (count != 2 || !recognise(arguments[0], arguments[1], x)) Py_RETURN_NONE;
    try {
        const bool reduces = output == SoftmaxOutput::none;
        PyObject* result = new_array(x.type_number, reduces ? x.axes - 1 : x.axes, x.shape);
        if (result == nullptr) return nullptr;
        const auto owner = py::reinterpret_steal<py::object>(result);
        char* data = py::detail::array_proxy(result)->data;
        const unsigned status = without_gil(x.rows * x.length, [&] {
            return softmax_contiguous(x.storage, output, x.data, reduces ? nullptr : data,
                                      reduces ? data : nullptr, x.rows, x.length);
        });
        if (status != 0) Py_RETURN_NONE;  // the general way reports it
        return owner.inc_ref().ptr();
    } catch (const Interrupted&) {
        if (!PyErr_Occurred()) PyErr_SetNone(PyExc_KeyboardInterrupt);
    } catch (const std::bad_alloc&) {
        PyErr_NoMemory();
    } catch (const py::error_already_set& error) {
        py::error_already_set(error).restore();
    } catch (const std::exception& error) {
        PyErr_SetString(PyExc_RuntimeError, error.what());
    }
    return nullptr;
}

template <SoftmaxOutput output>
PyCFunction entry() {
    return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&fast_call<output>));
}

PyMethodDef fast_calls[] = {
    {"softmax_fast", entry<SoftmaxOutput::softmax>(), METH_FASTCALL, nullptr},
    {"log_softmax_fast", entry<SoftmaxOutput::log_softmax>(), METH_FASTCALL, nullptr},
    {"logsumexp_fast", entry<SoftmaxOutput::none>(), METH_FASTCALL, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

void register_fast_calls(py::module_& module) {
    if (PyModule_AddFunctions(module.ptr(), fast_calls) != 0) throw py::error_already_set();
}

}  // namespace unitstride
