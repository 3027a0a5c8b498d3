// Direct convolution along the last two axes of arrays of any strides.
#pragma once

#include "core/storage.hpp"
#include "core/view.hpp"
#include "ops/boundary.hpp"

namespace unitstride {

// out[i, j] = sum over p and q of k[p, q] * x[start[0] + i - p, start[1] + j - q], plus `bias`
// (optional, without the last two axes), and where `silu` is set v / (1 + exp(-v)) of that, for
// every plane. As for `ConvolutionArguments` otherwise.
struct PlanesArguments {
    Storage storage;
    InputView x, k, bias;
    OutputView out;
    std::ptrdiff_t start[2];
    Boundary boundary;
    bool silu;
};

// Returns status bits; sums of neighbouring rows may raise them in vain.
unsigned convolve_planes(const PlanesArguments& arguments);

}  // namespace unitstride
