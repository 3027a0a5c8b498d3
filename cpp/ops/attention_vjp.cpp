// Gradients of attention, the weights computed anew from the log of their sums.
//
// A thread takes the rows that share keys, and for each block of keys walks all chunks of rows:
// the products of queries and keys and of cotangents and values give weights and gradients of
// scores strip by strip, and these the parts of all three results. The sums of keys and values stay
// in cache for the block, those of queries in memory until the last block. Where there are few
// lists of rows, the blocks of a list go to several parts with sums of queries of their own, which
// are added in order: how many depends on the shapes alone.
#include <cmath>
#include <cstring>

#include "core/parallel.hpp"
#include "ops/attention_vjp_parts.hpp"
#include "ops/attention_vjp_unit.hpp"

namespace unitstride {
namespace {

using Size = std::ptrdiff_t;

constexpr double log2_e = 0x1.71547652b82fep+0;
constexpr double multiply_adds_per_nanosecond = 50;
constexpr Size enough_lists = 8;  // from which on threads take whole ones
constexpr Size most_parts = 4;

template <class Base>
class AttentionVjp : Base {
    using T = typename Base::Element;
    using Base::block_keys_;
    using Base::call_;
    using Base::carve;
    using Base::chunk_strips;
    using Base::kernels_;
    using Base::max_tile_rows;
    using Base::panels_;
    using Base::query_sum_elements;
    using Base::shape_;
    using Base::strip_at;
    using Base::strip_count_;
    using Base::strips_;
    using Base::value_panels_;
    using typename Base::Own;

  public:
    AttentionVjp(const AttentionShape& shape, const AttentionVjpArguments& call,
                 const MatrixUnit* unit = nullptr)
        : Base(shape, call, unit),
          blocks_((shape.keys + block_keys_ - 1) / block_keys_),
          parts_(std::clamp<Size>(blocks_, 1, most_parts)),
          divided_(shape.shared < enough_lists && parts_ > 1) {}

    void run(const AttentionLists& lists) {
        const Size items = checked_multiply(lists.count, divided_ ? parts_ : 1);
        const int workers =
            workers_for(2.5 * shape_.multiply_adds() / multiply_adds_per_nanosecond, items);
        Carver sizes(nullptr);
        carve(sizes);
        const Size sums = round_up(query_sum_elements(), scratch_alignment);
        const Scratch scratch(sizes.used(), workers);
        const Scratch common(checked_multiply(checked_multiply(sums, static_cast<Size>(sizeof(T))),
                                              divided_ ? items : 2 * workers),
                             1);
        T* const query_sums = reinterpret_cast<T*>(common.of_worker(0));
        parallel_for(workers, items, [&](Worker& worker, Size begin, Size end) {
            Carver carver(scratch.of_worker(worker.index()));
            Own own = carve(carver);
            for (Size item = begin; item < end; ++item) {
                const Size list = lists[divided_ ? item / parts_ : item];
                own.refused = lists.refused(list);
                own.range = {};
                if (divided_) {
                    own.query_sums = query_sums + item * sums;
                    if (!run_part(worker, own, list, item % parts_)) return;
                } else {
                    T* const total = query_sums + 2 * worker.index() * sums;
                    own.query_sums = total + sums;
                    if (!run_list(worker, own, list, total)) return;
                }
                if (own.refused) lists.refuse(list);
            }
        });
        if (divided_) add_parts(workers, lists, query_sums, sums);
    }

  private:
    bool run_list(Worker& worker, Own& own, Size list, T* total) const {
        const Size elements = query_sum_elements();
        for (Size part = 0; part < parts_; ++part) {
            if (!run_part(worker, own, list, part)) return false;
            if (part == 0) std::copy_n(own.query_sums, elements, total);
            for (Size i = 0; part > 0 && i < elements; ++i) total[i] += own.query_sums[i];
        }
        for (Size s = 0; s < strip_count_ && !own.refused; ++s)
            write_strip(own.buffers.runs, list, s, total);
        return true;
    }

    bool run_part(Worker& worker, Own& own, Size list, Size part) const {
        if (divided_ || part == 0) read_rows(own, list);
        std::fill_n(own.query_sums, query_sum_elements(), T(0));
        const Size begin = blocks_ * part / parts_, end = blocks_ * (part + 1) / parts_;
        for (Size block = begin; block < end && !own.refused; ++block)
            if (!run_block(worker, own, list, block * block_keys_)) return false;
        return worker.proceed();
    }

    // Levels and deltas of all rows.
    void read_rows(Own& own, Size list) const {
        const InputView& lse = call_.lse;
        for (Size s = 0; s < strip_count_; ++s) {
            const AttentionRows rows = strip_at(list, s);
            const Size base = batch_offset(lse, rows.entry, 2);
            double delta[max_tile_rows] = {};
            sum_products(own, rows, delta);
            for (Size r = 0; r < kernels_.rows; ++r) {
                const Size at = s * kernels_.rows + r;
                T value = -std::numeric_limits<T>::infinity();
                if (r < rows.count) {
                    const Size place =
                        shape_.place_by_row(lse.strides, lse.axes, base, rows, rows.first + r);
                    std::memcpy(&value, lse.data + place * static_cast<Size>(sizeof(T)),
                                sizeof value);
                }
                const double level = static_cast<double>(value) * log2_e;
                const bool empty = value == -std::numeric_limits<T>::infinity();
                own.level_high[at] =
                    empty ? std::numeric_limits<T>::infinity() : static_cast<T>(level);
                own.level_low[at] =
                    std::isfinite(level)
                        ? static_cast<T>(level - static_cast<double>(own.level_high[at]))
                        : T(0);
                if (std::isfinite(value) && !(std::abs(level) <= far_level<T>)) {
                    const double scores_in_one = log2_e / strips_.factor;
                    own.level_high[at] = static_cast<T>(static_cast<double>(value) * scores_in_one);
                    own.level_low[at] = std::numeric_limits<T>::infinity();
                }
                own.delta[at] = empty ? T(0) : static_cast<T>(delta[r]);
            }
        }
    }

