// Panels of A times panels of B on the matrix unit, and the update of C wherever its elements lie.
//
// Four squares of C are summed at a time, two of A and two of B beside them: the eight registers of
// the unit. A stretch of a panel of A that fits the first-level cache meets all panels of B, which
// stream from the second level; the sums wait in the thread's own memory for the next stretch, and
// go to C after the last.
#include <type_traits>

#include "kernels/amx/matrix_unit.hpp"
#include "kernels/amx/squares.hpp"
#include "kernels/gemm_write.hpp"

namespace unitstride::UNITSTRIDE_ISA {
namespace {

// Fetches what comes next, a little with each step: all at once it would keep the loads of the
// multiplication waiting.
class FetchingBySteps {
  public:
    FetchingBySteps(const SweepTask& task, size steps) noexcept
        : task_(task), ahead_(task.ahead, steps) {}
    // The rows of C that a tile goes to, in the course of so many steps.
    void expect_rows(size column, size steps) noexcept {
        column_ = column;
        rows_ = task_.rows;
        each_ = (rows_ + steps - 1) / steps;
    }
    void some() noexcept {
        ahead_.some();
        const float* c = static_cast<const float*>(task_.c) + column_;
        for (size i = 0; i < each_ && rows_ > 0; ++i) {
            const float* row = c + task_.row_offset[--rows_];
            __builtin_prefetch(row, 1, 2);
            __builtin_prefetch(row + side, 1, 2);
            __builtin_prefetch(row + panel_lines - 1, 1, 2);
        }
    }

  private:
    const SweepTask& task_;
    Fetching ahead_;
    size column_ = 0, rows_ = 0, each_ = 0;
};

// The four squares of a tile one after the other.
constexpr Corners one_after_other = {side, side * side, 2 * side * side};

// sums = (first ? 0 : sums) + the products of `steps` steps.
template <bool both_rows, bool both_columns, size parts>
void add_steps(const char* a, const char* b, size steps, float* sums, bool first,
               FetchingBySteps& fetching) noexcept {
    using Tile = Sums<both_rows, both_columns>;
    if (first) {
        Tile::zero();
    } else {
        Tile::load(sums, one_after_other);
    }
    for (size step = 0; step < steps; ++step) {
        fetching.some();
        Tile::template add_step<parts, parts>(a, b);
        a += parts * part_bytes;
        b += parts * part_bytes;
    }
    Tile::store(sums, one_after_other);
}

using AddSteps = void (*)(const char*, const char*, size, float*, bool, FetchingBySteps&) noexcept;

template <size parts>
inline AddSteps add_function(bool both_rows, bool both_columns) noexcept {
    static constexpr AddSteps functions[2][2] = {
        {add_steps<false, false, parts>, add_steps<false, true, parts>},
        {add_steps<true, false, parts>, add_steps<true, true, parts>}};
    return functions[both_rows][both_columns];
}

inline const float* row_of(const float* sums, size row) noexcept {
    return sums + row / side * 512 + row % side * side;
}

// The sums of a panel to contiguous columns of C.
inline void write_rows(const SweepTask& task, size columns, float* c, const float* sums) noexcept {
    const F32 alpha = splat(static_cast<float>(task.alpha));
    const F32 beta = splat(static_cast<float>(task.beta));
    const bool reads = task.beta != 0;
    for (size r = 0; r < task.rows; ++r) {
        const float* sum = row_of(sums, r);
        float* row = c + task.row_offset[r];
        for (size i = 0; i < columns; i += side, sum += 256) {
            const F32 scaled = alpha * load(sum);
            float* to = row + i;
            if (columns - i >= side) {
                store(to, reads ? multiply_add(beta, load(to), scaled) : scaled);
            } else {
                const size rest = columns - i;
                const F32 result =
                    reads ? multiply_add(beta, load_first(to, rest, 0.0f), scaled) : scaled;
                store_first(to, result, rest);
            }
        }
    }
}

inline void write_panel(const SweepTask& task, size index, size columns,
                        const float* sums) noexcept {
    const PanelColumns& panel = task.panels[index];
    if (panel.count == 1 && panel.runs[0].step == 1)
        return write_rows(task, columns, static_cast<float*>(task.c) + panel.runs[0].offset, sums);
    alignas(64) float rows[panel_lines * panel_lines];
    for (size r = 0; r < task.rows; ++r) {
        store(rows + r * panel_lines, load(row_of(sums, r)));
        store(rows + r * panel_lines + side, load(row_of(sums, r) + 256));
    }
    scatter_tile<float, panel_lines>(task, panel, rows);
}

// Steps of a panel of A that stay in the first-level cache beside what streams past.
template <size parts>
constexpr size stretch_steps = parts == 3 ? 4 : (parts == 2 ? 5 : 10);

template <size parts>
void sweep(const SweepTask& task) noexcept {
    const Squares registers;
    const size steps = (task.depth + step_depth - 1) / step_depth;
    const size panels = (task.columns + panel_lines - 1) / panel_lines;
    constexpr size bytes = parts * part_bytes;
    const bool whole = steps <= stretch_steps<parts>;
    FetchingBySteps fetching(task, panels * steps);
    const char* a = static_cast<const char*>(task.a);
    for (size step = 0; step < steps;
         step += stretch_steps<parts>, a += stretch_steps<parts> * bytes) {
        const size now = steps - step < stretch_steps<parts> ? steps - step : stretch_steps<parts>;
        const char* b = static_cast<const char*>(task.b) + step * bytes;
        const bool last = step + now == steps;
        for (size p = 0; p < panels; ++p, b += steps * bytes) {
            const size left = task.columns - p * panel_lines;
            const size columns = left < panel_lines ? left : panel_lines;
            float* const sums = task.sums + (whole ? 0 : p * panel_lines * panel_lines);
            if (last) fetching.expect_rows(task.panels[p].runs[0].offset, now);
            add_function<parts>(task.rows > side, columns > side)(a, b, now, sums, step == 0,
                                                                  fetching);
            if (last) write_panel(task, p, columns, sums);
        }
    }
}

// Packed B takes less than half of the second-level cache; what is kept in float until all of the
// depth is summed goes deep.
template <class S>
constexpr GemmKernels kernels_of = {
    .rows = panel_lines,
    .columns = panel_lines,
    .block_depth = std::is_same_v<S, float> ? 384 : 2048,
    .short_depth = std::is_same_v<S, float> ? 384 : 2048,
    .depth_unit = step_depth,
    .block_columns = parts_of<S> == 1 ? 256 : 384,
    .block_rows = 4 * panel_lines,
    .a_panel_bytes = step_bytes<S> / step_depth,
    .b_panel_bytes = step_bytes<S> / step_depth,
    .sums_per_column = panel_lines,
    .sweep = sweep<parts_of<S>>,
    .round = nullptr,
};

}  // namespace

extern constinit const GemmKernels part_kernels[element_count] = {
    kernels_of<float>, {}, kernels_of<Float16>, kernels_of<BFloat16>, {}, {}};

}  // namespace unitstride::UNITSTRIDE_ISA
