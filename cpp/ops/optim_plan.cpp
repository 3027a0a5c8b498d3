#include "ops/optim_plan.hpp"

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "core/checked.hpp"

namespace unitstride {
namespace {

constexpr std::ptrdiff_t piece_elements = 16 << 10;  // of contiguous arrays
constexpr std::ptrdiff_t tile_columns = 256;

using Axes = std::vector<StepAxis>;

// Larger steps outside, the parameter's first; the other arrays settle ties.
bool comes_before(const StepAxis& a, const StepAxis& b) {
    for (int k = 0; k < step_operands; ++k) {
        const auto x = std::abs(a.stride[k]), y = std::abs(b.stride[k]);
        if (x != y) return x > y;
    }
    return false;
}

bool can_merge(const StepAxis& outer, const StepAxis& inner) {
    for (int k = 0; k < step_operands; ++k)
        if (outer.stride[k] != inner.length * inner.stride[k]) return false;
    return true;
}

void merge_neighbours(Axes& axes) {
    std::size_t kept = 0;
    for (std::size_t a = 1; a < axes.size(); ++a) {
        if (can_merge(axes[kept], axes[a])) {
            const std::ptrdiff_t length = axes[kept].length * axes[a].length;
            axes[kept] = axes[a];
            axes[kept].length = length;
        } else {
            axes[++kept] = axes[a];
        }
    }
    if (!axes.empty()) axes.resize(kept + 1);
}

class Planner {
  public:
    Planner(const StepProblem& problem, StepPlan& plan) : problem_(problem), plan_(plan) {}

    void add(const StepTensor& tensor) {
        if (tensor.elements == 0) return;
        StepLayout layout = {&tensor, {}, tensor.elements, 0, 0, 0};
        for (int k = 0; k < step_operands; ++k) layout.data[k] = tensor.array[k].data;
        if (tensor.axes == 0) {
            Axes whole;
            if (!is_plain(tensor)) whole.push_back({tensor.elements, {1, 1, 1, 1, 1, 1, 1, 1, 1}});
            push(layout, whole);
            return;
        }
        Axes axes = usable_axes(layout);
        const auto [row, columns] = other_order(axes);
        if (columns == 0 || axes.back().length < 2 * columns || tensor.in_order) {
            push(layout, axes);
            return;
        }
        push_tiles(layout, std::move(axes), row, columns);
    }

  private:
    // Axes of one element go; the others run forward in the parameter.
    Axes usable_axes(StepLayout& layout) const {
        Axes axes;
        const StepTensor& tensor = *layout.tensor;
        for (int a = 0; a < tensor.axes; ++a) {
            StepAxis axis = problem_.axes[static_cast<std::size_t>(tensor.first_axis + a)];
            if (axis.length == 1) continue;
            if (axis.stride[step_param] < 0 && !tensor.in_order) {
                layout.index += (axis.length - 1) * axis.stride[step_index];
                for (int k = 0; k < step_operands; ++k) {
                    if (layout.data[k] == nullptr) continue;
                    layout.data[k] +=
                        (axis.length - 1) * axis.stride[k] * storage_size(tensor.array[k].storage);
                    axis.stride[k] = -axis.stride[k];
                }
                axis.stride[step_index] = -axis.stride[step_index];
            }
            axes.push_back(axis);
        }
        if (!tensor.in_order) std::stable_sort(axes.begin(), axes.end(), comes_before);
        merge_neighbours(axes);
        if (axes.empty()) axes.push_back({1, {1, 1, 1, 1, 1, 1, 1, 1, 1}});
        return axes;
    }

    // An array that is contiguous along another axis than the parameter is read in tiles of so many
    // columns (0: it need not be): a line of its memory then serves several lines of the parameter
    // while it is in the cache. A gradient that is turned has long tiles, so that the other arrays
    // are read as if it were not there.
    static std::pair<std::size_t, std::ptrdiff_t> other_order(const Axes& axes) {
        const StepAxis& inner = axes.back();
        std::pair<std::size_t, std::ptrdiff_t> found = {0, 0};
        for (int k = 1; k < step_index; ++k)
            for (std::size_t a = 0; a + 1 < axes.size(); ++a) {
                if (std::abs(inner.stride[k]) <= std::abs(axes[a].stride[k]) ||
                    axes[a].stride[k] == 0)
                    continue;
                if (k != step_grad || a + 2 != axes.size() || axes[a].stride[k] != 1)
                    return {a, tile_columns};
                found = {a, turned_columns};
            }
        return found;
    }

