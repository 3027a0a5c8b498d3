// The constants of exp(x / temperature) for the kernels (simd/exp.hpp says what they mean).
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "kernels/softmax.hpp"

namespace unitstride {

// `value` with its lowest `bits` bits zero.
template <class T, class Bits>
T truncated(T value, int bits) {
    Bits pattern;
    std::memcpy(&pattern, &value, sizeof pattern);
    pattern &= ~((Bits{1} << bits) - 1);
    std::memcpy(&value, &pattern, sizeof value);
    return value;
}

// `fused`: the kernels' multiply_add rounds once, so that a word of step may have all its bits;
// otherwise words are short enough for their products with n to be exact.
template <class T>
ExpConstants<T> exp_constants(double temperature, bool fused) {
    constexpr double ln2 = 0x1.62e42fefa39efp-1, ln2_rest = 0x1.abc9e3b39803fp-56;
    const double step = temperature * ln2;
    const double rest = std::fma(temperature, ln2, -step) + temperature * ln2_rest;
    T high, middle = 0, low;
    if constexpr (sizeof(T) == 4) {
        constexpr int short_word = 12;
        high = static_cast<float>(step);
        if (!fused) high = truncated<float, std::uint32_t>(high, short_word);
        const double below = step - static_cast<double>(high);
        if (!fused) middle = truncated<float, std::uint32_t>(static_cast<float>(below), short_word);
        low = static_cast<float>(below - static_cast<double>(middle));
    } else {
        constexpr int short_word = 17;
        high = fused ? step : truncated<double, std::uint64_t>(step, short_word);
        if (!fused) middle = truncated<double, std::uint64_t>((step - high) + rest, short_word);
        low = (step - high - middle) + rest;
    }
    ExpConstants<T> constants;
    constants.minus_step_high = -high;
    constants.minus_step_middle = -middle;
    constants.minus_step_low = -low;
    constexpr double log2_e = 0x1.71547652b82fep+0;
    const double reach = (sizeof(T) == 4 ? 130.0 : 1060.0) * temperature;
    constants.inverse_step = static_cast<T>(log2_e / temperature);
    constants.inverse_temperature = static_cast<T>(1.0 / temperature);
    constants.inverse_temperature_wide = 1.0 / temperature;
    constants.reach = static_cast<T>(reach);
    constants.far = static_cast<T>(2.0 * reach);
    constants.tempered = temperature != 1.0;
    return constants;
}

// Both, for a storage type chosen at run time.
struct AnyExpConstants {
    ExpConstants<float> of_float;
    ExpConstants<double> of_double;
    const void* of(Storage storage) const noexcept {
        return storage == Storage::float64 ? static_cast<const void*>(&of_double)
                                           : static_cast<const void*>(&of_float);
    }
};

inline AnyExpConstants any_exp_constants(double temperature, bool fused) {
    return {exp_constants<float>(temperature, fused), exp_constants<double>(temperature, fused)};
}

}  // namespace unitstride
