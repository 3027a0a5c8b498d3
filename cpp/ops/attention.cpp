// Attention by chunks of query rows that meet the keys block by block.
//
// The rows of the heads that share keys form one list, positions outside and heads inside, which is
// cut into strips of a register tile's rows and into chunks of strips. A thread takes a chunk,
// packs its queries, and for each block of keys packs keys and values once for all its strips:
// nothing is shared between threads, and memory does not grow with the lengths. Blocks begin at
// multiples of their size, and what a row meets does not depend on its neighbours, so neither do
// its bits.
#include "ops/attention.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>

#include "core/checked.hpp"
#include "core/parallel.hpp"
#include "core/scratch.hpp"
#include "isa/dispatch.hpp"
#include "ops/lines.hpp"

namespace unitstride {
namespace {

using Size = std::ptrdiff_t;

constexpr double log2_e = 0x1.71547652b82fep+0, ln2 = 0x1.62e42fefa39efp-1;
constexpr double multiply_adds_per_nanosecond = 50;
constexpr Size most_strips = 16;       // of a chunk: packing keys and values is shared by them
constexpr Size packed_bytes = 1 << 19;  // of keys and values together

// Where an axis of an array (counted from the back) steps to.
template <class View>
Size stride_of(const View& view, int from_back) {
    return view.strides[view.axes - from_back];
}

template <class View>
Size batch_offset(const View& view, Size entry) {
    Size offset = 0;
    for (int axis = view.axes - 4; axis >= 0; --axis) {
        offset += entry % view.shape[axis] * view.strides[axis];
        entry /= view.shape[axis];
    }
    return offset;
}

struct Geometry {
    Size batch = 1, heads, key_heads, group, queries, keys, features, value_features;
    Size rows;  // of the heads that share keys

    explicit Geometry(const AttentionArguments& arguments) {
        const InputView& query = arguments.query;
        for (int axis = 0; axis < query.axes - 3; ++axis)
            batch = checked_multiply(batch, query.shape[axis]);
        heads = query.shape[query.axes - 3];
        queries = query.shape[query.axes - 2];
        features = query.shape[query.axes - 1];
        key_heads = arguments.key.shape[query.axes - 3];
        keys = arguments.key.shape[query.axes - 2];
        value_features = arguments.value.shape[query.axes - 1];
        group = key_heads > 0 ? heads / key_heads : 1;
        rows = checked_multiply(group, queries);
    }
};

// Cuts scratch memory into arrays.
class Carver {
  public:
    explicit Carver(char* memory) : memory_(memory) {}
    template <class Item>
    Item* take(Size count) {
        char* at = memory_ + used_;
        used_ = checked_add(
            used_, round_up(checked_multiply(count, static_cast<Size>(sizeof(Item))), scratch_alignment));
        return reinterpret_cast<Item*>(at);
    }
    Size used() const { return used_; }

  private:
    char* memory_;
    Size used_ = 0;
};

// A row of a chunk: the keys it reaches and where its mask and bias lie.
struct Reach {
    Size begin, end;
    Size diagonal;
    const char* mask;  // of key 0
    const char* bias;
    double slope;
};

// The reach of a strip: some row's, and every row's.
struct Extent {
    Size begin, end, inner_begin, inner_end;
};

template <class T>
class Attention {
  public:
    explicit Attention(const AttentionArguments& arguments)
        : arguments_(arguments),
          geometry_(arguments),
          table_(kernels()),
          kernels_(table_.attention[sizeof(T) == 4 ? 0 : 1]),
          fetch_(table_.fetch[static_cast<int>(arguments.storage)]),
          packers_(table_.gemm_packers[static_cast<int>(arguments.storage)]),
          item_(storage_bytes(arguments.storage)),
          value_panels_((geometry_.value_features + kernels_.columns - 1) / kernels_.columns),
          block_keys_(block_keys()),
          strips_((geometry_.rows + kernels_.rows - 1) / kernels_.rows),
          transforms_(arguments.softcap != 0 || arguments.bias || arguments.slopes ||
                      !(arguments.scale > 0)),
          factor_(transforms_ ? log2_e : arguments.scale * log2_e) {}

