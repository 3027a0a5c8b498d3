#include "ops/contract_tiles.hpp"

#include <utility>

namespace unitstride {
namespace {

bool is_narrow(Element element) {
    return element == Element::float16 || element == Element::bfloat16;
}

Element pair_of(Element element) {
    return element == Element::float32 ? Element::complex64 : Element::complex128;
}

void remove_axis(AxisList& list, int axis) {
    std::copy(list.axis + axis + 1, list.axis + list.count, list.axis + axis);
    --list.count;
}

bool has_odd_stride(const AxisList& list, int operand, int except) {
    for (int axis = 0; axis < list.count; ++axis)
        if (axis != except && list.axis[axis].stride[operand] % 2 != 0) return true;
    return false;
}

void halve_strides(AxisList& list, int operand) {
    for (int axis = 0; axis < list.count; ++axis) list.axis[axis].stride[operand] /= 2;
}

}  // namespace

int crossing_axis(const AxisList& axes, int operand, std::ptrdiff_t step_along_other) {
    if (std::abs(step_along_other) <= 1) return -1;
    for (int axis = axes.count - 1; axis >= 0; --axis)
        if (std::abs(axes.axis[axis].stride[operand]) == 1 && axes.axis[axis].length > 3)
            return axis;
    return -1;
}

Tiles::Tiles(const ContractPlan& plan)
    : plan_(plan),
      depth_(plan.depth),
      data_{plan.a, plan.b},
      kind_{plan.element_a, plan.element_b, plan.element_c},
      real_bytes_(real_part_of(plan.element_c) == Element::float64 ? 8 : 4) {
    append(kept_, plan.batch);
    append(kept_, plan.rows);
    append(kept_, plan.columns);
    if (is_complex(plan.element_c)) {
        product_ = Product::complex;
    } else if (!is_narrow(plan.element_c)) {
        find_parts();
    }
    order_axes(kept_);
    for (int k = 0; k < contract_operands; ++k) bytes_[k] = element_bytes(kind_[k]);
}

// The parts of complex numbers are an axis of length two where a factor is real; such an axis of
// real numbers serves as well.
void Tiles::find_parts() {
    for (int axis = 0; axis < kept_.count; ++axis) {
        const Axis found = kept_.axis[axis];
        if (found.length != 2 || found.stride[operand_c] != 1 ||
            !contiguous_or_constant(found.stride[operand_a]) ||
            !contiguous_or_constant(found.stride[operand_b]))
            continue;
        bool even = true;
        for (int k = 0; k < contract_operands; ++k)
            even = even && !(found.stride[k] == 1 &&
                             (has_odd_stride(kept_, k, axis) || has_odd_stride(depth_, k, -1)));
        if (!even) continue;
        remove_axis(kept_, axis);
        for (int k = 0; k < contract_operands; ++k) {
            if (found.stride[k] != 1) continue;
            halve_strides(kept_, k);
            halve_strides(depth_, k);
            kind_[k] = pair_of(kind_[k]);
        }
        if (found.stride[operand_a] != 1) {  // the first factor is the one with parts
            for (AxisList* list : {&kept_, &depth_})
                for (int a = 0; a < list->count; ++a)
                    std::swap(list->axis[a].stride[operand_a], list->axis[a].stride[operand_b]);
            std::swap(kind_[operand_a], kind_[operand_b]);
            std::swap(data_[operand_a], data_[operand_b]);
        }
        product_ = Product::by_parts;
        return;
    }
}

TileRows Tiles::rows_of(int operand, const char* from, std::ptrdiff_t row_stride,
                        std::ptrdiff_t column_stride, std::ptrdiff_t rows, std::ptrdiff_t columns,
                        bool full, char* scratch) const {
    const bool by_parts = product_ == Product::by_parts;
    const bool twice = by_parts && !is_complex(kind_[operand]);
    // The kernels by parts know constants that are one real number only.
    full = full || (by_parts && !twice);
    const bool constant = column_stride == 0 && !full;
    if (!is_narrow(kind_[operand]) && (constant || (column_stride == 1 && !twice)))
        return {from, row_stride, column_stride};
    FetchTask task = {};
    task.from = from;
    task.to = scratch;
    task.rows = row_stride == 0 ? 1 : rows;
    task.columns = constant ? 1 : columns;
    task.from_row = row_stride;
    task.from_column = column_stride;
    task.to_row = task.columns;
    const FetchKernels& kernel = kernels().fetch[static_cast<int>(kind_[operand])];
    (twice && !constant ? kernel.fetch_twice : kernel.fetch)(task);
    return {scratch, row_stride == 0 ? 0 : task.columns, constant ? 0 : 1};
}

void Tiles::multiply(Product product, TileRows a, TileRows b, void* c, std::ptrdiff_t c_row,
                     std::ptrdiff_t rows, std::ptrdiff_t columns, const TileFactors& factors,
                     bool streaming) const {
    const auto joins = [&](const TileRows& x) {
        return x.column == 1 ? x.row == columns : x.row == 0;
    };
    if (rows > 1 && c_row == columns && joins(a) && joins(b)) {
        columns *= rows;
        rows = 1;
    }
    const std::ptrdiff_t scale = product == Product::by_parts ? 2 : 1;
    MapTask task = {};
    task.a = a.data;
    task.b = b.data;
    task.c = c;
    task.rows = rows;
    task.columns = columns * scale;
    task.a_row = a.row * scale;
    task.b_row = b.column == 1 ? b.row * scale : b.row;
    task.c_row = c_row * scale;
    task.a_column = a.column;
    task.b_column = b.column;
    task.c_column = 1;
    task.alpha = factors.alpha;
    task.beta = factors.beta;
    task.alpha_imag = factors.alpha_imag;
    task.beta_imag = factors.beta_imag;
    task.streaming = streaming;
    if (product == Product::complex) {
        kernels().complex_stream[is_double()].map(task);
    } else {
        kernels().stream[is_double()].map(task);
    }
}

void Tiles::emit(Product product, TileRows a, TileRows b, char* c, std::ptrdiff_t row_stride,
                 std::ptrdiff_t column_stride, std::ptrdiff_t rows, std::ptrdiff_t columns,
                 const TileFactors& factors, bool streaming, char* scratch) const {
    if (columns == 1 && rows == 1) column_stride = 1;
    if (!is_narrow(kind_[operand_c]) && column_stride == 1)
        return multiply(product, a, b, c, row_stride, rows, columns, factors, streaming);
    const FetchKernels& kernel = kernels().fetch[static_cast<int>(kind_[operand_c])];
    if (factors.beta != 0 || factors.beta_imag != 0)
        kernel.fetch({c, scratch, rows, columns, row_stride, column_stride, columns});
    multiply(product, a, b, scratch, columns, rows, columns, factors, false);
    if (column_stride == 1 && row_stride == columns) {
        columns *= rows;
        rows = 1;
    }
    kernel.spill({scratch, c, rows, columns, columns, row_stride, column_stride, streaming});
}

}  // namespace unitstride
