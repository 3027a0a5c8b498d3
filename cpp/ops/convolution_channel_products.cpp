// Gradients of taps on a matrix unit: see Note [Records], kernels/images.hpp.
//
// The images are cut into shares, whose sums are added in their order: what a sum consists of
// depends on the problem alone. A worker makes records of some rows of an image and panels of the
// slopes there, and adds their products to the sums of its share.
#include <algorithm>
#include <vector>

#include "core/carver.hpp"
#include "core/float_environment.hpp"
#include "core/float_status.hpp"
#include "core/parallel.hpp"
#include "core/scratch.hpp"
#include "isa/dispatch.hpp"
#include "ops/channel_records.hpp"
#include "ops/channel_windows.hpp"
#include "ops/convolution_neighbours.hpp"
#include "ops/lines.hpp"
#include "ops/packed_powers.hpp"

namespace unitstride {
namespace {

using Size = std::ptrdiff_t;

constexpr double least_used = 0.1;                // of what the unit multiplies
constexpr double products_per_nanosecond = 1000;  // of bfloat16
constexpr Size most_shares = 16, most_sum_bytes = 16 << 20;
constexpr Size side = 16;  // elements of a record; lines and columns of a square

Size blocks_of(Size total, Size block) { return (total + block - 1) / block; }

class ChannelProducts {
  public:
    ChannelProducts(const ChannelProductsArguments& arguments, const ImageKernels& kernels);

    bool pays() const { return used_ >= least_used * products_; }
    int run();

  private:
    struct Memory {
        float* planes;  // the channels of a record
        char* records;
        float* lines;  // of slopes
        char* slopes;  // a panel of them
    };
    struct Sums {  // of a panel of kernels and a panel of elements, at a tap
        Size group, panel, block, tap;
    };

    const PlaneTiles& tiles() const { return records_.tiles(); }
    const ChannelTaps& taps() const { return records_.taps(); }
    Size items() const { return checked_multiply(arguments_.x.shape[0], tiles().parts()); }
    Size panels() const { return blocks_of(group_kernels_, kernels_.lines); }
    Size blocks() const { return blocks_of(taps().chunks, 2); }
    Size tile_sums() const { return kernels_.lines * kernels_.lines; }
    Size tiles_of_share() const {
        const Size pairs = checked_multiply(arguments_.groups, panels() * blocks());
        return checked_multiply(pairs, taps().count());
    }
    Size shares() const;
    Size positions() const {
        return round_up(records_.positions(tiles().largest()), kernels_.depth);
    }
    Size line_stride() const { return positions() + 16; }  // no power of two
    Memory carve(Carver& carver) const;

    void fetch_lines(Size image, Size kernel, Size count, const Part& part, float* lines) const;
    void add_item(Size item, const Memory& memory, float* sums, PackedPowers& powers) const;
    void write(const Sums& place, const float* first, Size share_floats, Size share_count) const;
    void write_square(const Sums& place, Size square, float* sums) const;

