// Rows, keys and values of a call of attention in panels, whatever their strides.
#include "ops/attention_packing.hpp"

#include <cmath>
#include <cstring>

#include "isa/dispatch.hpp"
#include "ops/lines.hpp"

namespace unitstride {
namespace {

void clear(void* memory, std::ptrdiff_t begin, std::ptrdiff_t bytes) {
    std::memset(static_cast<char*>(memory) + begin, 0, static_cast<std::size_t>(bytes));
}

}  // namespace

template <class T>
AttentionPacking<T>::AttentionPacking(const AttentionShape& call_shape, const MatrixUnit* unit)
    : shape(call_shape),
      arguments(call_shape.arguments),
      table(unitstride::kernels()),
      kernels(unit ? *unit->attention : table.attention[sizeof(T) == 4 ? 0 : 1]),
      fetch(table.fetch[static_cast<int>(arguments.storage)]),
      packers(unit ? unit->packers : table.gemm_packers[static_cast<int>(arguments.storage)]),
      item(storage_bytes(arguments.storage)) {}

template <class T>
AttentionSpecials<T> AttentionPacking<T>::carve_specials(Carver& carver, std::ptrdiff_t count,
                                                         std::ptrdiff_t panels) const {
    AttentionSpecials<T> specials;
    specials.count = 0;
    specials.index = carver.take<std::ptrdiff_t>(count);
    specials.elements = carver.take<T>(checked_multiply(count, panels * kernels.columns));
    return specials;
}

template <class T>
void AttentionPacking<T>::pack_strip(const InputView& view, const AttentionRows& rows, Run* runs,
                                     void* panel, PowerRange* range) const {
    const std::ptrdiff_t features = view.shape[view.axes - 1];
    if (features == 0) return;
    if (rows.count < kernels.rows)
        clear(panel, 0, round_up(features, kernels.depth_unit) * kernels.query_bytes);
    const Run along = {0, stride_of(view, 1), features};
    PanelTask task = {};
    task.array = shape.head_start(view, rows.entry, rows.key_head * shape.group, item);
    task.panel = panel;
    task.across = runs;
    task.across_runs = shape.list_rows(rows, stride_of(view, 2), stride_of(view, 3), runs);
    task.along = &along;
    task.along_runs = 1;
    task.range = range;
    packers.rows(task);
}

template <class T>
void AttentionPacking<T>::pack_across(const InputView& view, std::ptrdiff_t entry,
                                      std::ptrdiff_t head, std::ptrdiff_t base,
                                      std::ptrdiff_t first, std::ptrdiff_t end, void* panels,
                                      PowerRange* range) const {
    const std::ptrdiff_t features = view.shape[view.axes - 1], columns = kernels.columns;
    if (features == 0) return;
    const std::ptrdiff_t whole = round_up(end, columns), bytes = panel_bytes(features);
    if (whole > end) clear(panels, (whole / columns - 1) * bytes, bytes);
    const std::ptrdiff_t step = stride_of(view, 2);
    const Run across = {(base + first) * step, step, end - first};
    const Run along = {0, stride_of(view, 1), features};
    PanelTask task = {};
    task.array = shape.head_start(view, entry, head, item);
    task.panel = static_cast<char*>(panels) + first / columns * bytes;
    task.panel_bytes = bytes;
    task.across = &across;
    task.along = &along;
    task.across_runs = task.along_runs = 1;
    task.range = range;
    packers.columns(task);
}

template <class T>
void AttentionPacking<T>::pack_along(const InputView& view, std::ptrdiff_t entry,
                                     std::ptrdiff_t head, std::ptrdiff_t base, std::ptrdiff_t first,
                                     std::ptrdiff_t end, std::ptrdiff_t depth, void* panels,
                                     PowerRange* range) const {
    const std::ptrdiff_t step = stride_of(view, 2);
    const Run along = {(base + first) * step, step, end - first};
    pack_runs_along(view, shape.head_start(view, entry, head, item), &along, 1, first, end, depth,
                    panels, range);
}

// A run at a time: there are many of them where heads share keys.
template <class T>
void AttentionPacking<T>::pack_rows_along(const InputView& view, const AttentionRows& rows,
                                          std::ptrdiff_t depth, T* panels) const {
    const char* start = shape.head_start(view, rows.entry, rows.key_head * shape.group, item);
    for (std::ptrdiff_t packed = 0; packed < rows.count;) {
        const std::ptrdiff_t row = rows.first + packed, left = rows.count - packed;
        const std::ptrdiff_t now =
            shape.group == 1 ? left : std::min(shape.group - row % shape.group, left);
        Run along;
        shape.list_rows({rows.entry, rows.key_head, row, now}, stride_of(view, 2),
                        stride_of(view, 3), &along);
        pack_runs_along(view, start, &along, 1, packed, packed + now, depth, panels, nullptr);
        packed += now;
    }
}

template <class T>
void AttentionPacking<T>::pack_runs_along(const InputView& view, const char* start,
                                          const Run* along, std::ptrdiff_t runs,
                                          std::ptrdiff_t first, std::ptrdiff_t end,
                                          std::ptrdiff_t depth, void* panels,
                                          PowerRange* range) const {
    const std::ptrdiff_t features = view.shape[view.axes - 1], columns = kernels.columns;
    if (features == 0) return;
    const std::ptrdiff_t whole = round_up(end, columns), count = panels_of(features);
    const std::ptrdiff_t bytes = panel_bytes(depth), step = kernels.key_bytes;
    if (features % columns != 0)
        clear(panels, (count - 1) * bytes + first * step, (whole - first) * step);
    const Run across = {0, stride_of(view, 1), features};
    PanelTask task = {};
    task.array = start;
    task.panel = static_cast<char*>(panels) + first * step;
    task.panel_bytes = bytes;
    task.across = &across;
    task.across_runs = 1;
    task.along = along;
    task.along_runs = runs;
    task.range = range;
    packers.columns(task);
    const std::ptrdiff_t filled = round_up(end, kernels.depth_unit);
    for (std::ptrdiff_t p = 0; p < count && whole > filled; ++p)
        clear(panels, p * bytes + filled * step, (whole - filled) * step);
}

template <class T>
void AttentionPacking<T>::pack_rows_across(const InputView& view, const AttentionRows& rows,
                                           Run* runs, std::ptrdiff_t depth, void* panels,
                                           PowerRange* range) const {
    const std::ptrdiff_t features = view.shape[view.axes - 1], step = stride_of(view, 1);
    const std::ptrdiff_t bytes = round_up(depth, kernels.depth_unit) * kernels.query_bytes;
    PanelTask task = {};
    task.array = shape.head_start(view, rows.entry, rows.key_head * shape.group, item);
    task.along = runs;
    task.along_runs = shape.list_rows(rows, stride_of(view, 2), stride_of(view, 3), runs);
    task.across_runs = 1;
    task.range = range;
    for (std::ptrdiff_t p = 0; p < panels_of(features); ++p) {
        const std::ptrdiff_t first = p * kernels.rows;
        const Run across = {first * step, step, std::min(kernels.rows, features - first)};
        if (across.count < kernels.rows) clear(panels, p * bytes, bytes);
        task.across = &across;
        task.panel = static_cast<char*>(panels) + p * bytes;
        packers.rows(task);
    }
}

template <class T>
Ahead AttentionPacking<T>::ahead_of(const InputView& view, std::ptrdiff_t entry,
                                    std::ptrdiff_t head, std::ptrdiff_t first,
                                    std::ptrdiff_t count) const {
    const std::ptrdiff_t step = stride_of(view, 2) * item;
    return {shape.head_start(view, entry, head, item) + first * step, step,
            stride_of(view, 1) == 1 ? count : 0, view.shape[view.axes - 1] * item};
}

template <class T>
void AttentionPacking<T>::fetch_early(const InputView& view, const AttentionRows& rows) const {
    constexpr std::ptrdiff_t line = 64;
    if (stride_of(view, 1) != 1) return;
    const std::ptrdiff_t bytes = view.shape[view.axes - 1] * item;
    const char* start = shape.head_start(view, rows.entry, rows.key_head * shape.group, item);
    for (std::ptrdiff_t r = rows.first; r < rows.first + rows.count; ++r) {
        const char* row =
            start +
            (r / shape.group * stride_of(view, 2) + r % shape.group * stride_of(view, 3)) * item;
        for (std::ptrdiff_t at = 0; at < bytes; at += line) __builtin_prefetch(row + at, 0, 2);
    }
}

template <class T>
void AttentionPacking<T>::fetch_rows(const InputView& view, const AttentionRows& rows, Run* runs,
                                     T* to) const {
    const std::ptrdiff_t features = view.shape[view.axes - 1];
    const char* start = shape.head_start(view, rows.entry, rows.key_head * shape.group, item);
    const std::ptrdiff_t count =
        shape.list_rows(rows, stride_of(view, 2), stride_of(view, 3), runs);
    for (std::ptrdiff_t i = 0; i < count; to += runs[i++].count * features) {
        FetchTask task = {};
        task.from = start + runs[i].offset * item;
        task.to = to;
        task.rows = runs[i].count;
        task.columns = task.to_row = features;
        task.from_row = runs[i].step;
        task.from_column = stride_of(view, 1);
        fetch.fetch(task);
    }
}

template <class T>
void AttentionPacking<T>::set_specials_apart(T* panels, std::ptrdiff_t panel_count,
                                             std::ptrdiff_t depth, std::ptrdiff_t first,
                                             std::ptrdiff_t end,
                                             AttentionSpecials<T>& specials) const {
    const std::ptrdiff_t columns = kernels.columns, width = panel_count * columns;
    specials.count = 0;
    bool finite = true;
    for (std::ptrdiff_t p = 0; p < panel_count && finite; ++p)
        finite =
            kernels.all_finite(panels + (p * depth + first) * columns, (end - first) * columns);
    if (finite) return;
    for (std::ptrdiff_t k = first; k < end; ++k) {
        const auto at = [&](std::ptrdiff_t i) -> T& {
            return panels[(i / columns * depth + k) * columns + i % columns];
        };
        T* apart = specials.elements + specials.count * width;
        finite = true;
        for (std::ptrdiff_t i = 0; i < width; ++i) {
            apart[i] = at(i);
            finite = finite && std::isfinite(apart[i]);
        }
        if (finite) continue;
        specials.index[specials.count++] = k;
        for (std::ptrdiff_t i = 0; i < width; ++i) at(i) = 0;
    }
}

template class AttentionPacking<float>;
template class AttentionPacking<double>;

}  // namespace unitstride
