// Lists of parameters, gradients and states to a step. What is not recognised is answered with
// None, before anything is written: Python then names the fault, or goes another way.
#include "ops/optim.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "bindings/module.hpp"

namespace unitstride {
namespace {

constexpr int c_contiguous = 0x1, f_contiguous = 0x2, writeable = 0x400;

// The items of a list, a tuple, or an array by itself.
struct Items {
    PyObject* const* item = nullptr;
    PyObject* single = nullptr;
    Py_ssize_t count = 0;

    bool fill(PyObject* object) {
        if (PyList_CheckExact(object) || PyTuple_CheckExact(object)) {
            count = PySequence_Fast_GET_SIZE(object);
            item = PySequence_Fast_ITEMS(object);
            return true;
        }
        single = object;
        count = 1;
        return Py_TYPE(object) == py::detail::npy_api::get().PyArray_Type_;
    }
    PyObject* at(Py_ssize_t index) const { return single != nullptr ? single : item[index]; }
};

class Reader {
  public:
    explicit Reader(StepProblem& problem) : problem_(problem) {}

    // Operand k of tensor number `index`; the first operand that is read sets the shape.
    bool read(StepTensor& tensor, int k, PyObject* object) {
        if (Py_TYPE(object) != py::detail::npy_api::get().PyArray_Type_) return false;
        const auto* proxy = py::detail::array_proxy(object);
        const auto* type = py::detail::array_descriptor1_proxy(proxy->descr);
        StepArray& array = tensor.array[k];
        const bool native = type->byteorder == '=' || type->byteorder == '|';
        if (!native || !storage_of_number(type->type_num, array.storage)) return false;
        if (k != step_grad && !(proxy->flags & writeable)) return false;
        if (first_ == nullptr) {
            first_ = proxy;
            tensor.elements = 1;
            for (int a = 0; a < proxy->nd; ++a) tensor.elements *= proxy->dimensions[a];
        } else if (!has_shape(proxy)) {
            return false;
        }
        array.data = proxy->data;
        order_ &= proxy->flags;
        arrays_[k] = proxy;
        return true;
    }

    // Operand k in bytes, with the magnitudes of its blocks; other operands were read before.
    bool read_bytes(StepTensor& tensor, int k, PyObject* codes, PyObject* scale, bool is_signed) {
        const auto& api = py::detail::npy_api::get();
        if (first_ == nullptr || Py_TYPE(codes) != api.PyArray_Type_ ||
            Py_TYPE(scale) != api.PyArray_Type_)
            return false;
        const auto* bytes = py::detail::array_proxy(codes);
        const auto* high = py::detail::array_proxy(scale);
        constexpr int needed = c_contiguous | writeable;
        if ((bytes->flags & needed) != needed || (high->flags & needed) != needed || high->nd != 1)
            return false;
        const auto* type = py::detail::array_descriptor1_proxy(high->descr);
        const std::ptrdiff_t blocks = (tensor.elements + byte_block - 1) / byte_block;
        if (py::detail::array_descriptor1_proxy(bytes->descr)->type_num != type_uint8 ||
            type->type_num != type_float32 || type->byteorder != '=' ||
            high->dimensions[0] != blocks || !has_shape(bytes))
            return false;
        tensor.array[k] = {bytes->data, Storage::float32, reinterpret_cast<float*>(high->data),
                           is_signed};
        tensor.in_order = true;
        return true;
    }

    // Strides, unless all arrays are contiguous in one order: that of C where indices matter.
    bool finish(StepTensor& tensor) {
        const int orders =
            tensor.in_order || tensor.draws ? c_contiguous : c_contiguous | f_contiguous;
        const bool plain = (order_ & orders) != 0 || tensor.elements < 2;
        bool fits = true;
        if (!plain) {
            tensor.first_axis = static_cast<std::ptrdiff_t>(problem_.axes.size());
            tensor.axes = first_->nd;
            for (int a = 0; a < first_->nd; ++a) problem_.axes.push_back(axis_of(tensor, a, fits));
            std::ptrdiff_t step = tensor.draws ? 1 : 0;
            for (int a = first_->nd; a-- > 0; step *= first_->dimensions[a])
                problem_.axes[static_cast<std::size_t>(tensor.first_axis + a)].stride[step_index] =
                    step;
        }
        first_ = nullptr;
        order_ = ~0;
        for (auto& array : arrays_) array = nullptr;
        return fits;
    }

