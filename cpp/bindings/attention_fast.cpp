// attention_fast(query, key, value, causal, scale, out, return_lse): the plain call, without the
// checks that Python makes.
//
// Exact arrays of one type with the same batch dimensions. Anything it does not recognise it
// answers with None, and Python takes the general way.
#include <algorithm>
#include <cmath>

#include "bindings/contract_results.hpp"
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

bool recognise_scale(PyObject* scale, double& value) {
    if (scale == Py_None) return true;
    if (!PyFloat_CheckExact(scale)) return false;
    value = PyFloat_AS_DOUBLE(scale);
    return std::isfinite(value);
}

// A given result: of the type and shape of a new one, and apart from the inputs.
bool recognise_out(PyObject* const* given, int type_number, const std::ptrdiff_t* shape,
                   InputView& view) {
    PyObject* const out = given[5];
    int own_type;
    constexpr int writeable = 0x400;
    if (!recognise_array(out, own_type, view) || own_type != type_number ||
        view.axes != py::detail::array_proxy(given[0])->nd ||
        (py::detail::array_proxy(out)->flags & writeable) == 0)
        return false;
    if (!std::equal(shape, shape + view.axes, view.shape)) return false;
    const std::ptrdiff_t item = type_number == type_float32 ? 4 : 8;
    if (!is_nested(*py::detail::array_proxy(out), item)) return false;
    for (int input = 0; input < 3; ++input)
        if (may_overlap(*py::detail::array_proxy(out), item, *py::detail::array_proxy(given[input]),
                        item))
            return false;
    return true;
}

void view_of(PyObject* array, const std::ptrdiff_t* shape, OutputView& view) {
    view.data = py::detail::array_proxy(array)->data;
    view.axes = py::detail::array_proxy(array)->nd;
    view.shape = shape;
    std::ptrdiff_t step = 1;
    for (int axis = view.axes - 1; axis >= 0; step *= shape[axis--]) view.strides[axis] = step;
}

// Every sequence of its full length.
struct Lengths {
    std::int64_t offsets[most_entries], queries[most_entries], keys[most_entries];

    void set(AttentionArguments& task, std::ptrdiff_t batch, std::int64_t offset) {
        std::fill_n(offsets, batch, offset);
        std::fill_n(queries, batch, task.query.shape[task.query.axes - 2]);
        std::fill_n(keys, batch, task.key.shape[task.key.axes - 2]);
        task.offset = offsets;
        task.query_lengths = queries;
        task.key_lengths = keys;
    }
};

// The new or the given result; nothing where it is not recognised.
py::object result_of(PyObject* const* given, int type_number, const std::ptrdiff_t* shape,
                     AttentionArguments& task) {
    const int axes = task.query.axes;
    if (given[5] == Py_None) {
        constexpr int c_contiguous = 0x1;
        if ((py::detail::array_proxy(given[0])->flags & c_contiguous) == 0) return {};
        auto fresh = py::reinterpret_steal<py::object>(new_array(type_number, axes, shape));
        if (!fresh) throw py::error_already_set();
        view_of(fresh.ptr(), shape, task.out);
        return fresh;
    }
    InputView view;
    if (!recognise_out(given, type_number, shape, view)) return {};
    task.out.data = py::detail::array_proxy(given[5])->data;
    task.out.axes = axes;
    task.out.shape = shape;
    std::copy_n(view.strides, axes, task.out.strides);
    return py::reinterpret_borrow<py::object>(given[5]);
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
    std::ptrdiff_t batch = 1;
    for (int axis = 0; axis < axes - 3 && batch <= most_entries; ++axis) batch *= shape[axis];
    std::int64_t offset;
    task.scale = 1.0 / std::sqrt(static_cast<double>(shape[axes - 1]));
    const bool wants_lse = given[6] == Py_True;
    if (batch > most_entries || (!wants_lse && given[6] != Py_False) ||
        !recognise_causal(given[3], shape[axes - 2], task.key.shape[axes - 2], task, offset) ||
        !recognise_scale(given[4], task.scale))
        Py_RETURN_NONE;
    std::ptrdiff_t out_shape[max_axes];
    std::copy_n(shape, axes - 1, out_shape);
    out_shape[axes - 1] = task.value.shape[axes - 1];
    const py::object result = result_of(given, types[0], out_shape, task);
    if (!result) Py_RETURN_NONE;
    py::object lse;
    if (wants_lse) {
        lse = py::reinterpret_steal<py::object>(new_array(types[0], axes - 1, out_shape));
        if (!lse) return nullptr;
        view_of(lse.ptr(), out_shape, task.lse);
    }
    Lengths lengths;
    lengths.set(task, batch, offset);
    task.storage = types[0] == type_float32 ? Storage::float32 : Storage::float64;
    const double work = attention_cost(task) / 16;
    const bool finite = without_gil(static_cast<std::ptrdiff_t>(work < 1e9 ? work : 1e9),
                                    [&] { return attention(task); });
    if (!finite) Py_RETURN_NONE;  // the general way reports it
    return wants_lse ? PyTuple_Pack(2, result.ptr(), lse.ptr()) : result.inc_ref().ptr();
}

PyObject* call(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
    if (count != 7) Py_RETURN_NONE;
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
