// Attention and its gradients in strided layouts against the same call on contiguous arrays, at
// every instruction-set level, and forward results against the definition in double precision.
// Arrays fill their memory, so that sanitizers see what is outside.
#include "ops/attention.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "core/parallel.hpp"
#include "isa/dispatch.hpp"

namespace unitstride::test {
namespace {

using Size = std::ptrdiff_t;

// A (heads, length, features) array of float; in layout 1 heads and length change places in memory,
// in layout 2 features lie two apart.
struct Array {
    Size shape[3];
    Size stride[3];
    std::vector<float> memory;

    Array(Size heads, Size length, Size features, int layout) : shape{heads, length, features} {
        const Size step = layout == 2 ? 2 : 1;
        stride[2] = step;
        stride[1] = (layout == 1 ? heads : 1) * features * step;
        stride[0] = layout == 1 ? features * step : length * features * step;
        Size last = 0;
        for (int axis = 0; axis < 3; ++axis) last += (shape[axis] - 1) * stride[axis];
        memory.resize(static_cast<std::size_t>(last + 1), 7.0f);
    }
    float& at(Size h, Size i, Size f) {
        return memory[static_cast<std::size_t>(h * stride[0] + i * stride[1] + f * stride[2])];
    }
    template <class View>
    void fill(View& view) {
        view.data = reinterpret_cast<char*>(memory.data());
        view.axes = 3;
        view.shape = shape;
        std::copy_n(stride, 3, view.strides);
    }
    void draw(std::mt19937& random) {
        std::normal_distribution<float> normal;
        for (Size h = 0; h < shape[0]; ++h)
            for (Size i = 0; i < shape[1]; ++i)
                for (Size f = 0; f < shape[2]; ++f) at(h, i, f) = normal(random);
    }
};

struct Case {
    Size heads, group, queries, keys, features, value_features;
    std::int64_t offset, lowest, highest;
    double softcap;
    std::vector<char> mask;  // (heads, queries, keys), or empty