    bool run() {
        const Size shared = geometry_.batch * geometry_.key_heads;
        const double cost = attention_cost(arguments_) / multiply_adds_per_nanosecond;
        const int most = workers_for(cost, checked_multiply(shared, strips_));
        const Size wanted = (strips_ * shared + 8 * most - 1) / (8 * most);
        chunk_ = std::clamp<Size>(wanted, 1, most_strips);
        chunks_ = (strips_ + chunk_ - 1) / chunk_;
        Carver sizes(nullptr);
        carve(sizes);
        const Scratch scratch(sizes.used(), most);
        parallel_for(most, checked_multiply(shared, chunks_),
                     [&](Worker& worker, Size begin, Size end) {
                         Carver carver(scratch.of_worker(worker.index()));
                         Own own = carve(carver);
                         for (Size item = begin; item < end; ++item)
                             if (!run_chunk(worker, own, item)) return;
                     });
        return finite_.load();
    }

  private:
    struct Own {
        T* queries;   // [strips][features][rows]
        T* keys;      // [panels][features][columns]
        T* values;    // [value panels][block keys][columns]
        T* averages;  // [strips][value panels][rows][columns]
        T* level;     // [strips][rows]
        T* sums;      // [strips][rows][lanes]
        T* scores;
        T* highest;
        T* rescale;
        T* bias;              // [rows][strip keys]
        unsigned char* mask;  // [rows][strip keys]
        Reach* reach;         // [strips][rows]
        Extent* extent;       // [strips]
        bool* begun;          // [strips]
        AttentionRow* row;    // [rows]
        double* totals;
        Run* runs;         // [rows]
        Size* special;     // keys of the block with values that are not finite
        T* special_values;  // [those][value panels x columns]
        Size specials;
    };

    // Keys and values of a block fit into a cache together.
    Size block_keys() const {
        const Size width = geometry_.features + value_panels_ * kernels_.columns;
        const Size most = packed_bytes / (std::max<Size>(width, 1) * static_cast<Size>(sizeof(T)));
        return std::clamp<Size>(most / kernels_.columns * kernels_.columns, kernels_.columns,
                                kernels_.strip_keys);
    }

    Own carve(Carver& carver) const {
        const Size rows = kernels_.rows, lanes = kernels_.lanes;
        const Size width = value_panels_ * kernels_.columns;
        Own own = {};
        own.queries = carver.template take<T>(checked_multiply(chunk_ * rows, geometry_.features));
        own.keys = carver.template take<T>(checked_multiply(block_keys_, geometry_.features));
        own.values = carver.template take<T>(checked_multiply(block_keys_, width));
        own.averages = carver.template take<T>(checked_multiply(chunk_ * rows, width));
        own.level = carver.template take<T>(chunk_ * rows);
        own.sums = carver.template take<T>(chunk_ * rows * lanes);
        own.scores = carver.template take<T>(rows * kernels_.strip_keys);
        own.highest = carver.template take<T>(rows * lanes);
        own.rescale = carver.template take<T>(rows);
        own.bias = carver.template take<T>(rows * kernels_.strip_keys);
        own.mask = carver.template take<unsigned char>(rows * kernels_.strip_keys + 64);
        own.reach = carver.template take<Reach>(chunk_ * rows);
        own.extent = carver.template take<Extent>(chunk_);
        own.begun = carver.template take<bool>(chunk_);
        own.row = carver.template take<AttentionRow>(rows);
        own.totals = carver.template take<double>(rows);
        own.runs = carver.template take<Run>(rows + 1);
        own.special = carver.template take<Size>(block_keys_);
        own.special_values = carver.template take<T>(checked_multiply(block_keys_, width));
        return own;
    }

    struct Chunk {
        Size entry, key_head, first_row, rows;
    };

    // With causal masks later chunks are the longer ones: they come first.
    Chunk chunk_of(Size item) const {
        const Size shared = item / chunks_;
        const Size first = (chunks_ - 1 - item % chunks_) * chunk_ * kernels_.rows;
        return {shared / geometry_.key_heads, shared % geometry_.key_heads, first,
                std::min(chunk_ * kernels_.rows, geometry_.rows - first)};
    }

    bool run_chunk(Worker& worker, Own& own, Size item) {
        const Chunk chunk = chunk_of(item);
        const Size strips = (chunk.rows + kernels_.rows - 1) / kernels_.rows;
        Size begin = geometry_.keys, end = 0;
        for (Size s = 0; s < strips; ++s) {
            begin_strip(own, chunk, s);
            begin = std::min(begin, own.extent[s].begin);
            end = std::max(end, own.extent[s].end);
        }
        for (Size key = begin / block_keys_ * block_keys_; key < end; key += block_keys_) {
            if (!worker.proceed()) return false;
            const Size first = std::max(begin - key, Size{0}) / kernels_.columns * kernels_.columns;
            pack_block(own, chunk, key, first, std::min(block_keys_, end - key));
            for (Size s = 0; s < strips; ++s) meet_block(own, chunk, s, key);
        }
        for (Size s = 0; s < strips; ++s) finish_strip(own, chunk, s);
        return worker.proceed();
    }

