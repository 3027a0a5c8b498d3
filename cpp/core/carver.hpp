// Cuts one block of memory into arrays; without memory it only counts.
#pragma once

#include "core/checked.hpp"
#include "core/scratch.hpp"

namespace unitstride {

class Carver {
  public:
    explicit Carver(char* memory) noexcept : begin_(memory) {}
    template <class Item>
    Item* take(std::ptrdiff_t count) {
        char* const place = begin_ == nullptr ? nullptr : begin_ + used_;
        const auto bytes = checked_multiply(count, static_cast<std::ptrdiff_t>(sizeof(Item)));
        used_ = checked_add(used_, round_up(bytes, scratch_alignment));
        return reinterpret_cast<Item*>(place);
    }
    std::ptrdiff_t used() const noexcept { return used_; }

  private:
    char* begin_;
    std::ptrdiff_t used_ = 0;
};

}  // namespace unitstride
