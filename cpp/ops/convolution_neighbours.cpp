// A worker brings some channels of a part of an image to scratch, adds their products with all
// kernels to sums in the cache, and goes on with the next channels; then the sums are written.
#include "ops/convolution_neighbours.hpp"

#include <algorithm>
#include <vector>

#include "core/carver.hpp"
#include "core/float_environment.hpp"
#include "core/float_status.hpp"
#include "core/parallel.hpp"
#include "core/scratch.hpp"
#include "isa/dispatch.hpp"
#include "ops/channel_windows.hpp"
#include "ops/lines.hpp"

namespace unitstride {
namespace {

using Size = std::ptrdiff_t;

constexpr Size cached_bytes = 512 << 10;  // of a part: sums, and the channels that are brought
constexpr double least_used = 0.5;        // of the lanes
constexpr Size least_neighbours = 4;
constexpr double multiply_adds_per_nanosecond = 50;

Size blocks_of(Size total, Size block) { return (total + block - 1) / block; }

class Neighbours {
  public:
    explicit Neighbours(const ChannelsArguments& arguments);

    bool pays() const;
    int run();

  private:
    struct Memory {
        char *planes, *sums;
    };
    struct Item {
        Size image, group, panel, panels;
        Part part;
    };

    Size channels_of(Size block) const {
        return std::min(channels_, arguments_.w.shape[1] - block * channels_);
    }
    Size panels() const { return blocks_of(group_kernels_, kernels_.columns); }
    Size sums_of_panel() const {
        const Part& part = tiles_.largest();
        return checked_multiply(checked_multiply(part.rows, part.columns), kernels_.columns);
    }
    // Panels of the taps of a block of channels: as many as there are kernels, then the next group.
    Size panel_bytes() const {
        return checked_multiply(checked_multiply(channels_, taps_), kernels_.columns * compute_);
    }
    Size panel_place(Size group, Size block, Size panel) const {
        return ((group * blocks_ + block) * panels() + panel) * panel_bytes();
    }
    Memory carve(Carver& carver) const;
    Item item_of(Size number) const;
    void list_taps();

    void pack_taps(Size task, char* taps) const;
    void fetch(const Item& item, Size block, char* planes) const;
    void multiply(const Item& item, Size block, const Memory& memory, const char* taps) const;
    void write(const Item& item, const char* sums) const;

