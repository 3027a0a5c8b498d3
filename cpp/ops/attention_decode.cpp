// Attention of few rows: keys and values are read once, as they lie.
//
// The keys fall into stretches of a fixed length that threads take; each gives the level, the sum
// and the averages of its own, and these are merged in order.
#include <cmath>
#include <cstring>

#include "core/parallel.hpp"
#include "isa/dispatch.hpp"
#include "ops/attention_strips.hpp"

namespace unitstride {
namespace {

using Size = std::ptrdiff_t;

constexpr double bytes_per_nanosecond = 10;
constexpr Size stretch_blocks = 4;
constexpr Size most_rows = 8;

template <class T>
class AttentionDecode {
  public:
    explicit AttentionDecode(const AttentionShape& shape)
        : shape_(shape),
          arguments_(shape.arguments),
          strips_(shape),
          kernels_(strips_.kernels),
          direct_(strips_.table.attention_direct[static_cast<int>(arguments_.storage)]),
          panels_(strips_.panels_of(shape.value_features)),
          width_(panels_ * kernels_.columns),
          stretch_(stretch_blocks * kernels_.strip_keys),
          stretches_(std::max<Size>((shape.keys + stretch_ - 1) / stretch_, 1)) {}

    bool run() {
        const Size items = checked_multiply(shape_.shared, stretches_);
        const double bytes = static_cast<double>(shape_.shared) * static_cast<double>(shape_.keys) *
                             static_cast<double>(shape_.features + shape_.value_features) *
                             static_cast<double>(strips_.item);
        const int workers = workers_for(bytes / bytes_per_nanosecond, items);
        Carver sizes(nullptr), common_sizes(nullptr);
        carve(sizes);
        carve_common(common_sizes, items);
        const Scratch scratch(sizes.used(), workers), common(common_sizes.used(), 1);
        Carver common_carver(common.of_worker(0));
        const Common partial = carve_common(common_carver, items);
        parallel_for(workers, items, [&](Worker& worker, Size begin, Size end) {
            Carver carver(scratch.of_worker(worker.index()));
            Own own = carve(carver);
            for (Size item = begin; item < end; ++item)
                if (!run_stretch(worker, own, partial, item)) return;
        });
        Run runs[most_rows];
        for (Size list = 0; list < shape_.shared; ++list) merge(partial, list, runs);
        return finite_;
    }

  private:
    struct Own {
        T* queries;  // [rows][features]
        T* value;    // [value features]
        AttentionBuffers<T> buffers;
    };
    // Of every stretch.
    struct Common {
        T* level;     // [tile rows]
        T* sums;      // [tile rows][lanes]
        T* averages;  // [panels][tile rows][columns]
    };

    Own carve(Carver& carver) const {
        Own own = {};
        own.queries = carver.take<T>(checked_multiply(kernels_.rows, shape_.features));
        own.value = carver.take<T>(shape_.value_features);
        own.buffers = strips_.carve_buffers(carver);
        return own;
    }
    Common carve_common(Carver& carver, Size items) const {
        const Size rows = checked_multiply(items, kernels_.rows);
        Common common = {};
        common.level = carver.take<T>(rows);
        common.sums = carver.take<T>(checked_multiply(rows, kernels_.lanes));
        common.averages = carver.take<T>(checked_multiply(rows, width_));
        return common;
    }

    AttentionRows rows_of(Size list) const {
        return {list / shape_.key_heads, list % shape_.key_heads, 0, shape_.row_count};
    }

    AttentionStrip strip_of(const Common& common, Size item) const {
        AttentionStrip strip = {};
        strip.features = shape_.features;
        strip.value_panels = panels_;
        strip.rows = shape_.row_count;
        strip.scale = arguments_.scale;
        strip.softcap = arguments_.softcap;
        strip.factor = strips_.factor;
        strip.level = common.level + item * kernels_.rows;
        strip.sums = common.sums + item * kernels_.rows * kernels_.lanes;
        strip.averages = common.averages + item * kernels_.rows * width_;
        return strip;
    }

