// What forward and gradient share: packing, and the scores of a strip of rows against a block of
// keys. One instance per compute type; it owns nothing but its constants.
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

// Working memory of the scores of a strip.
template <class T>
struct AttentionBuffers {
    T* scores;            // [tile rows][strip keys]
    char* weights;        // where they do not replace the scores
    T* highest;           // [tile rows][lanes]
    T* rescale;           // [tile rows]
    T* bias;              // [tile rows][strip keys]
    unsigned char* mask;  // [tile rows][strip keys]
    AttentionRow* row;    // [tile rows]
    Run* runs;            // [tile rows]
    double* totals;       // [tile rows]
};

template <class T>
class AttentionStrips {
  public:
    // On the vector kernels, or on a matrix unit.
    explicit AttentionStrips(const AttentionShape& shape, const MatrixUnit* unit = nullptr);

    AttentionBuffers<T> carve_buffers(Carver& carver) const;
    AttentionSpecials<T> carve_specials(Carver& carver, std::ptrdiff_t count,
                                        std::ptrdiff_t panels) const;

    // `refused` is set where an element has no place in the panels of a matrix unit.
    // Rows of a (..., heads, queries, features) array as a panel [features][tile rows].
    void pack_strip(const InputView& view, const AttentionRows& rows, Run* runs, void* panel,
                    bool* refused = nullptr) const;
    // Positions [first, end) of one head, from position `base` on, as columns of panels
    // [features][columns].
    void pack_across(const InputView& view, std::ptrdiff_t entry, std::ptrdiff_t head,
                     std::ptrdiff_t base, std::ptrdiff_t first, std::ptrdiff_t end, void* panels,
                     bool* refused = nullptr) const;
    // The same as rows of panels [depth][columns], zero from `end` to the next multiple of columns.
    void pack_along(const InputView& view, std::ptrdiff_t entry, std::ptrdiff_t head,
                    std::ptrdiff_t base, std::ptrdiff_t first, std::ptrdiff_t end,
                    std::ptrdiff_t depth, void* panels, bool* refused = nullptr) const;
    // Rows of the heads that share keys as rows of panels [depth][columns].
    void pack_rows_along(const InputView& view, const AttentionRows& rows, std::ptrdiff_t depth,
                         T* panels) const;
    // The same as columns of panels [depth][columns of features].
    void pack_rows_across(const InputView& view, const AttentionRows& rows, Run* runs,
                          std::ptrdiff_t depth, void* panels, bool* refused) const;
    // Fetches rows into the second-level cache.
    void fetch_early(const InputView& view, const AttentionRows& rows) const;
    // Rows as they are, of the compute type: [rows][features].
    void fetch_rows(const InputView& view, const AttentionRows& rows, Run* runs, T* to) const;
    void set_specials_apart(T* panels, std::ptrdiff_t panel_count, std::ptrdiff_t depth,
                            std::ptrdiff_t first, std::ptrdiff_t end,
                            AttentionSpecials<T>& specials) const;

    // Positions of the strip's rows in the block that begins at `key`, their masks and biases.
    // Sets `plain_begin` and `plain_end`; returns false where nothing is attended to.
    bool describe(const AttentionRows& rows, const AttentionExtent& extent, std::ptrdiff_t key,
                  const AttentionBuffers<T>& buffers, AttentionStrip& strip) const;
    // Whether a row attends to a key of the block that `describe` was called for.
    bool attends(const AttentionRow& row, std::ptrdiff_t key) const;

    // The level of a row before its first key, that of its sink, and the sink's weight there.
    T sink_level(const AttentionRows& rows, std::ptrdiff_t row, T& weight) const;
    // How many powers of two `score` lies above the level `from`, as the kernels measure it.
    double powers_above(T score, T from) const;
    // Rows of panels [tile rows][columns] to an array (*batch, heads, queries, features).
    void write_rows(const OutputView& view, const AttentionRows& rows, const T* panels,
                    Run* runs) const;
    bool is_finite(const AttentionStrip& strip) const;
    void write_logs(const AttentionRows& rows, const AttentionStrip& strip) const;

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
    const bool transforms;      // scores are more than bare products
    const double factor;        // of a score, in powers of two

  private:
    void pack_runs_along(const InputView& view, const char* start, const Run* along,
                         std::ptrdiff_t runs, std::ptrdiff_t first, std::ptrdiff_t end,
                         std::ptrdiff_t depth, void* panels, bool* refused) const;
    void collect_masks(const AttentionRows& rows, std::ptrdiff_t key,
                       const AttentionBuffers<T>& buffers, const AttentionStrip& strip) const;
    void collect_biases(const AttentionRows& rows, std::ptrdiff_t key,
                        const AttentionBuffers<T>& buffers, const AttentionStrip& strip) const;
    const char* row_start(const InputView& view, const AttentionRows& rows, std::ptrdiff_t row,
                          std::ptrdiff_t bytes) const;
};

extern template class AttentionStrips<float>;
extern template class AttentionStrips<double>;

}  // namespace unitstride
