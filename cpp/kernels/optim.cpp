// Steps of optimisers: one pass over a line of the parameter, its gradient, its states and its
// moving average. The work is a division and a square root per element, which take less time than
// memory does: no blocking, one vector after the other.
//
// Accuracy: as NumPy's formula, bit for bit; Note [Same bits as NumPy] in `optim_rules.hpp`.
//
// Note [Norm in two words]: squares are added with their rounding errors kept (D. E. Knuth's exact
// sum), so that a sum is exact to about 2^-100. Rounded to double it is the same in whatever order
// the elements come: layouts, levels and threads do not show.
#include "kernels/optim.hpp"

#include "kernels/optim_rules.hpp"
#include "kernels/table.hpp"
#include "simd/storage.hpp"

namespace unitstride::UNITSTRIDE_ISA {
namespace {

template <class V>
inline void add_exactly(V& high, V& low, V term) noexcept {
    const V sum = high + term;
    const V part = sum - high;
    low = low + ((high - (sum - part)) + (term - part));
    high = sum;
}

// Sums of squares, lane by lane; a vector of float fills two vectors of double.
template <class T>
struct Squares {
    F64 high[halves<T>] = {}, low[halves<T>] = {};

    void add(Vec<T> x) noexcept {
        if constexpr (halves<T> == 2) {
            const F64 first = widen_low(x), second = widen_high(x);
            add_exactly(high[0], low[0], first * first);
            add_exactly(high[1], low[1], second * second);
        } else {
            add_exactly(high[0], low[0], x * x);
        }
    }
    // The scale is one of double: float may not hold it.
    void add_scaled(Vec<T> x, F64 scale) noexcept {
        if constexpr (halves<T> == 2) {
            const F64 first = widen_low(x) * scale, second = widen_high(x) * scale;
            add_exactly(high[0], low[0], first * first);
            add_exactly(high[1], low[1], second * second);
        } else {
            add(x * scale);
        }
    }
    void fold_into(WideSum& sum) noexcept {
        constexpr size count = halves<T> * lanes<double>;
        double top[count], rest[count];
        for (size k = 0; k < halves<T>; ++k) {
            store(top + k * lanes<double>, high[k]);
            store(rest + k * lanes<double>, low[k]);
        }
        for (size half = count / 2; half > 0; half /= 2)
            for (size l = 0; l < half; ++l) {
                rest[l] += rest[l + half];
                add_exactly(top[l], rest[l], top[l + half]);
            }
        sum.low += rest[0];
        add_exactly(sum.high, sum.low, top[0]);
    }
};

// What comes next of the arrays that each element needs. The hardware's own prefetching begins anew
// with each page of each array.
template <class T>
class FetchingAhead {
  public:
    explicit FetchingAhead(const StepTask& task) noexcept {
        constexpr int operands[arrays] = {step_grad, step_param, step_state, step_state + 1};
        for (int k = 0; k < arrays; ++k) {
            const int operand = operands[k];
            const char* const line = static_cast<const char*>(task.line[operand]);
            const bool is_made = task.next[operand] != nullptr;
            at_[k] = is_made ? task.next[operand] : line + (line != nullptr ? ahead_bytes : 0);
            step_[k] =
                (is_made ? task.next_step[operand] : static_cast<size>(sizeof(T))) * lanes<T>;
        }
    }
    [[gnu::always_inline]] void some() noexcept {
#pragma GCC unroll 4
        for (int k = 0; k < arrays; ++k) {
            if (at_[k] == nullptr) continue;
            prefetch(at_[k]);
            if (step_[k] > 64) prefetch(at_[k] + 64);
            at_[k] += step_[k];
        }
    }

  private:
    static constexpr int arrays = 4;
    static constexpr size ahead_bytes = 2048;

