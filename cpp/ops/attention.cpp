// Attention by chunks of query rows that meet the keys block by block.
//
// A thread takes a chunk of strips, packs its queries, and for each block of keys packs keys and
// values once for all its strips: nothing is shared between threads, and memory does not grow with
// the lengths. Blocks begin at multiples of their size, and what a row meets does not depend on its
// neighbours, so neither do its bits.
#include "ops/attention.hpp"

#include <atomic>
#include <cmath>

#include "core/parallel.hpp"
#include "ops/attention_strips.hpp"

namespace unitstride {
namespace {

using Size = std::ptrdiff_t;

constexpr double multiply_adds_per_nanosecond = 50;
// Keys and values of a block, queries and results of a chunk: together less than the second-level
// cache. Long chunks share the packing of keys and values.
constexpr Size block_bytes = 1 << 19, chunk_bytes = 640 << 10;

template <class T>
class Attention {
  public:
    explicit Attention(const AttentionShape& shape, const MatrixUnit* unit = nullptr)
        : shape_(shape),
          arguments_(shape.arguments),
          strips_(shape, unit),
          kernels_(strips_.kernels),
          panels_(strips_.panels_of(shape.value_features)),
          width_(panels_ * kernels_.columns),
          block_keys_(block_keys()),
          strip_count_((shape.row_count + kernels_.rows - 1) / kernels_.rows) {}

    // Whether every result is finite.
    bool run(const AttentionLists& lists) {
        const double cost = shape_.multiply_adds() / multiply_adds_per_nanosecond;
        const int workers = workers_for(cost, checked_multiply(lists.count, strip_count_));
        const Size most = chunk_bytes / (strips_.strip_bytes() + average_bytes() + 1);
        const Size even = strip_count_ * lists.count / (workers == 1 ? 1 : 8 * workers);
        const Size largest = std::clamp<Size>(std::min(most, even), 1, strip_count_);
        chunks_ = (strip_count_ + largest - 1) / largest;
        chunk_ = (strip_count_ + chunks_ - 1) / chunks_;
        Carver sizes(nullptr);
        carve(sizes);
        const Scratch scratch(sizes.used(), workers);
        parallel_for(workers, checked_multiply(lists.count, chunks_),
                     [&](Worker& worker, Size begin, Size end) {
                         Carver carver(scratch.of_worker(worker.index()));
                         Own own = carve(carver);
                         for (Size index = begin; index < end; ++index) {
                             const Size list = lists[index / chunks_];
                             if (lists.refused(list)) continue;
                             const bool ends = index + 1 == end;
                             own.next = chunk_of(ends ? list : lists[(index + 1) / chunks_],
                                                 (ends ? index : index + 1) % chunks_);
                             if (!run_chunk(worker, own, chunk_of(list, index % chunks_))) return;
                             if (own.refused) lists.refuse(list);
                         }
                     });
        return finite_.load();
    }

  private:
    struct Own {
        char* queries;            // [strips][features][rows]
        char* keys;               // [panels][features][columns]
        char* values;             // [value panels][block keys][columns]
        T* averages;              // [strips][value panels][rows][columns]
        T* level;                 // [strips][rows]
        T* sums;                  // [strips][rows][lanes]
        AttentionExtent* extent;  // [strips]
        bool* begun;              // [strips]
        AttentionBuffers<T> buffers;
        AttentionRows next;  // the chunk that comes next
        Ahead ahead[3];      // queries, keys and values that will be packed next
        AttentionSpecials<T> specials;
        bool screened;     // the block's special values are apart
        PowerRange range;  // of what the chunk met
        bool refused;      // the chunk is not for the matrix unit
    };

    Size average_bytes() const { return kernels_.rows * width_ * static_cast<Size>(sizeof(T)); }
    Size block_keys() const {
        const Size depth = round_up(shape_.features, kernels_.depth_unit) + width_;
        const Size most =
            block_bytes * kernels_.columns / (std::max<Size>(depth, 1) * kernels_.key_bytes);
        return std::clamp<Size>(most / kernels_.columns * kernels_.columns, kernels_.columns,
                                kernels_.strip_keys);
    }

    Own carve(Carver& carver) const {
        const Size rows = checked_multiply(chunk_, kernels_.rows);
        Own own = {};
        own.queries = carver.take<char>(checked_multiply(chunk_, strips_.strip_bytes()));
        own.keys = carver.take<char>(
            checked_multiply(block_keys_ / kernels_.columns, strips_.panel_bytes(shape_.features)));
        own.values = carver.take<char>(checked_multiply(panels_, strips_.panel_bytes(block_keys_)));
        own.averages = carver.take<T>(checked_multiply(rows, width_));
        own.level = carver.take<T>(rows);
        own.sums = carver.take<T>(rows * kernels_.lanes);
        own.extent = carver.take<AttentionExtent>(chunk_);
        own.begun = carver.take<bool>(chunk_);
        own.buffers = strips_.carve_buffers(carver);
        own.specials = strips_.carve_specials(carver, block_keys_, panels_);
        return own;
    }

