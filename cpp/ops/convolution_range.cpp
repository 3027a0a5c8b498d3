#include "ops/convolution_range.hpp"

#include <algorithm>
#include <limits>
#include <vector>

#include "core/checked.hpp"
#include "core/layout.hpp"
#include "core/parallel.hpp"
#include "core/scratch.hpp"
#include "isa/dispatch.hpp"
#include "ops/lines.hpp"

namespace unitstride {
namespace {

enum Operand { operand_x, operand_k, operand_count };

constexpr std::ptrdiff_t elements_at_once = 8192;  // of a line, or terms
constexpr double infinity = std::numeric_limits<double>::infinity();

std::ptrdiff_t parts(std::ptrdiff_t whole, std::ptrdiff_t part) {
    return (whole + part - 1) / part;
}

struct Extremes {
    double least = infinity, most = 0;
};

class Range {
  public:
    explicit Range(const RangeArguments& arguments);

    double run();

  private:
    std::vector<double> peaks_of(const InputView& view, int operand);
    Extremes extremes(const double* x, const double* k, std::ptrdiff_t first,
                      std::ptrdiff_t count) const;

    const RangeArguments& arguments_;
    const KernelTable& table_;
    LinesPlan lines_;
    bool one_kernel_ = true;
    std::ptrdiff_t x_segments_, k_segments_;
};

Range::Range(const RangeArguments& arguments)
    : arguments_(arguments),
      table_(kernels()),
      x_segments_(parts(arguments.x.shape[arguments.axis], arguments.segment)),
      k_segments_(parts(arguments.k.shape[arguments.axis], arguments.segment)) {
    std::ptrdiff_t shape[max_axes];
    bool along_line[max_axes];
    for (int axis = 0; axis < arguments.x.axes; ++axis) {
        along_line[axis] = axis == arguments.axis;
        shape[axis] = along_line[axis] ? 1 : arguments.x.shape[axis];
        if (!along_line[axis] && shape[axis] > 1 && arguments.k.strides[axis] != 0)
            one_kernel_ = false;
    }
    const std::ptrdiff_t* const strides[] = {arguments.x.strides, arguments.k.strides};
    lines_ = plan_lines(arguments.x.axes, shape, along_line, operand_count, strides);
}

// The peaks of all lines' segments; of one kernel where there is only one.
std::vector<double> Range::peaks_of(const InputView& view, int operand) {
    const std::ptrdiff_t length = view.shape[arguments_.axis];
    const std::ptrdiff_t stride = view.strides[arguments_.axis];
    const std::ptrdiff_t lines = operand == operand_k && one_kernel_ ? 1 : lines_.lines;
    const std::ptrdiff_t segments = operand == operand_x ? x_segments_ : k_segments_;
    const std::ptrdiff_t at_once = round_up(elements_at_once, arguments_.segment);
    const std::ptrdiff_t chunks = parts(length, at_once);
    const std::ptrdiff_t bytes = compute_bytes(arguments_.storage);
    const bool straight = stride == 1 && storage_bytes(arguments_.storage) == bytes;
    std::vector<double> peaks(static_cast<std::size_t>(checked_multiply(lines, segments)));
    const int workers =
        workers_for(0.2 * static_cast<double>(lines) * static_cast<double>(length), lines * chunks);
    const Scratch scratch(straight ? 0 : at_once * bytes, workers);
    parallel_for(workers, lines * chunks,
                 [&](Worker& worker, std::ptrdiff_t begin, std::ptrdiff_t end) {
                     for (std::ptrdiff_t item = begin; item < end && worker.proceed(); ++item) {
                         const std::ptrdiff_t line = item / chunks, first = item % chunks * at_once;
                         const std::ptrdiff_t count = std::min(at_once, length - first);
                         std::ptrdiff_t offset[max_operands];
                         lines_.offsets_of(line, offset);
                         const char* data = view.data + (offset[operand] + first * stride) *
                                                            storage_bytes(arguments_.storage);
                         if (!straight) {
                             char* const own = scratch.of_worker(worker.index());
                             table_.pack[static_cast<int>(arguments_.storage)].pack(
                                 {data, own, 1, count, 0, stride, 0, false});
                             data = own;
                         }
                         table_.transform[bytes == 8 ? 1 : 0].peaks(
                             {data, count, arguments_.segment,
                              peaks.data() + line * segments + first / arguments_.segment});
                     }
                 });
    return peaks;
}

// Of `count` outputs' segments from `first` on.
Extremes Range::extremes(const double* x, const double* k, std::ptrdiff_t first,
                         std::ptrdiff_t count) const {
    double term[elements_at_once / 16] = {};
    for (std::ptrdiff_t j = 0; j < k_segments_; ++j) {
        const double factor = k[j];
        const std::ptrdiff_t begin = std::max(first, j);
        const std::ptrdiff_t end = std::min(first + count, x_segments_ + j);
        for (std::ptrdiff_t i = begin; i < end; ++i) {
            const double own = factor * x[i - j];
            term[i - first] = own > term[i - first] ? own : term[i - first];
        }
    }
    Extremes found;
    for (std::ptrdiff_t i = 0; i < count; ++i) {
        if (term[i] > 0) found.least = std::min(found.least, term[i]);
        found.most = std::max(found.most, term[i]);
    }
    return found;
}

double Range::run() {
    const std::vector<double> x = peaks_of(arguments_.x, operand_x);
    const std::vector<double> k = peaks_of(arguments_.k, operand_k);
    constexpr std::ptrdiff_t at_once = elements_at_once / 16;
    const std::ptrdiff_t terms = x_segments_ + k_segments_ - 1, chunks = parts(terms, at_once);
    std::vector<Extremes> found(static_cast<std::size_t>(lines_.lines * chunks));
    const double work = static_cast<double>(lines_.lines) * static_cast<double>(terms);
    const int workers = workers_for(work * static_cast<double>(k_segments_), lines_.lines * chunks);
    parallel_for(workers, lines_.lines * chunks,
                 [&](Worker& worker, std::ptrdiff_t begin, std::ptrdiff_t end) {
                     for (std::ptrdiff_t item = begin; item < end && worker.proceed(); ++item) {
                         const std::ptrdiff_t line = item / chunks, first = item % chunks * at_once;
                         found[static_cast<std::size_t>(item)] =
                             extremes(x.data() + line * x_segments_,
                                      k.data() + (one_kernel_ ? 0 : line * k_segments_), first,
                                      std::min(at_once, terms - first));
                     }
                 });
    double range = 1;
    for (std::ptrdiff_t line = 0; line < lines_.lines; ++line) {
        Extremes all;
        for (std::ptrdiff_t chunk = 0; chunk < chunks; ++chunk) {
            const Extremes& own = found[static_cast<std::size_t>(line * chunks + chunk)];
            all.least = std::min(all.least, own.least);
            all.most = std::max(all.most, own.most);
        }
        if (all.most > 0) range = std::min(range, all.least / all.most);
    }
    return range;
}

}  // namespace

double convolution_range(const RangeArguments& arguments) {
    for (int axis = 0; axis < arguments.x.axes; ++axis)
        if (arguments.x.shape[axis] == 0 || arguments.k.shape[axis] == 0) return 1;
    return Range(arguments).run();
}

}  // namespace unitstride
