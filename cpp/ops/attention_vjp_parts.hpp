// The part of a gradient of attention that one chunk of rows and one block of keys make up.
//
// The products of queries and keys and of cotangents and values give weights and gradients of
// scores, strip by strip; from these come the parts of all three results. Part of
// attention_vjp.cpp.
#pragma once

#include <numeric>

#include "ops/attention_strips.hpp"

namespace unitstride {

template <class T>
class AttentionVjpParts {
  protected:
    using Element = T;
    using Size = std::ptrdiff_t;
    static constexpr Size chunk_strips = 8, max_tile_rows = 16;

    AttentionVjpParts(const AttentionShape& shape, const AttentionVjpArguments& arguments,
                      const MatrixUnit*)
        : shape_(shape),
          call_(arguments),
          strips_(shape),
          kernels_(strips_.kernels),
          panels_(strips_.panels_of(shape.features)),
          value_panels_(strips_.panels_of(shape.value_features)),
          strip_count_((shape.row_count + kernels_.rows - 1) / kernels_.rows),
          block_keys_(block_keys()) {}

    struct Own {
        T* queries;         // [strips][features][rows]
        T* cotangents;      // [strips][value features][rows]
        T* query_rows;      // panels of [chunk rows][columns]
        T* cotangent_rows;  // the same
        T* keys;            // panels of [features][columns]
        T* values;          // panels of [value features][columns]
        T* key_rows;        // panels of [block keys][columns]
        T* weights;         // [chunk rows][strip keys]
        T* gradients;       // the same
        T* derivative;      // [tile rows][strip keys]
        T* key_sums;        // panels of [block keys][columns]
        T* value_sums;      // the same
        T* level_high;      // [row count], whole strips
        T* level_low;
        T* delta;
        AttentionExtent* extent;  // [strips]
        T* query_sums;            // [all strips][panels][rows][columns]
        T* lines;                 // [2][rows][value features]
        PowerRange range;
        bool refused;  // the list is not for a matrix unit
        AttentionBuffers<T> buffers;
        AttentionSpecials<T> special_keys, special_queries, special_cotangents;
    };

    // A multiple of the tile's rows as well as of its columns: keys are both.
    Size block_keys() const {
        const Size unit = std::lcm(kernels_.rows, kernels_.columns);
        return kernels_.strip_keys / unit * unit;
    }
    Size chunk_rows() const { return chunk_strips * kernels_.rows; }
    Size query_sum_elements() const {
        return checked_multiply(checked_multiply(strip_count_, kernels_.rows),
                                panels_ * kernels_.columns);
    }

    Own carve(Carver& carver) const {
        const Size rows = chunk_rows(), columns = kernels_.columns;
        const Size all_rows = strip_count_ * kernels_.rows;
        const Size padded = rows * kernels_.strip_keys + kernels_.columns;
        Own own = {};
        own.queries = carver.take<T>(checked_multiply(rows, shape_.features));
        own.cotangents = carver.take<T>(checked_multiply(rows, shape_.value_features));
        own.query_rows =
            carver.take<T>(checked_multiply(round_up(rows, columns), panels_ * columns));
        own.cotangent_rows =
            carver.take<T>(checked_multiply(round_up(rows, columns), value_panels_ * columns));
        own.keys = carver.take<T>(checked_multiply(block_keys_, shape_.features));
        own.values = carver.take<T>(checked_multiply(block_keys_, shape_.value_features));
        own.key_rows = carver.take<T>(checked_multiply(block_keys_, panels_ * columns));
        own.weights = carver.take<T>(padded);
        own.gradients = carver.take<T>(padded);
        own.derivative =
            carver.take<T>(arguments().softcap != 0 ? kernels_.rows * kernels_.strip_keys : 0);
        own.key_sums = carver.take<T>(checked_multiply(block_keys_, panels_ * columns));
        own.value_sums = carver.take<T>(checked_multiply(block_keys_, value_panels_ * columns));
        own.level_high = carver.take<T>(all_rows);
        own.level_low = carver.take<T>(all_rows);
        own.delta = carver.take<T>(all_rows);
        own.extent = carver.take<AttentionExtent>(chunk_strips);
        own.lines = carver.take<T>(checked_multiply(2 * kernels_.rows, shape_.value_features));
        own.buffers = strips_.carve_buffers(carver);
        own.special_keys = strips_.carve_specials(carver, block_keys_, panels_);
        own.special_queries = strips_.carve_specials(carver, rows, panels_);
        own.special_cotangents = strips_.carve_specials(carver, rows, value_panels_);
        return own;
    }

    const AttentionArguments& arguments() const { return call_.forward; }

    AttentionRows strip_at(Size list, Size strip) const {
        const Size first = strip * kernels_.rows;
        return {list / shape_.key_heads, list % shape_.key_heads, first,
                std::min(kernels_.rows, shape_.row_count - first)};
    }