    const char* at_[arrays];
    size step_[arrays];
};

template <class T, template <class> class Rule>
class Step {
  public:
    explicit Step(const StepTask& task) noexcept
        : task_(task),
          rule_(task),
          factor_(splat(static_cast<T>(task.constants->factor))),
          coupled_(splat(static_cast<T>(task.constants->coupled))),
          decay_(splat(static_cast<T>(task.constants->decay))),
          ema_keep_(splat(static_cast<T>(task.constants->ema_keep))),
          ema_take_(splat(static_cast<T>(task.constants->ema_take))),
          is_coupled_(task.constants->coupled != 0.0),
          decays_(task.constants->decay != 0.0) {}

    void run() noexcept {
        Squares<T> squares;
        FetchingAhead<T> fetching(task_);
        size i = 0;
        for (; i + lanes<T> <= task_.count; i += lanes<T>) {
            fetching.some();
            at<true>(i, lanes<T>, squares);
        }
        if (i < task_.count) at<false>(i, task_.count - i, squares);
        if (task_.norm != nullptr) squares.fold_into(*task_.norm);
    }

  private:
    template <bool whole>
    Vec<T> load_at(int operand, size i, size count) const noexcept {
        const T* from = static_cast<const T*>(task_.line[operand]) + i;
        if constexpr (whole) return load(from);
        return load_first(from, count, T(0));
    }
    template <bool whole>
    void store_at(int operand, size i, size count, Vec<T> v) const noexcept {
        T* to = static_cast<T*>(task_.line[operand]) + i;
        if constexpr (whole) {
            store(to, v);
        } else {
            store_first(to, v, count);
        }
    }

    template <bool whole>
    [[gnu::always_inline]] void at(size i, size count, Squares<T>& squares) const noexcept {
        constexpr int states = step_ema - step_state;
        Vec<T> gradient = load_at<whole>(step_grad, i, count);
        if (task_.norm != nullptr) squares.add(gradient);
        Vec<T> parameter = load_at<whole>(step_param, i, count);
        Vec<T> state[states];
#pragma GCC unroll 3
        for (int k = 0; k < states; ++k)
            if (has_state(task_, k)) state[k] = load_at<whole>(step_state + k, i, count);
        gradient = gradient * factor_;
        if (is_coupled_) gradient = gradient + coupled_ * parameter;
        if constexpr (requires { rule_.value(gradient, parameter); }) {
            parameter = rule_.value(gradient, parameter);
        } else {
            Vec<T> change = rule_.change(gradient, state);
            if (decays_) change = change + decay_ * parameter;
            parameter = parameter - change;
        }
#pragma GCC unroll 3
        for (int k = 0; k < states; ++k)
            if (has_state(task_, k)) store_at<whole>(step_state + k, i, count, state[k]);
        store_at<whole>(step_param, i, count, parameter);
        if (task_.line[step_ema] == nullptr) return;
        const Vec<T> average =
            ema_keep_ * load_at<whole>(step_ema, i, count) + ema_take_ * parameter;
        store_at<whole>(step_ema, i, count, average);
    }

