// Gradients of the taps of planes: sums of products of the slopes with x, at each tap's distance.
// Planes are divided among workers, and those of few planes into chunks of the first axis whose
// sums are added by the caller; what a sum consists of depends on the problem alone.
#include <algorithm>
#include <vector>

#include "core/carver.hpp"
#include "core/float_environment.hpp"
#include "core/float_status.hpp"
#include "core/layout.hpp"
#include "core/parallel.hpp"
#include "core/scratch.hpp"
#include "isa/dispatch.hpp"
#include "ops/convolution_planes.hpp"
#include "ops/lines.hpp"
#include "ops/plane_tiles.hpp"

namespace unitstride {
namespace {

enum Operand { operand_x, operand_slopes, operand_sums, operand_count };

constexpr std::ptrdiff_t most_together = 16;  // planes

class Products {
  public:
    explicit Products(const ProductsArguments& arguments);

    unsigned run();

  private:
    struct Memory {
        char *x, *slopes;
    };
    // Planes that adjoin, and the parts of all their images from `begin` to `end`.
    struct Item {
        std::ptrdiff_t plane, planes, chunk, begin, end;
    };

    Memory carve(Carver& carver) const;
    Item item_of(std::ptrdiff_t number) const;
    const char* slopes_of(const Part& part, const char* slopes, std::ptrdiff_t planes, char* tile,
                          std::ptrdiff_t& row_step, std::ptrdiff_t& plane_step) const;
    void run_item(const Item& item, const Memory& memory) const;
    void add(const Part& part, const std::ptrdiff_t (&offset)[max_operands], const Item& item,
             const Memory& memory) const;

