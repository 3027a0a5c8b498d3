// Gradients of the softmax family, line by line.
//
//   softmax:      dx = y (dy - sum(dy y)) / temperature
//   log_softmax:  dx = (dy - exp(y) sum(dy)) / temperature
//   logsumexp:    dx = dy exp(x / temperature - lse) / temperature
//
// Sums are wide (double for float, two words for double); float results are formed in double and
// rounded once. Two passes over lines that stay in cache: memory is read once and written once.
#include "kernels/softmax_vjp.hpp"
#include "kernels/softmax_line.hpp"
#include "kernels/table.hpp"
#include "kernels/write_line.hpp"

namespace unitstride::UNITSTRIDE_ISA {
namespace {

template <class S>
inline Vec<Compute<S>> load_count(const S* source, size count) noexcept {
    return count == lanes<Compute<S>> ? load_as(source)
                                      : load_first_as(source, count, Compute<S>(0));
}

inline void add_product(WideSum<float>& sum, F32 a, F32 b) noexcept {
    sum.low = sum.low + widen_low(a) * widen_low(b);
    sum.high = sum.high + widen_high(a) * widen_high(b);
}
inline void add_product(WideSum<double>& sum, F64 a, F64 b) noexcept {
    const F64 product = a * b;
    const F64 error = has_fma ? multiply_add(a, b, -product) : F64{};
    add_two_words(sum.sum, sum.error, product, error);
}

// sum(cotangent) or sum(cotangent * primal). Two accumulators, one after the other, hide the
// additions' latency.
template <class S, bool with_product>
inline TwoWords line_sum(const S* primal, const S* cotangent, size length) noexcept {
    using T = Compute<S>;
    constexpr size width = lanes<T>;
    WideSum<T> sums[2] = {};
    const auto add = [&](WideSum<T>& sum, size i, size count) {
        if constexpr (with_product) {
            add_product(sum, load_count(cotangent + i, count), load_count(primal + i, count));
        } else {
            sum.add(load_count(cotangent + i, count));
        }
    };
    size i = 0;
    for (; i + 2 * width <= length; i += 2 * width) {
        add(sums[0], i, width);
        add(sums[1], i + width, width);
    }
    for (; i < length; i += width) add(sums[0], i, length - i < width ? length - i : width);
    sums[0].merge(sums[1]);
    return fold_lanes(sums[0]);
}

// f(a, b) of the two words of double that a vector of floats widens to; of the vector itself for
// double.
template <class F>
inline F32 in_double(F32 a, F32 b, const F& f) noexcept {
    return narrow(f(widen_low(a), widen_low(b)), f(widen_high(a), widen_high(b)));
}
template <class F>
inline F64 in_double(F64 a, F64 b, const F& f) noexcept {
    return f(a, b);
}

template <class S>
inline void softmax_row(const VjpRows& task, const S* y, const S* dy, VjpSum dot, S* out) noexcept {
    const F64 sum = splat(dot.sum), rest = splat(dot.error),
              inverse = splat(task.inverse_temperature);
    write_line(out, task.length, task.streaming, [&](size i, size count) {
        return in_double(load_count(y + i, count), load_count(dy + i, count),
                         [&](F64 a, F64 b) { return a * ((b - sum) - rest) * inverse; });
    });
}

// exp(x / temperature) * 2^scale_bits / 2^offset, of x at most a little above the origin.
template <class T>
inline Vec<T> bounded_exp(Vec<T> x, Vec<T> upper, const LineOrigin<T>& origin,
                          const ExpConstants<T>& constants) noexcept {
    return exp_scaled<T>(-max_or_second(-upper, -x), origin, constants);
}

template <class S>
inline void log_softmax_row(const VjpRows& task, const S* y, const S* dy, VjpSum total,
                            S* out) noexcept {
    using T = Compute<S>;
    const ExpConstants<T> constants = exp_constants<T>(task);
    const LineOrigin<T> origin = line_origin<T>(Vec<T>{}, constants);
    const F64 sum = splat((total.sum + total.error) * unscale<T>);
    const F64 inverse = splat(task.inverse_temperature);
    const Vec<T> upper = splat(T(40));  // log-probabilities are at most 0
    write_line(out, task.length, task.streaming, [&](size i, size count) {
        const Vec<T> p = bounded_exp<T>(load_count(y + i, count), upper, origin, constants);
        return in_double(p, load_count(dy + i, count),
                         [&](F64 a, F64 b) { return (b - a * sum) * inverse; });
    });
}

template <class S>
inline void logsumexp_row(const VjpRows& task, const S* x, double log_sum, double dy,
                          S* out) noexcept {
    using T = Compute<S>;
    const ExpConstants<T> constants = exp_constants<T>(task);
    const auto finite = [](double v) { return v - v == 0; };
    const T infinity = static_cast<T>(__builtin_huge_val());
    if (!finite(log_sum)) {  // nothing to weigh: 0; infinite weights: NaN where they are
        write_line(out, task.length, task.streaming, [&](size i, size count) {
            const Vec<T> v = load_count(x + i, count), zero = {};
            const Vec<T> nan = splat(static_cast<T>(__builtin_nan("")));
            return log_sum == log_sum && dy == dy ? (v < splat(infinity) ? zero : nan) : nan;
        });
        return;
    }
    const T at = static_cast<T>(log_sum / constants.inverse_temperature_wide);
    const LineOrigin<T> origin = line_origin<T>(splat(at), constants);
    const double shift = static_cast<double>(origin.shift[0]);
    const double offset = static_cast<double>(origin_offset<T>(origin)[0]);
    constexpr double ln2_first = 0x1.62e42feep-1, ln2_second = 0x1.a39ef35793c76p-33;
    const double remainder =
        ((log_sum - shift * constants.inverse_temperature_wide) - offset * ln2_first) -
        offset * ln2_second;
    const F64 power = exp_of_remainder(splat(remainder));
    const F64 factor = splat(dy * constants.inverse_temperature_wide * unscale<T>) / power;
    const Vec<T> upper = splat(at + T(40) / constants.inverse_temperature);
    write_line(out, task.length, task.streaming, [&](size i, size count) {
        const Vec<T> p = bounded_exp<T>(load_count(x + i, count), upper, origin, constants);
        return in_double(p, p, [&](F64 a, F64) { return a * factor; });
    });
}

template <class S>
inline VjpSum row_sum(const VjpRows& task, size row) noexcept {
    if (task.gradient == SoftmaxVjp::logsumexp) return {};
    const S* y = static_cast<const S*>(task.primal) + row * task.primal_stride;
    const S* dy = static_cast<const S*>(task.cotangent) + row * task.cotangent_stride;
    const TwoWords words = task.gradient == SoftmaxVjp::softmax
                               ? line_sum<S, true>(y, dy, task.length)
                               : line_sum<S, false>(y, dy, task.length);
    return {words.sum, words.error};
}

template <class S>
inline void write_row(const VjpRows& task, size row, VjpSum sum) noexcept {
    const S* primal = static_cast<const S*>(task.primal) + row * task.primal_stride;
    const S* cotangent = static_cast<const S*>(task.cotangent);
    if (cotangent) cotangent += row * task.cotangent_stride;
    S* out = static_cast<S*>(task.out) + row * task.out_stride;
    if (task.gradient == SoftmaxVjp::softmax) softmax_row(task, primal, cotangent, sum, out);
    if (task.gradient == SoftmaxVjp::log_softmax)
        log_softmax_row(task, primal, cotangent, sum, out);
    if (task.gradient == SoftmaxVjp::logsumexp)
        logsumexp_row(task, primal, task.log_sum[row], task.line_cotangent[row], out);
}

template <class S>
void rows(const VjpRows& task) noexcept {
    for (size row = 0; row < task.rows; ++row) write_row<S>(task, row, row_sum<S>(task, row));
    if (task.streaming) finish_streaming();
}

template <class S>
VjpSum sum(const VjpRows& task) noexcept {
    return row_sum<S>(task, 0);
}

template <class S>
void write(const VjpRows& task, VjpSum total) noexcept {
    write_row<S>(task, 0, total);
    if (task.streaming) finish_streaming();
}

template <class S>
constexpr SoftmaxVjpKernels kernels_of = {rows<S>, sum<S>, write<S>};

}  // namespace

extern constinit const SoftmaxVjpKernels softmax_vjp_kernels[storage_count] = {
    kernels_of<float>, kernels_of<double>, kernels_of<Float16>, kernels_of<BFloat16>};

}  // namespace unitstride::UNITSTRIDE_ISA
