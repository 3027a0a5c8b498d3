// Runs every operation of the engine over storage types, shapes, layouts and instruction sets. The
// result must have the bits of the result on contiguous arrays, be as near to the formula as the
// operation promises, and nothing outside the arrays' elements may be touched (built with
// -fsanitize=address,undefined, this is what the sanitizers watch).
//
//   engine_test [fuzz rounds, default 400] [seed, default 1]
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>

#include "core/parallel.hpp"
#include "isa/dispatch.hpp"
#include "random_cases.hpp"
#include "reference.hpp"

namespace unitstride::test {
namespace {

class Suite {
  public:
    explicit Suite(std::uint64_t seed) : random_(seed) {}

    void small_shapes(const std::string& isa);
    void large_shapes(const std::string& isa);
    void fuzz(const std::string& isa, long rounds);
    long calls() const { return calls_; }
    long failures() const { return failures_; }

  private:
    static constexpr long most_failures = 20;
    // This test looks for wrong code: tests/test_accuracy.py measures what is promised.
    static constexpr double slack = 1.1;

    void check(const std::string& isa, const Case& drawn, const Layouts& layouts,
               bool against_formula);
    void fail(const std::string& isa, const Problem& problem, const Layouts& layouts,
              const std::string& what);

    Random random_;
    long calls_ = 0, failures_ = 0;
};

void Suite::fail(const std::string& isa, const Problem& problem, const Layouts& layouts,
                 const std::string& what) {
    std::fprintf(stderr, "FAILED: %s: %s on %s\n%s\n", problem.text().c_str(), what.c_str(),
                 isa.c_str(), layouts.text().c_str());
    if (++failures_ >= most_failures) throw std::runtime_error("too many failures");
}

void Suite::check(const std::string& isa, const Case& drawn, const Layouts& layouts,
                  bool against_formula) {
    const Problem problem = draw_problem(random_, drawn, layouts);
    set_default_threads(1);
    const Result expected = run(problem, all_contiguous(static_cast<int>(drawn.shape.size())));
    set_default_threads(1 + static_cast<int>(random_.below(3)));
    ++calls_;
    try {
        if (!(run(problem, layouts) == expected))
            fail(isa, problem, layouts, "not the bits of the contiguous call");
    } catch (const std::logic_error& error) {
        fail(isa, problem, layouts, error.what());
    }
    if (!against_formula) return;
    const Verdict verdict = judge(problem, expected);
    if (verdict.excess > slack) fail(isa, problem, layouts, verdict.text);
}

// One line axis at every edge of vectors, groups and short lines; some shapes with more axes.
std::vector<Case> small_cases() {
    std::vector<Case> cases;
    const auto add = [&](const Shape& shape, const std::vector<char>& along_line) {
        Case drawn;
        drawn.shape = shape;
        drawn.along_line = along_line;
        cases.push_back(drawn);
    };
    for (const std::ptrdiff_t length :
         {0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 129, 300})
        for (const std::ptrdiff_t lines : {1, 5, 33}) add({lines, length}, {0, 1});
    add({}, {});
    add({0, 4}, {0, 1});
    add({40, 70}, {1, 0});
    add({4, 6, 9}, {0, 1, 0});
    add({4, 6, 9}, {1, 0, 1});
    add({3, 40, 5}, {1, 1, 1});
    add({2, 3, 4, 5}, {0, 1, 0, 1});
    add({5, 1, 34, 1}, {0, 0, 1, 1});
    return cases;
}

void Suite::small_shapes(const std::string& isa) {
    for (Case drawn : small_cases())
        for (int operation = 0; operation < operation_count; ++operation)
            for (int storage = 0; storage < storage_count; ++storage)
                for (int number = 0; number < preset_count; ++number) {
                    drawn.operation = static_cast<Operation>(operation);
                    drawn.storage = static_cast<Storage>(storage);
                    drawn.masked = number % 3 == 2;
                    drawn.special = number % 4 == 3;
                    drawn.rising = number % 4 == 1 && !is_gradient(drawn.operation);
                    check(isa, drawn, preset_layouts(number, static_cast<int>(drawn.shape.size())),
                          true);
                }
}

// Outputs that are stored past the caches, and lines that are worked on in pieces.
void Suite::large_shapes(const std::string& isa) {
    constexpr int both_by_rows = 6, out_by_columns = 4, by_columns = 1, spread = 2, in_place = 8;
    const auto run_one = [&](Operation operation, Storage storage, const Shape& shape, int number) {
        Case drawn;
        drawn.operation = operation;
        drawn.storage = storage;
        drawn.shape = shape;
        drawn.along_line = {0, 1};
        drawn.rising = drawn.operation == Operation::softmax;
        check(isa, drawn, preset_layouts(number, 2), false);
    };
    run_one(Operation::softmax, Storage::float32, {1500, 1411}, both_by_rows);
    run_one(Operation::softmax, Storage::float32, {1500, 1411}, in_place);
    run_one(Operation::log_softmax, Storage::float32, {1500, 1411}, in_place);
    run_one(Operation::softmax, Storage::float32, {1411, 1500}, by_columns);
    run_one(Operation::log_softmax, Storage::float64, {1033, 1027}, out_by_columns);
    run_one(Operation::softmax_vjp, Storage::float32, {1500, 1411}, both_by_rows);
    run_one(Operation::softmax_with_sum, Storage::float32, {2, 170'001}, both_by_rows);
    run_one(Operation::log_softmax, Storage::bfloat16, {1, 170'001}, spread);
    run_one(Operation::logsumexp, Storage::float64, {2, 90'001}, by_columns);
    for (const Operation operation :
         {Operation::softmax_vjp, Operation::log_softmax_vjp, Operation::logsumexp_vjp})
        run_one(operation, Storage::float16, {1, 170'001}, spread);
}

void Suite::fuzz(const std::string& isa, long rounds) {
    for (long round = 0; round < rounds; ++round) {
        const Case drawn = draw_case(random_);
        check(isa, drawn, draw_layouts(random_, static_cast<int>(drawn.shape.size())), true);
    }
}

int main_of(int count, char** words) {
    const long rounds = count > 1 ? std::atol(words[1]) : 400;
    Suite suite(count > 2 ? std::strtoull(words[2], nullptr, 10) : 1);
    const auto begin = std::chrono::steady_clock::now();
    for (const std::string& isa : isa_detected()) {
        if (isa == "amx") continue;  // these kernels are those of avx512
        use_isa(isa);
        suite.small_shapes(isa);
        suite.large_shapes(isa);
        suite.fuzz(isa, rounds);
        const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
        std::printf("%-8s %ld calls compared, %ld failures, %.1f s\n", isa.c_str(), suite.calls(),
                    suite.failures(), seconds.count());
    }
    return suite.failures() == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

}  // namespace
}  // namespace unitstride::test

int main(int count, char** words) {
    try {
        return unitstride::test::main_of(count, words);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "FAILED: %s\n", error.what());
        return EXIT_FAILURE;
    }
}
