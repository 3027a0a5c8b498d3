// The kernel table in use.
#pragma once

#include <string>
#include <vector>

#include "kernels/table.hpp"

namespace unitstride {

// Names of the levels in this build and of those among them that this machine runs, lowest first.
std::vector<std::string> isa_compiled();
std::vector<std::string> isa_detected();

// Chooses the level named, or the highest one for "". Throws Error with the choices for anything
// else.
void use_isa(const std::string& name);
const KernelTable& kernels() noexcept;

}  // namespace unitstride
