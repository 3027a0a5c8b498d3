// The factors of Fourier transforms, computed once in the life of a process.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/storage.hpp"

namespace unitstride {

constexpr int most_turns = 24;  // logarithm of the longest transform

// `TransformTask::turns` for transforms of 2^logarithm points. What it points to lasts for good;
// threads may ask at the same time. Throws std::bad_alloc.
class Turns {
  public:
    Turns(Storage storage, int logarithm);
    const void* const* get() const noexcept { return of_; }

  private:
    const void* of_[most_turns + 1] = {};
};

// `OwnProductTask::opposite` for transforms of 2^logarithm points; as the former.
const std::int32_t* opposite_places(int logarithm);

}  // namespace unitstride