    // Blocks of columns go outside of the row axis; columns that are left over are a layout of
    // their own.
    void push_tiles(const StepLayout& layout, Axes axes, std::size_t row, std::ptrdiff_t columns) {
        const StepAxis inner = axes.back();
        const StepAxis rows = axes[row];
        const std::ptrdiff_t blocks = inner.length / columns, rest = inner.length % columns;
        Axes outside = axes;
        outside.pop_back();
        outside.erase(outside.begin() + static_cast<std::ptrdiff_t>(row));
        Axes tiles = outside;
        StepAxis block = inner, column = inner;
        block.length = blocks;
        column.length = columns;
        for (auto& step : block.stride) step *= columns;
        tiles.insert(tiles.end(), {block, rows, column});
        StepLayout part = layout;
        part.elements = layout.elements / inner.length * (blocks * columns);
        push(part, tiles);
        if (rest == 0) return;
        column.length = rest;
        outside.insert(outside.end(), {rows, column});
        part.elements = layout.elements / inner.length * rest;
        part.index += blocks * columns * inner.stride[step_index];
        for (int k = 0; k < step_operands; ++k)
            if (part.data[k] != nullptr)
                part.data[k] += blocks * columns * inner.stride[k] *
                                storage_size(layout.tensor->array[k].storage);
        push(part, outside);
    }

    void push(StepLayout layout, const Axes& axes) {
        layout.first_axis = static_cast<std::ptrdiff_t>(plan_.axes.size());
        layout.axes = static_cast<int>(axes.size());
        plan_.axes.insert(plan_.axes.end(), axes.begin(), axes.end());
        const auto index = static_cast<std::ptrdiff_t>(plan_.layouts.size());
        plan_.layouts.push_back(layout);
        std::ptrdiff_t piece = piece_elements;
        if (turns_gradient(plan_, layout))
            piece = round_up(std::max(piece / axes.back().length, std::ptrdiff_t{1}), turned_rows) *
                    axes.back().length;
        for (std::ptrdiff_t begin = 0; begin < layout.elements; begin += piece)
            plan_.pieces.push_back({index, begin, std::min(begin + piece, layout.elements)});
        plan_.nanoseconds +=
            static_cast<double>(layout.elements) * (is_wide(*layout.tensor) ? 2.0 : 0.7);
    }

    const StepProblem& problem_;
    StepPlan& plan_;
};

}  // namespace

std::ptrdiff_t storage_size(Storage storage) {
    if (storage == Storage::float64) return 8;
    return storage == Storage::float32 ? 4 : 2;
}

// The parameter decides in what is computed: the gradient of a float32 parameter may be wider.
bool is_wide(const StepTensor& tensor) {
    return (tensor.array[step_param].data != nullptr ? tensor.array[step_param]
                                                     : tensor.array[step_grad])
               .storage == Storage::float64;
}

bool turns_gradient(const StepPlan& plan, const StepLayout& layout) {
    if (layout.axes < 2 || layout.data[step_grad] == nullptr || layout.tensor->in_order)
        return false;
    const StepAxis* const last = plan.axes.data() + layout.first_axis + layout.axes - 1;
    const bool is_double = layout.tensor->array[step_grad].storage == Storage::float64;
    return last->stride[step_grad] != 1 && last[-1].stride[step_grad] == 1 && last->length >= 16 &&
           last->length <= turned_columns && is_double == is_wide(*layout.tensor);
}

// All lines lie in the arrays as kernels take them.
bool is_plain(const StepTensor& tensor) {
    const Storage storage = is_wide(tensor) ? Storage::float64 : Storage::float32;
    bool plain = tensor.axes == 0 && tensor.array[step_copy].data == nullptr && !tensor.in_order;
    for (int k = 0; k < step_copy; ++k)
        plain = plain && (tensor.array[k].data == nullptr || tensor.array[k].storage == storage);
    return plain;
}

StepPlan plan_step(const StepProblem& problem) {
    StepPlan plan;
    plan.layouts.reserve(problem.tensors.size());
    plan.pieces.reserve(problem.tensors.size());
    Planner planner(problem, plan);
    for (const StepTensor& tensor : problem.tensors) planner.add(tensor);
    return plan;
}

StepCursor::StepCursor(const StepPlan& plan, const StepLayout& layout, std::ptrdiff_t element)
    : axis_(plan.axes.data() + layout.first_axis), axes_(layout.axes) {
    for (auto& offset : offset_) offset = 0;
    for (int a = axes_ - 1; a >= 0; --a) {
        index_[a] = element % axis_[a].length;
        element /= axis_[a].length;
        for (int k = 0; k < step_operands; ++k) offset_[k] += index_[a] * axis_[a].stride[k];
    }
    left_ = axis_[axes_ - 1].length - index_[axes_ - 1];
}

void StepCursor::advance(std::ptrdiff_t elements) noexcept {
    int a = axes_ - 1;
    for (int k = 0; k < step_operands; ++k) offset_[k] += elements * axis_[a].stride[k];
    left_ -= elements;
    if (left_ > 0) return;
    left_ = axis_[a].length;
    index_[a] = axis_[a].length;
    while (a >= 0 && index_[a] == axis_[a].length) {
        for (int k = 0; k < step_operands; ++k) offset_[k] -= axis_[a].length * axis_[a].stride[k];
        index_[a] = 0;
        if (--a < 0) return;
        ++index_[a];
        for (int k = 0; k < step_operands; ++k) offset_[k] += axis_[a].stride[k];
    }
}

}  // namespace unitstride
