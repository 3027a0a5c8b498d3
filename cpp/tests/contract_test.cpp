// Random contractions of every element type, layout and instruction set against the definition.
// Arrays fill their memory blocks to the last byte: built with -fsanitize=address,undefined, this
// shows what reads or writes outside of them.
//
//   contract_test [rounds, default 1500] [seed, default 1]
#include <algorithm>
#include <cmath>
#include <complex>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "core/parallel.hpp"
#include "isa/dispatch.hpp"
#include "ops/contract.hpp"
#include "ops/contract_plan.hpp"

namespace unitstride::test {
namespace {

using Wide = std::complex<double>;

// An array whose memory begins and ends with an element of it.
struct Array {
    std::vector<char> memory;
    std::vector<std::ptrdiff_t> shape, strides;
    std::vector<int> labels;
    std::ptrdiff_t first = 0;
    Element element;

    Wide get(const std::vector<std::ptrdiff_t>& index) const {
        std::ptrdiff_t offset = first;
        for (std::size_t i = 0; i < labels.size(); ++i)
            offset += index[static_cast<std::size_t>(labels[i])] * strides[i];
        const char* at = memory.data() + offset * element_bytes(element);
        float single[2] = {};
        double wide[2] = {};
        switch (element) {
            case Element::float32: std::memcpy(single, at, 4); return single[0];
            case Element::complex64: std::memcpy(single, at, 8); return {single[0], single[1]};
            case Element::float64: std::memcpy(wide, at, 8); return wide[0];
            default: std::memcpy(wide, at, 16); return {wide[0], wide[1]};
        }
    }
};

class Test {
  public:
    explicit Test(unsigned seed) : random_(seed) {}
    long failures = 0, calls = 0;

    void round(Element element, const std::string& isa) {
        const int labels = draw(1, 5);
        std::vector<std::ptrdiff_t> sizes(static_cast<std::size_t>(labels));
        constexpr std::ptrdiff_t choices[] = {0, 1, 2, 3, 5, 7, 9, 14, 17, 33, 70};
        for (auto& size : sizes) size = choices[draw(draw(0, 20) == 0 ? 0 : 1, 10)];
        const bool unary = draw(0, 3) == 0;
        std::vector<int> of_a, of_b, of_out;
        double work = 1;
        for (int label = 0; label < labels; ++label) {
            auto& size = sizes[static_cast<std::size_t>(label)];
            if (work * static_cast<double>(size) > 3e4) size = 2;
            work *= static_cast<double>(size);
            const int where = unary ? 0 : draw(0, 2);
            if (where != 1) of_a.push_back(label);
            if (where != 0) of_b.push_back(label);
            if (draw(0, 9) == 0) (where != 1 ? of_a : of_b).push_back(label);
            if (draw(0, 1)) of_out.push_back(label);
        }
        for (auto* list : {&of_a, &of_b, &of_out})
            std::shuffle(list->begin(), list->end(), random_);
        const bool is_wide = is_complex(element);
        const Element real = real_part_of(element);
        const int kind = is_wide && !unary ? draw(0, 2) : 0;
        Array a = make(kind == 1 ? real : element, of_a, sizes, true);
        Array b = make(kind == 2 ? real : element, of_b, sizes, true);
        Array out = make(element, of_out, sizes, false);
        const Array before = out;
        ContractArguments call;
        call.a = labelled<InputView>(a);
        call.b = labelled<InputView>(b);
        if (unary) call.b.view.data = nullptr;
        call.out = labelled<OutputView>(out);
        call.alpha = draw(0, 1) ? 1 : -0.5;
        call.beta = draw(0, 1) ? 0 : 2;
        call.alpha_imag = is_wide && draw(0, 3) == 0 ? 0.5 : 0;
        call.beta_imag = is_wide && draw(0, 3) == 0 ? 1.5 : 0;
        contract(call);
        ++calls;
        compare(call, a, unary ? nullptr : &b, before, out, sizes, isa);
    }

  private:
    int draw(int low, int high) { return std::uniform_int_distribution<int>(low, high)(random_); }

