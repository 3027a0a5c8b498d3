// See Note [Phases].
#include "ops/plane_tiles.hpp"

#include "core/checked.hpp"
#include "isa/dispatch.hpp"
#include "ops/lines.hpp"

namespace unitstride {
namespace {

constexpr std::ptrdiff_t most_columns = 2048;          // of results, in a part
constexpr std::ptrdiff_t cached_elements = 48 << 10;   // of x, of one plane
constexpr std::ptrdiff_t cached_together = 128 << 10;  // of several
constexpr std::ptrdiff_t least_rows = 8;

std::ptrdiff_t pieces(std::ptrdiff_t whole, std::ptrdiff_t piece) {
    return (whole + piece - 1) / piece;
}

}  // namespace

PlaneTiles::PlaneTiles(const InputView& x, Storage storage, Boundary boundary,
                       const Windows& windows, std::ptrdiff_t together, bool whole_vectors,
                       std::ptrdiff_t most_elements)
    : pack_(kernels().pack[static_cast<int>(storage)]),
      x_(x),
      boundary_(boundary),
      windows_(windows),
      storage_(storage_bytes(storage)),
      compute_(compute_bytes(storage)),
      slack_(kernels().planes[0].slack_bytes / compute_),
      together_(together) {
    for (int axis = 0; axis < 2; ++axis) {
        const std::ptrdiff_t step = windows.step[axis], taps = windows.taps[axis];
        reach_[axis] = checked_multiply(taps - 1, windows.spread[axis]) / step;
        for (std::ptrdiff_t tap = 0; tap < std::min(taps, step); ++tap) {
            const std::ptrdiff_t phase = tap * windows.spread[axis] % step;
            if (std::find(phases_[axis].begin(), phases_[axis].end(), phase) == phases_[axis].end())
                phases_[axis].push_back(phase);
        }
    }
    const std::ptrdiff_t lanes = kernels().vector_bytes / compute_;
    const auto grid = static_cast<std::ptrdiff_t>(phases_[0].size() * phases_[1].size());
    column_parts_ = pieces(windows.results[1], most_columns);
    largest_.columns =
        std::min(round_up(pieces(windows.results[1], column_parts_), lanes), windows.results[1]);
    pitch_ = checked_add(largest_.columns, reach_[1]);
    if (whole_vectors) pitch_ = round_up(pitch_, lanes);
    std::ptrdiff_t cached = together > 1 ? cached_together / together : cached_elements;
    if (most_elements > 0) cached = most_elements;
    largest_.rows = std::max(cached / checked_multiply(pitch_, grid) - reach_[0], least_rows);
    largest_.rows = std::min(largest_.rows, windows.results[0]);
    row_parts_ = pieces(windows.results[0], largest_.rows);
    largest_.rows = pieces(windows.results[0], row_parts_);
    phase_ = checked_multiply(checked_add(largest_.rows, reach_[0]), pitch_);
    // Planes are not a power of two apart, where they would share few places of the cache.
    plane_ = checked_add(round_up(checked_multiply(phase_, grid) + slack_, lanes), lanes);
    keeps_zeros_ = parts() == 1 && boundary == Boundary::zero;
}

Part PlaneTiles::part_of(std::ptrdiff_t number) const noexcept {
    const std::ptrdiff_t column = number % column_parts_ * largest_.columns;
    const std::ptrdiff_t row = number / column_parts_ * largest_.rows;
    return {row, std::min(largest_.rows, windows_.results[0] - row), column,
            std::min(largest_.columns, windows_.results[1] - column)};
}

std::ptrdiff_t PlaneTiles::elements() const { return checked_multiply(plane_, together_); }

std::ptrdiff_t PlaneTiles::place(std::ptrdiff_t p, std::ptrdiff_t q) const noexcept {
    const std::ptrdiff_t tap[2] = {p, q};
    std::ptrdiff_t phase[2], distance[2];
    for (int axis = 0; axis < 2; ++axis) {
        const std::ptrdiff_t far = tap[axis] * windows_.spread[axis];
        distance[axis] = far / windows_.step[axis];
        phase[axis] =
            std::find(phases_[axis].begin(), phases_[axis].end(), far % windows_.step[axis]) -
            phases_[axis].begin();
    }
    const auto across = static_cast<std::ptrdiff_t>(phases_[1].size());
    return (phase[0] * across + phase[1]) * phase_ + distance[0] * pitch_ + distance[1];
}

std::vector<std::ptrdiff_t> PlaneTiles::places(std::ptrdiff_t rows) const {
    std::vector<std::ptrdiff_t> found;
    found.reserve(static_cast<std::size_t>(rows * windows_.taps[1]));
    for (std::ptrdiff_t p = 0; p < rows; ++p)
        for (std::ptrdiff_t q = 0; q < windows_.taps[1]; ++q) found.push_back(place(p, q));
    return found;
}

void PlaneTiles::clear(char* tile) const {
    if (keeps_zeros_ || boundary_ != Boundary::zero) std::fill_n(tile, elements() * compute_, '\0');
}

PlaneTiles::Stretch PlaneTiles::stretch_of(int axis, std::ptrdiff_t first_result,
                                           std::ptrdiff_t phase,
                                           std::ptrdiff_t count) const noexcept {
    const std::ptrdiff_t step = windows_.step[axis];
    const std::ptrdiff_t length = axis == 0 ? x_.rows : x_.columns;
    const std::ptrdiff_t origin = windows_.begin[axis] + first_result * step + phase;
    const auto places_before = [&](std::ptrdiff_t element) {
        const std::ptrdiff_t far = element - origin;
        return far <= 0 ? 0 : std::min((far + step - 1) / step, count);
    };
    const std::ptrdiff_t first = places_before(0), last = places_before(length);
    return {first, std::max(first, last), origin + first * step};
}

// Beyond the ends of x lie zeros. Those after a row adjoin those before the next one.
void PlaneTiles::fetch_phase(const Part& part, std::ptrdiff_t row_phase,
                             std::ptrdiff_t column_phase, const char* x, std::ptrdiff_t planes,
                             char* tile) const {
    const std::ptrdiff_t height = part.rows + reach_[0];
    const Stretch rows = stretch_of(0, part.row, row_phase, height);
    const Stretch columns = stretch_of(1, part.column, column_phase, part.columns + reach_[1]);
    const std::ptrdiff_t count = columns.last - columns.first;
    const std::ptrdiff_t high = count > 0 ? rows.last - rows.first : 0;
    char* const inner = tile + (rows.first * pitch_ + columns.first) * compute_;
    if (!keeps_zeros_) {
        for (std::ptrdiff_t j = 0; j < planes; ++j) {
            char* const own = tile + j * plane_ * compute_;
            std::ptrdiff_t from = 0;
            const auto zero_until = [&](std::ptrdiff_t to) {
                if (from < to) std::fill_n(own + from * compute_, (to - from) * compute_, '\0');
            };
            for (std::ptrdiff_t r = 0; r < high; ++r) {
                const std::ptrdiff_t begin = (rows.first + r) * pitch_ + columns.first;
                zero_until(begin);
                from = begin + count;
            }
            zero_until(height * pitch_ + slack_);  // and the first of a phase that comes later
        }
    }
    if (high <= 0) return;
    const char* const source =
        x + (rows.element * x_.row_stride + columns.element * x_.column_stride) * storage_;
    const std::ptrdiff_t down = windows_.step[0] * x_.row_stride;
    const std::ptrdiff_t along = windows_.step[1] * x_.column_stride;
    if (together_ == 1) {
        pack_.pack({source, inner, high, count, down, along, pitch_, false});
        return;
    }
    for (std::ptrdiff_t r = 0; r < high; ++r)
        pack_.pack({source + r * down * storage_, inner + r * pitch_ * compute_, planes, count, 1,
                    along, plane_, false});
}

// One row, from an element on that may lie before its beginning.
void PlaneTiles::fetch_row(const char* row, std::ptrdiff_t first, std::ptrdiff_t width,
                           char* tile) const {
    const auto copy = [&](std::ptrdiff_t element, std::ptrdiff_t place, std::ptrdiff_t count) {
        pack_.pack({row + element * x_.column_stride * storage_, tile + (place - first) * compute_,
                    1, count, 0, x_.column_stride, 0, false});
    };
    const auto zero = [&](std::ptrdiff_t place, std::ptrdiff_t count) {
        std::fill_n(tile + (place - first) * compute_, count * compute_, '\0');
    };
    for_extended(first, first + width, x_.columns, boundary_, copy, zero);
}

// By a rule other than zeros: one plane, and a step of one.
void PlaneTiles::fetch_extended(const Part& part, const char* x, char* tile) const {
    const std::ptrdiff_t top = windows_.begin[0] + part.row;
    const std::ptrdiff_t left = windows_.begin[1] + part.column;
    const std::ptrdiff_t width = part.columns + reach_[1];
    const auto copy = [&](std::ptrdiff_t element, std::ptrdiff_t place, std::ptrdiff_t rows) {
        const char* const from = x + element * x_.row_stride * storage_;
        char* const to = tile + (place - top) * pitch_ * compute_;
        if (left >= 0 && left + width <= x_.columns) {
            pack_.pack({from + left * x_.column_stride * storage_, to, rows, width, x_.row_stride,
                        x_.column_stride, pitch_, false});
            return;
        }
        for (std::ptrdiff_t row = 0; row < rows; ++row)
            fetch_row(from + row * x_.row_stride * storage_, left, width,
                      to + row * pitch_ * compute_);
    };
    const auto zero = [](std::ptrdiff_t, std::ptrdiff_t) {};
    for_extended(top, top + part.rows + reach_[0], x_.rows, boundary_, copy, zero);
}

void PlaneTiles::fetch(const Part& part, const char* x, std::ptrdiff_t planes, char* tile) const {
    if (boundary_ != Boundary::zero) {
        fetch_extended(part, x, tile);
        return;
    }
    for (const std::ptrdiff_t row_phase : phases_[0])
        for (const std::ptrdiff_t column_phase : phases_[1]) {
            fetch_phase(part, row_phase, column_phase, x, planes, tile);
            tile += phase_ * compute_;
        }
}

}  // namespace unitstride
