// Softmax, log-softmax and logsumexp of lines.
//
//   softmax(x)_i     = exp(x_i - max) / sum_j exp(x_j - max)
//   log_softmax(x)_i = (x_i - max) - log1p(sum over all j but one maximum of exp(x_j - max))
//   logsumexp(x)     = max + log1p(the same sum)
//
// Accuracy: exponentials without the rounding error of x - max (Note [Exact shift]), wide sums
// (Note [One order of summation]), one division per line. Blocking: groups of four vectors hide the
// latency of the polynomial and leave the sum one addition per group.
#include "kernels/softmax_columns.hpp"
#include "kernels/softmax_rows.hpp"
#include "kernels/softmax_turn.hpp"
#include "kernels/table.hpp"

namespace unitstride::UNITSTRIDE_ISA {
namespace {

template <class T>
std::ptrdiff_t columns_state_bytes(std::ptrdiff_t width) noexcept {
    return ColumnsState<T>::bytes(width);
}

void logs(const LineSum* sums, double* value, std::ptrdiff_t count,
          double inverse_temperature) noexcept {
    for (size i = 0; i < count; i += lanes<double>) {
        const size used = count - i < lanes<double> ? count - i : lanes<double>;
        F64 excess = {};
        for (size l = 0; l < used; ++l) excess[l] = sums[i + l].excess;
        const F64 log_sum = log1p_positive(excess);
        for (size l = 0; l < used; ++l) {
            const LineSum& sum = sums[i + l];
            const bool regular = sum.excess == sum.excess;
            value[i + l] = regular       ? sum.highest * inverse_temperature + log_sum[l]
                           : sum.has_nan ? sum.excess
                                         : sum.highest;
        }
    }
}

template <class S>
constexpr SoftmaxKernels kernels_of = {
    .rows = rows<S>,
    .rows_every_second = rows<EverySecond<S>>,
    .packed_rows = rows<typename PackedOf<S>::type>,
    .columns_state_bytes = columns_state_bytes<Compute<S>>,
    .columns_begin = columns_begin<Compute<S>>,
    .columns_max = columns_max<Compute<S>>,
    .columns_origin = columns_origin<Compute<S>>,
    .columns_early_origin = columns_early_origin<Compute<S>>,
    .columns_origin_holds = columns_origin_holds<Compute<S>>,
    .columns_exp = columns_exp<S>,
    .columns_sum = columns_sum<Compute<S>>,
    .columns_finish = columns_finish<Compute<S>>,
    .columns_first_max = columns_first_max<S>,
    .columns_turn = columns_turn<S>,
    .piece = piece<S>,
    .packed_piece = piece<typename PackedOf<S>::type>,
    .logs = logs,
    .lanes = lanes<Compute<S>>,
    .group = lanes<Compute<S>> * group_vectors,
};

}  // namespace

extern constinit const SoftmaxKernels softmax_kernels[storage_count] = {
    kernels_of<float>, kernels_of<double>, kernels_of<Float16>, kernels_of<BFloat16>};

}  // namespace unitstride::UNITSTRIDE_ISA
