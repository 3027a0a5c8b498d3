// What all ways to convolve images with channels share: the windows of a problem, and how many
// results are worked on at a time.
#pragma once

#include <algorithm>

#include "core/checked.hpp"
#include "ops/plane_tiles.hpp"

namespace unitstride {

// `taps` and `results`: the shapes of the kernels and of the results, four axes each.
template <class Arguments>
Windows channel_windows(const Arguments& arguments, const std::ptrdiff_t* taps,
                        const std::ptrdiff_t* results) {
    Windows found{};
    for (int axis = 0; axis < 2; ++axis) {
        found.begin[axis] = arguments.begin[axis];
        found.step[axis] = arguments.step[axis];
        found.taps[axis] = taps[2 + axis];
        found.spread[axis] = found.taps[axis] > 1 ? arguments.spread[axis] : 1;
        found.results[axis] = results[2 + axis];
    }
    return found;
}

// A few images are divided, so that all threads find work.
constexpr std::ptrdiff_t few_items = 8;

// What a place takes in all its forms decides how many of them are brought to the cache.
inline std::ptrdiff_t cached_places(std::ptrdiff_t items, const Windows& windows,
                                    std::ptrdiff_t place_bytes, std::ptrdiff_t cache_bytes) {
    constexpr std::ptrdiff_t least_rows = 8;
    const std::ptrdiff_t most = std::max<std::ptrdiff_t>(cache_bytes / place_bytes, 1);
    if (items >= few_items) return most;
    const std::ptrdiff_t least = std::max<std::ptrdiff_t>(items, 1);
    const std::ptrdiff_t parts = (few_items + least - 1) / least;
    const std::ptrdiff_t rows = std::max(windows.results[0] / parts, least_rows);
    return std::min(most, checked_multiply(rows, windows.results[1]));
}

// Where there are few items, the panels of kernels of each are divided too; none gets no panel.
inline std::ptrdiff_t even_chunks(std::ptrdiff_t panels, std::ptrdiff_t items) {
    const std::ptrdiff_t wanted = std::min(panels, (few_items + items - 1) / items);
    const std::ptrdiff_t each = (panels + wanted - 1) / wanted;
    return (panels + each - 1) / each;
}

}  // namespace unitstride
