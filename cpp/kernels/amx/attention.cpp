// Both products of attention on the matrix unit: strips of 32 rows, blocks of 128 keys.
#include "kernels/amx/matrix_unit.hpp"
#include "kernels/amx/weights.hpp"
#include "kernels/attention_adjust.hpp"
#include "kernels/attention_softmax.hpp"
#include "kernels/gemm_write.hpp"
#include "simd/compare.hpp"

namespace unitstride::UNITSTRIDE_ISA {
namespace {

constexpr size strip_keys = 512;

// The products of a turn, a little at a time: what the matrix unit does while the vector units are
// busy with weights. First the scores of one strip, then the averages of another.
template <class S>
class Products {
  public:
    // Either may be null.
    Products(const AttentionStrip* scores, const AttentionStrip* averages) noexcept
        : scores_(scores), averages_(averages), key_(scores ? scores->begin : 0) {
        if (scores) {
            products_ = (scores->end - scores->begin) / panel_lines;
            count_ = products_ * steps_of(scores->features) * ScoreParts::count;
        }
        if (averages) {
            products_ += averages->value_panels;
            count_ += (averages->end - averages->begin) / step_depth * averages->value_panels *
                      AverageParts::count;
        }
        if (products_ > 0) begin();
    }
    // How often `some` has something to do.
    size count() const noexcept { return count_; }
    [[gnu::always_inline]] void some() noexcept {
        if (is_score_ && parts_of<S> != weight_parts<S>) {
            add<parts_of<S>, 0>();
        } else {
            add<weight_parts<S>, 0>();
        }
    }
    void finish() noexcept {
        while (products_ > 0) some();
    }

  private:
    using Tile = Sums<true, true>;
    using ScoreParts = PartOrder<parts_of<S>, parts_of<S>>;
    using AverageParts = PartOrder<weight_parts<S>, parts_of<S>>;

    // The next product of parts, and what comes after the last of a step.
    template <size a_parts, size place>
    [[gnu::always_inline]] void add() noexcept {
        constexpr bool is_last = place + 1 == PartOrder<a_parts, parts_of<S>>::count;
        if constexpr (!is_last)
            if (place_ != place) return add<a_parts, place + 1>();
        Tile::template add_product<a_parts, parts_of<S>, place>(a_, b_);
        ++place_;
        if constexpr (is_last) end_step(a_parts * part_bytes);
    }
    [[gnu::always_inline]] void end_step(size a_bytes) noexcept {
        place_ = 0;
        a_ += a_bytes;
        b_ += step_bytes<S>;
        if (--steps_ > 0) return;
        Tile::store(sums_, {row_, side, side * row_});
        if (--products_ > 0) begin();
    }
    [[gnu::always_inline]] void begin() noexcept {
        is_score_ = scores_ && key_ < scores_->end;
        if (is_score_) {
            steps_ = steps_of(scores_->features);
            a_ = static_cast<const char*>(scores_->query);
            b_ = static_cast<const char*>(scores_->keys) +
                 key_ / panel_lines * steps_ * step_bytes<S>;
            sums_ = static_cast<float*>(scores_->scores) + key_;
            row_ = stretch_keys;
            key_ += panel_lines;
        } else {
            const size first = averages_->begin / step_depth;
            steps_ = averages_->end / step_depth - first;
            a_ = static_cast<const char*>(averages_->weights);
            b_ = static_cast<const char*>(averages_->values) +
                 (panel_ * averages_->value_depth / step_depth + first) * step_bytes<S>;
            sums_ = static_cast<float*>(averages_->averages) + panel_ * panel_lines * panel_lines;
            row_ = panel_lines;
            ++panel_;
        }
        if (is_score_ || averages_->first) {
            Tile::zero();
        } else {
            Tile::load(sums_, {row_, side, side * row_});
        }
    }

    const AttentionStrip* const scores_;
    const AttentionStrip* const averages_;
    size products_ = 0, count_ = 0;  // products that are not finished
    size key_, panel_ = 0;           // where the next product begins
    size steps_ = 0, place_ = 0;     // of the product under way
    const char* a_ = nullptr;
    const char* b_ = nullptr;
    float* sums_ = nullptr;
    size row_ = 0;
    bool is_score_ = false;
};

inline void rescale_averages(const AttentionStrip& strip) noexcept {
    float* row = static_cast<float*>(strip.averages);
    const float* rescale = static_cast<const float*>(strip.rescale);
    for (size p = 0; p < strip.value_panels; ++p, row += panel_lines * panel_lines)
        for (size r = 0; r < strip.rows; ++r) {
            float* to = row + r * panel_lines;
            store(to, load(to) * splat(rescale[r]));
            store(to + side, load(to + side) * splat(rescale[r]));
        }
}

// One strip and one block of keys, a stretch of keys at a time: while the vector units turn one
// stretch's scores into weights, the matrix unit finds the scores of the next and adds the values
// of the one before.
template <class S>
class Meeting {
  public:
    explicit Meeting(AttentionStrip& strip) noexcept
        : strip_(strip),
          fetching_(strip.ahead, strip.rows * (strip.end - strip.begin) / panel_lines) {
        const size quarter = steps_of((strip.end - strip.begin) / 4) * panel_lines;
        if (quarter < length_) length_ = quarter > 0 ? quarter : panel_lines;
        for (size r = 0; r < strip.rows; ++r) measure(r);
    }

    void run(bool adjusts) noexcept {
        const Squares registers;
        AttentionStrip next = stretch_from(strip_.begin), now = {}, before = {};
        finish_products(&next, nullptr);
        while (next.begin < next.end) {
            if (adjusts) adjust<float, stretch_keys>(next);
            if (now.begin < now.end) before = now;
            now = next;
            next = stretch_from(now.end);
            if (rescales_) rescale_averages(before);
            weigh_beside(now, next.begin < next.end ? &next : nullptr,
                         before.begin < before.end ? &before : nullptr);
        }
        if (rescales_) rescale_averages(now);
        finish_products(nullptr, &now);
    }

