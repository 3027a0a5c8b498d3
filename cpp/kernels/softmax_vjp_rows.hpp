// Gradients of contiguous lines, one after the other: a line's results are written while the sum of
// the next line is formed, which brings that one into the cache. Memory reads, arithmetic and
// memory writes overlap, and every line is read once from memory and written once.
#pragma once

#include "kernels/softmax_vjp_line.hpp"
#include "kernels/write_line.hpp"

namespace unitstride::UNITSTRIDE_ISA {
namespace {

// How far ahead of the loads memory is asked for.
constexpr size vjp_prefetch_bytes = 2048;
// Results that are stored together, two groups of them: reads and writes of fewer or more get in
// each other's way.
constexpr int burst_vectors = 2 * group_vectors;

template <class S>
inline Vec<Compute<S>> load_count(const S* source, size count) noexcept {
    return count == lanes<Compute<S>> ? load_as(source)
                                      : load_first_as(source, count, Compute<S>(0));
}

// The same for results, where what lies past the end must not raise flags.
template <class S>
inline Vec<Compute<S>> load_repeated(const S* source, size count) noexcept {
    return count == lanes<Compute<S>> ? load_as(source) : load_first_repeated(source, count);
}

// Reads a byte and forgets it: the hardware's own prefetching follows loads.
inline void touch(const void* address) noexcept {
    asm volatile("" : : "r"(load_scalar(static_cast<const unsigned char*>(address))));
}

// Brings a group of elements into the cache that is not read otherwise before it is needed, or
// asks for what is to come.
template <class S, bool is_read>
[[gnu::always_inline]] inline void fetch_group(const S* source) noexcept {
    constexpr size group = group_vectors * lanes<Compute<S>>,
                   line = 64 / static_cast<size>(sizeof(S)),
                   ahead = vjp_prefetch_bytes / static_cast<size>(sizeof(S));
#pragma GCC unroll 8
    for (size k = 0; k < group; k += line) {
        prefetch(source + k + ahead);
        if constexpr (!is_read) touch(source + k);
    }
}

// One line of the inputs.
template <class S>
struct VjpLine {
    const S* primal;
    const S* cotangent;
};

template <class S>
inline VjpLine<S> line_of(const VjpRows& task, size row) noexcept {
    const S* cotangent = static_cast<const S*>(task.cotangent);
    return {static_cast<const S*>(task.primal) + row * task.primal_stride,
            cotangent ? cotangent + row * task.cotangent_stride : nullptr};
}
template <class S>
inline Stored<S>* out_of(const VjpRows& task, size row) noexcept {
    return static_cast<Stored<S>*>(task.out) + row * task.out_stride;
}

// The sum of a line, in the making.
template <class S, bool with_product>
class LineSumming {
    using T = Compute<S>;
    static constexpr size width = lanes<T>, group = group_vectors * width;

  public:
    explicit LineSumming(const VjpLine<S>& line) noexcept : line_(line) {}

    [[gnu::always_inline]] void add(size i) noexcept {
        WideVector<T> primal[group_vectors] = {}, cotangent[group_vectors];
#pragma GCC unroll 4
        for (int k = 0; k < group_vectors; ++k) {
            cotangent[k] = load_wide(line_.cotangent + i + k * width);
            if constexpr (with_product) primal[k] = load_wide(line_.primal + i + k * width);
        }
        add_group<with_product>(total_, primal, cotangent);
    }
    void add_last(size i, size length) noexcept {
        if (i == length) return;
        WideVector<T> primal[group_vectors] = {}, cotangent[group_vectors] = {};
#pragma GCC unroll 4
        for (int k = 0; k < group_vectors; ++k) {
            const size at = i + k * width, count = length - at < width ? length - at : width;
            if (count <= 0) continue;
            cotangent[k] = widened(load_count(line_.cotangent + at, count));
            if constexpr (with_product) primal[k] = widened(load_count(line_.primal + at, count));
        }
        add_group<with_product>(total_, primal, cotangent);
    }
    VjpSum total() const noexcept {
        const TwoWords words = fold_lanes(total_);
        return {words.sum, words.error};
    }

