// Direct convolution of planes: a worker brings some rows of x to scratch (`PlaneTiles`), and there
// are three ways to move over them. A few taps share the rows of x (`PlaneKernels::tile`). Others
// take the rows for one line, in which each tap meets x at one distance: many taps by the kernel
// of lines, with several rows of taps; those of strides by a place for each tap. Sums that reach
// from one row into the next are not stored.
#include "ops/convolution_planes.hpp"

#include <algorithm>
#include <vector>

#include "core/carver.hpp"
#include "core/float_environment.hpp"
#include "core/float_status.hpp"
#include "core/layout.hpp"
#include "core/parallel.hpp"
#include "core/scratch.hpp"
#include "isa/dispatch.hpp"
#include "ops/lines.hpp"
#include "ops/plane_tiles.hpp"

namespace unitstride {
namespace {

enum Operand { operand_x, operand_out, operand_k, operand_bias, operand_count };

// How windows move: see above.
enum class Way { shared_rows, window, places };

constexpr std::ptrdiff_t few_taps = 128;
constexpr std::ptrdiff_t most_together = 16;  // planes

Way way_of(const PlanesArguments& arguments, const Plane& k) {
    const std::ptrdiff_t taps = checked_multiply(k.rows, k.columns);
    if (k.rows > 1 && taps <= few_taps && arguments.spread[0] % arguments.step[0] == 0)
        return Way::shared_rows;
    const bool dense = arguments.step[0] == 1 && arguments.step[1] == 1 &&
                       (arguments.spread[0] == 1 || k.rows == 1) &&
                       (arguments.spread[1] == 1 || k.columns == 1);
    return dense ? Way::window : Way::places;
}

Windows windows_of(const PlanesArguments& arguments, const Plane& k, const Plane& out) {
    Windows found{};
    for (int axis = 0; axis < 2; ++axis) {
        found.taps[axis] = axis == 0 ? k.rows : k.columns;
        found.results[axis] = axis == 0 ? out.rows : out.columns;
        found.step[axis] = arguments.step[axis];
        found.spread[axis] = found.taps[axis] > 1 ? arguments.spread[axis] : 1;
        found.begin[axis] =
            arguments.start[axis] - checked_multiply(found.taps[axis] - 1, arguments.spread[axis]);
    }
    return found;
}

class Planes {
  public:
    explicit Planes(const PlanesArguments& arguments);

    unsigned run();

  private:
    struct Memory {
        char *x, *y, *taps;
    };
    struct Item {  // a part of planes that adjoin
        std::ptrdiff_t plane, planes;
        Part part;
    };

    Item item_of(std::ptrdiff_t number) const;
    Memory carve(Carver& carver) const;
    void pack_taps(std::ptrdiff_t offset, char* taps) const;
    void run_item(const Item& item, const Memory& memory, const char* taps) const;
    void convolve(const Part& part, const char* x, const char* taps, const void* bias,
                  char* y) const;
    void write(const Item& item, std::ptrdiff_t offset, const char* y) const;

