// attention(query, key, value, out, lse, options ...) -> whether every result is finite;
// attention_vjp(query, key, value, out, lse, cotangent, d_query, d_key, d_value, options ...).
#include "ops/attention.hpp"

#include <algorithm>
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
void check_axes(const InputView& query, const InputView& view, const char* argument,
                int from_back) {
    bool fits = view.axes == query.axes;
    for (int axis = 0; fits && axis < query.axes - from_back; ++axis)
        fits = view.shape[axis] == query.shape[axis];
    if (!fits) throw Error(Error::Kind::value, quoted(function, argument) + "has the wrong shape");
}

[[noreturn]] void wrong(const char* argument) {
    throw Error(Error::Kind::value, quoted(function, argument) + "has the wrong shape");
}

void check_inputs(const AttentionArguments& task) {
    const int axes = task.query.axes;
    if (axes < 3) wrong("query");
    check_axes(task.query, task.key, "key", 3);
    check_axes(task.query, task.value, "value", 3);
    const auto *q = task.query.shape, *k = task.key.shape, *v = task.value.shape;
    if (k[axes - 1] != q[axes - 1]) wrong("key");
    if (q[axes - 3] != k[axes - 3] && (k[axes - 3] == 0 || q[axes - 3] % k[axes - 3] != 0))
        wrong("key");
    if (v[axes - 3] != k[axes - 3] || v[axes - 2] != k[axes - 2]) wrong("value");
    for (const InputView* view : {&task.mask, &task.bias})
        if (*view) {
            check_axes(task.query, *view, view == &task.mask ? "mask" : "bias", 1);
            if (view->shape[axes - 1] != k[axes - 2]) wrong("mask");
        }
}

// What forward and gradient have in common: all but the results.
struct Options {
    const OptionalArray &mask, &bias, &offset, &query_lengths, &key_lengths, &slopes, &sinks;
    std::int64_t lowest, highest;
    double scale, softcap;
};

void fill(AttentionArguments& task, const py::array& query, const py::array& key,
          const py::array& value, const Options& options) {
    task.storage = storage_of(query, function, "query");
    const int type = query.dtype().num();
    check_type(key, type, function, "key");
    check_type(value, type, function, "value");
    input_view(task.query, query, function, "query");
    input_view(task.key, key, function, "key");
    input_view(task.value, value, function, "value");
    if (options.mask) {
        check_type(*options.mask, type_bool, function, "mask");
        input_view(task.mask, *options.mask, function, "mask");
    }
    if (options.bias) {
        task.bias_storage = storage_of(*options.bias, function, "bias");
        if ((task.bias_storage == Storage::float64) != (task.storage == Storage::float64))
            throw Error(Error::Kind::type, quoted(function, "bias") + "has the wrong dtype");
        input_view(task.bias, *options.bias, function, "bias");
    }
    check_inputs(task);
    std::ptrdiff_t batch = 1;
    for (int axis = 0; axis < task.query.axes - 3; ++axis) batch *= task.query.shape[axis];
    const std::ptrdiff_t heads = batch * task.query.shape[task.query.axes - 3];
    task.offset = numbers<std::int64_t>(options.offset, batch, "causal");
    task.query_lengths = numbers<std::int64_t>(options.query_lengths, batch, "query_lengths");
    task.key_lengths = numbers<std::int64_t>(options.key_lengths, batch, "key_lengths");
    if (!task.offset || !task.query_lengths || !task.key_lengths) wrong("query_lengths");
    task.slopes = numbers<double>(options.slopes, heads, "alibi_slopes");
    task.sinks = numbers<double>(options.sinks, heads, "sinks");
    task.lowest = options.lowest;
    task.highest = options.highest;
    task.scale = options.scale;
    task.softcap = options.softcap;
}

std::ptrdiff_t work_of(const AttentionArguments& task) {
    return static_cast<std::ptrdiff_t>(std::min(attention_cost(task) / 16, 1e9));
}

// An array of (*batch, heads, queries, value features), or without the last.
template <class View>
void check_rows(const AttentionArguments& task, const View& view, bool has_features,
                const char* argument) {
    const int axes = task.query.axes - (has_features ? 0 : 1);
    bool fits = view.axes == axes;
    for (int axis = 0; fits && axis < task.query.axes - 1; ++axis)
        fits = view.shape[axis] == task.query.shape[axis];
    if (fits && has_features) fits = view.shape[axes - 1] == task.value.shape[axes - 1];
    if (!fits) wrong(argument);
}

