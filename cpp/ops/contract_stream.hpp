// Contractions that memory limits: every element of an input is used once, or once per element of
// a short vector.
//
// Kept axes and summed axes are walked as one or two inner axes, which a kernel takes, and the
// others around them. A sum is cut into pieces of fixed length whatever the threads; the sums of
// the pieces are added up in their order.
#pragma once

#include <algorithm>
#include <cstdlib>

#include "core/parallel.hpp"
#include "isa/dispatch.hpp"
#include "ops/contract_forms.hpp"

namespace unitstride {

constexpr std::ptrdiff_t item_bytes = 256 << 10;  // of the largest operand, for one item of work
constexpr double bytes_per_nanosecond = 10;
constexpr std::ptrdiff_t dot_piece = 16 << 10;    // terms: chains of 128 at the widest vectors
constexpr std::ptrdiff_t column_piece = 1 << 10;  // terms: chains of 128 groups
constexpr std::ptrdiff_t strip = 4 << 10;         // columns whose sums stay in the nearest cache

inline std::ptrdiff_t blocks_of(std::ptrdiff_t total, std::ptrdiff_t block) {
    return (total + block - 1) / block;
}

inline void append(AxisList& list, const AxisList& more) {
    for (int a = 0; a < more.count; ++a) list.axis[list.count++] = more.axis[a];
}

// Takes the last axis away and returns it; an axis of length one where there is none.
inline Axis take_last(AxisList& list) {
    return list.count > 0 ? list.axis[--list.count] : Axis{1, {}};
}

inline void move_to_end(AxisList& list, int axis) {
    std::rotate(list.axis + axis, list.axis + axis + 1, list.axis + list.count);
}

inline bool contiguous_or_constant(std::ptrdiff_t stride) { return stride == 0 || stride == 1; }

struct Place {
    std::ptrdiff_t offset[contract_operands];
    Place(const AxisList& axes, std::ptrdiff_t index) {
        for (int k = 0; k < contract_operands; ++k) list_offsets(axes, k, index, 1, offset + k);
    }
};

class Stream {
  public:
    explicit Stream(const ContractPlan& plan)
        : plan_(plan),
          bytes_(element_bytes(plan.element_c)),
          kernels_(kernels().stream[plan.element_c == Element::float64]) {
        append(kept_, plan.batch);
        append(kept_, plan.rows);
        append(kept_, plan.columns);
        order_axes(kept_);
        kept_count_ = plan.batches * plan.row_count * plan.column_count;
    }

    // Whether one of the forms below applies; it is remembered.
    bool applies() {
        if (plan_.depth_count == 1) return choose_map();
        return choose_sum();
    }

    unsigned run() {
        switch (form_) {
            case Form::map: return run_map();
            case Form::dots: return run_dots();
            case Form::columns: return run_columns();
        }
        return 0;
    }

  private:
    enum class Form { map, dots, columns };

    const char* a(const Place& place) const { return plan_.a + place.offset[operand_a] * bytes_; }
    const char* b(const Place& place) const { return plan_.b + place.offset[operand_b] * bytes_; }
    char* c(const Place& place) const { return plan_.c + place.offset[operand_c] * bytes_; }

    // Both inputs of all kept elements together, in elements.
    double traffic() const {
        return static_cast<double>(kept_count_) * static_cast<double>(plan_.depth_count);
    }
    int workers(double elements, std::ptrdiff_t items) const {
        return workers_for(elements * static_cast<double>(bytes_) / bytes_per_nanosecond, items);
    }

    bool choose_map() {
        form_ = Form::map;
        if (kept_count_ <= few_elements || kept_.count == 0) return true;
        const Axis& inner = kept_.axis[kept_.count - 1];
        if (inner.stride[operand_c] == 1 && contiguous_or_constant(inner.stride[operand_a]) &&
            contiguous_or_constant(inner.stride[operand_b]) &&
            (inner.length >= shortest_line || kept_.count == 1))
            return true;
        return false;
    }

    unsigned run_map();

    // A is the operand that is contiguous; the other one is contiguous or constant there.
    static bool suits(const Axis& axis, bool swapped) {
        const int first = swapped ? operand_b : operand_a, second = swapped ? operand_a : operand_b;
        return axis.stride[first] == 1 && contiguous_or_constant(axis.stride[second]);
    }

    bool choose_sum() {
        depth_ = plan_.depth;
        for (const bool swapped : {false, true}) {
            for (int axis = depth_.count - 1; axis >= 0; --axis)
                if (suits(depth_.axis[axis], swapped) &&
                    depth_.axis[axis].length >= shortest_line) {
                    move_to_end(depth_, axis);
                    return form_ = Form::dots, swapped_ = swapped, true;
                }
            for (int axis = kept_.count - 1; axis >= 0; --axis)
                if (suits(kept_.axis[axis], swapped) && kept_.axis[axis].length >= shortest_line) {
                    move_to_end(kept_, axis);
                    return form_ = Form::columns, swapped_ = swapped, true;
                }
        }
        return false;
    }

    void swap_inputs(Place& place) const {
        if (swapped_) std::swap(place.offset[operand_a], place.offset[operand_b]);
    }
    const char* first(const Place& place) const {
        return (swapped_ ? plan_.b : plan_.a) + place.offset[operand_a] * bytes_;
    }
    const char* second(const Place& place) const {
        return (swapped_ ? plan_.a : plan_.b) + place.offset[operand_b] * bytes_;
    }
    std::ptrdiff_t first_stride(const Axis& axis) const {
        return axis.stride[swapped_ ? operand_b : operand_a];
    }
    std::ptrdiff_t second_stride(const Axis& axis) const {
        return axis.stride[swapped_ ? operand_a : operand_b];
    }

    template <class T>
    unsigned run_dots_of();
    unsigned run_dots();
    template <class T>
    unsigned run_columns_of();
    unsigned run_columns();

    // c = alpha * sums + beta * c for `count` elements, `step` apart in c.
    template <class T>
    void finish(const T* sums, char* to, std::ptrdiff_t count, std::ptrdiff_t step) const {
        static constexpr T one = 1;
        MapTask task = {};
        task.a = sums;
        task.b = &one;
        task.c = to;
        task.rows = 1;
        task.columns = count;
        task.a_column = 1;
        task.c_column = step;
        task.alpha = plan_.alpha;
        task.beta = plan_.beta;
        kernels_.map(task);
    }

    static constexpr std::ptrdiff_t shortest_line = 8;  // shorter ones go by tiles
    static constexpr std::ptrdiff_t few_elements = 64;  // in any layout, one by one
    const ContractPlan& plan_;
    const std::ptrdiff_t bytes_;
    const StreamKernels& kernels_;
    AxisList kept_, depth_;
    std::ptrdiff_t kept_count_;
    Form form_ = Form::map;
    bool swapped_ = false;
};

}  // namespace unitstride
