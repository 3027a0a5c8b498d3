// Direct convolution: every line in stretches of outputs. A stretch reads x where it lies if it is
// contiguous there and does not reach beyond the ends; otherwise that part of x is brought to
// scratch, extended by the boundary's rule. Lines that adjoin (axis 0 of a matrix) go side by side.
#include "ops/convolution.hpp"

#include <algorithm>
#include <cstdlib>

#include "core/checked.hpp"
#include "core/float_environment.hpp"
#include "core/float_status.hpp"
#include "core/layout.hpp"
#include "core/parallel.hpp"
#include "core/scratch.hpp"
#include "isa/dispatch.hpp"
#include "ops/lines.hpp"

namespace unitstride {
namespace {

enum Operand { operand_x, operand_out, operand_k, operand_count };

constexpr std::ptrdiff_t stretch_outputs = 4096;  // of one line
constexpr std::ptrdiff_t few_outputs = 512;       // of lines side by side, and of very long kernels
constexpr std::ptrdiff_t very_long_kernel = 1 << 19;
constexpr std::ptrdiff_t group_columns = 64;        // lines side by side
constexpr std::ptrdiff_t most_side_by_side = 2048;  // taps; longer windows leave the cache

std::ptrdiff_t parts(std::ptrdiff_t whole, std::ptrdiff_t part) {
    return (whole + part - 1) / part;
}

class Convolution {
  public:
    explicit Convolution(const ConvolutionArguments& arguments);

    unsigned run();

  private:
    struct Lines {  // those of one item of work
        std::ptrdiff_t first, columns, begin, outputs;
    };

    void choose_form();
    Lines lines_of(std::ptrdiff_t item) const;
    void run_lines(const Lines& lines, char* scratch, const char* taps) const;
    void pack_taps(std::ptrdiff_t offset, char* taps) const;
    const char* source(const Lines& lines, std::ptrdiff_t offset, char* scratch,
                       std::ptrdiff_t& stride) const;
    void fetch(const Lines& lines, const char* line, std::ptrdiff_t begin, std::ptrdiff_t end,
               char* tile) const;
    double nanoseconds() const;

