// Convolution with channels on a matrix unit: see Note [Records], kernels/images.hpp.
//
// A worker brings some rows of an image's channels to scratch (`PlaneTiles`), makes records of them,
// and multiplies these with the taps of all kernels of the group, a panel of kernels at a time. The
// channels of a record may be those of all taps of a row where there are few of them.
#include "ops/convolution_channels.hpp"

#include <algorithm>
#include <vector>

#include "core/carver.hpp"
#include "core/float_environment.hpp"
#include "core/float_status.hpp"
#include "core/parallel.hpp"
#include "core/scratch.hpp"
#include "isa/dispatch.hpp"
#include "ops/lines.hpp"
#include "ops/packed_powers.hpp"
#include "ops/plane_tiles.hpp"

namespace unitstride {
namespace {

using Size = std::ptrdiff_t;

constexpr Size cached_bytes = 1200 << 10;  // of a part in all its forms
constexpr double least_used = 0.4;         // of what the unit multiplies
constexpr double folding_pays = 1.3;
constexpr double products_per_nanosecond = 1200;  // of bfloat16
constexpr Size few_items = 8, least_rows = 8;

Size blocks_of(Size total, Size block) { return (total + block - 1) / block; }

const MatrixUnit* unit_for(Storage storage) {
    const MatrixUnit* units = kernels().matrix_unit;
    if (units == nullptr || storage == Storage::float64) return nullptr;
    const MatrixUnit& unit = units[static_cast<int>(storage)];
    return unit.images->multiply ? &unit : nullptr;
}

// How channels and taps become the elements of records, and steps.
struct Records {
    Size channels, rows, columns;  // of a group; taps
    bool folded;                   // the taps of a row are elements of a record
    Size elements, chunks, steps;

    Records(const ChannelsArguments& arguments, Size depth)
        : channels(arguments.w.shape[1]),
          rows(arguments.w.shape[2]),
          columns(arguments.w.shape[3]) {
        const Size plain = blocks_of(channels, depth) * columns;
        const Size together = blocks_of(checked_multiply(channels, columns), depth);
        folded = channels <= depth &&
                 static_cast<double>(plain) > folding_pays * static_cast<double>(together);
        elements = folded ? channels * columns : channels;
        chunks = blocks_of(elements, depth);
        steps = checked_multiply(chunks, checked_multiply(rows, folded ? 1 : columns));
    }
    Size taps_of_row() const { return folded ? 1 : columns; }
    Size channel(Size element) const { return folded ? element / columns : element; }
    Size column(Size element) const { return folded ? element % columns : 0; }
};

Windows windows_of(const ChannelsArguments& arguments) {
    Windows found{};
    for (int axis = 0; axis < 2; ++axis) {
        found.begin[axis] = arguments.begin[axis];
        found.step[axis] = arguments.step[axis];
        found.taps[axis] = arguments.w.shape[2 + axis];
        found.spread[axis] = found.taps[axis] > 1 ? arguments.spread[axis] : 1;
        found.results[axis] = arguments.out.shape[2 + axis];
    }
    return found;
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
    };
    struct Item {
        Size image, group;
        Part part;
    };

    static Size cached_elements(const ChannelsArguments& arguments, const ImageKernels& kernels,
                                const Records& records);
    Size positions(const Part& part) const {
        return (part.rows - 1) * tiles_.pitch() + part.columns;
    }
    Size tile_positions() const { return round_up(positions(tiles_.largest()), kernels_.lines); }
    Size panels() const { return blocks_of(group_kernels_, kernels_.lines); }
    Size panel_bytes() const { return records_.steps * kernels_.step_bytes; }
    Size result_stride() const { return tile_positions() + 16; }  // no power of two
    Size weight_bytes() const;
    Memory carve(Carver& carver) const;
    Item item_of(Size number) const;
    double products() const;

    void list_places();
    void pack_weights(Size group, Size step, char* weights, PowerRange& range) const;
    void make_records(const Item& item, const Memory& memory, PowerRange& range) const;
    void run_item(const Item& item, const Memory& memory, const char* weights) const;
    void write(const Item& item, Size panel, Size count, const Memory& memory) const;

