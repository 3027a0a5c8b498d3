// Element types as they lie in memory. The 16-bit ones only store: arithmetic on them is in float.
#pragma once

#include <cstdint>
#include <type_traits>

namespace unitstride {

struct Float16 {
    static constexpr std::uint16_t infinity = 0x7c00;
    std::uint16_t bits;
};
struct BFloat16 {
    static constexpr std::uint16_t infinity = 0x7f80;
    std::uint16_t bits;
};

// Every second element of an array: the view x[::2].
template <class S>
struct EverySecond {
    S element, skipped;
};

// A float that came from 16 bits and goes back to them: what packed lines of those types consist
// of.
struct Widened {
    float value;
};

enum class Storage : int { float32 = 0, float64 = 1, float16 = 2, bfloat16 = 3 };

constexpr int storage_count = 4;

// What contractions take: the storage types, and complex numbers (pairs of reals in memory).
enum class Element : int {
    float32 = 0,
    float64 = 1,
    float16 = 2,
    bfloat16 = 3,
    complex64 = 4,
    complex128 = 5
};

constexpr int element_count = 6;

template <class T>
struct Complex {
    T real, imag;
};

// The type that values of a storage type are computed in.
template <class S>
struct ComputeOf {
    using type = float;
};
template <>
struct ComputeOf<double> {
    using type = double;
};
template <>
struct ComputeOf<Complex<double>> {
    using type = double;
};
template <class S>
struct ComputeOf<EverySecond<S>> {
    using type = typename ComputeOf<S>::type;
};

// The type that results are stored in.
template <class S>
struct StoredOf {
    using type = S;
};
template <class S>
struct StoredOf<EverySecond<S>> {
    using type = S;
};
// The elements of a packed line.
template <class S>
struct PackedOf {
    using type = S;
};
template <>
struct PackedOf<Float16> {
    using type = Widened;
};
template <>
struct PackedOf<BFloat16> {
    using type = Widened;
};
template <class S>
using Stored = typename StoredOf<S>::type;

// Whether results need no more than the 11 bits of the 16-bit types.
template <class S>
constexpr bool is_coarse = std::is_same_v<typename PackedOf<Stored<S>>::type, Widened>;

template <class S>
using Compute = typename ComputeOf<S>::type;

}  // namespace unitstride