    // Of cotangents and results, row by row.
    void sum_products(Own& own, const AttentionRows& rows, double* sums) const {
        const Size features = shape_.value_features;
        T* const cotangents = own.lines;
        T* const results = own.lines + kernels_.rows * features;
        strips_.fetch_rows(call_.cotangent, rows, own.buffers.runs, cotangents);
        strips_.fetch_rows(call_.out, rows, own.buffers.runs, results);
        for (Size r = 0; r < rows.count; ++r)
            for (Size f = r * features; f < (r + 1) * features; ++f)
                sums[r] += static_cast<double>(cotangents[f]) * static_cast<double>(results[f]);
    }

    bool run_block(Worker& worker, Own& own, Size list, Size key) const {
        const Size count = std::min(block_keys_, shape_.keys - key);
        const Size entry = list / shape_.key_heads, head = list % shape_.key_heads;
        Base::clear_sums(own);
        bool packed = false;
        for (Size first = 0; first < strip_count_; first += chunk_strips) {
            if (!worker.proceed()) return false;
            const Size strips = std::min(chunk_strips, strip_count_ - first);
            AttentionExtent reached = {shape_.keys, 0, 0, shape_.keys};
            for (Size s = 0; s < strips; ++s) {
                const AttentionExtent& extent = own.extent[s] =
                    shape_.extent_of(strip_at(list, first + s));
                reached.begin = std::min(reached.begin, extent.begin);
                reached.end = std::max(reached.end, extent.end);
                reached.inner_begin = std::max(reached.inner_begin, extent.inner_begin);
                reached.inner_end = std::min(reached.inner_end, extent.inner_end);
            }
            if (reached.end <= key || reached.begin >= key + count) continue;
            if (first + chunk_strips < strip_count_) fetch_early(list, first + chunk_strips);
            if (!packed) Base::pack_keys(own, entry, head, key, count);
            packed = true;
            Base::run_chunk(own, list, first, strips, key, count);
            if (own.refused) return true;
        }
        Base::write_keys(own, call_.d_key, entry, head, key, count, own.key_sums, panels_);
        Base::write_keys(own, call_.d_value, entry, head, key, count, own.value_sums,
                         value_panels_);
        return true;
    }

    // Rows of the chunk that comes next.
    void fetch_early(Size list, Size first) const {
        const AttentionRows strip = strip_at(list, first);
        const AttentionRows rows = {
            strip.entry, strip.key_head, strip.first,
            std::min(chunk_strips * kernels_.rows, shape_.row_count - strip.first)};
        strips_.fetch_early(Base::arguments().query, rows);
        strips_.fetch_early(call_.cotangent, rows);
    }

    void write_strip(Run* runs, Size list, Size s, const T* sums) const {
        strips_.write_rows(call_.d_query, strip_at(list, s),
                           sums + s * kernels_.rows * panels_ * kernels_.columns, runs);
    }

    void add_parts(int workers, const AttentionLists& lists, T* query_sums, Size stride) const {
        const Size elements = kernels_.rows * panels_ * kernels_.columns;
        parallel_for(workers, checked_multiply(lists.count, strip_count_),
                     [&](Worker& worker, Size begin, Size end) {
                         Run runs[max_tile_rows];
                         for (Size i = begin; i < end && worker.proceed(); ++i) {
                             const Size place = i / strip_count_, s = i % strip_count_;
                             if (lists.refused(lists[place])) continue;
                             T* sums = query_sums + place * parts_ * stride;
                             for (Size part = 1; part < parts_; ++part)
                                 for (Size e = s * elements; e < (s + 1) * elements; ++e)
                                     sums[e] += sums[part * stride + e];
                             write_strip(runs, lists[place], s, sums);
                         }
                     });
    }

    const Size blocks_, parts_;
    const bool divided_;  // threads take parts
};

}  // namespace

void attention_vjp(const AttentionVjpArguments& arguments) {
    const AttentionShape shape(arguments.forward);
    if (shape.shared == 0) return;
    AttentionLists lists(shape.shared);
    if (const MatrixUnit* unit = matrix_unit_for(shape)) {
        lists.offer();
        AttentionVjp<AttentionVjpUnit>(shape, arguments, unit).run(lists);
        lists.keep_refused();
        if (lists.count == 0) return;
    }
    if (arguments.forward.storage == Storage::float64) {
        AttentionVjp<AttentionVjpParts<double>>(shape, arguments).run(lists);
    } else {
        AttentionVjp<AttentionVjpParts<float>>(shape, arguments).run(lists);
    }
}

}  // namespace unitstride
