#include "ops/probe.hpp"

#include "bindings/module.hpp"

namespace unitstride {

void register_probe(py::module_& module) {
    module.def("probe_copy", [](const py::array& source, py::array& target) {
        const bool fits = source.nbytes() == target.nbytes() &&
                          (source.flags() & target.flags() & py::array::c_style);
        if (!fits)
            throw Error(Error::Kind::value,
                        "probe_copy: arrays must be contiguous and of one size");
        const auto* from = static_cast<const char*>(source.data());
        auto* to = static_cast<char*>(target.mutable_data());
        if (reinterpret_cast<std::uintptr_t>(from) % 64 ||
            reinterpret_cast<std::uintptr_t>(to) % 64)
            throw Error(Error::Kind::value, "probe_copy: arrays must be aligned to 64 bytes");
        without_gil(source.size(), [&] { probe_copy(from, to, source.nbytes()); });
    });
    module.def("probe_read", [](const py::array& source) {
        return without_gil(source.size(), [&] {
            return probe_read(static_cast<const char*>(source.data()), source.nbytes());
        });
    });
    module.def(
        "probe_fma",
        [](const std::string& dtype, std::ptrdiff_t rounds) {
            const bool is_double = dtype == "float64";
            if (!is_double && dtype != "float32")
                throw Error(Error::Kind::value,
                            "probe_fma: `dtype` must be float32 or float64, got " + dtype);
            const Storage storage = is_double ? Storage::float64 : Storage::float32;
            return without_gil(rounds, [&] { return probe_multiply_add(storage, rounds); });
        },
        py::arg("dtype"), py::arg("rounds"));
}

}  // namespace unitstride
