// Images as records of channels, which a matrix unit multiplies: see Note [Records],
// kernels/images.hpp.
#pragma once

#include <vector>

#include "core/storage.hpp"
#include "core/view.hpp"
#include "kernels/images.hpp"
#include "ops/plane_tiles.hpp"

namespace unitstride {

// The unit that convolves images of a storage type; null: there is none.
const MatrixUnit* image_unit_for(Storage storage);

// How channels and taps become the elements of records. Where there are few channels, those of all
// taps of a row are elements of one record.
struct ChannelTaps {
    std::ptrdiff_t channels, rows, columns;  // of a group; taps
    bool folded;
    std::ptrdiff_t elements, chunks;  // records of up to `depth` elements
    std::ptrdiff_t columns_apart;     // taps of a row that are not in one record

    ChannelTaps(std::ptrdiff_t channels, std::ptrdiff_t rows, std::ptrdiff_t columns,
                std::ptrdiff_t depth);
    std::ptrdiff_t count() const noexcept { return rows * columns_apart; }
    std::ptrdiff_t channel(std::ptrdiff_t element) const noexcept {
        return folded ? element / columns : element;
    }
    std::ptrdiff_t column(std::ptrdiff_t element) const noexcept {
        return folded ? element % columns : 0;
    }
};

class ChannelRecords {
  public:
    using Make = void (*)(const RecordTask&) noexcept;

    // `place_bytes`: what a place of a part takes besides its records.
    ChannelRecords(const InputView& x, Storage storage, const ChannelTaps& taps,
                   std::ptrdiff_t groups, const Windows& windows, const ImageKernels& kernels,
                   std::ptrdiff_t depth, Make make, std::ptrdiff_t place_bytes);

    const ChannelTaps& taps() const noexcept { return taps_; }
    const PlaneTiles& tiles() const noexcept { return tiles_; }
    // Places from the first result of a part to its last.
    std::ptrdiff_t positions(const Part& part) const noexcept {
        return (part.rows - 1) * tiles_.pitch() + part.columns;
    }
    // Bytes from part to part, from chunk to chunk, and to the first record of each tap.
    std::ptrdiff_t part_bytes() const noexcept { return tiles_.plane() * kernels_.record_bytes; }
    std::ptrdiff_t chunk_bytes() const noexcept { return kernels_.parts * part_bytes(); }
    std::vector<std::ptrdiff_t> tap_bytes() const;

    // Memory for channels, and for records: zeros before the first call of `fill`.
    std::ptrdiff_t plane_floats() const;
    std::ptrdiff_t record_bytes() const;
    void fill(std::ptrdiff_t image, std::ptrdiff_t group, const Part& part, float* planes,
              char* records, PowerRange& range) const;

  private:
    void fetch(const char* x, const Part& part, std::ptrdiff_t count, float* planes) const;

    const InputView& x_;
    const ImageKernels& kernels_;
    const ChannelTaps taps_;
    const std::ptrdiff_t storage_, depth_, brought_;  // channels at a time
    const Make make_;
    const bool adjoining_;  // the channels of x
    const PlaneTiles tiles_;
    std::vector<std::ptrdiff_t> places_;  // of the elements of a record, chunk by chunk
};

}  // namespace unitstride
