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

namespace unitstride {
namespace {

using Size = std::ptrdiff_t;

constexpr double log2_e = 0x1.71547652b82fep+0;
constexpr double multiply_adds_per_nanosecond = 50;
constexpr Size enough_lists = 8;  // from which on threads take whole ones
constexpr Size most_parts = 4;

template <class T>
class AttentionVjp : AttentionVjpParts<T> {
    using Base = AttentionVjpParts<T>;
    using Base::arguments;
    using Base::block_keys_;
    using Base::call_;
    using Base::carve;
    using Base::chunk_strips;
    using Base::kernels_;
    using Base::max_tile_rows;
    using Base::panels_;
    using Base::query_sum_elements;
    using Base::run_chunk;
    using Base::shape_;
    using Base::strip_at;
    using Base::strip_count_;
    using Base::strips_;
    using Base::value_panels_;
    using typename Base::Own;

  public:
    AttentionVjp(const AttentionShape& shape, const AttentionVjpArguments& call)
        : Base(shape, call),
          blocks_((shape.keys + block_keys_ - 1) / block_keys_),
          parts_(std::clamp<Size>(blocks_, 1, most_parts)),
          divided_(shape.shared < enough_lists && parts_ > 1) {}

    void run() {
        const Size items = checked_multiply(shape_.shared, divided_ ? parts_ : 1);
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
                if (divided_) {
                    own.query_sums = query_sums + item * sums;
                    if (!run_part(worker, own, item / parts_, item % parts_)) return;
                } else {
                    T* const total = query_sums + 2 * worker.index() * sums;
                    own.query_sums = total + sums;
                    if (!run_list(worker, own, item, total)) return;
                }
            }
        });
        if (divided_) add_parts(workers, query_sums, sums);
    }

  private:
    bool run_list(Worker& worker, Own& own, Size list, T* total) const {
        const Size elements = query_sum_elements();
        for (Size part = 0; part < parts_; ++part) {
            if (!run_part(worker, own, list, part)) return false;
            if (part == 0) std::copy_n(own.query_sums, elements, total);
            for (Size i = 0; part > 0 && i < elements; ++i) total[i] += own.query_sums[i];
        }
        for (Size s = 0; s < strip_count_; ++s) write_strip(own.buffers.runs, list, s, total);
        return true;
    }

    bool run_part(Worker& worker, Own& own, Size list, Size part) const {
        if (divided_ || part == 0) read_rows(own, list);
        std::fill_n(own.query_sums, query_sum_elements(), T(0));
        const Size begin = blocks_ * part / parts_, end = blocks_ * (part + 1) / parts_;
        for (Size block = begin; block < end; ++block)
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

    void sum_products(Own& own, const AttentionRows& rows, double* sums) const {
        T* const cotangent = own.cotangents;
        T* const out = own.cotangents + kernels_.rows * shape_.value_features;
        strips_.pack_strip(call_.cotangent, rows, own.buffers.runs, cotangent);
        strips_.pack_strip(call_.out, rows, own.buffers.runs, out);
        for (Size f = 0; f < shape_.value_features; ++f)
            for (Size r = 0; r < kernels_.rows; ++r)
                sums[r] += static_cast<double>(cotangent[f * kernels_.rows + r]) *
                           static_cast<double>(out[f * kernels_.rows + r]);
    }

    bool run_block(Worker& worker, Own& own, Size list, Size key) const {
        const Size columns = kernels_.columns, count = std::min(block_keys_, shape_.keys - key);
        const Size entry = list / shape_.key_heads, head = list % shape_.key_heads;
        std::fill_n(own.key_sums, block_keys_ * panels_ * columns, T(0));
        std::fill_n(own.value_sums, block_keys_ * value_panels_ * columns, T(0));
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
            if (!packed) {
                const AttentionArguments& given = arguments();
                strips_.pack_across(given.key, entry, head, key, 0, count, own.keys);
                strips_.pack_across(given.value, entry, head, key, 0, count, own.values);
                strips_.pack_along(given.key, entry, head, key, 0, count, block_keys_,
                                   own.key_rows);
                strips_.set_specials_apart(own.key_rows, panels_, block_keys_, 0, count,
                                           own.special_keys);
                packed = true;
            }
            run_chunk(own, list, first, strips, key, count);
        }
        write_keys(call_.d_key, entry, head, key, count, own.key_sums, panels_);
        write_keys(call_.d_value, entry, head, key, count, own.value_sums, value_panels_);
        return true;
    }

    void write_keys(const OutputView& view, Size entry, Size head, Size key, Size count,
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

    void write_strip(Run* runs, Size list, Size s, const T* sums) const {
        strips_.write_rows(call_.d_query, strip_at(list, s),
                           sums + s * kernels_.rows * panels_ * kernels_.columns, runs);
    }

    void add_parts(int workers, T* query_sums, Size stride) const {
        const Size elements = kernels_.rows * panels_ * kernels_.columns;
        parallel_for(workers, checked_multiply(shape_.shared, strip_count_),
                     [&](Worker& worker, Size begin, Size end) {
                         Run runs[max_tile_rows];
                         for (Size i = begin; i < end && worker.proceed(); ++i) {
                             const Size list = i / strip_count_, s = i % strip_count_;
                             T* sums = query_sums + list * parts_ * stride;
                             for (Size part = 1; part < parts_; ++part)
                                 for (Size e = s * elements; e < (s + 1) * elements; ++e)
                                     sums[e] += sums[part * stride + e];
                             write_strip(runs, list, s, sums);
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
    if (arguments.forward.storage == Storage::float64) {
        AttentionVjp<double>(shape, arguments).run();
    } else {
        AttentionVjp<float>(shape, arguments).run();
    }
}

}  // namespace unitstride
