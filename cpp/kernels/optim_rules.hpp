// What optimisers do to one vector of a parameter.
//
// Note [Same bits as NumPy]: additions, multiplications, divisions and square roots are rounded one
// by one, never fused, in the order in which the twin in `_reference/optim.py` writes them. So the
// results of float and double are NumPy's own, at every instruction-set level.
//
// A rule keeps its constants as vectors. `change(gradient, state)` updates the states and returns
// what is taken off the parameter, decoupled decay apart. A state that is not there is not used.
#pragma once

#include "kernels/optim.hpp"
#include "simd/vec.hpp"

namespace unitstride::UNITSTRIDE_ISA {
namespace {

template <class T>
inline Vec<T> rule_constant(const StepTask& task, int index) noexcept {
    return splat(static_cast<T>(task.constants->rule[index]));
}
inline bool has_state(const StepTask& task, int index) noexcept {
    return task.line[step_state + index] != nullptr;
}

// Where the divisor is zero, 1 takes its place: with eps = 0, a parameter that never had a gradient
// stays as it is.
template <class T>
inline Vec<T> divide(Vec<T> a, Vec<T> b) noexcept {
    return a / (b == T(0) ? splat(T(1)) : b);
}

// m = m0 m + m1 g; v = v0 v + v1 g^2; w = a v, or the highest of all w so far;
// change = rate (n0 m + n1 g) / (c sqrt(w + inner) + outer). NAdam, RAdam and the places of eps are
// constants. D. P. Kingma, J. Ba, arXiv:1412.6980; S. Reddi, S. Kale, S. Kumar, ICLR 2018.
template <class T>
struct AdamRule {
    Vec<T> m0, m1, v0, v1, a, inner, c, outer, rate, n0, n1;
    bool looks_ahead, keeps_highest;

    explicit AdamRule(const StepTask& task) noexcept {
        Vec<T>* into[] = {&m0, &m1, &v0, &v1, &a, &inner, &c, &outer, &rate, &n0, &n1};
        for (int k = 0; k < 11; ++k) *into[k] = rule_constant<T>(task, k);
        looks_ahead = task.constants->rule[10] != 0.0;
        keeps_highest = has_state(task, 2);
    }
    Vec<T> change(Vec<T> g, Vec<T>* state) const noexcept {
        const Vec<T> m = m0 * state[0] + m1 * g;
        const Vec<T> v = v0 * state[1] + v1 * (g * g);
        state[0] = m;
        state[1] = v;
        Vec<T> w = v * a;
        if (keeps_highest) state[2] = w = state[2] > w ? state[2] : w;
        const Vec<T> divisor = square_root(w + inner) * c + outer;
        const Vec<T> direction = looks_ahead ? m * n0 + g * n1 : m;
        return rate * divide<T>(direction, divisor);
    }
};

// b = keep b + take g; change = rate b, rate (g + keep b) with Nesterov's rule, rate g without b.
// I. Sutskever et al., ICML 2013.
template <class T>
struct SgdRule {
    Vec<T> keep, take, rate, ahead;
    bool remembers, looks_ahead;

    explicit SgdRule(const StepTask& task) noexcept
        : keep(rule_constant<T>(task, 0)),
          take(rule_constant<T>(task, 1)),
          rate(rule_constant<T>(task, 2)),
          ahead(rule_constant<T>(task, 3)),
          remembers(has_state(task, 0)),
          looks_ahead(task.constants->rule[3] != 0.0) {}
    Vec<T> change(Vec<T> g, Vec<T>* state) const noexcept {
        if (!remembers) return rate * g;
        const Vec<T> b = keep * state[0] + take * g;
        state[0] = b;
        return rate * (looks_ahead ? g + ahead * b : b);
    }
};

// change = rate sign(b1 m + (1 - b1) g); m = b2 m + (1 - b2) g. X. Chen et al., arXiv:2302.06675.
template <class T>
struct LionRule {
    Vec<T> m0, m1, n0, n1, rate;