    const PlanesArguments& arguments_;
    const KernelTable& table_;
    const PackKernels& pack_;
    Plane k_, out_;
    LinesPlan planes_;
    std::ptrdiff_t storage_, compute_;
    std::ptrdiff_t inner_ = 1, together_ = 1;  // planes that adjoin, and how many are taken at once
    Way way_;
    PlaneTiles tiles_;
    std::vector<std::ptrdiff_t> places_;
    bool one_kernel_ = true, streams_, adjoining_out_ = false;
    std::ptrdiff_t y_pitch_, y_plane_;
};

// Planes of which neighbouring elements adjoin are brought together: every cache line is read once.
LinesPlan plan_planes(const PlanesArguments& arguments) {
    const int axes = arguments.x.axes;
    std::ptrdiff_t shape[max_axes], bias_strides[max_axes];
    bool along_line[max_axes];
    for (int axis = 0; axis < axes; ++axis) {
        along_line[axis] = axis >= axes - 2;
        shape[axis] = along_line[axis] ? 1 : arguments.out.shape[axis];
        bias_strides[axis] = arguments.bias && !along_line[axis] ? arguments.bias.strides[axis] : 0;
    }
    const std::ptrdiff_t* const strides[] = {arguments.x.strides, arguments.out.strides,
                                             arguments.k.strides, bias_strides};
    return plan_lines(axes, shape, along_line, operand_count, strides);
}

std::ptrdiff_t planes_together(const PlanesArguments& arguments, const LinesPlan& plan) {
    if (plan.outer.count == 0 || arguments.boundary != Boundary::zero) return 1;
    const Axis& inner = plan.outer.axis[plan.outer.count - 1];
    const bool adjoin =
        inner.stride[operand_x] == 1 && arguments.x.strides[arguments.x.axes - 1] != 1;
    return adjoin ? std::min(inner.length, most_together) : 1;
}

Planes::Planes(const PlanesArguments& arguments)
    : arguments_(arguments),
      table_(kernels()),
      pack_(table_.pack[static_cast<int>(arguments.storage)]),
      k_(arguments.k),
      out_(arguments.out),
      planes_(plan_planes(arguments)),
      storage_(storage_bytes(arguments.storage)),
      compute_(compute_bytes(arguments.storage)),
      together_(planes_together(arguments, planes_)),
      way_(way_of(arguments, k_)),
      tiles_(arguments.x, arguments.storage, arguments.boundary, windows_of(arguments, k_, out_),
             together_, way_ == Way::shared_rows) {
    for (int axis = 0; axis < arguments.x.axes - 2; ++axis)
        if (arguments.out.shape[axis] > 1 && arguments.k.strides[axis] != 0) one_kernel_ = false;
    if (together_ > 1) {
        const Axis& inner = planes_.outer.axis[planes_.outer.count - 1];
        inner_ = inner.length;
        adjoining_out_ = inner.stride[operand_out] == 1 && out_.column_stride != 1;
    }
    if (way_ == Way::shared_rows) places_ = tiles_.places(1);
    if (way_ == Way::places) places_ = tiles_.places(k_.rows);
    const std::ptrdiff_t lanes = table_.vector_bytes / compute_;
    y_pitch_ =
        way_ == Way::shared_rows ? round_up(tiles_.largest().columns, lanes) : tiles_.pitch();
    const std::ptrdiff_t slack = table_.planes[0].slack_bytes / compute_;
    y_plane_ = checked_add(checked_multiply(tiles_.largest().rows, y_pitch_), slack + lanes);
    const std::ptrdiff_t results = checked_multiply(out_.rows, out_.columns);
    streams_ = checked_multiply(planes_.lines, results) * storage_ >= table_.streaming_bytes;
}

Planes::Item Planes::item_of(std::ptrdiff_t number) const {
    const Part part = tiles_.part_of(number % tiles_.parts());
    number /= tiles_.parts();
    const std::ptrdiff_t groups = (inner_ + together_ - 1) / together_;
    const std::ptrdiff_t first = number % groups * together_;
    return {number / groups * inner_ + first, std::min(together_, inner_ - first), part};
}

Planes::Memory Planes::carve(Carver& carver) const {
    const auto take = [&](std::ptrdiff_t elements) {
        return carver.take<char>(checked_multiply(elements, compute_));
    };
    Memory memory{};
    memory.x = take(tiles_.elements());
    memory.y = take(checked_multiply(y_plane_, adjoining_out_ ? together_ : 1));
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

void Planes::convolve(const Part& part, const char* x, const char* taps, const void* bias,
                      char* y) const {
    const int type = arguments_.storage == Storage::float64 ? 1 : 0;
    const std::ptrdiff_t pitch = tiles_.pitch();
    const std::ptrdiff_t whole = (part.rows - 1) * pitch + part.columns;
    if (way_ == Way::window) {
        WindowTask task = {x, taps, y, whole, k_.columns, 1, 0, 0};
        task.tap_rows = k_.rows;
        task.row_step = pitch;
        task.bias = bias;
        task.silu = arguments_.silu;
        table_.window[type].line(task);
        return;
    }
    PlaneTask task = {
        x, taps, y, 1, whole, 0, 0, 1, k_.rows * k_.columns, places_.data(), bias, arguments_.silu};
    if (way_ == Way::places) {
        table_.planes[type].line(task);
        return;
    }
    // Rows as far apart as those of the kernel share what they read.
    const std::ptrdiff_t apart = arguments_.spread[0] / arguments_.step[0];
    task.columns = part.columns;
    task.x_step = apart * pitch;
    task.y_step = apart * y_pitch_;
    task.tap_rows = k_.rows;
    task.tap_columns = k_.columns;
    for (std::ptrdiff_t row = 0; row < std::min(apart, part.rows); ++row) {
        task.x = x + row * pitch * compute_;
        task.y = y + row * y_pitch_ * compute_;
        task.rows = (part.rows - row + apart - 1) / apart;
        table_.planes[type].tile(task);
    }
}

// `offset` is that of the first plane.
void Planes::write(const Item& item, std::ptrdiff_t offset, const char* y) const {
    const Part& part = item.part;
    char* const to =
        arguments_.out.data +
        (offset + part.row * out_.row_stride + part.column * out_.column_stride) * storage_;
    if (!adjoining_out_) {
        pack_.unpack({to, const_cast<char*>(y), part.rows, part.columns, out_.row_stride,
                      out_.column_stride, y_pitch_, streams_});
        return;
    }
    for (std::ptrdiff_t row = 0; row < part.rows; ++row)
        pack_.unpack({to + row * out_.row_stride * storage_,
                      const_cast<char*>(y) + row * y_pitch_ * compute_, item.planes, part.columns,
                      1, out_.column_stride, y_plane_, false});
}

void Planes::run_item(const Item& item, const Memory& memory, const char* taps) const {
    std::ptrdiff_t offset[max_operands];
    planes_.offsets_of(item.plane, offset);
    const std::ptrdiff_t first_out = offset[operand_out];
    const auto* inner =
        together_ > 1 ? planes_.outer.axis[planes_.outer.count - 1].stride : nullptr;
    tiles_.fetch(item.part, arguments_.x.data + offset[operand_x] * storage_, item.planes,
                 memory.x);
    for (std::ptrdiff_t plane = 0; plane < item.planes; ++plane) {
        if (!one_kernel_) {
            pack_taps(offset[operand_k], memory.taps);
            taps = memory.taps;
        }
        double bias = 0;
        if (arguments_.bias)
            pack_.pack({arguments_.bias.data + offset[operand_bias] * storage_, &bias, 1, 1, 0, 1,
                        0, false});
        char* const y = memory.y + (adjoining_out_ ? plane * y_plane_ * compute_ : 0);
        convolve(item.part, memory.x + plane * tiles_.plane() * compute_, taps,
                 arguments_.bias ? &bias : nullptr, y);
        if (!adjoining_out_) write(item, offset[operand_out], y);
        for (int k = 0; inner != nullptr && k < operand_count; ++k) offset[k] += inner[k];
    }
    if (adjoining_out_) write(item, first_out, memory.y);
}

unsigned Planes::run() {
    const std::ptrdiff_t groups = (inner_ + together_ - 1) / together_;
    const std::ptrdiff_t items =
        checked_multiply(checked_multiply(planes_.lines / inner_, groups), tiles_.parts());
    const double vectors = static_cast<double>(table_.vector_bytes / compute_);
    const Part& part = tiles_.largest();
    const double results = static_cast<double>(together_) * static_cast<double>(part.rows) *
                           static_cast<double>(part.columns);
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
            tiles_.clear(own.x);
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
