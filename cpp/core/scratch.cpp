#include "core/scratch.hpp"

#include <atomic>
#include <new>
#include <utility>

#include "core/checked.hpp"
#include "core/recycling.hpp"

namespace unitstride {
namespace {

std::atomic<long> allocations_left{0};

// What a thread keeps between calls at the most; larger blocks are recycled as results are.
constexpr std::ptrdiff_t kept_bytes = 8 << 20;
constexpr std::ptrdiff_t slice_padding = 64;  // slices do not share cache lines, nor the same sets

char* allocate(std::ptrdiff_t bytes) {
    count_allocation();
    if (bytes > kept_bytes) return acquire_block(bytes);
    return static_cast<char*>(
        ::operator new(static_cast<std::size_t>(bytes), std::align_val_t{scratch_alignment}));
}

void release(char* memory, std::ptrdiff_t bytes) noexcept {
    if (bytes > kept_bytes) return release_block(memory);
    ::operator delete(memory, std::align_val_t{scratch_alignment});
}

struct Kept {
    char* memory = nullptr;
    std::ptrdiff_t bytes = 0;
    ~Kept() {
        if (memory) release(memory, bytes);
    }
};
thread_local Kept kept;

}  // namespace

void fail_allocation(long countdown) noexcept { allocations_left.store(countdown); }

void count_allocation() {
    if (allocations_left.load(std::memory_order_relaxed) > 0 && allocations_left.fetch_sub(1) == 1)
        throw std::bad_alloc();
}

Scratch::Scratch(std::ptrdiff_t bytes_per_worker, int workers)
    : slice_(round_up(checked_add(bytes_per_worker, slice_padding), scratch_alignment)),
      bytes_(checked_multiply(slice_, workers)),
      memory_(nullptr) {
    if (kept.bytes >= bytes_) {
        bytes_ = std::exchange(kept.bytes, 0);
        memory_ = std::exchange(kept.memory, nullptr);
    } else {
        memory_ = allocate(bytes_);
    }
}

Scratch::~Scratch() {
    if (bytes_ <= kept_bytes && bytes_ > kept.bytes) {
        std::swap(memory_, kept.memory);
        std::swap(bytes_, kept.bytes);
    }
    if (memory_) release(memory_, bytes_);
}

}  // namespace unitstride
