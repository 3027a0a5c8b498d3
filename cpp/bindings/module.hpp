// What the files of the extension module register.
#pragma once

#include <pybind11/stl.h>

#include "bindings/arrays.hpp"

namespace unitstride {

void register_probe(py::module_& module);
void register_runtime(py::module_& module);
void register_softmax(py::module_& module);
void register_softmax_vjp(py::module_& module);
void register_fast_calls(py::module_& module);
void register_contract(py::module_& module);
void register_contract_calls(py::module_& module);
void register_optim(py::module_& module);
void register_convolution(py::module_& module);
void register_convolution_channels(py::module_& module);
void register_convolution_planes(py::module_& module);
void register_attention(py::module_& module);
void register_attention_fast(py::module_& module);

// Like pybind11's own, but for a destructor that may throw: when the interpreter ends, Python
// unwinds a daemon thread from inside PyEval_RestoreThread.
class ReleasedGil {
  public:
    ReleasedGil() : state_(PyEval_SaveThread()) {}
    ~ReleasedGil() noexcept(false) { PyEval_RestoreThread(state_); }
    ReleasedGil(const ReleasedGil&) = delete;
    ReleasedGil& operator=(const ReleasedGil&) = delete;

  private:
    PyThreadState* state_;
};

// Releases the GIL for the work, but not for so little that the release would show.
template <class Work>
auto without_gil(std::ptrdiff_t elements, Work&& work) {
    constexpr std::ptrdiff_t small = 4096;
    if (elements < small) return work();
    const ReleasedGil released;  // the arguments' owners keep the arrays alive
    return work();
}

}  // namespace unitstride
