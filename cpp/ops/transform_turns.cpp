#include "ops/transform_turns.hpp"

#include <atomic>
#include <cmath>
#include <memory>
#include <numbers>

#include "core/scratch.hpp"
#include "isa/dispatch.hpp"

namespace unitstride {
namespace {

// A factor exp(-2 pi i number / points), rounded once: the angle is brought to an eighth of a turn,
// where it is exact or small.
template <class T>
void write_turn(std::ptrdiff_t number, std::ptrdiff_t points, T* turn) {
    const std::ptrdiff_t eighths = 8 * number / points;
    const std::ptrdiff_t nearest = (eighths + 1) / 2;  // quarter turns
    const auto rest = static_cast<long double>(4 * number - nearest * points);
    const long double angle =
        std::numbers::pi_v<long double> / 2 * rest / static_cast<long double>(points);
    const long double c = std::cos(angle), s = std::sin(angle);
    const long double real[] = {c, -s, -c, s}, imaginary[] = {-s, -c, s, c};
    turn[0] = static_cast<T>(real[nearest % 4]);
    turn[1] = static_cast<T>(imaginary[nearest % 4]);
}

// Where the forward transform leaves a frequency: see `TransformKernels`.
std::ptrdiff_t place_of(std::ptrdiff_t frequency, std::ptrdiff_t points, std::ptrdiff_t radix) {
    std::ptrdiff_t place = 0;
    for (; points > radix; points /= radix, frequency /= radix)
        place += frequency % radix * (points / radix);
    return place + frequency;
}

// Tables of one radix, made when they are first wanted. Two threads may make the same one; one of
// the two is kept.
template <class T>
class Store {
  public:
    template <class Fill>
    const T* get(int logarithm, std::ptrdiff_t count, Fill&& fill) {
        const T* found = of_[logarithm].load(std::memory_order_acquire);
        if (found != nullptr) return found;
        count_allocation();
        auto made = std::make_unique<T[]>(static_cast<std::size_t>(count));
        fill(made.get());
        if (of_[logarithm].compare_exchange_strong(found, made.get(), std::memory_order_acq_rel))
            found = made.release();
        return found;
    }

  private:
    std::atomic<const T*> of_[most_turns + 1] = {};
};

int step_of(std::ptrdiff_t radix) { return radix == 8 ? 3 : 2; }

template <class T>
void fill(int logarithm, const void** turns) {
    static Store<T> stores[2];  // of the radices 4 and 8
    const std::ptrdiff_t radix = kernels().transform->radix;
    const int step = step_of(radix);
    for (int n = logarithm; n > step; n -= step) {
        const std::ptrdiff_t points = std::ptrdiff_t{1} << n;
        turns[n] = stores[step - 2].get(n, points / radix * (radix - 1) * 2, [&](T* turn) {
            for (std::ptrdiff_t j = 0; j < points / radix; ++j)
                for (std::ptrdiff_t power = 1; power < radix; ++power, turn += 2)
                    write_turn(j * power, points, turn);
        });
    }
}

}  // namespace

Turns::Turns(Storage storage, int logarithm) {
    if (storage == Storage::float64) {
        fill<double>(logarithm, of_);
    } else {
        fill<float>(logarithm, of_);
    }
}

const std::int32_t* opposite_places(int logarithm) {
    static Store<std::int32_t> stores[2];
    const std::ptrdiff_t radix = kernels().transform->radix;
    const std::ptrdiff_t points = std::ptrdiff_t{1} << logarithm;
    return stores[step_of(radix) - 2].get(logarithm, points, [&](std::int32_t* opposite) {
        for (std::ptrdiff_t f = 0; f < points; ++f)
            opposite[place_of(f, points, radix)] =
                static_cast<std::int32_t>(place_of((points - f) % points, points, radix));
    });
}

}  // namespace unitstride
