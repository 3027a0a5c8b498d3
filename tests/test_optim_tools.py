"""Schedules, and derivatives by differences."""

import importlib
import importlib.util
import pickle
from typing import Any

import numpy as np
import pytest

import unitstride
from unitstride import optim


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
def test_schedules_of_torch() -> None:
    torch: Any = importlib.import_module("torch")
    schedulers = torch.optim.lr_scheduler

    def rates(make: Any, lr: float, steps: int = 60) -> list[float]:
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
        scheduler = make(optimizer)
        found = []
        for _ in range(steps):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        return found

    cases: list[tuple[Any, Any, float, int]] = [
        (optim.exponential_schedule(0.1, 0.9), lambda o: schedulers.ExponentialLR(o, 0.9), 0.1, 60),
        (optim.step_schedule(0.1, 0.5, 7), lambda o: schedulers.StepLR(o, 7, 0.5), 0.1, 60),
        (optim.polynomial_schedule(0.1, 0.0, 2.0, 20),
         lambda o: schedulers.PolynomialLR(o, 20, 2.0), 0.1, 40),
        (optim.linear_schedule(0.05, 0.1, 10), lambda o: schedulers.LinearLR(o, 0.5, 1.0, 10),
         0.1, 40),
        (optim.cosine_schedule(0.1, 20, end=0.01),
         lambda o: schedulers.CosineAnnealingLR(o, 20, 0.01), 0.1, 21),
        (optim.cosine_schedule(0.1, 5, end=0.01, restarts=True, growth=2.0),
         lambda o: schedulers.CosineAnnealingWarmRestarts(o, 5, 2, 0.01), 0.1, 80),
        (optim.cyclical_schedule(0.01, 0.1, 4, 6), lambda o: schedulers.CyclicLR(
            o, 0.01, 0.1, 4, 6, cycle_momentum=False), 0.1, 60),
    ]  # fmt: skip
    for ours, theirs, lr, steps in cases:
        # The schedulers of PyTorch multiply the rate before, step by step.
        want = rates(theirs, lr, steps)
        np.testing.assert_allclose([ours(t) for t in range(steps)], want, rtol=1e-9, atol=1e-17)


def test_schedules_at_their_ends() -> None:
    warm = optim.cosine_schedule(1.0, 110, warmup=10, end=0.1)
    assert [warm(t) for t in (0, 5, 10)] == [0.0, 0.5, 1.0]
    assert warm(60) == pytest.approx(0.55, rel=1e-15) and warm(110) == warm(10**9) == 0.1
    cycle = optim.one_cycle_schedule(1.0, 100, start_divisor=20.0, end_divisor=10.0)
    assert cycle(0) == pytest.approx(0.05, rel=1e-14) and cycle(30) == 1.0
    assert cycle(100) == cycle(1000) == pytest.approx(0.005, rel=1e-12)
    assert max(map(cycle, range(100))) == 1.0
    assert optim.inverse_time_schedule(1.0, 0.5, 10)(20) == 0.5
    both = optim.join_schedules([optim.linear_schedule(0, 1, 4), optim.constant_schedule(3.0)], [4])
    assert [both(t) for t in (0, 2, 3, 4, 9)] == [0.0, 0.5, 0.75, 3.0, 3.0]
    for schedule in (warm, cycle, both):
        copy = pickle.loads(pickle.dumps(schedule))
        assert [copy(t) for t in range(50)] == [schedule(t) for t in range(50)]


def test_schedules_in_an_optimiser() -> None:
    x = np.zeros(1)
    optimizer = unitstride.SGD(x, lr=optim.linear_schedule(1.0, 0.0, 2))
    for want in (-1.0, -1.5, -1.5):
        optimizer.step(np.ones(1))
        assert x[0] == want


def test_errors_of_schedules() -> None:
    for call, message in (
        (lambda: optim.linear_schedule(1.0, 0.0, 0), "linear_schedule: `steps` must be an integer"),
        (lambda: optim.cosine_schedule(1.0, 5, 5), "`steps` must be an integer of at least 6"),
        (lambda: optim.exponential_schedule(1.0, 0.0), "`factor` must be above 0"),
        (lambda: optim.join_schedules([abs], [3]), "`boundaries` must have 0 entries, got 1"),
        (lambda: optim.join_schedules([abs, abs, abs], [3, 3]), "`boundaries` must rise"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_derivatives_by_differences() -> None:
    def f(x: Any) -> Any:
        return x[0] ** 2 + 2 * x[1] ** 2

    # The default step leaves errors of 1e-10; second derivatives 1e-7.
    np.testing.assert_allclose(unitstride.numerical_gradient(f, [3, 4]), [6, 16], rtol=1e-9)
    np.testing.assert_allclose(unitstride.hessian(f, [3, 4]), [[2, 0], [0, 4]], atol=1e-6)
    a = np.arange(12.0).reshape(3, 4)
    found = unitstride.jacobian(lambda x: a @ x, np.ones((4, 2)))
    want = np.einsum("ij,kl->ikjl", a, np.eye(2))
    np.testing.assert_allclose(found, want, atol=1e-8)
    assert unitstride.numerical_gradient(lambda x: 3 * x, 2.0).shape == ()


def test_a_gradient_of_this_library_is_right() -> None:
    random = np.random.default_rng(3)
    x, dy = random.standard_normal((2, 3, 4))

    def f(x: Any) -> Any:
        return (dy * unitstride.softmax(x)).sum()

    def grad(x: Any) -> Any:
        return unitstride.softmax_vjp(unitstride.softmax(x), dy)

    assert unitstride.check_gradient(f, grad, x)


def test_a_wrong_entry_is_found() -> None:
    x = np.arange(6.0).reshape(2, 3)
    wrong = 2 * x
    wrong[1, 0] += 1e-3
    report = unitstride.check_gradient(lambda x: (x**2).sum(), wrong, x)
    assert not report and report.worst[0][0] == (1, 0)
    assert "(1, 0): gradient 6.001, differences 6" in str(report)
    wrong[1, 0] = np.nan
    assert not unitstride.check_gradient(lambda x: (x**2).sum(), wrong, x)
    for call, message in (
        (lambda: unitstride.check_gradient(np.sum, x[0], x), "`grad` must have shape"),
        (lambda: unitstride.numerical_gradient(np.abs, x), "`f` must return one number"),
        (lambda: unitstride.hessian(np.sum, [np.nan]), "`x` must be finite"),
        (lambda: unitstride.jacobian(np.abs, x, step=0.0), "`step` must be positive"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
