// The part of a gradient of attention that one chunk of rows and one block of keys make up, on a
// matrix unit: see kernels/amx/attention_vjp.cpp. Part of attention_vjp.cpp.
#pragma once

#include "ops/attention_strips.hpp"

namespace unitstride {

class AttentionVjpUnit {
  protected:
    using Element = float;
    using Size = std::ptrdiff_t;
    static constexpr Size chunk_strips = 4, max_tile_rows = 32;
    // Of packed keys and values and of their sums, which stay in the second-level cache.
    static constexpr Size block_bytes = 900 << 10;

    AttentionVjpUnit(const AttentionShape& shape, const AttentionVjpArguments& arguments,
                     const MatrixUnit* unit)
        : shape_(shape),
          call_(arguments),
          strips_(shape, unit),
          kernels_(strips_.kernels),
          back_(*unit->attention_vjp),
          panels_(strips_.panels_of(shape.features)),
          value_panels_(strips_.panels_of(shape.value_features)),
          strip_count_((shape.row_count + kernels_.rows - 1) / kernels_.rows),
          block_keys_(block_keys()) {}

    struct Own {
        char* queries;            // [strips], packed
        char* cotangents;         // [strips], packed
        char* query_columns;      // panels of features, the chunk's rows along them
        char* cotangent_columns;  // the same
        char* keys;               // panels of keys
        char* values;             // panels of keys
        char* key_rows;           // panels of features, the block's keys along them
        char* weights;            // [panels of keys][strips], parts by columns
        char* gradients;          // the same
        char* row_gradients;      // [stretch], parts by rows
        float* products;          // [rows][stretch]
        float* derivative;        // the same
        float* key_sums;          // [panels of features][features][block keys]
        float* value_sums;        // the same
        float* level_high;        // [row count], whole strips
        float* level_low;
        float* delta;
        AttentionExtent* extent;  // [strips]
        float* query_sums;        // [all strips][panels][rows][columns]
        float* lines;             // [2][rows][value features], or [rows][features]
        AttentionBuffers<float> buffers;
        Run* runs;         // [chunk rows]
        PowerRange range;  // of what the list gives
        bool refused;      // the list is not for the unit
    };

    Size block_keys() const {
        const Size floats = 2 * static_cast<Size>(sizeof(float));
        const Size depth = (panels_ + value_panels_) * kernels_.columns;
        const Size most =
            block_bytes / (depth * (2 * kernels_.key_bytes / kernels_.columns + floats));
        const Size stretch = back_.stretch_keys;
        return std::clamp<Size>(most / stretch * stretch, stretch, kernels_.strip_keys);
    }
    Size chunk_rows() const { return chunk_strips * kernels_.rows; }
    Size key_panels() const { return block_keys_ / kernels_.columns; }
    Size weight_panel_bytes() const { return chunk_strips * back_.weight_bytes; }
    Size strip_bytes(Size features) const {
        return round_up(features, kernels_.depth_unit) * kernels_.query_bytes;
    }
    Size query_sum_elements() const {
        return checked_multiply(checked_multiply(strip_count_, kernels_.rows),
                                panels_ * kernels_.columns);
    }