    Size rows_of_strip(const Chunk& chunk, Size s) const {
        return std::min(kernels_.rows, chunk.rows - s * kernels_.rows);
    }

    // The places of rows of a strip in an array with such strides, as few runs as there are.
    Size list_rows(const Chunk& chunk, Size s, Size position_stride, Size head_stride,
                   Run* runs) const {
        Size row = chunk.first_row + s * kernels_.rows, left = rows_of_strip(chunk, s), count = 0;
        const Size group = geometry_.group;
        if (group == 1) {
            runs[0] = {row * position_stride, position_stride, left};
            return 1;
        }
        while (left > 0) {
            const Size head = row % group, now = std::min(group - head, left);
            runs[count++] = {row / group * position_stride + head * head_stride, head_stride, now};
            row += now;
            left -= now;
        }
        return count;
    }

    template <class View>
    auto* group_start(const View& view, Size entry, Size head, Size item) const {
        return view.data + (batch_offset(view, entry) + head * stride_of(view, 3)) * item;
    }

    void begin_strip(Own& own, const Chunk& chunk, Size s) const {
        const Size rows = kernels_.rows, lanes = kernels_.lanes, used = rows_of_strip(chunk, s);
        const InputView& query = arguments_.query;
        T* panel = own.queries + s * rows * geometry_.features;
        if (used < rows) std::fill_n(panel, rows * geometry_.features, T(0));
        PanelTask task = {};
        task.array = group_start(query, chunk.entry, chunk.key_head * geometry_.group, item_);
        task.panel = panel;
        task.across = own.runs;
        task.across_runs = list_rows(chunk, s, stride_of(query, 2), stride_of(query, 3), own.runs);
        const Run along = {0, stride_of(query, 1), geometry_.features};
        task.along = &along;
        task.along_runs = 1;
        if (geometry_.features > 0) packers_.rows(task);
        T* level = own.level + s * rows;
        T* sums = own.sums + s * rows * lanes;
        std::fill_n(sums, rows * lanes, T(0));
        own.begun[s] = false;
        Extent& extent = own.extent[s];
        extent = {geometry_.keys, 0, 0, geometry_.keys};
        for (Size r = 0; r < used; ++r) {
            const Size row = chunk.first_row + s * rows + r;
            const Reach reach = reach_of(chunk, row);
            own.reach[s * rows + r] = reach;
            if (reach.begin < reach.end) {
                extent.begin = std::min(extent.begin, reach.begin);
                extent.end = std::max(extent.end, reach.end);
            }
            extent.inner_begin = std::max(extent.inner_begin, reach.begin);
            extent.inner_end = std::min(extent.inner_end, reach.end);
            level[r] = static_cast<T>(sink_of(chunk, row) * log2_e);
            if (level[r] > -std::numeric_limits<T>::infinity()) sums[r * lanes] = T(1);
            if (std::isinf(level[r]) || std::isnan(level[r])) sums[r * lanes] = level[r] > 0 || std::isnan(level[r]) ? std::numeric_limits<T>::quiet_NaN() : T(0);
        }
    }

    double sink_of(const Chunk& chunk, Size row) const {
        const bool counts = row / geometry_.group < arguments_.query_lengths[chunk.entry];
        if (!arguments_.sinks || !counts) return -std::numeric_limits<double>::infinity();
        return arguments_.sinks[head_index(chunk, row)];
    }

    Size head_of(const Chunk& chunk, Size row) const {
        return chunk.key_head * geometry_.group + row % geometry_.group;
    }
    Size head_index(const Chunk& chunk, Size row) const {
        return chunk.entry * geometry_.heads + head_of(chunk, row);
    }

