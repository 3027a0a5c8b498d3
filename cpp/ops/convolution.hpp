// Direct convolution along one axis of arrays of any strides.
#pragma once

#include "core/storage.hpp"
#include "core/view.hpp"
#include "ops/boundary.hpp"

namespace unitstride {

// out[i] = sum over j of k[j] * x[start + i - j] along `axis`, for every line. The views have the
// same axes, and the same lengths but along `axis`; axes that x or k lack have stride 0. `start` is
// from 0 to x's length + k's length - 2, and so is the last start + i. k is finite: it meets the
// zeros beyond the ends of x.
struct ConvolutionArguments {
    Storage storage;
    InputView x, k;
    OutputView out;
    int axis;
    std::ptrdiff_t start;
    Boundary boundary;
};

// Returns status bits.
unsigned convolve(const ConvolutionArguments& arguments);

}  // namespace unitstride