    const ChannelsArguments& arguments_;
    const MatrixUnit& unit_;
    const ImageKernels& kernels_;
    const PackKernels& pack_;
    const Records records_;
    const Size storage_, group_kernels_;
    const bool adjoining_;  // the channels of x
    const PlaneTiles tiles_;
    std::vector<Size> places_;  // of the elements of a record, chunk by chunk
    std::vector<Size> steps_;   // bytes
    std::vector<float> bias_;
};

// What a place of a part takes in all its forms decides how many there are.
Size Channels::cached_elements(const ChannelsArguments& arguments, const ImageKernels& kernels,
                               const Records& records) {
    const Size floats = 4 * (records.folded ? records.channels : kernels.depth);
    const Size sums = 2 * 4 * kernels.lines;
    const Size bytes =
        checked_multiply(records.chunks, kernels.parts * kernels.record_bytes) + floats + sums;
    const Size most = std::max<Size>(cached_bytes / bytes, 1);
    const Size items = checked_multiply(arguments.x.shape[0], arguments.groups);
    if (items >= few_items) return most;
    // A few images are divided, so that all threads find work.
    const Size parts = blocks_of(few_items, std::max<Size>(items, 1));
    const Size rows = std::max(arguments.out.shape[2] / parts, least_rows);
    return std::min(most, checked_multiply(rows, arguments.out.shape[3]));
}

Channels::Channels(const ChannelsArguments& arguments, const MatrixUnit& unit)
    : arguments_(arguments),
      unit_(unit),
      kernels_(*unit.images),
      pack_(kernels().pack[static_cast<int>(arguments.storage)]),
      records_(arguments, kernels_.depth),
      storage_(storage_bytes(arguments.storage)),
      group_kernels_(arguments.w.shape[0] / arguments.groups),
      adjoining_(arguments.x.strides[1] == 1 && arguments.x.strides[3] != 1 &&
                 records_.channels > 1),
      tiles_(arguments.x, arguments.storage, Boundary::zero, windows_of(arguments),
             adjoining_ ? std::min(kernels_.depth, records_.channels) : 1, false,
             cached_elements(arguments, kernels_, records_)) {
    list_places();
    if (arguments.bias)
        for (Size o = 0; o < arguments.w.shape[0]; ++o)
            bias_.push_back(static_cast<float>(load_value(
                arguments.bias.data + o * arguments.bias.strides[0] * storage_, arguments.storage)));
}

void Channels::list_places() {
    for (Size element = 0; element < records_.elements; ++element) {
        const Size channel = records_.channel(element) % kernels_.depth;
        places_.push_back(channel * tiles_.plane() + tiles_.place(0, records_.column(element)));
    }
    const Size part = tiles_.plane() * kernels_.record_bytes;
    for (Size chunk = 0; chunk < records_.chunks; ++chunk)
        for (Size p = 0; p < records_.rows; ++p)
            for (Size q = 0; q < records_.taps_of_row(); ++q)
                steps_.push_back(chunk * kernels_.parts * part +
                                 tiles_.place(p, q) * kernels_.record_bytes);
}

// The products that the unit forms.
double Channels::products() const {
    constexpr Size half = 16;  // a panel may be half empty without being multiplied
    const double kernels = static_cast<double>(round_up(group_kernels_, half));
    const double places = static_cast<double>(round_up(positions(tiles_.largest()), half)) *
                          static_cast<double>(tiles_.parts());
    return kernels * places * static_cast<double>(records_.steps) *
           static_cast<double>(kernels_.depth) * static_cast<double>(arguments_.x.shape[0]) *
           static_cast<double>(arguments_.groups);
}

bool Channels::pays() const {
    double used = static_cast<double>(records_.channels * records_.rows * records_.columns);
    for (int axis = 0; axis < 4; ++axis) used *= static_cast<double>(arguments_.out.shape[axis]);
    return used >= least_used * products();
}

Size Channels::weight_bytes() const {
    return checked_multiply(checked_multiply(arguments_.groups, panels()), panel_bytes());
}

Channels::Memory Channels::carve(Carver& carver) const {
    Memory memory{};
    const Size planes = std::min(kernels_.depth, records_.channels);
    memory.planes = carver.take<float>(checked_multiply(tiles_.plane(), planes));
    const Size count = checked_multiply(records_.chunks * kernels_.parts, tiles_.plane());
    // The last tile may reach beyond the last record.
    memory.records = carver.take<char>(
        checked_multiply(checked_add(count, kernels_.lines), kernels_.record_bytes));
    memory.sums = carver.take<float>(checked_multiply(tile_positions(), kernels_.lines));
    memory.results = carver.take<float>(checked_multiply(result_stride(), kernels_.lines));
    return memory;
}

Channels::Item Channels::item_of(Size number) const {
    const Part part = tiles_.part_of(number % tiles_.parts());
    number /= tiles_.parts();
    return {number / arguments_.groups, number % arguments_.groups, part};
}

void Channels::pack_weights(Size group, Size step, char* weights, PowerRange& range) const {
    const InputView& w = arguments_.w;
    const Size taps = records_.taps_of_row();
    const Size q = step % taps, p = step / taps % records_.rows;
    const Size first = step / taps / records_.rows * kernels_.depth;
    std::vector<Run> along;
    const Size end = std::min(first + kernels_.depth, records_.elements);
    if (records_.folded) {
        for (Size element = first; element < end; ++element)
            along.push_back({records_.channel(element) * w.strides[1] +
                                 records_.column(element) * w.strides[3],
                             0, 1});
    } else {
        along.push_back({first * w.strides[1], w.strides[1], end - first});
    }
    const Run across = {0, w.strides[0], group_kernels_};
    const Size origin =
        group * group_kernels_ * w.strides[0] + p * w.strides[2] + q * w.strides[3];
    unit_.packers.columns({w.data + origin * storage_,
                           weights + group * panels() * panel_bytes() + step * kernels_.step_bytes,
                           panel_bytes(), &across, 1, along.data(),
                           static_cast<Size>(along.size()), &range});
}

void Channels::make_records(const Item& item, const Memory& memory, PowerRange& range) const {
    const InputView& x = arguments_.x;
    const Size first_channel = item.group * records_.channels;
    const auto fetch = [&](Size channel, Size count) {
        const Size offset =
            item.image * x.strides[0] + (first_channel + channel) * x.strides[1];
        const char* const from = x.data + offset * storage_;
        if (adjoining_) {
            tiles_.fetch(item.part, from, count, reinterpret_cast<char*>(memory.planes));
            return;
        }
        for (Size c = 0; c < count; ++c)
            tiles_.fetch(item.part, from + c * x.strides[1] * storage_, 1,
                         reinterpret_cast<char*>(memory.planes + c * tiles_.plane()));
    };
    if (records_.folded) fetch(0, records_.channels);
    const Size part = tiles_.plane() * kernels_.record_bytes;
    // Of records with the taps of a row, those of the first of the phases of columns.
    const Size columns = records_.folded ? 1 : tiles_.phases(1);
    const Size beyond = records_.folded ? tiles_.pitch() - item.part.columns : 0;
    for (Size chunk = 0; chunk < records_.chunks; ++chunk) {
        const Size first = chunk * kernels_.depth;
        const Size count = std::min(kernels_.depth, records_.elements - first);
        if (!records_.folded) fetch(first, count);
        for (Size row = 0; row < tiles_.phases(0); ++row)
            for (Size column = 0; column < columns; ++column) {
                const Size begin = (row * tiles_.phases(1) + column) * tiles_.phase();
                kernels_.records({memory.planes + begin, places_.data() + first, count,
                                  tiles_.filled(item.part) - beyond,
                                  memory.records + chunk * kernels_.parts * part +
                                      begin * kernels_.record_bytes,
                                  part, &range});
            }
    }
}

void Channels::run_item(const Item& item, const Memory& memory, const char* weights) const {
    for (Size panel = 0; panel < panels(); ++panel) {
        const Size first = panel * kernels_.lines;
        const Size count = std::min(kernels_.lines, group_kernels_ - first);
        const Size kernel = item.group * group_kernels_ + first;
        kernels_.multiply({memory.records, steps_.data(), records_.steps, positions(item.part),
                           tiles_.plane() * kernels_.record_bytes,
                           weights + (item.group * panels() + panel) * panel_bytes(), count,
                           bias_.empty() ? nullptr : bias_.data() + kernel, memory.sums,
                           memory.results, result_stride()});
        write(item, kernel, count, memory);
    }
}

void Channels::write(const Item& item, Size kernel, Size count, const Memory& memory) const {
    const OutputView& out = arguments_.out;
    const Part& part = item.part;
    char* const to =
        out.data + (item.image * out.strides[0] + kernel * out.strides[1] +
                    part.row * out.strides[2] + part.column * out.strides[3]) *
                       storage_;
    if (out.strides[1] == 1 && out.strides[3] != 1) {
        for (Size row = 0; row < part.rows; ++row)
            pack_.unpack({to + row * out.strides[2] * storage_,
                          memory.results + row * tiles_.pitch(), count, part.columns, 1,
                          out.strides[3], result_stride(), false});
        return;
    }
    for (Size k = 0; k < count; ++k)
        pack_.unpack({to + k * out.strides[1] * storage_, memory.results + k * result_stride(),
                      part.rows, part.columns, out.strides[2], out.strides[3], tiles_.pitch(),
                      false});
}

int Channels::run() {
    const Size items = checked_multiply(
        checked_multiply(arguments_.x.shape[0], arguments_.groups), tiles_.parts());
    const double nanoseconds =
        products() * static_cast<double>(kernels_.products) / products_per_nanosecond;
    const int workers = workers_for(nanoseconds, items);
    Carver size(nullptr);
    carve(size);
    // One slice more than workers, for the taps that all of them use.
    const Scratch scratch(std::max(size.used(), weight_bytes()), workers + 1);
    char* const weights = scratch.of_worker(workers);
    PackedPowers powers;
    parallel_for(workers, arguments_.groups * records_.steps,
                 [&](Worker& worker, Size begin, Size end) {
                     PowerRange range;
                     for (Size task = begin; task < end && worker.proceed(); ++task)
                         pack_weights(task / records_.steps, task % records_.steps, weights, range);
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
            make_records(item, own, range);
            powers.widen(0, range);
            if (!powers.fit()) return;
            run_item(item, own, weights);
        }
    });
    if (!powers.fit()) return not_for_unit;
    return FloatEnvironment::has_overflow(raised) ? int{status_over} : 0;
}

}  // namespace

int convolve_channels(const ChannelsArguments& arguments) {
    const MatrixUnit* const unit = unit_for(arguments.storage);
    if (unit == nullptr) return not_for_unit;
    Channels channels(arguments, *unit);
    return channels.pays() ? channels.run() : not_for_unit;
}

}  // namespace unitstride
