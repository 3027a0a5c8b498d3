// The formulas in long double, and how far a result is from them.
#pragma once

#include "engine_calls.hpp"

namespace unitstride::test {

// Values of a storage type; `encode` takes what the type can hold, and rounds 16-bit types towards
// zero.
double decode(const char* element, Storage storage);
void encode(char* element, Storage storage, double value);

// The largest error of a result as a multiple of what is allowed, infinite where NaN or an infinity
// is wrong, and the element that has it.
struct Verdict {
    double excess = 0;
    std::string text;
};
Verdict judge(const Problem& problem, const Result& result);

}  // namespace unitstride::test
