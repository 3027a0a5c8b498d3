// Gradients of the softmax family.
//
//   softmax:      dx = y (dy - sum(dy y)) / temperature
//   log_softmax:  dx = (dy - exp(y) sum(dy)) / temperature
//   logsumexp:    dx = dy exp(x / temperature - lse) / temperature
//
// Accuracy: sums are wide (double for float, two words for double), in one order for every layout;
// results take a few roundings in the compute type (Note [Two words of the sum]). Blocking: groups
// of four vectors leave the accumulators one addition per group; a line's sum needs all of it
// before its first result, so two lines, or two tiles, are under way at a time.
#include "kernels/softmax_vjp_columns.hpp"
#include "kernels/softmax_vjp_rows.hpp"
#include "kernels/table.hpp"

namespace unitstride::UNITSTRIDE_ISA {
namespace {

template <class S>
constexpr SoftmaxVjpKernels kernels_of = {
    .rows = vjp_rows<S>,
    .rows_every_second = vjp_rows<EverySecond<S>>,
    .sum = vjp_sum<S>,
    .write = vjp_write<S>,
    .columns_state_bytes = vjp_columns_state_bytes<Compute<S>>,
    .columns_begin = vjp_columns_begin<Compute<S>>,
    .columns_turn = vjp_columns_turn<S>,
    .columns_piece = vjp_columns_piece<Compute<S>>,
    .columns_summed = vjp_columns_summed<Compute<S>>,
    .lanes = lanes<Compute<S>>,
    .group = lanes<Compute<S>> * group_vectors,
};

}  // namespace

extern constinit const SoftmaxVjpKernels softmax_vjp_kernels[storage_count] = {
    kernels_of<float>, kernels_of<double>, kernels_of<Float16>, kernels_of<BFloat16>};

}  // namespace unitstride::UNITSTRIDE_ISA
