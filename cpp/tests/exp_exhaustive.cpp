// The error of the exponential in units in the last place: of float over all 2^32 inputs, of double
// over samples.
//
//   exp_exhaustive [--isa name] [--step n] [--samples n] [--threads n] [--temperature t]
//
// Arguments up to 0 are measured as elements of a line whose maximum is 0, positive ones as their
// line's maximum. With --step only every n-th float is taken. Fails above 1 ULP.
#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "exp_lanes.hpp"
#include "isa/dispatch.hpp"
#include "ops/exp_constants.hpp"

namespace unitstride {
namespace baseline {
extern const ExpLanesTable exp_lanes;
}
#if defined(UNITSTRIDE_HAS_avx2)
namespace avx2 {
extern const ExpLanesTable exp_lanes;
}
#endif
#if defined(UNITSTRIDE_HAS_avx512)
namespace avx512 {
extern const ExpLanesTable exp_lanes;
}
#endif

namespace {

struct Options {
    std::string isa;
    std::uint64_t step = 1, samples = std::uint64_t{1} << 22;
    unsigned threads = std::max(1u, std::thread::hardware_concurrency());
    double temperature = 1.0;
};

const ExpLanesTable& lanes_of(const std::string& isa) {
#if defined(UNITSTRIDE_HAS_avx2)
    if (isa == "avx2") return avx2::exp_lanes;
#endif
#if defined(UNITSTRIDE_HAS_avx512)
    if (isa == "avx512") return avx512::exp_lanes;
#endif
    (void)isa;
    return baseline::exp_lanes;
}

// `Wide` holds the exact value well enough to judge a T by it.
template <class T>
struct Reference;
template <>
struct Reference<float> {
    using Wide = double;
    static constexpr int scale_bits = 64, digits = 24;
};
template <>
struct Reference<double> {
    using Wide = long double;
    static constexpr int scale_bits = 512, digits = 53;
};

template <class T>
struct Errors {
    std::uint64_t inputs = 0, correctly_rounded = 0,
                  misplaced = 0;  // misplaced: NaN where a number belongs, or not
    double largest = 0;
    T at = 0;

    void note(T x, T got, typename Reference<T>::Wide expected) {
        ++inputs;
        if (std::isnan(expected) || std::isnan(got)) {
            misplaced += std::isnan(expected) != std::isnan(got);
            correctly_rounded += std::isnan(expected) && std::isnan(got);
            return;
        }
        correctly_rounded += got == static_cast<T>(expected);
        using Wide = typename Reference<T>::Wide;
        const Wide ulp = std::ldexp(Wide{1}, std::ilogb(expected) - (Reference<T>::digits - 1));
        const double error = static_cast<double>(std::abs(static_cast<Wide>(got) - expected) / ulp);
        if (error > largest) {
            largest = error;
            at = x;
        }
    }
    void merge(const Errors& other) {
        inputs += other.inputs;
        correctly_rounded += other.correctly_rounded;
        misplaced += other.misplaced;
        if (other.largest > largest) {
            largest = other.largest;
            at = other.at;
        }
    }
};

// A block of arguments on its way through the kernel.
template <class T>
class Block {
  public:
    static constexpr int size = 1024;

    Block(ExpKernel<T> kernel, const ExpConstants<T>& constants, double temperature)
        : kernel_(kernel), constants_(constants), temperature_(temperature) {}

    void add(T x) {
        x_[used_] = x;
        highest_[used_] = x > 0 ? x : T{0};
        if (++used_ == size) flush();
    }
    void flush() {
        for (int i = used_; i < size; ++i) x_[i] = highest_[i] = 0;
        kernel_(x_, highest_, result_, offset_, size, constants_);
        for (int i = 0; i < used_; ++i) errors.note(x_[i], result_[i], expected(i));
        used_ = 0;
    }

    Errors<T> errors;

  private:
    using Wide = typename Reference<T>::Wide;

    Wide expected(int i) {
        const Wide one = std::ldexp(Wide{1}, Reference<T>::scale_bits);
        if (std::isnan(x_[i]) || x_[i] == HUGE_VAL) return NAN;
        if (highest_[i] >= constants_.far) return one;
        const T lowest = highest_[i] - constants_.reach;
        const T argument = std::max(x_[i], lowest);
        if (argument != last_) {  // most floats lie below the lowest
            last_ = argument;
            last_exp_ = std::exp(static_cast<Wide>(argument) / static_cast<Wide>(temperature_));
        }
        return std::ldexp(last_exp_, Reference<T>::scale_bits - static_cast<int>(offset_[i]));
    }

