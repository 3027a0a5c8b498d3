#include "ops/contract_plan.hpp"

#include <algorithm>
#include <cstdlib>
#include <string>
#include <utility>

#include "core/checked.hpp"
#include "core/error.hpp"

namespace unitstride {
namespace {

constexpr int component_label = label_limit;  // the parts of complex numbers, as an axis

// Every label of a call: its length and strides, 0 where an operand lacks it.
class LabelTable {
  public:
    struct Entry {
        std::ptrdiff_t length;
        std::ptrdiff_t stride[contract_operands];
        bool present[contract_operands];
    };

    LabelTable() noexcept {
        for (short& place : place_) place = -1;
    }

    void add(int operand, int label, std::ptrdiff_t length, std::ptrdiff_t stride) {
        if (label < 0 || label > component_label)
            throw Error(Error::Kind::value, "contract: labels must lie in [0, " +
                                                std::to_string(label_limit) + "), got " +
                                                std::to_string(label));
        short& place = place_[label];
        if (place < 0) {
            place = static_cast<short>(count_++);
            entries_[place] = {length, {}, {}};
        }
        Entry& entry = entries_[place];
        if (entry.length != length)
            throw Error(Error::Kind::value, "contract: label " + std::to_string(label) +
                                                " has lengths " + std::to_string(entry.length) +
                                                " and " + std::to_string(length));
        if (operand == operand_c && entry.present[operand_c])
            throw Error(Error::Kind::value,
                        "contract: `out` repeats label " + std::to_string(label));
        entry.stride[operand] += stride;
        entry.present[operand] = true;
    }

    const Entry* begin() const noexcept { return entries_; }
    const Entry* end() const noexcept { return entries_ + count_; }