    void clear_sums(Own& own) const {
        const Size columns = kernels_.columns;
        std::fill_n(own.key_sums, block_keys_ * panels_ * columns, T(0));
        std::fill_n(own.value_sums, block_keys_ * value_panels_ * columns, T(0));
    }

    void pack_keys(Own& own, Size entry, Size head, Size key, Size count) const {
        const AttentionArguments& given = arguments();
        strips_.pack_across(given.key, entry, head, key, 0, count, own.keys);
        strips_.pack_across(given.value, entry, head, key, 0, count, own.values);
        strips_.pack_along(given.key, entry, head, key, 0, count, block_keys_, own.key_rows);
        strips_.set_specials_apart(own.key_rows, panels_, block_keys_, 0, count, own.special_keys);
    }

    void write_keys(Own&, const OutputView& view, Size entry, Size head, Size key, Size count,
                    const T* sums, Size panels) const {
        const Size columns = kernels_.columns, step = stride_of(view, 1);
        char* to = shape_.head_start(view, entry, head, strips_.item) +
                   key * stride_of(view, 2) * strips_.item;
        for (Size p = 0; p < panels; ++p) {
            SpillTask task = {};
            task.from = sums + p * block_keys_ * columns;
            task.to = to + p * columns * step * strips_.item;
            task.rows = count;
            task.columns = std::min(columns, view.shape[view.axes - 1] - p * columns);
            task.from_row = columns;
            task.to_row = stride_of(view, 2);
            task.to_column = step;
            strips_.fetch.spill(task);
        }
    }

    void run_chunk(Own& own, Size list, Size first, Size strips, Size key, Size count) const {
        const Size rows = (strips - 1) * kernels_.rows + strip_at(list, first + strips - 1).count;
        pack_rows(own, list, first, strips, rows);
        for (Size s = 0; s < strips; ++s) run_strip(own, list, first + s, s, key, count);
        AttentionAccumulate task = {};
        task.depth = rows;
        task.element_depth = round_up(chunk_rows(), kernels_.columns);
        task.keys = block_keys_;
        task.end = round_up(count, kernels_.rows);
        task.weights = own.weights;
        task.elements = own.cotangent_rows;
        task.sums = own.value_sums;
        task.panels = value_panels_;
        kernels_.accumulate(task);
        task.weights = own.gradients;
        task.elements = own.query_rows;
        task.sums = own.key_sums;
        task.panels = panels_;
        kernels_.accumulate(task);
    }

    // Queries and cotangents of a chunk: as strips, and as rows of panels.
    void pack_rows(Own& own, Size list, Size first, Size strips, Size rows) const {
        const Size columns = kernels_.columns, depth = round_up(chunk_rows(), columns);
        for (Size s = 0; s < strips; ++s) {
            const AttentionRows strip = strip_at(list, first + s);
            strips_.pack_strip(arguments().query, strip, own.buffers.runs,
                               own.queries + s * kernels_.rows * shape_.features);
            strips_.pack_strip(call_.cotangent, strip, own.buffers.runs,
                               own.cotangents + s * kernels_.rows * shape_.value_features);
        }
        const AttentionRows chunk = {list / shape_.key_heads, list % shape_.key_heads,
                                     first * kernels_.rows, rows};
        strips_.pack_rows_along(arguments().query, chunk, depth, own.query_rows);
        strips_.pack_rows_along(call_.cotangent, chunk, depth, own.cotangent_rows);
        strips_.set_specials_apart(own.query_rows, panels_, depth, 0, rows, own.special_queries);
        strips_.set_specials_apart(own.cotangent_rows, value_panels_, depth, 0, rows,
                                   own.special_cotangents);
    }

    // Weights and gradients of a strip, zero for what it does not reach, and its sums of queries.
    void run_strip(Own& own, Size list, Size s, Size within, Size key, Size count) const {
        const Size place = within * kernels_.rows * kernels_.strip_keys;
        T* const weights = own.weights + place;
        T* const gradients = own.gradients + place;
        const AttentionRows rows = strip_at(list, s);
        const AttentionExtent& extent = own.extent[within];
        AttentionStrip strip = {};
        strip.begin = std::max(extent.begin - key, Size{0}) / kernels_.columns * kernels_.columns;
        strip.end = round_up(std::min(extent.end - key, count), kernels_.columns);
        strip.rows = rows.count;
        strip.row = own.buffers.row;
        strip.features = shape_.features;
        strip.query = own.queries + within * kernels_.rows * shape_.features;
        strip.keys = own.keys;
        strip.scores = weights;
        strip.highest = own.buffers.highest;
        strip.rescale = own.buffers.rescale;
        strip.scale = arguments().scale;
        strip.softcap = arguments().softcap;
        strip.derivative = arguments().softcap != 0 ? own.derivative : nullptr;
        if (strip.begin >= strip.end || !strips_.describe(rows, extent, key, own.buffers, strip)) {
            clear(weights, 0, 0);
            clear(gradients, 0, 0);
            return;
        }
        const bool adjusts = strip.plain_begin > strip.begin || strip.plain_end < strip.end;
        kernels_.scores(strip);
        if (adjusts) kernels_.adjust(strip);
        AttentionStrip products = strip;
        products.query = own.cotangents + within * kernels_.rows * shape_.value_features;
        products.keys = own.values;
        products.features = shape_.value_features;
        products.scores = gradients;
        products.plain_begin = products.plain_end = products.begin;
        kernels_.scores(products);
        weigh_strip(own, strip, s, weights, gradients);
        clear_unused(rows, strip, weights, gradients);
        add_queries(own, strip, s, gradients);
        add_specials(own, strip, within, s, adjusts);
    }

