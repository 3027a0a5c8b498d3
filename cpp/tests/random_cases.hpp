// Problems and layouts, by number and at random.
#pragma once

#include <cstdint>
#include <random>

#include "engine_calls.hpp"

namespace unitstride::test {

class Random {
  public:
    explicit Random(std::uint64_t seed) : engine_(seed) {}

    std::ptrdiff_t below(std::ptrdiff_t bound) {
        return static_cast<std::ptrdiff_t>(engine_() % static_cast<std::uint64_t>(bound));
    }
    bool one_in(std::ptrdiff_t count) { return below(count) == 0; }
    double uniform() { return static_cast<double>(engine_() >> 11) * 0x1p-53; }
    double normal() { return normal_(engine_); }

  private:
    std::mt19937_64 engine_;
    std::normal_distribution<double> normal_;
};

// What a problem is like; its elements are drawn to fit.
struct Case {
    Operation operation;
    Storage storage;
    Shape shape;
    std::vector<char> along_line;
    double temperature = 1.0;
    bool masked = false;
    bool special = false;  // NaN, infinities, subnormals and very large elements among the others
    bool rising = false;   // maxima come late
};

// Elements that a layout repeats (step 0) are equal. Masked-out elements are NaN here and there.
Problem draw_problem(Random& random, const Case& drawn, const Layouts& layouts);

// The layouts every shape is tried in.
constexpr int preset_count = 13;
Layouts preset_layouts(int number, int axes);

Case draw_case(Random& random);
Layouts draw_layouts(Random& random, int axes);

}  // namespace unitstride::test
