// Convolution with channels on a matrix unit: see Note [Records], kernels/images.hpp.
//
// A worker makes records of some rows of an image, and multiplies these with the taps of all
// kernels of the group, a panel of kernels at a time.
#include "ops/convolution_channels.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>
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
constexpr Size most_steps = 2;                    // for one of a contraction of windows
constexpr double products_per_nanosecond = 1200;  // of bfloat16

Size blocks_of(Size total, Size block) { return (total + block - 1) / block; }

double result_bytes(const ChannelsArguments& arguments) {
    double bytes = static_cast<double>(storage_bytes(arguments.storage));
    for (int axis = 0; axis < 4; ++axis) bytes *= static_cast<double>(arguments.out.shape[axis]);
    return bytes;
}

class Channels {
  public:
    Channels(const ChannelsArguments& arguments, const MatrixUnit& unit);

    bool pays() const;
    int run();

  private:
    struct Memory {
        float* planes;  // the channels of a record
        char* records;
        float* sums;
        float* results;
        char* taps;
    };
    struct Item {
        Size image, group;
        Part part;
    };

    const PlaneTiles& tiles() const { return records_.tiles(); }
    const ChannelTaps& taps() const { return records_.taps(); }
    Size steps() const { return static_cast<Size>(steps_.size()); }
    Size positions() const {
        return round_up(records_.positions(tiles().largest()), kernels_.lines);
    }
    Size panels() const { return blocks_of(group_kernels_, kernels_.lines); }
    Size panel_bytes() const { return checked_multiply(steps(), kernels_.step_bytes); }
    Size result_stride() const { return positions() + 16; }  // no power of two
    Size weight_bytes() const;
    Memory carve(Carver& carver) const;
    Item item_of(Size number) const;
    double products() const;

    void pack_weights(Size task, const Memory& memory, char* weights, PowerRange& range) const;
    template <class Bits>
    void copy_taps(Size kernel, Size first, Size count, char* to) const;
    void run_item(const Item& item, const Memory& memory, const char* weights) const;
    void write(const Item& item, Size kernel, Size count, const Memory& memory) const;

    const ChannelsArguments& arguments_;
    const MatrixUnit& unit_;
    const ImageKernels& kernels_;
    const PackKernels& pack_;
    const Size storage_, group_kernels_;
    const bool streams_;  // results go past the caches
    const ChannelRecords records_;
    std::vector<Size> steps_;  // bytes to the records of each step
    std::vector<float> bias_;
};

Channels::Channels(const ChannelsArguments& arguments, const MatrixUnit& unit)
    : arguments_(arguments),
      unit_(unit),
      kernels_(*unit.images),
      pack_(kernels().pack[static_cast<int>(arguments.storage)]),
      storage_(storage_bytes(arguments.storage)),
      group_kernels_(arguments.w.shape[0] / arguments.groups),
      streams_(result_bytes(arguments) >= static_cast<double>(kernels().streaming_bytes)),
      records_(arguments.x, arguments.storage,
               ChannelTaps(arguments.w.shape[1], arguments.w.shape[2], arguments.w.shape[3],
                           kernels_.depth),
               arguments.groups, channel_windows(arguments, arguments.w.shape, arguments.out.shape),
               kernels_, kernels_.depth, kernels_.records, 2 * 4 * kernels_.lines) {
    const std::vector<Size> bytes = records_.tap_bytes();
    for (Size chunk = 0; chunk < taps().chunks; ++chunk)
        for (const Size tap : bytes) steps_.push_back(chunk * records_.chunk_bytes() + tap);
    if (arguments.bias)
        for (Size o = 0; o < arguments.w.shape[0]; ++o)
            bias_.push_back(static_cast<float>(
                load_value(arguments.bias.data + o * arguments.bias.strides[0] * storage_,
                           arguments.storage)));
}

