#include "reference.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>

#include "ops/lines.hpp"

namespace unitstride::test {
namespace {

using Real = long double;
constexpr Real infinity = std::numeric_limits<Real>::infinity();
constexpr Real undefined = std::numeric_limits<Real>::quiet_NaN();

struct Format {
    int digits, lowest_exponent, highest_exponent;
};
constexpr Format formats[] = {{24, -126, 127}, {53, -1022, 1023}, {11, -14, 15}, {8, -126, 127}};

// Units in the last place of a result of magnitude `scale` that the operation may be off by.
Real allowed(const Problem& problem, Real scale) {
    const Format& format = formats[static_cast<int>(problem.storage)];
    const bool rounds_to_16_bits = storage_bytes(problem.storage) == 2;
    const Real units = rounds_to_16_bits ? 1 : problem.operation == Operation::logsumexp ? 2 : 4;
    const int exponent = scale > 0 && scale < infinity ? std::ilogb(scale) : format.lowest_exponent;
    return units *
           std::ldexp(Real{1}, std::max(exponent, format.lowest_exponent) - (format.digits - 1));
}

Real excess(const Problem& problem, double got, Real expected, Real scale) {
    const Format& format = formats[static_cast<int>(problem.storage)];
    const Real largest =
        std::ldexp(2 - std::ldexp(Real{1}, -format.digits), format.highest_exponent);
    if (std::abs(expected) >= largest) expected = std::copysign(infinity, expected);
    if (std::isnan(expected)) return std::isnan(got) ? 0 : infinity;
    if (std::isinf(expected)) return static_cast<Real>(got) == expected ? 0 : infinity;
    if (!std::isfinite(got)) return infinity;
    return std::abs(static_cast<Real>(got) - expected) / allowed(problem, scale);
}

// One line: the places of its elements in logical order, and its own place among the lines.
struct Line {
    std::vector<std::size_t> element;
    std::size_t number;
};

std::vector<Line> lines_of(const Problem& problem) {
    std::size_t count = 1;
    for (const auto length : problem.reduced_shape()) count *= static_cast<std::size_t>(length);
    std::vector<Line> lines(count);
    for (std::size_t number = 0; number < count; ++number) lines[number].number = number;
    for (std::ptrdiff_t flat = 0; flat < problem.elements(); ++flat) {
        std::ptrdiff_t number = 0, rest = flat, line_step = 1;
        for (auto axis = static_cast<int>(problem.shape.size()) - 1; axis >= 0; --axis) {
            const auto a = static_cast<std::size_t>(axis);
            if (!problem.along_line[a]) {
                number += rest % problem.shape[a] * line_step;
                line_step *= problem.shape[a];
            }
            rest /= problem.shape[a];
        }
        lines[static_cast<std::size_t>(number)].element.push_back(static_cast<std::size_t>(flat));
    }
    return lines;
}

// Elements of a problem as numbers.
class Values {
  public:
    Values(const Problem& problem, const Bytes& bytes) : bytes_(bytes), storage_(problem.storage) {}
    Real operator[](std::size_t i) const {
        return decode(bytes_.data() + i * static_cast<std::size_t>(storage_bytes(storage_)),
                      storage_);
    }

  private:
    const Bytes& bytes_;
    Storage storage_;
};

struct Judge {
    const Problem& problem;
    const Result& result;
    Values primal, cotangent, log_sum, out, sums;
    Verdict verdict;

    Judge(const Problem& p, const Result& r)
        : problem(p),
          result(r),
          primal(p, p.primal),
          cotangent(p, p.cotangent),
          log_sum(p, p.log_sum),
          out(p, r.out),
          sums(p, r.sums) {}

