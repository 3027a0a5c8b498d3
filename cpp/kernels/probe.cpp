// Limits to compare kernels with: streaming bandwidth, read bandwidth, multiply-add throughput.
#include "kernels/probe.hpp"

#include "kernels/table.hpp"
#include "simd/vec.hpp"

namespace unitstride::UNITSTRIDE_ISA {
namespace {

void copy_streaming(const char* source, char* target, std::ptrdiff_t bytes) noexcept {
    const float* from = reinterpret_cast<const float*>(source);
    float* to = reinterpret_cast<float*>(target);
    for (size i = 0; i < bytes / 4; i += lanes<float>) store_streaming(to + i, load(from + i));
    finish_streaming();
}

double read(const char* source, std::ptrdiff_t bytes) noexcept {
    const float* from = reinterpret_cast<const float*>(source);
    I32 mix[4] = {};
    for (size i = 0; i < bytes / 4; i += 4 * lanes<float>) {
#pragma GCC unroll 4
        for (size k = 0; k < 4; ++k)
            mix[k] = mix[k] ^ reinterpret_cast<I32>(load(from + i + k * lanes<float>));
    }
    const I32 all = (mix[0] ^ mix[1]) ^ (mix[2] ^ mix[3]);
    double sum = 0;
    for (size l = 0; l < lanes<float>; ++l) sum += all[l];
    return sum;
}

template <class T>
double multiply_add_throughput(std::ptrdiff_t rounds, double* sink) noexcept {
    constexpr int chains = 12;  // more than latency times ports
    Vec<T> sum[chains];
    for (int c = 0; c < chains; ++c) sum[c] = splat(static_cast<T>(c));
    const Vec<T> factor = splat(T(0.5));
    for (size i = 0; i < rounds; ++i) {
#pragma GCC unroll 12
        for (int c = 0; c < chains; ++c) sum[c] = multiply_add(sum[c], factor, factor);
    }
    for (int c = 0; c < chains; ++c) *sink += static_cast<double>(sum[c][0]);
    return 2.0 * chains * static_cast<double>(lanes<T>) * static_cast<double>(rounds);
}

}  // namespace

extern constinit const ProbeKernels probe_kernels = {
    copy_streaming, read, multiply_add_throughput<float>, multiply_add_throughput<double>};

}  // namespace unitstride::UNITSTRIDE_ISA
