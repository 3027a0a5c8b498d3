// Convolution of images with channels on vectors: see Note [Windows in place],
// kernels/channels.hpp.
#pragma once

#include "ops/convolution_channels.hpp"

namespace unitstride {

// Status bits, or `not_taken`.
int convolve_neighbours(const ChannelsArguments& arguments);
int convolution_neighbour_products(const ChannelProductsArguments& arguments);

}  // namespace unitstride
