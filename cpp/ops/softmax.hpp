// Softmax, log-softmax and logsumexp of arrays of any layout.
#pragma once

#include "core/storage.hpp"
#include "core/view.hpp"
#include "kernels/softmax.hpp"

namespace unitstride {

struct SoftmaxArguments {
    Storage storage;
    SoftmaxOutput output;
    InputView x;
    OutputView out;      // none for logsumexp
    InputView where;     // optional; bytes, false where zero
    OutputView log_sum;  // optional (logsumexp: its result); strides 0 along the line
    double temperature;
    bool along_line[max_axes];  // axes that are summed over
};

// Returns FloatStatus bits.
unsigned softmax(const SoftmaxArguments& arguments);

// The common small case without planning: `rows` contiguous lines.
unsigned softmax_contiguous(Storage storage, SoftmaxOutput output, const char* x, char* out,
                            char* log_sum, std::ptrdiff_t rows, std::ptrdiff_t length);

}  // namespace unitstride
