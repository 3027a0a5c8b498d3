// One call of the engine, with what it is given and what comes out, independent of how the arrays
// lie in memory.
#pragma once

#include <string>

#include "core/storage.hpp"
#include "strided_array.hpp"

namespace unitstride::test {

enum class Operation : int {
    softmax,
    softmax_with_sum,
    log_softmax,
    logsumexp,
    softmax_vjp,
    log_softmax_vjp,
    logsumexp_vjp,
};
constexpr int operation_count = 7;
const char* name_of(Operation operation);
inline bool is_gradient(Operation operation) { return operation >= Operation::softmax_vjp; }

// Elements in logical order, in the storage type.
struct Problem {
    Operation operation;
    Storage storage;
    Shape shape;
    std::vector<char> along_line;  // one per axis
    double temperature = 1.0;
    Bytes primal;     // x or y
    Bytes cotangent;  // gradients; one per line for logsumexp_vjp
    Bytes log_sum;    // logsumexp_vjp, one per line
    Bytes mask;       // empty: none

    std::ptrdiff_t elements() const;
    // The shape with length 1 along the line.
    Shape reduced_shape() const;
    bool cotangent_is_reduced() const { return operation == Operation::logsumexp_vjp; }
    std::string text() const;
};

struct Layouts {
    Layout primal, cotangent, log_sum, mask, out;
    bool in_place = false;  // the output is the primal's array
    std::string text() const;
};
Layouts all_contiguous(int axes);

struct Result {
    Bytes out, sums;
    unsigned status = 0;
    bool operator==(const Result&) const = default;
};

// Throws std::logic_error when the call changes an input or a byte between the elements of an
// output.
Result run(const Problem& problem, const Layouts& layouts);

}  // namespace unitstride::test