  private:
    VjpLine<S> line_;
    WideSum<T> total_ = {};
};

// The end of a line that shares a vector with the beginning of the next one: stored past the caches
// only when both are there. A part of a cache line would have to be read from memory first.
template <class S>
struct SharedVector {
    alignas(64) Stored<S> element[lanes<Compute<S>>];
    size count = 0;
};

// Results of elements that are neighbours in memory are joined across lines.
template <class S>
inline bool lines_join(const VjpRows& task) noexcept {
    return task.streaming && task.out_stride == task.length && task.length >= lanes<Compute<S>>;
}

// The results of a line, on their way to memory.
template <class S, class Slope>
class LineWriting {
    using T = Compute<S>;
    static constexpr size width = lanes<T>;

  public:
    // Lines join if `shared` is not null; `is_last` is the last of them.
    LineWriting(const VjpRows& task, size row, const LineSlope<T>& slope, SharedVector<S>* shared,
                bool is_last) noexcept
        : line_(line_of<S>(task, row)),
          out_(out_of<S>(task, row)),
          length_(task.length),
          shared_(shared),
          is_last_(is_last),
          slope_(task.common) {
        slope_.slope = every_lane(slope);
        const auto misplaced =
            reinterpret_cast<std::uintptr_t>(out_) % stored_vector_bytes<Stored<S>>;
        streams_ = task.streaming && (length_ > 4 * width || shared != nullptr) &&
                   misplaced % sizeof(*out_) == 0;
        if (streams_ && misplaced != 0)
            begin_with(
                static_cast<size>((stored_vector_bytes<Stored<S>> - misplaced) / sizeof(*out_)));
    }
    [[gnu::always_inline]] bool burst() noexcept {
        if (next_ + burst_vectors * width > length_) return false;
        Vec<T> results[burst_vectors];
#pragma GCC unroll 8
        for (int k = 0; k < burst_vectors; ++k) results[k] = result(next_ + k * width, width);
        if (streams_) {
#pragma GCC unroll 8
            for (int k = 0; k < burst_vectors; ++k)
                store_streaming_as(out_ + next_ + k * width, results[k]);
        } else {
#pragma GCC unroll 8
            for (int k = 0; k < burst_vectors; ++k) store_as(out_ + next_ + k * width, results[k]);
        }
        next_ += burst_vectors * width;
        return true;
    }
    void finish() noexcept {
        while (burst()) {
        }
        for (; next_ + width <= length_; next_ += width) {
            if (streams_) {
                store_streaming_as(out_ + next_, result(next_, width));
            } else {
                store_as(out_ + next_, result(next_, width));
            }
        }
        const size left = length_ - next_;
        if (left == 0) return;
        if (streams_ && shared_ != nullptr && !is_last_) {
            store_first_as(shared_->element, result(next_, left), left);
            shared_->count = left;
        } else {
            store_first_as(out_ + next_, result(next_, left), left);
        }
        next_ = length_;
    }

  private:
    // The first `count` results, which end a vector.
    void begin_with(size count) noexcept {
        next_ = count;
        if (shared_ != nullptr && shared_->count > 0) {
            store_first_as(shared_->element + shared_->count, result(0, count), count);
            store_streaming_as(out_ - shared_->count, load_as(shared_->element));
            shared_->count = 0;
        } else {
            store_first_as(out_, result(0, count), count);
        }
    }
    [[gnu::always_inline]] Vec<T> result(size i, size count) const noexcept {
        Vec<T> cotangent = {};
        if constexpr (Slope::with_cotangent) cotangent = load_repeated(line_.cotangent + i, count);
        return slope_(load_repeated(line_.primal + i, count), cotangent);
    }

