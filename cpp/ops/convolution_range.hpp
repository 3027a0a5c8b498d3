// How far the outputs of a convolution are apart in magnitude.
#pragma once

#include "core/storage.hpp"
#include "core/view.hpp"

namespace unitstride {

// As for `ConvolutionArguments`. Lines are seen in segments of so many elements.
struct RangeArguments {
    Storage storage;
    InputView x, k;
    int axis;
    std::ptrdiff_t segment;
};

// The largest term of an output is estimated from the largest finite magnitudes of the segments of
// x and k. Returns the smallest of these that is not zero over the largest, of the line where that
// is least; 1 where all are zero.
double convolution_range(const RangeArguments& arguments);

}  // namespace unitstride
