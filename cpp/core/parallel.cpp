#include "core/parallel.hpp"

#include <algorithm>
#include <chrono>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "core/error.hpp"
#include "core/float_environment.hpp"
#include "core/placement.hpp"

#if defined(_OPENMP)
#include <omp.h>
#endif
#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

namespace unitstride {
namespace {

using Clock = std::chrono::steady_clock;

constexpr double serial_below_nanoseconds = 10'000;  // starting and joining a team costs about this
constexpr auto interrupt_interval = std::chrono::milliseconds(50);

std::atomic<int> default_threads{1};
std::atomic<bool> forked{false};
std::atomic<int> active_calls{0};
std::atomic<InterruptHook> interrupt_hook{nullptr};
thread_local int context_threads = 0;
thread_local Clock::time_point next_interrupt_check;

#if defined(_OPENMP)
thread_local TeamPlacement placement;
thread_local int proven_team = 1;

// libgomp ends the process when it cannot start a thread. So a team larger than the last one of
// this thread is first tried with threads of our own, all alive at once; fewer that start mean a
// smaller team.
int prove_team(int wanted) {
    if (wanted == proven_team) return wanted;
    std::mutex gate;
    std::unique_lock<std::mutex> closed(gate);
    std::vector<std::thread> probes;
    try {
        probes.reserve(static_cast<std::size_t>(wanted));
        while (static_cast<int>(probes.size()) < wanted - 1)
            probes.emplace_back([&gate] { const std::lock_guard<std::mutex> wait(gate); });
    } catch (const std::exception&) {  // as many as there are
    }
    closed.unlock();
    for (auto& probe : probes) probe.join();
    proven_team = static_cast<int>(probes.size()) + 1;
    TeamPlacement& team = placement;  // the caller's, not the workers' own
    team.prepare(proven_team);
#pragma omp parallel num_threads(proven_team)
    team.enrol(omp_get_thread_num());
    return proven_team;
}

const int initial_openmp_threads = omp_get_max_threads();
#endif

struct ForkWatch {
    ForkWatch() {
#if defined(__unix__) || defined(__APPLE__)
        pthread_atfork(nullptr, nullptr, [] {
            forked.store(true);
            active_calls.store(0);
        });
#endif
    }
};
const ForkWatch fork_watch;

// The ranges of one call and what its workers report.
class Call {
  public:
    Call(int workers, std::ptrdiff_t items, void* context, ErasedBody body) noexcept
        : workers_(workers), items_(items), context_(context), body_(body) {}

    void work(int index) noexcept {
        const FloatEnvironment environment;
        Worker worker(index, stop_);
        std::ptrdiff_t begin, end;
        while (!stop_.load(std::memory_order_relaxed) && take(begin, end)) {
            try {
                body_(context_, worker, begin, end);
            } catch (...) {
                const std::lock_guard<std::mutex> lock(mutex_);
                if (!failure_) failure_ = std::current_exception();
                stop_.store(true);
            }
        }
        raised_.fetch_or(environment.raised());
    }

    unsigned finish() {
        if (failure_) std::rethrow_exception(failure_);
        if (stop_.load()) throw Interrupted{};
        return raised_.load();
    }

  private:
    // A share of what is left: large ranges first, small ones when the end is near.
    bool take(std::ptrdiff_t& begin, std::ptrdiff_t& end) noexcept {
        begin = next_.load(std::memory_order_relaxed);
        do {
            if (begin >= items_) return false;
            const std::ptrdiff_t share = workers_ == 1 ? items_ : (items_ - begin) / (2 * workers_);
            end = begin + std::max<std::ptrdiff_t>(share, 1);
        } while (!next_.compare_exchange_weak(begin, end, std::memory_order_relaxed));
        return true;
    }

    const int workers_;
    const std::ptrdiff_t items_;
    void* const context_;
    const ErasedBody body_;
    std::atomic<std::ptrdiff_t> next_{0};
    std::atomic<bool> stop_{false};
    std::atomic<unsigned> raised_{0};
    std::mutex mutex_;
    std::exception_ptr failure_;
};

}  // namespace

bool Worker::proceed() noexcept {
    if (stop_.load(std::memory_order_relaxed)) return false;
    if (index_ != 0) return true;
    const InterruptHook hook = interrupt_hook.load(std::memory_order_relaxed);
    if (hook == nullptr) return true;
    const auto now = Clock::now();
    if (now < next_interrupt_check) return true;
    next_interrupt_check = now + interrupt_interval;
    if (hook()) stop_.store(true);
    return !stop_.load(std::memory_order_relaxed);
}

int workers_for(double nanoseconds, std::ptrdiff_t items) {
    if (nanoseconds < serial_below_nanoseconds || items < 2 ||
        forked.load(std::memory_order_relaxed))
        return 1;
#if defined(_OPENMP)
    if (omp_in_parallel()) return 1;
    // Python threads that compute at once share the threads between them.
    // The team is as large as it may be or not there at all: libgomp ends and restarts threads when
    // the size changes.
    const int available = threads_in_effect() / (1 + active_calls.load(std::memory_order_relaxed));
    return available <= 1 ? 1 : prove_team(available);
#else
    return 1;
#endif
}

unsigned run_parallel(int workers, std::ptrdiff_t items, void* context, ErasedBody body) {
    Call call(workers, items, context, body);
    if (workers <= 1) {
        call.work(0);
        return call.finish();
    }
#if defined(_OPENMP)
    active_calls.fetch_add(1);
    TeamPlacement& team = placement;
    team.before_region();
#pragma omp parallel num_threads(workers)
    {
        team.in_worker(omp_get_thread_num());
        call.work(omp_get_thread_num());
    }
    team.after_region();
    active_calls.fetch_sub(1);
#endif
    return call.finish();
}

int set_context_threads(int threads) noexcept {
    const int before = context_threads;
    context_threads = threads;
    return before;
}

void set_default_threads(int threads) noexcept { default_threads.store(threads); }

int openmp_limit() noexcept {
#if defined(_OPENMP)
    const int now = omp_get_max_threads();
    return now == initial_openmp_threads ? 0 : now;
#else
    return 0;
#endif
}

int threads_in_effect() noexcept {
    if (context_threads > 0) return context_threads;
    const int limit = is_forked_child() ? 0 : openmp_limit();
    return limit > 0 ? limit : default_threads.load(std::memory_order_relaxed);
}

bool is_forked_child() noexcept { return forked.load(std::memory_order_relaxed); }

const char* threading_backend() noexcept {
#if defined(_OPENMP)
    return "OpenMP";
#else
    return "none";
#endif
}

void set_interrupt_hook(InterruptHook hook) noexcept { interrupt_hook.store(hook); }

}  // namespace unitstride