  private:
    short place_[label_limit + 1];
    int count_ = 0;
    Entry entries_[3 * max_axes + 1];
};

template <class View>
void add_labels(LabelTable& table, int operand, const Labelled<View>& array, bool by_parts) {
    const std::ptrdiff_t scale = by_parts ? 2 : 1;
    for (int axis = 0; axis < array.view.axes; ++axis) {
        if (array.label[axis] >= label_limit) table.add(operand, -1, 0, 0);
        table.add(operand, array.label[axis], array.view.shape[axis],
                  array.view.strides[axis] * scale);
    }
    if (by_parts) table.add(operand, component_label, 2, 1);
}

// C forwards; what C lacks, forwards in most operands.
bool runs_backwards(const Axis& axis) noexcept {
    if (axis.stride[operand_c] != 0) return axis.stride[operand_c] < 0;
    const auto sign = [](std::ptrdiff_t stride) { return (stride > 0) - (stride < 0); };
    return sign(axis.stride[operand_a]) + sign(axis.stride[operand_b]) < 0;
}

// Larger steps outside, the operands in the order given.
void sort_axes(AxisList& list, int first, int second, int third) {
    std::stable_sort(list.axis, list.axis + list.count, [=](const Axis& x, const Axis& y) {
        for (const int operand : {first, second, third}) {
            const auto p = std::abs(x.stride[operand]), q = std::abs(y.stride[operand]);
            if (p != q) return p > q;
        }
        return false;
    });
}

void merge_axes(AxisList& list) {
    int kept = 0;
    for (int a = 1; a < list.count; ++a) {
        Axis& last = list.axis[kept];
        const Axis& next = list.axis[a];
        bool merges = true;
        for (int k = 0; k < contract_operands; ++k)
            merges = merges && last.stride[k] == next.length * next.stride[k];
        if (merges) {
            const std::ptrdiff_t length = checked_multiply(last.length, next.length);
            last = next;
            last.length = length;
        } else {
            list.axis[++kept] = next;
        }
    }
    if (list.count > 0) list.count = kept + 1;
}

// C^T = B^T A^T: rows become columns.
void swap_roles(ContractPlan& plan) {
    for (AxisList* list : {&plan.batch, &plan.rows, &plan.columns, &plan.depth})
        for (int a = 0; a < list->count; ++a)
            std::swap(list->axis[a].stride[operand_a], list->axis[a].stride[operand_b]);
    std::swap(plan.rows, plan.columns);
    std::swap(plan.row_count, plan.column_count);
    std::swap(plan.a, plan.b);
    std::swap(plan.element_a, plan.element_b);
}

void place_axis(ContractPlan& plan, const LabelTable::Entry& entry) {
    const bool in_a = entry.present[operand_a], in_b = entry.present[operand_b];
    if (!in_a && !in_b)
        throw Error(Error::Kind::value, "contract: a label of `out` is in no input");
    if (entry.length == 1) return;
    const bool kept = entry.present[operand_c];
    AxisList& list = !kept          ? plan.depth
                     : in_a && in_b ? plan.batch
                     : in_a         ? plan.rows
                                    : plan.columns;
    Axis& axis = list.axis[list.count++];
    axis.length = entry.length;
    for (int k = 0; k < contract_operands; ++k) axis.stride[k] = entry.stride[k];
    if (entry.length == 0 || !runs_backwards(axis)) return;
    const std::ptrdiff_t last = entry.length - 1;
    plan.a += last * axis.stride[operand_a] * element_bytes(plan.element_a);
    plan.b += last * axis.stride[operand_b] * element_bytes(plan.element_b);
    plan.c += last * axis.stride[operand_c] * element_bytes(plan.element_c);
    for (int k = 0; k < contract_operands; ++k) axis.stride[k] = -axis.stride[k];
}

// Note [Two contiguous axes]. The axis that is contiguous in an input may not be the one that is
// contiguous in C. In the order of C, a block of columns then reads one element of each cache line
// of the input. So the input's axis goes next to the innermost one, which is cut where it is long:
// a block holds a stretch of both.
void bring_together(AxisList& list, int input, const AxisList& depth) {
    if (list.count < 2 || ends_contiguous(list, input) || ends_contiguous(depth, input)) return;
    Axis inner = list.axis[list.count - 1];
    int found = 0;
    for (int a = 1; a < list.count; ++a)
        if (std::abs(list.axis[a].stride[input]) < std::abs(list.axis[found].stride[input]))
            found = a;
    constexpr std::ptrdiff_t near = 4, longest = 64;
    if (std::abs(list.axis[found].stride[input]) > near) return;
    if (found == list.count - 1 || list.count == max_axes) return;
    std::ptrdiff_t part = std::min(inner.length, longest);
    while (inner.length % part != 0) --part;
    const Axis moved = list.axis[found];
    for (int a = found; a + 1 < list.count; ++a) list.axis[a] = list.axis[a + 1];
    --list.count;
    Axis& outer = list.axis[list.count - 1];
    if (part < inner.length && part * 2 >= std::min(inner.length, longest)) {
        outer.length = inner.length / part;
        for (std::ptrdiff_t& stride : outer.stride) stride *= part;
        inner.length = part;
        ++list.count;
    }
    list.axis[list.count - 1] = moved;
    list.axis[list.count++] = inner;
}

}  // namespace

void order_axes(AxisList& axes) {
    sort_axes(axes, operand_c, operand_a, operand_b);
    merge_axes(axes);
}

void order_for_panels(ContractPlan& plan) {
    bring_together(plan.rows, operand_a, plan.depth);
    bring_together(plan.columns, operand_b, plan.depth);
}

bool ends_contiguous(const AxisList& axes, int operand) noexcept {
    return axes.count > 0 && axes.axis[axes.count - 1].stride[operand] == 1;
}

const char* one_of(Element element) noexcept {
    static constexpr float one32[2] = {1, 0};
    static constexpr double one64[2] = {1, 0};
    static constexpr std::uint16_t one16 = 0x3c00, one_brain = 0x3f80;
    switch (element) {
        case Element::float16: return reinterpret_cast<const char*>(&one16);
        case Element::bfloat16: return reinterpret_cast<const char*>(&one_brain);
        case Element::float32:
        case Element::complex64: return reinterpret_cast<const char*>(one32);
        default: return reinterpret_cast<const char*>(one64);
    }
}

std::ptrdiff_t element_bytes(Element element) noexcept {
    switch (element) {
        case Element::float16:
        case Element::bfloat16: return 2;
        case Element::float32: return 4;
        case Element::complex128: return 16;
        default: return 8;
    }
}

Element real_part_of(Element element) noexcept {
    return element == Element::complex64    ? Element::float32
           : element == Element::complex128 ? Element::float64
                                            : element;
}

double ContractPlan::operations() const noexcept {
    const double parts = is_complex(element_c) ? 4 : 1;
    return parts * static_cast<double>(batches) * static_cast<double>(row_count) *
           static_cast<double>(column_count) * static_cast<double>(depth_count);
}

ContractPlan plan_contraction(const ContractArguments& arguments) {
    const bool unary = !arguments.b.view;
    ContractPlan plan;
    plan.alpha = arguments.alpha;
    plan.beta = arguments.beta;
    plan.alpha_imag = arguments.alpha_imag;
    plan.beta_imag = arguments.beta_imag;
    const Element element = arguments.out.element;
    const bool complex_a = is_complex(arguments.a.element);
    const bool complex_b = !unary && is_complex(arguments.b.element);
    // A real factor scales the parts of a complex one alike: the parts are an axis then, and
    // nothing is complex.
    const bool by_parts = is_complex(element) && !(complex_a && complex_b);
    const Element inner = by_parts ? real_part_of(element) : element;
    plan.element_a = plan.element_b = plan.element_c = inner;
    plan.a = arguments.a.view.data;
    plan.b = unary ? one_of(inner) : arguments.b.view.data;
    plan.c = arguments.out.view.data;

    LabelTable table;
    add_labels(table, operand_a, arguments.a, by_parts && complex_a);
    if (!unary) add_labels(table, operand_b, arguments.b, by_parts && complex_b);
    add_labels(table, operand_c, arguments.out, by_parts);
    for (const LabelTable::Entry& entry : table) place_axis(plan, entry);
    plan.batches = plan.batch.elements();
    plan.row_count = plan.rows.elements();
    plan.column_count = plan.columns.elements();
    plan.depth_count = plan.depth.elements();
    if (plan.empty()) return plan;
    if (plan.depth_count == 0) plan.depth.count = 0;  // sums of nothing

    sort_axes(plan.batch, operand_c, operand_a, operand_b);
    sort_axes(plan.rows, operand_c, operand_a, operand_b);
    sort_axes(plan.columns, operand_c, operand_b, operand_a);
    const bool a_is_larger = plan.row_count >= plan.column_count;
    sort_axes(plan.depth, a_is_larger ? operand_a : operand_b, a_is_larger ? operand_b : operand_a,
              operand_c);
    for (AxisList* list : {&plan.batch, &plan.rows, &plan.columns, &plan.depth}) merge_axes(*list);
    if (ends_contiguous(plan.rows, operand_c) && !ends_contiguous(plan.columns, operand_c))
        swap_roles(plan);
    return plan;
}

void list_offsets(const AxisList& axes, int operand, std::ptrdiff_t begin, std::ptrdiff_t count,
                  std::ptrdiff_t* offsets) noexcept {
    std::ptrdiff_t index[max_axes], offset = 0, rest = begin;
    for (int a = axes.count - 1; a >= 0; --a) {
        index[a] = rest % axes.axis[a].length;
        rest /= axes.axis[a].length;
        offset += index[a] * axes.axis[a].stride[operand];
    }
    for (std::ptrdiff_t i = 0; i < count; ++i) {
        offsets[i] = offset;
        for (int a = axes.count - 1; a >= 0; --a) {
            offset += axes.axis[a].stride[operand];
            if (++index[a] < axes.axis[a].length) break;
            offset -= axes.axis[a].length * axes.axis[a].stride[operand];
            index[a] = 0;
        }
    }
}

std::ptrdiff_t list_runs(const AxisList& axes, int operand, std::ptrdiff_t begin,
                         std::ptrdiff_t count, Run* runs) noexcept {
    if (count == 0) return 0;
    if (axes.count == 0) {
        runs[0] = {0, 1, count};
        return 1;
    }
    const Axis& inner = axes.axis[axes.count - 1];
    std::ptrdiff_t index[max_axes], offset = 0, rest = begin / inner.length;
    for (int a = axes.count - 2; a >= 0; --a) {
        index[a] = rest % axes.axis[a].length;
        rest /= axes.axis[a].length;
        offset += index[a] * axes.axis[a].stride[operand];
    }
    std::ptrdiff_t place = begin % inner.length, made = 0;
    const std::ptrdiff_t step = inner.stride[operand];
    while (count > 0) {
        const std::ptrdiff_t now = std::min(count, inner.length - place);
        const Run next = {offset + place * step, step, now};
        Run* const last = made > 0 ? runs + made - 1 : nullptr;
        if (last && last->offset + last->count * step == next.offset) {
            last->count += now;
        } else {
            runs[made++] = next;
        }
        count -= now;
        place = 0;
        for (int a = axes.count - 2; a >= 0; --a) {
            offset += axes.axis[a].stride[operand];
            if (++index[a] < axes.axis[a].length) break;
            offset -= axes.axis[a].length * axes.axis[a].stride[operand];
            index[a] = 0;
        }
    }
    return made;
}

std::ptrdiff_t most_runs(const AxisList& axes, std::ptrdiff_t count) noexcept {
    if (axes.count < 2) return 1;
    return std::min(count, count / axes.axis[axes.count - 1].length + 2);
}

}  // namespace unitstride
