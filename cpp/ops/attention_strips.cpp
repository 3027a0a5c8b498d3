#include "ops/attention_strips.hpp"

#include <cmath>
#include <cstring>

#include "ops/lines.hpp"

namespace unitstride {
namespace {

constexpr double log2_e = 0x1.71547652b82fep+0, ln2 = 0x1.62e42fefa39efp-1;

}  // namespace

template <class T>
AttentionStrips<T>::AttentionStrips(const AttentionShape& call_shape, const MatrixUnit* unit)
    : Base(call_shape, unit),
      transforms(arguments.softcap != 0 || arguments.bias || arguments.slopes ||
                 !(arguments.scale > 0)),
      factor(transforms ? log2_e : arguments.scale * log2_e) {}

template <class T>
AttentionBuffers<T> AttentionStrips<T>::carve_buffers(Carver& carver) const {
    const std::ptrdiff_t rows = kernels.rows, elements = rows * kernels.strip_keys;
    AttentionBuffers<T> buffers;
    buffers.scores = carver.take<T>(elements);
    buffers.weights = carver.take<char>(kernels.weight_bytes);
    buffers.highest = carver.take<T>(rows * kernels.lanes);
    buffers.rescale = carver.take<T>(rows);
    buffers.bias = carver.take<T>(arguments.bias ? elements : 0);
    buffers.mask = carver.take<unsigned char>(arguments.mask ? elements + scratch_alignment : 0);
    buffers.row = carver.take<AttentionRow>(rows);
    buffers.runs = carver.take<Run>(rows);
    buffers.totals = carver.take<double>(rows);
    return buffers;
}

template <class T>
bool AttentionStrips<T>::describe(const AttentionRows& rows, const AttentionExtent& extent,
                                  std::ptrdiff_t key, const AttentionBuffers<T>& buffers,
                                  AttentionStrip& strip) const {
    const std::ptrdiff_t columns = kernels.columns, zero = 0;
    const bool everything = !transforms && !arguments.mask;
    strip.transforms = transforms;
    strip.plain_begin =
        std::max(strip.begin, round_up(std::max(extent.inner_begin - key, zero), columns));
    strip.plain_end =
        std::min(strip.end, std::max(extent.inner_end - key, zero) / columns * columns);
    if (everything && strip.plain_begin <= strip.begin && strip.plain_end >= strip.end) return true;
    for (std::ptrdiff_t r = 0; r < rows.count; ++r) {
        const std::ptrdiff_t row = rows.first + r, position = row / shape.group;
        std::ptrdiff_t begin, end;
        shape.reach_of(rows.entry, position, begin, end);
        AttentionRow& into = buffers.row[r];
        into = {};
        into.begin = std::max(begin - key, zero);
        into.end = std::min(end - key, strip.end);
        into.diagonal = position + arguments.offset[rows.entry] - key;
        if (arguments.slopes) into.slope = arguments.slopes[shape.head_index(rows, row)];
    }
    bool masks = false;
    if (arguments.mask) {
        collect_masks(rows, key, buffers, strip);
        const MaskState state = kernels.mask_state(strip);
        if (state == MaskState::none) return false;
        masks = state == MaskState::some;
        if (!masks)
            for (std::ptrdiff_t r = 0; r < rows.count; ++r) buffers.row[r].mask = nullptr;
    }
    if (arguments.bias) collect_biases(rows, key, buffers, strip);
    if (masks || transforms) strip.plain_begin = strip.plain_end = strip.begin;
    return true;
}

template <class T>
const char* AttentionStrips<T>::row_start(const InputView& view, const AttentionRows& rows,
                                          std::ptrdiff_t row, std::ptrdiff_t bytes) const {
    return shape.head_start(view, rows.entry, shape.head_of(rows, row), bytes) +
           row / shape.group * stride_of(view, 2) * bytes;
}

// The mask bytes of the strip, side by side, none past the last key.
template <class T>
void AttentionStrips<T>::collect_masks(const AttentionRows& rows, std::ptrdiff_t key,
                                       const AttentionBuffers<T>& buffers,
                                       const AttentionStrip& strip) const {
    const std::ptrdiff_t step = stride_of(arguments.mask, 1);
    const std::ptrdiff_t end = std::min(strip.end, shape.keys - key);
    for (std::ptrdiff_t r = 0; r < rows.count; ++r) {
        unsigned char* to = buffers.mask + r * kernels.strip_keys;
        const char* from = row_start(arguments.mask, rows, rows.first + r, 1) + key * step;
        if (step == 1) {
            std::memcpy(to + strip.begin, from + strip.begin,
                        static_cast<std::size_t>(end - strip.begin));
        } else {
            for (std::ptrdiff_t k = strip.begin; k < end; ++k)
                to[k] = static_cast<unsigned char>(from[k * step]);
        }
        std::fill(to + end, to + strip.end, static_cast<unsigned char>(0));
        buffers.row[r].mask = to;
    }
}

// Biases as they lie, where they are of the compute type, contiguous and in whole panels.
template <class T>
void AttentionStrips<T>::collect_biases(const AttentionRows& rows, std::ptrdiff_t key,
                                        const AttentionBuffers<T>& buffers,
                                        const AttentionStrip& strip) const {
    const std::ptrdiff_t step = stride_of(arguments.bias, 1);
    const std::ptrdiff_t bytes = storage_bytes(arguments.bias_storage);
    const std::ptrdiff_t end = std::min(strip.end, shape.keys - key);
    const bool direct =
        step == 1 && bytes == static_cast<std::ptrdiff_t>(sizeof(T)) && end == strip.end;
    for (std::ptrdiff_t r = 0; r < rows.count; ++r) {
        const char* from =
            row_start(arguments.bias, rows, rows.first + r, bytes) + key * step * bytes;
        T* to = buffers.bias + r * kernels.strip_keys;
        buffers.row[r].bias = direct ? static_cast<const void*>(from) : to;
        if (direct) continue;
        FetchTask task = {};
        task.from = from + strip.begin * step * bytes;
        task.to = to + strip.begin;
        task.rows = 1;
        task.columns = end - strip.begin;
        task.from_column = step;
        task.to_row = task.columns;
        table.fetch[static_cast<int>(arguments.bias_storage)].fetch(task);
        std::fill(to + end, to + strip.end, T(0));
    }
}

template <class T>
bool AttentionStrips<T>::attends(const AttentionRow& row, std::ptrdiff_t key) const {
    if (key < row.begin || key >= row.end || (row.mask && row.mask[key] == 0)) return false;
    if (!row.bias) return true;
    T bias;
    std::memcpy(&bias, static_cast<const T*>(row.bias) + key, sizeof bias);
    return bias != -std::numeric_limits<T>::infinity();
}

template <class T>
T AttentionStrips<T>::sink_level(const AttentionRows& rows, std::ptrdiff_t row, T& weight) const {
    constexpr T infinity = std::numeric_limits<T>::infinity();
    const bool counts = row / shape.group < arguments.query_lengths[rows.entry];
    weight = 0;
    if (!arguments.sinks || !counts) return -infinity;
    const double sink = arguments.sinks[shape.head_index(rows, row)];
    const T level = static_cast<T>(sink * (log2_e / factor));
    if (level == -infinity) return level;
    // The rounding of the level is in the weight, but for a far one, which nothing tells from it.
    const T base = level * static_cast<T>(factor);
    weight = 1;
    if (std::abs(base) <= far_level<T>)
        weight = static_cast<T>(std::exp2(std::fma(sink, log2_e, -static_cast<double>(base))));
    if (!std::isfinite(level)) weight = std::numeric_limits<T>::quiet_NaN();
    return level;
}

template <class T>
double AttentionStrips<T>::powers_above(T score, T from) const {
    const T unit = static_cast<T>(factor);
    const auto is_far = [&](T level) { return !(std::abs(level * unit) <= far_level<T>); };
    const double wide = static_cast<double>(unit), base = static_cast<double>(score * unit),
                 own = static_cast<double>(from * unit);
    if (is_far(score) && is_far(from)) return static_cast<double>(score - from) * wide;
    if (is_far(score)) return std::fma(static_cast<double>(score), wide, -own);
    return is_far(from) ? -std::fma(static_cast<double>(from), wide, -base) : base - own;
}

template <class T>
void AttentionStrips<T>::write_rows(const OutputView& view, const AttentionRows& rows,
                                    const T* panels, Run* runs) const {
    const std::ptrdiff_t columns = kernels.columns, step = stride_of(view, 1);
    const std::ptrdiff_t features = view.shape[view.axes - 1];
    char* start = shape.head_start(view, rows.entry, rows.key_head * shape.group, item);
    const std::ptrdiff_t count =
        shape.list_rows(rows, stride_of(view, 2), stride_of(view, 3), runs);
    for (std::ptrdiff_t i = 0, row = 0; i < count; row += runs[i++].count)
        for (std::ptrdiff_t p = 0; p < panels_of(features); ++p) {
            SpillTask task = {};
            task.from = panels + (p * kernels.rows + row) * columns;
            task.to = start + (runs[i].offset + p * columns * step) * item;
            task.rows = runs[i].count;
            task.columns = std::min(columns, features - p * columns);
            task.from_row = columns;
            task.to_row = runs[i].step;
            task.to_column = step;
            fetch.spill(task);
        }
}

template <class T>
bool AttentionStrips<T>::is_finite(const AttentionStrip& strip) const {
    const std::ptrdiff_t columns = kernels.columns;
    for (std::ptrdiff_t p = 0; p < strip.value_panels; ++p)
        if (!kernels.all_finite(static_cast<const T*>(strip.averages) + p * kernels.rows * columns,
                                strip.rows * columns))
            return false;
    return true;
}

template <class T>
void AttentionStrips<T>::write_logs(const AttentionRows& rows, const AttentionStrip& strip) const {
    const OutputView& lse = arguments.lse;
    const std::ptrdiff_t base = batch_offset(lse, rows.entry, 2);
    for (std::ptrdiff_t r = 0; r < rows.count; ++r) {
        const T score = static_cast<const T*>(strip.level)[r];
        double level = powers_above(score, T(0)) * ln2;
        if (std::isinf(level)) level = static_cast<double>(score) * (factor * ln2);
        const double total = strip.totals[r];
        const T value = static_cast<T>(total == 0 ? -std::numeric_limits<double>::infinity()
                                                  : level + std::log(total));
        const std::ptrdiff_t place =
            shape.place_by_row(lse.strides, lse.axes, base, rows, rows.first + r);
        std::memcpy(lse.data + place * static_cast<std::ptrdiff_t>(sizeof(T)), &value,
                    sizeof value);
    }
}

template class AttentionStrips<float>;
template class AttentionStrips<double>;

}  // namespace unitstride
