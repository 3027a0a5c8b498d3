// Fourier transforms by decimation in frequency, and back by decimation in time.
//
// Every lane of a vector holds a signal of its own, so that a transform is the scalar algorithm
// with vectors for numbers: no shuffles, and factors that are broadcast. A pass of radix R turns n
// points into R transforms of n / R; those are finished one after the other, so that all but the
// first passes of a long transform work in the first cache levels. The frequencies come out
// shuffled, and the inverse takes them so: there is no reordering.
//
// Accuracy: each pass adds about one rounding to the error relative to the largest magnitude; the
// factors are correctly rounded.
#include "kernels/transform.hpp"

#include "kernels/table.hpp"
#include "simd/vec.hpp"

namespace unitstride::UNITSTRIDE_ISA {
namespace {

// Eight complex numbers want 16 registers, and some for what is under way.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int radix = 8;
#else
constexpr int radix = 4;
#endif

template <class T>
struct Number {
    Vec<T> real, imaginary;
};

template <class T>
[[gnu::always_inline]] inline Number<T> operator+(Number<T> a, Number<T> b) noexcept {
    return {a.real + b.real, a.imaginary + b.imaginary};
}
template <class T>
[[gnu::always_inline]] inline Number<T> operator-(Number<T> a, Number<T> b) noexcept {
    return {a.real - b.real, a.imaginary - b.imaginary};
}
// a - i b forward, a + i b back.
template <bool inverse, class T>
[[gnu::always_inline]] inline Number<T> add_turned(Number<T> a, Number<T> b) noexcept {
    if constexpr (inverse) return {a.real - b.imaginary, a.imaginary + b.real};
    return {a.real + b.imaginary, a.imaginary - b.real};
}

template <class T>
constexpr size point = 2 * lanes<T>;  // elements

template <class T>
[[gnu::always_inline]] inline Number<T> load_number(const T* source) noexcept {
    return {load(source), load(source + lanes<T>)};
}
template <class T>
[[gnu::always_inline]] inline void store_number(T* target, Number<T> value) noexcept {
    store(target, value.real);
    store(target + lanes<T>, value.imaginary);
}

// The product with the factor at `turn`; with its conjugate on the way back.
template <bool inverse, class T>
[[gnu::always_inline]] inline Number<T> turned(Number<T> a, const T* turn) noexcept {
    const Vec<T> c = splat(load_scalar(turn)), s = splat(load_scalar(turn + 1));
    const Vec<T> across = a.imaginary * s, along = a.imaginary * c;
    if constexpr (inverse)
        return {multiply_add(a.real, c, across), multiply_add(-a.real, s, along)};
    return {multiply_add(a.real, c, -across), multiply_add(a.real, s, along)};
}

template <bool inverse, class T>
[[gnu::always_inline]] inline void transform_two(Number<T>& a, Number<T>& b) noexcept {
    const Number<T> sum = a + b;
    b = a - b;
    a = sum;
}

template <bool inverse, class T>
[[gnu::always_inline]] inline void transform_four(Number<T>& a, Number<T>& b, Number<T>& c,
                                                  Number<T>& d) noexcept {
    const Number<T> even = a + c, odd = b + d, even_rest = a - c, odd_rest = b - d;
    a = even + odd;
    c = even - odd;
    b = add_turned<inverse>(even_rest, odd_rest);
    d = add_turned<!inverse>(even_rest, odd_rest);
}

// Natural order to natural order.
template <bool inverse, class T>
[[gnu::always_inline]] inline void transform(Number<T> (&a)[2]) noexcept {
    transform_two<inverse>(a[0], a[1]);
}
template <bool inverse, class T>
[[gnu::always_inline]] inline void transform(Number<T> (&a)[4]) noexcept {
    transform_four<inverse>(a[0], a[1], a[2], a[3]);
}
template <bool inverse, class T>
[[gnu::always_inline]] inline void transform(Number<T> (&a)[8]) noexcept {
    const Vec<T> half = splat(T(0.70710678118654752440L));
    Number<T> sum[4], rest[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
        sum[i] = a[i] + a[i + 4];
        rest[i] = a[i] - a[i + 4];
    }
    // Odd frequencies: rest[i] times the i-th power of exp(-2 pi i / 8); the second power, -i, goes
    // with the sums. What is left out of the others is the factor `half`.
    const Number<T> first = add_turned<inverse>(rest[1], rest[1]);
    const Number<T> third = add_turned<!inverse>(rest[3], rest[3]);  // times -1
    const Number<T> low = add_turned<inverse>(rest[0], rest[2]);
    const Number<T> high = add_turned<!inverse>(rest[0], rest[2]);
    const Number<T> with = first - third, without = first + third;
    a[1] = {multiply_add(half, with.real, low.real),
            multiply_add(half, with.imaginary, low.imaginary)};
    a[5] = {multiply_add(-half, with.real, low.real),
            multiply_add(-half, with.imaginary, low.imaginary)};
    const Vec<T> across = inverse ? -half : half;
    a[3] = {multiply_add(across, without.imaginary, high.real),
            multiply_add(-across, without.real, high.imaginary)};
    a[7] = {multiply_add(-across, without.imaginary, high.real),
            multiply_add(across, without.real, high.imaginary)};
    transform_four<inverse>(sum[0], sum[1], sum[2], sum[3]);
    a[0] = sum[0];
    a[2] = sum[1];
    a[4] = sum[2];
    a[6] = sum[3];
}

// One transform of `width` points, the last of a forward chain, the first of an inverse one.
template <bool inverse, int width, class T>
[[gnu::always_inline]] inline void leaf(T* data) noexcept {
    Number<T> a[width];
#pragma GCC unroll 8
    for (int i = 0; i < width; ++i) a[i] = load_number(data + i * point<T>);
    transform<inverse>(a);
#pragma GCC unroll 8
    for (int i = 0; i < width; ++i) store_number(data + i * point<T>, a[i]);
}

template <bool inverse, class T>
void pass(T* data, size points, const T* turns) noexcept {
    const size part = points / radix * point<T>;
    for (T* const end = data + part; data < end; data += point<T>, turns += 2 * (radix - 1)) {
        Number<T> a[radix];
#pragma GCC unroll 8
        for (int i = 0; i < radix; ++i) {
            a[i] = load_number(data + i * part);
            if constexpr (inverse)
                if (i > 0) a[i] = turned<true>(a[i], turns + 2 * (i - 1));
        }
        transform<inverse>(a);
#pragma GCC unroll 8
        for (int i = 0; i < radix; ++i) {
            if constexpr (!inverse)
                if (i > 0) a[i] = turned<false>(a[i], turns + 2 * (i - 1));
            store_number(data + i * part, a[i]);
        }
    }
}

// `logarithm` of the number of points.
template <bool inverse, class T>
void chain(T* data, int logarithm, const void* const* turns) noexcept {
    if (logarithm == 0) return;
    if (logarithm == 1) return leaf<inverse, 2>(data);
    if (logarithm == 2) return leaf<inverse, 4>(data);
    if constexpr (radix == 8)
        if (logarithm == 3) return leaf<inverse, 8>(data);
    constexpr int step = radix == 8 ? 3 : 2;
    const size points = size(1) << logarithm, part = points / radix * point<T>;
    const T* own = static_cast<const T*>(turns[logarithm]);
    if constexpr (!inverse) pass<false>(data, points, own);
    for (int i = 0; i < radix; ++i) chain<inverse>(data + i * part, logarithm - step, turns);
    if constexpr (inverse) pass<true>(data, points, own);
}

template <class T, bool inverse>
void whole(const TransformTask& task) noexcept {
    int logarithm = 0;
    while (size(1) << logarithm < task.points) ++logarithm;
    chain<inverse>(static_cast<T*>(task.data), logarithm, task.turns);
}

template <class T>
void multiply(const SpectrumTask& task) noexcept {
    T* data = static_cast<T*>(task.data);
    const T* real = static_cast<const T*>(task.spectrum);
    for (size f = 0; f < task.points; ++f, data += point<T>) {
        const Number<T> x = load_number(data);
        const Vec<T> c = splat(load_scalar(real + f)),
                     s = splat(load_scalar(real + task.points + f));
        const Vec<T> across = x.imaginary * s, along = x.imaginary * c;
        store_number<T>(data, {multiply_add(x.real, c, -across), multiply_add(x.real, s, along)});
    }
}

// `width` groups of results at one point, whose parts of x are in `row`. Sums that are the same are
// kept in two, so that a few of them do not wait for one another.
template <class T, int width>
[[gnu::always_inline]] inline void add_pieces(const PiecesTask& task, const T* k, const T* real,
                                              const T* imaginary, T* y) noexcept {
    Vec<T> sum[width][4] = {};
    for (size first = 0; first < task.pieces; first += lanes<T>, k += task.k_group) {
        const size left = task.pieces - first, count = left < lanes<T> ? left : lanes<T>;
        for (size p = 0; p < count; ++p) {
            const Vec<T> c = splat(load_scalar(k + p)), s = splat(load_scalar(k + lanes<T> + p));
#pragma GCC unroll 4
            for (int i = 0; i < width; ++i) {
                const size place = i * lanes<T> - first - p;
                const Vec<T> a = load(real + place), b = load(imaginary + place);
                sum[i][0] = multiply_add(a, c, sum[i][0]);
                sum[i][1] = multiply_add(b, s, sum[i][1]);
                sum[i][2] = multiply_add(a, s, sum[i][2]);
                sum[i][3] = multiply_add(b, c, sum[i][3]);
            }
        }
    }
#pragma GCC unroll 4
    for (int i = 0; i < width; ++i)
        store_number<T>(y + i * task.x_group, {sum[i][0] - sum[i][1], sum[i][2] + sum[i][3]});
}

template <class T>
void multiply_pieces(const PiecesTask& task) noexcept {
    constexpr int wide = radix == 8 ? 4 : 2;
    const size length = task.x_groups * lanes<T>;
    T* real = static_cast<T*>(task.row);
    T* imaginary = real + length;
    for (size f = 0; f < task.points; ++f) {
        T* x = static_cast<T*>(task.x) + f * point<T>;
        const T* k = static_cast<const T*>(task.k) + f * point<T>;
        for (size g = 0; g < task.x_groups; ++g) {
            const Number<T> own = load_number(x + g * task.x_group);
            store(real + g * lanes<T>, own.real);
            store(imaginary + g * lanes<T>, own.imaginary);
        }
        size g = 0;
        const auto from = [&](T* part) { return part + task.pieces - 1 + g * lanes<T>; };
        for (; g + wide <= task.y_groups; g += wide)
            add_pieces<T, wide>(task, k, from(real), from(imaginary), x + g * task.x_group);
        for (; g < task.y_groups; ++g)
            add_pieces<T, 1>(task, k, from(real), from(imaginary), x + g * task.x_group);
    }
}

// With z = a + i b and w the conjugate of z at the opposite frequency, the spectra are (z + w) / 2
// and (z - w) / 2i, and their product is (z^2 - w^2) / 4i.
template <class T>
void multiply_own(const OwnProductTask& task) noexcept {
    T* data = static_cast<T*>(task.data);
    const Vec<T> half = splat(T(0.5));
    for (size f = 0; f < task.points; ++f) {
        const size other = task.opposite[f];
        if (other < f) continue;
        T* const here = data + f * point<T>;
        T* const there = data + other * point<T>;
        const Number<T> z = load_number(here), v = load_number(there);
        const Number<T> a = {(z.real + v.real) * half, (z.imaginary - v.imaginary) * half};
        const Number<T> b = {(z.imaginary + v.imaginary) * half, (v.real - z.real) * half};
        const Vec<T> across = a.imaginary * b.imaginary, along = a.imaginary * b.real;
        const Number<T> y = {multiply_add(a.real, b.real, -across),
                             multiply_add(a.real, b.imaginary, along)};
        store_number(here, y);
        store_number<T>(there, {y.real, -y.imaginary});
    }
}

// The power of two below a magnitude, far enough from the ends of the range to have an inverse.
template <class T>
double power_below(T magnitude) noexcept {
    constexpr double least = sizeof(T) == 4 ? 0x1p-120 : 0x1p-1000, most = 1 / least;
    const double high = static_cast<double>(magnitude);
    if (!(high > 0) || !(high < __builtin_inf())) return 1;
    if (high <= least) return least;
    if (high >= most) return most;
    std::uint64_t bits;
    __builtin_memcpy(&bits, &high, sizeof bits);
    bits &= std::uint64_t{0x7ff} << 52;
    double power;
    __builtin_memcpy(&power, &bits, sizeof power);
    return power;
}

template <class T>
void balance(const MagnitudeTask& task) noexcept {
    T* data = static_cast<T*>(task.data);
    Number<T> high{};
    for (size f = 0; f < task.points; ++f) {
        const Number<T> v = load_number(data + f * point<T>);
        high.real = max_or_second(max_or_second(v.real, -v.real), high.real);
        high.imaginary = max_or_second(max_or_second(v.imaginary, -v.imaginary), high.imaginary);
    }
    Number<T> factor;
    for (size l = 0; l < lanes<T>; ++l) {
        task.magnitudes[l] = power_below(high.real[l]);
        task.magnitudes[lanes<T> + l] = power_below(high.imaginary[l]);
        factor.real[l] = static_cast<T>(1 / task.magnitudes[l]);
        factor.imaginary[l] = static_cast<T>(1 / task.magnitudes[lanes<T> + l]);
    }
    for (size f = 0; f < task.points; ++f) {
        const Number<T> v = load_number(data + f * point<T>);
        store_number<T>(data + f * point<T>,
                        {v.real * factor.real, v.imaginary * factor.imaginary});
    }
}

template <class T>
bool finish(const FinishTask& task) noexcept {
    T* data = static_cast<T*>(task.data);
    const double part = 1 / static_cast<double>(task.points);
    Number<T> factor{splat(static_cast<T>(part)), splat(static_cast<T>(part))};
    for (size l = 0; task.magnitudes != nullptr && l < lanes<T>; ++l) {
        factor.real[l] = static_cast<T>(task.magnitudes[l] * part);
        factor.imaginary[l] = static_cast<T>(task.magnitudes[lanes<T> + l] * part);
    }
    Number<T> trace{};  // NaN as soon as anything is not finite
    for (size f = 0; f < task.points; ++f) {
        const Number<T> v = load_number(data + f * point<T>);
        const Number<T> y = {v.real * factor.real, v.imaginary * factor.imaginary};
        trace = trace + (y - y);
        store_number(data + f * point<T>, y);
    }
    bool finite = true;
    for (size l = 0; l < lanes<T>; ++l)
        finite = finite && trace.real[l] == 0 && trace.imaginary[l] == 0;
    return finite;
}

// Magnitudes as integers, which are ordered as the numbers are; 0 for what is not finite.
template <class T>
[[gnu::always_inline]] inline IntVec<T> finite_magnitude(Vec<T> v) noexcept {
    constexpr IntLane<T> infinity =
        sizeof(T) == 4 ? IntLane<T>(0x7f800000) : IntLane<T>(0x7ff0000000000000);
    constexpr IntLane<T> rest = static_cast<IntLane<T>>(~(IntLane<T>(1) << (8 * sizeof(T) - 1)));
    const IntVec<T> bits = reinterpret_cast<IntVec<T>>(v) & rest;
    return bits & (bits < infinity);
}

template <class T>
void peaks(const PeaksTask& task) noexcept {
    const T* data = static_cast<const T*>(task.data);
    double* peak = task.peaks;
    for (size first = 0; first < task.count; first += task.segment, ++peak) {
        const size left = task.count - first;
        const size count = left < task.segment ? left : task.segment;
        IntVec<T> high{};
        size i = 0;
        const auto meet = [&](Vec<T> v) {
            const IntVec<T> own = finite_magnitude<T>(v);
            high = own > high ? own : high;
        };
        for (; i + lanes<T> <= count; i += lanes<T>) meet(load(data + first + i));
        if (i < count) meet(load_first(data + first + i, count - i, T(0)));
        *peak = static_cast<double>(highest_lane(reinterpret_cast<Vec<T>>(high)));
    }
}

template <class T>
constexpr TransformKernels kernels_of = {radix,       whole<T, false>,    whole<T, true>,
                                         multiply<T>, multiply_pieces<T>, multiply_own<T>,
                                         balance<T>,  finish<T>,          peaks<T>};

}  // namespace

extern constinit const TransformKernels transform_kernels[2] = {kernels_of<float>,
                                                                kernels_of<double>};

}  // namespace unitstride::UNITSTRIDE_ISA
