// Convolution of images that have channels: on a matrix unit where there is one, or on vectors.
#pragma once

#include "core/storage.hpp"
#include "core/view.hpp"

namespace unitstride {

// out[n, o, i, j] = bias[o] + sum over c, p and q of w[o, c, p, q] * x[n, c of o's group, begin[0]
// + step[0] i + spread[0] p, begin[1] + step[1] j + spread[1] q]; x is zero beyond its ends. `bias`
// has one axis, or is absent.
struct ChannelsArguments {
    Storage storage;
    InputView x, w, bias;
    OutputView out;
    std::ptrdiff_t groups, begin[2], step[2], spread[2];
};

// Returns status bits, or `not_taken`: a contraction of windows is no slower, as most lanes would
// be empty. What `out` holds is then undefined.
constexpr int not_taken = -1;
int convolve_channels(const ChannelsArguments& arguments);

// The gradients of its taps: out[o, c, p, q] = sum over n, i and j of slopes[n, o, i, j] * x[n, c
// of o's group, begin[0] + step[0] i + spread[0] p, begin[1] + step[1] j + spread[1] q].
struct ChannelProductsArguments {
    Storage storage;
    InputView x, slopes;
    OutputView out;
    std::ptrdiff_t groups, begin[2], step[2], spread[2];
};

int convolution_channel_products(const ChannelProductsArguments& arguments);

}  // namespace unitstride
