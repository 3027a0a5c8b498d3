#include "bindings/contract_results.hpp"

#include <algorithm>
#include <cstdlib>
#include <utility>

namespace unitstride {
namespace {

constexpr int c_contiguous = 0x1;

struct Extent {
    const char *begin, *end;
};

Extent extent_of(const PyArray_Proxy& array, std::ptrdiff_t item) {
    Extent extent = {array.data, array.data + item};
    for (int axis = 0; axis < array.nd; ++axis) {
        const std::ptrdiff_t reach = array.strides[axis] * (array.dimensions[axis] - 1);
        (reach < 0 ? extent.begin : extent.end) += reach;
    }
    return extent;
}

// Whether an axis inside another in a loop is to stand outside it: all operands that have both take
// longer steps along it. Says in `known` whether any has both.
bool swaps(const std::vector<std::ptrdiff_t>& steps, std::size_t places, std::size_t inner,
           std::size_t outer, bool& known) {
    known = false;
    bool longer = true;
    for (std::size_t row = 0; row < steps.size(); row += places) {
        const std::ptrdiff_t in = std::abs(steps[row + inner]), out = std::abs(steps[row + outer]);
        if (in == 0 || out == 0) continue;
        known = true;
        longer = longer && in > out;
    }
    return known && longer;
}

}  // namespace

bool is_nested(const PyArray_Proxy& array, std::ptrdiff_t item) {
    if (array.flags & c_contiguous) return true;
    std::pair<std::ptrdiff_t, std::ptrdiff_t> axes[max_axes];  // steps and lengths
    int count = 0;
    for (int axis = 0; axis < array.nd; ++axis)
        if (array.dimensions[axis] > 1)
            axes[count++] = {std::abs(array.strides[axis]), array.dimensions[axis]};
    std::sort(axes, axes + count);
    std::ptrdiff_t reach = item;
    for (int axis = 0; axis < count; ++axis) {
        if (axes[axis].first < reach) return false;
        reach += axes[axis].first * (axes[axis].second - 1);
    }
    return true;
}

bool may_overlap(const PyArray_Proxy& first, std::ptrdiff_t first_item, const PyArray_Proxy& second,
                 std::ptrdiff_t second_item) {
    const Extent one = extent_of(first, first_item), other = extent_of(second, second_item);
    return one.begin < other.end && other.begin < one.end;
}

ResultOrder::ResultOrder(const Loop& loop, const std::vector<std::ptrdiff_t>& shape,
                         std::ptrdiff_t item, PyObject* const* operands)
    : loop_(loop), shape_(shape), item_(item), places_(shape.size()) {
    for (const auto& places : loop_)
        for (const short place : places)
            places_ = std::max(places_, static_cast<std::size_t>(place + 1));
    std::vector<std::ptrdiff_t> steps(loop_.size() * places_, 0);
    for (std::size_t k = 0; k < loop_.size(); ++k) {
        const PyArray_Proxy& array = *py::detail::array_proxy(operands[k]);
        std::ptrdiff_t step = 1;  // of contiguous operands, in elements
        for (int axis = array.nd; axis-- > 0; step *= array.dimensions[axis]) {
            const short place = loop_[k][static_cast<std::size_t>(axis)];
            if (place >= 0) steps[k * places_ + static_cast<std::size_t>(place)] += step;
        }
    }
    of_contiguous_.resize(shape_.size());
    if (!strides_from(steps, of_contiguous_.data())) of_contiguous_.clear();
}

const std::ptrdiff_t* ResultOrder::strides_for(PyObject* const* operands,
                                               std::ptrdiff_t* strides) const {
    const auto array_of = [&](std::size_t k) { return py::detail::array_proxy(operands[k]); };
    bool contiguous = true;
    for (std::size_t k = 0; k < loop_.size(); ++k)
        contiguous = contiguous && (array_of(k)->flags & c_contiguous) != 0;
    if (contiguous) return of_contiguous_.empty() ? nullptr : of_contiguous_.data();
    std::vector<std::ptrdiff_t> steps(loop_.size() * places_, 0);
    for (std::size_t k = 0; k < loop_.size(); ++k)
        for (std::size_t axis = 0; axis < loop_[k].size(); ++axis)
            if (const short place = loop_[k][axis]; place >= 0)
                steps[k * places_ + static_cast<std::size_t>(place)] += array_of(k)->strides[axis];
    return strides_from(steps, strides) ? strides : nullptr;
}

bool ResultOrder::strides_from(const std::vector<std::ptrdiff_t>& steps,
                               std::ptrdiff_t* strides) const {
    std::vector<std::size_t> outward;
    outward.reserve(places_);
    for (std::size_t place = places_; place-- > 0;) {
        std::size_t position = outward.size();
        for (std::size_t k = outward.size(); k-- > 0;) {
            bool known;
            if (swaps(steps, places_, outward[k], place, known))
                position = k;
            else if (known)
                break;
        }
        outward.insert(outward.begin() + static_cast<std::ptrdiff_t>(position), place);
    }
    std::ptrdiff_t step = item_;
    std::size_t least = shape_.size();
    bool in_order = true;
    for (const std::size_t place : outward) {
        if (place >= shape_.size()) continue;
        in_order = in_order && place < least;
        least = place;
        strides[place] = step;
        step *= std::max<std::ptrdiff_t>(shape_[place], 1);
    }
    return !in_order;
}

}  // namespace unitstride
