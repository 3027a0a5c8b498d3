// Convolution, directly and by Fourier transforms, in strided layouts at every instruction-set
// level, against the definition in double precision. Arrays fill their memory, so that sanitizers
// see what is outside.
#include "ops/convolution.hpp"

#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "core/parallel.hpp"
#include "isa/dispatch.hpp"
#include "ops/convolution_fft.hpp"
#include "ops/convolution_planes.hpp"
#include "ops/convolution_range.hpp"

namespace unitstride::test {
namespace {

using Size = std::ptrdiff_t;

// A (lines, length) array of float: contiguous, with lines among one another, two apart, backwards.
struct Array {
    Size shape[2], stride[2], first = 0;
    std::vector<float> memory;

    Array(Size lines, Size length, int layout) : shape{lines, length} {
        stride[0] = layout == 1 ? 1 : layout == 2 ? 2 * length : length;
        stride[1] = layout == 1 ? lines : layout == 2 ? 2 : layout == 3 ? -1 : 1;
        if (layout == 3) first = length - 1;
        const Size step = layout == 2 ? 2 : 1;
        memory.assign(static_cast<std::size_t>((lines * length - 1) * step + 1), 0.0f);
    }
    float& at(Size line, Size place) {
        return memory[static_cast<std::size_t>(first + line * stride[0] + place * stride[1])];
    }
    template <class View>
    void fill(View& view) {
        view.data = reinterpret_cast<char*>(memory.data() + first);
        view.axes = 2;
        view.shape = shape;
        view.strides[0] = stride[0];
        view.strides[1] = stride[1];
    }
    void draw(std::mt19937& random) {
        std::normal_distribution<float> normal;
        for (Size line = 0; line < shape[0]; ++line)
            for (Size place = 0; place < shape[1]; ++place) at(line, place) = normal(random);
    }
};

struct Case {
    Size lines, length, taps, start, outputs;
    bool one_kernel;
    Boundary boundary;

    explicit Case(std::mt19937& random) {
        const auto upto = [&](Size most) { return 1 + static_cast<Size>(random() % most); };
        lines = random() % 2 == 0 ? 1 : upto(40);
        length = upto(lines == 1 ? 3000 : 200);
        taps = upto(random() % 2 == 0 ? 20 : 600);
        one_kernel = random() % 2 == 0;
        boundary = static_cast<Boundary>(random() % 5);
        start = static_cast<Size>(random() % (length + taps - 1));
        outputs = upto(length + taps - 1 - start);
    }
};

// The results that are wrong, of every method.
long check(const Case& sample, std::mt19937& random) {
    const auto layout = [&] { return static_cast<int>(random() % 4); };
    Array x(sample.lines, sample.length, layout()), k(sample.lines, sample.taps, layout());
    Array direct(sample.lines, sample.outputs, layout());
    Array transformed(sample.lines, sample.outputs, layout());
    x.draw(random);
    k.draw(random);
    TransformArguments given = {};
    ConvolutionArguments& call = given.convolution;
    call.storage = Storage::float32;
    call.axis = 1;
    call.start = sample.start;
    call.boundary = sample.boundary;
    x.fill(call.x);
    k.fill(call.k);
    if (sample.one_kernel) call.k.strides[0] = 0;
    direct.fill(call.out);
    convolve(call);
    transformed.fill(call.out);
    if (convolve_fft(given) == not_finite) return sample.lines * sample.outputs;
    const double range = convolution_range({Storage::float32, call.x, call.k, 1, 64});
    long wrong = !(range > 0 && range <= 1);
    // Planes of one column, or of one row.
    Array planes(sample.lines, sample.outputs, layout());
    const bool across = random() % 2 == 0;
    PlanesArguments plane = {};
    const auto as_planes = [&](auto& view, const auto& from, Size(&shape)[3]) {
        view.data = from.data;
        view.axes = 3;
        const Size lengths[3] = {from.shape[0], across ? 1 : from.shape[1],
                                 across ? from.shape[1] : 1};
        const Size steps[3] = {from.strides[0], across ? 0 : from.strides[1],
                               across ? from.strides[1] : 0};
        for (int axis = 0; axis < 3; ++axis) {
            shape[axis] = lengths[axis];
            view.strides[axis] = steps[axis];
        }
        view.shape = shape;
    };
    Size shapes[3][3];
    planes.fill(call.out);
    as_planes(plane.x, call.x, shapes[0]);
    as_planes(plane.k, call.k, shapes[1]);
    as_planes(plane.out, call.out, shapes[2]);
    plane.storage = Storage::float32;
    plane.start[across ? 1 : 0] = sample.start;
    plane.boundary = sample.boundary;
    convolve_planes(plane);
    for (Size line = 0; line < sample.lines; ++line)
        for (Size i = 0; i < sample.outputs; ++i) {
            double sum = 0, size = 0;
            for (Size j = 0; j < sample.taps; ++j) {
                Size place = sample.start + i - j;
                if (place < 0 || place >= sample.length) {
                    if (sample.boundary == Boundary::zero) continue;
                    place = reflected(place, sample.length, sample.boundary);
                }
                const double term = static_cast<double>(k.at(sample.one_kernel ? 0 : line, j)) *
                                    static_cast<double>(x.at(line, place));
                sum += term;
                size += std::abs(term);
            }
            // Values are of size one: the norms that bound a transform's error are at most this.
            const double bound = 1e-6 * (size + std::sqrt(static_cast<double>(sample.length) *
                                                          static_cast<double>(sample.taps)));
            wrong += std::abs(static_cast<double>(direct.at(line, i)) - sum) > bound;
            wrong += std::abs(static_cast<double>(planes.at(line, i)) - sum) > bound;
            wrong += std::abs(static_cast<double>(transformed.at(line, i)) - sum) > bound;
        }
    return wrong;
}

}  // namespace
}  // namespace unitstride::test

int main() {
    using namespace unitstride;
    std::mt19937 random(1);
    long calls = 0, failures = 0;
    set_default_threads(2);
    for (const std::string& isa : isa_detected()) {
        use_isa(isa);
        for (int round = 0; round < 40; ++round) {
            const test::Case sample(random);
            failures += test::check(sample, random);
            calls += 3;
        }
    }
    std::printf("%ld calls of convolution, %ld wrong results\n", calls, failures);
    return failures == 0 ? 0 : 1;
}
