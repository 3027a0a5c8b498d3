#include "random_cases.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "ops/lines.hpp"
#include "reference.hpp"

namespace unitstride::test {
namespace {

std::ptrdiff_t product(const Shape& shape) {
    std::ptrdiff_t elements = 1;
    for (const auto length : shape) elements *= length;
    return elements;
}

// The place, in logical order, of the element that stands at `flat` when the layout repeats
// elements.
std::ptrdiff_t original(std::ptrdiff_t flat, const Shape& shape, const Layout& layout) {
    std::ptrdiff_t place = 0, inside = 1;
    for (auto axis = static_cast<int>(shape.size()) - 1; axis >= 0; --axis) {
        const auto a = static_cast<std::size_t>(axis);
        if (layout.step[a] != 0) place += flat % shape[a] * inside;
        flat /= shape[a];
        inside *= shape[a];
    }
    return place;
}

template <class Draw>
Bytes draw_elements(Storage storage, const Shape& shape, const Layout& layout, const Draw& draw) {
    const auto bytes = static_cast<std::size_t>(storage_bytes(storage));
    Bytes elements(static_cast<std::size_t>(product(shape)) * bytes);
    for (std::ptrdiff_t flat = 0; flat < product(shape); ++flat) {
        char* element = elements.data() + static_cast<std::size_t>(flat) * bytes;
        const std::ptrdiff_t from = original(flat, shape, layout);
        if (from == flat) {
            encode(element, storage, draw(flat));
        } else {
            std::memcpy(element, elements.data() + static_cast<std::size_t>(from) * bytes, bytes);
        }
    }
    return elements;
}

double draw_primal(Random& random, const Case& drawn, std::ptrdiff_t flat) {
    if (drawn.operation == Operation::softmax_vjp) return random.uniform();
    if (drawn.operation == Operation::log_softmax_vjp) return -20.0 * random.uniform();
    double usual = 4.0 * random.normal();
    if (drawn.rising)
        usual += 400.0 * static_cast<double>(flat) / static_cast<double>(product(drawn.shape));
    if (is_gradient(drawn.operation)) return usual * drawn.temperature;  // not far above the sum
    if (!drawn.special) return usual;
    const bool is_float16 = drawn.storage == Storage::float16;
    const double large = is_float16 ? 60000.0 : 3e38;
    const double special[] = {NAN,    -INFINITY, -INFINITY, INFINITY, large,
                              -large, 1e-40,     -0.0,      -120.0};
    return random.one_in(40) ? special[random.below(9)] : usual;
}

// Elements that are masked out must not show, whatever they are.
void spoil_masked_out(Random& random, Problem& problem, Bytes& elements) {
    const auto bytes = static_cast<std::size_t>(storage_bytes(problem.storage));
    for (std::size_t i = 0; i < problem.mask.size(); ++i)
        if (!problem.mask[i] && random.one_in(4))
            encode(elements.data() + i * bytes, problem.storage, NAN);
}

bool repeats(const Layout& layout) {
    return std::find(layout.step.begin(), layout.step.end(), 0) != layout.step.end();
}

Layout draw_layout(Random& random, int axes, bool may_repeat) {
    Layout layout = contiguous(axes);
    for (int axis = axes - 1; axis > 0; --axis)
        if (random.one_in(2))
            std::swap(layout.order[static_cast<std::size_t>(axis)],
                      layout.order[static_cast<std::size_t>(random.below(axis + 1))]);
    for (auto& step : layout.step) {
        if (random.one_in(3)) step = 1 + random.below(3);
        if (random.one_in(4)) step = -step;
        if (may_repeat && random.one_in(10)) step = 0;
    }
    layout.misaligned = random.one_in(4);
    layout.place = static_cast<Place>(random.below(3));
    return layout;
}

}  // namespace

Problem draw_problem(Random& random, const Case& drawn, const Layouts& layouts) {
    Problem problem;
    problem.operation = drawn.operation;
    problem.storage = drawn.storage;
    problem.shape = drawn.shape;
    problem.along_line = drawn.along_line;
    problem.temperature = drawn.temperature;
    const Shape reduced = problem.reduced_shape();
    problem.primal =
        draw_elements(drawn.storage, drawn.shape, layouts.primal,
                      [&](std::ptrdiff_t flat) { return draw_primal(random, drawn, flat); });
    if (is_gradient(drawn.operation))
        problem.cotangent =
            draw_elements(drawn.storage, problem.cotangent_is_reduced() ? reduced : drawn.shape,
                          layouts.cotangent, [&](std::ptrdiff_t) { return random.normal(); });
    if (drawn.operation == Operation::logsumexp_vjp)
        problem.log_sum = draw_elements(drawn.storage, reduced, layouts.log_sum,
                                        [&](std::ptrdiff_t) { return 8.0 + random.normal(); });
    if (!drawn.masked) return problem;
    const std::ptrdiff_t rarity =
        1 + random.below(3);  // of what is selected; 1: hardly anything is left out
    problem.mask.resize(static_cast<std::size_t>(product(drawn.shape)));
    for (std::ptrdiff_t flat = 0; flat < product(drawn.shape); ++flat) {
        const std::ptrdiff_t from = original(flat, drawn.shape, layouts.mask);
        char& selected = problem.mask[static_cast<std::size_t>(flat)];
        selected = from == flat ? (random.one_in(rarity) && !random.one_in(8))
                                : problem.mask[static_cast<std::size_t>(from)];
    }
    if (!repeats(layouts.primal)) spoil_masked_out(random, problem, problem.primal);
    if (is_gradient(drawn.operation) && !problem.cotangent_is_reduced() &&
        !repeats(layouts.cotangent))
        spoil_masked_out(random, problem, problem.cotangent);
    return problem;
}

Layouts preset_layouts(int number, int axes) {
    Layout plain = contiguous(axes), transposed = plain, spread = plain, backwards = plain,
           far = plain;
    std::reverse(transposed.order.begin(), transposed.order.end());
    for (auto& step : backwards.step) step = -1;
    if (axes > 0) {
        spread.step.back() = 2;
        far.step.front() = 2;
    }
    Layout shifted = plain, wild = transposed, along = plain, across = plain;
    shifted.misaligned = true;
    for (auto& step : wild.step) step = -3;
    if (axes > 0) along.step.back() = across.step.front() = 0;
    Layout guarded = plain, guarded_columns = transposed;
    guarded.place = Place::before_guard;
    wild.place = guarded_columns.place = Place::after_guard;
    switch (number) {
        case 0: return {guarded, guarded, guarded, guarded, guarded};
        case 1: return {transposed, transposed, transposed, transposed, transposed};
        case 2: return {spread, plain, plain, spread, spread};
        case 3: return {backwards, backwards, backwards, plain, backwards};
        case 4: return {guarded, plain, plain, plain, guarded_columns};
        case 5: return {guarded_columns, guarded_columns, plain, plain, guarded};
        case 6: return {shifted, shifted, shifted, shifted, shifted};
        case 7: return {wild, wild, wild, wild, wild};
        case 8: return {plain, plain, plain, plain, plain, true};
        case 9: return {transposed, plain, plain, transposed, transposed, true};
        case 10: return {along, plain, plain, along, plain};
        case 11: return {across, along, across, across, transposed};
        default: return {far, guarded, plain, far, far};
    }
}

Case draw_case(Random& random) {
    Case drawn;
    drawn.operation = static_cast<Operation>(random.below(operation_count));
    drawn.storage = static_cast<Storage>(random.below(storage_count));
    const std::ptrdiff_t axes = random.below(5);
    std::ptrdiff_t left = random.one_in(20) ? 60000 : 2000;  // elements
    for (std::ptrdiff_t axis = 0; axis < axes; ++axis) {
        const std::ptrdiff_t bound = std::min<std::ptrdiff_t>(left + 1, random.one_in(2) ? 8 : 300);
        drawn.shape.push_back(random.one_in(50) ? 0 : 1 + random.below(bound));
        drawn.along_line.push_back(random.one_in(2));
        left /= std::max<std::ptrdiff_t>(drawn.shape.back(), 1);
    }
    drawn.masked = random.one_in(4);
    drawn.special = random.one_in(4);
    drawn.rising = random.one_in(4) && !is_gradient(drawn.operation);
    if (random.one_in(4)) drawn.temperature = std::exp(2.0 * random.normal());
    return drawn;
}

Layouts draw_layouts(Random& random, int axes) {
    Layouts layouts;
    layouts.in_place = random.one_in(6);
    layouts.primal = draw_layout(random, axes, !layouts.in_place);
    layouts.cotangent = draw_layout(random, axes, true);
    layouts.mask = draw_layout(random, axes, true);
    layouts.log_sum = draw_layout(random, axes, false);
    layouts.out = draw_layout(random, axes, false);
    return layouts;
}

}  // namespace unitstride::test
