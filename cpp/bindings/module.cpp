// The extension module `_core`: table of contents.
#include "bindings/module.hpp"

#include <cstdlib>

#include "core/parallel.hpp"
#include "isa/dispatch.hpp"

namespace {

void translate(std::exception_ptr failure) {
    try {
        if (failure) std::rethrow_exception(failure);
    } catch (const unitstride::Error& error) {
        const bool is_type = error.kind() == unitstride::Error::Kind::type;
        PyErr_SetString(is_type ? PyExc_TypeError : PyExc_ValueError, error.what());
    } catch (const unitstride::Interrupted&) {
        if (!PyErr_Occurred()) PyErr_SetNone(PyExc_KeyboardInterrupt);
    }
}

unsigned long main_thread = 0;

// Only the main thread handles signals, so only it needs to look.
bool signal_arrived() {
    if (PyThread_get_thread_ident() != main_thread) return false;
    const pybind11::gil_scoped_acquire acquired;
    return PyErr_CheckSignals() != 0;
}

}  // namespace

PYBIND11_MODULE(_core, module, pybind11::mod_gil_not_used()) {
    pybind11::register_exception_translator(translate);
    const char* wanted = std::getenv("UNITSTRIDE_ISA");
    unitstride::use_isa(wanted != nullptr ? wanted : "");
    main_thread = pybind11::module_::import("threading")
                      .attr("main_thread")()
                      .attr("ident")
                      .cast<unsigned long>();
    unitstride::set_interrupt_hook(signal_arrived);
    unitstride::register_probe(module);
    unitstride::register_runtime(module);
    unitstride::register_softmax(module);
    unitstride::register_softmax_vjp(module);
    unitstride::register_fast_calls(module);
    unitstride::register_contract(module);
    unitstride::register_contract_calls(module);
    unitstride::register_optim(module);
    unitstride::register_convolution(module);
    unitstride::register_convolution_channels(module);
    unitstride::register_convolution_planes(module);
    unitstride::register_attention(module);
    unitstride::register_attention_fast(module);
}
