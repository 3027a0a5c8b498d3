#include "ops/logsumexp_refine.hpp"

#include <algorithm>
#include <cmath>

namespace unitstride {
namespace {

constexpr std::ptrdiff_t stretch = 1024;  // elements that are summed at a time
constexpr std::ptrdiff_t longest_pair_line =
    4096;  // a pair of doubles takes some 100 ns per element

constexpr double plain_for_float =
    1e-7;  // from here on the error of double, 1e-15, does not show in float

// An unevaluated sum of two doubles, the second at most half a unit in the last place of the first.
struct Pair {
    double high, low;
};

Pair renormalised(double high, double low) {
    const double sum = high + low;
    return {sum, low - (sum - high)};
}
Pair exact_sum(double a, double b) {
    const double sum = a + b, part = sum - a;
    return {sum, (a - (sum - part)) + (b - part)};
}
Pair operator+(Pair a, Pair b) {
    const Pair sum = exact_sum(a.high, b.high);
    return renormalised(sum.high, sum.low + (a.low + b.low));
}
Pair operator*(Pair a, Pair b) {
    const double product = a.high * b.high;
    return renormalised(product,
                        std::fma(a.high, b.high, -product) + (a.high * b.low + a.low * b.high));
}
Pair operator/(Pair a, double b) {
    const double first = a.high / b;
    return renormalised(first, (std::fma(-first, b, a.high) + a.low) / b);
}
Pair operator-(Pair a) { return {-a.high, -a.low}; }

// exp of x <= 1: x = n ln 2 + 2^10 r, the Taylor series of exp(r) - 1, squared ten times.
Pair exponential(Pair x) {
    constexpr Pair ln2 = {0x1.62e42fefa39efp-1, 0x1.abc9e3b39803fp-56};
    constexpr double ln2_third = 0x1.7b57a079a1934p-111;
    constexpr int halvings = 10, terms = 11;
    const double n = std::nearbyint(x.high / ln2.high);
    if (n < -1000) return {0.0, 0.0};
    Pair r = x + -(Pair{n, 0.0} * ln2);
    r = r + Pair{-n * ln2_third, 0.0};
    r = {std::ldexp(r.high, -halvings), std::ldexp(r.low, -halvings)};
    Pair less_one = {0.0, 0.0};  // Horner: r (1 + r/2 (1 + r/3 (...)))
    for (int k = terms; k >= 1; --k)
        less_one = (less_one + Pair{1.0, 0.0}) * r / static_cast<double>(k);
    for (int k = 0; k < halvings; ++k)
        less_one = less_one * less_one + Pair{2 * less_one.high, 2 * less_one.low};
    const Pair value = less_one + Pair{1.0, 0.0};
    return {std::ldexp(value.high, static_cast<int>(n)),
            std::ldexp(value.low, static_cast<int>(n))};
}

// Calls body(elements in double, count) for the line, stretch by stretch.
template <class Body>
void for_each_stretch(const SoftmaxCall& call, const std::ptrdiff_t* offset, Body&& body) {
    const Storage storage = call.storage();
    double wide[stretch];
    float narrow[stretch];
    void* tile =
        storage == Storage::float64 ? static_cast<void*>(wide) : static_cast<void*>(narrow);
    for (std::ptrdiff_t begin = 0; begin < call.plan.length; begin += stretch) {
        const std::ptrdiff_t count = std::min(stretch, call.plan.length - begin);
        pack_stretch(call.table, storage, call.plan, operand_x, call.x_at(offset[operand_x]), begin,
                     count, tile);
        if (call.masked())
            mask_stretch(call.table, storage, call.plan, operand_where,
                         call.where_at(offset[operand_where]), begin, count, tile, call.fill());
        if (storage != Storage::float64) std::copy(narrow, narrow + count, wide);
        body(wide, count);
    }
}

// max / temperature as a pair.
Pair divided(double x, double temperature) { return Pair{x, 0.0} / temperature; }

double log_sum_in_pairs(const SoftmaxCall& call, const std::ptrdiff_t* offset, double rough) {
    const double temperature = call.arguments.temperature;
    // One Newton step from the rough result: log S = rough + log(S exp(-rough)), and S exp(-rough)
    // is 1 but for little.
    Pair scaled = {0.0, 0.0};
    for_each_stretch(call, offset, [&](const double* x, std::ptrdiff_t count) {
        for (std::ptrdiff_t i = 0; i < count; ++i)
            if (std::isfinite(x[i]))
                scaled = scaled + exponential(divided(x[i], temperature) + Pair{-rough, 0.0});
    });
    const Pair excess = scaled + Pair{-1.0, 0.0};
    return (Pair{rough, 0.0} + Pair{excess.high - 0.5 * excess.high * excess.high, excess.low})
        .high;
}

double log_sum_in_double(const SoftmaxCall& call, const std::ptrdiff_t* offset, double highest) {
    const double inverse = call.constants.of_double.inverse_temperature_wide;
    const SoftmaxKernels& kernels = call.table.softmax[static_cast<int>(Storage::float64)];
    double others = 0.0, maxima = 0.0;
    for_each_stretch(call, offset, [&](const double* x, std::ptrdiff_t count) {
        LineSum sum;
        SoftmaxRows task = {x,
                            nullptr,
                            1,
                            count,
                            0,
                            0,
                            &call.constants.of_double,
                            nullptr,
                            0,
                            &sum,
                            SoftmaxOutput::none,
                            false,
                            0};
        kernels.rows(task);
        if (sum.highest == highest) {
            maxima += 1.0;
            others += sum.excess;
        } else if (sum.excess == sum.excess) {  // not a stretch of -inf alone
            others += (1.0 + sum.excess) * std::exp((sum.highest - highest) * inverse);
        }
    });
    return highest * inverse + std::log1p((maxima - 1.0) + others);
}

}  // namespace

bool nearly_cancels(double log_sum, const LineSum& sum, double inverse_temperature) noexcept {
    if (!(sum.highest * inverse_temperature < 0.0) || !(sum.excess > 0.0)) return false;
    return std::abs(log_sum) < 2.0 * sum.excess / (1.0 + sum.excess);
}

double refined_log_sum(const SoftmaxCall& call, const std::ptrdiff_t* offset, const LineSum& sum,
                       double rough) {
    if (call.storage() != Storage::float64) {
        rough = log_sum_in_double(call, offset, sum.highest);
        if (std::abs(rough) > plain_for_float) return rough;
    }
    return call.plan.length > longest_pair_line ? rough : log_sum_in_pairs(call, offset, rough);
}

}  // namespace unitstride
