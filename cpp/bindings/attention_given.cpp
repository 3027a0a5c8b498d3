#include "bindings/attention_given.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "bindings/contract_results.hpp"
#include "ops/lines.hpp"

namespace unitstride {
namespace {

constexpr int aligned = 0x100, writeable = 0x400;
// A side of a window without limit: beyond every position, and no sum of it overflows.
constexpr std::int64_t no_limit = std::int64_t{1} << 43;
constexpr std::int64_t farthest = std::int64_t{1} << 40;
// NumPy's numbers of the integers of C that NumPy's own lengths may have.
constexpr int type_int = 5, type_long = 7, type_long_long = 9;

int type_of(const PyArray_Proxy& array) {
    return py::detail::array_descriptor1_proxy(array.descr)->type_num;
}

// Strides in bytes of `array` broadcast to `shape`.
bool broadcast_strides(const PyArray_Proxy& array, const std::ptrdiff_t* shape, int axes,
                       std::ptrdiff_t* strides) {
    const int lead = axes - array.nd;
    if (lead < 0) return false;
    std::fill_n(strides, lead, std::ptrdiff_t{0});
    for (int axis = 0; axis < array.nd; ++axis) {
        const std::ptrdiff_t size = array.dimensions[axis];
        if (size != 1 && size != shape[lead + axis]) return false;
        strides[lead + axis] = size > 1 ? array.strides[axis] : 0;
    }
    return true;
}

template <class View>
bool place(View& view, const PyArray_Proxy& array, std::ptrdiff_t item, const std::ptrdiff_t* shape,
           int axes) {
    if (!broadcast_strides(array, shape, axes, view.strides)) return false;
    for (int axis = 0; axis < axes; ++axis) {
        if (view.strides[axis] % item != 0) return false;
        view.strides[axis] /= item;
    }
    view.data = array.data;
    view.axes = axes;
    view.shape = shape;
    return true;
}

// Calls `take(index, element)` for each element of `array` broadcast to `shape`, in C order.
template <class Take>
bool for_each(const PyArray_Proxy& array, const std::ptrdiff_t* shape, int axes, Take&& take) {
    std::ptrdiff_t strides[max_axes], count = 1;
    if (!broadcast_strides(array, shape, axes, strides)) return false;
    for (int axis = 0; axis < axes; ++axis) count *= shape[axis];
    for (std::ptrdiff_t index = 0; index < count; ++index) {
        const char* element = array.data;
        std::ptrdiff_t rest = index;
        for (int axis = axes - 1; axis >= 0 && rest > 0; --axis) {
            element += rest % shape[axis] * strides[axis];
            rest /= shape[axis];
        }
        take(index, element);
    }
    return true;
}

template <class Number>
Number load(const char* element) {
    Number number;
    std::memcpy(&number, element, sizeof number);
    return number;
}

// A finite Python number, or one of NumPy's that is one.
bool read_number(PyObject* object, double& number) {
    if (PyFloat_CheckExact(object)) {
        number = PyFloat_AS_DOUBLE(object);
    } else if (PyFloat_Check(object) || PyLong_CheckExact(object)) {
        number = PyFloat_AsDouble(object);
        if (number == -1.0 && PyErr_Occurred()) {
            PyErr_Clear();
            return false;
        }
    } else {
        return false;
    }
    return std::isfinite(number);
}

bool read_integer(PyObject* object, std::int64_t& number) {
    if (!PyLong_CheckExact(object)) return false;
    int overflow = 0;
    number = PyLong_AsLongLongAndOverflow(object, &overflow);
    return overflow == 0;
}

}  // namespace

// The one array behind the object, in native byte order and with elements at whole addresses.
const PyArray_Proxy* GivenAttention::recognise(PyObject* object) {
    if (Py_TYPE(object) != py::detail::npy_api::get().PyArray_Type_) return nullptr;
    const auto* array = py::detail::array_proxy(object);
    const char bytes_from = py::detail::array_descriptor1_proxy(array->descr)->byteorder;
    if ((bytes_from != '=' && bytes_from != '|') || array->nd > max_axes ||
        (array->flags & aligned) == 0)
        return nullptr;
    for (int axis = 0; axis < array->nd; ++axis)
        if (array->dimensions[axis] == 0) return nullptr;
    Storage storage;
    std::ptrdiff_t bytes = 8;  // of integers at most
    if (storage_of_number(type_of(*array), storage)) bytes = storage_bytes(storage);
    arrays_[count_] = array;
    items_[count_++] = bytes;
    return array;
}

bool GivenAttention::read_arrays(PyObject* const* given) {
    const PyArray_Proxy* arrays[3];
    for (int k = 0; k < 3; ++k) {
        arrays[k] = recognise(given[k]);
        if (!arrays[k] || arrays[k]->nd < 3) return false;
        axes = std::max(axes, arrays[k]->nd);
    }
    type_number = type_of(*arrays[0]);
    if (type_of(*arrays[1]) != type_number || type_of(*arrays[2]) != type_number ||
        !storage_of_number(type_number, task.storage))
        return false;
    item = storage_bytes(task.storage);
    for (int axis = 0; axis < axes - 3; ++axis) {
        std::ptrdiff_t size = 1;
        for (const PyArray_Proxy* array : arrays) {
            const int own = axis - (axes - array->nd);
            if (own >= 0 && array->dimensions[own] != 1) size = array->dimensions[own];
        }
        query_shape[axis] = key_shape[axis] = value_shape[axis] = size;
        batch_ *= size;
    }
    const auto own = [&](int k, int from_back) {
        return arrays[k]->dimensions[arrays[k]->nd - from_back];
    };
    for (int back = 1; back <= 3; ++back) {
        query_shape[axes - back] = own(0, back);
        key_shape[axes - back] = own(1, back);
        value_shape[axes - back] = own(2, back);
    }
    if (own(1, 1) != own(0, 1) || own(0, 3) % own(1, 3) != 0 || own(2, 3) != own(1, 3) ||
        own(2, 2) != own(1, 2))
        return false;
    std::copy_n(query_shape, axes, out_shape);
    std::copy_n(query_shape, axes, full_shape_);
    out_shape[axes - 1] = own(2, 1);
    full_shape_[axes - 1] = own(1, 2);
    order = is_whole(0) ? arrays[0]->strides : task.query.strides;
    return place(task.query, *arrays[0], item, query_shape, axes) &&
           place(task.key, *arrays[1], item, key_shape, axes) &&
           place(task.value, *arrays[2], item, value_shape, axes);
}

bool GivenAttention::read_scores(PyObject* const* options) {
    if (options[option_mask] != Py_None) {
        const auto* mask = recognise(options[option_mask]);
        if (!mask || type_of(*mask) != type_bool || !place(task.mask, *mask, 1, full_shape_, axes))
            return false;
    }
    if (options[option_bias] != Py_None) {
        const auto* bias = recognise(options[option_bias]);
        if (!bias || !storage_of_number(type_of(*bias), task.bias_storage) ||
            (task.bias_storage == Storage::float64) != (task.storage == Storage::float64) ||
            !place(task.bias, *bias, storage_bytes(task.bias_storage), full_shape_, axes))
            return false;
    }
    task.scale = 1.0 / std::sqrt(static_cast<double>(query_shape[axes - 1]));
    if (options[option_scale] != Py_None && !read_number(options[option_scale], task.scale))
        return false;
    PyObject* softcap = options[option_softcap];
    if (softcap != Py_None && (!read_number(softcap, task.softcap) || task.softcap <= 0.0))
        return false;
    PyObject *slopes = options[option_slopes], *sinks = options[option_sinks];
    if (slopes == Py_None && sinks == Py_None) return true;
    const std::ptrdiff_t heads = batch_ * query_shape[axes - 3];
    heads_.resize(static_cast<std::size_t>(2 * heads));
    if (slopes != Py_None) task.slopes = heads_.data();
    if (sinks != Py_None) task.sinks = heads_.data() + heads;
    return (slopes == Py_None || read_heads(slopes, heads_.data())) &&
           (sinks == Py_None || read_heads(sinks, heads_.data() + heads));
}

// One number for each head, of an array that broadcasts to (*batch, heads).
bool GivenAttention::read_heads(PyObject* object, double* numbers) {
    const auto* array = recognise(object);
    if (!array) return false;
    const int type = type_of(*array);
    if (type == type_float64)
        return for_each(*array, query_shape, axes - 2,
                        [&](auto k, const char* from) { numbers[k] = load<double>(from); });
    return type == type_float32 &&
           for_each(*array, query_shape, axes - 2,
                    [&](auto k, const char* from) { numbers[k] = load<float>(from); });
}

// One integer for each entry of the batch.
bool GivenAttention::read_integers(PyObject* object, std::int64_t least, std::int64_t most,
                                   std::int64_t* numbers) {
    std::int64_t number;
    if (read_integer(object, number)) {
        std::fill_n(numbers, batch_, number);
        return least <= number && number <= most;
    }
    const auto* array = recognise(object);
    if (!array) return false;
    bool fits = true;
    const auto read = [&](auto zero) {
        return for_each(*array, query_shape, axes - 3, [&](auto k, const char* from) {
            numbers[k] = load<decltype(zero)>(from);
            fits = fits && least <= numbers[k] && numbers[k] <= most;
        });
    };
    switch (type_of(*array)) {
        case type_int: return read(int{}) && fits;
        case type_long: return read(long{}) && fits;
        case type_long_long: return read(static_cast<long long>(0)) && fits;
        default: return false;
    }
}

bool GivenAttention::read_positions(PyObject* const* options) {
    positions_.resize(static_cast<std::size_t>(3 * batch_));
    std::int64_t* offset = positions_.data();
    std::int64_t *queries = offset + batch_, *keys = queries + batch_;
    task.offset = offset;
    task.query_lengths = queries;
    task.key_lengths = keys;
    const std::ptrdiff_t most_queries = full_shape_[axes - 2], most_keys = full_shape_[axes - 1];
    std::fill_n(queries, batch_, most_queries);
    std::fill_n(keys, batch_, most_keys);
    PyObject* given = options[option_query_lengths];
    if (given != Py_None && !read_integers(given, 0, most_queries, queries)) return false;
    given = options[option_key_lengths];
    if (given != Py_None && !read_integers(given, 0, most_keys, keys)) return false;
    return read_causal(options[option_causal], offset) && read_window(options[option_window]);
}

bool GivenAttention::read_causal(PyObject* causal, std::int64_t* offset) {
    const std::int64_t *queries = task.query_lengths, *keys = task.key_lengths;
    task.lowest = -no_limit;
    task.highest = causal == Py_False ? no_limit : 0;
    std::fill_n(offset, batch_, 0);
    if (causal == Py_False) return true;
    if (causal == Py_True) return std::equal(queries, queries + batch_, keys);
    if (!PyUnicode_CheckExact(causal)) return read_integers(causal, -farthest, farthest, offset);
    if (PyUnicode_CompareWithASCIIString(causal, "top_left") == 0) return true;
    for (std::ptrdiff_t entry = 0; entry < batch_; ++entry)
        offset[entry] = keys[entry] - queries[entry];
    return PyUnicode_CompareWithASCIIString(causal, "bottom_right") == 0;
}

bool GivenAttention::read_window(PyObject* window) {
    if (window == Py_None) return true;
    if (!PyTuple_CheckExact(window) || PyTuple_GET_SIZE(window) != 2) return false;
    PyObject *left = PyTuple_GET_ITEM(window, 0), *right = PyTuple_GET_ITEM(window, 1);
    std::int64_t before = no_limit, after = no_limit;
    if (left != Py_None && (!read_integer(left, before) || before < 0)) return false;
    if (right != Py_None && (!read_integer(right, after) || after < 0)) return false;
    task.lowest = -std::min(before, no_limit);
    task.highest = std::min({after, no_limit, task.highest});
    return true;
}

bool GivenAttention::read(PyObject* const* arrays, PyObject* const* options) {
    return read_arrays(arrays) && read_scores(options) && read_positions(options);
}

bool GivenAttention::is_whole(int array) const {
    return arrays_[array]->nd == axes &&
           std::equal(query_shape, query_shape + axes - 3, arrays_[array]->dimensions);
}

bool GivenAttention::read_beside(PyObject* object, int type, const std::ptrdiff_t* shape, int count,
                                 InputView& view) {
    const auto* array = recognise(object);
    return array && type_of(*array) == type && array->nd == count &&
           std::equal(shape, shape + count, array->dimensions) &&
           place(view, *array, type == type_number ? item : 4, shape, count);
}

bool GivenAttention::read_out(PyObject* object) {
    const int inputs = count_;
    const auto* array = recognise(object);
    if (!array || type_of(*array) != type_number || array->nd != axes ||
        !std::equal(out_shape, out_shape + axes, array->dimensions) ||
        (array->flags & writeable) == 0 || !is_nested(*array, item) ||
        !place(task.out, *array, item, out_shape, axes))
        return false;
    for (int k = 0; k < inputs; ++k)
        if (may_overlap(*array, item, *arrays_[k], items_[k])) return false;
    return true;
}

PyObject* new_array_in_order(int type_number, std::ptrdiff_t item, int axes,
                             const std::ptrdiff_t* shape, const std::ptrdiff_t* strides) {
    int order[max_axes];  // from the longest strides to the shortest
    bool is_plain = true;
    for (int axis = 0; axis < axes; ++axis) {
        int place = axis;
        for (; place > 0 && std::abs(strides[order[place - 1]]) < std::abs(strides[axis]); --place)
            order[place] = order[place - 1];
        order[place] = axis;
        is_plain = is_plain && place == axis;
    }
    if (is_plain) return new_array(type_number, axes, shape);
    std::ptrdiff_t steps[max_axes], step = item;
    for (int place = axes - 1; place >= 0; step *= shape[order[place--]])
        steps[order[place]] = step;
    return new_array(type_number, axes, shape, steps);
}

}  // namespace unitstride
