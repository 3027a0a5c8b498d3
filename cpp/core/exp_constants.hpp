// What the kernels need to know of an exponential: plain data, filled by the ops.
#pragma once

namespace unitstride {

// exp(x / temperature) in terms of step = temperature * ln 2 (see simd/exp.hpp).
template <class T>
struct ExpConstants {
    T inverse_step;  // 1 / step
    // -step in words whose products with n are exact where they must be
    T minus_step_high, minus_step_middle, minus_step_low;
    T inverse_temperature;
    double inverse_temperature_wide;
    T reach;        // arguments further below the maximum count as being there
    T far;          // maxima beyond this are subtracted first
    bool tempered;  // temperature is not 1
};

}  // namespace unitstride
