// Convolution with channels and the gradients of its taps at every level, in strided layouts,
// against the definition in double precision. Arrays fill their memory, so that sanitizers see what
// is outside.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "core/parallel.hpp"
#include "isa/dispatch.hpp"
#include "ops/convolution_channels.hpp"

namespace unitstride::test {
namespace {

using Size = std::ptrdiff_t;

// Four axes of floats: contiguous, the second axis last, every second element, or backwards.
struct Array {
    Size shape[4], stride[4], first = 0;
    std::vector<float> memory;

    Array(Size a, Size b, Size c, Size d, int layout) : shape{a, b, c, d} {
        const int order[2][4] = {{0, 1, 2, 3}, {0, 2, 3, 1}};
        Size step = layout == 2 ? 2 : 1;
        for (int place = 3; place >= 0; --place) {
            const int axis = order[layout == 1][place];
            stride[axis] = step;
            step *= shape[axis];
        }
        Size last = 0;
        for (int axis = 0; axis < 4; ++axis) last += (shape[axis] - 1) * stride[axis];
        memory.assign(static_cast<std::size_t>(last + 1), 0.0f);
        if (layout != 3) return;
        first = last;
        for (Size& own : stride) own = -own;
    }
    float& at(Size a, Size b, Size c, Size d) {
        return memory[static_cast<std::size_t>(first + a * stride[0] + b * stride[1] +
                                               c * stride[2] + d * stride[3])];
    }
    template <class View>
    void fill(View& view) {
        view.data = reinterpret_cast<char*>(memory.data() + first);
        view.axes = 4;
        view.shape = shape;
        std::copy_n(stride, 4, view.strides);
    }
    void draw(std::mt19937& random) {
        std::normal_distribution<float> normal;
        for (float& value : memory) value = normal(random);
    }
};

struct Case {
    Size images, groups, channels, kernels, taps[2], step[2], spread[2], begin[2], results[2], x[2];

    explicit Case(std::mt19937& random) {
        const auto one_of = [&](std::initializer_list<Size> list) {
            return list.begin()[random() % list.size()];
        };
        images = one_of({1, 2});
        groups = one_of({1, 1, 2});
        channels = one_of({3, 20, 32, 33, 64});
        kernels = one_of({8, 16, 31, 32, 40});
        for (int axis = 0; axis < 2; ++axis) {
            taps[axis] = one_of({1, 2, 3, 5});
            step[axis] = one_of({1, 1, 2, 3});
            spread[axis] = one_of({1, 1, 2});
            begin[axis] = one_of({0, -1, -3, 2});
            results[axis] = one_of({1, 5, 14, 33});
            x[axis] = one_of({1, 8, 30});
        }
    }
    // The element of x that a result meets with a tap; none beyond the ends.
    bool meets(int axis, Size result, Size tap, Size& element) const {
        element = begin[axis] + step[axis] * result + spread[axis] * tap;
        return element >= 0 && element < x[axis];
    }
};

struct Sums {
    double value = 0, size = 0;
    void add(float a, float b) {
        const double term = static_cast<double>(a) * static_cast<double>(b);
        value += term;
        size += std::abs(term);
    }
    bool differs(float found) const {
        return std::abs(static_cast<double>(found) - value) > 1e-6 * size;
    }
};

template <class Body>
void for_each_pair(const Case& sample, Size p, Size q, Body&& body) {
    Size row, column;
    for (Size i = 0; i < sample.results[0]; ++i)
        for (Size j = 0; j < sample.results[1]; ++j)
            if (sample.meets(0, i, p, row) && sample.meets(1, j, q, column))
                body(i, j, row, column);
}

// Of one kernel and one image, or one channel: what would take too long is not compared.
long check(const Case& sample, std::mt19937& random, long& calls) {
    const auto layout = [&] { return static_cast<int>(random() % 4); };
    Array x(sample.images, sample.groups * sample.channels, sample.x[0], sample.x[1], layout());
    const Size kernels = sample.groups * sample.kernels;
    Array w(kernels, sample.channels, sample.taps[0], sample.taps[1], layout());
    Array y(sample.images, kernels, sample.results[0], sample.results[1], layout());
    ChannelsArguments call = {};
    ChannelProductsArguments back = {};
    call.storage = back.storage = Storage::float32;
    call.groups = back.groups = sample.groups;
    for (int axis = 0; axis < 2; ++axis) {
        call.begin[axis] = back.begin[axis] = sample.begin[axis];
        call.step[axis] = back.step[axis] = sample.step[axis];
        call.spread[axis] = back.spread[axis] = sample.spread[axis];
    }
    for (Array* array : {&x, &w}) array->draw(random);
    x.fill(call.x), x.fill(back.x);
    w.fill(call.w), w.fill(back.out);
    y.fill(call.out), y.fill(back.slopes);
    long wrong = 0;
    const Size image = sample.images - 1, kernel = static_cast<Size>(random()) % kernels;
    const Size group = kernel / sample.kernels * sample.channels;
    if (convolve_channels(call) != not_taken) {
        ++calls;
        std::vector<Sums> sums(static_cast<std::size_t>(sample.results[0] * sample.results[1]));
        for (Size p = 0; p < sample.taps[0]; ++p)
            for (Size q = 0; q < sample.taps[1]; ++q)
                for_each_pair(sample, p, q, [&](Size i, Size j, Size row, Size column) {
                    Sums& own = sums[static_cast<std::size_t>(i * sample.results[1] + j)];
                    for (Size c = 0; c < sample.channels; ++c)
                        own.add(x.at(image, group + c, row, column), w.at(kernel, c, p, q));
                });
        for (Size i = 0; i < sample.results[0]; ++i)
            for (Size j = 0; j < sample.results[1]; ++j)
                wrong += sums[static_cast<std::size_t>(i * sample.results[1] + j)].differs(
                    y.at(image, kernel, i, j));
    }
    y.draw(random);
    if (convolution_channel_products(back) == not_taken) return wrong;
    ++calls;
    const Size channel = static_cast<Size>(random()) % sample.channels;
    for (Size p = 0; p < sample.taps[0]; ++p)
        for (Size q = 0; q < sample.taps[1]; ++q) {
            Sums own;
            for_each_pair(sample, p, q, [&](Size i, Size j, Size row, Size column) {
                for (Size n = 0; n < sample.images; ++n)
                    own.add(x.at(n, group + channel, row, column), y.at(n, kernel, i, j));
            });
            wrong += own.differs(w.at(kernel, channel, p, q));
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
        const long before = calls;
        for (int round = 0; round < 100; ++round)
            failures += test::check(test::Case(random), random, calls);
        failures += calls < before + 30;  // many are for contractions of windows
    }
    std::printf("%ld calls of convolution with channels, %ld wrong results\n", calls, failures);
    return failures == 0 ? 0 : 1;
}
