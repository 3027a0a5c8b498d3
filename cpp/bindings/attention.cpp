// attention(query, key, value, out, lse, mask, bias, integers, heads, numbers) -> all finite?
#include "ops/attention.hpp"

#include <optional>

#include "bindings/module.hpp"

namespace unitstride {
namespace {

using OptionalArray = std::optional<py::array>;
constexpr const char* function = "attention";

// A contiguous array of one number for each entry of the batch, or for each of its heads.
template <class Number>
const Number* numbers(const OptionalArray& array, std::ptrdiff_t count, const char* argument) {
    if (!array) return nullptr;
    if (!py::isinstance<py::array_t<Number>>(*array) || array->size() != count ||
        !(array->flags() & py::array::c_style))
        throw Error(Error::Kind::value, quoted(function, argument) + "has the wrong form");
    return static_cast<const Number*>(array->data());
}

// The shape of `view` from the axis `from_back` on is that of `other`, and so is the batch.
void check_axes(const InputView& query, const InputView& view, const char* argument, int from_back) {
    bool fits = view.axes == query.axes;
    for (int axis = 0; fits && axis < query.axes - from_back; ++axis)
        fits = view.shape[axis] == query.shape[axis];
    if (!fits) throw Error(Error::Kind::value, quoted(function, argument) + "has the wrong shape");
}

void check_shapes(const AttentionArguments& task) {
    const int axes = task.query.axes;
    const auto wrong = [](const char* argument) {
        throw Error(Error::Kind::value, quoted(function, argument) + "has the wrong shape");
    };
    if (axes < 3) wrong("query");
    check_axes(task.query, task.key, "key", 3);
    check_axes(task.query, task.value, "value", 3);
    const auto *q = task.query.shape, *k = task.key.shape, *v = task.value.shape;
    if (k[axes - 1] != q[axes - 1]) wrong("key");
    if (q[axes - 3] != k[axes - 3] && (k[axes - 3] == 0 || q[axes - 3] % k[axes - 3] != 0))
        wrong("key");
    if (v[axes - 3] != k[axes - 3] || v[axes - 2] != k[axes - 2]) wrong("value");
    bool fits = task.out.axes == axes && task.out.shape[axes - 1] == v[axes - 1];
    for (int axis = 0; fits && axis < axes - 1; ++axis) fits = task.out.shape[axis] == q[axis];
    if (!fits) wrong("out");
    if (task.lse) {
        fits = task.lse.axes == axes - 1;
        for (int axis = 0; fits && axis < axes - 1; ++axis) fits = task.lse.shape[axis] == q[axis];
        if (!fits) wrong("lse");
    }
    for (const InputView* view : {&task.mask, &task.bias})
        if (*view) {
            check_axes(task.query, *view, view == &task.mask ? "mask" : "bias", 1);
            if (view->shape[axes - 1] != k[axes - 2]) wrong("mask");
        }
}

bool call(const py::array& query, const py::array& key, const py::array& value,
          const py::array& out, const OptionalArray& lse, const OptionalArray& mask,
          const OptionalArray& bias, const OptionalArray& offset,
          const OptionalArray& query_lengths, const OptionalArray& key_lengths,
          const OptionalArray& slopes, const OptionalArray& sinks, std::int64_t lowest,
          std::int64_t highest, double scale, double softcap) {
    AttentionArguments task = {};
    task.storage = storage_of(query, function, "query");
    const int type = query.dtype().num();
    check_type(key, type, function, "key");
    check_type(value, type, function, "value");
    check_type(out, type, function, "out");
    input_view(task.query, query, function, "query");
    input_view(task.key, key, function, "key");
    input_view(task.value, value, function, "value");
    output_view(task.out, out, function, "out");
    if (lse) {
        check_type(*lse, type == type_float64 ? type_float64 : type_float32, function, "lse");
        output_view(task.lse, *lse, function, "lse");
    }
    if (mask) {
        check_type(*mask, type_bool, function, "mask");
        input_view(task.mask, *mask, function, "mask");
    }
    if (bias) {
        task.bias_storage = storage_of(*bias, function, "bias");
        if ((task.bias_storage == Storage::float64) != (task.storage == Storage::float64))
            throw Error(Error::Kind::type, quoted(function, "bias") + "has the wrong dtype");
        input_view(task.bias, *bias, function, "bias");
    }
    check_shapes(task);
    std::ptrdiff_t batch = 1;
    for (int axis = 0; axis < task.query.axes - 3; ++axis) batch *= task.query.shape[axis];
    const std::ptrdiff_t heads = batch * task.query.shape[task.query.axes - 3];
    task.offset = numbers<std::int64_t>(offset, batch, "causal");
    task.query_lengths = numbers<std::int64_t>(query_lengths, batch, "query_lengths");
    task.key_lengths = numbers<std::int64_t>(key_lengths, batch, "key_lengths");
    task.slopes = numbers<double>(slopes, heads, "alibi_slopes");
    task.sinks = numbers<double>(sinks, heads, "sinks");
    task.lowest = lowest;
    task.highest = highest;
    task.scale = scale;
    task.softcap = softcap;
    return without_gil(static_cast<std::ptrdiff_t>(attention_cost(task) / 16),
                       [&] { return attention(task); });
}

}  // namespace

void register_attention(py::module_& module) {
    module.def("attention", call, py::arg("query"), py::arg("key"), py::arg("value"),
               py::arg("out"), py::arg("lse"), py::arg("mask"), py::arg("bias"), py::arg("offset"),
               py::arg("query_lengths"), py::arg("key_lengths"), py::arg("slopes"),
               py::arg("sinks"), py::arg("lowest"), py::arg("highest"), py::arg("scale"),
               py::arg("softcap"));
}

}  // namespace unitstride
