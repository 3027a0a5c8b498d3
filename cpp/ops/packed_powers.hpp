// Whether what was packed for a matrix unit is within its reach.
//
// A float goes in three parts, the last down to 2^-24 of it, and what is subnormal is lost: parts
// must not be, nor the products of elements by more than 2^-26 of them. Sums must not overflow.
#pragma once

#include <atomic>

#include "kernels/gemm.hpp"

namespace unitstride {

constexpr int lowest_element_power = -100, lowest_product_power = -100, highest_product_power = 100,
              highest_element_power = 100;

// Of both factors of a product; threads widen them side by side.
class PackedPowers {
  public:
    void widen(int operand, const PowerRange& range) noexcept {
        Factor& factor = factors_[operand];
        int seen = factor.lowest.load(std::memory_order_relaxed);
        while (range.lowest < seen && !factor.lowest.compare_exchange_weak(
                                          seen, range.lowest, std::memory_order_relaxed)) {
        }
        seen = factor.highest.load(std::memory_order_relaxed);
        while (range.highest > seen && !factor.highest.compare_exchange_weak(
                                           seen, range.highest, std::memory_order_relaxed)) {
        }
    }
    bool fit() const noexcept {
        int lowest = 0, highest = 0;
        for (const Factor& factor : factors_) {
            const int low = factor.lowest.load(std::memory_order_relaxed);
            const int high = factor.highest.load(std::memory_order_relaxed);
            if (low < lowest_element_power || high > highest_element_power) return false;
            lowest += low;
            highest += high;
        }
        return lowest >= lowest_product_power && highest <= highest_product_power;
    }

  private:
    struct Factor {
        std::atomic<int> lowest{128}, highest{-128};
    };
    Factor factors_[2];
};

}  // namespace unitstride
