// Products of few elements whose sums are long: there are too few rows and columns to share, so the
// sum is cut into parts, which are added in order. How many depends on the shapes alone.
#include <algorithm>
#include <complex>
#include <cstring>
#include <vector>

#include "core/checked.hpp"
#include "core/float_environment.hpp"
#include "core/scratch.hpp"
#include "ops/contract_forms.hpp"

namespace unitstride {
namespace {

constexpr std::ptrdiff_t most_parts = 16, least_part = 1024;
constexpr std::ptrdiff_t most_elements = 1 << 16;
constexpr double least_operations = 1 << 22;

std::ptrdiff_t parts_of(const ContractPlan& plan) {
    return std::min(most_parts, plan.depth_count / least_part);
}

// The outermost axis that is long enough, so that a part is read as one piece.
int axis_to_cut(const AxisList& depth, std::ptrdiff_t parts) {
    int longest = 0;
    for (int axis = 0; axis < depth.count; ++axis) {
        if (depth.axis[axis].length >= parts) return axis;
        if (depth.axis[axis].length > depth.axis[longest].length) longest = axis;
    }
    return longest;
}

// Strides of a product that lies by itself, columns innermost; returns its elements.
std::ptrdiff_t place_by_itself(ContractPlan& plan) {
    std::ptrdiff_t step = 1;
    for (AxisList* list : {&plan.columns, &plan.rows})
        for (int axis = list->count - 1; axis >= 0; --axis) {
            list->axis[axis].stride[operand_c] = step;
            step = checked_multiply(step, list->axis[axis].length);
        }
    return step;
}

// A real factor leaves infinite parts alone.
template <class T>
T scaled(T value, double factor, double) {
    return value * static_cast<T>(factor);
}
template <class T>
std::complex<T> scaled(std::complex<T> value, double factor, double factor_imag) {
    const T real = static_cast<T>(factor), imag = static_cast<T>(factor_imag);
    return imag == 0 ? value * real : value * std::complex<T>(real, imag);
}

// out = alpha * (the sum of the parts) + beta * out.
template <class T>
void add_parts(const ContractPlan& plan, T* parts, std::ptrdiff_t count, std::ptrdiff_t elements) {
    for (std::ptrdiff_t part = 1; part < count; ++part)
        for (std::ptrdiff_t i = 0; i < elements; ++i) parts[i] += parts[part * elements + i];
    const bool adds = plan.beta != 0 || plan.beta_imag != 0;
    std::vector<std::ptrdiff_t> columns(static_cast<std::size_t>(plan.column_count));
    list_offsets(plan.columns, operand_c, 0, plan.column_count, columns.data());
    for (std::ptrdiff_t r = 0; r < plan.row_count; ++r) {
        std::ptrdiff_t row;
        list_offsets(plan.rows, operand_c, r, 1, &row);
        for (const std::ptrdiff_t column : columns) {
            char* const place = plan.c + (row + column) * static_cast<std::ptrdiff_t>(sizeof(T));
            T sum = scaled(*parts++, plan.alpha, plan.alpha_imag);
            if (adds) {
                T old;
                std::memcpy(&old, place, sizeof old);
                sum += scaled(old, plan.beta, plan.beta_imag);
            }
            std::memcpy(place, &sum, sizeof sum);
        }
    }
}

void add_parts_of(const ContractPlan& plan, char* parts, std::ptrdiff_t count,
                  std::ptrdiff_t elements) {
    switch (plan.element_c) {
        case Element::float64:
            return add_parts(plan, reinterpret_cast<double*>(parts), count, elements);
        case Element::complex64:
            return add_parts(plan, reinterpret_cast<std::complex<float>*>(parts), count, elements);
        case Element::complex128:
            return add_parts(plan, reinterpret_cast<std::complex<double>*>(parts), count, elements);
        default: return add_parts(plan, reinterpret_cast<float*>(parts), count, elements);
    }
}

}  // namespace

bool has_long_sums(const ContractPlan& plan) {
    return plan.batches == 1 && plan.element_c != Element::float16 &&
           plan.element_c != Element::bfloat16 && parts_of(plan) > 1 &&
           plan.row_count <= most_elements / plan.column_count &&
           plan.operations() >= least_operations;
}

unsigned contract_long_sums(const ContractPlan& plan) {
    const std::ptrdiff_t bytes = element_bytes(plan.element_c);
    const int cut = axis_to_cut(plan.depth, parts_of(plan));
    const Axis whole = plan.depth.axis[cut];
    const std::ptrdiff_t wanted = std::min(parts_of(plan), whole.length);
    const std::ptrdiff_t each = (whole.length + wanted - 1) / wanted;
    const std::ptrdiff_t full = whole.length / each, rest = whole.length % each;

    ContractPlan part = plan;
    part.alpha = 1;
    part.beta = part.alpha_imag = part.beta_imag = 0;
    const std::ptrdiff_t elements = place_by_itself(part);
    const std::ptrdiff_t count = full + (rest > 0 ? 1 : 0);
    const Scratch scratch(checked_multiply(checked_multiply(count, elements), bytes), 1);
    char* const parts = scratch.of_worker(0);
    part.c = parts;
    part.depth.axis[cut].length = each;
    part.depth_count = plan.depth_count / whole.length * each;
    part.batch.count = 1;
    part.batch.axis[0] = {
        full, {each * whole.stride[operand_a], each * whole.stride[operand_b], elements}};
    part.batches = full;
    unsigned raised = contract_packed(part);
    if (rest > 0) {
        const std::ptrdiff_t done = full * each;
        part.a += done * whole.stride[operand_a] * element_bytes(plan.element_a);
        part.b += done * whole.stride[operand_b] * element_bytes(plan.element_b);
        part.c += full * elements * bytes;
        part.depth.axis[cut].length = rest;
        part.depth_count = plan.depth_count / whole.length * rest;
        part.batch.count = 0;
        part.batches = 1;
        raised |= contract_packed(part);
    }
    const FloatEnvironment environment;
    add_parts_of(plan, parts, count, elements);
    return raised | environment.raised();
}

}  // namespace unitstride
