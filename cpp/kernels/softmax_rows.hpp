// Softmax of contiguous lines, one after the other, in three passes over a line that stays in
// cache: the maximum; the exponentials into a scratch line, with their sum; the scratch times 1 /
// sum into the output. The second pass prefetches the next line and, where the arrays do not fit
// the caches, writes the line before past them: memory reads, arithmetic and memory writes overlap,
// and every line is read once and written once.
#pragma once

#include "kernels/highest.hpp"
#include "kernels/softmax_line.hpp"
#include "kernels/write_line.hpp"

namespace unitstride::UNITSTRIDE_ISA {
namespace {

// How far ahead of the maximum's loads memory is asked for: the hardware's own prefetching follows
// loads too closely when arithmetic comes between them.
constexpr size prefetch_bytes = 2048;

// Results go out in bursts of this many cache lines: with half or twice as many, reads and writes
// get in each other's way.
constexpr int burst_lines = 8;

// The exponentials of a line, into `p` if they are kept, and their sums.
template <class S, bool keep, bool with_plain, bool with_excess, class Pending>
[[gnu::always_inline]] inline void exponentials(const S* x, Compute<S>* p, size length,
                                                const LineOrigin<Compute<S>>& origin,
                                                const ExpConstants<Compute<S>>& constants,
                                                LineAccumulators<Compute<S>>& sums,
                                                NextLine<S>& next, Pending& pending) noexcept {
    using T = Compute<S>;
    constexpr size width = lanes<T>, group = group_vectors * width;
    constexpr size line = 64 / static_cast<size>(sizeof(S)),
                   ahead = prefetch_bytes / static_cast<size>(sizeof(S)),
                   burst = burst_lines * cache_line<Stored<S>>;  // whole groups: powers of two
    typename NextLine<S>::Best best = next.best;
    size i = 0;
    for (; i + group <= length; i += group) {
        if constexpr (Pending::writes)
            if ((i & (burst - group)) == burst - group) pending.template advance<burst_lines>();
        Vec<T> v[group_vectors], e[group_vectors];
#pragma GCC unroll 4
        for (int k = 0; k < group_vectors; ++k) v[k] = load_as(x + i + k * width);
#pragma GCC unroll 8
        for (size k = 0; k < group; k += line) prefetch(next.x + i + k + ahead);
        best.look_at(next.x + (i + group + next.head <= length ? i + next.head : i));
        exp_scaled<T, is_coarse<S>>(v, origin, constants, e);
        if constexpr (keep) {
#pragma GCC unroll 4
            for (int k = 0; k < group_vectors; ++k) store(p + i + k * width, e[k]);
        }
        accumulate_group<T, with_plain, with_excess>(v, e, origin.highest, sums);
    }
    next.best = best;
    if (i == length) return;
    const T fill = -static_cast<T>(__builtin_huge_val());
    Vec<T> v[group_vectors], e[group_vectors];
#pragma GCC unroll 1
    for (int k = 0; k < group_vectors; ++k, i += width) {
        const size count = length - i < width ? (length > i ? length - i : 0) : width;
        v[k] = splat(fill);
        e[k] = Vec<T>{};
        if (count == 0) continue;
        v[k] = load_first_as(x + i, count, fill);
        next.look_at_first(i, count);
        e[k] = exp_scaled<T, is_coarse<S>>(v[k], origin, constants);
        e[k] = keep_first(e[k], count);          // what lies past the end is +0
        if constexpr (keep) store(p + i, e[k]);  // the scratch has room for a whole vector
    }
    accumulate_group<T, with_plain, with_excess>(v, e, origin.highest, sums);
}

// p[i] * (scale + rest).
template <class S>
struct ScaledResult {
    static constexpr bool writes = true, bounded = true;
    const Compute<S>* p;
    Vec<Compute<S>> scale, rest;
    [[gnu::always_inline]] Vec<Compute<S>> operator()(size i, size) const noexcept {
        return scaled(load(p + i), scale, rest);
    }
};

// (x[i] - max) / temperature - log_sum.
template <class S>
struct LogResult {
    static constexpr bool writes = true, bounded = false;
    const S* x;
    LogSumOrigin<Compute<S>> origin;
    ExpConstants<Compute<S>> constants;