    const ProductsArguments& arguments_;
    const KernelTable& table_;
    const PackKernels& pack_;
    Plane slopes_;
    std::ptrdiff_t storage_, compute_, taps_;
    LinesPlan planes_;
    std::ptrdiff_t inner_ = 1, together_ = 1;
    PlaneTiles tiles_;
    std::vector<std::ptrdiff_t> places_;
};

// Planes without the first axis.
LinesPlan plan_planes(const ProductsArguments& arguments, std::ptrdiff_t taps) {
    const int axes = arguments.x.axes;
    std::ptrdiff_t shape[max_axes], sums_strides[max_axes];
    bool along_line[max_axes];
    std::ptrdiff_t step = taps + 1;
    for (int axis = axes - 1; axis >= 0; --axis) {
        along_line[axis] = axis == 0 || axis >= axes - 2;
        shape[axis] = along_line[axis] ? 1 : arguments.slopes.shape[axis];
        sums_strides[axis] = along_line[axis] ? 0 : step;
        step = checked_multiply(step, shape[axis]);
    }
    const std::ptrdiff_t* const strides[] = {arguments.x.strides, arguments.slopes.strides,
                                             sums_strides};
    return plan_lines(axes, shape, along_line, operand_count, strides);
}

Windows windows_of(const ProductsArguments& arguments) {
    Windows found{};
    for (int axis = 0; axis < 2; ++axis) {
        found.begin[axis] = arguments.begin[axis];
        found.step[axis] = arguments.step[axis];
        found.spread[axis] = arguments.spread[axis];
        found.taps[axis] = arguments.taps[axis];
        found.results[axis] = arguments.slopes.shape[arguments.slopes.axes - 2 + axis];
    }
    return found;
}

std::ptrdiff_t planes_together(const ProductsArguments& arguments, const LinesPlan& plan) {
    if (plan.outer.count == 0) return 1;
    const Axis& inner = plan.outer.axis[plan.outer.count - 1];
    const bool adjoin =
        inner.stride[operand_x] == 1 && arguments.x.strides[arguments.x.axes - 1] != 1;
    return adjoin ? std::min(inner.length, most_together) : 1;
}

Products::Products(const ProductsArguments& arguments)
    : arguments_(arguments),
      table_(kernels()),
      pack_(table_.pack[static_cast<int>(arguments.storage)]),
      slopes_(arguments.slopes),
      storage_(storage_bytes(arguments.storage)),
      compute_(compute_bytes(arguments.storage)),
      taps_(checked_multiply(arguments.taps[0], arguments.taps[1])),
      planes_(plan_planes(arguments, taps_)),
      together_(planes_together(arguments, planes_)),
      tiles_(arguments.x, arguments.storage, Boundary::zero, windows_of(arguments), together_,
             false),
      places_(tiles_.places(arguments.taps[0])) {
    if (together_ > 1) inner_ = planes_.outer.axis[planes_.outer.count - 1].length;
}

Products::Memory Products::carve(Carver& carver) const {
    const Part& part = tiles_.largest();
    const auto take = [&](std::ptrdiff_t elements) {
        return carver.take<char>(checked_multiply(elements, compute_));
    };
    Memory memory{};
    memory.x = take(tiles_.elements());
    memory.slopes = take(checked_multiply(checked_multiply(part.rows, part.columns), together_));
    return memory;
}

Products::Item Products::item_of(std::ptrdiff_t number) const {
    const std::ptrdiff_t chunk = number % arguments_.chunks;
    number /= arguments_.chunks;
    const std::ptrdiff_t groups = (inner_ + together_ - 1) / together_;
    const std::ptrdiff_t first = number % groups * together_;
    const std::ptrdiff_t parts = arguments_.slopes.shape[0] * tiles_.parts();
    const std::ptrdiff_t each = parts / arguments_.chunks, more = parts % arguments_.chunks;
    const std::ptrdiff_t begin = chunk * each + std::min(chunk, more);
    return {number / groups * inner_ + first, std::min(together_, inner_ - first), chunk, begin,
            begin + each + (chunk < more ? 1 : 0)};
}

// Slopes whose rows are contiguous are read where they lie.
const char* Products::slopes_of(const Part& part, const char* slopes, std::ptrdiff_t planes,
                                char* tile, std::ptrdiff_t& row_step,
                                std::ptrdiff_t& plane_step) const {
    const std::ptrdiff_t next =
        together_ > 1 ? planes_.outer.axis[planes_.outer.count - 1].stride[operand_slopes] : 0;
    slopes += (part.row * slopes_.row_stride + part.column * slopes_.column_stride) * storage_;
    if (storage_ == compute_ && (slopes_.column_stride == 1 || part.columns == 1)) {
        row_step = slopes_.row_stride;
        plane_step = next;
        return slopes;
    }
    row_step = part.columns;
    plane_step = part.rows * part.columns;
    if (next == 1) {
        for (std::ptrdiff_t row = 0; row < part.rows; ++row)
            pack_.pack({slopes + row * slopes_.row_stride * storage_,
                        tile + row * row_step * compute_, planes, part.columns, 1,
                        slopes_.column_stride, plane_step, false});
        return tile;
    }
    for (std::ptrdiff_t plane = 0; plane < planes; ++plane)
        pack_.pack({slopes + plane * next * storage_, tile + plane * plane_step * compute_,
                    part.rows, part.columns, slopes_.row_stride, slopes_.column_stride, row_step,
                    false});
    return tile;
}

void Products::add(const Part& part, const std::ptrdiff_t (&offset)[max_operands], const Item& item,
                   const Memory& memory) const {
    ProductTask task{};
    std::ptrdiff_t plane_step;
    const char* const slopes =
        slopes_of(part, arguments_.slopes.data + offset[operand_slopes] * storage_, item.planes,
                  memory.slopes, task.slope_step, plane_step);
    tiles_.fetch(part, arguments_.x.data + offset[operand_x] * storage_, item.planes, memory.x);
    task.rows = part.rows;
    task.columns = part.columns;
    task.x_step = tiles_.pitch();
    task.taps = taps_;
    task.places = places_.data();
    const std::ptrdiff_t next =
        together_ > 1 ? planes_.outer.axis[planes_.outer.count - 1].stride[operand_sums] : 0;
    for (std::ptrdiff_t plane = 0; plane < item.planes; ++plane) {
        task.x = memory.x + plane * tiles_.plane() * compute_;
        task.slopes = slopes + plane * plane_step * compute_;
        task.sums = arguments_.sums + offset[operand_sums] + plane * next;
        table_.planes[arguments_.storage == Storage::float64 ? 1 : 0].products(task);
    }
}

void Products::run_item(const Item& item, const Memory& memory) const {
    std::ptrdiff_t offset[max_operands];
    planes_.offsets_of(item.plane, offset);
    offset[operand_sums] += item.chunk * planes_.lines * (taps_ + 1);
    const std::ptrdiff_t next =
        together_ > 1 ? planes_.outer.axis[planes_.outer.count - 1].stride[operand_sums] : 0;
    for (std::ptrdiff_t plane = 0; plane < item.planes; ++plane)
        std::fill_n(arguments_.sums + offset[operand_sums] + plane * next, taps_ + 1, 0.0);
    const std::ptrdiff_t x = offset[operand_x], slopes = offset[operand_slopes];
    for (std::ptrdiff_t part = item.begin; part < item.end; ++part) {
        const std::ptrdiff_t image = part / tiles_.parts();
        offset[operand_x] = x + image * arguments_.x.strides[0];
        offset[operand_slopes] = slopes + image * arguments_.slopes.strides[0];
        add(tiles_.part_of(part % tiles_.parts()), offset, item, memory);
    }
}

unsigned Products::run() {
    const std::ptrdiff_t groups = (inner_ + together_ - 1) / together_;
    const std::ptrdiff_t items =
        checked_multiply(checked_multiply(planes_.lines / inner_, groups), arguments_.chunks);
    double products = static_cast<double>(taps_ + 4);
    for (int axis = 0; axis < arguments_.slopes.axes; ++axis)
        products *= static_cast<double>(arguments_.slopes.shape[axis]);
    const double vectors = static_cast<double>(table_.vector_bytes / compute_);
    const int workers = workers_for(products * 0.3 / vectors, items);
    Carver size(nullptr);
    carve(size);
    const Scratch scratch(size.used(), workers);
    const unsigned raised =
        parallel_for(workers, items, [&](Worker& worker, std::ptrdiff_t begin, std::ptrdiff_t end) {
            Carver carver(scratch.of_worker(worker.index()));
            const Memory own = carve(carver);
            tiles_.clear(own.x);
            for (std::ptrdiff_t item = begin; item < end && worker.proceed(); ++item)
                run_item(item_of(item), own);
        });
    return (FloatEnvironment::has_overflow(raised) ? status_over : 0u) |
           (FloatEnvironment::has_invalid(raised) ? status_invalid : 0u);
}

}  // namespace

unsigned convolution_products(const ProductsArguments& arguments) {
    return Products(arguments).run();
}

}  // namespace unitstride
