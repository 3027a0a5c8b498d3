// Complex products that memory limits, on contiguous lines of pairs (real, imaginary).
//
//   (x + iy)(u + iv) = (xu - yv) + i(xv + yu)
//
// A vector of pairs is multiplied as it is and with the parts of the other factor exchanged; a sum
// keeps the two kinds of products apart and joins them once at its end. Chains are those of the
// real kernels (`stream.cpp`), at half the number of elements.
#include "kernels/stream.hpp"

#include <utility>

#include "kernels/table.hpp"
#include "simd/vec.hpp"

namespace unitstride::UNITSTRIDE_ISA {
namespace {

template <class T, std::size_t... lane>
inline Vec<T> evens(Vec<T> v, std::index_sequence<lane...>) noexcept {
    return __builtin_shuffle(v, IntVec<T>{static_cast<IntLane<T>>(lane & ~std::size_t{1})...});
}
template <class T, std::size_t... lane>
inline Vec<T> odds(Vec<T> v, std::index_sequence<lane...>) noexcept {
    return __builtin_shuffle(v, IntVec<T>{static_cast<IntLane<T>>(lane | 1)...});
}
template <class T, std::size_t... lane>
inline Vec<T> exchanged(Vec<T> v, std::index_sequence<lane...>) noexcept {
    return __builtin_shuffle(v, IntVec<T>{static_cast<IntLane<T>>(lane ^ 1)...});
}
template <class T, std::size_t... lane>
inline Vec<T> pair_of(T even, T odd, std::index_sequence<lane...>) noexcept {
    return Vec<T>{(lane & 1 ? odd : even)...};
}
template <class T>
using Lanes = std::make_index_sequence<static_cast<std::size_t>(lanes<T>)>;
template <class T>
inline Vec<T> splat_pair(const T* pair) noexcept {
    return pair_of(load_scalar(pair), load_scalar(pair + 1), Lanes<T>{});
}

// x * y + sum.
template <class T>
inline Vec<T> add_product(Vec<T> x, Vec<T> y, Vec<T> sum) noexcept {
    const Vec<T> sign = pair_of(T(-1), T(1), Lanes<T>{});
    const Vec<T> turned = odds<T>(x, Lanes<T>{}) * sign;
    return multiply_add(turned, exchanged<T>(y, Lanes<T>{}),
                        multiply_add(evens<T>(x, Lanes<T>{}), y, sum));
}

// Up to a vector of pairs of an operand that is contiguous or constant.
template <class T, bool contiguous>
inline Vec<T> pairs_at(const T* from, Vec<T> constant, size i, size now) noexcept {
    if (now == lanes<T>) return contiguous ? load(from + i) : constant;
    return contiguous ? load_first(from + i, now, T(0)) : keep_first(constant, now);
}

template <class T, bool a_contiguous, bool b_contiguous>
void map_row(const MapTask& task, T* c, const T* a, const T* b) noexcept {
    const T alpha_pair[2] = {static_cast<T>(task.alpha), static_cast<T>(task.alpha_imag)};
    const T beta_pair[2] = {static_cast<T>(task.beta), static_cast<T>(task.beta_imag)};
    const Vec<T> alpha = splat_pair(alpha_pair), beta = splat_pair(beta_pair);
    const bool scales = alpha_pair[0] != T(1) || alpha_pair[1] != T(0);
    const bool reads = beta_pair[0] != T(0) || beta_pair[1] != T(0);
    const Vec<T> first = splat_pair(a), second = splat_pair(b);
    const size count = 2 * task.columns;
    const auto step = [&](size i, size now) {
        const Vec<T> x = pairs_at<T, a_contiguous>(a, first, i, now);
        const Vec<T> y = pairs_at<T, b_contiguous>(b, second, i, now);
        Vec<T> result = add_product<T>(x, y, Vec<T>{});
        if (scales) result = add_product<T>(result, alpha, Vec<T>{});
        if (reads) result = add_product<T>(pairs_at<T, true>(c, Vec<T>{}, i, now), beta, result);
        return result;
    };
    size i = 0;
    const auto place = reinterpret_cast<std::uintptr_t>(c) % vector_bytes;
    if (task.streaming && !reads && place % sizeof(T) == 0) {
        const size before = static_cast<size>((vector_bytes - place) % vector_bytes / sizeof(T));
        i = before < count ? before : count;
        // A line that begins between the parts of a number has an odd number of them before it.
        if (i % 2 == 0) {
            if (i > 0) store_first(c, step(0, i), i);
            for (; i + lanes<T> <= count; i += lanes<T>) store_streaming(c + i, step(i, lanes<T>));
        } else {
            i = 0;
        }
    }
    for (; i + lanes<T> <= count; i += lanes<T>) store(c + i, step(i, lanes<T>));
    if (i < count) store_first(c + i, step(i, count - i), count - i);
}

template <class T>
void map(const MapTask& task) noexcept {
    for (size r = 0; r < task.rows; ++r) {
        const T* a = static_cast<const T*>(task.a) + 2 * r * task.a_row;
        const T* b = static_cast<const T*>(task.b) + 2 * r * task.b_row;
        T* c = static_cast<T*>(task.c) + 2 * r * task.c_row;
        if (task.a_column == 1 && task.b_column == 1) {
            map_row<T, true, true>(task, c, a, b);
        } else if (task.a_column == 1) {
            map_row<T, true, false>(task, c, a, b);
        } else if (task.b_column == 1) {
            map_row<T, false, true>(task, c, a, b);
        } else {
            map_row<T, false, false>(task, c, a, b);
        }
    }
    if (task.streaming) finish_streaming();
}

// The sums of the even and of the odd lanes.
template <class T>
inline void add_lanes(Vec<T> v, T& even, T& odd) noexcept {
    T lane[lanes<T>];
    store(lane, v);
#pragma GCC unroll 8
    for (size half = lanes<T> / 2; half > 1; half /= 2)
        for (size l = 0; l < half; ++l) lane[l] = lane[l] + lane[l + half];
    even = lane[0];
    odd = lane[1];
}

template <class T, bool by_parts, bool b_contiguous>
inline void dot(const T* a, const T* b, size depth, T* sum) noexcept {
    constexpr size chains = 4;
    const size count = 2 * depth;
    const Vec<T> constant = b_contiguous ? Vec<T>{}
                            : by_parts   ? splat(load_scalar(b))
                                         : splat_pair(b);
    Vec<T> same[chains] = {}, crossed[chains] = {};
    const auto add = [&](size v, size i, size now) {
        const Vec<T> x = pairs_at<T, true>(a, Vec<T>{}, i, now);
        const Vec<T> y = pairs_at<T, b_contiguous>(b, constant, i, now);
        same[v] = multiply_add(x, y, same[v]);
        if constexpr (!by_parts)
            crossed[v] = multiply_add(x, exchanged<T>(y, Lanes<T>{}), crossed[v]);
    };
    size i = 0;
    for (; i + chains * lanes<T> <= count; i += chains * lanes<T>) {
#pragma GCC unroll 4
        for (size v = 0; v < chains; ++v) add(v, i + v * lanes<T>, lanes<T>);
    }
    for (; i < count; i += lanes<T>) add(0, i, count - i < lanes<T> ? count - i : lanes<T>);
    T even, odd;
    add_lanes<T>((same[0] + same[1]) + (same[2] + same[3]), even, odd);
    sum[0] = by_parts ? even : even - odd;
    sum[1] = odd;
    if constexpr (!by_parts) {
        add_lanes<T>((crossed[0] + crossed[1]) + (crossed[2] + crossed[3]), even, odd);
        sum[1] = even + odd;
    }
}

template <class T, bool by_parts>
void dots(const DotTask& task) noexcept {
    const size scale = by_parts && task.b_depth == 0 ? 1 : 2;  // one real number for all parts
    for (size r = 0; r < task.rows; ++r) {
        const T* a = static_cast<const T*>(task.a) + 2 * r * task.a_row;
        const T* b = static_cast<const T*>(task.b) + scale * r * task.b_row;
        T* sum = static_cast<T*>(task.sums) + 2 * r * task.sum_stride;
        if (task.b_depth == 1) {
            dot<T, by_parts, true>(a, b, task.depth, sum);
        } else {
            dot<T, by_parts, false>(a, b, task.depth, sum);
        }
    }
}

template <class T, bool b_contiguous>
inline void add_rows(const ColumnTask& task, size k, size group) noexcept {
    const T* a = static_cast<const T*>(task.a) + 2 * k * task.a_depth;
    const T* b = static_cast<const T*>(task.b) + 2 * k * task.b_depth;
    T* sums = static_cast<T*>(task.sums);
    const size count = 2 * task.columns;
    for (size i = 0; i < count; i += lanes<T>) {
        const size now = count - i < lanes<T> ? count - i : lanes<T>;
        Vec<T> sum = {};
        for (size g = 0; g < group; ++g) {
            const T* factor = b + 2 * g * task.b_depth;
            const Vec<T> x = pairs_at<T, true>(a + 2 * g * task.a_depth, Vec<T>{}, i, now);
            const Vec<T> y = pairs_at<T, b_contiguous>(
                factor, b_contiguous ? Vec<T>{} : splat_pair(factor), i, now);
            sum = add_product<T>(y, x, sum);
        }
        if (task.adds || k > 0) sum = pairs_at<T, true>(sums, Vec<T>{}, i, now) + sum;
        if (now == lanes<T>) {
            store(sums + i, sum);
        } else {
            store_first(sums + i, sum, now);
        }
    }
}

template <class T>
void columns(const ColumnTask& task) noexcept {
    constexpr size most = 8;  // rows that are added up first
    for (size k = 0; k < task.depth; k += most) {
        const size group = task.depth - k < most ? task.depth - k : most;
        if (task.b_column == 1) {
            add_rows<T, true>(task, k, group);
        } else {
            add_rows<T, false>(task, k, group);
        }
    }
}

template <class T>
constexpr ComplexStreamKernels kernels_of = {map<T>, dots<T, false>, dots<T, true>, columns<T>};

}  // namespace

extern constinit const ComplexStreamKernels complex_stream_kernels[2] = {kernels_of<float>,
                                                                         kernels_of<double>};

}  // namespace unitstride::UNITSTRIDE_ISA
