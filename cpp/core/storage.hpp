// Element types as they lie in memory. The 16-bit ones only store: arithmetic on them is in float.
#pragma once

#include <cstdint>

namespace unitstride {

struct Float16 {
    std::uint16_t bits;
};
struct BFloat16 {
    std::uint16_t bits;
};

// Every second element of an array: the view x[::2].
template <class S>
struct EverySecond {
    S element, skipped;
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
template <class S>
using Stored = typename StoredOf<S>::type;

template <class S>
using Compute = typename ComputeOf<S>::type;

}  // namespace unitstride