int level_type(int type) { return type == type_float64 ? type_float64 : type_float32; }

bool forward(const py::array& query, const py::array& key, const py::array& value,
             const py::array& out, const OptionalArray& lse, const OptionalArray& mask,
             const OptionalArray& bias, const OptionalArray& offset,
             const OptionalArray& query_lengths, const OptionalArray& key_lengths,
             const OptionalArray& slopes, const OptionalArray& sinks, std::int64_t lowest,
             std::int64_t highest, double scale, double softcap) {
    AttentionArguments task = {};
    fill(task, query, key, value,
         {mask, bias, offset, query_lengths, key_lengths, slopes, sinks, lowest, highest, scale,
          softcap});
    const int type = query.dtype().num();
    check_type(out, type, function, "out");
    output_view(task.out, out, function, "out");
    check_rows(task, task.out, true, "out");
    if (lse) {
        check_type(*lse, level_type(type), function, "lse");
        output_view(task.lse, *lse, function, "lse");
        check_rows(task, task.lse, false, "lse");
    }
    return without_gil(work_of(task), [&] { return attention(task); });
}

void gradient(const py::array& query, const py::array& key, const py::array& value,
              const py::array& out, const py::array& lse, const py::array& cotangent,
              const py::array& d_query, const py::array& d_key, const py::array& d_value,
              const OptionalArray& mask, const OptionalArray& bias, const OptionalArray& offset,
              const OptionalArray& query_lengths, const OptionalArray& key_lengths,
              const OptionalArray& slopes, const OptionalArray& sinks, std::int64_t lowest,
              std::int64_t highest, double scale, double softcap) {
    AttentionVjpArguments task = {};
    AttentionArguments& given = task.forward;
    fill(given, query, key, value,
         {mask, bias, offset, query_lengths, key_lengths, slopes, sinks, lowest, highest, scale,
          softcap});
    const int type = query.dtype().num();
    check_type(out, type, function, "out");
    check_type(cotangent, type, function, "cotangent");
    check_type(lse, level_type(type), function, "lse");
    input_view(task.out, out, function, "out");
    input_view(task.cotangent, cotangent, function, "cotangent");
    input_view(task.lse, lse, function, "lse");
    check_rows(given, task.out, true, "out");
    check_rows(given, task.cotangent, true, "cotangent");
    check_rows(given, task.lse, false, "lse");
    struct Result {
        const py::array& array;
        OutputView& view;
        const InputView& like;
        const char* name;
    };
    for (const Result& result : {Result{d_query, task.d_query, given.query, "d_query"},
                                 Result{d_key, task.d_key, given.key, "d_key"},
                                 Result{d_value, task.d_value, given.value, "d_value"}}) {
        check_type(result.array, type, function, result.name);
        output_view(result.view, result.array, function, result.name);
        check_same_shape(result.view, result.like, function, result.name);
    }
    without_gil(work_of(given), [&] { attention_vjp(task); });
}

}  // namespace

void register_attention(py::module_& module) {
    module.def("attention", forward, py::arg("query"), py::arg("key"), py::arg("value"),
               py::arg("out"), py::arg("lse"), py::arg("mask"), py::arg("bias"), py::arg("offset"),
               py::arg("query_lengths"), py::arg("key_lengths"), py::arg("slopes"),
               py::arg("sinks"), py::arg("lowest"), py::arg("highest"), py::arg("scale"),
               py::arg("softcap"));
    module.def("attention_vjp", gradient, py::arg("query"), py::arg("key"), py::arg("value"),
               py::arg("out"), py::arg("lse"), py::arg("cotangent"), py::arg("d_query"),
               py::arg("d_key"), py::arg("d_value"), py::arg("mask"), py::arg("bias"),
               py::arg("offset"), py::arg("query_lengths"), py::arg("key_lengths"),
               py::arg("slopes"), py::arg("sinks"), py::arg("lowest"), py::arg("highest"),
               py::arg("scale"), py::arg("softcap"));
}

}  // namespace unitstride