    Own carve(Carver& carver) const {
        const Size rows = chunk_rows(), columns = kernels_.columns, stretch = back_.stretch_keys;
        const Size all_rows = strip_count_ * kernels_.rows;
        Own own = {};
        own.queries = carver.take<char>(chunk_strips * strip_bytes(shape_.features));
        own.cotangents = carver.take<char>(chunk_strips * strip_bytes(shape_.value_features));
        own.query_columns = carver.take<char>(checked_multiply(panels_, strip_bytes(rows)));
        own.cotangent_columns =
            carver.take<char>(checked_multiply(value_panels_, strip_bytes(rows)));
        own.keys =
            carver.take<char>(checked_multiply(key_panels(), strips_.panel_bytes(shape_.features)));
        own.values = carver.take<char>(
            checked_multiply(key_panels(), strips_.panel_bytes(shape_.value_features)));
        own.key_rows =
            carver.take<char>(checked_multiply(panels_, strips_.panel_bytes(block_keys_)));
        own.weights = carver.take<char>(key_panels() * weight_panel_bytes());
        own.gradients = carver.take<char>(key_panels() * weight_panel_bytes());
        own.row_gradients = carver.take<char>(stretch / columns * back_.weight_bytes);
        own.products = carver.take<float>(kernels_.rows * stretch);
        own.derivative = carver.take<float>(arguments().softcap != 0 ? kernels_.rows * stretch : 0);
        own.key_sums = carver.take<float>(checked_multiply(block_keys_, panels_ * columns));
        own.value_sums = carver.take<float>(checked_multiply(block_keys_, value_panels_ * columns));
        own.level_high = carver.take<float>(all_rows);
        own.level_low = carver.take<float>(all_rows);
        own.delta = carver.take<float>(all_rows);
        own.extent = carver.take<AttentionExtent>(chunk_strips);
        own.lines = carver.take<float>(
            checked_multiply(kernels_.rows, std::max(2 * shape_.value_features, shape_.features)));
        own.buffers = strips_.carve_buffers(carver);
        own.runs = carver.take<Run>(rows);
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
        std::fill_n(own.key_sums, block_keys_ * panels_ * columns, 0.0f);
        std::fill_n(own.value_sums, block_keys_ * value_panels_ * columns, 0.0f);
    }

    void pack_keys(Own& own, Size entry, Size head, Size key, Size count) const {
        const AttentionArguments& given = arguments();
        strips_.pack_across(given.key, entry, head, key, 0, count, own.keys, &own.range);
        strips_.pack_across(given.value, entry, head, key, 0, count, own.values, &own.range);
        strips_.pack_along(given.key, entry, head, key, 0, count, block_keys_, own.key_rows,
                           &own.range);
    }

    // The sums lie across the array: they are turned a few keys at a time.
    void write_keys(Own& own, const OutputView& view, Size entry, Size head, Size key, Size count,
                    const float* sums, Size) const {
        const Size features = view.shape[view.axes - 1], step = stride_of(view, 2);
        char* const to = shape_.head_start(view, entry, head, strips_.item);
        for (Size first = 0; first < count; first += kernels_.rows) {
            FetchTask turn = {};
            turn.from = sums + first;
            turn.to = own.lines;
            turn.rows = std::min(kernels_.rows, count - first);
            turn.columns = turn.to_row = features;
            turn.from_row = 1;
            turn.from_column = block_keys_;
            strips_.table.fetch[static_cast<int>(Storage::float32)].fetch(turn);
            SpillTask task = {};
            task.from = own.lines;
            task.to = to + (key + first) * step * strips_.item;
            task.rows = turn.rows;
            task.columns = task.from_row = features;
            task.to_row = step;
            task.to_column = stride_of(view, 1);
            strips_.fetch.spill(task);
        }
    }

    void run_chunk(Own& own, Size list, Size first, Size strips, Size key, Size count) const {
        const Size rows = (strips - 1) * kernels_.rows + strip_at(list, first + strips - 1).count;
        pack_rows(own, list, first, strips, rows);
        own.refused = !attention_reaches(own.range);
        if (own.refused) return;
        AttentionAccumulate task = {};
        task.begin = block_keys_;
        for (Size s = 0; s < strips; ++s) {
            Size begin, end;
            reach_of(own.extent[s], key, count, begin, end);
            if (begin >= end) continue;
            task.begin = std::min(task.begin, begin);
            task.end = std::max(task.end, end);
        }
        for (Size s = 0; s < strips; ++s)
            run_strip(own, list, first + s, s, key, count, task.begin, task.end);
        task.depth = rows;
        task.element_depth = chunk_rows();
        task.keys = block_keys_;
        task.weights = own.weights;
        task.elements = own.cotangent_columns;
        task.sums = own.value_sums;
        task.panels = value_panels_;
        back_.accumulate(task);
        task.weights = own.gradients;
        task.elements = own.query_columns;
        task.sums = own.key_sums;
        task.panels = panels_;
        back_.accumulate(task);
    }

