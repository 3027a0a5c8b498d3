// Note [Few bits]: blocks of bytes are stretches in C order, so tensors with states in bytes are
// walked in that order, whatever the strides: all batches but the last are whole blocks. Random
// bits follow from the number of an element in C order, which is kept beside the offsets of arrays:
// tensors that are rounded at random are walked as memory has them.
#include "ops/optim_lines.hpp"

#include <algorithm>
#include <optional>

namespace unitstride {
namespace {

constexpr std::ptrdiff_t short_line = 64;  // shorter ones are gathered, several at a time
static_assert(step_batch % byte_block == 0);

class PieceLines {
  public:
    PieceLines(const StepPlan& plan, const StepLayout& layout, const PieceWork& work, char* scratch)
        : plan_(plan), layout_(layout), work_(work), scratch_(scratch) {
        const StepTensor& tensor = *layout.tensor;
        compute_ = is_wide(tensor) ? Storage::float64 : Storage::float32;
        for (int k = 0; k < step_operands; ++k) {
            size_[k] = storage_size(tensor.array[k].storage);
            in_bytes_[k] = tensor.array[k].scale != nullptr;
            takes_part_[k] = layout.data[k] != nullptr && k < step_copy && !in_bytes_[k] &&
                             (work.constants != nullptr || k == step_grad);
        }
        last_ = plan.axes.data() + layout.first_axis + layout.axes - 1;
        has_rest_ = layout.data[step_rest] != nullptr && work.constants != nullptr;
        turns_ = turns_gradient(plan, layout);
    }

    void run(std::ptrdiff_t begin, std::ptrdiff_t end) {
        StepCursor cursor(plan_, layout_, begin);
        const bool is_short = layout_.axes > 1 && last_->length < short_line;
        while (begin < end) {
            const std::ptrdiff_t most = std::min(step_batch, end - begin);
            const bool in_order = layout_.tensor->in_order;
            const std::ptrdiff_t count = is_short || in_order ? most : std::min(most, cursor.run());
            index_ = begin;
            batch(cursor, count, is_short || count > cursor.run());
            begin += count;
        }
    }

  private:
    std::ptrdiff_t step(int k) const { return layout_.axes == 0 ? 1 : last_->stride[k]; }
    char* line(int k) const { return scratch_ + k * step_line_bytes; }
    bool lies_ready(int k, bool is_short) const {
        return !is_short && layout_.tensor->array[k].storage == compute_ && last_->stride[k] == 1;
    }

    // Leaves the cursor behind the batch.
    void batch(StepCursor& cursor, std::ptrdiff_t count, bool is_short) {
        StepTask task = {{}, count, work_.constants, work_.norm, {}, {}};
        bool gathers[step_operands] = {};
        if (work_.constants != nullptr) decode(task);
        for (int k = 0; k < step_operands; ++k) {
            if (!takes_part_[k]) continue;
            gathers[k] = !lies_ready(k, is_short);
            task.line[k] = gathers[k] ? line(k) : place(k, cursor);
            if (!gathers[k] || is_short) continue;
            task.next_step[k] = last_->stride[k] * size_[k];
            task.next[k] = place(k, cursor) + count * task.next_step[k];
        }
        if (turns_ && !is_short) {
            gathers[step_grad] = false;
            task.line[step_grad] = turned_line(cursor);
        }
        const bool is_one_run = count <= cursor.run();
        std::optional<StepCursor> start;  // runs are walked twice; one of them needs no copy
        if (is_one_run) {
            for (int k = 0; k < step_operands; ++k)
                if (gathers[k]) gather(k, cursor, count, 0);
        } else {
            start = cursor;
            for (std::ptrdiff_t done = 0; done < count;) {
                const std::ptrdiff_t run = std::min(cursor.run(), count - done);
                for (int k = 0; k < step_operands; ++k)
                    if (gathers[k]) gather(k, cursor, run, done);
                cursor.advance(run);
                done += run;
            }
        }
        if (has_rest_) add_rest(count);
        work_.run(task);
        if (work_.constants != nullptr) encode(count);
        gathers[step_grad] = false;
        gathers[step_copy] = layout_.data[step_copy] != nullptr;
        if (work_.constants != nullptr)
            scatter_all(task, gathers, is_one_run ? cursor : *start, count);
        if (is_one_run) cursor.advance(count);
    }

    // Moves the cursor on if there is more than one run.
    void scatter_all(const StepTask& task, const bool (&wanted)[step_operands], StepCursor& cursor,
                     std::ptrdiff_t count) const {
        for (std::ptrdiff_t done = 0; done < count;) {
            const std::ptrdiff_t run = std::min(cursor.run(), count - done);
            for (int k = step_copy; k >= 0; --k)  // the copy before the parameter is rounded
                if (wanted[k])
                    scatter(k, cursor, run,
                            static_cast<char*>(task.line[k == step_copy ? step_param : k]), done);
            if (has_rest_) keep_rest(cursor, run, done);
            done += run;
            if (done < count) cursor.advance(run);
        }
    }

    // A part of a line of a gradient that is contiguous from line to line: some lines are
    // transposed in registers together, and wait in scratch for their turn.
    char* turned_line(const StepCursor& cursor) {
        const std::ptrdiff_t row = cursor.index(layout_.axes - 2), own = row % turned_rows;
        const std::ptrdiff_t length = last_->length, column = length - cursor.run();
        const std::ptrdiff_t back = own + column * last_->stride[step_grad];
        const char* const from = place(step_grad, cursor) - back * size_[step_grad];
        char* const tile = scratch_ + step_operands * step_line_bytes;
        if (turned_from_ != from) {
            const std::ptrdiff_t rows = std::min(turned_rows, last_[-1].length - (row - own));
            const auto storage = static_cast<int>(layout_.tensor->array[step_grad].storage);
            kernels().pack[storage].pack(
                {from, tile, rows, length, 1, last_->stride[step_grad], length, false});
            turned_from_ = from;
        }
        return tile + (own * length + column) * compute_size();
    }