    const StepTask task_;  // a copy: stores through its pointers cannot change it
    const Rule<T> rule_;
    const Vec<T> factor_, coupled_, decay_, ema_keep_, ema_take_;
    const bool is_coupled_, decays_;
};

template <class T, template <class> class Rule>
void step(const StepTask& task) noexcept {
    Step<T, Rule>(task).run();
}

template <class T>
void squares(const void* line, std::ptrdiff_t count, double scale, WideSum& sum) noexcept {
    const T* from = static_cast<const T*>(line);
    const F64 factor = splat(scale);
    Squares<T> found;
    size i = 0;
    for (; i + lanes<T> <= count; i += lanes<T>) found.add_scaled(load(from + i), factor);
    if (i < count) found.add_scaled(load_first(from + i, count - i, T(0)), factor);
    found.fold_into(sum);
}

// One vector of S from elements `stride` apart.
template <class S>
inline Vec<Compute<S>> gather_vector(const S* from, size stride, size count) noexcept {
    S lane[lanes<Compute<S>>] = {};
    for (size l = 0; l < count; ++l) lane[l] = load_scalar(from + l * stride);
    return load_as(lane);
}

template <class S, class T>
void gather(const void* source, std::ptrdiff_t stride, std::ptrdiff_t count, void* line) noexcept {
    const S* from = static_cast<const S*>(source);
    T* to = static_cast<T*>(line);
    constexpr size width = lanes<Compute<S>>;
    for (size i = 0; i < count; i += width) {
        const size now = count - i < width ? count - i : width;
        const S* first = from + i * stride;
        Vec<Compute<S>> v;
        if (now == width && stride == 1) {
            v = load_as(first);
        } else if (now == width && stride == 2) {
            v = load_as(reinterpret_cast<const EverySecond<S>*>(first));
        } else {
            v = gather_vector(first, stride, now);
        }
        if constexpr (sizeof(Compute<S>) == sizeof(T)) {
            if (now == width) {  // a masked store is not forwarded to the load that follows
                store(to + i, v);
            } else {
                store_first(to + i, v, now);
            }
        } else {
            for (size l = 0; l < now; ++l) to[i + l] = static_cast<T>(v[l]);
        }
    }
}

template <class S>
inline bool scatter_every_second(S* to, Vec<Compute<S>> v) noexcept {
#if defined(__AVX512F__)
    if constexpr (sizeof(S) == 4) {
        const auto low = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
        const auto high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
        _mm512_mask_storeu_ps(to, 0x5555, _mm512_permutexvar_ps(low, v));
        _mm512_mask_storeu_ps(to + 16, 0x5555, _mm512_permutexvar_ps(high, v));
        return true;
    } else if constexpr (sizeof(S) == 8) {
        const auto low = _mm512_setr_epi64(0, 0, 1, 1, 2, 2, 3, 3);
        const auto high = _mm512_add_epi64(low, _mm512_set1_epi64(4));
        _mm512_mask_storeu_pd(to, 0x55, _mm512_permutexvar_pd(low, v));
        _mm512_mask_storeu_pd(to + 8, 0x55, _mm512_permutexvar_pd(high, v));
        return true;
    }
#endif
    (void)to, (void)v;
    return false;
}

template <class S, class T>
void scatter(const void* line, std::ptrdiff_t count, void* target, std::ptrdiff_t stride) noexcept {
    const T* from = static_cast<const T*>(line);
    S* to = static_cast<S*>(target);
    constexpr size width = lanes<Compute<S>>;
    for (size i = 0; i < count; i += width) {
        const size now = count - i < width ? count - i : width;
        Vec<Compute<S>> v;
        if constexpr (sizeof(Compute<S>) == sizeof(T)) {
            v = now == width ? load(from + i) : load_first(from + i, now, T(0));
        } else {
            v = Vec<Compute<S>>{};
            for (size l = 0; l < now; ++l) v[l] = static_cast<Compute<S>>(from[i + l]);
        }
        S* first = to + i * stride;
        if (now == width && stride == 1) {
            store_as(first, v);
            continue;
        }
        if (now == width && stride == 2 && scatter_every_second(first, v)) continue;
        S lane[width];
        store_as(lane, v);
        for (size l = 0; l < now; ++l) store_scalar(first + l * stride, lane[l]);
    }
}

template <class T>
constexpr OptimKernels kernels_of = {
    {step<T, AdamRule>, step<T, SgdRule>, step<T, LionRule>, step<T, AdamaxRule>,
     step<T, AdagradRule>, step<T, RmspropRule>, step<T, AverageRule>},
    squares<T>,
    {gather<float, T>, gather<double, T>, gather<Float16, T>, gather<BFloat16, T>},
    {scatter<float, T>, scatter<double, T>, scatter<Float16, T>, scatter<BFloat16, T>},
};

}  // namespace

extern constinit const OptimKernels optim_kernels[2] = {kernels_of<float>, kernels_of<double>};

}  // namespace unitstride::UNITSTRIDE_ISA
