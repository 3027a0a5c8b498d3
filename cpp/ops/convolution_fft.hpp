// Convolution along one axis by Fourier transforms.
#pragma once

#include "ops/convolution.hpp"

namespace unitstride {

// The views are of real numbers; those of complex arrays are of their real parts, each followed in
// memory by its imaginary part. The result is complex where x or k is.
struct TransformArguments {
    ConvolutionArguments convolution;
    bool complex_x, complex_k;
    // The kernel's spectrum at 2^logarithm points, of `spectrum_of`, for a call with one kernel; or
    // null.
    const char* spectrum = nullptr;
    int logarithm = 0;
};

constexpr int not_finite = -1;

// Returns status bits, or `not_finite` where a result is not: because an input is not, or because
// numbers under way became too large. `out` is then of no use.
int convolve_fft(const TransformArguments& arguments);

// Writes the spectrum of the kernel, 2 * 2^logarithm numbers of the compute type; that has at most
// 2^logarithm taps. x and out are looked at for their shapes only.
void spectrum_of(const TransformArguments& arguments, int logarithm, char* spectrum);

// The time it takes on one thread; `outputs` along the axis.
double convolve_fft_nanoseconds(std::ptrdiff_t lines, std::ptrdiff_t kernels, std::ptrdiff_t length,
                                std::ptrdiff_t taps, std::ptrdiff_t outputs, bool is_complex,
                                Storage storage);

}  // namespace unitstride