    explicit LionRule(const StepTask& task) noexcept
        : m0(rule_constant<T>(task, 0)),
          m1(rule_constant<T>(task, 1)),
          n0(rule_constant<T>(task, 2)),
          n1(rule_constant<T>(task, 3)),
          rate(rule_constant<T>(task, 4)) {}
    Vec<T> change(Vec<T> g, Vec<T>* state) const noexcept {
        const Vec<T> mix = m0 * state[0] + m1 * g;
        state[0] = n0 * state[0] + n1 * g;
        const Vec<T> zero = splat(T(0));
        return mix > T(0) ? rate : (mix < T(0) ? -rate : zero * mix);
    }
};

// m = m0 m + m1 g; u = max(b2 u, |g| + eps); change = rate m / u. Kingma and Ba, section 7.1.
template <class T>
struct AdamaxRule {
    Vec<T> m0, m1, keep, eps, rate;

    explicit AdamaxRule(const StepTask& task) noexcept
        : m0(rule_constant<T>(task, 0)),
          m1(rule_constant<T>(task, 1)),
          keep(rule_constant<T>(task, 2)),
          eps(rule_constant<T>(task, 3)),
          rate(rule_constant<T>(task, 4)) {}
    Vec<T> change(Vec<T> g, Vec<T>* state) const noexcept {
        state[0] = m0 * state[0] + m1 * g;
        const Vec<T> kept = keep * state[1];
        const Vec<T> fresh = (g < T(0) ? -g : g) + eps;
        state[1] = kept > fresh ? kept : fresh;
        return rate * divide<T>(state[0], state[1]);
    }
};

// s = s + g^2; change = rate g / (sqrt(s) + eps). J. Duchi, E. Hazan, Y. Singer, JMLR 12, 2011.
template <class T>
struct AdagradRule {
    Vec<T> rate, eps;

    explicit AdagradRule(const StepTask& task) noexcept
        : rate(rule_constant<T>(task, 0)), eps(rule_constant<T>(task, 1)) {}
    Vec<T> change(Vec<T> g, Vec<T>* state) const noexcept {
        state[0] = state[0] + g * g;
        return rate * divide<T>(g, square_root(state[0]) + eps);
    }
};

// s = s0 s + s1 g^2; centred: h = s0 h + s1 g, s - h^2 below; q = g / (sqrt(s) + eps);
// change = rate q, or with b = momentum b + q, rate b. T. Tieleman, G. Hinton, 2012.
template <class T>
struct RmspropRule {
    Vec<T> s0, s1, eps, momentum, rate;
    bool centred, remembers;

    explicit RmspropRule(const StepTask& task) noexcept
        : s0(rule_constant<T>(task, 0)),
          s1(rule_constant<T>(task, 1)),
          eps(rule_constant<T>(task, 2)),
          momentum(rule_constant<T>(task, 3)),
          rate(rule_constant<T>(task, 4)),
          centred(has_state(task, 1)),
          remembers(has_state(task, 2)) {}
    Vec<T> change(Vec<T> g, Vec<T>* state) const noexcept {
        state[0] = s0 * state[0] + s1 * (g * g);
        Vec<T> spread = state[0];
        if (centred) {
            state[1] = s0 * state[1] + s1 * g;
            spread = spread - state[1] * state[1];
            spread = spread < T(0) ? splat(T(0)) : spread;
        }
        const Vec<T> scaled = divide<T>(g, square_root(spread) + eps);
        if (!remembers) return rate * scaled;
        state[2] = momentum * state[2] + scaled;
        return rate * state[2];
    }
};

// param = keep param + take g: a moving average. What the parameter becomes, not its change.
template <class T>
struct AverageRule {
    Vec<T> keep, take;

    explicit AverageRule(const StepTask& task) noexcept
        : keep(rule_constant<T>(task, 0)), take(rule_constant<T>(task, 1)) {}
    Vec<T> value(Vec<T> g, Vec<T> parameter) const noexcept { return keep * parameter + take * g; }
};

}  // namespace
}  // namespace unitstride::UNITSTRIDE_ISA
