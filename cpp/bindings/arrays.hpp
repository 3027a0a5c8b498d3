// NumPy arrays to views. The only place that looks inside an array; every check names the argument.
//
// Python has already decided on promotion, axes and copies, with errors for people; what is checked
// here is what would otherwise corrupt memory.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <optional>
#include <string>
#include <vector>

#include "core/error.hpp"
#include "core/recycling.hpp"
#include "core/scratch.hpp"
#include "core/storage.hpp"
#include "core/view.hpp"
#include "ops/contract.hpp"

namespace unitstride {

namespace py = pybind11;

// NumPy's type numbers, which are part of its binary interface.
enum TypeNumber : int {
    type_bool = 0,
    type_uint8 = 2,
    type_uint16 = 4,
    type_float32 = 11,
    type_float64 = 12,
    type_complex64 = 14,
    type_complex128 = 15,
    type_float16 = 23
};

inline std::string quoted(const char* function, const char* argument) {
    return std::string(function) + ": `" + argument + "` ";
}

// bfloat16 comes as uint16: its own type number is not fixed.
inline Storage storage_of(const py::array& array, const char* function, const char* argument) {
    switch (array.dtype().num()) {
        case type_float32: return Storage::float32;
        case type_float64: return Storage::float64;
        case type_float16: return Storage::float16;
        case type_uint16: return Storage::bfloat16;
        default:
            throw Error(Error::Kind::type,
                        quoted(function, argument) +
                            "must be float32, float64, float16 or uint16 (bfloat16), got " +
                            py::str(array.dtype()).cast<std::string>());
    }
}

// The same by NumPy's type number; false for others. bfloat16 is no dtype of NumPy's own: its
// number is known once Python has met an array of it.
bool storage_of_number(int number, Storage& storage) noexcept;
void set_bfloat16_number(int number);

template <class Data>
void fill_view(StridedView<Data>& view, const py::array& array, const char* function,
               const char* argument) {
    const char order = array.dtype().byteorder();
    if (order != '=' && order != '|')
        throw Error(Error::Kind::type, quoted(function, argument) + "must have native byte order");
    if (array.ndim() > max_axes)
        throw Error(Error::Kind::value, quoted(function, argument) + "has too many axes");
    view.axes = static_cast<int>(array.ndim());
    view.shape = array.shape();
    const std::ptrdiff_t item = array.itemsize();
    const bool empty = array.size() == 0;  // its strides lead nowhere
    for (int axis = 0; axis < view.axes; ++axis) {
        const bool steps = array.shape(axis) > 1 && !empty;
        if (steps && array.strides(axis) % item != 0)
            throw Error(Error::Kind::value, quoted(function, argument) +
                                                "must have strides that are multiples of " +
                                                std::to_string(item) + " bytes, got " +
                                                std::to_string(array.strides(axis)));
        view.strides[axis] = steps ? array.strides(axis) / item : 0;
    }
}

inline void check_type(const py::array& array, int type_number, const char* function,
                       const char* argument) {
    if (array.dtype().num() != type_number)
        throw Error(Error::Kind::type, quoted(function, argument) + "has the wrong dtype, got " +
                                           py::str(array.dtype()).cast<std::string>());
}

inline void input_view(InputView& view, const py::array& array, const char* function,
                       const char* argument) {
    fill_view(view, array, function, argument);
    view.data = static_cast<const char*>(array.data());
}

inline void output_view(OutputView& view, const py::array& array, const char* function,
                        const char* argument) {
    if (!array.writeable())
        throw Error(Error::Kind::value, quoted(function, argument) + "must be writeable");
    fill_view(view, array, function, argument);
    for (int axis = 0; axis < view.axes && array.size() > 0; ++axis)
        if (array.shape(axis) > 1 && view.strides[axis] == 0)
            throw Error(Error::Kind::value,
                        quoted(function, argument) + "must not overlap itself, got a zero stride");
    view.data = static_cast<char*>(const_cast<void*>(array.data()));
}

template <class View, class Other>
void check_same_shape(const View& view, const Other& other, const char* function,
                      const char* argument) {
    bool same = view.axes == other.axes;
    for (int axis = 0; same && axis < view.axes; ++axis)
        same = view.shape[axis] == other.shape[axis];
    if (!same) throw Error(Error::Kind::value, quoted(function, argument) + "has the wrong shape");
}

// The element type of a contraction and its bytes; false for other types.
bool element_of(int type_number, Element& element, std::ptrdiff_t& bytes) noexcept;

// The view and the labels of an array of a contraction, straight from the interpreter's objects:
// for small arrays this is most of the call.
void labelled_input(Labelled<InputView>& into, PyObject* array, PyObject* labels,
                    const char* argument);
void labelled_output(Labelled<OutputView>& into, PyObject* array, PyObject* labels);

// Which axes of an array of `axes` axes the tuple names.
inline void mark_axes(const py::tuple& axes, int count, bool* along_line, const char* function) {
    for (int axis = 0; axis < count; ++axis) along_line[axis] = false;
    for (const py::handle item : axes) {
        const auto axis = item.cast<std::ptrdiff_t>();
        if (axis < 0 || axis >= count || along_line[axis])
            throw Error(Error::Kind::value,
                        quoted(function, "axis") + "is wrong: " + std::to_string(axis));
        along_line[axis] = true;
    }
}

// Strides of an array that lacks the axes along the line, as if it had them with stride 0.
template <class Data>
void spread_view(StridedView<Data>& view, const InputView& like, const bool* along_line,
                 const char* function, const char* argument) {
    std::ptrdiff_t strides[max_axes];
    int own = 0;
    bool fits = true;
    for (int axis = 0; axis < like.axes; ++axis) {
        strides[axis] = 0;
        if (along_line[axis]) continue;
        fits = fits && own < view.axes && view.shape[own] == like.shape[axis];
        if (fits) strides[axis] = view.strides[own];
        ++own;
    }
    if (!fits || own != view.axes)
        throw Error(Error::Kind::value, quoted(function, argument) + "has the wrong shape");
    view.axes = like.axes;
    view.shape = like.shape;
    for (int axis = 0; axis < like.axes; ++axis) view.strides[axis] = strides[axis];
}

// A fresh array with the axes of `like` in the same order in memory (NumPy's order "K"). With
// `same_place` it begins at the same place in a cache line as `like`: rows of both can then be
// walked by whole lines at once. `shape`, where given, is the new array's own.
py::array empty_like(const py::array& like, bool same_place,
                     const std::optional<std::vector<std::ptrdiff_t>>& shape);
// The same for a shape, given NumPy's number of a type of contractions or storage; in C order, or
// with strides that leave no gaps.
PyObject* new_array(int type_number, int axes, const std::ptrdiff_t* shape,
                    const std::ptrdiff_t* strides = nullptr);

}  // namespace unitstride