    Array make(Element element, const std::vector<int>& labels,
               const std::vector<std::ptrdiff_t>& sizes, bool input) {
        Array array;
        array.element = element;
        array.labels = labels;
        array.strides.resize(labels.size());
        for (const int label : labels)
            array.shape.push_back(sizes[static_cast<std::size_t>(label)]);
        std::vector<std::size_t> order(labels.size());
        for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
        if (draw(0, 1)) std::shuffle(order.begin(), order.end(), random_);
        std::ptrdiff_t step = 1, last = 0;
        for (auto i = order.rbegin(); i != order.rend(); ++i) {
            const std::ptrdiff_t length = std::max<std::ptrdiff_t>(array.shape[*i], 1);
            step *= draw(0, 5) == 0 ? draw(2, 3) : 1;
            const bool broadcast = input && draw(0, 9) == 0;
            const bool backwards = draw(0, 5) == 0;
            array.strides[*i] = broadcast ? 0 : backwards ? -step : step;
            if (backwards && !broadcast) array.first += step * (length - 1);
            if (!broadcast) last += step * (length - 1), step *= length;
        }
        array.memory.resize(static_cast<std::size_t>((last + 1) * element_bytes(element)));
        std::normal_distribution<double> normal;
        const bool single = real_part_of(element) == Element::float32;
        const std::size_t unit = single ? 4 : 8;
        for (std::size_t at = 0; at < array.memory.size(); at += unit) {
            const double value = normal(random_);
            const float narrow = static_cast<float>(value);
            std::memcpy(array.memory.data() + at,
                        single ? static_cast<const void*>(&narrow) : &value, unit);
        }
        return array;
    }

    template <class View>
    static Labelled<View> labelled(Array& array) {
        Labelled<View> result;
        result.element = array.element;
        result.view.data = array.memory.data() + array.first * element_bytes(array.element);
        result.view.axes = static_cast<int>(array.shape.size());
        result.view.shape = array.shape.data();
        bool empty = false;
        for (const auto length : array.shape) empty = empty || length == 0;
        for (std::size_t i = 0; i < array.shape.size(); ++i) {
            result.view.strides[i] = empty || array.shape[i] == 1 ? 0 : array.strides[i];
            result.label[i] = static_cast<short>(array.labels[i]);
        }
        return result;
    }

    void compare(const ContractArguments& call, const Array& a, const Array* b, const Array& before,
                 const Array& out, const std::vector<std::ptrdiff_t>& sizes,
                 const std::string& isa) {
        std::vector<std::ptrdiff_t> index(sizes.size(), 0);
        walk(0, out, sizes, index, true, [&] {
            Wide sum = 0;
            double bound = 0;
            walk(0, out, sizes, index, false, [&] {
                const Wide term = a.get(index) * (b ? b->get(index) : Wide(1));
                sum += term;
                bound += std::abs(term);
            });
            const Wide alpha(call.alpha, call.alpha_imag), beta(call.beta, call.beta_imag);
            Wide expected = alpha * sum;
            bound *= std::abs(alpha);
            if (beta != 0.0) {
                expected += beta * before.get(index);
                bound += std::abs(beta * before.get(index));
            }
            const bool single = real_part_of(out.element) == Element::float32;
            const double allowed = (single ? 0x1p-24 : 0x1p-52) * 400 * bound + 1e-300;
            if (std::abs(out.get(index) - expected) <= allowed) return;
            if (failures++ < 10)
                std::printf("%s: element type %d: got %g, expected %g\n", isa.c_str(),
                            static_cast<int>(out.element), out.get(index).real(), expected.real());
        });
    }

    // All values of the labels that are kept (or of those that are summed).
    template <class Body>
    static void walk(std::size_t label, const Array& out, const std::vector<std::ptrdiff_t>& sizes,
                     std::vector<std::ptrdiff_t>& index, bool kept, Body&& body) {
        if (label == sizes.size()) return body();
        bool is_kept = false;
        for (const int own : out.labels) is_kept = is_kept || own == static_cast<int>(label);
        if (is_kept != kept) return walk(label + 1, out, sizes, index, kept, body);
        for (index[label] = 0; index[label] < sizes[label]; ++index[label])
            walk(label + 1, out, sizes, index, kept, body);
        index[label] = 0;
    }

    std::mt19937 random_;
};

}  // namespace
}  // namespace unitstride::test

int main(int count, char** arguments) {
    using namespace unitstride;
    const long rounds = count > 1 ? std::atol(arguments[1]) : 1500;
    test::Test test(count > 2 ? static_cast<unsigned>(std::atoi(arguments[2])) : 1);
    set_default_threads(2);
    for (const std::string& isa : isa_detected()) {
        use_isa(isa);
        for (long i = 0; i < rounds; ++i)
            for (const Element element :
                 {Element::float32, Element::float64, Element::complex64, Element::complex128})
                test.round(element, isa);
    }
    std::printf("%ld contractions, %ld wrong elements\n", test.calls, test.failures);
    return test.failures == 0 ? 0 : 1;
}
