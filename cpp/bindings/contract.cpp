// contract(a, a_labels, b, b_labels, out, out_labels, alpha, beta) -> status bits.
#include "ops/contract.hpp"

#include "bindings/module.hpp"

namespace unitstride {
namespace {

void read_factor(PyObject* object, double& real, double& imag) {
    if (PyFloat_CheckExact(object)) {
        real = PyFloat_AS_DOUBLE(object);
        imag = 0;
        return;
    }
    const Py_complex value = PyComplex_AsCComplex(object);
    if (value.real == -1 && PyErr_Occurred()) throw py::error_already_set();
    real = value.real;
    imag = value.imag;
}

void check_elements(const ContractArguments& arguments) {
    const Element a = arguments.a.element, out = arguments.out.element;
    const Element b = arguments.b.view ? arguments.b.element : a;
    const bool is_complex = a >= Element::complex64 || b >= Element::complex64;
    const auto complex_of = [&](Element element) {
        return !is_complex || element >= Element::complex64 ? element
               : element == Element::float32                ? Element::complex64
               : element == Element::float64                ? Element::complex128
                                                            : element;
    };
    if (complex_of(a) != out || complex_of(b) != out)
        throw Error(Error::Kind::type, "contract: `a`, `b` and `out` have dtypes that do not fit");
    const bool complex_factors = arguments.alpha_imag != 0 || arguments.beta_imag != 0;
    if (complex_factors && !is_complex)
        throw Error(Error::Kind::type, "contract: `alpha` and `beta` must be real");
}

PyObject* call(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
    try {
        if (count != 8)
            throw Error(Error::Kind::type,
                        "contract: takes 8 arguments, got " + std::to_string(count));
        ContractArguments task;
        labelled_input(task.a, arguments[0], arguments[1], "a");
        task.b.view.data = nullptr;
        if (arguments[2] != Py_None) labelled_input(task.b, arguments[2], arguments[3], "b");
        labelled_output(task.out, arguments[4], arguments[5]);
        read_factor(arguments[6], task.alpha, task.alpha_imag);
        read_factor(arguments[7], task.beta, task.beta_imag);
        check_elements(task);
        const double work = contraction_cost(task);
        constexpr double small = 65536;  // multiply-adds: a few microseconds
        if (work < small) return PyLong_FromUnsignedLong(contract(task));
        unsigned status;
        {
            const ReleasedGil released;
            status = contract(task);
        }
        return PyLong_FromUnsignedLong(status);
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

PyMethodDef methods[] = {
    {"contract", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&call)), METH_FASTCALL,
     nullptr},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

void register_contract(py::module_& module) {
    if (PyModule_AddFunctions(module.ptr(), methods) != 0) throw py::error_already_set();
}

}  // namespace unitstride