// The products that the unit forms.
double Channels::products() const {
    constexpr Size half = 16;  // a panel may be half empty without being multiplied
    const double kernels = static_cast<double>(round_up(group_kernels_, half));
    const double places =
        static_cast<double>(round_up(records_.positions(tiles().largest()), half)) *
        static_cast<double>(tiles().parts());
    return kernels * places * static_cast<double>(steps()) * static_cast<double>(kernels_.depth) *
           static_cast<double>(arguments_.x.shape[0]) * static_cast<double>(arguments_.groups);
}

bool Channels::pays() const {
    double used = static_cast<double>(taps().channels * taps().rows * taps().columns);
    for (int axis = 0; axis < 4; ++axis) used *= static_cast<double>(arguments_.out.shape[axis]);
    const Size packed = blocks_of(taps().channels * taps().rows * taps().columns, kernels_.depth);
    return used >= least_used * products() && steps() <= most_steps * packed;
}

Size Channels::weight_bytes() const {
    return checked_multiply(checked_multiply(arguments_.groups, panels()), panel_bytes());
}

Channels::Memory Channels::carve(Carver& carver) const {
    Memory memory{};
    memory.planes = carver.take<float>(records_.plane_floats());
    memory.records = carver.take<char>(records_.record_bytes());
    memory.sums = carver.take<float>(checked_multiply(positions(), kernels_.lines));
    memory.results = carver.take<float>(checked_multiply(result_stride(), kernels_.lines));
    memory.taps = carver.take<char>(
        checked_multiply(taps().count(), kernels_.lines * kernels_.depth * storage_));
    return memory;
}

Channels::Item Channels::item_of(Size number) const {
    const Part part = tiles().part_of(number % tiles().parts());
    number /= tiles().parts();
    return {number / arguments_.groups, number % arguments_.groups, part};
}

// The taps of some channels of a panel of kernels, which adjoin in memory, become steps of their
// own: through scratch, [taps][kernels][elements].
void Channels::pack_weights(Size task, const Memory& memory, char* weights,
                            PowerRange& range) const {
    const Size panel = task % panels(), chunk = task / panels() % taps().chunks;
    const Size group = task / panels() / taps().chunks;
    const Size first = chunk * kernels_.depth, kernel = panel * kernels_.lines;
    const Size count = std::min(kernels_.depth, taps().elements - first);
    const Size kernels = std::min(kernels_.lines, group_kernels_ - kernel);
    for (Size k = 0; k < kernels; ++k)
        if (storage_ == 2) {
            copy_taps<std::uint16_t>(group * group_kernels_ + kernel + k, first, count,
                                     memory.taps + k * kernels_.depth * storage_);
        } else {
            copy_taps<std::uint32_t>(group * group_kernels_ + kernel + k, first, count,
                                     memory.taps + k * kernels_.depth * storage_);
        }
    const Run across = {0, kernels_.depth, kernels}, along = {0, 1, count};
    char* to = weights + (group * panels() + panel) * panel_bytes() +
               chunk * taps().count() * kernels_.step_bytes;
    for (Size tap = 0; tap < taps().count(); ++tap, to += kernels_.step_bytes)
        unit_.packers.columns({memory.taps + tap * kernels_.lines * kernels_.depth * storage_, to,
                               panel_bytes(), &across, 1, &along, 1, &range});
}

// Those of one kernel.
template <class Bits>
void Channels::copy_taps(Size kernel, Size first, Size count, char* to) const {
    const InputView& w = arguments_.w;
    const Size from_tap = kernels_.lines * kernels_.depth * storage_;
    for (Size element = first; element < first + count; ++element, to += storage_) {
        const char* from =
            w.data + (kernel * w.strides[0] + taps().channel(element) * w.strides[1] +
                      taps().column(element) * w.strides[3]) *
                         storage_;
        char* place = to;
        for (Size p = 0; p < taps().rows; ++p, from += w.strides[2] * storage_)
            for (Size q = 0; q < taps().columns_apart; ++q, place += from_tap)
                std::memcpy(place, from + q * w.strides[3] * storage_, sizeof(Bits));
    }
}