    const ChannelsArguments& arguments_;
    const NeighbourKernels& kernels_;
    const PackKernels& pack_;
    const Size storage_, compute_, group_kernels_, taps_;
    const Size blocks_, channels_;  // of channels that are brought together
    const bool adjoining_, streams_;
    const PlaneTiles tiles_;
    const Size chunks_;  // of panels
    std::vector<Size> steps_;
    std::vector<Run> runs_;      // taps of a block of channels
    std::vector<float> floats_;  // bias, filled up to panels
    std::vector<double> doubles_;
};

double bytes_of(const ChannelsArguments& arguments) {
    double bytes = static_cast<double>(storage_bytes(arguments.storage));
    for (int axis = 0; axis < 4; ++axis) bytes *= static_cast<double>(arguments.out.shape[axis]);
    return bytes;
}

const NeighbourKernels& kernels_for(Storage storage) {
    return kernels().neighbours[storage == Storage::float64 ? 1 : 0];
}

Size even_blocks(const ChannelsArguments& arguments) {
    const Size taps = checked_multiply(arguments.w.shape[2], arguments.w.shape[3]);
    const Size depth = checked_multiply(taps, arguments.w.shape[1]);
    return std::min(blocks_of(depth, kernels_for(arguments.storage).depth), arguments.w.shape[1]);
}

Neighbours::Neighbours(const ChannelsArguments& arguments)
    : arguments_(arguments),
      kernels_(kernels_for(arguments.storage)),
      pack_(kernels().pack[static_cast<int>(arguments.storage)]),
      storage_(storage_bytes(arguments.storage)),
      compute_(compute_bytes(arguments.storage)),
      group_kernels_(arguments.w.shape[0] / arguments.groups),
      taps_(checked_multiply(arguments.w.shape[2], arguments.w.shape[3])),
      blocks_(
          blocks_of(arguments.w.shape[1], blocks_of(arguments.w.shape[1], even_blocks(arguments)))),
      channels_(blocks_of(arguments.w.shape[1], even_blocks(arguments))),
      adjoining_(arguments.x.strides[1] == 1 && arguments.x.strides[3] != 1 && channels_ > 1),
      streams_(bytes_of(arguments) >= static_cast<double>(kernels().streaming_bytes)),
      tiles_(arguments.x, arguments.storage, Boundary::zero,
             channel_windows(arguments, arguments.w.shape, arguments.out.shape),
             adjoining_ ? channels_ : 1, false,
             cached_places(checked_multiply(arguments.x.shape[0], arguments.groups),
                           channel_windows(arguments, arguments.w.shape, arguments.out.shape),
                           compute_ * (round_up(group_kernels_, kernels_.columns) + channels_),
                           cached_bytes)),
      chunks_(even_chunks(
          panels(), checked_multiply(arguments.x.shape[0] * arguments.groups, tiles_.parts()))) {
    for (Size channel = 0; channel < channels_; ++channel)
        for (const Size place : tiles_.places(arguments.w.shape[2]))
            steps_.push_back(channel * tiles_.plane() + place);
    list_taps();
    if (!arguments.bias) return;
    const Size columns = panels() * kernels_.columns;
    std::vector<double> bias(static_cast<std::size_t>(arguments.groups * columns));
    for (Size o = 0; o < arguments.w.shape[0]; ++o)
        bias[static_cast<std::size_t>(o / group_kernels_ * columns + o % group_kernels_)] =
            load_value(arguments.bias.data + o * arguments.bias.strides[0] * storage_,
                       arguments.storage);
    if (arguments.storage == Storage::float64) {
        doubles_ = bias;
    } else {
        floats_.assign(bias.begin(), bias.end());
    }
}

// The taps of a channel after those of the one before, in as few runs as their strides allow.
void Neighbours::list_taps() {
    const InputView& w = arguments_.w;
    const Size rows = w.shape[2], columns = w.shape[3];
    const bool rows_adjoin = rows == 1 || w.strides[2] == columns * w.strides[3];
    const bool adjoin = rows_adjoin && w.strides[1] == taps_ * w.strides[3];
    for (Size c = 0; c < (adjoin ? 1 : channels_); ++c)
        for (Size p = 0; p < (rows_adjoin ? 1 : rows); ++p)
            runs_.push_back({c * w.strides[1] + p * w.strides[2], w.strides[3],
                             adjoin        ? channels_ * taps_
                             : rows_adjoin ? taps_
                                           : columns});
}

bool Neighbours::pays() const {
    const Size length = tiles_.largest().columns, lanes = kernels_.columns / 2;
    return static_cast<double>(group_kernels_) >=
               least_used * static_cast<double>(round_up(group_kernels_, lanes)) &&
           length >= least_neighbours * blocks_of(length, kernels_.rows);
}

Neighbours::Memory Neighbours::carve(Carver& carver) const {
    Memory memory{};
    memory.planes =
        carver.take<char>(checked_multiply(checked_multiply(tiles_.plane(), channels_), compute_));
    memory.sums = carver.take<char>(checked_multiply(
        checked_multiply(sums_of_panel(), blocks_of(panels(), chunks_)), compute_));
    return memory;
}

Neighbours::Item Neighbours::item_of(Size number) const {
    const Size each = blocks_of(panels(), chunks_), chunk = number % chunks_;
    number /= chunks_;
    const Part part = tiles_.part_of(number % tiles_.parts());
    number /= tiles_.parts();
    const Size first = chunk * each;
    return {number / arguments_.groups, number % arguments_.groups, first,
            std::min(each, panels() - first), part};
}

void Neighbours::pack_taps(Size task, char* taps) const {
    const Size panel = task % panels(), block = task / panels() % blocks_;
    const Size group = task / panels() / blocks_, first = panel * kernels_.columns;
    const InputView& w = arguments_.w;
    const Size origin =
        (group * group_kernels_ + first) * w.strides[0] + block * channels_ * w.strides[1];
    const Run across = {0, w.strides[0], std::min(kernels_.columns, group_kernels_ - first)};
    PanelTask panels_task = {};
    panels_task.array = w.data + origin * storage_;
    panels_task.panel = taps + panel_place(group, block, panel);
    panels_task.panel_bytes = panel_bytes();
    panels_task.across = &across;
    panels_task.across_runs = 1;
    const Size fewer = channels_of(block);
    panels_task.along = runs_.data();
    panels_task.along_runs = static_cast<Size>(runs_.size());
    Run only = runs_.front();
    if (runs_.size() == 1) {
        only.count = fewer * taps_;
        panels_task.along = &only;
    } else {
        panels_task.along_runs = panels_task.along_runs / channels_ * fewer;
    }
    kernels().gemm_packers[static_cast<int>(arguments_.storage)].columns(panels_task);
}

void Neighbours::fetch(const Item& item, Size block, char* planes) const {
    const InputView& x = arguments_.x;
    const Size channel = item.group * arguments_.w.shape[1] + block * channels_;
    const char* from = x.data + (item.image * x.strides[0] + channel * x.strides[1]) * storage_;
    if (adjoining_) {
        tiles_.fetch(item.part, from, channels_of(block), planes);
        return;
    }
    for (Size c = 0; c < channels_of(block); ++c, from += x.strides[1] * storage_)
        tiles_.fetch(item.part, from, 1, planes + c * tiles_.plane() * compute_);
}

void Neighbours::multiply(const Item& item, Size block, const Memory& memory,
                          const char* taps) const {
    const Size depth = channels_of(block) * taps_, cuts = blocks_of(depth, kernels_.depth);
    const Size each = blocks_of(depth, cuts);
    NeighboursTask task = {};
    task.lines = memory.planes;
    task.rows = item.part.rows;
    task.length = item.part.columns;
    task.pitch = tiles_.pitch();
    for (Size p = 0; p < item.panels; ++p) {
        const Size panel = item.panel + p, first = panel * kernels_.columns;
        task.columns = std::min(kernels_.columns, group_kernels_ - first);
        task.sums = memory.sums + p * sums_of_panel() * compute_;
        const auto place = item.group * panels() * kernels_.columns + first;
        if (!floats_.empty()) task.first = floats_.data() + place;
        if (!doubles_.empty()) task.first = doubles_.data() + place;
        const char* panel_taps = taps + panel_place(item.group, block, panel);
        for (Size begin = 0; begin < depth; begin += each) {
            task.step = steps_.data() + begin;
            task.depth = std::min(each, depth - begin);
            task.panel = panel_taps + begin * kernels_.columns * compute_;
            task.begun = block > 0 || begin > 0;
            kernels_.multiply(task);
        }
    }
}

// Sums are [places][kernels]. Rows of results that adjoin are written as one.
void Neighbours::write(const Item& item, const char* sums) const {
    const OutputView& out = arguments_.out;
    const Part& part = item.part;
    const bool adjoin = out.strides[2] == part.columns * out.strides[3];
    const Size rows = adjoin ? 1 : part.rows,
               length = adjoin ? part.rows * part.columns : part.columns;
    for (Size p = 0; p < item.panels; ++p) {
        const Size first = (item.panel + p) * kernels_.columns;
        const Size count = std::min(kernels_.columns, group_kernels_ - first);
        const Size kernel = item.group * group_kernels_ + first;
        char* const to = out.data + (item.image * out.strides[0] + kernel * out.strides[1] +
                                     part.row * out.strides[2] + part.column * out.strides[3]) *
                                        storage_;
        const char* const from = sums + p * sums_of_panel() * compute_;
        for (Size row = 0; row < rows; ++row)
            pack_.unpack({to + row * out.strides[2] * storage_,
                          const_cast<char*>(from) + row * length * kernels_.columns * compute_,
                          length, count, out.strides[3], out.strides[1], kernels_.columns,
                          streams_});
    }
}

int Neighbours::run() {
    const Size images = checked_multiply(arguments_.x.shape[0], arguments_.groups);
    const Size items = checked_multiply(checked_multiply(images, tiles_.parts()), chunks_);
    const Size panel_count =
        checked_multiply(checked_multiply(arguments_.groups, blocks_), panels());
    const double multiply_adds = bytes_of(arguments_) / static_cast<double>(storage_) *
                                 static_cast<double>(arguments_.w.shape[1] * taps_);
    const int workers = workers_for(multiply_adds / multiply_adds_per_nanosecond, items);
    Carver size(nullptr);
    carve(size);
    const Size own_bytes = round_up(size.used(), scratch_alignment);
    const Size packed_bytes = checked_multiply(panel_count, panel_bytes());
    const Scratch scratch(checked_add(checked_multiply(own_bytes, workers), packed_bytes), 1);
    char* const taps = scratch.of_worker(0) + own_bytes * workers;
    parallel_for(workers_for(static_cast<double>(packed_bytes), panel_count), panel_count,
                 [&](Worker& worker, Size begin, Size end) {
                     for (; begin < end && worker.proceed(); ++begin) pack_taps(begin, taps);
                 });
    const unsigned raised = parallel_for(workers, items, [&](Worker& worker, Size begin, Size end) {
        Carver carver(scratch.of_worker(0) + worker.index() * own_bytes);
        const Memory own = carve(carver);
        std::fill(own.planes, own.sums, '\0');  // what lies beyond the ends of x
        for (; begin < end && worker.proceed(); ++begin) {
            const Item item = item_of(begin);
            for (Size block = 0; block < blocks_; ++block) {
                fetch(item, block, own.planes);
                multiply(item, block, own, taps);
            }
            write(item, own.sums);
        }
    });
    return FloatEnvironment::has_overflow(raised) ? int{status_over} : 0;
}

}  // namespace

int convolve_neighbours(const ChannelsArguments& arguments) {
    Neighbours convolution(arguments);
    return convolution.pays() ? convolution.run() : not_taken;
}

}  // namespace unitstride