    Reach reach_of(const Chunk& chunk, Size row) const {
        const Size position = row / geometry_.group, head = head_of(chunk, row);
        const Size diagonal = position + arguments_.offset[chunk.entry];
        Reach reach = {};
        reach.diagonal = diagonal;
        if (position < arguments_.query_lengths[chunk.entry]) {
            reach.begin = std::max<Size>(0, diagonal + arguments_.lowest);
            reach.end = std::min<Size>(arguments_.key_lengths[chunk.entry],
                                       diagonal + arguments_.highest + 1);
        }
        if (reach.begin >= reach.end) reach.begin = reach.end = 0;
        const auto row_of = [&](const InputView& view, Size item) {
            return group_start(view, chunk.entry, head, item) + position * stride_of(view, 2) * item;
        };
        if (arguments_.mask) reach.mask = row_of(arguments_.mask, 1);
        if (arguments_.bias)
            reach.bias = row_of(arguments_.bias, storage_bytes(arguments_.bias_storage));
        if (arguments_.slopes) reach.slope = arguments_.slopes[head_index(chunk, row)];
        return reach;
    }

    // Keys [first, end) of the block that begins at `key`.
    void pack_block(Own& own, const Chunk& chunk, Size key, Size first, Size end) const {
        const Size columns = kernels_.columns, features = geometry_.features;
        const Size whole = round_up(end, columns);
        const Run count = {0, 0, end - first};
        PanelTask task = {};
        Run across = {(key + first) * stride_of(arguments_.key, 2), stride_of(arguments_.key, 2),
                      count.count};
        Run along = {0, stride_of(arguments_.key, 1), features};
        task.across = &across;
        task.along = &along;
        task.across_runs = task.along_runs = 1;
        task.array = group_start(arguments_.key, chunk.entry, chunk.key_head, item_);
        task.panel = own.keys + first * features;
        task.panel_bytes = columns * features * static_cast<Size>(sizeof(T));
        if (whole > end)
            std::fill_n(own.keys + (whole - columns) * features, columns * features, T(0));
        if (features > 0) packers_.columns(task);
        pack_values(own, chunk, key, first, end);
    }

    void pack_values(Own& own, const Chunk& chunk, Size key, Size first, Size end) const {
        const Size columns = kernels_.columns, step = stride_of(arguments_.value, 2);
        const Size whole = round_up(end, columns);
        const Run across = {0, stride_of(arguments_.value, 1), geometry_.value_features};
        const Run along = {(key + first) * step, step, end - first};
        PanelTask task = {};
        task.across = &across;
        task.along = &along;
        task.across_runs = task.along_runs = 1;
        task.array = group_start(arguments_.value, chunk.entry, chunk.key_head, item_);
        task.panel = own.values + first * columns;
        task.panel_bytes = columns * block_keys_ * static_cast<Size>(sizeof(T));
        own.specials = 0;
        if (value_panels_ == 0) return;
        T* last = own.values + (value_panels_ - 1) * block_keys_ * columns;
        if (geometry_.value_features % columns != 0)
            std::fill_n(last + first * columns, (whole - first) * columns, T(0));
        packers_.columns(task);
        bool finite = true;
        for (Size p = 0; p < value_panels_; ++p) {
            T* panel = own.values + p * block_keys_ * columns;
            std::fill_n(panel + end * columns, (whole - end) * columns, T(0));
            finite = finite && kernels_.all_finite(panel + first * columns, (end - first) * columns);
        }
        if (!finite) set_special_apart(own, first, end);
    }

    // Values that are not finite would reach rows that exclude them: 0 * inf is NaN. They leave the
    // panels and are added row by row (`add_special`).
    void set_special_apart(Own& own, Size first, Size end) const {
        const Size columns = kernels_.columns, width = value_panels_ * columns;
        for (Size k = first; k < end; ++k) {
            bool finite = true;
            T* apart = own.special_values + own.specials * width;
            for (Size i = 0; i < width; ++i) {
                apart[i] = own.values[(i / columns * block_keys_ + k) * columns + i % columns];
                finite = finite && std::isfinite(apart[i]);
            }
            if (finite) continue;
            own.special[own.specials++] = k;
            for (Size i = 0; i < width; ++i)
                own.values[(i / columns * block_keys_ + k) * columns + i % columns] = 0;
        }
    }

