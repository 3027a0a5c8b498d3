// Direct convolution of planes: a worker brings some rows of x to scratch, extended by the
// boundary's rule and one after the other, and takes them for one line. Row r + 1 of the kernel
// meets that line one row later, so that a result is a sum of windows at fixed distances. Sums that
// reach from one row into the next are not stored.
#include "ops/convolution_planes.hpp"

#include <algorithm>

#include "core/carver.hpp"
#include "core/float_environment.hpp"
#include "core/float_status.hpp"
#include "core/layout.hpp"
#include "core/parallel.hpp"
#include "core/scratch.hpp"
#include "isa/dispatch.hpp"
#include "ops/lines.hpp"

namespace unitstride {
namespace {

enum Operand { operand_x, operand_out, operand_k, operand_bias, operand_count };

constexpr std::ptrdiff_t most_columns = 2048;         // of results, in an item of work
constexpr std::ptrdiff_t cached_elements = 48 << 10;  // of x
constexpr std::ptrdiff_t least_rows = 8;

std::ptrdiff_t parts(std::ptrdiff_t whole, std::ptrdiff_t part) {
    return (whole + part - 1) / part;
}

// The last two axes of an operand.
struct Plane {
    std::ptrdiff_t rows, columns, row_stride, column_stride;

    template <class View>
    explicit Plane(const View& view)
        : rows(view.shape[view.axes - 2]),
          columns(view.shape[view.axes - 1]),
          row_stride(view.strides[view.axes - 2]),
          column_stride(view.strides[view.axes - 1]) {}
};

class Planes {
  public:
    explicit Planes(const PlanesArguments& arguments);

    unsigned run();

  private:
    struct Item {  // results of one plane
        std::ptrdiff_t plane, row, rows, column, columns;
    };
    struct Memory {
        char *x, *y, *taps;
    };

    Item item_of(std::ptrdiff_t number) const;
    Memory carve(Carver& carver) const;
    void pack_taps(std::ptrdiff_t offset, char* taps) const;
    void fetch(const Item& item, const char* plane, char* tile) const;
    void fetch_rows(const char* from, std::ptrdiff_t rows, std::ptrdiff_t left, char* tile) const;
    void fetch_row(const char* row, std::ptrdiff_t first_column, char* tile) const;
    void run_item(const Item& item, const Memory& memory, const char* taps) const;

