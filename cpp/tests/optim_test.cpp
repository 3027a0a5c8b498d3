// Steps of optimisers in strided layouts against the same step on contiguous arrays, bit for bit,
// at every instruction-set level. Arrays fill their memory, so that sanitizers see what is outside.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "core/parallel.hpp"
#include "isa/dispatch.hpp"
#include "ops/optim.hpp"

namespace unitstride::test {
namespace {

// A matrix of rows x columns, transposed or with every second column, as bytes.
struct Matrix {
    std::vector<float> memory;
    std::ptrdiff_t row_step, column_step;
    float& at(std::ptrdiff_t r, std::ptrdiff_t c) {
        return memory[static_cast<std::size_t>(r * row_step + c * column_step)];
    }
};

Matrix make(std::ptrdiff_t rows, std::ptrdiff_t columns, int layout) {
    const std::ptrdiff_t step = layout == 2 ? 2 : 1;
    Matrix matrix = {{}, layout == 1 ? 1 : step * columns, layout == 1 ? rows : step};
    const std::ptrdiff_t last = (rows - 1) * matrix.row_step + (columns - 1) * matrix.column_step;
    matrix.memory.resize(static_cast<std::size_t>(last + 1), 7.0f);
    return matrix;
}

class Case {
  public:
    static constexpr int operands = 4;  // parameter, gradient, two states

    Case(std::mt19937& random, std::ptrdiff_t rows, std::ptrdiff_t columns, Rule rule)
        : rows_(rows), columns_(columns), rule_(rule) {
        std::normal_distribution<float> normal;
        for (auto& values : values_) {
            values.resize(static_cast<std::size_t>(rows * columns));
            for (float& value : values) value = normal(random);
        }
        for (float& value : values_[step_state + 1]) value *= value;  // second moments
    }

    // The arrays after a step, with operand k in layout[k].
    std::vector<float> run(const int (&layout)[operands]) const {
        StepProblem problem;
        problem.rule = rule_;
        problem.constants = {0.5,  0.01,
                             0.02, 0.9,
                             0.1,  {0.9, 0.1, 0.99, 0.01, 1.0, 0.0, 1.1, 1e-8, 0.1, 1.0, 0.5, 0.0}};
        StepTensor tensor;
        tensor.elements = rows_ * columns_;
        tensor.axes = 2;
        StepAxis row = {rows_, {}}, column = {columns_, {}};
        std::vector<Matrix> matrices;
        for (int k = 0; k < operands; ++k) {
            matrices.push_back(make(rows_, columns_, layout[k]));
            Matrix& matrix = matrices.back();
            for (std::ptrdiff_t i = 0; i < tensor.elements; ++i)
                matrix.at(i / columns_, i % columns_) = values_[k][static_cast<std::size_t>(i)];
            tensor.array[k] = {reinterpret_cast<char*>(matrix.memory.data()), Storage::float32};
            row.stride[k] = matrix.row_step;
            column.stride[k] = matrix.column_step;
        }
        problem.axes = {row, column};
        problem.tensors = {tensor};
        const StepOutcome outcome = optim_step(problem);
        std::vector<float> result = {static_cast<float>(outcome.norm)};
        for (Matrix& matrix : matrices)
            for (std::ptrdiff_t i = 0; i < tensor.elements; ++i)
                result.push_back(matrix.at(i / columns_, i % columns_));
        return result;
    }

  private:
    std::ptrdiff_t rows_, columns_;
    Rule rule_;
    std::vector<float> values_[operands];
};

}  // namespace
}  // namespace unitstride::test

int main() {
    using namespace unitstride;
    using test::Case;
    std::mt19937 random(1);
    long calls = 0, failures = 0;
    set_default_threads(2);
    for (int round = 0; round < 30; ++round)
        for (int rule = 0; rule < rule_count; ++rule) {
            const std::ptrdiff_t rows = 1 + static_cast<std::ptrdiff_t>(random() % 40);
            const std::ptrdiff_t columns = 1 + static_cast<std::ptrdiff_t>(random() % 1500);
            const Case sample(random, rows, columns, static_cast<Rule>(rule));
            int layout[Case::operands] = {};
            use_isa("baseline");
            const auto expected = sample.run(layout);
            for (const std::string& isa : isa_detected()) {
                use_isa(isa);
                for (int& choice : layout) choice = static_cast<int>(random() % 3);
                const auto got = sample.run(layout);
                ++calls;
                if (std::memcmp(got.data(), expected.data(), got.size() * sizeof(float)) != 0)
                    ++failures;
            }
        }
    std::printf("%ld steps, %ld wrong\n", calls, failures);
    return failures == 0 ? 0 : 1;
}