    void pack_rows(Own& own, Size list, Size first, Size strips, Size rows) const {
        for (Size s = 0; s < strips; ++s) {
            const AttentionRows strip = strip_at(list, first + s);
            strips_.pack_strip(arguments().query, strip, own.runs,
                               own.queries + s * strip_bytes(shape_.features), &own.range);
            strips_.pack_strip(call_.cotangent, strip, own.runs,
                               own.cotangents + s * strip_bytes(shape_.value_features), &own.range);
        }
        const AttentionRows chunk = {list / shape_.key_heads, list % shape_.key_heads,
                                     first * kernels_.rows, rows};
        strips_.pack_rows_across(arguments().query, chunk, own.runs, chunk_rows(),
                                 own.query_columns, &own.range);
        strips_.pack_rows_across(call_.cotangent, chunk, own.runs, chunk_rows(),
                                 own.cotangent_columns, &own.range);
    }

    // The panels of a block that a strip reaches.
    void reach_of(const AttentionExtent& extent, Size key, Size count, Size& begin,
                  Size& end) const {
        begin = std::max(extent.begin - key, Size{0}) / kernels_.columns * kernels_.columns;
        end = round_up(std::min(extent.end - key, count), kernels_.columns);
    }

    // The chunk reaches the keys from `first` to `last`.
    void run_strip(Own& own, Size list, Size s, Size place, Size key, Size count, Size first,
                   Size last) const {
        const AttentionRows rows = strip_at(list, s);
        const AttentionExtent& extent = own.extent[place];
        AttentionReturn task = {};
        AttentionStrip& strip = task.strip;
        reach_of(extent, key, count, strip.begin, strip.end);
        strip.rows = rows.count;
        strip.row = own.buffers.row;
        strip.features = shape_.features;
        strip.query = own.queries + place * strip_bytes(shape_.features);
        strip.keys = own.keys;
        strip.values = own.key_rows;
        strip.value_panels = panels_;
        strip.value_depth = block_keys_;
        strip.scores = own.buffers.scores;
        strip.highest = own.buffers.highest;
        strip.scale = arguments().scale;
        strip.softcap = arguments().softcap;
        strip.derivative = arguments().softcap != 0 ? own.derivative : nullptr;
        strip.averages = own.query_sums + s * kernels_.rows * panels_ * kernels_.columns;
        task.weights = own.weights + place * back_.weight_bytes;
        task.gradients = own.gradients + place * back_.weight_bytes;
        task.panel_bytes = weight_panel_bytes();
        if (strip.begin >= strip.end || !strips_.describe(rows, extent, key, own.buffers, strip)) {
            clear(task, first, last);
            return;
        }
        clear(task, first, strip.begin);
        clear(task, strip.end, last);
        task.cotangents = own.cotangents + place * strip_bytes(shape_.value_features);
        task.values = own.values;
        task.value_features = shape_.value_features;
        task.products = own.products;
        task.row_gradients = own.row_gradients;
        set_levels(own, s, task.gradient);
        task.gradient.rows = rows.count;
        back_.go_back(task, strip.plain_begin > strip.begin || strip.plain_end < strip.end);
    }

    void set_levels(const Own& own, Size s, AttentionGradient& task) const {
        task.factor = strips_.factor;
        task.scale = arguments().scale;
        task.level_high = own.level_high + s * kernels_.rows;
        task.level_low = own.level_low + s * kernels_.rows;
        task.delta = own.delta + s * kernels_.rows;
    }

    // A strip's weights and gradients for keys that it does not reach.
    void clear(const AttentionReturn& task, Size begin, Size end) const {
        for (Size panel = begin / kernels_.columns; panel < end / kernels_.columns; ++panel) {
            const Size place = panel * task.panel_bytes;
            std::fill_n(static_cast<char*>(task.weights) + place, back_.weight_bytes, char{0});
            std::fill_n(static_cast<char*>(task.gradients) + place, back_.weight_bytes, char{0});
        }
    }

    const AttentionShape& shape_;
    const AttentionVjpArguments& call_;
    const AttentionStrips<float> strips_;
    const AttentionKernels& kernels_;
    const AttentionReturnKernels& back_;
    const Size panels_, value_panels_;
    const Size strip_count_;  // of a list of rows
    const Size block_keys_;
};

}  // namespace unitstride