    const PlanesArguments& arguments_;
    const KernelTable& table_;
    const PackKernels& pack_;
    LinesPlan planes_;
    Plane x_, k_, out_;
    std::ptrdiff_t storage_, compute_;
    bool one_kernel_ = true, streams_;
    std::ptrdiff_t rows_, columns_, pitch_;  // results of an item; elements from row to row
    std::ptrdiff_t row_items_, column_items_;
};

Planes::Planes(const PlanesArguments& arguments)
    : arguments_(arguments),
      table_(kernels()),
      pack_(table_.pack[static_cast<int>(arguments.storage)]),
      x_(arguments.x),
      k_(arguments.k),
      out_(arguments.out),
      storage_(storage_bytes(arguments.storage)),
      compute_(compute_bytes(arguments.storage)) {
    const int axes = arguments.x.axes;
    std::ptrdiff_t shape[max_axes], bias_strides[max_axes];
    bool along_line[max_axes];
    for (int axis = 0; axis < axes; ++axis) {
        along_line[axis] = axis >= axes - 2;
        shape[axis] = along_line[axis] ? 1 : arguments.out.shape[axis];
        bias_strides[axis] = arguments.bias && !along_line[axis] ? arguments.bias.strides[axis] : 0;
        if (!along_line[axis] && shape[axis] > 1 && arguments.k.strides[axis] != 0)
            one_kernel_ = false;
    }
    const std::ptrdiff_t* const strides[] = {arguments.x.strides, arguments.out.strides,
                                             arguments.k.strides, bias_strides};
    planes_ = plan_lines(axes, shape, along_line, operand_count, strides);
    columns_ = std::min(out_.columns, most_columns);
    pitch_ = checked_add(columns_, k_.columns - 1);
    rows_ = std::max(cached_elements / pitch_ - (k_.rows - 1), least_rows);
    rows_ = std::min(rows_, out_.rows);
    const std::ptrdiff_t results = checked_multiply(out_.rows, out_.columns);
    streams_ = checked_multiply(planes_.lines, results) * storage_ >= table_.streaming_bytes;
    row_items_ = parts(out_.rows, rows_);
    column_items_ = parts(out_.columns, columns_);
}

Planes::Item Planes::item_of(std::ptrdiff_t number) const {
    const std::ptrdiff_t column = number % column_items_ * columns_;
    number /= column_items_;
    const std::ptrdiff_t row = number % row_items_ * rows_;
    return {number / row_items_, row, std::min(rows_, out_.rows - row), column,
            std::min(columns_, out_.columns - column)};
}

Planes::Memory Planes::carve(Carver& carver) const {
    const auto take = [&](std::ptrdiff_t elements) {
        return carver.take<char>(checked_multiply(elements, compute_));
    };
    Memory memory{};
    memory.x = take(checked_multiply(checked_add(rows_, k_.rows - 1), pitch_));
    memory.y = take(checked_multiply(rows_, pitch_));
    memory.taps = take(checked_multiply(k_.rows, k_.columns));
    return memory;
}

// In the order in which they meet x: backwards.
void Planes::pack_taps(std::ptrdiff_t offset, char* taps) const {
    const std::ptrdiff_t last =
        offset + (k_.rows - 1) * k_.row_stride + (k_.columns - 1) * k_.column_stride;
    pack_.pack({arguments_.k.data + last * storage_, taps, k_.rows, k_.columns, -k_.row_stride,
                -k_.column_stride, k_.columns, false});
}

// One row, from a column on that may lie before its beginning.
void Planes::fetch_row(const char* row, std::ptrdiff_t first_column, char* tile) const {
    const auto copy = [&](std::ptrdiff_t element, std::ptrdiff_t place, std::ptrdiff_t count) {
        pack_.pack({row + element * x_.column_stride * storage_,
                    tile + (place - first_column) * compute_, 1, count, 0, x_.column_stride, 0,
                    false});
    };
    const auto zero = [&](std::ptrdiff_t place, std::ptrdiff_t count) {
        std::fill_n(tile + (place - first_column) * compute_, count * compute_, '\0');
    };
    for_extended(first_column, first_column + pitch_, x_.columns, arguments_.boundary, copy, zero);
}

// Rows that all lie in the plane. Zeros beyond the ends leave one rectangle to be moved.
void Planes::fetch_rows(const char* from, std::ptrdiff_t rows, std::ptrdiff_t left,
                        char* tile) const {
    const std::ptrdiff_t first = std::clamp<std::ptrdiff_t>(left, 0, x_.columns);
    const std::ptrdiff_t last = std::clamp<std::ptrdiff_t>(left + pitch_, 0, x_.columns);
    const std::ptrdiff_t before = first - left, count = last - first;
    if (arguments_.boundary != Boundary::zero && count < pitch_) {
        for (std::ptrdiff_t row = 0; row < rows; ++row)
            fetch_row(from + row * x_.row_stride * storage_, left, tile + row * pitch_ * compute_);
        return;
    }
    if (count > 0)
        pack_.pack({from + first * x_.column_stride * storage_, tile + before * compute_, rows,
                    count, x_.row_stride, x_.column_stride, pitch_, false});
    if (count == pitch_) return;
    for (std::ptrdiff_t row = 0; row < rows; ++row) {
        char* const own = tile + row * pitch_ * compute_;
        std::fill_n(own, before * compute_, '\0');
        std::fill_n(own + (before + count) * compute_, (pitch_ - before - count) * compute_, '\0');
    }
}

// What an item reads.
void Planes::fetch(const Item& item, const char* plane, char* tile) const {
    const std::ptrdiff_t top = arguments_.start[0] + item.row - (k_.rows - 1);
    const std::ptrdiff_t left = arguments_.start[1] + item.column - (k_.columns - 1);
    const std::ptrdiff_t row_bytes = pitch_ * compute_;
    const auto copy = [&](std::ptrdiff_t element, std::ptrdiff_t place, std::ptrdiff_t rows) {
        fetch_rows(plane + element * x_.row_stride * storage_, rows, left,
                   tile + (place - top) * row_bytes);
    };
    const auto zero = [&](std::ptrdiff_t place, std::ptrdiff_t rows) {
        std::fill_n(tile + (place - top) * row_bytes, rows * row_bytes, '\0');
    };
    for_extended(top, top + item.rows + k_.rows - 1, x_.rows, arguments_.boundary, copy, zero);
}

void Planes::run_item(const Item& item, const Memory& memory, const char* taps) const {
    std::ptrdiff_t offset[max_operands];
    planes_.offsets_of(item.plane, offset);
    if (!one_kernel_) {
        pack_taps(offset[operand_k], memory.taps);
        taps = memory.taps;
    }
    fetch(item, arguments_.x.data + offset[operand_x] * storage_, memory.x);
    WindowTask task = {memory.x,   taps, memory.y, (item.rows - 1) * pitch_ + item.columns,
                       k_.columns, 1,    0,        0};
    task.tap_rows = k_.rows;
    task.row_step = pitch_;
    task.silu = arguments_.silu;
    double bias;
    if (arguments_.bias) {
        pack_.pack(
            {arguments_.bias.data + offset[operand_bias] * storage_, &bias, 1, 1, 0, 1, 0, false});
        task.bias = &bias;
    }
    table_.window[arguments_.storage == Storage::float64 ? 1 : 0].line(task);
    char* const to = arguments_.out.data + (offset[operand_out] + item.row * out_.row_stride +
                                            item.column * out_.column_stride) *
                                               storage_;
    pack_.unpack({to, memory.y, item.rows, item.columns, out_.row_stride, out_.column_stride,
                  pitch_, streams_});
}

unsigned Planes::run() {
    const std::ptrdiff_t items =
        checked_multiply(checked_multiply(planes_.lines, row_items_), column_items_);
    const double vectors = static_cast<double>(table_.vector_bytes / compute_);
    const double results = static_cast<double>(rows_) * static_cast<double>(columns_);
    const double taps = static_cast<double>(k_.rows) * static_cast<double>(k_.columns);
    const int workers =
        workers_for(static_cast<double>(items) * results * (0.3 + taps * 0.3 / vectors), items);
    Carver size(nullptr);
    carve(size);
    // One slice more than workers, for the taps that all of them use.
    const Scratch scratch(size.used(), workers + 1);
    const auto memory_of = [&](int worker) {
        Carver carver(scratch.of_worker(worker));
        return carve(carver);
    };
    const Memory shared = memory_of(workers);
    if (one_kernel_) pack_taps(0, shared.taps);
    const unsigned raised =
        parallel_for(workers, items, [&](Worker& worker, std::ptrdiff_t begin, std::ptrdiff_t end) {
            const Memory own = memory_of(worker.index());
            for (std::ptrdiff_t item = begin; item < end && worker.proceed(); ++item)
                run_item(item_of(item), own, shared.taps);
        });
    return (FloatEnvironment::has_overflow(raised) ? status_over : 0u) |
           (FloatEnvironment::has_invalid(raised) ? status_invalid : 0u);
}

}  // namespace

unsigned convolve_planes(const PlanesArguments& arguments) {
    for (int axis = 0; axis < arguments.out.axes; ++axis)
        if (arguments.out.shape[axis] == 0) return 0;
    return Planes(arguments).run();
}

}  // namespace unitstride
