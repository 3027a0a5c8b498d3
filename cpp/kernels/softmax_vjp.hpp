// What the kernels of the softmax gradients offer.
#pragma once

#include <cstddef>

#include "core/storage.hpp"
#include "kernels/softmax.hpp"

namespace unitstride {

enum class SoftmaxVjp : int { softmax, log_softmax, logsumexp };

// Contiguous lines. `primal` is y for softmax and log_softmax, x for logsumexp.
struct VjpRows {
    const void* primal;
    const void* cotangent;  // null for logsumexp
    void* out;
    std::ptrdiff_t rows, length;
    std::ptrdiff_t primal_stride, cotangent_stride, out_stride;
    const void* constants;  // ExpConstants of the compute type; of temperature 1 for log_softmax
    double inverse_temperature;
    const double* log_sum;         // logsumexp: one per line
    const double* line_cotangent;  // logsumexp: one per line
    SoftmaxVjp gradient;
    bool streaming;
};

// A sum in two words.
struct VjpSum {
    double sum, error;
};

struct SoftmaxVjpKernels {
    void (*rows)(const VjpRows&) noexcept;
    // The halves of `rows` for a piece (one row) of a longer line.
    VjpSum (*sum)(const VjpRows&) noexcept;
    void (*write)(const VjpRows&, VjpSum) noexcept;
};

}  // namespace unitstride
