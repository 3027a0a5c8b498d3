// A worker brings some rows of the channels of a record to scratch, and makes records of them.
#include "ops/channel_records.hpp"

#include <algorithm>

#include "core/checked.hpp"
#include "isa/dispatch.hpp"
#include "ops/channel_windows.hpp"
#include "ops/lines.hpp"

namespace unitstride {
namespace {

using Size = std::ptrdiff_t;

constexpr Size cached_bytes = 1200 << 10;  // of a part in all its forms
constexpr double folding_pays = 1.3;

Size blocks_of(Size total, Size block) { return (total + block - 1) / block; }

}  // namespace

const MatrixUnit* image_unit_for(Storage storage) {
    const MatrixUnit* units = kernels().matrix_unit;
    if (units == nullptr || storage == Storage::float64) return nullptr;
    const MatrixUnit& unit = units[static_cast<int>(storage)];
    return unit.images->multiply ? &unit : nullptr;
}

ChannelTaps::ChannelTaps(Size own_channels, Size tap_rows, Size tap_columns, Size depth)
    : channels(own_channels), rows(tap_rows), columns(tap_columns) {
    const Size plain = checked_multiply(blocks_of(channels, depth), columns);
    const Size together = blocks_of(checked_multiply(channels, columns), depth);
    folded = channels <= depth &&
             static_cast<double>(plain) > folding_pays * static_cast<double>(together);
    elements = folded ? channels * columns : channels;
    chunks = blocks_of(elements, depth);
    columns_apart = folded ? 1 : columns;
}

ChannelRecords::ChannelRecords(const InputView& x, Storage storage, const ChannelTaps& taps,
                               Size groups, const Windows& windows, const ImageKernels& kernels,
                               Size depth, Make make, Size place_bytes)
    : x_(x),
      kernels_(kernels),
      taps_(taps),
      storage_(storage_bytes(storage)),
      depth_(depth),
      brought_(std::min(depth, taps.channels)),
      make_(make),
      adjoining_(x.strides[1] == 1 && x.strides[3] != 1 && taps.channels > 1),
      tiles_(x, storage, Boundary::zero, windows, adjoining_ ? brought_ : 1, false,
             cached_places(checked_multiply(x.shape[0], groups), windows,
                           checked_multiply(taps.chunks, kernels.parts * kernels.record_bytes) +
                               4 * brought_ + place_bytes,
                           cached_bytes)) {
    for (Size element = 0; element < taps.elements; ++element)
        places_.push_back(taps.channel(element) % depth * tiles_.plane() +
                          tiles_.place(0, taps.column(element)));
}

std::vector<Size> ChannelRecords::tap_bytes() const {
    std::vector<Size> bytes;
    for (Size p = 0; p < taps_.rows; ++p)
        for (Size q = 0; q < taps_.columns_apart; ++q)
            bytes.push_back(tiles_.place(p, q) * kernels_.record_bytes);
    return bytes;
}

Size ChannelRecords::plane_floats() const { return checked_multiply(tiles_.plane(), brought_); }

// The last step of a panel may reach beyond the last record.
Size ChannelRecords::record_bytes() const {
    const Size count = checked_multiply(taps_.chunks * kernels_.parts, tiles_.plane());
    return checked_multiply(checked_add(count, kernels_.lines), kernels_.record_bytes);
}

void ChannelRecords::fetch(const char* x, const Part& part, Size count, float* planes) const {
    if (adjoining_) {
        tiles_.fetch(part, x, count, reinterpret_cast<char*>(planes));
        return;
    }
    for (Size c = 0; c < count; ++c)
        tiles_.fetch(part, x + c * x_.strides[1] * storage_, 1,
                     reinterpret_cast<char*>(planes + c * tiles_.plane()));
}

void ChannelRecords::fill(Size image, Size group, const Part& part, float* planes, char* records,
                          PowerRange& range) const {
    const Size origin = image * x_.strides[0] + group * taps_.channels * x_.strides[1];
    const char* const x = x_.data + origin * storage_;
    if (taps_.folded) fetch(x, part, taps_.channels, planes);
    // Of records with the taps of a row, those of the first of the phases of columns.
    const Size columns = taps_.folded ? 1 : tiles_.phases(1);
    const Size beyond = taps_.folded ? tiles_.pitch() - part.columns : 0;
    for (Size chunk = 0; chunk < taps_.chunks; ++chunk) {
        const Size first = chunk * depth_, count = std::min(depth_, taps_.elements - first);
        if (!taps_.folded) fetch(x + first * x_.strides[1] * storage_, part, count, planes);
        for (Size row = 0; row < tiles_.phases(0); ++row)
            for (Size column = 0; column < columns; ++column) {
                const Size begin = (row * tiles_.phases(1) + column) * tiles_.phase();
                make_({planes + begin, places_.data() + first, count, tiles_.filled(part) - beyond,
                       records + chunk * chunk_bytes() + begin * kernels_.record_bytes,
                       part_bytes(), &range});
            }
    }
}

}  // namespace unitstride
