// What forward and gradient share: the scores of a strip of rows against a block of keys. One
// instance per compute type; it owns nothing but its constants.
#pragma once

#include "ops/attention_packing.hpp"

namespace unitstride {

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
class AttentionStrips : public AttentionPacking<T> {
    using Base = AttentionPacking<T>;

  public:
    using Base::arguments;
    using Base::fetch;
    using Base::item;
    using Base::kernels;
    using Base::panels_of;
    using Base::shape;
    using Base::table;

    // On the vector kernels, or on a matrix unit.
    explicit AttentionStrips(const AttentionShape& shape, const MatrixUnit* unit = nullptr);

    AttentionBuffers<T> carve_buffers(Carver& carver) const;
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

    const bool transforms;  // scores are more than bare products
    const double factor;    // of a score, in powers of two

  private:
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
