// Working memory of a call: one block from a grow-only store of the calling thread, cut into one
// slice per worker. It is taken before a kernel writes anything, so that a failure leaves every
// array as it was.
#pragma once

#include <cstddef>

namespace unitstride {

constexpr std::ptrdiff_t scratch_alignment = 64;

class Scratch {
  public:
    // Throws std::bad_alloc.
    Scratch(std::ptrdiff_t bytes_per_worker, int workers);
    ~Scratch();
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;

    char* of_worker(int worker) const noexcept { return memory_ + worker * slice_; }

  private:
    std::ptrdiff_t slice_;
    std::ptrdiff_t bytes_;
    char* memory_;
};

// For tests: the `countdown`-th allocation from now on throws std::bad_alloc; 0 turns this off.
void fail_allocation(long countdown) noexcept;
// To be called where memory is about to be allocated.
void count_allocation();

}  // namespace unitstride
