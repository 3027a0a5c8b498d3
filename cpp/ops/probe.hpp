// The machine's limits, as work that can be timed beside a kernel with the same threads.
#pragma once

#include <cstddef>

#include "core/storage.hpp"

namespace unitstride {

void probe_copy(const char* source, char* target, std::ptrdiff_t bytes);
double probe_read(const char* source, std::ptrdiff_t bytes);
// Returns the floating-point operations done.
double probe_multiply_add(Storage storage, std::ptrdiff_t rounds);

}  // namespace unitstride
