#include "core/layout.hpp"

#include <algorithm>
#include <cstdlib>

#include "core/checked.hpp"

namespace unitstride {

std::ptrdiff_t AxisList::elements() const {
    std::ptrdiff_t product = 1;
    for (int a = 0; a < count; ++a) {
        if (axis[a].length == 0) return 0;
        product = checked_multiply(product, axis[a].length);
    }
    return product;
}

void LinesPlan::offsets_of(std::ptrdiff_t index,
                           std::ptrdiff_t (&offset)[max_operands]) const noexcept {
    for (int k = 0; k < operands; ++k) offset[k] = 0;
    for (int a = outer.count - 1; a >= 0; --a) {
        const std::ptrdiff_t quotient = index / outer.axis[a].length;
        const std::ptrdiff_t place = index - quotient * outer.axis[a].length;
        for (int k = 0; k < operands; ++k) offset[k] += place * outer.axis[a].stride[k];
        index = quotient;
    }
}

namespace {

bool merge_allowed(const Axis& outer, const Axis& inner, int operands) {
    for (int k = 0; k < operands; ++k)
        if (outer.stride[k] != inner.length * inner.stride[k]) return false;
    return true;
}

void merge_neighbours(AxisList& list, int operands) {
    int kept = 0;
    for (int a = 1; a < list.count; ++a) {
        Axis& last = list.axis[kept];
        const Axis& next = list.axis[a];
        if (merge_allowed(last, next, operands)) {
            const std::ptrdiff_t length = checked_multiply(last.length, next.length);
            last = next;
            last.length = length;
        } else {
            list.axis[++kept] = next;
        }
    }
    if (list.count > 0) list.count = kept + 1;
}

// Larger steps outside; operands after the first settle ties.
bool comes_before(const Axis& a, const Axis& b, int operands) {
    for (int k = 0; k < operands; ++k) {
        const auto x = std::abs(a.stride[k]), y = std::abs(b.stride[k]);
        if (x != y) return x > y;
    }
    return false;
}

}  // namespace

LinesPlan plan_lines(int axes, const std::ptrdiff_t* shape, const bool* along_line, int operands,
                     const std::ptrdiff_t* const* strides) {
    LinesPlan plan;
    plan.operands = operands;
    for (int a = 0; a < axes; ++a) {
        if (shape[a] == 1) continue;
        AxisList& list = along_line[a] ? plan.line : plan.outer;
        Axis& axis = list.axis[list.count++];
        axis.length = shape[a];
        for (int k = 0; k < operands; ++k) axis.stride[k] = strides[k] ? strides[k][a] : 0;
    }
    plan.lines = plan.outer.elements();
    plan.length = plan.line.elements();
    if (plan.lines == 0 || plan.length == 0) return plan;
    std::stable_sort(plan.outer.axis, plan.outer.axis + plan.outer.count,
                     [&](const Axis& a, const Axis& b) { return comes_before(a, b, operands); });
    merge_neighbours(plan.outer, operands);
    merge_neighbours(plan.line, operands);
    return plan;
}

}  // namespace unitstride
