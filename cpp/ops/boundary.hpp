// What a line is taken to be beyond its ends.
#pragma once

#include <algorithm>
#include <cstddef>

namespace unitstride {

enum class Boundary : int { zero = 0, reflect, replicate, circular, symmetric };

// Which element of a line of `length` stands at `place` beyond its ends.
inline std::ptrdiff_t reflected(std::ptrdiff_t place, std::ptrdiff_t length, Boundary boundary) {
    const auto modulo = [](std::ptrdiff_t value, std::ptrdiff_t period) {
        const std::ptrdiff_t rest = value % period;
        return rest < 0 ? rest + period : rest;
    };
    if (boundary == Boundary::circular) return modulo(place, length);
    if (boundary == Boundary::replicate || length == 1)
        return std::clamp<std::ptrdiff_t>(place, 0, length - 1);
    const std::ptrdiff_t twice = boundary == Boundary::reflect ? 2 * length - 2 : 2 * length;
    const std::ptrdiff_t found = modulo(place, twice);
    const std::ptrdiff_t last = boundary == Boundary::reflect ? twice : twice - 1;
    return found < length ? found : last - found;
}

// The places [begin, end) of an extended line: copy(element, place, count) for stretches of
// elements, zero(place, count) for what is zero.
template <class Copy, class Zero>
void for_extended(std::ptrdiff_t begin, std::ptrdiff_t end, std::ptrdiff_t length,
                  Boundary boundary, Copy&& copy, Zero&& zero) {
    const auto extend = [&](std::ptrdiff_t from, std::ptrdiff_t to) {
        if (from >= to) return;
        if (boundary == Boundary::zero) return zero(from, to - from);
        for (std::ptrdiff_t place = from; place < to; ++place)
            copy(reflected(place, length, boundary), place, std::ptrdiff_t{1});
    };
    const std::ptrdiff_t first = std::clamp<std::ptrdiff_t>(begin, 0, length);
    const std::ptrdiff_t last = std::clamp<std::ptrdiff_t>(end, 0, length);
    extend(begin, std::min<std::ptrdiff_t>(end, 0));
    if (first < last) copy(first, first, last - first);
    extend(std::max(begin, length), end);
}

}  // namespace unitstride