    void meet_block(Own& own, const Chunk& chunk, Size s, Size key) const {
        const Extent& extent = own.extent[s];
        const Size columns = kernels_.columns, rows = kernels_.rows;
        const Size first = std::max(extent.begin - key, Size{0});
        const Size last = std::min(extent.end - key, block_keys_);
        if (first >= last) return;
        AttentionStrip strip = strip_of(own, chunk, s);
        strip.begin = first / columns * columns;
        strip.end = round_up(last, columns);
        bool adjusts = transforms_ || extent.inner_begin > key + strip.begin ||
                       extent.inner_end < key + strip.end;
        for (Size r = 0; r < strip.rows; ++r) {
            const Reach& reach = own.reach[s * rows + r];
            own.row[r] = {std::max(reach.begin - key, Size{0}), std::min(reach.end - key, block_keys_),
                          nullptr, nullptr, reach.slope, reach.diagonal - key};
        }
        if (arguments_.mask) {
            collect_masks(own, s, key, strip);
            const MaskState state = kernels_.mask_state(strip);
            if (state == MaskState::none) return;
            if (state == MaskState::all)
                for (Size r = 0; r < strip.rows; ++r) own.row[r].mask = nullptr;
            adjusts = adjusts || state == MaskState::some;
        }
        if (arguments_.bias) collect_biases(own, s, key, strip);
        kernels_.scores(strip);
        if (adjusts) kernels_.adjust(strip);
        kernels_.weigh(strip);
        kernels_.average(strip);
        own.begun[s] = true;
        if (own.specials > 0) add_special(own, s, key, strip);
    }

    AttentionStrip strip_of(Own& own, const Chunk& chunk, Size s) const {
        const Size rows = kernels_.rows;
        AttentionStrip strip = {};
        strip.query = own.queries + s * rows * geometry_.features;
        strip.keys = own.keys;
        strip.values = own.values;
        strip.features = geometry_.features;
        strip.value_panels = value_panels_;
        strip.value_depth = block_keys_;
        strip.rows = rows_of_strip(chunk, s);
        strip.row = own.row;
        strip.scale = arguments_.scale;
        strip.softcap = arguments_.softcap;
        strip.transforms = transforms_;
        strip.factor = factor_;
        strip.first = !own.begun[s];
        strip.scores = own.scores;
        strip.highest = own.highest;
        strip.level = own.level + s * rows;
        strip.sums = own.sums + s * rows * kernels_.lanes;
        strip.rescale = own.rescale;
        strip.averages = own.averages + s * rows * value_panels_ * kernels_.columns;
        strip.totals = own.totals;
        return strip;
    }

    // The mask bytes of the strip, side by side, none past the last key.
    void collect_masks(Own& own, Size s, Size key, const AttentionStrip& strip) const {
        const Size step = stride_of(arguments_.mask, 1);
        const Size end = std::min(strip.end, geometry_.keys - key);
        for (Size r = 0; r < strip.rows; ++r) {
            unsigned char* to = own.mask + r * kernels_.strip_keys;
            const char* from = own.reach[s * kernels_.rows + r].mask + key * step;
            if (step == 1) {
                std::memcpy(to + strip.begin, from + strip.begin,
                            static_cast<std::size_t>(end - strip.begin));
            } else {
                for (Size k = strip.begin; k < end; ++k)
                    to[k] = static_cast<unsigned char>(from[k * step]);
            }
            for (Size k = end; k < strip.end; ++k) to[k] = 0;
            own.row[r].mask = to;
        }
    }

    // Biases as they lie where they are of the compute type, contiguous and whole panels.
    void collect_biases(Own& own, Size s, Size key, const AttentionStrip& strip) const {
        const Size step = stride_of(arguments_.bias, 1), item = storage_bytes(arguments_.bias_storage);
        const Size end = std::min(strip.end, geometry_.keys - key);
        const bool direct =
            step == 1 && item == static_cast<Size>(sizeof(T)) && end == strip.end;
        for (Size r = 0; r < strip.rows; ++r) {
            const char* from = own.reach[s * kernels_.rows + r].bias + key * step * item;
            T* to = own.bias + r * kernels_.strip_keys;
            own.row[r].bias = direct ? static_cast<const void*>(from) : to;
            if (direct) continue;
            FetchTask task = {};
            task.from = from + strip.begin * step * item;
            task.to = to + strip.begin;
            task.rows = 1;
            task.columns = end - strip.begin;
            task.from_column = step;
            task.to_row = task.columns;
            table_.fetch[static_cast<int>(arguments_.bias_storage)].fetch(task);
            for (Size k = end; k < strip.end; ++k) to[k] = 0;
        }
    }

    bool attends(const Own& own, Size r, Size key) const {
        const AttentionRow& row = own.row[r];
        if (key < row.begin || key >= row.end || (row.mask && row.mask[key] == 0)) return false;
        return !row.bias || loaded(row.bias, key) != -std::numeric_limits<T>::infinity();
    }
    static T loaded(const void* from, Size index) {
        T value;
        std::memcpy(&value, static_cast<const T*>(from) + index, sizeof value);
        return value;
    }

