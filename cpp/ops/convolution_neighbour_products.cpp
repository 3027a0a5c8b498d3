// Gradients of taps on vectors: see Note [Windows in place], kernels/channels.hpp.
//
// A worker turns some rows of an image so that channels are neighbours, packs the slopes there, and
// adds their products at each tap's distance to the sums of its share of the images. The sums of
// shares are added in their order: what a sum consists of depends on the problem alone.
#include <algorithm>
#include <vector>

#include "core/carver.hpp"
#include "core/float_environment.hpp"
#include "core/float_status.hpp"
#include "core/parallel.hpp"
#include "core/scratch.hpp"
#include "isa/dispatch.hpp"
#include "ops/channel_windows.hpp"
#include "ops/convolution_neighbours.hpp"
#include "ops/lines.hpp"

namespace unitstride {
namespace {

using Size = std::ptrdiff_t;

constexpr Size cached_bytes = 512 << 10;   // of a part: channels and slopes
constexpr Size most_sum_bytes = 12 << 20;  // of all shares
constexpr Size brought = 16;               // channels that are turned at a time
constexpr double least_used = 0.5;         // of the lanes
constexpr Size least_channels = 3;
constexpr double multiply_adds_per_nanosecond = 50;

Size blocks_of(Size total, Size block) { return (total + block - 1) / block; }

class NeighbourProducts {
  public:
    explicit NeighbourProducts(const ChannelProductsArguments& arguments);

    bool pays() const;
    int run();

  private:
    struct Memory {
        char *planes, *lines, *slopes;
        Size* steps;
        Run* runs;
    };
    struct Item {
        Size share, group, panel, panels;
    };

    Size panels() const { return blocks_of(group_kernels_, kernels_.columns); }
    Size parts() const { return checked_multiply(arguments_.x.shape[0], tiles_.parts()); }
    Size places() const {
        return checked_multiply(tiles_.largest().rows, tiles_.largest().columns);
    }
    Size slope_panel() const { return checked_multiply(places(), kernels_.columns); }
    Size tap_sums() const { return checked_multiply(channels_, kernels_.columns); }
    Size panel_sums() const { return checked_multiply(tap_sums(), taps_); }
    Size share_sums() const {
        return checked_multiply(checked_multiply(arguments_.groups, panels()), panel_sums());
    }
    Memory carve(Carver& carver) const;
    Item item_of(Size number) const;

    void turn(Size image, Size group, const Part& part, const Memory& memory) const;
    void pack_slopes(Size image, const Item& item, const Part& part, const Memory& memory) const;
    void add_part(const Item& item, Size number, bool begun, const Memory& memory,
                  char* sums) const;
    template <class T>
    void add_shares(T* sums, Size count) const;
    void write(Size task, char* sums) const;