    bool selected(std::size_t element) const {
        return problem.mask.empty() || problem.mask[element] != 0;
    }
    void compare(const Values& got, std::size_t place, Real expected, Real scale) {
        const auto value = static_cast<double>(got[place]);
        const auto now = static_cast<double>(excess(problem, value, expected, scale));
        if (now <= verdict.excess) return;
        char words[160];
        std::snprintf(words, sizeof words, "%.3g times the allowed error: %a, not %La, at %zu", now,
                      value, expected, place);
        verdict = {now, words};
    }
    void forward(const Line& line);
    void gradient(const Line& line);
};

void Judge::forward(const Line& line) {
    const Real temperature = problem.temperature;
    Real highest = -infinity;
    std::size_t at = line.element.size();
    bool has_nan = false;
    for (std::size_t i = 0; i < line.element.size(); ++i) {
        if (!selected(line.element[i])) continue;
        const Real x = primal[line.element[i]];
        has_nan |= std::isnan(x);
        if (x > highest) {
            highest = x;
            at = i;
        }
    }
    Real others = 0;
    for (std::size_t i = 0; i < line.element.size(); ++i)
        if (i != at && selected(line.element[i]))
            others += std::exp((primal[line.element[i]] - highest) / temperature);
    const bool defined = !has_nan && std::isfinite(highest);
    if (!result.sums.empty()) {
        const Real sum = defined   ? highest / temperature + std::log1p(others)
                         : has_nan ? undefined
                                   : highest;
        // Where the two terms cancel more than this, long double itself is not exact enough.
        const Real terms = defined ? std::max(std::abs(highest / temperature), Real{1}) : 0;
        compare(sums, line.number, sum, std::max(std::abs(sum), terms / 256));
    }
    if (problem.operation == Operation::logsumexp) return;
    const bool is_log = problem.operation == Operation::log_softmax;
    for (const std::size_t element : line.element) {
        const Real shifted = (primal[element] - highest) / temperature;
        Real expected = is_log ? shifted - std::log1p(others) : std::exp(shifted) / (1 + others);
        if (!defined) expected = undefined;
        if (!selected(element)) expected = is_log ? -infinity : 0;
        compare(out, element, expected, std::abs(expected));
    }
}

void Judge::gradient(const Line& line) {
    const Real temperature = problem.temperature;
    Real total = 0, magnitude = 0;
    for (const std::size_t element : line.element) {
        if (!selected(element) || problem.operation == Operation::logsumexp_vjp) continue;
        const Real weight = problem.operation == Operation::softmax_vjp ? primal[element] : 1;
        total += weight * cotangent[element];
        magnitude += std::abs(weight * cotangent[element]);
    }
    for (const std::size_t element : line.element) {
        const Real p = primal[element];
        Real expected, scale;
        if (problem.operation == Operation::softmax_vjp) {
            const Real dy = cotangent[element];
            expected = p * (dy - total);
            scale = std::abs(p) * (std::abs(dy) + magnitude);
        } else if (problem.operation == Operation::log_softmax_vjp) {
            const Real dy = cotangent[element];
            expected = dy - std::exp(p) * total;
            scale = std::abs(dy) + std::exp(p) * magnitude;
        } else {
            expected = cotangent[line.number] * std::exp(p / temperature - log_sum[line.number]);
            scale = std::abs(expected);
        }
        if (!selected(element)) expected = scale = 0;
        compare(out, element, expected / temperature, scale / temperature);
    }
}

}  // namespace

double decode(const char* element, Storage storage) {
    if (storage == Storage::float64) {
        double value;
        std::memcpy(&value, element, sizeof value);
        return value;
    }
    if (storage == Storage::float16) {
        std::uint16_t bits;
        std::memcpy(&bits, element, sizeof bits);
        const int exponent = bits >> 10 & 0x1f, fraction = bits & 0x3ff;
        const double magnitude = exponent == 0x1f ? (fraction ? NAN : INFINITY)
                                 : exponent == 0  ? std::ldexp(fraction, -24)
                                                  : std::ldexp(fraction + 1024, exponent - 25);
        return bits & 0x8000 ? -magnitude : magnitude;
    }
    char bytes[sizeof(float)] = {};
    const auto size = static_cast<std::size_t>(storage_bytes(storage));
    std::memcpy(bytes + sizeof bytes - size, element, size);  // bfloat16: the upper half of a float
    float value;
    std::memcpy(&value, bytes, sizeof value);
    return static_cast<double>(value);
}

void encode(char* element, Storage storage, double value) {
    if (storage == Storage::float64) {
        std::memcpy(element, &value, sizeof value);
        return;
    }
    if (storage == Storage::float16) {
        const double magnitude = std::abs(value);
        const int exponent = magnitude == 0 ? -14 : std::max(std::ilogb(magnitude), -14);
        const auto steps =
            std::isfinite(value) ? static_cast<int>(std::ldexp(magnitude, 10 - exponent)) : 0;
        const int finite = steps < 1024 ? steps : ((exponent + 15) << 10) + steps - 1024;
        const int bits = std::isnan(value) ? 0x7e00 : std::isinf(value) ? 0x7c00 : finite;
        const auto stored = static_cast<std::uint16_t>(bits | (std::signbit(value) ? 0x8000 : 0));
        std::memcpy(element, &stored, sizeof stored);
        return;
    }
    const auto single = static_cast<float>(value);
    char bytes[sizeof single];
    std::memcpy(bytes, &single, sizeof single);
    const auto size = static_cast<std::size_t>(storage_bytes(storage));
    std::memcpy(element, bytes + sizeof bytes - size, size);
}

Verdict judge(const Problem& problem, const Result& result) {
    Judge judge(problem, result);
    for (const Line& line : lines_of(problem)) {
        if (is_gradient(problem.operation)) {
            judge.gradient(line);
        } else {
            judge.forward(line);
        }
    }
    return judge.verdict;
}

}  // namespace unitstride::test