  private:
    static constexpr size row_keys = stretch_keys;
    static constexpr size stretch_weights = row_keys / step_depth * weight_parts<S> * part_bytes;

    // The keys from `begin` on. Places count from the block's first key.
    AttentionStrip stretch_from(size begin) noexcept {
        AttentionStrip stretch = stretch_of(strip_, begin, length_);
        stretch.scores =
            static_cast<float*>(strip_.scores) + turn_ * panel_lines * row_keys - begin;
        stretch.weights = static_cast<char*>(strip_.weights) + turn_ * stretch_weights;
        stretch.first = strip_.first && begin == strip_.begin;
        turn_ ^= 1;
        return stretch;
    }
    static void finish_products(const AttentionStrip* next, const AttentionStrip* before) noexcept {
        asm volatile("" ::: "memory");  // GCC does not know what the unit reads and writes
        Products<S> products(next, before);
        products.finish();
        asm volatile("" ::: "memory");
    }

    void weigh_beside(AttentionStrip& now, const AttentionStrip* next,
                      const AttentionStrip* before) noexcept {
        rescales_ = false;
        asm volatile("" ::: "memory");
        Products<S> products(next, before);
        const size pairs = now.rows * (now.end - now.begin) / panel_lines;
        const size share = products.count() * 256 / pairs;
        size due = 0;
        const auto put = [&](size r, size k, const F32* weight) __attribute__((always_inline)) {
            put_parts<weight_parts<S>>(
                static_cast<char*>(now.weights) +
                    (k - now.begin) / step_depth * weight_parts<S> * part_bytes + row_place(r),
                weight[0], weight[1]);
            fetching_.some();
            for (due += share; due >= 256; due -= 256) products.some();
        };
        for (size r = 0; r < now.rows; ++r) weigh_one(now, r, put);
        products.finish();
        asm volatile("" ::: "memory");
    }

    template <class Put>
    void weigh_one(AttentionStrip& now, size r, const Put& put) noexcept {
        const float* score = static_cast<const float*>(now.scores) + r * row_keys;
        F32 most = load(score + now.begin);
        for (size k = now.begin + side; k < now.end; k += side)
            most = max_or_second(most, load(score + k));
        if (_mm512_cmp_ps_mask(most, splat(limit_[r]), _CMP_GT_OQ) != 0) raise(r, most);
        float* sums = static_cast<float*>(strip_.sums) + r * side;
        constexpr bool coarse = parts_of<S> < 3;  // results of 16 bits
        const F32 factor = splat(static_cast<float>(strip_.factor));
        F32 total[vectors_in_step] = {load(sums)};
        if (far_[r]) {
            const float level = static_cast<const float*>(strip_.level)[r];
            weigh_row<float, true, coarse>(score, r, now.begin, now.end, level, factor, total, put);
        } else {
            weigh_row<float, false, coarse>(score, r, now.begin, now.end, base_[r], factor, total,
                                            put);
        }
        store(sums, total[0] + total[1]);
    }

    // What the weights of a row are measured from, and the score beyond which that changes.
    void measure(size r) noexcept {
        const float level = static_cast<const float*>(strip_.level)[r];
        const float factor = static_cast<float>(strip_.factor);
        const bool begun = level != -infinity<float>;
        far_[r] = begun && is_far(level, factor);
        base_[r] = begun ? level * factor : 0;
        limit_[r] = begun ? level + level_margin<float> / factor : level;
    }

    [[gnu::noinline]] void raise(size r, F32 most) noexcept {
        float* rescale = static_cast<float*>(strip_.rescale);
        if (!rescales_)
            for (size i = 0; i < strip_.rows; ++i) rescale[i] = 1;
        store(static_cast<float*>(strip_.highest) + r * side, most);
        strip_.rescales = false;
        raise_level<float>(strip_, r);
        rescales_ = rescales_ || strip_.rescales;
        float* sums = static_cast<float*>(strip_.sums) + r * side;
        store(sums, load(sums) * splat(rescale[r]));
        measure(r);
    }

    AttentionStrip& strip_;
    Fetching fetching_;
    size length_ = stretch_keys;
    size turn_ = 0;          // which half of the buffers is next
    bool rescales_ = false;  // `now` has raised levels
    bool far_[panel_lines];
    float base_[panel_lines], limit_[panel_lines];
};

template <class S>
void meet(AttentionStrip& strip, bool adjusts) noexcept {
    Meeting<S>(strip).run(adjusts);
}

template <class S>
constexpr AttentionKernels kernels_of = {
    .rows = panel_lines,
    .columns = panel_lines,
    .lanes = side,
    .strip_keys = strip_keys,
    .depth_unit = step_depth,
    .query_bytes = step_bytes<S> / step_depth,
    .key_bytes = step_bytes<S> / step_depth,
    .weight_bytes = 2 * stretch_keys / step_depth * weight_parts<S> * part_bytes,
    .scores = nullptr,
    .adjust = nullptr,
    .weigh = nullptr,
    .average = nullptr,
    .meet = meet<S>,
    .finish = finish<float, panel_lines, panel_lines>,
    .gradient = nullptr,
    .accumulate = nullptr,
    .mask_state = mask_state,
    .all_finite = all_finite<float>,
};

}  // namespace

extern constinit const AttentionKernels part_attention[element_count] = {
    kernels_of<float>, {}, kernels_of<Float16>, kernels_of<BFloat16>, {}, {}};

}  // namespace unitstride::UNITSTRIDE_ISA
