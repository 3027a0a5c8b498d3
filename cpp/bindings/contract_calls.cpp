// Repeated contractions: what was planned once runs again from here, with no Python in between.
//
// Python remembers a plan under a key (a string that tells the function and the subscripts) and the
// shapes and dtypes of its operands. Whatever a call has that its plan does not foresee it answers
// with None, and Python takes the general way.
#include <algorithm>
#include <array>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings/contract_results.hpp"
#include "bindings/module.hpp"
#include "ops/contract.hpp"

namespace unitstride {
namespace {

using Labels = std::vector<short>;

constexpr int c_contiguous = 0x1, writeable = 0x400;

struct OperandKey {
    int type_number;
    std::vector<std::ptrdiff_t> shape;
    bool operator==(const OperandKey&) const = default;
};

// One kernel; arrays by number, operands first, then results. No second one: -1.
struct Step {
    int first, second;
    Labels first_labels, second_labels, labels;
    std::vector<std::ptrdiff_t> shape;
    int type_number;
};

struct Entry {
    py::object key;
    std::size_t hash = 0;
    std::vector<OperandKey> operands;
    // The axes of each operand that the steps see.
    std::vector<std::vector<int>> axes;
    int like = -1;      // the result follows the order in memory of this operand: in C order only
    ResultOrder order;  // of new results
    std::vector<Step> steps;
    std::vector<int> view;  // no steps: the order of axes of a view
};

using EntryHandle = std::shared_ptr<const Entry>;

const PyArray_Proxy* plain_array(PyObject* object) {
    const auto& api = py::detail::npy_api::get();
    return Py_TYPE(object) == api.PyArray_Type_ ? py::detail::array_proxy(object) : nullptr;
}

bool has_native_order(const PyArray_Proxy& array) {
    const char order = py::detail::array_descriptor1_proxy(array.descr)->byteorder;
    return order == '=' || order == '|';
}

int type_number_of(const PyArray_Proxy& array) {
    return py::detail::array_descriptor1_proxy(array.descr)->type_num;
}

std::size_t mix(std::size_t hash, std::ptrdiff_t value) {
    hash = (hash ^ static_cast<std::size_t>(value)) * 0x9e3779b97f4a7c15u;
    return hash ^ (hash >> 29);
}

// 0 where an operand is no plain array.
std::size_t hash_of(PyObject* key, PyObject* const* operands, std::ptrdiff_t count) {
    auto hash = static_cast<std::size_t>(PyObject_Hash(key));
    for (std::ptrdiff_t k = 0; k < count; ++k) {
        const PyArray_Proxy* array = plain_array(operands[k]);
        if (array == nullptr) return 0;
        hash = mix(hash, type_number_of(*array) * (max_axes + 1) + array->nd);
        for (int axis = 0; axis < array->nd; ++axis) hash = mix(hash, array->dimensions[axis]);
    }
    return hash | 1;
}

bool fits(const Entry& entry, PyObject* key, PyObject* const* operands, std::ptrdiff_t count) {
    if (entry.operands.size() != static_cast<std::size_t>(count)) return false;
    if (entry.key.ptr() != key && PyUnicode_Compare(entry.key.ptr(), key) != 0) return false;
    for (std::ptrdiff_t k = 0; k < count; ++k) {
        const PyArray_Proxy& array = *py::detail::array_proxy(operands[k]);
        const OperandKey& wanted = entry.operands[static_cast<std::size_t>(k)];
        if (type_number_of(array) != wanted.type_number || !has_native_order(array) ||
            !std::equal(array.dimensions, array.dimensions + array.nd, wanted.shape.begin(),
                        wanted.shape.end()))
            return false;
    }
    return true;
}

// Sets of a few places each; a full set loses its oldest entry.
class Cache {
  public:
    EntryHandle find(std::size_t hash, PyObject* key, PyObject* const* operands,
                     std::ptrdiff_t count) {
        const std::lock_guard locked(lock_);
        for (const EntryHandle& entry : sets_[hash / 2 % set_count].place)
            if (entry && entry->hash == hash && fits(*entry, key, operands, count)) return entry;
        return nullptr;
    }

