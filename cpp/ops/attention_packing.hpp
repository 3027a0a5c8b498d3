// Rows, keys and values of a call of attention in panels, whatever their strides.
#pragma once

#include "ops/attention_shape.hpp"

namespace unitstride {

// Rows or keys whose elements are not all finite, taken out of a packed block: 0 * inf is NaN, and
// would reach what excludes them. They are added one by one.
template <class T>
struct AttentionSpecials {
    std::ptrdiff_t count;
    std::ptrdiff_t* index;  // in the block
    T* elements;            // [count][panels x columns]
};

template <class T>
class AttentionPacking {
  public:
    // For the vector kernels, or for a matrix unit.
    AttentionPacking(const AttentionShape& shape, const MatrixUnit* unit);

    AttentionSpecials<T> carve_specials(Carver& carver, std::ptrdiff_t count,
                                        std::ptrdiff_t panels) const;

    // `range` is widened to what a matrix unit is given.
    // Rows of a (..., heads, queries, features) array as a panel [features][tile rows].
    void pack_strip(const InputView& view, const AttentionRows& rows, Run* runs, void* panel,
                    PowerRange* range = nullptr) const;
    // Positions [first, end) of one head, from position `base` on, as columns of panels
    // [features][columns].
    void pack_across(const InputView& view, std::ptrdiff_t entry, std::ptrdiff_t head,
                     std::ptrdiff_t base, std::ptrdiff_t first, std::ptrdiff_t end, void* panels,
                     PowerRange* range = nullptr) const;
    // The same as rows of panels [depth][columns], zero from `end` to the next multiple of columns.
    void pack_along(const InputView& view, std::ptrdiff_t entry, std::ptrdiff_t head,
                    std::ptrdiff_t base, std::ptrdiff_t first, std::ptrdiff_t end,
                    std::ptrdiff_t depth, void* panels, PowerRange* range = nullptr) const;
    // Rows of the heads that share keys as rows of panels [depth][columns].
    void pack_rows_along(const InputView& view, const AttentionRows& rows, std::ptrdiff_t depth,
                         T* panels) const;
    // The same as columns of panels [depth][columns of features].
    void pack_rows_across(const InputView& view, const AttentionRows& rows, Run* runs,
                          std::ptrdiff_t depth, void* panels, PowerRange* range) const;
    // Positions of one head as memory that will be read; none where features are not contiguous.
    Ahead ahead_of(const InputView& view, std::ptrdiff_t entry, std::ptrdiff_t head,
                   std::ptrdiff_t first, std::ptrdiff_t count) const;
    // Fetches rows into the second-level cache.
    void fetch_early(const InputView& view, const AttentionRows& rows) const;
    // Rows as they are, of the compute type: [rows][features].
    void fetch_rows(const InputView& view, const AttentionRows& rows, Run* runs, T* to) const;
    void set_specials_apart(T* panels, std::ptrdiff_t panel_count, std::ptrdiff_t depth,
                            std::ptrdiff_t first, std::ptrdiff_t end,
                            AttentionSpecials<T>& specials) const;

    std::ptrdiff_t panels_of(std::ptrdiff_t features) const {
        return (features + kernels.columns - 1) / kernels.columns;
    }
    // Bytes of a packed strip of queries, and of a panel of keys of such a depth.
    std::ptrdiff_t strip_bytes() const {
        return checked_multiply(round_up(shape.features, kernels.depth_unit), kernels.query_bytes);
    }
    std::ptrdiff_t panel_bytes(std::ptrdiff_t depth) const {
        return checked_multiply(round_up(depth, kernels.depth_unit), kernels.key_bytes);
    }

    const AttentionShape& shape;
    const AttentionArguments& arguments;
    const KernelTable& table;
    const AttentionKernels& kernels;
    const FetchKernels& fetch;
    const GemmPackers& packers;
    const std::ptrdiff_t item;  // bytes of an element

  private:
    void pack_runs_along(const InputView& view, const char* start, const Run* along,
                         std::ptrdiff_t runs, std::ptrdiff_t first, std::ptrdiff_t end,
                         std::ptrdiff_t depth, void* panels, PowerRange* range) const;
};

extern template class AttentionPacking<float>;
extern template class AttentionPacking<double>;

}  // namespace unitstride
