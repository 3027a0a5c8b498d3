// attention_fast(query, key, value, options ..., return_lse, out) and attention_vjp_fast(query,
// key, value, options ..., out, lse, cotangent): calls of little work, without the checks that
// Python makes.
//
// Anything they do not recognise they answer with None, and Python takes the general way.
#include <cmath>

#include "bindings/attention_given.hpp"
#include "bindings/module.hpp"

namespace unitstride {
namespace {

// Multiply-adds beyond which the general way is no slower: results that are not finite cost the
// work twice.
constexpr double most_work = 1e8;

void fill_output(OutputView& view, const py::object& array, const std::ptrdiff_t* shape, int axes,
                 std::ptrdiff_t item) {
    const auto* proxy = py::detail::array_proxy(array.ptr());
    view.data = proxy->data;
    view.axes = axes;
    view.shape = shape;
    for (int axis = 0; axis < axes; ++axis)
        view.strides[axis] = shape[axis] > 1 ? proxy->strides[axis] / item : 0;
}

// A new array with the order of axes that these strides have.
py::object new_output(const GivenAttention& call, OutputView& view, const std::ptrdiff_t* shape,
                      const std::ptrdiff_t* order) {
    auto array = py::reinterpret_steal<py::object>(
        new_array_in_order(call.type_number, call.item, call.axes, shape, order));
    if (!array) throw py::error_already_set();
    fill_output(view, array, shape, call.axes, call.item);
    return array;
}

py::object forward(PyObject* const* given) {
    GivenAttention call;
    AttentionArguments& task = call.task;
    PyObject *returns_lse = given[3 + option_count], *out = given[4 + option_count];
    if (!call.read(given, given + 3) || (returns_lse != Py_True && returns_lse != Py_False) ||
        (out != Py_None && !call.read_out(out)))
        return py::none();
    const double work = attention_cost(task);
    if (work > most_work) return py::none();
    const py::object result = out != Py_None
                                  ? py::reinterpret_borrow<py::object>(out)
                                  : new_output(call, task.out, call.out_shape, call.order);
    py::object lse;
    if (returns_lse == Py_True) {
        const int type = call.level_type();
        lse = py::reinterpret_steal<py::object>(new_array(type, call.axes - 1, call.query_shape));
        if (!lse) throw py::error_already_set();
        fill_output(task.lse, lse, call.query_shape, call.axes - 1, type == type_float64 ? 8 : 4);
    }
    const bool finite =
        without_gil(static_cast<std::ptrdiff_t>(work / 16), [&] { return attention(task); });
    if (!finite) return py::none();  // the general way reports it
    if (!lse) return result;
    return py::reinterpret_steal<py::object>(PyTuple_Pack(2, result.ptr(), lse.ptr()));
}

template <py::object (*call)(PyObject* const*), int arguments_count>
PyObject* entry(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
    if (count != arguments_count) Py_RETURN_NONE;
    try {
        return call(arguments).release().ptr();
    } catch (const Interrupted&) {
        if (!PyErr_Occurred()) PyErr_SetNone(PyExc_KeyboardInterrupt);
    } catch (const std::bad_alloc&) {
        PyErr_NoMemory();
    } catch (const Error& error) {
        PyErr_SetString(PyExc_ValueError, error.what());
    } catch (py::error_already_set& error) {
        error.restore();
    } catch (const std::exception& error) {
        PyErr_SetString(PyExc_RuntimeError, error.what());
    }
    return nullptr;
}

// Whether all numbers of an array without gaps are finite: their exponents are not all ones.
template <class Bits>
bool all_finite(const char* data, std::ptrdiff_t count, Bits exponent) {
    bool finite = true;
    const Bits* bits = reinterpret_cast<const Bits*>(data);
    for (std::ptrdiff_t k = 0; k < count; ++k) finite &= (bits[k] & exponent) != exponent;
    return finite;
}

bool is_finite(Storage storage, const OutputView& view) {
    std::ptrdiff_t count = 1;
    for (int axis = 0; axis < view.axes; ++axis) count *= view.shape[axis];
    switch (storage) {
        case Storage::float32: return all_finite(view.data, count, std::uint32_t{0x7f800000});
        case Storage::float64: return all_finite(view.data, count, std::uint64_t{0x7ff} << 52);
        case Storage::float16: return all_finite(view.data, count, Float16::infinity);
        default: return all_finite(view.data, count, BFloat16::infinity);
    }
}

py::object backward(PyObject* const* given) {
    GivenAttention call;
    AttentionVjpArguments task = {};
    PyObject* const* beside = given + 3 + option_count;
    if (!call.read(given, given + 3) || !call.is_whole(0) || !call.is_whole(1) ||
        !call.is_whole(2) ||
        !call.read_beside(beside[0], call.type_number, call.out_shape, call.axes, task.out) ||
        !call.read_beside(beside[1], call.level_type(), call.query_shape, call.axes - 1,
                          task.lse) ||
        !call.read_beside(beside[2], call.type_number, call.out_shape, call.axes, task.cotangent))
        return py::none();
    const double work = attention_cost(call.task);
    if (work > most_work) return py::none();
    task.forward = call.task;
    const py::object d_query =
                         new_output(call, task.d_query, call.query_shape, call.task.query.strides),
                     d_key = new_output(call, task.d_key, call.key_shape, call.task.key.strides),
                     d_value =
                         new_output(call, task.d_value, call.value_shape, call.task.value.strides);
    without_gil(static_cast<std::ptrdiff_t>(work / 16), [&] { attention_vjp(task); });
    for (const OutputView* view : {&task.d_query, &task.d_key, &task.d_value})
        if (!is_finite(call.task.storage, *view)) return py::none();  // the general way reports it
    return py::reinterpret_steal<py::object>(
        PyTuple_Pack(3, d_query.ptr(), d_key.ptr(), d_value.ptr()));
}

template <py::object (*call)(PyObject* const*), int arguments_count>
PyCFunction function() {
    return reinterpret_cast<PyCFunction>(
        reinterpret_cast<void (*)()>(&entry<call, arguments_count>));
}

PyMethodDef methods[] = {
    {"attention_fast", function<forward, 5 + option_count>(), METH_FASTCALL, nullptr},
    {"attention_vjp_fast", function<backward, 6 + option_count>(), METH_FASTCALL, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

void register_attention_fast(py::module_& module) {
    if (PyModule_AddFunctions(module.ptr(), methods) != 0) throw py::error_already_set();
}

}  // namespace unitstride
