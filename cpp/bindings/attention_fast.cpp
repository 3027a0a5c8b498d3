// attention_fast(query, key, value, causal): the plain call, without the checks that Python makes.
//
// Exact arrays of one type with the same batch dimensions, nothing but `causal`. Anything it does
// not recognise it answers with None, and Python takes the general way.
#include <cmath>

#include "bindings/module.hpp"
#include "ops/attention.hpp"

namespace unitstride {
namespace {

constexpr std::ptrdiff_t most_entries = 64;
constexpr std::int64_t no_limit = std::int64_t{1} << 43;

bool recognise_array(PyObject* object, int& type_number, InputView& view) {
    const auto& api = py::detail::npy_api::get();
    if (Py_TYPE(object) != api.PyArray_Type_) return false;
    const auto* proxy = py::detail::array_proxy(object);
    const auto* type = py::detail::array_descriptor1_proxy(proxy->descr);
    constexpr int aligned = 0x100;
    if (type->byteorder != '=' || proxy->nd < 3 || proxy->nd > max_axes ||
        (proxy->flags & aligned) == 0)
        return false;
    type_number = type->type_num;
    if (type_number != type_float32 && type_number != type_float64) return false;
    const std::ptrdiff_t item = type_number == type_float32 ? 4 : 8;
    view.data = proxy->data;
    view.axes = proxy->nd;
    view.shape = proxy->dimensions;
    for (int axis = 0; axis < proxy->nd; ++axis) {
        if (proxy->dimensions[axis] == 0 || proxy->strides[axis] % item != 0) return false;
        view.strides[axis] = proxy->dimensions[axis] > 1 ? proxy->strides[axis] / item : 0;
    }
    return true;
}

bool shapes_fit(const AttentionArguments& task) {
    const int axes = task.query.axes;
    const auto *q = task.query.shape, *k = task.key.shape, *v = task.value.shape;
    if (task.key.axes != axes || task.value.axes != axes) return false;
    for (int axis = 0; axis < axes - 3; ++axis)
        if (k[axis] != q[axis] || v[axis] != q[axis]) return false;
    return k[axes - 1] == q[axes - 1] && q[axes - 3] % k[axes - 3] == 0 &&
           v[axes - 3] == k[axes - 3] && v[axes - 2] == k[axes - 2];
}

// How far the diagonal is shifted; false for what needs a closer look.
bool recognise_causal(PyObject* causal, std::ptrdiff_t queries, std::ptrdiff_t keys,
                      AttentionArguments& task, std::int64_t& offset) {
    task.lowest = -no_limit;
    task.highest = no_limit;
    offset = 0;
    if (causal == Py_False) return true;
    task.highest = 0;
    if (causal == Py_True) return queries == keys;
    if (!PyUnicode_CheckExact(causal)) return false;
    if (PyUnicode_CompareWithASCIIString(causal, "top_left") == 0) return true;
    offset = keys - queries;
    return PyUnicode_CompareWithASCIIString(causal, "bottom_right") == 0;
}

PyObject* run(PyObject* const* given) {
    AttentionArguments task = {};
    int types[3];
    if (!recognise_array(given[0], types[0], task.query) ||
        !recognise_array(given[1], types[1], task.key) ||
        !recognise_array(given[2], types[2], task.value) || types[0] != types[1] ||
        types[0] != types[2] || !shapes_fit(task))
        Py_RETURN_NONE;
    const int axes = task.query.axes;
    const auto* shape = task.query.shape;
    const std::ptrdiff_t keys = task.key.shape[axes - 2], queries = shape[axes - 2];
    std::ptrdiff_t batch = 1;
    for (int axis = 0; axis < axes - 3 && batch <= most_entries; ++axis) batch *= shape[axis];
    constexpr int c_contiguous = 0x1;
    std::int64_t offset;
    if (batch > most_entries || !recognise_causal(given[3], queries, keys, task, offset) ||
        (py::detail::array_proxy(given[0])->flags & c_contiguous) == 0)
        Py_RETURN_NONE;
    std::int64_t offsets[most_entries], query_lengths[most_entries], key_lengths[most_entries];
    for (std::ptrdiff_t entry = 0; entry < batch; ++entry) {
        offsets[entry] = offset;
        query_lengths[entry] = queries;
        key_lengths[entry] = keys;
    }
    task.offset = offsets;
    task.query_lengths = query_lengths;
    task.key_lengths = key_lengths;
    task.storage = types[0] == type_float32 ? Storage::float32 : Storage::float64;
    task.scale = 1.0 / std::sqrt(static_cast<double>(shape[axes - 1]));
    std::ptrdiff_t out_shape[max_axes];
    std::ptrdiff_t step = 1;
    for (int axis = 0; axis < axes; ++axis) out_shape[axis] = shape[axis];
    out_shape[axes - 1] = task.value.shape[axes - 1];
    const auto owner = py::reinterpret_steal<py::object>(new_array(types[0], axes, out_shape));
    if (!owner) return nullptr;
    task.out.data = py::detail::array_proxy(owner.ptr())->data;
    task.out.axes = axes;
    task.out.shape = out_shape;
    for (int axis = axes - 1; axis >= 0; step *= out_shape[axis--]) task.out.strides[axis] = step;
    const double work = attention_cost(task) / 16;
    const bool finite = without_gil(static_cast<std::ptrdiff_t>(work < 1e9 ? work : 1e9),
                                    [&] { return attention(task); });
    if (!finite) Py_RETURN_NONE;  // the general way reports it
    return owner.inc_ref().ptr();
}

PyObject* call(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
    if (count != 4) Py_RETURN_NONE;
    try {
        return run(arguments);
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

PyMethodDef methods[] = {
    {"attention_fast", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&call)),
     METH_FASTCALL, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

void register_attention_fast(py::module_& module) {
    if (PyModule_AddFunctions(module.ptr(), methods) != 0) throw py::error_already_set();
}

}  // namespace unitstride
