// Direct convolution along the last two axes of arrays of any strides.
#pragma once

#include "core/storage.hpp"
#include "core/view.hpp"
#include "ops/boundary.hpp"

namespace unitstride {

// out[i, j] = sum over p and q of k[p, q] * x[start[0] + step[0] i - spread[0] p, start[1] +
// step[1] j - spread[1] q], plus `bias` (optional, without the last two axes), and where `silu` is
// set v / (1 + exp(-v)) of that, for every plane. Axes that an operand lacks have stride 0. Steps
// and spreads other than one need the zero boundary, with which `start` may be anything; otherwise
// it is as for `ConvolutionArguments`.
struct PlanesArguments {
    Storage storage;
    InputView x, k, bias;
    OutputView out;
    std::ptrdiff_t start[2];
    Boundary boundary;
    bool silu;
    std::ptrdiff_t step[2] = {1, 1}, spread[2] = {1, 1};
};

// Returns status bits; sums of neighbouring rows may raise them in vain.
unsigned convolve_planes(const PlanesArguments& arguments);

// sums[chunk, plane, t] = sum of slopes[n, plane, i, j] * x[n, plane, begin[0] + step[0] i +
// spread[0] p, begin[1] + step[1] j + spread[1] q] over i, j and the n of a chunk, where t = p *
// taps[1] + q; and the sums of slopes alone behind the last tap. x and slopes have the same axes,
// planes last and n first; x is zero beyond its ends. `sums` is contiguous.
struct ProductsArguments {
    Storage storage;
    InputView x, slopes;
    double* sums;
    std::ptrdiff_t chunks;
    std::ptrdiff_t begin[2], step[2], spread[2], taps[2];
};

unsigned convolution_products(const ProductsArguments& arguments);

}  // namespace unitstride
