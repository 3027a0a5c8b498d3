// What a call of attention looks like: sizes, places of rows, and which keys a row reaches.
//
// The rows of the heads that share keys form one list, positions outside and heads inside, which is
// cut into strips of a register tile's rows.
#pragma once

#include <algorithm>
#include <atomic>
#include <limits>
#include <vector>

#include "core/carver.hpp"
#include "kernels/table.hpp"
#include "ops/attention.hpp"

namespace unitstride {

// Where an axis of an array (counted from the back) steps to.
template <class View>
std::ptrdiff_t stride_of(const View& view, int from_back) {
    return view.strides[view.axes - from_back];
}

// The place of an entry of the batch in an array with `own_axes` axes of its own.
template <class View>
std::ptrdiff_t batch_offset(const View& view, std::ptrdiff_t entry, int own_axes = 3) {
    std::ptrdiff_t offset = 0;
    for (int axis = view.axes - own_axes - 1; axis >= 0 && entry > 0; --axis) {
        offset += entry % view.shape[axis] * view.strides[axis];
        entry /= view.shape[axis];
    }
    return offset;
}

// Some of the rows that share keys.
struct AttentionRows {
    std::ptrdiff_t entry, key_head;
    std::ptrdiff_t first, count;
};

// The keys that some of the rows reach, and those that every row does.
struct AttentionExtent {
    std::ptrdiff_t begin, end, inner_begin, inner_end;
};

struct AttentionShape {
    const AttentionArguments& arguments;
    std::ptrdiff_t batch = 1, heads, key_heads, group, queries, keys, features, value_features;
    std::ptrdiff_t row_count;  // of the heads that share keys
    std::ptrdiff_t shared;     // such lists of rows: entries times heads of keys

    explicit AttentionShape(const AttentionArguments& call);

    double multiply_adds() const;
    std::ptrdiff_t head_of(const AttentionRows& rows, std::ptrdiff_t row) const {
        return rows.key_head * group + row % group;
    }
    std::ptrdiff_t head_index(const AttentionRows& rows, std::ptrdiff_t row) const {
        return rows.entry * heads + head_of(rows, row);
    }
    // The keys within reach of a query, whatever mask and bias say.
    void reach_of(std::ptrdiff_t entry, std::ptrdiff_t position, std::ptrdiff_t& begin,
                  std::ptrdiff_t& end) const;
    AttentionExtent extent_of(const AttentionRows& rows) const;
    // The places of the rows in an array with such strides, as few runs as there are.
    std::ptrdiff_t list_rows(const AttentionRows& rows, std::ptrdiff_t position_stride,
                             std::ptrdiff_t head_stride, Run* runs) const;
    // Where the first element of a head lies.
    template <class View>
    auto* head_start(const View& view, std::ptrdiff_t entry, std::ptrdiff_t head,
                     std::ptrdiff_t item) const {
        return view.data + (batch_offset(view, entry) + head * stride_of(view, 3)) * item;
    }
    // The place of a row in an array (*batch, heads, queries).
    std::ptrdiff_t place_by_row(const std::ptrdiff_t* strides, int axes, std::ptrdiff_t base,
                                const AttentionRows& rows, std::ptrdiff_t row) const {
        return base + head_of(rows, row) * strides[axes - 2] + row / group * strides[axes - 1];
    }
};

// The lists of rows that share keys: all of them, or those that a matrix unit refuses.
struct AttentionLists {
    explicit AttentionLists(std::ptrdiff_t all) : count(all) {}
    std::ptrdiff_t count;
    std::ptrdiff_t operator[](std::ptrdiff_t place) const {
        return kept_.empty() ? place : kept_[static_cast<std::size_t>(place)];
    }

    // From here on a list may be refused.
    void offer() { refused_ = std::vector<std::atomic<bool>>(static_cast<std::size_t>(count)); }
    void refuse(std::ptrdiff_t list) const {
        refused_[static_cast<std::size_t>(list)].store(true, std::memory_order_relaxed);
    }
    bool refused(std::ptrdiff_t list) const {
        return !refused_.empty() &&
               refused_[static_cast<std::size_t>(list)].load(std::memory_order_relaxed);
    }
    // What was refused is what is left.
    void keep_refused();

  private:
    mutable std::vector<std::atomic<bool>> refused_;
    std::vector<std::ptrdiff_t> kept_;
};

// Whether a matrix unit can do with such elements. What small ones lose is small beside the others:
// weights sum to one.
bool attention_reaches(const PowerRange& range);
// The unit to work on, or null: its panels pay where they are mostly full.
const MatrixUnit* matrix_unit_for(const AttentionShape& shape);

// Few rows read keys and values as they lie, where features are contiguous.
bool reads_directly(const AttentionShape& shape);
bool attention_decode(const AttentionShape& shape);

}  // namespace unitstride
