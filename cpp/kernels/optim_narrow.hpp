// Few bits of optimisers: states in bytes, random rounding, what rounding leaves off.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/storage.hpp"

namespace unitstride {

// Elements that share one magnitude.
constexpr std::ptrdiff_t byte_block = 256;

// Lines are scratch: up to a vector behind their ends may be read, and written by `encode`.
struct NarrowKernels {
    // Bytes to a line and back, [is_signed]; `codes` and `scale` begin with a block.
    void (*decode[2])(const std::uint8_t* codes, const float* scale, std::ptrdiff_t count,
                      float* line) noexcept;
    void (*encode[2])(float* line, std::ptrdiff_t count, std::uint8_t* codes,
                      float* scale) noexcept;
    // Rounds a line in place to what the storage type holds, by random bits of a key and of the
    // indices first, first + step ...; there are none for types of more than 16 bits.
    void (*draw[storage_count])(float* line, std::ptrdiff_t count, std::uint64_t key,
                                std::uint32_t first, std::uint32_t step) noexcept;
    // line += rest
    void (*add)(float* line, const float* rest, std::ptrdiff_t count) noexcept;
    // kept = wide - kept, 0 where what is kept is not finite
    void (*leave)(const float* wide, float* kept, std::ptrdiff_t count) noexcept;
};

}  // namespace unitstride