    ExpKernel<T> kernel_;
    ExpConstants<T> constants_;
    double temperature_;
    T x_[size], highest_[size], result_[size], offset_[size];
    int used_ = 0;
    T last_ = 0;
    Wide last_exp_ = 1;
};

// Calls add(block, piece) for pieces 0, 1, ... pieces - 1 from all threads.
template <class T, class Add>
Errors<T> measure(const Options& options, ExpKernel<T> kernel, std::uint64_t pieces,
                  const Add& add) {
    const ExpConstants<T> constants = exp_constants<T>(options.temperature, kernels().fused);
    std::atomic<std::uint64_t> next{0};
    std::mutex gate;
    Errors<T> total;
    std::vector<std::thread> threads;
    for (unsigned t = 0; t < options.threads; ++t)
        threads.emplace_back([&] {
            Block<T> block(kernel, constants, options.temperature);
            for (std::uint64_t piece = next++; piece < pieces; piece = next++) add(block, piece);
            block.flush();
            const std::lock_guard<std::mutex> lock(gate);
            total.merge(block.errors);
        });
    for (auto& thread : threads) thread.join();
    return total;
}

Errors<float> all_floats(const Options& options, ExpKernel<float> kernel) {
    constexpr std::uint64_t pieces = 4096, patterns = (std::uint64_t{1} << 32) / pieces;
    return measure<float>(options, kernel, pieces, [&](Block<float>& block, std::uint64_t piece) {
        const std::uint64_t begin = piece * patterns, skip = begin % options.step;
        for (std::uint64_t i = skip == 0 ? 0 : options.step - skip; i < patterns; i += options.step)
            block.add(std::bit_cast<float>(static_cast<std::uint32_t>(begin + i)));
    });
}

// Uniform arguments, and those next to the boundaries of the reduction, where the polynomial is at
// its worst.
Errors<double> some_doubles(const Options& options, ExpKernel<double> kernel) {
    constexpr std::uint64_t pieces = 64;
    const double step = options.temperature * 0x1.62e42fefa39efp-1;
    return measure<double>(options, kernel, pieces, [&](Block<double>& block, std::uint64_t piece) {
        std::mt19937_64 random(piece);
        const auto uniform = [&] { return static_cast<double>(random() >> 11) * 0x1p-53; };
        for (std::uint64_t i = 0; i < options.samples / pieces / 3; ++i) {
            block.add(-1060.0 * options.temperature * uniform());
            block.add((-std::floor(1500.0 * uniform()) + 0.5 + 1e-3 * (uniform() - 0.5)) * step);
            block.add(2200.0 * options.temperature * uniform() * uniform());
        }
    });
}

template <class T>
bool report(const std::string& isa, const char* type, const Errors<T>& errors) {
    std::printf(
        "%-8s %s: %llu inputs, largest error %.4f ULP at %a, %.2f %% correctly rounded",
        isa.c_str(), type, static_cast<unsigned long long>(errors.inputs), errors.largest,
        static_cast<double>(errors.at),
        100.0 * static_cast<double>(errors.correctly_rounded) / static_cast<double>(errors.inputs));
    if (errors.misplaced)
        std::printf(", %llu NaN misplaced", static_cast<unsigned long long>(errors.misplaced));
    std::printf("\n");
    std::fflush(stdout);
    return errors.largest <= 1.0 && errors.misplaced == 0;
}

Options options_of(int count, char** words) {
    Options options;
    for (int i = 1; i + 1 < count; i += 2) {
        const std::string name = words[i];
        if (name == "--isa") options.isa = words[i + 1];
        if (name == "--step") options.step = std::strtoull(words[i + 1], nullptr, 10);
        if (name == "--samples") options.samples = std::strtoull(words[i + 1], nullptr, 10);
        if (name == "--threads")
            options.threads = static_cast<unsigned>(std::strtoul(words[i + 1], nullptr, 10));
        if (name == "--temperature") options.temperature = std::strtod(words[i + 1], nullptr);
    }
    return options;
}

}  // namespace
}  // namespace unitstride

int main(int count, char** words) {
    using namespace unitstride;
    const Options options = options_of(count, words);
    bool good = true;
    for (const std::string& isa : isa_detected()) {
        if (!options.isa.empty() && options.isa != isa) continue;
        if (isa == "amx") continue;  // it has the exponential of avx512
        use_isa(isa);
        good &= report(isa, "float32", all_floats(options, lanes_of(isa).of_float));
        good &= report(isa, "float64", some_doubles(options, lanes_of(isa).of_double));
    }
    return good ? EXIT_SUCCESS : EXIT_FAILURE;
}