  private:
    bool has_shape(const py::detail::PyArray_Proxy* proxy) const {
        return proxy->nd == first_->nd &&
               std::equal(proxy->dimensions, proxy->dimensions + proxy->nd, first_->dimensions);
    }
    StepAxis axis_of(const StepTensor& tensor, int a, bool& fits) const {
        StepAxis axis = {first_->dimensions[a], {}};
        for (int k = 0; k < step_operands; ++k) {
            if (arrays_[k] == nullptr || axis.length == 1) continue;
            const Storage storage = tensor.array[k].storage;
            const std::ptrdiff_t size = storage_size(storage);
            fits = fits && arrays_[k]->strides[a] % size == 0 &&
                   (k == step_grad || arrays_[k]->strides[a] != 0);
            axis.stride[k] = arrays_[k]->strides[a] / size;
        }
        return axis;
    }

    StepProblem& problem_;
    const py::detail::PyArray_Proxy* first_ = nullptr;
    const py::detail::PyArray_Proxy* arrays_[step_operands] = {};
    int order_ = ~0;
};

// What tensors of few bits have beside their arrays: for each state a list of magnitudes and
// whether there are signs, or None; a list of remainders or None; keys of random rounding or None.
struct NarrowParts {
    const py::tuple& scales;
    const py::object& rests;
    const py::object& keys;

    bool read(Reader& reader, StepTensor& tensor, int k, Py_ssize_t t, PyObject* object) const {
        const bool is_state = k >= step_state && k < step_ema;
        const py::object list = is_state ? py::object(scales[place(k)]) : py::none();
        if (list.is_none()) return reader.read(tensor, k, object);
        const py::tuple pair = py::list(list)[static_cast<std::size_t>(t)];
        return reader.read_bytes(tensor, k, object, py::object(pair[0]).ptr(),
                                 pair[1].cast<bool>());
    }
    bool finish(Reader& reader, StepTensor& tensor, Py_ssize_t t) const {
        const auto index = static_cast<std::size_t>(t);
        if (!keys.is_none()) {
            tensor.key = py::list(keys)[index].cast<std::uint64_t>();
            for (int k = 0; k < step_ema; ++k)
                tensor.draws = tensor.draws || (k != step_grad && tensor.array[k].data != nullptr &&
                                                storage_size(tensor.array[k].storage) == 2);
        }
        if (rests.is_none()) return true;
        const py::object rest = py::list(rests)[index];
        return reader.read(tensor, step_rest, rest.ptr()) &&
               tensor.array[step_rest].storage == tensor.array[step_param].storage &&
               storage_size(tensor.array[step_rest].storage) == 2;
    }