    void add_special(const Own& own, Size s, Size, const AttentionStrip& strip) const {
        const Size columns = kernels_.columns, width = value_panels_ * columns;
        T* averages = own.averages + s * kernels_.rows * width;
        for (Size i = 0; i < own.specials; ++i) {
            const Size key = own.special[i];
            if (key < strip.begin || key >= strip.end) continue;
            for (Size r = 0; r < strip.rows; ++r) {
                if (!attends(own, r, key)) continue;
                const T weight = own.scores[r * kernels_.strip_keys + key];
                for (Size f = 0; f < width; ++f)
                    averages[(f / columns * kernels_.rows + r) * columns + f % columns] +=
                        weight * own.special_values[i * width + f];
            }
        }
    }

    void finish_strip(Own& own, const Chunk& chunk, Size s) {
        AttentionStrip strip = strip_of(own, chunk, s);
        kernels_.finish(strip);
        const OutputView& out = arguments_.out;
        char* start = group_start(out, chunk.entry, chunk.key_head * geometry_.group, item_);
        const Size columns = kernels_.columns;
        const Size runs = list_rows(chunk, s, stride_of(out, 2), stride_of(out, 3), own.runs);
        Size row = 0;
        for (Size i = 0; i < runs; row += own.runs[i++].count)
            for (Size p = 0; p < value_panels_; ++p) {
                SpillTask task = {};
                task.from = static_cast<const T*>(strip.averages) +
                            (p * kernels_.rows + row) * columns;
                task.rows = own.runs[i].count;
                task.columns = std::min(columns, geometry_.value_features - p * columns);
                task.to = start + (own.runs[i].offset + p * columns * stride_of(out, 1)) * item_;
                task.from_row = columns;
                task.to_row = own.runs[i].step;
                task.to_column = stride_of(out, 1);
                fetch_.spill(task);
            }
        bool finite = true;
        for (Size p = 0; p < value_panels_; ++p)
            finite = finite && kernels_.all_finite(static_cast<const T*>(strip.averages) +
                                                       p * kernels_.rows * columns,
                                                   strip.rows * columns);
        if (!finite) finite_.store(false, std::memory_order_relaxed);
        if (arguments_.lse) write_logs(chunk, s, strip);
    }

    void write_logs(const Chunk& chunk, Size s, const AttentionStrip& strip) const {
        const OutputView& lse = arguments_.lse;
        const Size base = batch_offset_of_lse(chunk.entry);
        for (Size r = 0; r < strip.rows; ++r) {
            const Size row = chunk.first_row + s * kernels_.rows + r;
            const double level = static_cast<double>(static_cast<const T*>(strip.level)[r]);
            const double total = strip.totals[r];
            const double value = total == 0 ? -std::numeric_limits<double>::infinity()
                                            : level * ln2 + std::log(total);
            const Size place = base + head_of(chunk, row) * lse.strides[lse.axes - 2] +
                               row / geometry_.group * lse.strides[lse.axes - 1];
            const T stored = static_cast<T>(value);
            std::memcpy(lse.data + place * static_cast<Size>(sizeof(T)), &stored, sizeof stored);
        }
    }
    Size batch_offset_of_lse(Size entry) const {
        const OutputView& lse = arguments_.lse;
        Size offset = 0;
        for (int axis = lse.axes - 3; axis >= 0; --axis) {
            offset += entry % lse.shape[axis] * lse.strides[axis];
            entry /= lse.shape[axis];
        }
        return offset;
    }

    const AttentionArguments& arguments_;
    const Geometry geometry_;
    const KernelTable& table_;
    const AttentionKernels& kernels_;
    const FetchKernels& fetch_;
    const GemmPackers& packers_;
    const Size item_, value_panels_, block_keys_, strips_;
    const bool transforms_;
    const double factor_;
    Size chunk_ = 1, chunks_ = 1;
    std::atomic<bool> finite_{true};
};

}  // namespace

double attention_cost(const AttentionArguments& arguments) {
    const Geometry geometry(arguments);
    return static_cast<double>(geometry.batch) * static_cast<double>(geometry.heads) *
           static_cast<double>(geometry.queries) * static_cast<double>(geometry.keys) *
           static_cast<double>(geometry.features + geometry.value_features);
}

bool attention(const AttentionArguments& arguments) {
    const Geometry geometry(arguments);
    if (geometry.batch == 0 || geometry.heads == 0 || geometry.queries == 0) return true;
    if (arguments.storage == Storage::float64) return Attention<double>(arguments).run();
    return Attention<float>(arguments).run();
}

}  // namespace unitstride