void Channels::run_item(const Item& item, const Memory& memory, const char* weights) const {
    for (Size panel = 0; panel < panels(); ++panel) {
        const Size first = panel * kernels_.lines;
        const Size count = std::min(kernels_.lines, group_kernels_ - first);
        const Size kernel = item.group * group_kernels_ + first;
        kernels_.multiply({memory.records, steps_.data(), steps(), records_.positions(item.part),
                           records_.part_bytes(),
                           weights + (item.group * panels() + panel) * panel_bytes(), count,
                           bias_.empty() ? nullptr : bias_.data() + kernel, memory.sums,
                           memory.results, result_stride()});
        write(item, kernel, count, memory);
    }
}

void Channels::write(const Item& item, Size kernel, Size count, const Memory& memory) const {
    const OutputView& out = arguments_.out;
    const Part& part = item.part;
    char* const to = out.data + (item.image * out.strides[0] + kernel * out.strides[1] +
                                 part.row * out.strides[2] + part.column * out.strides[3]) *
                                    storage_;
    if (out.strides[1] == 1 && out.strides[3] != 1) {
        for (Size row = 0; row < part.rows; ++row)
            pack_.unpack({to + row * out.strides[2] * storage_,
                          memory.results + row * tiles().pitch(), count, part.columns, 1,
                          out.strides[3], result_stride(), false});
        return;
    }
    for (Size k = 0; k < count; ++k)
        pack_.unpack({to + k * out.strides[1] * storage_, memory.results + k * result_stride(),
                      part.rows, part.columns, out.strides[2], out.strides[3], tiles().pitch(),
                      streams_});
}

int Channels::run() {
    const Size items = checked_multiply(checked_multiply(arguments_.x.shape[0], arguments_.groups),
                                        tiles().parts());
    const double nanoseconds =
        products() * static_cast<double>(kernels_.products) / products_per_nanosecond;
    const int workers = workers_for(nanoseconds, items);
    Carver size(nullptr);
    carve(size);
    // One slice more than workers, for the taps that all of them use.
    const Scratch scratch(std::max(size.used(), weight_bytes()), workers + 1);
    char* const weights = scratch.of_worker(workers);
    PackedPowers powers;
    const Size tasks = arguments_.groups * taps().chunks * panels();
    parallel_for(workers, tasks, [&](Worker& worker, Size begin, Size end) {
        Carver carver(scratch.of_worker(worker.index()));
        const Memory own = carve(carver);
        PowerRange range;
        for (Size task = begin; task < end && worker.proceed(); ++task)
            pack_weights(task, own, weights, range);
        powers.widen(1, range);
    });
    const unsigned raised = parallel_for(workers, items, [&](Worker& worker, Size begin, Size end) {
        Carver carver(scratch.of_worker(worker.index()));
        const Memory own = carve(carver);
        // What lies beyond the ends of x, and what a tile finds beyond the last record.
        std::fill(reinterpret_cast<char*>(own.planes), reinterpret_cast<char*>(own.sums), '\0');
        for (Size number = begin; number < end && worker.proceed(); ++number) {
            const Item item = item_of(number);
            PowerRange range;
            records_.fill(item.image, item.group, item.part, own.planes, own.records, range);
            powers.widen(0, range);
            if (!powers.fit()) return;
            run_item(item, own, weights);
        }
    });
    if (!powers.fit()) return not_taken;
    return FloatEnvironment::has_overflow(raised) ? int{status_over} : 0;
}

}  // namespace

int convolve_channels(const ChannelsArguments& arguments) {
    if (const MatrixUnit* const unit = image_unit_for(arguments.storage)) {
        Channels channels(arguments, *unit);
        const int status = channels.pays() ? channels.run() : not_taken;
        if (status != not_taken) return status;
    }
    return convolve_neighbours(arguments);
}

}  // namespace unitstride