  private:
    static std::size_t place(int k) { return static_cast<std::size_t>(k - step_state); }
};

// Reads the lists of all operands; those that are None are not there.
bool read_tensors(StepProblem& problem, PyObject* const (&lists)[step_operands],
                  const NarrowParts* narrow = nullptr) {
    Items items[step_operands];
    Py_ssize_t count = -1;
    for (int k = 0; k < step_operands; ++k) {
        if (lists[k] == nullptr || lists[k] == Py_None) continue;
        if (!items[k].fill(lists[k]) || (count >= 0 && items[k].count != count)) return false;
        count = items[k].count;
    }
    problem.tensors.resize(static_cast<std::size_t>(std::max<Py_ssize_t>(count, 0)));
    Reader reader(problem);
    for (Py_ssize_t t = 0; t < count; ++t) {
        StepTensor& tensor = problem.tensors[static_cast<std::size_t>(t)];
        for (int k = 0; k < step_operands; ++k) {
            if (items[k].count <= 0) continue;
            PyObject* item = items[k].at(t);
            if (!(narrow ? narrow->read(reader, tensor, k, t, item) : reader.read(tensor, k, item)))
                return false;
        }
        if (narrow != nullptr && !narrow->finish(reader, tensor, t)) return false;
        if (!reader.finish(tensor)) return false;
    }
    return true;
}

std::ptrdiff_t all_elements(const StepProblem& problem) {
    std::ptrdiff_t sum = 0;
    for (const StepTensor& tensor : problem.tensors) sum += tensor.elements;
    return sum;
}

constexpr int listed_operands = step_copy + 1;

py::object step_of(int rule, const py::tuple& arrays, const std::vector<double>& constants,
                   double scale, int clipping, double max_norm, bool skips_nonfinite,
                   bool is_checked, const NarrowParts* narrow) {
    StepProblem problem;
    PyObject* lists[step_operands] = {};
    if (arrays.size() != listed_operands || rule < 0 || rule >= rule_count ||
        constants.size() != 5 + rule_constants || clipping < 0 || clipping > 2)
        throw Error(Error::Kind::value, "optim_step: wrong number of arguments");
    for (int k = 0; k < listed_operands; ++k) lists[k] = PyTuple_GET_ITEM(arrays.ptr(), k);
    for (int k = 0; k < step_state + needed_states[rule]; ++k)
        if (lists[k] == Py_None)
            throw Error(Error::Kind::type, "optim_step: an array that the rule needs is missing");
    if (!read_tensors(problem, lists, narrow)) return py::none();
    if (!is_checked && !extents_are_disjoint(problem)) return py::none();
    problem.rule = static_cast<Rule>(rule);
    problem.scale = scale;
    problem.clipping = static_cast<Clipping>(clipping);
    problem.max_norm = max_norm;
    problem.skips_nonfinite = skips_nonfinite;
    problem.constants = {constants[0], constants[1], constants[2], constants[3], constants[4], {}};
    std::copy(constants.begin() + 5, constants.end(), problem.constants.rule);
    const StepOutcome outcome =
        without_gil(all_elements(problem), [&] { return optim_step(problem); });
    return py::make_tuple(outcome.norm, outcome.stepped);
}

py::object step(int rule, const py::tuple& arrays, const std::vector<double>& constants,
                double scale, int clipping, double max_norm, bool skips_nonfinite,
                bool is_checked) {
    return step_of(rule, arrays, constants, scale, clipping, max_norm, skips_nonfinite, is_checked,
                   nullptr);
}

// The same with few bits; the lists have been checked.
py::object step_narrow(int rule, const py::tuple& arrays, const std::vector<double>& constants,
                       double scale, int clipping, double max_norm, bool skips_nonfinite,
                       const py::tuple& scales, const py::object& rests, const py::object& keys) {
    const NarrowParts parts = {scales, rests, keys};
    if (scales.size() != step_ema - step_state)
        throw Error(Error::Kind::value, "optim_step_narrow: `scales` must have 3 items");
    return step_of(rule, arrays, constants, scale, clipping, max_norm, skips_nonfinite, true,
                   &parts);
}

py::object norm(const py::object& grads) {
    StepProblem problem;
    PyObject* lists[step_operands] = {};
    lists[step_grad] = grads.ptr();
    if (!read_tensors(problem, lists)) return py::none();
    return py::float_(without_gil(all_elements(problem), [&] { return optim_norm(problem); }));
}

// The plain small call of Adam: one contiguous array of float32 or float64 each, numbers in range.

bool number_of(PyObject* object, double low, double high, double& value) {
    if (!PyFloat_CheckExact(object)) return false;
    value = PyFloat_AS_DOUBLE(object);
    return value >= low && value < high;
}

bool small_tensor(PyObject* const* arguments, StepTensor& tensor) {
    const auto& api = py::detail::npy_api::get();
    const py::detail::PyArray_Proxy* first = nullptr;
    for (int k = 0; k < 4; ++k) {
        if (Py_TYPE(arguments[k]) != api.PyArray_Type_) return false;
        const auto* proxy = py::detail::array_proxy(arguments[k]);
        const auto* type = py::detail::array_descriptor1_proxy(proxy->descr);
        const int needed = k == step_grad ? c_contiguous : c_contiguous | writeable;
        if ((proxy->flags & needed) != needed || type->byteorder != '=') return false;
        if (type->type_num != type_float32 && type->type_num != type_float64) return false;
        tensor.array[k] = {proxy->data,
                           type->type_num == type_float32 ? Storage::float32 : Storage::float64};
        if (first == nullptr) {
            first = proxy;
            tensor.elements = 1;
            for (int a = 0; a < proxy->nd; ++a) tensor.elements *= proxy->dimensions[a];
        }
        if (tensor.array[k].storage != tensor.array[0].storage || proxy->nd != first->nd ||
            !std::equal(proxy->dimensions, proxy->dimensions + proxy->nd, first->dimensions))
            return false;
    }
    if (tensor.elements < 1 || tensor.elements > small_step) return false;
    const auto bytes = static_cast<std::size_t>(tensor.elements) *
                       (tensor.array[0].storage == Storage::float32 ? 4 : 8);
    for (int a = 0; a < 4; ++a)
        for (int b = 0; b < a; ++b) {
            const auto x = reinterpret_cast<std::uintptr_t>(tensor.array[a].data);
            const auto y = reinterpret_cast<std::uintptr_t>(tensor.array[b].data);
            if (x < y + bytes && y < x + bytes) return false;
        }
    return true;
}

bool small_constants(PyObject* const* arguments, StepConstants& constants) {
    constexpr double unbounded = std::numeric_limits<double>::infinity();
    double lr, b1, b2, eps, decay;
    PyObject* betas = arguments[6];
    if (!PyLong_CheckExact(arguments[4]) || !PyTuple_CheckExact(betas) ||
        PyTuple_GET_SIZE(betas) != 2 || !PyBool_Check(arguments[9]) ||
        !number_of(arguments[5], 0.0, unbounded, lr) ||
        !number_of(PyTuple_GET_ITEM(betas, 0), 0.0, 1.0, b1) ||
        !number_of(PyTuple_GET_ITEM(betas, 1), 0.0, 1.0, b2) ||
        !number_of(arguments[7], 0.0, unbounded, eps) ||
        !number_of(arguments[8], 0.0, unbounded, decay))
        return false;
    const long step = PyLong_AsLong(arguments[4]);
    if (step == -1 && PyErr_Occurred()) PyErr_Clear();
    if (step < 1 || step > 1L << 53) return false;
    // As `_optim_rules.adam` has them.
    const double c1 = 1.0 - std::pow(b1, static_cast<double>(step));
    const double c2 = 1.0 - std::pow(b2, static_cast<double>(step));
    const bool decoupled = arguments[9] == Py_True;
    constants = {
        1.0,
        decoupled ? 0.0 : decay,
        decoupled ? lr * decay : 0.0,
        0.0,
        1.0,
        {b1, 1.0 - b1, b2, 1.0 - b2, 1.0, 0.0, 1.0 / std::sqrt(c2), eps, lr / c1, 1.0, 0.0, 0.0}};
    return true;
}

PyObject* adam_fast(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
    StepTensor tensor;
    StepConstants constants;
    StepOutcome outcome = {0.0, false};
    if (count != 10 || !small_tensor(arguments, tensor) || !small_constants(arguments, constants) ||
        !optim_step_small(Rule::adam, constants, tensor, outcome))
        Py_RETURN_NONE;
    PyObject* norm = PyFloat_FromDouble(outcome.norm);
    PyObject* result = norm == nullptr ? nullptr : PyTuple_New(2);
    if (result == nullptr) {
        Py_XDECREF(norm);
        return nullptr;
    }
    PyTuple_SET_ITEM(result, 0, norm);
    PyTuple_SET_ITEM(result, 1, Py_NewRef(Py_True));
    return result;
}

PyMethodDef small_calls[] = {
    {"adam_fast", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&adam_fast)),
     METH_FASTCALL, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

void register_optim(py::module_& module) {
    module.def("optim_step", &step, py::arg("rule"), py::arg("arrays"), py::arg("constants"),
               py::arg("scale"), py::arg("clipping"), py::arg("max_norm"),
               py::arg("skips_nonfinite"), py::arg("is_checked"));
    if (PyModule_AddFunctions(module.ptr(), small_calls) != 0) throw py::error_already_set();
    module.def("optim_step_narrow", &step_narrow, py::arg("rule"), py::arg("arrays"),
               py::arg("constants"), py::arg("scale"), py::arg("clipping"), py::arg("max_norm"),
               py::arg("skips_nonfinite"), py::arg("scales"), py::arg("rests"), py::arg("keys"));
    module.def("optim_norm", &norm, py::arg("grads"));
    module.def("set_bfloat16_number", &set_bfloat16_number, py::arg("number"));
}

}  // namespace unitstride