    explicit Case(std::mt19937& random) {
        const auto upto = [&](Size most) { return 1 + static_cast<Size>(random() % most); };
        group = upto(3);
        heads = group * upto(2);
        queries = random() % 3 == 0 ? upto(3) : upto(60);
        keys = upto(700);
        features = upto(40);
        value_features = upto(40);
        offset = keys - queries;
        lowest = random() % 3 == 0 ? -upto(100) : -(std::int64_t{1} << 43);
        highest = random() % 2 == 0 ? 0 : std::int64_t{1} << 43;
        softcap = random() % 4 == 0 ? 3.0 : 0.0;
        if (random() % 3 != 0) return;
        mask.resize(static_cast<std::size_t>(heads * queries * keys));
        for (char& kept : mask) kept = random() % 4 != 0;
    }
    bool reaches(Size head, Size i, Size j) const {
        const Size distance = j - i - offset;
        return distance >= lowest && distance <= highest &&
               (mask.empty() ||
                mask[static_cast<std::size_t>((head * queries + i) * keys + j)] != 0);
    }
};

// Every result of a forward call and of its gradient, with arrays in these layouts.
std::vector<float> run(const Case& sample, unsigned seed, const int (&layout)[7]) {
    std::mt19937 random(seed);
    const Size h = sample.heads, g = sample.heads / sample.group;
    Array query(h, sample.queries, sample.features, layout[0]);
    Array key(g, sample.keys, sample.features, layout[1]);
    Array value(g, sample.keys, sample.value_features, layout[2]);
    Array out(h, sample.queries, sample.value_features, layout[3]);
    Array cotangent(h, sample.queries, sample.value_features, layout[4]);
    Array d_query(h, sample.queries, sample.features, layout[5]);
    Array d_key(g, sample.keys, sample.features, layout[6]);
    Array d_value(g, sample.keys, sample.value_features, layout[3]);
    for (Array* array : {&query, &key, &value, &cotangent}) array->draw(random);
    std::vector<float> lse(static_cast<std::size_t>(h * sample.queries));
    const Size lse_shape[2] = {h, sample.queries}, mask_shape[3] = {h, sample.queries, sample.keys};
    const std::int64_t queries = sample.queries, keys = sample.keys;
    AttentionVjpArguments task = {};
    AttentionArguments& given = task.forward;
    given.storage = Storage::float32;
    query.fill(given.query);
    key.fill(given.key);
    value.fill(given.value);
    out.fill(given.out);
    given.lse.data = reinterpret_cast<char*>(lse.data());
    given.lse.axes = 2;
    given.lse.shape = lse_shape;
    given.lse.strides[0] = sample.queries;
    given.lse.strides[1] = 1;
    if (!sample.mask.empty()) {
        given.mask.data = sample.mask.data();
        given.mask.axes = 3;
        given.mask.shape = mask_shape;
        given.mask.strides[0] = sample.queries * sample.keys;
        given.mask.strides[1] = sample.keys;
        given.mask.strides[2] = 1;
    }
    given.offset = &sample.offset;
    given.query_lengths = &queries;
    given.key_lengths = &keys;
    given.lowest = sample.lowest;
    given.highest = sample.highest;
    given.scale = 1.0 / std::sqrt(static_cast<double>(sample.features));
    given.softcap = sample.softcap;
    attention(given);
    out.fill(task.out);
    cotangent.fill(task.cotangent);
    task.lse.data = reinterpret_cast<const char*>(lse.data());
    task.lse.axes = 2;
    task.lse.shape = lse_shape;
    std::copy_n(given.lse.strides, 2, task.lse.strides);
    d_query.fill(task.d_query);
    d_key.fill(task.d_key);
    d_value.fill(task.d_value);
    attention_vjp(task);
    std::vector<float> results = lse;
    for (Array* array : {&out, &d_query, &d_key, &d_value})
        for (Size head = 0; head < array->shape[0]; ++head)
            for (Size i = 0; i < array->shape[1]; ++i)
                for (Size f = 0; f < array->shape[2]; ++f) results.push_back(array->at(head, i, f));
    return results;
}

// The log-sum-exp of each row by definition.
std::vector<double> levels(const Case& sample, unsigned seed) {
    std::mt19937 random(seed);
    Array query(sample.heads, sample.queries, sample.features, 0);
    Array key(sample.heads / sample.group, sample.keys, sample.features, 0);
    query.draw(random);
    key.draw(random);
    std::vector<double> found;
    for (Size h = 0; h < sample.heads; ++h)
        for (Size i = 0; i < sample.queries; ++i) {
            double sum = 0;
            for (Size j = 0; j < sample.keys; ++j) {
                if (!sample.reaches(h, i, j)) continue;
                double score = 0;
                for (Size f = 0; f < sample.features; ++f)
                    score += static_cast<double>(query.at(h, i, f)) *
                             static_cast<double>(key.at(h / sample.group, j, f));
                score /= std::sqrt(static_cast<double>(sample.features));
                if (sample.softcap > 0) score = sample.softcap * std::tanh(score / sample.softcap);
                sum += std::exp(score);
            }
            found.push_back(std::log(sum));
        }
    return found;
}

bool is_close(double a, double b) {
    return a == b || std::abs(a - b) <= 2e-4 * (1 + std::abs(b));  // float32 against others
}

}  // namespace
}  // namespace unitstride::test

int main() {
    using namespace unitstride;
    std::mt19937 random(1);
    long calls = 0, failures = 0;
    set_default_threads(2);
    for (unsigned round = 0; round < 60; ++round) {
        const test::Case sample(random);
        int layout[7] = {};
        const std::vector<double> expected_levels = test::levels(sample, round);
        for (const std::string& isa : isa_detected()) {
            use_isa(isa);
            std::fill_n(layout, 7, 0);
            const auto expected = test::run(sample, round, layout);
            for (std::size_t i = 0; i < expected_levels.size(); ++i)
                failures += !test::is_close(static_cast<double>(expected[i]), expected_levels[i]);
            for (int& choice : layout) choice = static_cast<int>(random() % 3);
            const auto got = test::run(sample, round, layout);
            for (std::size_t i = 0; i < got.size(); ++i)
                failures +=
                    !test::is_close(static_cast<double>(got[i]), static_cast<double>(expected[i]));
            calls += 2;
        }
    }
    std::printf("%ld calls of attention and its gradient, %ld wrong results\n", calls, failures);
    return failures == 0 ? 0 : 1;
}