    bool run_stretch(Worker& worker, Own& own, const Common& common, Size item) {
        const AttentionRows rows = rows_of(item / stretches_);
        const Size first = item % stretches_ * stretch_;
        AttentionStrip strip = strip_of(common, item);
        std::fill_n(static_cast<T*>(strip.level), kernels_.rows,
                    -std::numeric_limits<T>::infinity());
        std::fill_n(static_cast<T*>(strip.sums), kernels_.rows * kernels_.lanes, T(0));
        std::fill_n(static_cast<T*>(strip.averages), kernels_.rows * width_, T(0));
        const AttentionExtent extent = shape_.extent_of(rows);
        const Size begin = std::max(first, extent.begin);
        const Size end = std::min(first + stretch_, extent.end);
        if (begin >= end) return true;
        fetch_queries(own, rows);
        strip.query = own.queries;
        strip.scores = own.buffers.scores;
        strip.highest = own.buffers.highest;
        strip.rescale = own.buffers.rescale;
        strip.row = own.buffers.row;
        for (Size key = begin / kernels_.strip_keys * kernels_.strip_keys; key < end;
             key += kernels_.strip_keys) {
            if (!worker.proceed()) return false;
            strip.begin = std::max(begin - key, Size{0}) / kernels_.columns * kernels_.columns;
            strip.end = round_up(std::min(end - key, kernels_.strip_keys), kernels_.columns);
            meet_block(own, rows, extent, key, std::min(end - key, kernels_.strip_keys), strip);
        }
        return true;
    }

    void fetch_queries(Own& own, const AttentionRows& rows) const {
        const InputView& query = arguments_.query;
        const char* start =
            shape_.head_start(query, rows.entry, rows.key_head * shape_.group, strips_.item);
        Run* runs = own.buffers.runs;
        const Size count = shape_.list_rows(rows, stride_of(query, 2), stride_of(query, 3), runs);
        for (Size i = 0, row = 0; i < count; row += runs[i++].count) {
            FetchTask task = {};
            task.from = start + runs[i].offset * strips_.item;
            task.to = own.queries + row * shape_.features;
            task.rows = runs[i].count;
            task.columns = shape_.features;
            task.from_row = runs[i].step;
            task.from_column = stride_of(query, 1);
            task.to_row = shape_.features;
            strips_.fetch.fetch(task);
        }
    }

    void meet_block(Own& own, const AttentionRows& rows, const AttentionExtent& extent, Size key,
                    Size used, AttentionStrip& strip) const {
        if (!strips_.describe(rows, extent, key, own.buffers, strip)) return;
        const bool adjusts = strip.plain_begin > strip.begin || strip.plain_end < strip.end;
        AttentionDirect direct = {};
        direct.array = place(arguments_.key, rows, key);
        direct.stride = stride_of(arguments_.key, 2);
        direct.used = used;
        direct_.scores(strip, direct);
        if (adjusts) kernels_.adjust(strip);
        kernels_.weigh(strip);
        direct.array = place(arguments_.value, rows, key);
        direct.stride = stride_of(arguments_.value, 2);
        direct.features = shape_.value_features;
        if (!adjusts || direct_.all_finite(strip, direct)) {
            direct_.average(strip, direct);
        } else {
            average_carefully(own, strip, direct);
        }
    }

    const char* place(const InputView& view, const AttentionRows& rows, Size key) const {
        return shape_.head_start(view, rows.entry, rows.key_head, strips_.item) +
               key * stride_of(view, 2) * strips_.item;
    }

    // Key by key, with only those values that a row attends to: 0 * NaN is NaN.
    void average_carefully(Own& own, const AttentionStrip& strip,
                           const AttentionDirect& block) const {
        const Size columns = kernels_.columns;
        T* const averages = static_cast<T*>(strip.averages);
        const auto at = [&](Size r, Size f) -> T& {
            return averages[(f / columns * kernels_.rows + r) * columns + f % columns];
        };
        for (Size r = 0; r < strip.rows && strip.rescales; ++r)
            for (Size f = 0; f < width_; ++f) at(r, f) *= own.buffers.rescale[r];
        for (Size k = strip.begin; k < block.used; ++k) {
            FetchTask task = {};
            task.from = static_cast<const char*>(block.array) + k * block.stride * strips_.item;
            task.to = own.value;
            task.rows = 1;
            task.columns = block.features;
            task.from_column = 1;
            strips_.fetch.fetch(task);
            for (Size r = 0; r < strip.rows; ++r)
                for (Size f = 0; strips_.attends(strip.row[r], k) && f < block.features; ++f)
                    at(r, f) += own.buffers.scores[r * kernels_.strip_keys + k] * own.value[f];
        }
    }

