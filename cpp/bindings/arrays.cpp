#include "bindings/arrays.hpp"

#include <algorithm>
#include <cstdlib>
#include <vector>

#include "core/checked.hpp"

namespace unitstride {
namespace {

std::ptrdiff_t bytes_of(std::ptrdiff_t item, int axes, const std::ptrdiff_t* shape) {
    std::ptrdiff_t bytes = item;
    for (int axis = 0; axis < axes; ++axis) {
        if (shape[axis] == 0) return 0;
        bytes = checked_multiply(bytes, shape[axis]);
    }
    return bytes;
}

py::capsule recycled_block(std::ptrdiff_t bytes, char*& memory) {
    memory = acquire_block(bytes);
    return py::capsule(memory, [](void* block) { release_block(static_cast<char*>(block)); });
}

int bfloat16_number = -1;

template <class View>
void fill_labelled(Labelled<View>& into, PyObject* object, PyObject* labels, const char* argument) {
    constexpr const char* function = "contract";
    const auto& api = py::detail::npy_api::get();
    if (!api.PyArray_Check_(object))
        throw Error(Error::Kind::type, quoted(function, argument) + "must be an array");
    const auto* proxy = py::detail::array_proxy(object);
    const auto* type = py::detail::array_descriptor1_proxy(proxy->descr);
    std::ptrdiff_t item;
    if (!element_of(type->type_num, into.element, item))
        throw Error(Error::Kind::type, quoted(function, argument) + "has an unsupported dtype");
    if (type->byteorder != '=' && type->byteorder != '|')
        throw Error(Error::Kind::type, quoted(function, argument) + "must have native byte order");
    if (!PyTuple_Check(labels) || PyTuple_GET_SIZE(labels) != proxy->nd || proxy->nd > max_axes)
        throw Error(Error::Kind::value,
                    quoted(function, argument) + "must have one label for each axis");
    into.view.data = proxy->data;
    into.view.axes = proxy->nd;
    into.view.shape = proxy->dimensions;
    bool empty = false;
    for (int axis = 0; axis < proxy->nd; ++axis) empty = empty || proxy->dimensions[axis] == 0;
    for (int axis = 0; axis < proxy->nd; ++axis) {
        const long label = PyLong_AsLong(PyTuple_GET_ITEM(labels, axis));
        if (label == -1 && PyErr_Occurred()) throw py::error_already_set();
        into.label[axis] = static_cast<short>(label < 0 || label >= label_limit ? -1 : label);
        const bool steps = proxy->dimensions[axis] > 1 && !empty;
        if (steps && proxy->strides[axis] % item != 0)
            throw Error(Error::Kind::value, quoted(function, argument) +
                                                "must have strides that are multiples of " +
                                                std::to_string(item) + " bytes, got " +
                                                std::to_string(proxy->strides[axis]));
        into.view.strides[axis] = steps ? proxy->strides[axis] / item : 0;
    }
}

}  // namespace

bool storage_of_number(int number, Storage& storage) noexcept {
    switch (number) {
        case type_float32: return storage = Storage::float32, true;
        case type_float64: return storage = Storage::float64, true;
        case type_float16: return storage = Storage::float16, true;
        default: break;
    }
    storage = Storage::bfloat16;
    return number == bfloat16_number && number >= 0;
}

void set_bfloat16_number(int number) { bfloat16_number = number; }

bool element_of(int type_number, Element& element, std::ptrdiff_t& bytes) noexcept {
    switch (type_number) {
        case type_float32: return element = Element::float32, bytes = 4, true;
        case type_float64: return element = Element::float64, bytes = 8, true;
        case type_float16: return element = Element::float16, bytes = 2, true;
        case type_uint16: return element = Element::bfloat16, bytes = 2, true;
        case type_complex64: return element = Element::complex64, bytes = 8, true;
        case type_complex128: return element = Element::complex128, bytes = 16, true;
        default: return false;
    }
}

void labelled_input(Labelled<InputView>& into, PyObject* array, PyObject* labels,
                    const char* argument) {
    fill_labelled(into, array, labels, argument);
}

void labelled_output(Labelled<OutputView>& into, PyObject* array, PyObject* labels) {
    fill_labelled(into, array, labels, "out");
    constexpr int writeable = 0x400;
    if (!(py::detail::array_proxy(array)->flags & writeable))
        throw Error(Error::Kind::value, quoted("contract", "out") + "must be writeable");
    bool empty = false;
    for (int axis = 0; axis < into.view.axes; ++axis) empty = empty || into.view.shape[axis] == 0;
    for (int axis = 0; axis < into.view.axes && !empty; ++axis)
        if (into.view.shape[axis] > 1 && into.view.strides[axis] == 0)
            throw Error(Error::Kind::value,
                        quoted("contract", "out") + "must not overlap itself, got a zero stride");
}

py::array empty_like(const py::array& like, bool same_place,
                     const std::optional<std::vector<std::ptrdiff_t>>& other) {
    const int axes = static_cast<int>(like.ndim());
    const std::ptrdiff_t item = like.itemsize();
    const auto shape =
        other ? *other : std::vector<std::ptrdiff_t>(like.shape(), like.shape() + axes);
    if (shape.size() != static_cast<std::size_t>(axes))
        throw Error(Error::Kind::value, quoted("empty_like", "shape") + "has the wrong length");
    const std::ptrdiff_t bytes = bytes_of(item, axes, shape.data());
    std::vector<int> order(static_cast<std::size_t>(axes));
    for (int axis = 0; axis < axes; ++axis) order[static_cast<std::size_t>(axis)] = axis;
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
        return std::abs(like.strides(a)) > std::abs(like.strides(b));
    });
    std::vector<std::ptrdiff_t> strides(static_cast<std::size_t>(axes));
    std::ptrdiff_t step = item;
    for (auto axis = order.rbegin(); axis != order.rend(); ++axis) {
        strides[static_cast<std::size_t>(*axis)] = step;
        step *= std::max<std::ptrdiff_t>(shape[static_cast<std::size_t>(*axis)], 1);
    }
    if (bytes < recycled_from_bytes) {
        count_allocation();
        return py::array(like.dtype(), shape, strides);
    }
    char* memory = nullptr;
    const auto place = reinterpret_cast<std::uintptr_t>(like.data()) % scratch_alignment;
    const std::ptrdiff_t offset = same_place && place % static_cast<std::uintptr_t>(item) == 0
                                      ? static_cast<std::ptrdiff_t>(place)
                                      : 0;
    const py::capsule owner = recycled_block(checked_add(bytes, offset), memory);
    return py::array(like.dtype(), shape, strides, memory + offset, owner);
}