    void put(EntryHandle entry) {
        const std::lock_guard locked(lock_);
        Set& set = sets_[entry->hash / 2 % set_count];
        set.place[set.next].swap(entry);
        set.next = (set.next + 1) % ways;
    }  // the entry that was replaced goes after the lock

  private:
    static constexpr std::size_t set_count = 512, ways = 4;
    struct Set {
        std::array<EntryHandle, ways> place;
        std::size_t next = 0;
    };
    std::mutex lock_;
    std::array<Set, set_count> sets_;
};

// Never destroyed: the interpreter is gone before static objects are.
Cache& cache() {
    static Cache& plans = *new Cache;
    return plans;
}

// An array as a step sees it; `shape` is memory for its shape. False where strides are not whole
// elements.
template <class View>
bool fill(Labelled<View>& into, std::ptrdiff_t* shape, const PyArray_Proxy& array,
          const std::vector<int>* axes, const Labels& labels) {
    std::ptrdiff_t item;
    if (!element_of(type_number_of(array), into.element, item)) return false;
    View& view = into.view;
    view.data = array.data;
    view.axes = static_cast<int>(labels.size());
    view.shape = shape;
    for (int axis = 0; axis < view.axes; ++axis) {
        const auto place = static_cast<std::size_t>(axis);
        const int from = axes != nullptr ? (*axes)[place] : axis;
        shape[axis] = array.dimensions[from];
        into.label[axis] = labels[place];
        const std::ptrdiff_t stride = array.dimensions[from] > 1 ? array.strides[from] : 0;
        if (stride % item != 0) return false;
        view.strides[axis] = stride / item;
    }
    return true;
}

// Whether the result may go straight to `out`.
bool takes(PyObject* out, const Step& last, PyObject* const* operands, std::ptrdiff_t count) {
    const PyArray_Proxy* array = plain_array(out);
    if (array == nullptr || type_number_of(*array) != last.type_number ||
        !has_native_order(*array) || !(array->flags & writeable) ||
        !std::equal(array->dimensions, array->dimensions + array->nd, last.shape.begin(),
                    last.shape.end()))
        return false;
    Element element;
    std::ptrdiff_t item;
    if (!element_of(last.type_number, element, item) || !is_nested(*array, item)) return false;
    const std::ptrdiff_t own_item = item;
    for (std::ptrdiff_t k = 0; k < count; ++k) {
        const PyArray_Proxy& other = *py::detail::array_proxy(operands[k]);
        if (!element_of(type_number_of(other), element, item)) return false;
        if (may_overlap(*array, own_item, other, item)) return false;
    }
    return true;
}

// A factor that needs no checks: a float, or zero or one.
bool is_plain_factor(PyObject* object, double& value) {
    if (PyFloat_CheckExact(object)) {
        value = PyFloat_AS_DOUBLE(object);
        return true;
    }
    if (!PyLong_CheckExact(object)) return false;
    value = PyLong_AsDouble(object);
    if (value == -1 && PyErr_Occurred()) PyErr_Clear();
    return value == 0 || value == 1;
}

PyObject* view_of(PyObject* object, const std::vector<int>& order) {
    const auto& api = py::detail::npy_api::get();
    const PyArray_Proxy& array = *py::detail::array_proxy(object);
    Py_intptr_t shape[max_axes], strides[max_axes];
    for (std::size_t axis = 0; axis < order.size(); ++axis) {
        shape[axis] = array.dimensions[order[axis]];
        strides[axis] = array.strides[order[axis]];
    }
    Py_INCREF(array.descr);
    PyObject* view =
        api.PyArray_NewFromDescr_(api.PyArray_Type_, array.descr, array.nd, shape, strides,
                                  array.data, array.flags & writeable, nullptr);
    if (view == nullptr) return nullptr;
    Py_INCREF(object);
    if (api.PyArray_SetBaseObject_(view, object) != 0) {
        Py_DECREF(view);
        return nullptr;
    }
    return view;
}

unsigned run_step(const ContractArguments& arguments) {
    constexpr double small = 65536;  // multiply-adds: a few microseconds
    if (contraction_cost(arguments) < small) return contract(arguments);
    const ReleasedGil released;
    return contract(arguments);
}

struct Call {
    PyObject* const* operands;
    PyObject* out;  // None, or where the result goes
    double alpha, beta;
};

// The result, and status bits; no result where an array does not suit.
py::object run_steps(const Entry& entry, const Call& call, unsigned& status) {
    const std::size_t count = entry.operands.size();
    std::vector<py::object> results(entry.steps.size());
    std::ptrdiff_t shapes[3][max_axes], order[max_axes];
    ContractArguments arguments;
    arguments.alpha_imag = arguments.beta_imag = 0;
    const auto input = [&](Labelled<InputView>& into, std::ptrdiff_t* shape, int number,
                           const Labels& labels) {
        const auto place = static_cast<std::size_t>(number);
        const bool given = place < count;
        PyObject* array = given ? call.operands[place] : results[place - count].ptr();
        return fill(into, shape, *py::detail::array_proxy(array),
                    given ? &entry.axes[place] : nullptr, labels);
    };
    for (std::size_t k = 0; k < entry.steps.size(); ++k) {
        const Step& step = entry.steps[k];
        const bool final = k + 1 == entry.steps.size();
        arguments.b.view.data = nullptr;
        if (!input(arguments.a, shapes[0], step.first, step.first_labels)) return {};
        if (step.second >= 0 && !input(arguments.b, shapes[1], step.second, step.second_labels))
            return {};
        if (final && call.out != Py_None) {
            results[k] = py::reinterpret_borrow<py::object>(call.out);
        } else {
            const std::ptrdiff_t* strides =
                final ? entry.order.strides_for(call.operands, order) : nullptr;
            PyObject* fresh = new_array(step.type_number, static_cast<int>(step.shape.size()),
                                        step.shape.data(), strides);
            if (fresh == nullptr) throw py::error_already_set();
            results[k] = py::reinterpret_steal<py::object>(fresh);
        }
        const PyArray_Proxy& target = *py::detail::array_proxy(results[k].ptr());
        if (!fill(arguments.out, shapes[2], target, nullptr, step.labels)) return {};
        arguments.alpha = final ? call.alpha : 1;
        arguments.beta = final ? call.beta : 0;
        status |= run_step(arguments);
        for (const int used : {step.first, step.second})  // each result is read once
            if (used >= static_cast<int>(count))
                results[static_cast<std::size_t>(used) - count] = {};
    }
    return results.back();
}

PyObject* scalar_of(const py::object& array) {
    const PyArray_Proxy& proxy = *py::detail::array_proxy(array.ptr());
    return py::detail::npy_api::get().PyArray_Scalar_(proxy.data, proxy.descr, nullptr);
}

PyObject* answer(PyObject* key, PyObject* operands, PyObject* out, PyObject* alpha,
                 PyObject* beta) {
    Call call = {&PyTuple_GET_ITEM(operands, 0), out, 1, 0};
    const std::ptrdiff_t count = PyTuple_GET_SIZE(operands);
    const std::size_t hash = hash_of(key, call.operands, count);
    if (hash == 0) Py_RETURN_NONE;
    const EntryHandle entry = cache().find(hash, key, call.operands, count);
    if (!entry || !is_plain_factor(alpha, call.alpha) || !is_plain_factor(beta, call.beta))
        Py_RETURN_NONE;
    if (out == Py_None ? call.beta != 0 : entry->steps.empty()) Py_RETURN_NONE;
    if (entry->steps.empty()) {
        if (call.alpha != 1) Py_RETURN_NONE;
        return view_of(call.operands[0], entry->view);
    }
    if (out != Py_None) {
        if (!takes(out, entry->steps.back(), call.operands, count)) Py_RETURN_NONE;
    } else if (entry->like >= 0 &&
               !(plain_array(call.operands[entry->like])->flags & c_contiguous)) {
        Py_RETURN_NONE;
    }
    unsigned status = 0;
    py::object result = run_steps(*entry, call, status);
    if (!result) Py_RETURN_NONE;
    if (out == Py_None && entry->steps.back().shape.empty())
        result = py::reinterpret_steal<py::object>(scalar_of(result));
    if (status == 0) return result.release().ptr();
    return Py_BuildValue("(NI)", result.release().ptr(), status);
}

template <class Body>
PyObject* guarded(Body&& body) {
    try {
        return body();
    } catch (const Error& error) {
        PyErr_SetString(error.kind() == Error::Kind::type ? PyExc_TypeError : PyExc_ValueError,
                        error.what());
    } catch (const Interrupted&) {
        if (!PyErr_Occurred()) PyErr_SetNone(PyExc_KeyboardInterrupt);
    } catch (const std::bad_alloc&) {
        PyErr_NoMemory();
    } catch (py::error_already_set& error) {
        error.restore();
    } catch (const std::exception& error) {
        PyErr_SetString(PyExc_RuntimeError, error.what());
    }
    return nullptr;
}

PyObject* fast_call(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
    if (count != 5 || !PyUnicode_CheckExact(arguments[0]) || !PyTuple_CheckExact(arguments[1]))
        Py_RETURN_NONE;
    return guarded([&] {
        return answer(arguments[0], arguments[1], arguments[2], arguments[3], arguments[4]);
    });
}

// (first, first_labels, second, second_labels, labels, shape, dtype)
using StepTuple =
    std::tuple<int, Labels, int, Labels, Labels, std::vector<std::ptrdiff_t>, py::dtype>;

void remember(const py::str& key, const py::tuple& operands,
              const std::vector<std::vector<int>>& axes, int like,
              const std::vector<StepTuple>& steps, const std::vector<int>& view,
              const ResultOrder::Loop& loop) {
    auto entry = std::make_shared<Entry>();
    entry->key = key;
    entry->hash = hash_of(key.ptr(), &PyTuple_GET_ITEM(operands.ptr(), 0),
                          static_cast<std::ptrdiff_t>(operands.size()));
    if (entry->hash == 0) return;
    for (const py::handle operand : operands) {
        const PyArray_Proxy& array = *py::detail::array_proxy(operand.ptr());
        entry->operands.push_back(
            {type_number_of(array), {array.dimensions, array.dimensions + array.nd}});
    }
    entry->axes = axes;
    entry->like = like;
    for (const auto& [first, first_labels, second, second_labels, labels, shape, dtype] : steps)
        entry->steps.push_back(
            {first, second, first_labels, second_labels, labels, shape, dtype.num()});
    entry->view = view;
    Element element;
    std::ptrdiff_t item;
    if (!loop.empty() && element_of(entry->steps.back().type_number, element, item))
        entry->order = ResultOrder(loop, entry->steps.back().shape, item,
                                   &PyTuple_GET_ITEM(operands.ptr(), 0));
    cache().put(std::move(entry));
}

PyMethodDef methods[] = {
    {"contract_fast", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&fast_call)),
     METH_FASTCALL, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

void register_contract_calls(py::module_& module) {
    if (PyModule_AddFunctions(module.ptr(), methods) != 0) throw py::error_already_set();
    module.def("contract_remember", &remember, py::arg("key"), py::arg("operands"), py::arg("axes"),
               py::arg("like"), py::arg("steps"), py::arg("view"), py::arg("loop"));
}

}  // namespace unitstride
