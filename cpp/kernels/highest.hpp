// The maximum of a line: at once, or on the way past another one.
#pragma once

#include <type_traits>

#include "kernels/wide_sum.hpp"
#include "simd/storage.hpp"

namespace unitstride::UNITSTRIDE_ISA {
namespace {

// NaN elements are passed over: they show in the sum.
template <class S>
inline Compute<S> highest_of(const S* x, size length) noexcept {
    using T = Compute<S>;
    constexpr size width = lanes<T>;
    Vec<T> best[4];
    for (auto& b : best) b = splat(-static_cast<T>(__builtin_huge_val()));
    size i = 0;
    for (; i + 4 * width <= length; i += 4 * width) {
#pragma GCC unroll 4
        for (size k = 0; k < 4; ++k) best[k] = max_or_second(load_as(x + i + k * width), best[k]);
    }
    for (; i + width <= length; i += width) best[0] = max_or_second(load_as(x + i), best[0]);
    if (i < length) {
        const T fill = -static_cast<T>(__builtin_huge_val());
        best[1] = max_or_second(load_first_as(x + i, length - i, fill), best[1]);
    }
    best[0] = max_or_second(best[0], best[1]);
    best[2] = max_or_second(best[2], best[3]);
    return highest_lane(max_or_second(best[0], best[2]));
}

// The highest of what it is shown, NaN passed over.
template <class S>
struct Highest {
    using T = Compute<S>;
    static constexpr int chains = sizeof(T) == 8 ? 1 : 2;  // as the registers allow
    Vec<T> best[chains];

    Highest() noexcept {
        for (auto& b : best) b = splat(-static_cast<T>(__builtin_huge_val()));
    }
    // A group of vectors.
    [[gnu::always_inline]] void look_at(const S* x) noexcept {
#pragma GCC unroll 4
        for (int k = 0; k < group_vectors; ++k)
            best[k % chains] = max_or_second(load_as(x + k * lanes<T>), best[k % chains]);
    }
    // At most a vector.
    void look_at_first(const S* x, size count) noexcept {
        best[0] = max_or_second(load_first_as(x, count, best[0][0]), best[0]);
    }
    // Of the `length` elements at x, all of which it has seen.
    T value(const S*, size) const noexcept {
        return highest_lane(max_or_second(best[0], best[chains - 1]));
    }
};

// Numbers of 16 bits are compared as integers, without conversion: signed ones put every positive
// number above every negative one, unsigned ones the negative ones in reverse.
template <class S>
struct HighestOf16Bits {
    static constexpr size width = 2 * lanes<float>;
    static constexpr int vectors = group_vectors / 2;
    I16 most[vectors];
    U16 least[vectors];

    HighestOf16Bits() noexcept {
        for (int k = 0; k < vectors; ++k) {
            most[k] = ~I16{};  // a negative number: replaced by any positive one
            least[k] = ~U16{};
        }
    }
    [[gnu::always_inline]] void look_at(const S* x) noexcept {
#pragma GCC unroll 2
        for (int k = 0; k < vectors; ++k) {
            const I16 bits = load_vector<I16>(x + k * width);
            const U16 magnitude = reinterpret_cast<U16>(bits);
            most[k] = bits > most[k] ? bits : most[k];
            least[k] = magnitude < least[k] ? magnitude : least[k];
        }
    }
    void look_at_first(const S* x, size count) noexcept {
        for (size i = 0; i < count; ++i) {
            const std::uint16_t bits = load_scalar(x + i).bits;
            const auto signed_bits = static_cast<std::int16_t>(bits);
            if (signed_bits > most[0][i]) most[0][i] = signed_bits;
            if (bits < least[0][i]) least[0][i] = bits;
        }
    }
    float value(const S* x, size length) const noexcept {
        std::int16_t highest = -1;
        std::uint16_t lowest = 0xffff;
        for (int k = 0; k < vectors; ++k)
            for (size l = 0; l < width; ++l) {
                if (most[k][l] > highest) highest = most[k][l];
                if (least[k][l] < lowest) lowest = least[k][l];
            }
        const auto bits = highest >= 0 ? static_cast<std::uint16_t>(highest) : lowest;
        if ((bits & 0x7fff) > S::infinity) return highest_of(x, length);  // NaN hides the others
        const S best = {bits};
        return load_first_as(&best, 1, 0.0f)[0];
    }
};

// The line after the one that is worked on: its maximum is found on the way, which also brings it
// into the cache. The maximum does not care about order, so its loads begin at a cache line
// wherever the line begins.
template <class S>
struct NextLine {
    using Best = std::conditional_t<sizeof(S) == 2, HighestOf16Bits<S>, Highest<S>>;
    const S* x;
    size length, head = 0;  // elements before the first cache line
    Best best;

    NextLine(const S* line, size elements) noexcept : x(line), length(elements) {
        const auto misplaced = reinterpret_cast<std::uintptr_t>(line) % 64;
        const size before = static_cast<size>((64 - misplaced) / sizeof(S));
        if (misplaced == 0 || misplaced % sizeof(S) != 0 || before > length) return;
        head = before;
        constexpr size width = lanes<Compute<S>>;
        for (size i = 0; i < head; i += width)
            look_at_first(i, head - i < width ? head - i : width);
    }
    void look_at_first(size i, size count) noexcept { best.look_at_first(x + i, count); }
    Compute<S> highest() const noexcept { return best.value(x, length); }
};

}  // namespace
}  // namespace unitstride::UNITSTRIDE_ISA