    LogResult() = default;
    LogResult(const S* line, double highest, double log_sum,
              const ExpConstants<Compute<S>>& exp) noexcept
        : x(line), constants(exp) {
        F64 highest_of_half[halves<Compute<S>>], log_sum_of_half[halves<Compute<S>>];
        for (auto& h : highest_of_half) h = splat(highest);
        for (auto& l : log_sum_of_half) l = splat(log_sum);
        origin = LogSumOrigin<Compute<S>>(highest_of_half, log_sum_of_half);
    }
    [[gnu::always_inline]] Vec<Compute<S>> operator()(size i, size count) const noexcept {
        constexpr size width = lanes<Compute<S>>;
        const auto v = count == width ? load_as(x + i) : load_first_repeated(x + i, count);
        return subtract_log_sum(v, origin, constants);
    }
};

// Nothing is written.
template <class S>
struct NoResult {
    static constexpr bool writes = false, bounded = false;
    Vec<Compute<S>> operator()(size, size) const noexcept { return Vec<Compute<S>>{}; }
};

template <class S, SoftmaxOutput output>
struct ResultOf;
template <class S>
struct ResultOf<S, SoftmaxOutput::softmax> {
    using type = ScaledResult<S>;
};
template <class S>
struct ResultOf<S, SoftmaxOutput::log_softmax> {
    using type = LogResult<S>;
};
template <class S>
struct ResultOf<S, SoftmaxOutput::none> {
    using type = NoResult<S>;
};

// One NaN for every layout, whichever element brought it.
template <class S>
inline void write_nan(S* out, size length, bool streaming) noexcept {
    using T = Compute<S>;
    write_line(out, length, streaming,
               [](size, size) { return splat(static_cast<T>(__builtin_nan(""))); });
}

// Completes `line` and tells whether NaN comes of what is not NaN.
template <class S>
inline bool describe_line(const S* x, size length, const LineOrigin<Compute<S>>& origin,
                          const LineAccumulators<Compute<S>>& sums,
                          const ExpConstants<Compute<S>>& constants, LineSum& line) noexcept {
    using T = Compute<S>;
    const TwoWords others = fold_lanes(sums.excess);
    double maxima = 0;
    for (size l = 0; l < lanes<T>; ++l) maxima += static_cast<double>(sums.maxima[l]);
    const F64 near_part = splat(static_cast<double>(origin.highest[0] - origin.shift[0]));
    const F64 offset = splat(static_cast<double>(origin_offset<T>(origin)[0]));
    const F64 excess =
        excess_of<T>(splat(others.sum + others.error), splat(maxima), near_part, offset, constants);
    const bool undefined = excess[0] != excess[0];
    line = {static_cast<double>(origin.highest[0]), excess[0], undefined && holds_nan(x, length)};
    return undefined && !line.has_nan;
}

// The lines of a task, one after the other.
template <class S, SoftmaxOutput output, bool with_sums>
class RowRunner {
    using T = Compute<S>;
    static constexpr bool with_plain = output == SoftmaxOutput::softmax;
    static constexpr bool with_excess = output != SoftmaxOutput::softmax || with_sums;

  public:
    explicit RowRunner(SoftmaxRows& task) noexcept
        : task_(task),
          constants_(exp_constants<T>(task)),
          highest_(highest_of(x_of(0), task.length)) {}

    [[gnu::noinline]] void run() noexcept {
        for (size row = 0; row < task_.rows; ++row) one_row(row);
        pending_.finish();
        pending_.finish_seam();
        if (task_.streaming) finish_streaming();
    }

  private:
    using Result = typename ResultOf<S, output>::type;

    const S* x_of(size row) const noexcept {
        return static_cast<const S*>(task_.x) + row * task_.x_stride;
    }