PyObject* new_array(int type_number, int axes, const std::ptrdiff_t* shape,
                    const std::ptrdiff_t* strides) {
    auto& api = py::detail::npy_api::get();
    PyObject* type = api.PyArray_DescrFromType_(type_number);
    Element element;
    std::ptrdiff_t item = 4;
    if (!element_of(type_number, element, item) && type_number == bfloat16_number) item = 2;
    const std::ptrdiff_t bytes = bytes_of(item, axes, shape);
    if (bytes < recycled_from_bytes)
        return api.PyArray_NewFromDescr_(api.PyArray_Type_, type, axes,
                                         const_cast<Py_intptr_t*>(shape),
                                         const_cast<Py_intptr_t*>(strides), nullptr, 0, nullptr);
    char* memory = nullptr;
    const py::capsule owner = recycled_block(bytes, memory);
    constexpr int writeable_and_aligned = 0x400 | 0x100;
    PyObject* array = api.PyArray_NewFromDescr_(
        api.PyArray_Type_, type, axes, const_cast<Py_intptr_t*>(shape),
        const_cast<Py_intptr_t*>(strides), memory, writeable_and_aligned, nullptr);
    if (array != nullptr) api.PyArray_SetBaseObject_(array, owner.inc_ref().ptr());
    return array;
}

}  // namespace unitstride
