// Steps of optimisers on contiguous lines, and the lines of arrays that are not.
#pragma once

#include <cstddef>

#include "core/storage.hpp"

namespace unitstride {

enum class Rule : int { adam, sgd, lion, adamax, adagrad, rmsprop, average };
constexpr int rule_count = 7;

// The arrays of a step. A copy is what the parameter becomes, in another storage type.
enum StepOperand : int {
    step_param,
    step_grad,
    step_state,
    step_ema = 5,
    step_copy,
    step_rest,   // what rounding left off the parameter
    step_index,  // no array: the number of an element in C order
    step_operands
};
// How many states, from the first on, each rule cannot do without.
constexpr int needed_states[rule_count] = {2, 0, 1, 2, 1, 1, 0};
constexpr int rule_constants = 12;

// Numbers of a step, in double; kernels round them to the type they compute in.
struct StepConstants {
    double factor;                // of the gradient: unscaling, clipping, sign
    double coupled;               // gradient += coupled * parameter
    double decay;                 // change += decay * parameter
    double ema_keep, ema_take;    // ema = keep * ema + take * parameter
    double rule[rule_constants];  // as the rule says
};

// A sum in two words: high + low, rounded to about 2^-100 of it.
struct WideSum {
    double high = 0.0, low = 0.0;
};

// `line[k]` is null for an array that is not there; the elements are of the compute type. What
// stands behind the average takes no part.
struct StepTask {
    void* line[step_operands];
    std::ptrdiff_t count;
    const StepConstants* constants;
    WideSum* norm;  // sum of squares of the gradients as they come; null: not wanted
    // Where a line is made of other memory: what its next elements are made of, and the bytes from
    // one to the next. It is fetched while this line is worked on.
    const char* next[step_operands];
    std::ptrdiff_t next_step[step_operands];
};

struct OptimKernels {
    void (*step[rule_count])(const StepTask&) noexcept;
    // Sum of the squares of scale * x.
    void (*squares)(const void* line, std::ptrdiff_t count, double scale, WideSum& sum) noexcept;
    // Elements `stride` apart to a line of the compute type, and back.
    void (*gather[storage_count])(const void* from, std::ptrdiff_t stride, std::ptrdiff_t count,
                                  void* line) noexcept;
    void (*scatter[storage_count])(const void* line, std::ptrdiff_t count, void* to,
                                   std::ptrdiff_t stride) noexcept;
};

}  // namespace unitstride