    void one_row(size row) noexcept {
        const S* x = x_of(row);
        T* p = static_cast<T*>(task_.scratch) + (row & 1) * task_.scratch_stride;
        const LineOrigin<T> origin = line_origin<T>(splat(highest_), constants_);
        LineAccumulators<T> sums = {};
        NextLine<S> next(row + 1 < task_.rows ? x_of(row + 1) : x, task_.length);
        const ExpConstants<T> constants =
            constants_;  // copies, which the stores of the loop cannot change
        Pending pending = pending_;
        exponentials<S, with_plain, with_plain, with_excess>(x, p, task_.length, origin, constants,
                                                             sums, next, pending);
        highest_ = next.highest();
        if (task_.streaming) {
            pending.finish();
            pending_ = pending;
        }
        LineSum line = {};
        bool invalid = false;
        if constexpr (with_excess) {
            invalid = describe_line(x, task_.length, origin, sums, constants_, line);
            if (task_.sums) task_.sums[row] = line;
        }
        if constexpr (output == SoftmaxOutput::softmax) {
            const TwoWords plain = fold_lanes(sums.plain);
            const Reciprocal inverse = reciprocal(splat(plain.sum), splat(plain.error));
            const T scale = static_cast<T>(inverse.first[0]),
                    rest = static_cast<T>(inverse.rest[0]);
            if (!with_excess && scale != scale) invalid = !holds_nan(x, task_.length);
            write(row, Result{p, splat(scale), splat(rest)}, scale == scale);
        }
        if constexpr (output == SoftmaxOutput::log_softmax) {
            const double log_sum = log1p_positive(splat(line.excess))[0];
            write(row, Result(x, line.highest, log_sum, constants_), log_sum == log_sum);
        }
        if (output != SoftmaxOutput::none && invalid) task_.status |= status_invalid;
    }

    void write(size row, const Result& result, bool defined) noexcept {
        Stored<S>* out = static_cast<Stored<S>*>(task_.out) + row * task_.out_stride;
        if (!defined) {
            write_nan(out, task_.length, task_.streaming);
        } else if (task_.streaming && Pending::can_hold(out, task_.length)) {
            pending_.begin(out, task_.length, result);
        } else {
            write_line(out, task_.length, task_.streaming, result);
        }
    }

    using Pending = PendingLine<Stored<S>, Result>;

    SoftmaxRows& task_;
    const ExpConstants<T> constants_;
    T highest_;  // of the next line
    alignas(64) Stored<S> seam_[cache_line<Stored<S>>];
    Pending pending_{seam_};
};

template <class S>
void rows(SoftmaxRows& task) noexcept {
    if (task.output == SoftmaxOutput::none) {
        RowRunner<S, SoftmaxOutput::none, true>(task).run();
    } else if (task.output == SoftmaxOutput::log_softmax) {
        RowRunner<S, SoftmaxOutput::log_softmax, true>(task).run();
    } else if (task.sums) {
        RowRunner<S, SoftmaxOutput::softmax, true>(task).run();
    } else {
        RowRunner<S, SoftmaxOutput::softmax, false>(task).run();
    }
}

// A piece of a line whose maximum and sum are known.
template <class S>
void piece(SoftmaxPiece& task, SoftmaxOutput output) noexcept {
    using T = Compute<S>;
    const ExpConstants<T> constants = exp_constants<T>(task);
    const S* x = static_cast<const S*>(task.x);
    S* out = static_cast<S*>(task.out);
    if (task.scale != task.scale) {
        write_nan(out, task.length, task.streaming);
    } else if (output == SoftmaxOutput::log_softmax) {
        write_line(out, task.length, task.streaming,
                   LogResult<S>(x, task.highest, task.scale, constants));
    } else {
        T* p = static_cast<T*>(task.scratch);
        const LineOrigin<T> origin = line_origin<T>(splat(static_cast<T>(task.highest)), constants);
        const F64 near_part = splat(static_cast<double>(origin.highest[0] - origin.shift[0]));
        const F64 of_maximum = maximum_power<T>(
            near_part, splat(static_cast<double>(origin_offset<T>(origin)[0])), constants);
        LineAccumulators<T> unused = {};
        NextLine<S> none(x, task.length);
        PendingLine<S, NoResult<S>> nothing(nullptr);
        exponentials<S, true, false, false>(x, p, task.length, origin, constants, unused, none,
                                            nothing);
        const T scale = static_cast<T>(task.scale * unscale<T> / of_maximum[0]);
        write_line(out, task.length, task.streaming, ScaledResult<S>{p, splat(scale), Vec<T>{}});
    }
    if (task.streaming) finish_streaming();
}

}  // namespace
}  // namespace unitstride::UNITSTRIDE_ISA
