// Results of contractions that run again: whether one may go to an array that the caller gives, and
// the order in memory of a new one.
#pragma once

#include <vector>

#include "bindings/arrays.hpp"

namespace unitstride {

using py::detail::PyArray_Proxy;

// Whether the axes of an array are nested, so that no two of its elements share memory.
bool is_nested(const PyArray_Proxy& array, std::ptrdiff_t item);

// Whether two arrays may share memory, by their first and last bytes.
bool may_overlap(const PyArray_Proxy& first, std::ptrdiff_t first_item, const PyArray_Proxy& second,
                 std::ptrdiff_t second_item);

// The order in memory that NumPy gives a result; see python/unitstride/_einsum_order.py.
class ResultOrder {
  public:
    // For each operand the place of each of its axes in the loop over all labels, that begins with
    // those of the result; -1 for axes of length one. No operands: the order is C's.
    using Loop = std::vector<std::vector<short>>;

    ResultOrder() = default;
    ResultOrder(const Loop& loop, const std::vector<std::ptrdiff_t>& shape, std::ptrdiff_t item,
                PyObject* const* operands);

    // The strides of a result of these operands, in `strides` or elsewhere; null for C order.
    const std::ptrdiff_t* strides_for(PyObject* const* operands, std::ptrdiff_t* strides) const;

  private:
    // `steps` has, for each operand, what it moves by at each place of the loop.
    bool strides_from(const std::vector<std::ptrdiff_t>& steps, std::ptrdiff_t* strides) const;

    Loop loop_;
    std::vector<std::ptrdiff_t> shape_;
    std::ptrdiff_t item_ = 0;
    std::size_t places_ = 0;
    std::vector<std::ptrdiff_t> of_contiguous_;  // empty for C order
};

}  // namespace unitstride
