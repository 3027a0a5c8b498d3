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

}  // namespace

py::array empty_like(const py::array& like, bool same_place) {
    const int axes = static_cast<int>(like.ndim());
    const std::ptrdiff_t item = like.itemsize();
    const std::ptrdiff_t bytes = bytes_of(item, axes, like.shape());
    std::vector<int> order(static_cast<std::size_t>(axes));
    for (int axis = 0; axis < axes; ++axis) order[static_cast<std::size_t>(axis)] = axis;
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
        return std::abs(like.strides(a)) > std::abs(like.strides(b));
    });
    std::vector<std::ptrdiff_t> strides(static_cast<std::size_t>(axes));
    std::ptrdiff_t step = item;
    for (auto axis = order.rbegin(); axis != order.rend(); ++axis) {
        strides[static_cast<std::size_t>(*axis)] = step;
        step *= std::max<std::ptrdiff_t>(like.shape(*axis), 1);
    }
    const std::vector<std::ptrdiff_t> shape(like.shape(), like.shape() + axes);
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

PyObject* new_array(int type_number, int axes, const std::ptrdiff_t* shape) {
    auto& api = py::detail::npy_api::get();
    PyObject* type = api.PyArray_DescrFromType_(type_number);
    const std::ptrdiff_t item = type_number == type_float64 ? 8 : 4;
    const std::ptrdiff_t bytes = bytes_of(item, axes, shape);
    if (bytes < recycled_from_bytes)
        return api.PyArray_NewFromDescr_(api.PyArray_Type_, type, axes,
                                         const_cast<Py_intptr_t*>(shape), nullptr, nullptr, 0,
                                         nullptr);
    char* memory = nullptr;
    const py::capsule owner = recycled_block(bytes, memory);
    constexpr int writeable_and_aligned = 0x400 | 0x100;
    PyObject* array =
        api.PyArray_NewFromDescr_(api.PyArray_Type_, type, axes, const_cast<Py_intptr_t*>(shape),
                                  nullptr, memory, writeable_and_aligned, nullptr);
    if (array != nullptr) api.PyArray_SetBaseObject_(array, owner.inc_ref().ptr());
    return array;
}

}  // namespace unitstride