    // With causal masks later chunks are the longer ones: they come first.
    AttentionRows chunk_of(Size list, Size index) const {
        const Size first = (chunks_ - 1 - index) * chunk_ * kernels_.rows;
        return {list / shape_.key_heads, list % shape_.key_heads, first,
                std::min(chunk_ * kernels_.rows, shape_.row_count - first)};
    }

    AttentionRows strip_of(const AttentionRows& chunk, Size s) const {
        const Size first = s * kernels_.rows;
        return {chunk.entry, chunk.key_head, chunk.first + first,
                std::min(kernels_.rows, chunk.count - first)};
    }

    bool run_chunk(Worker& worker, Own& own, const AttentionRows& chunk) {
        const Size strips = (chunk.count + kernels_.rows - 1) / kernels_.rows;
        Size begin = shape_.keys, end = 0;
        own.refused = false;
        own.range = {};
        for (Size s = 0; s < strips; ++s) {
            begin_strip(own, strip_of(chunk, s), s);
            begin = std::min(begin, own.extent[s].begin);
            end = std::max(end, own.extent[s].end);
        }
        for (Size key = begin / block_keys_ * block_keys_; key < end; key += block_keys_) {
            if (!worker.proceed()) return false;
            const Size first = std::max(begin - key, Size{0}) / kernels_.columns * kernels_.columns;
            const Size last = std::min(block_keys_, end - key);
            strips_.pack_across(arguments_.key, chunk.entry, chunk.key_head, key, first, last,
                                own.keys, &own.range);
            strips_.pack_along(arguments_.value, chunk.entry, chunk.key_head, key, first, last,
                               block_keys_, own.values, &own.range);
            own.refused = kernels_.meet && !attention_reaches(own.range);
            if (own.refused) return worker.proceed();
            own.screened = false;
            own.specials.count = 0;
            look_ahead(own, chunk, key + block_keys_, end);
            for (Size s = 0; s < strips; ++s)
                meet_block(own, strip_of(chunk, s), s, strips, key, first, last);
        }
        for (Size s = 0; s < strips; ++s) finish_strip(own, strip_of(chunk, s), s);
        return worker.proceed();
    }

    // After the last block the next chunk's rows are packed, and its keys if they are others.
    void look_ahead(Own& own, const AttentionRows& chunk, Size key, Size end) const {
        const AttentionRows& next = own.next;
        const bool is_last = key >= end,
                   is_other = next.entry != chunk.entry || next.key_head != chunk.key_head;
        const Size first = is_last ? 0 : key, last = is_last ? shape_.keys : end;
        const Size keys = is_last && !is_other ? 0 : std::min(block_keys_, last - first);
        own.ahead[0] = strips_.ahead_of(arguments_.query, next.entry, next.key_head, next.first,
                                        is_last && shape_.group == 1 ? next.count : 0);
        own.ahead[1] = strips_.ahead_of(arguments_.key, next.entry, next.key_head, first, keys);
        own.ahead[2] = strips_.ahead_of(arguments_.value, next.entry, next.key_head, first, keys);
        if (is_last) return;
        own.ahead[1] = strips_.ahead_of(arguments_.key, chunk.entry, chunk.key_head, first, keys);
        own.ahead[2] = strips_.ahead_of(arguments_.value, chunk.entry, chunk.key_head, first, keys);
    }

    // The strips of a chunk share the work.
    Ahead share_of(const Own& own, Size s, Size strips) const {
        const Size which = own.ahead[0].count > 0 ? s * 3 / strips : 1 + s * 2 / strips;
        const Ahead& whole = own.ahead[which];
        const Size of_it = own.ahead[0].count > 0 ? (strips + 2) / 3 : (strips + 1) / 2;
        const Size each = (whole.count + of_it - 1) / of_it;
        const Size begin = std::min(s % of_it * each, whole.count);
        return {whole.memory + begin * whole.step, whole.step, std::min(each, whole.count - begin),
                whole.bytes};
    }

    void begin_strip(Own& own, const AttentionRows& rows, Size s) const {
        strips_.pack_strip(arguments_.query, rows, own.buffers.runs,
                           own.queries + s * strips_.strip_bytes(), &own.range);
        own.extent[s] = shape_.extent_of(rows);
        own.begun[s] = false;
        T* level = own.level + s * kernels_.rows;
        T* sums = own.sums + s * kernels_.rows * kernels_.lanes;
        std::fill_n(level, kernels_.rows, -std::numeric_limits<T>::infinity());
        std::fill_n(sums, kernels_.rows * kernels_.lanes, T(0));
        if (arguments_.sinks) add_sinks(rows, level, sums);
    }

