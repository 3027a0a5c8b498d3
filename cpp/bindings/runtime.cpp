// Instruction sets, threads, memory, and the hooks that tests need.
#include "bindings/module.hpp"
#include "core/float_environment.hpp"
#include "core/parallel.hpp"
#include "isa/dispatch.hpp"

namespace unitstride {
namespace {

py::dict build_info() {
    py::dict info;
    info["compiler"] = UNITSTRIDE_COMPILER;
    info["flags"] = UNITSTRIDE_FLAGS;
    info["threading"] = threading_backend();
    info["pybind11"] =
        PYBIND11_TOSTRING(PYBIND11_VERSION_MAJOR) "." PYBIND11_TOSTRING(PYBIND11_VERSION_MINOR);
    return info;
}

}  // namespace

void register_runtime(py::module_& module) {
    module.def("isa_compiled", &isa_compiled);
    module.def("isa_detected", &isa_detected);
    module.def("isa_in_use", [] { return std::string(kernels().name); });
    module.def("use_isa", &use_isa, py::arg("name"));
    module.def("set_default_threads", &set_default_threads, py::arg("threads"));
    module.def("set_context_threads", &set_context_threads, py::arg("threads"));
    module.def("get_num_threads", &threads_in_effect);
    module.def("openmp_limit", &openmp_limit);
    module.def("forked", &is_forked_child);
    module.def("flush_to_zero", &FloatEnvironment::flushes_subnormals);
    module.def("float_control", &FloatEnvironment::control_word);
    module.def("build_info", &build_info);
    module.def("release_memory", &release_kept_blocks);
    module.def("set_recycled_bytes", &set_recycled_bytes, py::arg("bytes"));
    module.def("empty_like", &empty_like, py::arg("like"), py::arg("same_place") = false,
               py::arg("shape") = py::none());
    module.def("fail_allocation", &fail_allocation, py::arg("countdown"));
    module.def("block_sizes", [] {
        const KernelTable& table = kernels();
        py::dict sizes;
        sizes["vector_bytes"] = table.vector_bytes;
        sizes["line_scratch_bytes"] = table.line_scratch_bytes;
        sizes["piece_bytes"] = table.piece_bytes;
        sizes["tile_bytes"] = table.tile_bytes;
        sizes["streaming_bytes"] = table.streaming_bytes;
        sizes["short_line_elements"] = table.short_line_elements;
        return sizes;
    });
}

}  // namespace unitstride