    void merge(const Common& common, Size list, Run* runs) {
        const AttentionRows rows = rows_of(list);
        AttentionStrip total = strip_of(common, list * stretches_);
        for (Size r = 0; r < rows.count; ++r) merge_row(common, list, rows, r);
        double totals[most_rows];
        total.totals = totals;
        kernels_.finish(total);
        strips_.write_rows(arguments_.out, rows, static_cast<const T*>(total.averages), runs);
        if (!strips_.is_finite(total)) finite_ = false;
        if (arguments_.lse) strips_.write_logs(rows, total);
    }

    // The parts of a row, in order, into the first; a sink comes before them.
    void merge_row(const Common& common, Size list, const AttentionRows& rows, Size r) const {
        const auto part = [&](Size i) { return strip_of(common, list * stretches_ + i); };
        T sink_weight;
        const T sink = strips_.sink_level(rows, rows.first + r, sink_weight);
        T level = sink;
        for (Size i = 0; i < stretches_; ++i)
            level = std::max(level, static_cast<T*>(part(i).level)[r]);
        const T nothing = -std::numeric_limits<T>::infinity();
        const T shift = level == nothing ? T(0) : level;
        const auto share = [&](T own) {
            return own == nothing ? 0.0 : std::exp2(strips_.powers_above(own, shift));
        };
        double sum = sink == nothing ? 0.0 : static_cast<double>(sink_weight) * share(sink);
        const Size columns = kernels_.columns, lanes = kernels_.lanes;
        T* const averages = static_cast<T*>(part(0).averages);
        for (Size i = 0; i < stretches_; ++i) {
            const AttentionStrip strip = part(i);
            const double own_share = share(static_cast<T*>(strip.level)[r]);
            const T factor = static_cast<T>(own_share);
            const T* sums = static_cast<const T*>(strip.sums) + r * lanes;
            double own_sum = 0;
            for (Size lane = 0; lane < lanes; ++lane) own_sum += static_cast<double>(sums[lane]);
            sum += own_sum * own_share;
            const T* from = static_cast<const T*>(strip.averages);
            for (Size f = 0; f < width_; ++f) {
                const Size at = (f / columns * kernels_.rows + r) * columns + f % columns;
                const T term = factor * from[at];
                averages[at] = i == 0 ? term : averages[at] + term;
            }
        }
        T* sums = static_cast<T*>(part(0).sums) + r * lanes;
        std::fill_n(sums, lanes, T(0));
        sums[0] = static_cast<T>(sum);
        static_cast<T*>(part(0).level)[r] = shift;
    }

    const AttentionShape& shape_;
    const AttentionArguments& arguments_;
    const AttentionStrips<T> strips_;
    const AttentionKernels& kernels_;
    const AttentionDirectKernels& direct_;
    const Size panels_, width_;  // of the values, and their columns
    const Size stretch_, stretches_;
    bool finite_ = true;
};

}  // namespace

bool reads_directly(const AttentionShape& shape) {
    const AttentionArguments& given = shape.arguments;
    const auto contiguous = [](const InputView& view) {
        return stride_of(view, 1) == 1 || view.shape[view.axes - 1] <= 1;
    };
    return shape.row_count <= std::min(most_rows, kernels().attention[0].rows) &&
           contiguous(given.key) && contiguous(given.value);
}

bool attention_decode(const AttentionShape& shape) {
    if (shape.arguments.storage == Storage::float64) return AttentionDecode<double>(shape).run();
    return AttentionDecode<float>(shape).run();
}

}  // namespace unitstride
