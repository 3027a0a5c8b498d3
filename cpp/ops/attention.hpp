// Scaled dot-product attention: the arguments of the whole call.
#pragma once

#include <cstdint>

#include "core/storage.hpp"
#include "core/view.hpp"

namespace unitstride {

// Arrays are (*batch, heads, length, features); those of keys and values may have fewer heads, a
// divisor of the queries'. Key j is within reach of query i when lowest <= j - i - offset <=
// highest.
struct AttentionArguments {
    Storage storage;
    InputView query, key, value;
    OutputView out;
    OutputView lse;  // of the compute type; without data where it is not wanted
    InputView mask;  // bytes, (*batch, heads, queries, keys), or no data
    InputView bias;  // the same shape
    Storage bias_storage;
    const std::int64_t* offset;         // [batch]
    const std::int64_t* query_lengths;  // [batch]
    const std::int64_t* key_lengths;    // [batch]
    const double* slopes;               // [batch, heads] or null
    const double* sinks;                // [batch, heads] or null
    std::int64_t lowest, highest;
    double scale;
    double softcap;  // 0: none
};

// Multiply-adds, for the choice of threads.
double attention_cost(const AttentionArguments& arguments);

// Returns whether every result is finite.
bool attention(const AttentionArguments& arguments);

// Gradients of sum(cotangent * attention(...)), with the results of the forward call. Those of keys
// and values have the batch dimensions of the others.
struct AttentionVjpArguments {
    AttentionArguments forward;  // but for `out` and `lse`
    InputView out, lse, cotangent;
    OutputView d_query, d_key, d_value;
};

void attention_vjp(const AttentionVjpArguments& arguments);

}  // namespace unitstride
