#include "core/recycling.hpp"

#include <list>
#include <mutex>
#include <new>
#include <unordered_map>

#include "core/checked.hpp"
#include "core/scratch.hpp"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace unitstride {
namespace {

constexpr std::ptrdiff_t huge_page = 2 << 20;
constexpr std::ptrdiff_t wasted_at_most =
    4;  // a kept block may be larger than asked for by one part in so many
// Giving pages back in advance, and writing to them again, costs a tenth of what a kernel takes to
// fill them: the blocks that were released last are kept as they are.
constexpr std::ptrdiff_t warm_bytes_at_most = 64 << 20;

#if defined(__linux__)
// Aligned to a huge page, so that the system can use them: far fewer faults on first touch.
char* map(std::ptrdiff_t bytes) {
    const auto total = static_cast<std::size_t>(checked_add(bytes, huge_page));
    void* mapped = mmap(nullptr, total, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) throw std::bad_alloc();
    char* begin = static_cast<char*>(mapped);
    const auto misplaced =
        reinterpret_cast<std::size_t>(begin) % static_cast<std::size_t>(huge_page);
    const std::size_t before = misplaced == 0 ? 0 : static_cast<std::size_t>(huge_page) - misplaced;
    if (before > 0) munmap(begin, before);
    char* block = begin + before;
    if (const std::size_t after = total - before - static_cast<std::size_t>(bytes); after > 0)
        munmap(block + bytes, after);
    madvise(block, static_cast<std::size_t>(bytes), MADV_HUGEPAGE);
    return block;
}
void unmap(char* block, std::ptrdiff_t bytes) noexcept {
    munmap(block, static_cast<std::size_t>(bytes));
}
void mark_reclaimable(char* block, std::ptrdiff_t bytes) noexcept {
    madvise(block, static_cast<std::size_t>(bytes), MADV_FREE);
}
#else
char* map(std::ptrdiff_t bytes) {
    return static_cast<char*>(
        ::operator new(static_cast<std::size_t>(bytes), std::align_val_t{scratch_alignment}));
}
void unmap(char* block, std::ptrdiff_t) noexcept {
    ::operator delete(block, std::align_val_t{scratch_alignment});
}
void mark_reclaimable(char*, std::ptrdiff_t) noexcept {}
#endif

struct Block {
    char* memory;
    std::ptrdiff_t bytes;
    bool reclaimable = false;
};

class Store {
  public:
    char* acquire(std::ptrdiff_t wanted) {
        count_allocation();
        const std::ptrdiff_t bytes = round_up(checked_add(wanted, 0), 1 << 16);
        const std::lock_guard<std::mutex> lock(mutex_);
        auto best = kept_.end();
        for (auto block = kept_.begin(); block != kept_.end(); ++block)
            if (block->bytes >= bytes && block->bytes - bytes <= bytes / wasted_at_most &&
                (best == kept_.end() || block->bytes <= best->bytes))
                best = block;  // of equal ones the latest
        Block block;
        if (best == kept_.end()) {
            block = {map(bytes), bytes};
        } else {
            block = *best;
            kept_bytes_ -= block.bytes;
            if (!block.reclaimable) warm_bytes_ -= block.bytes;
            kept_.erase(best);
        }
        in_use_.emplace(block.memory, block.bytes);
        return block.memory;
    }

    void release(char* memory) noexcept {
        const std::lock_guard<std::mutex> lock(mutex_);
        const auto found = in_use_.find(memory);
        const Block block = {memory, found->second};
        in_use_.erase(found);
        if (block.bytes > limit_) return unmap(block.memory, block.bytes);
        kept_bytes_ += block.bytes;
        warm_bytes_ += block.bytes;
        kept_.push_back(block);
        trim(limit_);
        cool();
    }

    void set_limit(std::ptrdiff_t bytes) noexcept {
        const std::lock_guard<std::mutex> lock(mutex_);
        limit_ = bytes;
        trim(bytes);
    }

    std::ptrdiff_t release_kept() noexcept {
        const std::lock_guard<std::mutex> lock(mutex_);
        const std::ptrdiff_t bytes = kept_bytes_;
        trim(0);
        return bytes;
    }

  private:
    // Oldest first.
    void trim(std::ptrdiff_t bytes) noexcept {
        while (kept_bytes_ > bytes) {
            const Block oldest = kept_.front();
            kept_.pop_front();
            kept_bytes_ -= oldest.bytes;
            if (!oldest.reclaimable) warm_bytes_ -= oldest.bytes;
            unmap(oldest.memory, oldest.bytes);
        }
    }
    void cool() noexcept {
        for (auto block = kept_.begin(); warm_bytes_ > warm_bytes_at_most; ++block) {
            if (block->reclaimable) continue;
            mark_reclaimable(block->memory, block->bytes);
            block->reclaimable = true;
            warm_bytes_ -= block->bytes;
        }
    }

    std::mutex mutex_;
    std::list<Block> kept_;
    std::unordered_map<char*, std::ptrdiff_t> in_use_;
    std::ptrdiff_t kept_bytes_ = 0, warm_bytes_ = 0;
    std::ptrdiff_t limit_ = std::ptrdiff_t{256} << 20;
};

// Never destroyed: arrays may outlive the module.
Store& store() {
    static Store* const instance = new Store;
    return *instance;
}

}  // namespace

char* acquire_block(std::ptrdiff_t bytes) { return store().acquire(bytes); }
void release_block(char* memory) noexcept { store().release(memory); }
void set_recycled_bytes(std::ptrdiff_t bytes) noexcept { store().set_limit(bytes); }
std::ptrdiff_t release_kept_blocks() noexcept { return store().release_kept(); }

}  // namespace unitstride