    void weigh_strip(const Own& own, const AttentionStrip& strip, Size s, T* weights,
                     T* gradients) const {
        AttentionGradient task = {};
        task.scores = weights;
        task.gradients = gradients;
        task.derivative = strip.derivative;
        task.begin = strip.begin;
        task.end = strip.end;
        task.rows = strip.rows;
        task.factor = strips_.factor;
        task.scale = arguments().scale;
        task.level_high = own.level_high + s * kernels_.rows;
        task.level_low = own.level_low + s * kernels_.rows;
        task.delta = own.delta + s * kernels_.rows;
        kernels_.gradient(task);
    }

    // Zeros outside [begin, end) of every row of a strip.
    void clear(T* rows, Size begin, Size end) const {
        for (Size r = 0; r < kernels_.rows; ++r, rows += kernels_.strip_keys) {
            std::fill(rows, rows + begin, T(0));
            std::fill(rows + end, rows + kernels_.strip_keys, T(0));
        }
    }
    void clear_unused(const AttentionRows& rows, const AttentionStrip& strip, T* weights,
                      T* gradients) const {
        clear(weights, strip.begin, strip.end);
        clear(gradients, strip.begin, strip.end);
        const Size unused = (kernels_.rows - rows.count) * kernels_.strip_keys;
        std::fill_n(weights + rows.count * kernels_.strip_keys, unused, T(0));
        std::fill_n(gradients + rows.count * kernels_.strip_keys, unused, T(0));
    }

    void add_queries(Own& own, const AttentionStrip& strip, Size s, T* gradients) const {
        AttentionStrip task = strip;
        task.scores = gradients;
        task.values = own.key_rows;
        task.value_panels = panels_;
        task.value_depth = block_keys_;
        task.first = false;
        task.rescales = false;
        task.averages = own.query_sums + s * kernels_.rows * panels_ * kernels_.columns;
        kernels_.average(task);
    }

    // What was taken out of the panels for not being finite, where it is attended to.
    void add_specials(Own& own, const AttentionStrip& strip, Size within, Size s,
                      bool adjusted) const {
        const Size columns = kernels_.columns, keys = kernels_.strip_keys;
        const auto attends = [&](Size r, Size k) {
            return !adjusted || strips_.attends(strip.row[r], k);
        };
        const auto add = [&](T* sums, Size depth, Size row, T factor,
                             const AttentionSpecials<T>& specials, Size i, Size panels) {
            for (Size f = 0; f < panels * columns; ++f)
                sums[(f / columns * depth + row) * columns + f % columns] +=
                    factor * specials.elements[i * panels * columns + f];
        };
        const T* weights = own.weights + within * kernels_.rows * keys;
        const T* gradients = own.gradients + within * kernels_.rows * keys;
        T* queries = own.query_sums + s * kernels_.rows * panels_ * columns;
        for (Size i = 0; i < own.special_keys.count; ++i)
            for (Size r = 0, k = own.special_keys.index[i]; r < strip.rows; ++r)
                if (k >= strip.begin && k < strip.end && attends(r, k))
                    add(queries, kernels_.rows, r, gradients[r * keys + k], own.special_keys, i,
                        panels_);
        const auto add_rows = [&](const AttentionSpecials<T>& specials, const T* factors, T* sums,
                                  Size panels) {
            for (Size i = 0; i < specials.count; ++i) {
                const Size r = specials.index[i] - within * kernels_.rows;
                if (r < 0 || r >= strip.rows) continue;
                for (Size k = strip.begin; k < strip.end; ++k)
                    if (attends(r, k))
                        add(sums, block_keys_, k, factors[r * keys + k], specials, i, panels);
            }
        };
        add_rows(own.special_queries, gradients, own.key_sums, panels_);
        add_rows(own.special_cotangents, weights, own.value_sums, value_panels_);
    }

    const AttentionShape& shape_;
    const AttentionVjpArguments& call_;
    const AttentionStrips<T> strips_;
    const AttentionKernels& kernels_;
    const Size panels_, value_panels_;
    const Size strip_count_;  // of a list of rows
    const Size block_keys_;
};

}  // namespace unitstride
