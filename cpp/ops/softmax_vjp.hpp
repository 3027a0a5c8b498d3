// Gradients of the softmax family for arrays of any layout.
#pragma once

#include "core/storage.hpp"
#include "core/view.hpp"
#include "kernels/softmax_vjp.hpp"

namespace unitstride {

struct SoftmaxVjpArguments {
    Storage storage;
    SoftmaxVjp gradient;
    InputView primal;     // y; x for logsumexp
    InputView cotangent;  // like y; for logsumexp strides 0 along the line
    OutputView out;
    InputView where;    // optional
    InputView log_sum;  // logsumexp only, strides 0 along the line
    double temperature;
    bool along_line[max_axes];
};

// Returns FloatStatus bits.
unsigned softmax_vjp(const SoftmaxVjpArguments& arguments);

}  // namespace unitstride
