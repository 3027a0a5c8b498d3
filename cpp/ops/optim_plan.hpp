// In which order the elements of a parameter are walked, and in which pieces.
#pragma once

#include <vector>

#include "core/view.hpp"
#include "ops/optim.hpp"

namespace unitstride {

// The longest line of a gradient that is turned, some of them together: see `turned_line`.
constexpr std::ptrdiff_t turned_columns = 8192, turned_rows = 16;
// Elements that are worked on at a time where arrays go through scratch.
constexpr std::ptrdiff_t step_batch = 1024;

// A tensor, or a part of it, as a nest of axes: neighbours merged, steps of the parameter positive.
struct StepLayout {
    const StepTensor* tensor;
    char* data[step_operands];
    std::ptrdiff_t elements;
    std::ptrdiff_t first_axis;  // outermost first
    int axes;                   // 0: the tensor is plain
    std::ptrdiff_t index;       // of the first element, in C order of the tensor
};

struct StepPiece {
    std::ptrdiff_t layout, begin, end;
};

struct StepPlan {
    std::vector<StepLayout> layouts;
    std::vector<StepAxis> axes;
    std::vector<StepPiece> pieces;
    double nanoseconds = 0.0;  // of work, about
};

bool is_wide(const StepTensor& tensor);
// Whether the gradient is contiguous from line to line, and not along them.
bool turns_gradient(const StepPlan& plan, const StepLayout& layout);
bool is_plain(const StepTensor& tensor);
StepPlan plan_step(const StepProblem& problem);

// A place in a layout.
class StepCursor {
  public:
    StepCursor(const StepPlan& plan, const StepLayout& layout, std::ptrdiff_t element);

    std::ptrdiff_t run() const noexcept { return left_; }  // elements to the end of the line
    std::ptrdiff_t offset(int operand) const noexcept { return offset_[operand]; }
    std::ptrdiff_t index(int axis) const noexcept { return index_[axis]; }  // not of the last one
    void advance(std::ptrdiff_t elements) noexcept;                         // at most `run()`

  private:
    const StepAxis* axis_;
    int axes_;
    std::ptrdiff_t left_;
    std::ptrdiff_t index_[max_axes + 2];
    std::ptrdiff_t offset_[step_operands];
};

}  // namespace unitstride
