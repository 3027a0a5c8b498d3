// Products that memory limits: elementwise, dot products, sums over rows.
//
// Sums are kept in many accumulators: a dot product in 8 vectors, so that a piece of a few thousand
// elements makes chains of a few dozen additions; a column in groups of 8 rows that are added up
// first. Longer sums are cut into pieces by the caller.
#include "kernels/stream.hpp"

#include "kernels/table.hpp"
#include "simd/vec.hpp"

namespace unitstride::UNITSTRIDE_ISA {
namespace {

// `count` lanes of a factor that is contiguous or constant.
template <class T, bool contiguous>
inline Vec<T> factor_at(const T* factor, Vec<T> constant, size i) noexcept {
    return contiguous ? load(factor + i) : constant;
}

template <class T, bool a_contiguous, bool b_contiguous, bool streaming>
inline void map_row(T* c, const T* a, const T* b, size count, T alpha, T beta) noexcept {
    const Vec<T> first = splat(load_scalar(a)), second = splat(load_scalar(b));
    const Vec<T> alphas = splat(alpha), betas = splat(beta);
    const auto product = [&](Vec<T> x, Vec<T> y) {
        return alpha == T(1) ? x * y : alphas * (x * y);
    };
    const auto part = [&](size i, size now) {
        const Vec<T> x = a_contiguous ? load_first(a + i, now, T(1)) : first;
        const Vec<T> y = b_contiguous ? load_first(b + i, now, T(1)) : second;
        Vec<T> result = product(x, y);
        if (beta != T(0)) result = result + betas * load_first(c + i, now, T(0));
        store_first(c + i, result, now);
    };
    size i = 0;
    if constexpr (streaming) {
        const size misplaced =
            static_cast<size>(reinterpret_cast<std::uintptr_t>(c) % vector_bytes);
        const size head = misplaced == 0 ? 0
                                         : (static_cast<size>(vector_bytes) - misplaced) /
                                               static_cast<size>(sizeof(T));
        i = head < count ? head : count;
        if (i > 0) part(0, i);
    }
    for (; i + lanes<T> <= count; i += lanes<T>) {
        Vec<T> result = product(factor_at<T, a_contiguous>(a, first, i),
                                factor_at<T, b_contiguous>(b, second, i));
        if constexpr (streaming) {
            store_streaming(c + i, result);
        } else {
            if (beta != T(0)) result = result + betas * load(c + i);
            store(c + i, result);
        }
    }
    if (i < count) part(i, count - i);
}

template <class T, bool a_contiguous, bool b_contiguous>
void map_rows(const MapTask& task) noexcept {
    const T alpha = static_cast<T>(task.alpha), beta = static_cast<T>(task.beta);
    const bool aligned = reinterpret_cast<std::uintptr_t>(task.c) % sizeof(T) == 0;
    for (size r = 0; r < task.rows; ++r) {
        const T* a = static_cast<const T*>(task.a) + r * task.a_row;
        const T* b = static_cast<const T*>(task.b) + r * task.b_row;
        T* c = static_cast<T*>(task.c) + r * task.c_row;
        if (task.streaming && aligned && beta == T(0)) {
            map_row<T, a_contiguous, b_contiguous, true>(c, a, b, task.columns, alpha, beta);
        } else {
            map_row<T, a_contiguous, b_contiguous, false>(c, a, b, task.columns, alpha, beta);
        }
    }
    if (task.streaming) finish_streaming();
}

template <class T>
void map_strided(const MapTask& task) noexcept {
    const T alpha = static_cast<T>(task.alpha), beta = static_cast<T>(task.beta);
    for (size r = 0; r < task.rows; ++r) {
        const T* a = static_cast<const T*>(task.a) + r * task.a_row;
        const T* b = static_cast<const T*>(task.b) + r * task.b_row;
        T* c = static_cast<T*>(task.c) + r * task.c_row;
        for (size i = 0; i < task.columns; ++i) {
            T* to = c + i * task.c_column;
            const T product =
                alpha * (load_scalar(a + i * task.a_column) * load_scalar(b + i * task.b_column));
            store_scalar(to, beta == T(0) ? product : product + beta * load_scalar(to));
        }
    }
}

template <class T>
void map(const MapTask& task) noexcept {
    const size a = task.a_column, b = task.b_column;
    if (task.c_column != 1 || (a != 0 && a != 1) || (b != 0 && b != 1)) return map_strided<T>(task);
    if (a == 1) return b == 1 ? map_rows<T, true, true>(task) : map_rows<T, true, false>(task);
    return b == 1 ? map_rows<T, false, true>(task) : map_rows<T, false, false>(task);
}

template <class T, bool b_contiguous>
inline T dot(const T* a, const T* b, size depth) noexcept {
    constexpr size chains = 8;
    const Vec<T> constant = splat(load_scalar(b));
    Vec<T> sum[chains] = {};
    size k = 0;
    for (; k + chains * lanes<T> <= depth; k += chains * lanes<T>) {
#pragma GCC unroll 8
        for (size v = 0; v < chains; ++v)
            sum[v] =
                multiply_add(load(a + k + v * lanes<T>),
                             factor_at<T, b_contiguous>(b, constant, k + v * lanes<T>), sum[v]);
    }
    for (; k < depth; k += lanes<T>) {
        // Zeros times zeros past the end; a constant factor might be infinite.
        const size now = depth - k < lanes<T> ? depth - k : lanes<T>;
        const Vec<T> x = load_first(a + k, now, T(0));
        const Vec<T> y = b_contiguous ? load_first(b + k, now, T(0)) : keep_first(constant, now);
        sum[0] = multiply_add(x, y, sum[0]);
    }
#pragma GCC unroll 4
    for (size half = chains / 2; half > 0; half /= 2)
        for (size v = 0; v < half; ++v) sum[v] = sum[v] + sum[v + half];
    T lane[lanes<T>];
    store(lane, sum[0]);
    for (size half = lanes<T> / 2; half > 0; half /= 2)
        for (size l = 0; l < half; ++l) lane[l] = lane[l] + lane[l + half];
    return lane[0];
}

template <class T>
void dots(const DotTask& task) noexcept {
    for (size r = 0; r < task.rows; ++r) {
        const T* a = static_cast<const T*>(task.a) + r * task.a_row;
        const T* b = static_cast<const T*>(task.b) + r * task.b_row;
        T* to = static_cast<T*>(task.sums) + r * task.sum_stride;
        const T sum =
            task.b_depth == 1 ? dot<T, true>(a, b, task.depth) : dot<T, false>(a, b, task.depth);
        *to = task.adds ? *to + sum : sum;
    }
}

template <class T, size group, bool b_contiguous>
inline void add_rows(const ColumnTask& task, const T* a, const T* b, bool adds) noexcept {
    T* sums = static_cast<T*>(task.sums);
    Vec<T> constant[group];
#pragma GCC unroll 8
    for (size k = 0; k < group; ++k) constant[k] = splat(load_scalar(b + k * task.b_depth));
    size i = 0;
    for (; i + lanes<T> <= task.columns; i += lanes<T>) {
        Vec<T> sum = {};
#pragma GCC unroll 8
        for (size k = 0; k < group; ++k)
            sum =
                multiply_add(load(a + k * task.a_depth + i),
                             factor_at<T, b_contiguous>(b + k * task.b_depth, constant[k], i), sum);
        store(sums + i, adds ? load(sums + i) + sum : sum);
    }
    if (i == task.columns) return;
    const size rest = task.columns - i;
    Vec<T> sum = {};
    for (size k = 0; k < group; ++k) {
        const T* row = b + k * task.b_depth + i;
        const Vec<T> factor =
            b_contiguous ? load_first(row, rest, T(0)) : keep_first(constant[k], rest);
        sum = multiply_add(load_first(a + k * task.a_depth + i, rest, T(0)), factor, sum);
    }
    const Vec<T> old = adds ? load_first(sums + i, rest, T(0)) : Vec<T>{};
    store_first(sums + i, adds ? old + sum : sum, rest);
}

template <class T, bool b_contiguous>
void sum_columns(const ColumnTask& task) noexcept {
    constexpr size group = 8;
    const T* a = static_cast<const T*>(task.a);
    const T* b = static_cast<const T*>(task.b);
    bool adds = task.adds;
    size k = 0;
    for (; k + group <= task.depth; k += group, adds = true)
        add_rows<T, group, b_contiguous>(task, a + k * task.a_depth, b + k * task.b_depth, adds);
    for (; k < task.depth; ++k, adds = true)
        add_rows<T, 1, b_contiguous>(task, a + k * task.a_depth, b + k * task.b_depth, adds);
}

template <class T>
void columns(const ColumnTask& task) noexcept {
    if (task.b_column == 1) return sum_columns<T, true>(task);
    sum_columns<T, false>(task);
}

template <class T>
constexpr StreamKernels kernels_of = {map<T>, dots<T>, columns<T>};

}  // namespace

extern constinit const StreamKernels stream_kernels[2] = {kernels_of<float>, kernels_of<double>};

}  // namespace unitstride::UNITSTRIDE_ISA
