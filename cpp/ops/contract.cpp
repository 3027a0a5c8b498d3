#include "ops/contract.hpp"

#include <complex>
#include <cstring>

#include "core/float_environment.hpp"
#include "core/float_status.hpp"
#include "ops/contract_forms.hpp"

namespace unitstride {
namespace {

template <class T>
void scale_elements(const AxisList& axes, char* out, std::complex<double> factor) {
    const std::ptrdiff_t elements = axes.elements();
    for (std::ptrdiff_t i = 0; i < elements; ++i) {
        std::ptrdiff_t offset;
        list_offsets(axes, operand_c, i, 1, &offset);
        std::complex<T> value;
        char* const place = out + offset * static_cast<std::ptrdiff_t>(sizeof value);
        std::memcpy(&value, place, sizeof value);
        value = factor == 0.0 ? std::complex<T>(0) : value * std::complex<T>(factor);
        std::memcpy(place, &value, sizeof value);
    }
}

template <class View>
Labelled<View> part_of(const Labelled<View>& whole, int part) {
    Labelled<View> real = whole;
    real.element = real_part_of(whole.element);
    real.view.data += part * element_bytes(real.element);
    for (int axis = 0; axis < whole.view.axes; ++axis) real.view.strides[axis] *= 2;
    return real;
}

// Complex factors where an input is real: i (x + i y) = -y + i x, part by part.
unsigned contract_with_complex_factors(const ContractArguments& arguments) {
    AxisList axes;
    for (int axis = 0; axis < arguments.out.view.axes; ++axis)
        axes.axis[axes.count++] = {arguments.out.view.shape[axis],
                                   {0, 0, arguments.out.view.strides[axis]}};
    const std::complex<double> beta(arguments.beta, arguments.beta_imag);
    if (arguments.out.element == Element::complex64) {
        scale_elements<float>(axes, arguments.out.view.data, beta);
    } else {
        scale_elements<double>(axes, arguments.out.view.data, beta);
    }
    ContractArguments sum = arguments;
    sum.beta = 1;
    sum.alpha_imag = sum.beta_imag = 0;
    unsigned status = contract(sum);
    const bool a_is_complex = is_complex(arguments.a.element);
    for (int part = 0; part < 2; ++part) {
        ContractArguments turned = sum;
        if (a_is_complex) {
            turned.a = part_of(arguments.a, 1 - part);
        } else {
            turned.b = part_of(arguments.b, 1 - part);
        }
        turned.out = part_of(arguments.out, part);
        turned.alpha = part == 0 ? -arguments.alpha_imag : arguments.alpha_imag;
        status |= contract(turned);
    }
    return status;
}

// A summed axis along which both inputs stand still: its length times one of its terms.
void count_constant_terms(ContractPlan& plan) {
    int left = 0;
    for (int axis = 0; axis < plan.depth.count; ++axis) {
        const Axis found = plan.depth.axis[axis];
        if (found.stride[operand_a] != 0 || found.stride[operand_b] != 0) {
            plan.depth.axis[left++] = found;
            continue;
        }
        plan.alpha *= static_cast<double>(found.length);
        plan.alpha_imag *= static_cast<double>(found.length);
        plan.depth_count /= found.length;
    }
    plan.depth.count = left;
}

}  // namespace

double contraction_cost(const ContractArguments& arguments) noexcept {
    // The elements of the operands multiplied count each label once or more.
    double cost = 1;
    const auto count = [&](int axes, const std::ptrdiff_t* shape) {
        for (int axis = 0; axis < axes; ++axis) cost *= static_cast<double>(shape[axis]);
    };
    count(arguments.a.view.axes, arguments.a.view.shape);
    if (arguments.b.view) count(arguments.b.view.axes, arguments.b.view.shape);
    return cost;
}

unsigned contract(const ContractArguments& arguments) {
    const bool both_complex =
        is_complex(arguments.a.element) && arguments.b.view && is_complex(arguments.b.element);
    if ((arguments.alpha_imag != 0 || arguments.beta_imag != 0) && !both_complex)
        return contract_with_complex_factors(arguments);
    ContractPlan plan = plan_contraction(arguments);
    if (plan.empty()) return 0;
    count_constant_terms(plan);
    unsigned raised;
    if (can_be_direct(plan)) {
        raised = contract_direct(plan);
    } else if (can_be_streamed(plan)) {
        raised = contract_streaming(plan);
    } else if (needs_slabs(plan)) {
        raised = contract_slabs(plan);
    } else if (!direct_with_copy(plan, raised)) {
        order_for_panels(plan);
        raised = has_long_sums(plan) ? contract_long_sums(plan) : contract_packed(plan);
    }
    return (FloatEnvironment::has_overflow(raised) ? status_over : 0u) |
           (FloatEnvironment::has_invalid(raised) ? status_invalid : 0u);
}

}  // namespace unitstride
