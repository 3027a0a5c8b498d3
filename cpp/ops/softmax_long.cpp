// Softmax of lines too long for the cache: two sweeps over pieces of a fixed size, which threads
// share.
//
// The first sweep gives each piece's maximum and sum; they are folded in the order of the pieces.
// The second one computes the exponentials again and writes them scaled: reading a line twice is
// cheaper than keeping it.
#include <algorithm>
#include <cmath>
#include <vector>

#include "core/checked.hpp"
#include "ops/softmax_forms.hpp"

namespace unitstride {
namespace {

constexpr std::ptrdiff_t batch_bytes =
    32 << 20;  // lines between the sweeps: they should still be in the last cache

struct LongLines {
    const SoftmaxCall& call;
    std::ptrdiff_t piece, pieces;  // elements of a piece, pieces of a line

    explicit LongLines(const SoftmaxCall& softmax) : call(softmax) {
        piece = call.table.piece_bytes / compute_bytes(call.storage());
        pieces = (call.plan.length + piece - 1) / piece;
    }
    std::ptrdiff_t piece_length(std::ptrdiff_t number) const {
        return std::min(piece, call.plan.length - number * piece);
    }
    std::ptrdiff_t scratch_bytes() const {
        return round_up(piece * compute_bytes(call.storage()), scratch_alignment) +
               scratch_alignment;
    }
};

// The elements of a piece, contiguous: where they are, or packed into `tile`.
struct PieceSource {
    const void* data;
    bool packed;