    const ChannelProductsArguments& arguments_;
    const NeighbourKernels& kernels_;
    const Size storage_, compute_, group_kernels_, channels_, taps_;
    const Size pitch_;  // from the channels of a place to those of the next
    const bool adjoining_;
    const PlaneTiles tiles_;
    const Size shares_, chunks_;  // of images, of panels
    const std::vector<Size> tap_places_;
};

const NeighbourKernels& kernels_for(Storage storage) {
    return kernels().neighbours[storage == Storage::float64 ? 1 : 0];
}

// Not a power of two, where places would share few sets of the cache.
Size pitch_of(Size channels) {
    const Size whole = round_up(channels, 16);
    return whole % 32 == 0 ? whole + 16 : whole;
}

NeighbourProducts::NeighbourProducts(const ChannelProductsArguments& arguments)
    : arguments_(arguments),
      kernels_(kernels_for(arguments.storage)),
      storage_(storage_bytes(arguments.storage)),
      compute_(compute_bytes(arguments.storage)),
      group_kernels_(arguments.out.shape[0] / arguments.groups),
      channels_(arguments.out.shape[1]),
      taps_(checked_multiply(arguments.out.shape[2], arguments.out.shape[3])),
      pitch_(pitch_of(channels_)),
      adjoining_(arguments.x.strides[1] == 1 && arguments.x.strides[3] != 1 && channels_ > 1),
      tiles_(arguments.x, arguments.storage, Boundary::zero,
             channel_windows(arguments, arguments.out.shape, arguments.slopes.shape),
             adjoining_ ? std::min(brought, channels_) : 1, false,
             cached_places(checked_multiply(arguments.x.shape[0], arguments.groups),
                           channel_windows(arguments, arguments.out.shape, arguments.slopes.shape),
                           compute_ * (pitch_ + round_up(group_kernels_, kernels_.columns)),
                           cached_bytes)),
      shares_(std::min(
          std::clamp<Size>(most_sum_bytes / checked_multiply(share_sums(), compute_), 1, few_items),
          parts())),
      chunks_(even_chunks(panels(), checked_multiply(shares_, arguments.groups))),
      tap_places_(tiles_.places(arguments.out.shape[2])) {}

bool NeighbourProducts::pays() const {
    const Size lanes = kernels_.columns / 2;
    return channels_ >= least_channels &&
           static_cast<double>(group_kernels_) >=
               least_used * static_cast<double>(round_up(group_kernels_, lanes));
}

NeighbourProducts::Memory NeighbourProducts::carve(Carver& carver) const {
    Memory memory{};
    const auto take = [&](Size elements) {
        return carver.take<char>(checked_multiply(elements, compute_));
    };
    memory.planes = take(checked_multiply(tiles_.plane(), std::min(brought, channels_)));
    memory.lines = take(checked_multiply(tiles_.plane(), pitch_));
    memory.slopes = take(checked_multiply(slope_panel(), blocks_of(panels(), chunks_)));
    memory.steps = carver.take<Size>(places());
    memory.runs = carver.take<Run>(tiles_.largest().rows);
    return memory;
}

NeighbourProducts::Item NeighbourProducts::item_of(Size number) const {
    const Size each = blocks_of(panels(), chunks_), first = number % chunks_ * each;
    number /= chunks_;
    return {number / arguments_.groups, number % arguments_.groups, first,
            std::min(each, panels() - first)};
}

// The channels of a part, planes to [places][channels].
void NeighbourProducts::turn(Size image, Size group, const Part& part, const Memory& memory) const {
    const InputView& x = arguments_.x;
    const PackKernels& pack = kernels().pack[compute_ == 8 ? 1 : 0];
    const char* from =
        x.data + (image * x.strides[0] + group * channels_ * x.strides[1]) * storage_;
    for (Size first = 0; first < channels_; first += brought) {
        const Size count = std::min(brought, channels_ - first);
        const char* channel = from + first * x.strides[1] * storage_;
        if (adjoining_) tiles_.fetch(part, channel, count, memory.planes);
        for (Size c = 0; c < (adjoining_ ? 0 : count); ++c)
            tiles_.fetch(part, channel + c * x.strides[1] * storage_, 1,
                         memory.planes + c * tiles_.plane() * compute_);
        for (Size phase = 0; phase < tiles_.phases(0) * tiles_.phases(1); ++phase) {
            const Size begin = phase * tiles_.phase();
            pack.pack({memory.planes + begin * compute_,
                       memory.lines + (begin * pitch_ + first) * compute_, tiles_.filled(part),
                       count, 1, tiles_.plane(), pitch_, false});
        }
    }
}

void NeighbourProducts::pack_slopes(Size image, const Item& item, const Part& part,
                                    const Memory& memory) const {
    const InputView& slopes = arguments_.slopes;
    const bool adjoin = slopes.strides[2] == part.columns * slopes.strides[3];
    const Size rows = adjoin ? 1 : part.rows;
    for (Size row = 0; row < rows; ++row)
        memory.runs[row] = {row * slopes.strides[2], slopes.strides[3],
                            adjoin ? part.rows * part.columns : part.columns};
    for (Size p = 0; p < item.panels; ++p) {
        const Size first = (item.panel + p) * kernels_.columns;
        const Size kernel = item.group * group_kernels_ + first;
        const Run across = {0, slopes.strides[1],
                            std::min(kernels_.columns, group_kernels_ - first)};
        PanelTask task = {};
        task.array =
            slopes.data + (image * slopes.strides[0] + kernel * slopes.strides[1] +
                           part.row * slopes.strides[2] + part.column * slopes.strides[3]) *
                              storage_;
        task.panel = memory.slopes + p * slope_panel() * compute_;
        task.panel_bytes = slope_panel() * compute_;
        task.across = &across;
        task.across_runs = 1;
        task.along = memory.runs;
        task.along_runs = rows;
        kernels().gemm_packers[static_cast<int>(arguments_.storage)].columns(task);
    }
}

// Sums are [panels][taps][channels][kernels of a panel].
void NeighbourProducts::add_part(const Item& item, Size number, bool begun, const Memory& memory,
                                 char* sums) const {
    const Size image = number / tiles_.parts();
    const Part part = tiles_.part_of(number % tiles_.parts());
    turn(image, item.group, part, memory);
    pack_slopes(image, item, part, memory);
    Size depth = 0;
    for (Size row = 0; row < part.rows; ++row)
        for (Size column = 0; column < part.columns; ++column)
            memory.steps[depth++] = (row * tiles_.pitch() + column) * pitch_;
    const Size each = blocks_of(depth, blocks_of(depth, kernels_.depth));
    NeighboursTask task = {};
    task.rows = 1;
    task.length = channels_;
    for (Size begin = 0; begin < depth; begin += each)
        for (Size p = 0; p < item.panels; ++p) {
            const Size first = (item.panel + p) * kernels_.columns;
            task.columns = std::min(kernels_.columns, group_kernels_ - first);
            task.panel = memory.slopes + (p * slope_panel() + begin * kernels_.columns) * compute_;
            task.step = memory.steps + begin;
            task.depth = std::min(each, depth - begin);
            task.begun = begun || begin > 0;
            task.sums = sums + (item.group * panels() + item.panel + p) * panel_sums() * compute_;
            for (const Size place : tap_places_) {
                task.lines = memory.lines + place * pitch_ * compute_;
                kernels_.multiply(task);
                task.sums = static_cast<char*>(task.sums) + tap_sums() * compute_;
            }
        }
}

template <class T>
void NeighbourProducts::add_shares(T* sums, Size count) const {
    for (Size share = 1; share < shares_; ++share) {
        const T* const own = sums + share * share_sums();
        for (Size begin = 0; begin < tap_sums(); begin += kernels_.columns)
            for (Size i = begin; i < begin + count; ++i) sums[i] += own[i];
    }
}

void NeighbourProducts::write(Size task, char* sums) const {
    const OutputView& out = arguments_.out;
    const Size from = task * tap_sums(), tap = task % taps_, first = task / taps_ % panels();
    const Size group = task / taps_ / panels(), kernel = first * kernels_.columns;
    const Size count = std::min(kernels_.columns, group_kernels_ - kernel);
    char* const own = sums + from * compute_;
    if (compute_ == 8) {
        add_shares(reinterpret_cast<double*>(own), count);
    } else {
        add_shares(reinterpret_cast<float*>(own), count);
    }
    char* const to =
        out.data + ((group * group_kernels_ + kernel) * out.strides[0] +
                    tap / out.shape[3] * out.strides[2] + tap % out.shape[3] * out.strides[3]) *
                       storage_;
    kernels().pack[static_cast<int>(arguments_.storage)].unpack(
        {to, own, channels_, count, out.strides[1], out.strides[0], kernels_.columns, false});
}

int NeighbourProducts::run() {
    const Size items = checked_multiply(checked_multiply(shares_, arguments_.groups), chunks_);
    double multiply_adds = static_cast<double>(channels_ * taps_);
    for (int axis = 0; axis < 4; ++axis)
        multiply_adds *= static_cast<double>(arguments_.slopes.shape[axis]);
    const double nanoseconds = multiply_adds / multiply_adds_per_nanosecond;
    const int workers = workers_for(nanoseconds, items);
    Carver size(nullptr);
    carve(size);
    const Size own_bytes = round_up(size.used(), scratch_alignment);
    const Size sum_bytes = checked_multiply(checked_multiply(shares_, share_sums()), compute_);
    const Scratch scratch(checked_add(checked_multiply(own_bytes, workers), sum_bytes), 1);
    char* const sums = scratch.of_worker(0) + own_bytes * workers;
    unsigned raised = parallel_for(workers, items, [&](Worker& worker, Size begin, Size end) {
        Carver carver(scratch.of_worker(0) + worker.index() * own_bytes);
        const Memory own = carve(carver);
        std::fill(own.planes, own.lines, '\0');  // what lies beyond the ends of x
        for (; begin < end; ++begin) {
            const Item item = item_of(begin);
            const Size first = parts() * item.share / shares_;
            const Size last = parts() * (item.share + 1) / shares_;
            for (Size part = first; part < last; ++part) {
                if (!worker.proceed()) return;
                add_part(item, part, part > first, own,
                         sums + item.share * share_sums() * compute_);
            }
        }
    });
    const Size tasks = checked_multiply(checked_multiply(arguments_.groups, panels()), taps_);
    raised |= parallel_for(workers_for(static_cast<double>(sum_bytes) / 8, tasks), tasks,
                           [&](Worker& worker, Size begin, Size end) {
                               for (; begin < end && worker.proceed(); ++begin) write(begin, sums);
                           });
    return FloatEnvironment::has_overflow(raised) ? int{status_over} : 0;
}

}  // namespace

int convolution_neighbour_products(const ChannelProductsArguments& arguments) {
    NeighbourProducts products(arguments);
    return products.pays() ? products.run() : not_taken;
}

}  // namespace unitstride
