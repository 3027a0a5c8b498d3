// Steps of optimisers over a list of arrays of any strides.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/storage.hpp"
#include "kernels/optim.hpp"
#include "kernels/optim_narrow.hpp"

namespace unitstride {

std::ptrdiff_t storage_size(Storage storage);

struct StepArray {
    char* data = nullptr;  // null: not there
    Storage storage = Storage::float32;
    float* scale = nullptr;  // `data` are bytes, contiguous in C order, of these magnitudes
    bool is_signed = false;
};

struct StepAxis {
    std::ptrdiff_t length;
    std::ptrdiff_t stride[step_operands];  // in elements, any sign
};

// A parameter with what belongs to it. Without axes, all arrays are contiguous in one order.
struct StepTensor {
    StepArray array[step_operands];
    std::ptrdiff_t elements = 0;
    std::ptrdiff_t first_axis = 0;
    int axes = 0;
    bool in_order = false;  // Note [Few bits]
    bool draws = false;     // rounds to 16 bits at random
    std::uint64_t key = 0;
};

enum class Clipping : int { none, torch, optax };

// Elements of a step that is not worth planning.
constexpr std::ptrdiff_t small_step = 4096;

struct StepProblem {
    Rule rule = Rule::adam;
    StepConstants constants = {};
    double scale = 1.0;  // of the gradient, for the norm alone: `constants.factor` has it too
    double max_norm = 0.0;
    Clipping clipping = Clipping::none;
    bool skips_nonfinite = false;
    std::vector<StepTensor> tensors;
    std::vector<StepAxis> axes;  // of all tensors
};

struct StepOutcome {
    double norm;
    bool stepped;
};

// The bytes that arrays may touch do not meet, or both are only read.
bool extents_are_disjoint(const StepProblem& problem);

// The step, in one parallel region; clipping by norm and skipping look at all gradients first.
StepOutcome optim_step(const StepProblem& problem);
// The same for one contiguous tensor of float or double, on the calling thread. Returns false,
// having done nothing, where the squares of the gradients may leave the range of double.
bool optim_step_small(Rule rule, const StepConstants& constants, const StepTensor& tensor,
                      StepOutcome& outcome);
// The norm of the gradients alone.
double optim_norm(const StepProblem& problem);

}  // namespace unitstride
