// The exponential of the softmax kernels by itself, for each instruction set.
#pragma once

#include <cstddef>

#include "kernels/softmax.hpp"

namespace unitstride {

// result[i] = exp(max(x[i], highest[i] - reach) / temperature) * 2^(scale_bits - offset[i]), where
// offset[i] is round(highest[i] / (temperature ln 2)); a `highest` beyond `far` is subtracted
// instead and its offset is 0. `count` is a multiple of 16.
template <class T>
using ExpKernel = void (*)(const T* x, const T* highest, T* result, T* offset, std::ptrdiff_t count,
                           const ExpConstants<T>& constants) noexcept;

struct ExpLanesTable {
    ExpKernel<float> of_float;
    ExpKernel<double> of_double;
};

}  // namespace unitstride
