// Sums of products of two tensors of any layout: out = alpha * sum(a * b) + beta * out.
#pragma once

#include "core/storage.hpp"
#include "core/view.hpp"

namespace unitstride {

// One array and the label of each of its axes. Axes of the same label run together.
template <class View>
struct Labelled {
    View view;
    Element element;
    short label[max_axes];
};

constexpr int label_limit = 256;  // labels are below it

struct ContractArguments {
    Labelled<InputView> a, b;  // b may be none: a alone is summed, transposed or copied
    Labelled<OutputView> out;
    double alpha, beta;  // beta == 0: out is not read
    double alpha_imag, beta_imag;
};

// An upper estimate of the multiply-adds: sizes of all labels multiplied.
double contraction_cost(const ContractArguments& arguments) noexcept;

// Checks that the labels fit together, and returns FloatStatus bits. `out` overlaps no input.
unsigned contract(const ContractArguments& arguments);

}  // namespace unitstride
