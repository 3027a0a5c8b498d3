// Softmax of contiguous lines, one after the other, in three passes over a line that stays in cache:
// the maximum; the exponentials into a scratch line, with their sum; the scratch times 1 / sum into the output.
// The second pass prefetches the next line, so that memory works while the exponentials are computed, and the third
// one stores past the caches when the arrays do not fit them: a line is read once and written once.
#pragma once

#include "kernels/softmax_line.hpp"
#include "kernels/write_line.hpp"

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

template <class S, bool keep, bool with_plain, bool with_excess>
inline void exponentials(const S* x, Compute<S>* p, size length, const LineOrigin<Compute<S>>& origin,
                         const ExpConstants<Compute<S>>& constants, LineAccumulators<Compute<S>>& sums,
                         const S* next) noexcept {
    using T = Compute<S>;
    constexpr size width = lanes<T>, group = group_vectors * width;
    constexpr size line = 64 / static_cast<size>(sizeof(S));
    Vec<T> v[group_vectors], e[group_vectors];
    size i = 0;
    for (; i + group <= length; i += group) {
#pragma GCC unroll 4
        for (int k = 0; k < group_vectors; ++k) v[k] = load_as(x + i + k * width);
#pragma GCC unroll 4
        for (size k = 0; k < group; k += line) prefetch(next + i + k);
#pragma GCC unroll 4
        for (int k = 0; k < group_vectors; ++k) {
            e[k] = exp_scaled<T>(v[k], origin, constants);
            if constexpr (keep) store(p + i + k * width, e[k]);
        }
        accumulate_group<T, with_plain, with_excess>(v, e, origin.highest, sums);
    }
    if (i == length) return;
    const T fill = -static_cast<T>(__builtin_huge_val());
    for (int k = 0; k < group_vectors; ++k, i += width) {
        const size count = length - i < width ? (length > i ? length - i : 0) : width;
        v[k] = splat(fill);
        e[k] = Vec<T>{};
        if (count == 0) continue;
        v[k] = load_first_as(x + i, count, fill);
        e[k] = exp_scaled<T>(v[k], origin, constants);
        if (count < width) {
            T lane[width];  // what lies past the end is +0
            for (size l = 0; l < width; ++l) lane[l] = T(0);
            store_first(lane, e[k], count);
            e[k] = load(lane);
        }
        if constexpr (keep) store(p + i, e[k]);  // the scratch has room for a whole vector
    }
    accumulate_group<T, with_plain, with_excess>(v, e, origin.highest, sums);
}

template <class S>
inline void write_scaled(S* out, const Compute<S>* p, size length, Compute<S> scale, bool streaming) noexcept {
    using T = Compute<S>;
    const bool is_nan = scale != scale;  // one NaN for every layout, whichever element brought it
    const Vec<T> factor = splat(scale);
    if (is_nan) {
        write_line(out, length, streaming, [&](size, size) { return splat(static_cast<T>(__builtin_nan(""))); });
    } else {
        write_line(out, length, streaming, [&](size i, size) { return load(p + i) * factor; });
    }
}

template <class S>
inline void write_log(S* out, const S* x, size length, double highest, double log_sum,
                      const ExpConstants<Compute<S>>& constants, bool streaming) noexcept {
    using T = Compute<S>;
    constexpr size width = lanes<T>;
    LogSumOrigin<T> origin;
    for (auto& h : origin.highest) h = splat(highest);
    for (auto& l : origin.log_sum) l = splat(log_sum);
    if (log_sum != log_sum) {
        write_line(out, length, streaming, [&](size, size) { return splat(static_cast<T>(__builtin_nan(""))); });
    } else {
        write_line(out, length, streaming, [&](size i, size count) {
            return subtract_log_sum(count == width ? load_as(x + i) : load_first_as(x + i, count, T(0)), origin,
                                    constants);
        });
    }
}

// Completes `sum` and tells whether NaN comes of what is not NaN.
template <class S>
inline bool describe_line(const S* x, size length, const LineOrigin<Compute<S>>& origin, double excess,
                          LineSum& sum) noexcept {
    const bool undefined = excess != excess;
    sum.highest = static_cast<double>(origin.highest[0]);
    sum.excess = excess;
    sum.has_nan = undefined && holds_nan(x, length);
    return undefined && !sum.has_nan;
}

