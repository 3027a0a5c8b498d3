// Large blocks for fresh results, kept for the next one when they are let go.
//
// A fresh block of tens of megabytes costs more in page faults than a kernel takes to fill it, and
// malloc returns such blocks to the system each time. Freed blocks are kept here, up to a bound. All
// but the latest 64 MiB are marked as reclaimable: under memory pressure the system takes their
// pages away without asking.
#pragma once

#include <cstddef>

namespace unitstride {

constexpr std::ptrdiff_t recycled_from_bytes = 1 << 20;  // smaller blocks are malloc's business

// Aligned to 64 bytes at least. Throws std::bad_alloc.
char* acquire_block(std::ptrdiff_t bytes);
void release_block(char* memory) noexcept;

// The most bytes that are kept; 0 turns recycling off.
void set_recycled_bytes(std::ptrdiff_t bytes) noexcept;
// Gives all kept blocks back and returns how many bytes that were.
std::ptrdiff_t release_kept_blocks() noexcept;

}  // namespace unitstride