    const ChannelProductsArguments& arguments_;
    const ImageKernels& kernels_;
    const PackKernels& pack_;
    const Size storage_, group_kernels_;
    const ChannelRecords records_;
    const std::vector<Size> tap_bytes_;
    double used_, products_;
};

ChannelProducts::ChannelProducts(const ChannelProductsArguments& arguments,
                                 const ImageKernels& kernels_of_unit)
    : arguments_(arguments),
      kernels_(kernels_of_unit),
      pack_(kernels().pack[static_cast<int>(arguments.storage)]),
      storage_(storage_bytes(arguments.storage)),
      group_kernels_(arguments.out.shape[0] / arguments.groups),
      records_(
          arguments.x, arguments.storage,
          ChannelTaps(arguments.out.shape[1], arguments.out.shape[2], arguments.out.shape[3], side),
          arguments.groups, channel_windows(arguments, arguments.out.shape, arguments.slopes.shape),
          kernels_, side, kernels_.pairs,
          kernels_.parts * kernels_.record_bytes + 4 * kernels_.lines),
      tap_bytes_(records_.tap_bytes()) {
    const double images =
        static_cast<double>(arguments.x.shape[0]) * static_cast<double>(arguments.groups);
    used_ = images * static_cast<double>(group_kernels_ * taps().channels) *
            static_cast<double>(taps().rows * taps().columns) *
            static_cast<double>(arguments.slopes.shape[2] * arguments.slopes.shape[3]);
    products_ = images * static_cast<double>(round_up(group_kernels_, side)) *
                static_cast<double>(taps().chunks * side * taps().count()) *
                static_cast<double>(positions() * tiles().parts());
}

Size ChannelProducts::shares() const {
    const Size bytes = checked_multiply(tiles_of_share(), 4 * tile_sums());
    return std::min(std::clamp<Size>(most_sum_bytes / bytes, 2, most_shares), items());
}

ChannelProducts::Memory ChannelProducts::carve(Carver& carver) const {
    Memory memory{};
    memory.planes = carver.take<float>(records_.plane_floats());
    memory.records = carver.take<char>(records_.record_bytes());
    memory.lines = carver.take<float>(checked_multiply(line_stride(), kernels_.lines));
    memory.slopes =
        carver.take<char>(checked_multiply(positions() / kernels_.depth, kernels_.step_bytes));
    return memory;
}

// Between the rows of a part lie places that are no results: zeros.
void ChannelProducts::fetch_lines(Size image, Size kernel, Size count, const Part& part,
                                  float* lines) const {
    const InputView& slopes = arguments_.slopes;
    const Size pitch = tiles().pitch();
    const char* const from =
        slopes.data + (image * slopes.strides[0] + kernel * slopes.strides[1] +
                       part.row * slopes.strides[2] + part.column * slopes.strides[3]) *
                          storage_;
    for (Size line = 0; line < count; ++line)
        for (Size row = 0; row < part.rows; ++row)
            std::fill_n(lines + line * line_stride() + row * pitch + part.columns,
                        row + 1 < part.rows ? pitch - part.columns : 0, 0.0f);
    if (slopes.strides[1] == 1 && slopes.strides[3] != 1) {
        for (Size row = 0; row < part.rows; ++row)
            pack_.pack({from + row * slopes.strides[2] * storage_, lines + row * pitch, count,
                        part.columns, 1, slopes.strides[3], line_stride(), false});
        return;
    }
    for (Size line = 0; line < count; ++line)
        pack_.pack({from + line * slopes.strides[1] * storage_, lines + line * line_stride(),
                    part.rows, part.columns, slopes.strides[2], slopes.strides[3], pitch, false});
}

void ChannelProducts::add_item(Size item, const Memory& memory, float* sums,
                               PackedPowers& powers) const {
    const Size image = item / tiles().parts();
    const Part part = tiles().part_of(item % tiles().parts());
    const Size of_panel = blocks() * taps().count() * tile_sums();
    for (Size group = 0; group < arguments_.groups; ++group) {
        PowerRange range, slope_range;
        records_.fill(image, group, part, memory.planes, memory.records, range);
        powers.widen(0, range);
        for (Size panel = 0; panel < panels(); ++panel, sums += of_panel) {
            const Size first = panel * kernels_.lines;
            const Size count = std::min(kernels_.lines, group_kernels_ - first);
            fetch_lines(image, group * group_kernels_ + first, count, part, memory.lines);
            kernels_.lines_of({memory.lines, line_stride(), count, records_.positions(part),
                               memory.slopes, &slope_range});
            powers.widen(1, slope_range);
            if (!powers.fit()) return;
            for (Size block = 0; block < blocks(); ++block) {
                const Size chunk = 2 * block;
                const Size left = taps().elements - chunk * side;
                kernels_.add_products({memory.slopes,
                                       memory.records + chunk * records_.chunk_bytes(),
                                       tap_bytes_.data(), taps().count(), records_.positions(part),
                                       count, left, records_.part_bytes(), records_.chunk_bytes(),
                                       sums + block * taps().count() * tile_sums()});
            }
        }
    }
}

// One square of sums, a kernel in each row. The elements of one channel are taps of a row.
void ChannelProducts::write_square(const Sums& place, Size square, float* sums) const {
    const OutputView& out = arguments_.out;
    const Size kernel = place.panel * kernels_.lines + square / 2 * side;
    const Size first = (2 * place.block + square % 2) * side;
    const Size rows = std::min(side, group_kernels_ - kernel);
    const Size end = std::min(first + side, taps().elements);
    if (rows <= 0) return;
    const Size p = place.tap / taps().columns_apart, q = place.tap % taps().columns_apart;
    const Size origin = (place.group * group_kernels_ + kernel) * out.strides[0] +
                        p * out.strides[2] + q * out.strides[3];
    for (Size element = first; element < end;) {
        const Size channel = taps().channel(element), column = taps().column(element);
        const Size last = taps().folded ? std::min(end, element - column + taps().columns) : end;
        const Size offset = origin + channel * out.strides[1] + column * out.strides[3];
        pack_.unpack({out.data + offset * storage_, sums + element - first, rows, last - element,
                      out.strides[0], taps().folded ? out.strides[3] : out.strides[1], side,
                      false});
        element = last;
    }
}

void ChannelProducts::write(const Sums& place, const float* first, Size share_floats,
                            Size share_count) const {
    float total[side * side];
    for (Size square = 0; square < 4; ++square) {
        const float* own = first + square * side * side;
        std::copy_n(own, side * side, total);
        for (Size share = 1; share < share_count; ++share) {
            own += share_floats;
            for (Size i = 0; i < side * side; ++i) total[i] += own[i];
        }
        write_square(place, square, total);
    }
}

int ChannelProducts::run() {
    const Size share_count = shares(), count = items();
    const Size share_floats = checked_multiply(tiles_of_share(), tile_sums());
    const double nanoseconds =
        products_ * static_cast<double>(kernels_.products) / products_per_nanosecond;
    const int workers = workers_for(nanoseconds, share_count);
    Carver size(nullptr);
    carve(size);
    const Size floats = checked_multiply(share_floats, share_count);
    const Scratch scratch(size.used(), workers), shared(checked_multiply(floats, 4), 1);
    float* const sums = reinterpret_cast<float*>(shared.of_worker(0));
    PackedPowers powers;
    parallel_for(workers, share_count, [&](Worker& worker, Size begin, Size end) {
        Carver carver(scratch.of_worker(worker.index()));
        const Memory own = carve(carver);
        // What lies beyond the ends of x, what a step finds beyond the last record, and the lines
        // that a panel of slopes lacks.
        std::fill(scratch.of_worker(worker.index()),
                  scratch.of_worker(worker.index()) + carver.used(), '\0');
        for (Size share = begin; share < end; ++share) {
            float* const to = sums + share * share_floats;
            std::fill_n(to, share_floats, 0.0f);
            const Size last = (share + 1) * count / share_count;
            for (Size item = share * count / share_count; item < last; ++item) {
                if (!worker.proceed()) return;
                add_item(item, own, to, powers);
                if (!powers.fit()) return;
            }
        }
    });
    if (!powers.fit()) return not_taken;
    const unsigned raised =
        parallel_for(workers, tiles_of_share(), [&](Worker& worker, Size begin, Size end) {
            for (Size tile = begin; tile < end && worker.proceed(); ++tile) {
                const Size pair = tile / taps().count(), panel = pair / blocks();
                write({panel / panels(), panel % panels(), pair % blocks(), tile % taps().count()},
                      sums + tile * tile_sums(), share_floats, share_count);
            }
        });
    return FloatEnvironment::has_overflow(raised) ? int{status_over} : 0;
}

}  // namespace

int convolution_channel_products(const ChannelProductsArguments& arguments) {
    if (const MatrixUnit* const unit = image_unit_for(arguments.storage)) {
        ChannelProducts products(arguments, *unit->images);
        const int status = products.pays() ? products.run() : not_taken;
        if (status != not_taken) return status;
    }
    return convolution_neighbour_products(arguments);
}

}  // namespace unitstride