template <class S, SoftmaxOutput output, bool with_sums>
inline void one_row(SoftmaxRows& task, size row) noexcept {
    using T = Compute<S>;
    constexpr bool with_plain = output == SoftmaxOutput::softmax;
    constexpr bool with_excess = output != SoftmaxOutput::softmax || with_sums;
    const ExpConstants<T> constants = exp_constants<T>(task);
    const S* x = static_cast<const S*>(task.x) + row * task.x_stride;
    T* p = static_cast<T*>(task.scratch);
    const LineOrigin<T> origin = line_origin<T>(splat(highest_of(x, task.length)), constants);
    LineAccumulators<T> sums = {};
    const S* next = row + 1 < task.rows ? x + task.x_stride : x;
    exponentials<S, with_plain, with_plain, with_excess>(x, p, task.length, origin, constants, sums, next);

    LineSum line = {};
    bool invalid = false;
    if constexpr (with_excess) {
        const TwoWords others = fold_lanes(sums.excess);
        double maxima = 0;
        for (size l = 0; l < lanes<T>; ++l) maxima += static_cast<double>(sums.maxima[l]);
        const F64 near_part = splat(static_cast<double>(origin.highest[0] - origin.shift[0]));
        const F64 excess = excess_of<T>(splat(others.sum + others.error), splat(maxima), near_part,
                                        splat(static_cast<double>(origin_offset<T>(origin)[0])), constants);
        invalid = describe_line(x, task.length, origin, excess[0], line);
        if (task.sums) task.sums[row] = line;
    }
    S* out = static_cast<S*>(task.out) + row * task.out_stride;
    if constexpr (output == SoftmaxOutput::softmax) {
        const TwoWords plain = fold_lanes(sums.plain);
        const double inverse = 1.0 / plain.sum;
        const double scale = inverse - inverse * (plain.error * inverse);
        if (!with_excess && scale != scale) invalid = !holds_nan(x, task.length);
        write_scaled(out, p, task.length, static_cast<T>(scale), task.streaming);
    }
    if constexpr (output == SoftmaxOutput::log_softmax) {
        const double log_sum = log1p_positive(splat(line.excess))[0];
        write_log(out, x, task.length, line.highest, log_sum, constants, task.streaming);
    }
    if (output != SoftmaxOutput::none && invalid) task.status |= status_invalid;
}

template <class S>
void rows(SoftmaxRows& task) noexcept {
    const auto run = [&]<SoftmaxOutput output, bool with_sums>() {
        for (size row = 0; row < task.rows; ++row) one_row<S, output, with_sums>(task, row);
    };
    if (task.output == SoftmaxOutput::none) {
        run.template operator()<SoftmaxOutput::none, true>();
    } else if (task.output == SoftmaxOutput::log_softmax) {
        run.template operator()<SoftmaxOutput::log_softmax, true>();
    } else if (task.sums) {
        run.template operator()<SoftmaxOutput::softmax, true>();
    } else {
        run.template operator()<SoftmaxOutput::softmax, false>();
    }
    if (task.streaming) finish_streaming();
}

// A piece of a line whose maximum and sum are known.
template <class S>
void piece(SoftmaxPiece& task, SoftmaxOutput output) noexcept {
    using T = Compute<S>;
    const ExpConstants<T> constants = exp_constants<T>(task);
    const S* x = static_cast<const S*>(task.x);
    S* out = static_cast<S*>(task.out);
    if (output == SoftmaxOutput::log_softmax) {
        write_log(out, x, task.length, task.highest, task.scale, constants, task.streaming);
    } else {
        T* p = static_cast<T*>(task.scratch);
        const LineOrigin<T> origin = line_origin<T>(splat(static_cast<T>(task.highest)), constants);
        const F64 near_part = splat(static_cast<double>(origin.highest[0] - origin.shift[0]));
        const F64 of_maximum = maximum_power<T>(near_part, splat(static_cast<double>(origin_offset<T>(origin)[0])), constants);
        LineAccumulators<T> unused = {};
        exponentials<S, true, false, false>(x, p, task.length, origin, constants, unused, x);
        write_scaled(out, p, task.length, static_cast<T>(task.scale * unscale<T> / of_maximum[0]), task.streaming);
    }
    if (task.streaming) finish_streaming();
}

}  // namespace
}  // namespace unitstride::UNITSTRIDE_ISA
