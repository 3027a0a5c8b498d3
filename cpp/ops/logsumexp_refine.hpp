// logsumexp of lines whose result nearly cancels.
#pragma once

#include "ops/softmax_forms.hpp"

namespace unitstride {

// Note [Cancellation in logsumexp]. Where max < 0, max + log1p(excess) can be close to zero, and
// the rounding errors of the exponentials, harmless in the sum, are then many ULP of the result.
// Logarithms of probabilities do this. Such lines are summed once more: float in double, double in
// pairs of doubles up to a length that bounds the cost.
bool nearly_cancels(double log_sum, const LineSum& sum, double inverse_temperature) noexcept;

// The logsumexp of one line, anew. `offset` is the line's, of every operand; `rough` is what came
// out before.
double refined_log_sum(const SoftmaxCall& call, const std::ptrdiff_t* offset, const LineSum& sum,
                       double rough);

}  // namespace unitstride