    // A sink is a score that comes before the first key.
    void add_sinks(const AttentionRows& rows, T* level, T* sums) const {
        for (Size r = 0; r < rows.count; ++r) {
            level[r] = strips_.sink_level(rows, rows.first + r, sums[r * kernels_.lanes]);
        }
    }

    void meet_block(Own& own, const AttentionRows& rows, Size s, Size strips, Size key,
                    Size packed_begin, Size packed_end) const {
        const AttentionExtent& extent = own.extent[s];
        const Size first = std::max(extent.begin - key, Size{0});
        const Size last = std::min(extent.end - key, block_keys_);
        if (first >= last) return;
        AttentionStrip strip = strip_task(own, rows, s);
        strip.begin = first / kernels_.columns * kernels_.columns;
        strip.end = round_up(last, kernels_.columns);
        if (!strips_.describe(rows, extent, key, own.buffers, strip)) return;
        const bool adjusts = strip.plain_begin > strip.begin || strip.plain_end < strip.end;
        own.begun[s] = true;
        if (kernels_.meet) {
            strip.ahead = share_of(own, s, strips);
            return kernels_.meet(strip, adjusts);
        }
        if (adjusts && !own.screened) {
            strips_.set_specials_apart(reinterpret_cast<T*>(own.values), panels_, block_keys_,
                                       packed_begin, packed_end, own.specials);
            own.screened = true;
        }
        kernels_.scores(strip);
        if (adjusts) kernels_.adjust(strip);
        kernels_.weigh(strip);
        kernels_.average(strip);
        if (own.specials.count > 0) add_specials(own, strip, adjusts);
    }

    AttentionStrip strip_task(Own& own, const AttentionRows& rows, Size s) const {
        AttentionStrip strip = {};
        strip.query = own.queries + s * strips_.strip_bytes();
        strip.keys = own.keys;
        strip.values = own.values;
        strip.features = shape_.features;
        strip.value_panels = panels_;
        strip.value_depth = block_keys_;
        strip.rows = rows.count;
        strip.row = own.buffers.row;
        strip.scale = arguments_.scale;
        strip.softcap = arguments_.softcap;
        strip.factor = strips_.factor;
        strip.first = !own.begun[s];
        strip.scores = own.buffers.scores;
        strip.weights = own.buffers.weights;
        strip.highest = own.buffers.highest;
        strip.rescale = own.buffers.rescale;
        strip.totals = own.buffers.totals;
        strip.level = own.level + s * kernels_.rows;
        strip.sums = own.sums + s * kernels_.rows * kernels_.lanes;
        strip.averages = own.averages + s * kernels_.rows * width_;
        return strip;
    }

    void add_specials(const Own& own, const AttentionStrip& strip, bool adjusted) const {
        T* averages = static_cast<T*>(strip.averages);
        for (Size i = 0; i < own.specials.count; ++i) {
            const Size key = own.specials.index[i];
            if (key < strip.begin || key >= strip.end) continue;
            for (Size r = 0; r < strip.rows; ++r) {
                if (adjusted && !strips_.attends(strip.row[r], key)) continue;
                const T weight = own.buffers.scores[r * kernels_.strip_keys + key];
                for (Size f = 0; f < width_; ++f) {
                    const Size panel = f / kernels_.columns, column = f % kernels_.columns;
                    averages[(panel * kernels_.rows + r) * kernels_.columns + column] +=
                        weight * own.specials.elements[i * width_ + f];
                }
            }
        }
    }

    void finish_strip(Own& own, const AttentionRows& rows, Size s) {
        const AttentionStrip strip = strip_task(own, rows, s);
        kernels_.finish(strip);
        strips_.write_rows(arguments_.out, rows, static_cast<const T*>(strip.averages),
                           own.buffers.runs);
        if (!strips_.is_finite(strip)) finite_.store(false, std::memory_order_relaxed);
        if (arguments_.lse) strips_.write_logs(rows, strip);
    }

    const AttentionShape& shape_;
    const AttentionArguments& arguments_;
    const AttentionStrips<T> strips_;
    const AttentionKernels& kernels_;
    const Size panels_, width_;  // of the values, and their columns
    const Size block_keys_, strip_count_;
    Size chunk_ = 1, chunks_ = 1;  // strips in a chunk, chunks of a list of rows
    std::atomic<bool> finite_{true};
};

}  // namespace

bool attention(const AttentionArguments& arguments) {
    const AttentionShape shape(arguments);
    if (shape.batch == 0 || shape.heads == 0 || shape.queries == 0) return true;
    if (reads_directly(shape)) return attention_decode(shape);
    AttentionLists lists(shape.shared);
    bool finite = true;
    if (const MatrixUnit* unit = matrix_unit_for(shape)) {
        lists.offer();
        finite = Attention<float>(shape, unit).run(lists);
        lists.keep_refused();
        if (lists.count == 0) return finite;
    }
    if (arguments.storage == Storage::float64) return Attention<double>(shape).run(lists);
    return Attention<float>(shape).run(lists) && finite;
}

}  // namespace unitstride
