// What the machine can do at most, measured by the simplest code that does it.
#pragma once

#include <cstddef>

namespace unitstride {

struct ProbeKernels {
    // Copies `bytes` (a multiple of 64, both aligned to 64) with stores past the caches.
    void (*copy_streaming)(const char* source, char* target, std::ptrdiff_t bytes) noexcept;
    // Reads `bytes` (a multiple of 256) and returns something that depends on all of them.
    double (*read)(const char* source, std::ptrdiff_t bytes) noexcept;
    // `rounds` times a fixed number of independent multiply-adds of floats; returns the
    // floating-point operations done.
    double (*multiply_add)(std::ptrdiff_t rounds, double* sink) noexcept;
    // The same of doubles.
    double (*multiply_add_double)(std::ptrdiff_t rounds, double* sink) noexcept;
};

}  // namespace unitstride
