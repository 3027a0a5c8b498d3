// Lines of an array, wherever they lie: moving stretches of them to and from contiguous scratch.
#pragma once

#include <cstddef>

#include "core/layout.hpp"
#include "core/storage.hpp"
#include "kernels/table.hpp"

namespace unitstride {

std::ptrdiff_t storage_bytes(Storage storage) noexcept;
std::ptrdiff_t compute_bytes(Storage storage) noexcept;
// The storage type that is the compute type itself.
Storage compute_storage(Storage storage) noexcept;
bool is_nan(const char* element, Storage storage) noexcept;
// One element of a storage type from a double.
void store_value(char* element, Storage storage, double value) noexcept;
double load_value(const char* element, Storage storage) noexcept;

// Whether operand `k` runs along its lines with stride one.
bool line_is_contiguous(const LinesPlan& plan, int operand) noexcept;

// `count` elements of a line from `begin` on, to or from `tile` (compute type); `line` points to
// the line's first element in the array.
void pack_stretch(const KernelTable& table, Storage storage, const LinesPlan& plan, int operand,
                  const char* line, std::ptrdiff_t begin, std::ptrdiff_t count, void* tile);
void unpack_stretch(const KernelTable& table, Storage storage, const LinesPlan& plan, int operand,
                    char* line, std::ptrdiff_t begin, std::ptrdiff_t count, void* tile,
                    bool streaming);
// Elements whose mask is false become `fill`; whether any mask of the stretch is true.
void mask_stretch(const KernelTable& table, Storage storage, const LinesPlan& plan, int operand,
                  const char* line, std::ptrdiff_t begin, std::ptrdiff_t count, void* tile,
                  double fill);
bool any_selected(const LinesPlan& plan, int operand, const char* line,
                  std::ptrdiff_t count) noexcept;
// Whether a line holds a NaN that its mask (may be null) selects.
bool line_holds_nan(const LinesPlan& plan, Storage storage, int operand, const char* line,
                    int mask_operand, const char* mask) noexcept;

}  // namespace unitstride
