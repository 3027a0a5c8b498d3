// Work over several threads. The only place that knows OpenMP.
//
// Which pieces a problem falls into is decided by the problem alone; threads only take pieces, so
// results do not depend on how many there are.
#pragma once

#include <atomic>
#include <cstddef>
#include <type_traits>

namespace unitstride {

// What a worker sees of the call it takes part in.
class Worker {
  public:
    Worker(int index, std::atomic<bool>& stop) noexcept : index_(index), stop_(stop) {}

    int index() const noexcept { return index_; }
    // To be asked every few hundred microseconds of work at the latest: false means leave now. The
    // calling thread also looks whether the process was asked to interrupt.
    bool proceed() noexcept;

  private:
    int index_;
    std::atomic<bool>& stop_;
};

// Threads that a call of so much work is given: 1 where threads would cost more than they bring,
// inside another parallel region, and in a forked child (OpenMP does not survive a fork).
int workers_for(double nanoseconds, std::ptrdiff_t items);

using ErasedBody = void (*)(void* context, Worker& worker, std::ptrdiff_t begin,
                            std::ptrdiff_t end);
unsigned run_parallel(int workers, std::ptrdiff_t items, void* context, ErasedBody body);

// Calls body(worker, begin, end) until the ranges have covered [0, items), larger ranges first.
// Throws what a body throws, and Interrupted. Returns the floating-point flags that any worker
// raised (machine bits).
template <class Body>
unsigned parallel_for(int workers, std::ptrdiff_t items, Body&& body) {
    using Plain = std::remove_reference_t<Body>;
    return run_parallel(
        workers, items, const_cast<void*>(static_cast<const void*>(&body)),
        [](void* context, Worker& worker, std::ptrdiff_t begin, std::ptrdiff_t end) {
            (*static_cast<Plain*>(context))(worker, begin, end);
        });
}

// The number of threads: of the calling thread's context (0: none set), of the process, and in
// effect.
int set_context_threads(int threads) noexcept;  // returns the one before
void set_default_threads(int threads) noexcept;
int threads_in_effect() noexcept;
// A limit that somebody set through OpenMP (threadpoolctl does) since this library was loaded; 0:
// none.
int openmp_limit() noexcept;
bool is_forked_child() noexcept;
const char* threading_backend() noexcept;

// `hook` is asked on the calling thread now and then; true ends the call.
using InterruptHook = bool (*)();
void set_interrupt_hook(InterruptHook hook) noexcept;

}  // namespace unitstride
