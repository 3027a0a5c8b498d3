#include "ops/transform_plan.hpp"

#include <algorithm>

namespace unitstride {
namespace {

constexpr int least_logarithm = 5, most_logarithm = 18;

// Nanoseconds, on a core that multiplies and adds two vectors per cycle at 3.6 GHz: for one point
// of all lanes, a doubling of the length, and moving it between array, transform and product; for
// one piece of a product.
constexpr double doubling = 0.6, moving = 10.0, piece = 1.0, gathering = 2.0, keeping = 1.3;

// What a group of signals takes longer that leaves the second-level cache.
double out_of_cache(std::ptrdiff_t bytes) {
    if (bytes <= 512 << 10) return 1;
    return bytes <= 1 << 20 ? 1.25 : bytes <= 2 << 20 ? 1.55 : 2.3;
}

std::ptrdiff_t parts(std::ptrdiff_t whole, std::ptrdiff_t part) {
    return (whole + part - 1) / part;
}

double time_of(const TransformShape& shape, const TransformPlan& plan) {
    const auto groups_of = [&](std::ptrdiff_t signals) { return parts(signals, shape.lanes); };
    const auto paired = [&](std::ptrdiff_t blocks) {
        return shape.is_real ? parts(blocks, 2) : blocks;
    };
    std::ptrdiff_t kernels = groups_of(shape.kernels * plan.pieces), forward = 0, inverse = 0;
    switch (plan.form) {
        case TransformForm::blocks:
            if (shape.kernels > 1) {
                forward = shape.lines * groups_of(paired(plan.blocks));
            } else if (plan.blocks == 1) {
                forward = groups_of(paired(shape.lines));
            } else {
                forward = groups_of(shape.lines * paired(plan.blocks));
            }
            inverse = forward;
            break;
        case TransformForm::pieces:
            kernels = shape.kernels * groups_of(plan.pieces);
            forward = shape.lines * groups_of(paired(plan.blocks) + plan.pieces - 1);
            inverse = shape.lines * groups_of(paired(plan.blocks));
            break;
        case TransformForm::whole_lines:
            kernels = 0;
            forward = inverse = groups_of(shape.lines);
            break;
    }
    // One group is worked on by one thread: a second one is free on most machines.
    const auto even = [](std::ptrdiff_t groups) {
        return static_cast<double>(groups + groups % 2);
    };
    const double points = static_cast<double>(plan.points);
    const double transform = points * (doubling * plan.logarithm + moving) *
                             out_of_cache(plan.points * 2 * shape.vector_bytes);
    double products = even(inverse) * points * piece, kept = 1;
    if (plan.form == TransformForm::pieces) {
        kept = keeping;
        products *= static_cast<double>(plan.pieces);
        products += even(forward) * points * gathering;
    }
    return (even(kernels) + even(forward) + even(inverse)) * transform * kept + products;
}

}  // namespace

TransformPlan plan_blocks(const TransformShape& shape, int logarithm) {
    TransformPlan plan{};
    plan.form = TransformForm::blocks;
    plan.logarithm = logarithm;
    plan.points = std::ptrdiff_t{1} << logarithm;
    plan.taps = shape.taps;
    plan.skip = shape.taps - 1;
    plan.step = plan.points - plan.skip;
    plan.blocks = parts(shape.outputs, plan.step);
    plan.pieces = 1;
    plan.nanoseconds = time_of(shape, plan);
    return plan;
}

TransformPlan plan_transform(const TransformShape& shape) {
    TransformPlan best{};
    const auto consider = [&](TransformPlan plan) {
        plan.blocks = parts(shape.outputs, plan.step);
        plan.pieces = parts(shape.taps, plan.taps);
        plan.nanoseconds = time_of(shape, plan);
        if (best.points == 0 || plan.nanoseconds < best.nanoseconds) best = plan;
    };
    const std::ptrdiff_t whole = std::max({shape.length, shape.taps, shape.start + shape.outputs,
                                           shape.length + shape.taps - 1 - shape.start});
    for (int n = least_logarithm; n <= most_logarithm; ++n) {
        TransformPlan plan{};
        plan.logarithm = n;
        const std::ptrdiff_t points = plan.points = std::ptrdiff_t{1} << n;
        if (shape.may_wrap && points >= whole) {
            plan.skip = shape.start;
            plan.step = shape.outputs;
            plan.taps = shape.taps;
            plan.form = TransformForm::blocks;
            consider(plan);
            plan.form = TransformForm::whole_lines;
            if (shape.is_real && shape.kernels > 1) consider(plan);
            break;
        }
        if (shape.taps <= points / 2) {
            plan = plan_blocks(shape, n);
        } else {
            plan.form = TransformForm::pieces;
            plan.taps = plan.skip = plan.step = points / 2;
        }
        consider(plan);
    }
    return best;
}

}  // namespace unitstride
