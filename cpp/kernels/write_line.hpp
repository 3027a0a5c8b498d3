// A contiguous line of results, vector by vector.
#pragma once

#include "simd/storage.hpp"

namespace unitstride::UNITSTRIDE_ISA {
namespace {

// out[i] = result(i) by vectors, past the caches if `streaming`; `result(i, count)` gives `count`
// elements from i.
template <class S, class Result>
inline void write_line(S* out, size length, bool streaming, const Result& result) noexcept {
    constexpr size width = lanes<Compute<S>>;
    size i = 0;
    const auto misplaced = reinterpret_cast<std::uintptr_t>(out) % stored_vector_bytes<S>;
    if (streaming && length > 4 * width && misplaced % sizeof(S) == 0) {
        if (misplaced != 0) {
            i = static_cast<size>((stored_vector_bytes<S> - misplaced) / sizeof(S));
            store_first_as(out, result(0, i), i);
        }
        for (; i + width <= length; i += width) store_streaming_as(out + i, result(i, width));
    } else {
        for (; i + width <= length; i += width) store_as(out + i, result(i, width));
    }
    if (i < length) store_first_as(out + i, result(i, length - i), length - i);
}

// A line of results on its way past the caches, written bit by bit while the next line is computed:
// stores drain and arithmetic goes on at the same time. What `Result` reads stays as it is until
// `finish`.
template <class S, class Result>
class PendingLine {
    using T = Compute<S>;
    static constexpr size width = lanes<T>;

  public:
    static constexpr bool writes = Result::writes;

    static bool can_hold(const S* out, size length) noexcept {
        return length > 4 * width && reinterpret_cast<std::uintptr_t>(out) % sizeof(S) == 0;
    }
    void begin(S* out, size length, const Result& result) noexcept {
        out_ = out;
        length_ = length;
        result_ = result;
        const auto misplaced = reinterpret_cast<std::uintptr_t>(out) % stored_vector_bytes<S>;
        next_ = misplaced == 0
                    ? 0
                    : static_cast<size>((stored_vector_bytes<S> - misplaced) / sizeof(S));
        if (next_ > 0) store_first_as(out, result_(0, next_), next_);
    }
    // The next `vectors` vectors, if there are as many.
    template <int vectors>
    [[gnu::always_inline]] void advance() noexcept {
        if (next_ + vectors * width > length_) return;
#pragma GCC unroll 8
        for (int k = 0; k < vectors; ++k, next_ += width)
            store_streaming_as(out_ + next_, result_(next_, width));
    }
    void finish() noexcept {
        for (; next_ + width <= length_; next_ += width)
            store_streaming_as(out_ + next_, result_(next_, width));
        if (next_ < length_)
            store_first_as(out_ + next_, result_(next_, length_ - next_), length_ - next_);
        next_ = length_;
    }

  private:
    S* out_ = nullptr;
    size next_ = 0, length_ = 0;
    Result result_ = {};
};

}  // namespace
}  // namespace unitstride::UNITSTRIDE_ISA
