// Planning: which axes are walked line by line, which lie along a line, and what can be merged.
#pragma once

#include <cstddef>

#include "core/view.hpp"

namespace unitstride {

constexpr int max_operands = 5;

// One axis of several operands that are walked together.
struct Axis {
    std::ptrdiff_t length;
    std::ptrdiff_t stride[max_operands];
};

struct AxisList {
    int count = 0;
    Axis axis[max_axes];  // NOLINT: only `count` of them are filled

    std::ptrdiff_t elements() const;  // checked product
};

// Lines of several operands.
//   line:   the axes a line runs along, in logical order: the order of summation must not depend on
//   the layout outer:  the axes from line to line, outermost first, ordered by the strides of the
//   first operand
struct LinesPlan {
    AxisList outer, line;
    std::ptrdiff_t lines = 1, length = 1;
    int operands = 0;

    // Element offsets of line number `index` in every operand.
    void offsets_of(std::ptrdiff_t index, std::ptrdiff_t (&offset)[max_operands]) const noexcept;
};

// `strides[k]` are the element strides of operand k, 0 along axes it lacks; `along_line[a]` tells
// whether axis `a` lies along the line. Axes of length one are dropped, neighbouring axes are
// merged where every operand allows it.
LinesPlan plan_lines(int axes, const std::ptrdiff_t* shape, const bool* along_line, int operands,
                     const std::ptrdiff_t* const* strides);

}  // namespace unitstride
