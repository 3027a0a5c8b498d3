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
//
// Only whole cache lines go out: a part of one costs a read of the rest. Where a line of results
// ends in the middle of a cache line, that part waits at the seam for the head of the next one, if
// the two adjoin in memory.
template <class S, class Result>
class PendingLine {
    using T = Compute<S>;
    static constexpr size width = lanes<T>, line = cache_line<S>;

  public:
    static constexpr bool writes = Result::writes;

    explicit PendingLine(S* seam) noexcept : seam_(seam) {}  // room for a cache line

    static bool can_hold(const S* out, size length) noexcept {
        return length > 4 * line && reinterpret_cast<std::uintptr_t>(out) % sizeof(S) == 0;
    }
    void begin(S* out, size length, const Result& result) noexcept {
        const bool adjoins = waiting_ > 0 && out == out_ + length_;
        if (!adjoins) finish_seam();
        out_ = out;
        length_ = length;
        result_ = result;
        const auto misplaced = reinterpret_cast<std::uintptr_t>(out) % 64;
        const size before = static_cast<size>(misplaced / sizeof(S));
        next_ = before == 0 ? 0 : line - before;
        if (adjoins) {
            put_at_seam(before, 0, next_);
            store_streaming_line<Result::bounded>(out - before,
                                                  [&](size i) { return load_as(seam_ + i); });
        } else {
            write_first(out, next_);
        }
        waiting_ = 0;
    }
    // The next `lines` cache lines, if there are as many.
    template <int lines>
    [[gnu::always_inline]] void advance() noexcept {
        if (next_ + lines * line > length_) return;
#pragma GCC unroll 8
        for (int k = 0; k < lines; ++k, next_ += line) store_next_line();
    }
    void finish() noexcept {
        for (; next_ + line <= length_; next_ += line) store_next_line();
        if (next_ == length_) return;
        waiting_ = length_ - next_;
        put_at_seam(0, next_, waiting_);
        next_ = length_;
    }
    // What waits at the seam, if nothing adjoins it.
    void finish_seam() noexcept {
        S* place = out_ + length_ - waiting_;
        for (size i = 0; i < waiting_; ++i) store_scalar(place + i, seam_[i]);
        waiting_ = 0;
    }

  private:
    [[gnu::always_inline]] void store_next_line() noexcept {
        store_streaming_line<Result::bounded>(out_ + next_,
                                              [&](size i) { return result_(next_ + i, width); });
    }
    void put_at_seam(size at, size from, size count) noexcept {
        for (size i = 0; i < count; i += width) {
            const size now = count - i < width ? count - i : width;
            store_first_as(seam_ + at + i, result_(from + i, now), now);
        }
    }
    void write_first(S* out, size count) noexcept {
        for (size i = 0; i < count; i += width) {
            const size now = count - i < width ? count - i : width;
            store_first_as(out + i, result_(i, now), now);
        }
    }

    S* out_ = nullptr;
    size next_ = 0, length_ = 0;
    size waiting_ = 0;  // elements at the seam
    S* seam_;
    Result result_ = {};
};

}  // namespace
}  // namespace unitstride::UNITSTRIDE_ISA