    const ConvolutionArguments& arguments_;
    const KernelTable& table_;
    const PackKernels& pack_;
    const WindowKernels& window_;
    LinesPlan plan_;
    std::ptrdiff_t length_, taps_, outputs_;
    std::ptrdiff_t x_stride_, k_stride_, out_stride_;
    std::ptrdiff_t storage_, compute_;  // bytes of an element
    bool one_kernel_ = true, side_by_side_ = false, is_computed_as_stored_;
    std::ptrdiff_t inner_length_ = 1, groups_ = 1;  // lines side by side
    std::ptrdiff_t across_x_ = 0, across_out_ = 0;  // from one of them to the next
    std::ptrdiff_t stretch_ = 0, stretches_ = 0, items_ = 0;
    std::ptrdiff_t x_bytes_ = 0, y_bytes_ = 0, taps_bytes_ = 0;
};

Convolution::Convolution(const ConvolutionArguments& arguments)
    : arguments_(arguments),
      table_(kernels()),
      pack_(table_.pack[static_cast<int>(arguments.storage)]),
      window_(table_.window[arguments.storage == Storage::float64 ? 1 : 0]),
      length_(arguments.x.shape[arguments.axis]),
      taps_(arguments.k.shape[arguments.axis]),
      outputs_(arguments.out.shape[arguments.axis]),
      x_stride_(arguments.x.strides[arguments.axis]),
      k_stride_(arguments.k.strides[arguments.axis]),
      out_stride_(arguments.out.strides[arguments.axis]),
      storage_(storage_bytes(arguments.storage)),
      compute_(compute_bytes(arguments.storage)),
      is_computed_as_stored_(storage_ == compute_) {
    std::ptrdiff_t shape[max_axes];
    bool along_line[max_axes];
    for (int axis = 0; axis < arguments.x.axes; ++axis) {
        along_line[axis] = axis == arguments.axis;
        shape[axis] = along_line[axis] ? 1 : arguments.out.shape[axis];
        if (!along_line[axis] && shape[axis] > 1 && arguments.k.strides[axis] != 0)
            one_kernel_ = false;
    }
    const std::ptrdiff_t* const strides[] = {arguments.x.strides, arguments.out.strides,
                                             arguments.k.strides};
    plan_ = plan_lines(arguments.x.axes, shape, along_line, operand_count, strides);
}

void Convolution::choose_form() {
    if (plan_.outer.count > 0) {
        const Axis& inner = plan_.outer.axis[plan_.outer.count - 1];
        side_by_side_ = inner.stride[operand_k] == 0 && taps_ <= most_side_by_side &&
                        inner.length >= table_.vector_bytes / compute_ / 2 &&
                        std::abs(inner.stride[operand_x]) < std::abs(x_stride_);
        if (side_by_side_) {
            inner_length_ = inner.length;
            across_x_ = inner.stride[operand_x];
            across_out_ = inner.stride[operand_out];
            groups_ = parts(inner_length_, group_columns);
        }
    }
    stretch_ = side_by_side_ || taps_ >= very_long_kernel ? few_outputs : stretch_outputs;
    stretch_ = std::min(stretch_, outputs_);
    stretches_ = parts(outputs_, stretch_);
    items_ = checked_multiply(plan_.lines / inner_length_, groups_);
    items_ = checked_multiply(items_, stretches_);
    const std::ptrdiff_t columns = side_by_side_ ? std::min(inner_length_, group_columns) : 1;
    const std::ptrdiff_t reach = checked_add(stretch_, taps_ - 1);
    const auto bytes = [&](std::ptrdiff_t elements) {
        return round_up(checked_multiply(elements, compute_), scratch_alignment) +
               scratch_alignment;
    };
    x_bytes_ = bytes(checked_multiply(reach, columns));
    y_bytes_ = bytes(stretch_ * columns);
    taps_bytes_ = bytes(taps_);
}

Convolution::Lines Convolution::lines_of(std::ptrdiff_t item) const {
    const std::ptrdiff_t begin = item % stretches_ * stretch_;
    item /= stretches_;
    const std::ptrdiff_t group = item % groups_ * group_columns;
    const std::ptrdiff_t columns =
        side_by_side_ ? std::min(group_columns, inner_length_ - group) : 1;
    return {item / groups_ * inner_length_ + group, columns, begin,
            std::min(stretch_, outputs_ - begin)};
}

// In the order in which they meet x: backwards.
void Convolution::pack_taps(std::ptrdiff_t offset, char* taps) const {
    const char* last = arguments_.k.data + (offset + (taps_ - 1) * k_stride_) * storage_;
    pack_.pack({last, taps, 1, taps_, 0, -k_stride_, 0, false});
}

// The part [begin, end) of extended lines to the rows of a tile (side by side) or to one row.
void Convolution::fetch(const Lines& lines, const char* line, std::ptrdiff_t begin,
                        std::ptrdiff_t end, char* tile) const {
    const auto copy = [&](std::ptrdiff_t from, std::ptrdiff_t to, std::ptrdiff_t count) {
        const char* array = line + from * x_stride_ * storage_;
        char* row = tile + (to - begin) * lines.columns * compute_;
        if (lines.columns == 1) {
            pack_.pack({array, row, 1, count, 0, x_stride_, 0, false});
        } else {
            pack_.pack(
                {array, row, count, lines.columns, x_stride_, across_x_, lines.columns, false});
        }
    };
    const auto zero = [&](std::ptrdiff_t place, std::ptrdiff_t count) {
        char* row = tile + (place - begin) * lines.columns * compute_;
        std::fill_n(row, count * lines.columns * compute_, '\0');
    };
    for_extended(begin, end, length_, arguments_.boundary, copy, zero);
}

// Where the window of these outputs begins: in the array or in scratch.
const char* Convolution::source(const Lines& lines, std::ptrdiff_t offset, char* scratch,
                                std::ptrdiff_t& stride) const {
    const std::ptrdiff_t begin = arguments_.start + lines.begin - (taps_ - 1);
    const std::ptrdiff_t end = begin + lines.outputs + taps_ - 1;
    const char* line = arguments_.x.data + offset * storage_;
    const bool inside = begin >= 0 && end <= length_;
    const bool contiguous = side_by_side_ ? across_x_ == 1 : x_stride_ == 1;
    if (inside && contiguous && is_computed_as_stored_) {
        stride = x_stride_;
        return line + begin * x_stride_ * storage_;
    }
    stride = lines.columns;
    fetch(lines, line, begin, end, scratch);
    return scratch;
}

void Convolution::run_lines(const Lines& lines, char* scratch, const char* taps) const {
    std::ptrdiff_t offset[max_operands];
    plan_.offsets_of(lines.first, offset);
    if (!one_kernel_) {
        char* own = scratch + x_bytes_ + y_bytes_;
        pack_taps(offset[operand_k], own);
        taps = own;
    }
    WindowTask task = {nullptr, taps, nullptr, lines.outputs, taps_, lines.columns, 0, 0};
    task.x = source(lines, offset[operand_x], scratch, task.x_stride);
    char* out = arguments_.out.data + (offset[operand_out] + lines.begin * out_stride_) * storage_;
    const bool contiguous = side_by_side_ ? across_out_ == 1 : out_stride_ == 1;
    const bool straight = contiguous && is_computed_as_stored_;
    task.y = straight ? out : scratch + x_bytes_;
    task.y_stride = straight ? out_stride_ : lines.columns;
    (side_by_side_ ? window_.columns : window_.line)(task);
    if (straight) return;
    if (side_by_side_) {
        pack_.unpack({out, task.y, lines.outputs, lines.columns, out_stride_, across_out_,
                      lines.columns, false});
    } else {
        pack_.unpack({out, task.y, 1, lines.outputs, 0, out_stride_, 0, false});
    }
}

double Convolution::nanoseconds() const {
    const double vectors = static_cast<double>(table_.vector_bytes / compute_);
    const double elements = static_cast<double>(plan_.lines) * static_cast<double>(outputs_);
    return elements * (0.2 + static_cast<double>(taps_) * 0.2 / vectors);
}

unsigned Convolution::run() {
    if (plan_.lines == 0 || outputs_ == 0) return 0;
    choose_form();
    const int workers = workers_for(nanoseconds(), items_);
    // One slice more than workers, for the taps that all of them use.
    const std::ptrdiff_t slice =
        std::max(checked_add(x_bytes_ + y_bytes_, taps_bytes_), taps_bytes_);
    const Scratch scratch(slice, workers + 1);
    char* taps = scratch.of_worker(workers);
    if (one_kernel_) pack_taps(0, taps);
    const unsigned raised = parallel_for(
        workers, items_, [&](Worker& worker, std::ptrdiff_t begin, std::ptrdiff_t end) {
            char* own = scratch.of_worker(worker.index());
            for (std::ptrdiff_t item = begin; item < end && worker.proceed(); ++item)
                run_lines(lines_of(item), own, taps);
        });
    return (FloatEnvironment::has_overflow(raised) ? status_over : 0u) |
           (FloatEnvironment::has_invalid(raised) ? status_invalid : 0u);
}

}  // namespace

unsigned convolve(const ConvolutionArguments& arguments) { return Convolution(arguments).run(); }

}  // namespace unitstride
