// Products and sums of sizes that cannot wrap around.
#pragma once

#include <cstddef>

#include "core/error.hpp"

namespace unitstride {

inline std::ptrdiff_t checked_multiply(std::ptrdiff_t a, std::ptrdiff_t b) {
    std::ptrdiff_t product;
    if (__builtin_mul_overflow(a, b, &product))
        throw Error(Error::Kind::value, "array size " + std::to_string(a) + " x " +
                                            std::to_string(b) + " does not fit into 64 bits");
    return product;
}

inline std::ptrdiff_t checked_add(std::ptrdiff_t a, std::ptrdiff_t b) {
    std::ptrdiff_t sum;
    if (__builtin_add_overflow(a, b, &sum))
        throw Error(Error::Kind::value, "array size " + std::to_string(a) + " + " +
                                            std::to_string(b) + " does not fit into 64 bits");
    return sum;
}

constexpr std::ptrdiff_t round_up(std::ptrdiff_t value, std::ptrdiff_t multiple) {
    return (value + multiple - 1) / multiple * multiple;
}

}  // namespace unitstride