    PieceSource(const LongLines& lines, const std::ptrdiff_t* offset, std::ptrdiff_t number,
                char* tile) {
        const SoftmaxCall& call = lines.call;
        const std::ptrdiff_t begin = number * lines.piece, count = lines.piece_length(number);
        const char* x = call.x_at(offset[operand_x]);
        packed = call.masked() || !line_is_contiguous(call.plan, operand_x);
        data = packed ? tile : x + begin * storage_bytes(call.storage());
        if (!packed) return;
        pack_stretch(call.table, call.storage(), call.plan, operand_x, x, begin, count, tile);
        if (call.masked())
            mask_stretch(call.table, call.storage(), call.plan, operand_where,
                         call.where_at(offset[operand_where]), begin, count, tile, call.fill());
    }
};

LineSum sum_piece(const LongLines& lines, const std::ptrdiff_t* offset, std::ptrdiff_t number,
                  char* tile) {
    const SoftmaxCall& call = lines.call;
    const PieceSource source(lines, offset, number, tile);
    LineSum sum;
    SoftmaxRows task = {
        source.data, nullptr, 1,    lines.piece_length(number), 0,     0, call.exp(),
        nullptr,     0,       &sum, SoftmaxOutput::none,        false, 0};
    (source.packed ? call.kernels.packed_rows : call.kernels.rows)(task);
    return sum;
}

// The sum of a line from those of its pieces.
LineSum fold(const LineSum* sums, std::ptrdiff_t count, double inverse_temperature) {
    LineSum line = {-__builtin_huge_val(), 0.0, false};
    for (std::ptrdiff_t i = 0; i < count; ++i) {
        line.highest = std::max(line.highest, sums[i].highest);
        line.has_nan |= sums[i].has_nan;
    }
    double maxima = 0.0, others = 0.0, lost = 0.0;  // maxima: pieces that hold the maximum
    for (std::ptrdiff_t i = 0; i < count; ++i) {
        const bool empty = std::isinf(sums[i].highest) && sums[i].highest < 0;
        double part = sums[i].excess;
        if (sums[i].highest == line.highest) {
            maxima += 1.0;
        } else {
            part = empty ? 0.0
                         : (1.0 + part) *
                               std::exp((sums[i].highest - line.highest) * inverse_temperature);
        }
        const double total = others + part;
        lost +=
            std::abs(others) >= std::abs(part) ? (others - total) + part : (part - total) + others;
        others = total;
    }
    line.excess = line.has_nan || std::isinf(line.highest) ? __builtin_nan("")
                                                           : (maxima - 1.0) + (others + lost);
    return line;
}

void write_piece(const LongLines& lines, const std::ptrdiff_t* offset, std::ptrdiff_t number,
                 const LineSum& sum, char* tile) {
    const SoftmaxCall& call = lines.call;
    const Storage storage = call.storage();
    const std::ptrdiff_t begin = number * lines.piece, count = lines.piece_length(number);
    const PieceSource source(lines, offset, number, tile);
    char* out = call.out_at(offset[operand_out]);
    char *work = tile + lines.scratch_bytes(), *result = work + lines.scratch_bytes();
    const bool straight = !call.masked() && line_is_contiguous(call.plan, operand_out) &&
                          (!source.packed || storage == compute_storage(storage));
    const bool is_log = call.arguments.output == SoftmaxOutput::log_softmax;
    SoftmaxPiece task = {source.data, straight ? out + begin * storage_bytes(storage) : result,
                         count,       call.exp(),
                         sum.highest, is_log ? std::log1p(sum.excess) : 1.0 / (1.0 + sum.excess),
                         work,        call.streaming && straight};
    // Unpacked elements have the storage type, and so has their result; packed ones the compute
    // type.
    (source.packed ? call.kernels.packed_piece : call.kernels.piece)(task, call.arguments.output);
    if (straight) return;
    if (!source.packed) {
        const bool widened = storage == compute_storage(storage);
        if (!widened) {
            LinesPlan contiguous = call.plan;
            contiguous.line.count = 0;
            pack_stretch(call.table, storage, contiguous, operand_out, result, 0, count, work);
            std::swap(work, result);
        }
    }
    if (call.masked() && sum.excess != sum.excess)
        mask_stretch(call.table, storage, call.plan, operand_where,
                     call.where_at(offset[operand_where]), begin, count, result,
                     call.masked_output());
    unpack_stretch(call.table, storage, call.plan, operand_out, out, begin, count, result,
                   call.streaming);
}

unsigned status_of(const LongLines& lines, const std::ptrdiff_t* offset, const LineSum& sum) {
    const SoftmaxCall& call = lines.call;
    if (sum.excess == sum.excess || sum.has_nan || call.arguments.output == SoftmaxOutput::none)
        return 0;
    if (call.masked() && !any_selected(call.plan, operand_where,
                                       call.where_at(offset[operand_where]), call.plan.length))
        return 0;
    return status_invalid;
}

}  // namespace

unsigned softmax_long_lines(const SoftmaxCall& call) {
    const LongLines lines(call);
    const std::ptrdiff_t line_bytes = call.plan.length * compute_bytes(call.storage());
    const std::ptrdiff_t batch =
        std::clamp<std::ptrdiff_t>(batch_bytes / line_bytes, 1, call.plan.lines);
    const int workers = workers_for(call.nanoseconds(), checked_multiply(batch, lines.pieces));
    const Scratch scratch(checked_multiply(3, lines.scratch_bytes()), workers);
    count_allocation();
    std::vector<LineSum> sums(static_cast<std::size_t>(checked_multiply(batch, lines.pieces)));
    unsigned status = 0;
    for (std::ptrdiff_t first = 0; first < call.plan.lines; first += batch) {
        const std::ptrdiff_t count = std::min(batch, call.plan.lines - first);
        const auto sweep = [&](auto&& body) {
            parallel_for(workers, count * lines.pieces,
                         [&](Worker& worker, std::ptrdiff_t begin, std::ptrdiff_t end) {
                             for (std::ptrdiff_t i = begin; i < end; ++i) {
                                 std::ptrdiff_t offset[max_operands];
                                 call.plan.offsets_of(first + i / lines.pieces, offset);
                                 body(i / lines.pieces, i % lines.pieces, offset,
                                      scratch.of_worker(worker.index()));
                                 if (!worker.proceed()) return;
                             }
                         });
        };
        sweep([&](std::ptrdiff_t line, std::ptrdiff_t number, const std::ptrdiff_t* offset,
                  char* tile) {
            sums[static_cast<std::size_t>(line * lines.pieces + number)] =
                sum_piece(lines, offset, number, tile);
        });
        // Each line's sum ends up in the place of its first piece.
        for (std::ptrdiff_t line = 0; line < count; ++line) {
            std::ptrdiff_t offset[max_operands];
            call.plan.offsets_of(first + line, offset);
            LineSum& sum = sums[static_cast<std::size_t>(line * lines.pieces)];
            sum = fold(&sum, lines.pieces, call.constants.of_double.inverse_temperature_wide);
            status |= status_of(lines, offset, sum);
            if (call.wants_sums()) status |= call.write_log_sums(&sum, 1, offset);
        }
        if (!call.arguments.out) continue;
        sweep([&](std::ptrdiff_t line, std::ptrdiff_t number, const std::ptrdiff_t* offset,
                  char* tile) {
            write_piece(lines, offset, number, sums[static_cast<std::size_t>(line * lines.pieces)],
                        tile);
        });
    }
    return status;
}

}  // namespace unitstride