    VjpLine<S> line_;
    Stored<S>* out_;
    size next_ = 0, length_;
    SharedVector<S>* shared_;
    bool is_last_, streams_;
    Slope slope_;
};

template <class S, class Slope>
inline VjpSum sum_of_line(const VjpLine<S>& line, size length) noexcept {
    constexpr size group = group_vectors * lanes<Compute<S>>;
    LineSumming<S, Slope::with_product> sum(line);
    size i = 0;
    for (; i + group <= length; i += group) sum.add(i);
    sum.add_last(i, length);
    return sum.total();
}

// Lines whose results need their sum.
template <class S, class Slope>
[[gnu::noinline]] void summed_rows(const VjpRows& task) noexcept {
    constexpr size group = group_vectors * lanes<Compute<S>>;
    SharedVector<S> between;
    SharedVector<S>* const shared = lines_join<S>(task) ? &between : nullptr;
    VjpSum total = sum_of_line<S, Slope>(line_of<S>(task, 0), task.length);
    for (size row = 0; row + 1 < task.rows; ++row) {
        LineWriting<S, Slope> writing(task, row, Slope::of(total, task.common), shared, false);
        const VjpLine<S> following = line_of<S>(task, row + 1);
        LineSumming<S, Slope::with_product> next(following);
        size i = 0;
        for (; i + group <= task.length; i += group) {
            if (i & group) writing.burst();
            fetch_group<S, true>(following.cotangent + i);
            fetch_group<S, Slope::with_product>(following.primal + i);
            next.add(i);
        }
        if (i < task.length) {
            fetch_group<S, true>(following.cotangent + i);
            fetch_group<S, true>(following.primal + i);
        }
        next.add_last(i, task.length);
        writing.finish();
        total = next.total();
    }
    LineWriting<S, Slope>(task, task.rows - 1, Slope::of(total, task.common), shared, true)
        .finish();
}

template <class S, bool undefined>
inline void log_sum_exp_row(const VjpRows& task, size row, const LineSlope<Compute<S>>& slope,
                            SharedVector<S>* shared) noexcept {
    LineWriting<S, LogSumExpSlope<Compute<S>, undefined>> writing(task, row, slope, shared,
                                                                  row + 1 == task.rows);
    constexpr size group = group_vectors * lanes<Compute<S>>;
    const S* next = line_of<S>(task, row + 1 < task.rows ? row + 1 : row).primal;
    for (size i = 0; i + group <= task.length; i += group) {
        if (i & group) writing.burst();
        fetch_group<S, false>(next + i);
    }
    writing.finish();
}

template <class S>
[[gnu::noinline]] void log_sum_exp_rows(const VjpRows& task) noexcept {
    using T = Compute<S>;
    SharedVector<S> between;
    SharedVector<S>* const shared = lines_join<S>(task) ? &between : nullptr;
    for (size first = 0; first < task.rows; first += lanes<double>) {
        const size count = task.rows - first < lanes<double> ? task.rows - first : lanes<double>;
        LineSlope<T> slopes[lanes<double>];
        const bool all_defined =
            log_sum_slopes<T>(task.common, static_cast<const T*>(task.log_sum) + first,
                              static_cast<const T*>(task.line_cotangent) + first, count, slopes);
        for (size l = 0; l < count; ++l) {
            if (all_defined) {
                log_sum_exp_row<S, false>(task, first + l, slopes[l], shared);
            } else {
                log_sum_exp_row<S, true>(task, first + l, slopes[l], shared);
            }
        }
    }
}

template <class S>
void vjp_rows(const VjpRows& task) noexcept {
    using T = Compute<S>;
    if (task.common.gradient == SoftmaxVjp::softmax) summed_rows<S, SoftmaxSlope<T>>(task);
    if (task.common.gradient == SoftmaxVjp::log_softmax) summed_rows<S, LogSoftmaxSlope<T>>(task);
    if (task.common.gradient == SoftmaxVjp::logsumexp) log_sum_exp_rows<S>(task);
    if (task.streaming) finish_streaming();
}

template <class S>
VjpSum vjp_sum(const VjpRows& task) noexcept {
    using T = Compute<S>;
    const VjpLine<S> line = line_of<S>(task, 0);
    if (task.common.gradient == SoftmaxVjp::softmax)
        return sum_of_line<S, SoftmaxSlope<T>>(line, task.length);
    if (task.common.gradient == SoftmaxVjp::log_softmax)
        return sum_of_line<S, LogSoftmaxSlope<T>>(line, task.length);
    return {};
}

template <class S, class Slope>
inline void write_one(const VjpRows& task, VjpSum total) noexcept {
    LineWriting<S, Slope>(task, 0, Slope::of(total, task.common), nullptr, true).finish();
}

template <class S>
void vjp_write(const VjpRows& task, VjpSum total) noexcept {
    using T = Compute<S>;
    if (task.common.gradient == SoftmaxVjp::softmax) write_one<S, SoftmaxSlope<T>>(task, total);
    if (task.common.gradient == SoftmaxVjp::log_softmax)
        write_one<S, LogSoftmaxSlope<T>>(task, total);
    if (task.common.gradient == SoftmaxVjp::logsumexp) log_sum_exp_rows<S>(task);
    if (task.streaming) finish_streaming();
}

}  // namespace
}  // namespace unitstride::UNITSTRIDE_ISA