    std::ptrdiff_t compute_size() const { return storage_size(compute_); }
    char* place(int k, const StepCursor& cursor) const {
        return layout_.data[k] + cursor.offset(k) * size_[k];
    }
    void gather(int k, const StepCursor& cursor, std::ptrdiff_t run, std::ptrdiff_t done) const {
        if (k == step_param && has_rest_) gather(step_rest, cursor, run, done);
        work_.kernels->gather[storage_of(k)](place(k, cursor), last_->stride[k], run,
                                             line(k) + done * compute_size());
    }
    void scatter(int k, const StepCursor& cursor, std::ptrdiff_t run, char* from,
                 std::ptrdiff_t done) const {
        const OptimKernels* kernels_of_line = work_.kernels;
        from += done * compute_size();
        if (draws(k)) {
            if (is_double()) {
                from = narrowed(from, run);
                kernels_of_line = &kernels().optim[0];
            }
            const std::ptrdiff_t first = layout_.index + cursor.offset(step_index);
            kernels().narrow->draw[storage_of(k)](
                reinterpret_cast<float*>(from), run, key_of(k), static_cast<std::uint32_t>(first),
                static_cast<std::uint32_t>(last_->stride[step_index]));
        }
        kernels_of_line->scatter[storage_of(k)](from, run, place(k, cursor), last_->stride[k]);
    }
    int storage_of(int k) const { return static_cast<int>(layout_.tensor->array[k].storage); }
    bool is_double() const { return compute_ == Storage::float64; }

    // Few bits. They are made of float: a line of double goes through another one.
    char* spare() const { return line(step_index); }
    char* narrowed(const char* from, std::ptrdiff_t count) const {
        constexpr int to_float = static_cast<int>(Storage::float32);
        kernels().optim[1].scatter[to_float](from, count, spare(), 1);
        return spare();
    }
    void decode(StepTask& task) const {
        for (int k = step_state; k < step_ema; ++k) {
            if (!in_bytes_[k]) continue;
            task.line[k] = line(k);
            task.next[k] = reinterpret_cast<const char*>(codes(k) + task.count);
            task.next_step[k] = 1;
            char* const to = is_double() ? spare() : line(k);
            const StepArray& array = layout_.tensor->array[k];
            kernels().narrow->decode[array.is_signed](codes(k), scale(k), task.count,
                                                      reinterpret_cast<float*>(to));
            constexpr int from_float = static_cast<int>(Storage::float32);
            if (is_double()) kernels().optim[1].gather[from_float](spare(), 1, task.count, line(k));
        }
    }
    void encode(std::ptrdiff_t count) const {
        for (int k = step_state; k < step_ema; ++k) {
            if (!in_bytes_[k]) continue;
            char* const from = is_double() ? narrowed(line(k), count) : line(k);
            kernels().narrow->encode[layout_.tensor->array[k].is_signed](
                reinterpret_cast<float*>(from), count, codes(k), scale(k));
        }
    }
    std::uint8_t* codes(int k) const {
        return reinterpret_cast<std::uint8_t*>(layout_.data[k]) + index_;
    }
    float* scale(int k) const { return layout_.tensor->array[k].scale + index_ / byte_block; }

    // Parameters of 16 bits have remainders, so that the lines are of float.
    float* floats(int k) const { return reinterpret_cast<float*>(line(k)); }
    void add_rest(std::ptrdiff_t count) const {
        kernels().narrow->add(floats(step_param), floats(step_rest), count);
    }
    // What the parameter has become is read again: rounding is known to `scatter` alone.
    void keep_rest(const StepCursor& cursor, std::ptrdiff_t run, std::ptrdiff_t done) const {
        float* kept = floats(step_rest) + done;
        work_.kernels->gather[storage_of(step_param)](place(step_param, cursor),
                                                      last_->stride[step_param], run, kept);
        kernels().narrow->leave(floats(step_param) + done, kept, run);
        scatter(step_rest, cursor, run, line(step_rest), done);
    }

    bool draws(int k) const { return layout_.tensor->draws && k < step_ema && size_[k] == 2; }
    // As `key_of` in the twin.
    std::uint64_t key_of(int k) const {
        std::uint64_t x = layout_.tensor->key + static_cast<std::uint64_t>(k) + 0x9e3779b97f4a7c15u;
        x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
        x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
        return x ^ (x >> 31);
    }

    const StepPlan& plan_;
    const StepLayout& layout_;
    const PieceWork& work_;
    char* const scratch_;
    const StepAxis* last_;
    Storage compute_;
    std::ptrdiff_t size_[step_operands];
    bool takes_part_[step_operands], in_bytes_[step_operands];
    bool turns_, has_rest_;
    std::ptrdiff_t index_ = 0;           // of the batch, in C order where that matters
    const char* turned_from_ = nullptr;  // where the lines in scratch begin
};

}  // namespace

void run_lines(const StepPlan& plan, const StepLayout& layout, const PieceWork& work, char* scratch,
               std::ptrdiff_t begin, std::ptrdiff_t end) {
    PieceLines(plan, layout, work, scratch).run(begin, end);
}

}  // namespace unitstride
