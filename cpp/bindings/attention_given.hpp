// The arguments of a call of attention, read straight from the interpreter's objects: what the fast
// calls recognise. Whatever else is given is left to Python, which converts it or names the fault.
#pragma once

#include <vector>

#include "bindings/arrays.hpp"
#include "ops/attention.hpp"

namespace unitstride {

using py::detail::PyArray_Proxy;

// The options in the order of the call, after the arrays.
enum AttentionOption : int {
    option_mask,
    option_bias,
    option_causal,
    option_window,
    option_scale,
    option_softcap,
    option_slopes,
    option_sinks,
    option_query_lengths,
    option_key_lengths,
    option_count
};

class GivenAttention {
  public:
    AttentionArguments task = {};
    int type_number = 0, axes = 0;
    std::ptrdiff_t item = 0;
    std::ptrdiff_t query_shape[max_axes], key_shape[max_axes], value_shape[max_axes];
    std::ptrdiff_t out_shape[max_axes];
    const std::ptrdiff_t* order;  // strides of the queries, that the result takes its order from

    // Exact arrays of one type whose batch dimensions broadcast, and options of plain types. False
    // for what needs a closer look.
    bool read(PyObject* const* arrays, PyObject* const* options);

    // An exact array of this shape, for inputs that the gradient has beside.
    bool read_beside(PyObject* object, int type, const std::ptrdiff_t* shape, int count,
                     InputView& view);

    // An array for results that shares no memory with itself or with any array that was read.
    bool read_out(PyObject* object);

    // Whether an array, the first three in their order, was given in the whole shape of the batch.
    bool is_whole(int array) const;

    // The type of the log-sum-exp.
    int level_type() const { return type_number == type_float64 ? type_float64 : type_float32; }

  private:
    const PyArray_Proxy* recognise(PyObject* object);
    bool read_arrays(PyObject* const* arrays);
    bool read_scores(PyObject* const* options);
    bool read_heads(PyObject* object, double* numbers);
    bool read_integers(PyObject* object, std::int64_t least, std::int64_t most,
                       std::int64_t* numbers);
    bool read_positions(PyObject* const* options);
    bool read_causal(PyObject* causal, std::int64_t* offset);
    bool read_window(PyObject* window);

    std::ptrdiff_t batch_ = 1;
    std::ptrdiff_t full_shape_[max_axes];  // (*batch, heads, queries, keys)
    std::vector<std::int64_t> positions_;  // offsets and lengths
    std::vector<double> heads_;            // slopes and sinks
    const PyArray_Proxy* arrays_[16];      // all that were read
    std::ptrdiff_t items_[16];             // and the bytes of their elements
    int count_ = 0;
};

// A new array with the order of axes in memory that an array with these strides has.
PyObject* new_array_in_order(int type_number, std::ptrdiff_t item, int axes,
                             const std::ptrdiff_t* shape, const std::ptrdiff_t* strides);

}  // namespace unitstride
