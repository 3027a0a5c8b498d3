#include "ops/probe.hpp"

#include <algorithm>
#include <atomic>

#include "core/error.hpp"
#include "core/parallel.hpp"
#include "isa/dispatch.hpp"

namespace unitstride {
namespace {

constexpr std::ptrdiff_t piece = 256 << 10;
constexpr double plenty = 1e9;  // nanoseconds: as many threads as there are

}  // namespace

void probe_copy(const char* source, char* target, std::ptrdiff_t bytes) {
    if (bytes % piece != 0)
        throw Error(Error::Kind::value, "probe_copy: size must be a multiple of 256 KiB");
    const std::ptrdiff_t pieces = bytes / piece;
    parallel_for(workers_for(plenty, pieces), pieces,
                 [&](Worker&, std::ptrdiff_t begin, std::ptrdiff_t end) {
                     kernels().probe->copy_streaming(source + begin * piece, target + begin * piece,
                                                     (end - begin) * piece);
                 });
}

double probe_read(const char* source, std::ptrdiff_t bytes) {
    if (bytes % piece != 0)
        throw Error(Error::Kind::value, "probe_read: size must be a multiple of 256 KiB");
    const std::ptrdiff_t pieces = bytes / piece;
    std::atomic<double> total{0.0};
    parallel_for(
        workers_for(plenty, pieces), pieces,
        [&](Worker&, std::ptrdiff_t begin, std::ptrdiff_t end) {
            total.store(kernels().probe->read(source + begin * piece, (end - begin) * piece));
        });
    return total.load();
}

double probe_multiply_add(Storage storage, std::ptrdiff_t rounds) {
    const ProbeKernels& probe = *kernels().probe;
    const auto run = storage == Storage::float64 ? probe.multiply_add_double : probe.multiply_add;
    const int workers = workers_for(plenty, 1 << 20);
    std::atomic<double> operations{0.0};
    parallel_for(workers, workers, [&](Worker&, std::ptrdiff_t begin, std::ptrdiff_t end) {
        for (; begin < end; ++begin) {
            double sink = 0;
            operations.fetch_add(run(rounds, &sink));
        }
    });
    return operations.load();
}

}  // namespace unitstride
