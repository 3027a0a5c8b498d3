"""Kernels as long as the signal, and plans: calls and streams."""

import copy
import itertools
import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from checks import random_for

from unitstride import ConvolutionPlan, _backend, convolve, long_convolve, long_convolve_vjp

DTYPES = ("float32", "float64", "complex64", "complex128", "float16")


def close(got: Any, want: Any, x: Any, k: Any) -> None:
    """Compare within FFT's bound: 16 units of roundoff of the norms for each doubling."""
    assert got.dtype == want.dtype and got.shape == want.shape
    unit = float(np.finfo(want.dtype).eps)
    size = np.linalg.norm(x.astype(complex)) * np.linalg.norm(np.asarray(k).astype(complex))
    np.testing.assert_allclose(got, want, rtol=unit, atol=8 * 16 * unit * size)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(2, 3, 700), (3, 2000), (2, 3, 1)])
def test_long_convolve_is_the_causal_convolution(shape: tuple[int, ...], dtype: str) -> None:
    random = random_for("long", *shape, dtype)
    x = random.standard_normal(shape).astype(dtype)
    for taps in (shape[-1], 1, shape[-1] + 50):
        k = random.standard_normal((3, taps)).astype(dtype)
        want = convolve(x, np.broadcast_to(k, (*shape[:-2], 3, taps)), "causal", method="direct")
        close(long_convolve(x, k), want, x, k)
        out = np.empty_like(want)
        assert long_convolve(x, k, out=out) is out
        close(long_convolve(x, k[0]), convolve(x, k[0], "causal", method="direct"), x, k)


def test_gradients_of_long_convolve() -> None:
    random = random_for("long gradients")
    for taps in (5, 300, 420):
        x, k = random.standard_normal((2, 3, 300)), random.standard_normal((3, taps))
        dy = random.standard_normal((2, 3, 300))
        dx, dk = long_convolve_vjp(x, k, dy)
        assert dx.shape == x.shape and dk.shape == k.shape
        u, v = random.standard_normal(x.shape), random.standard_normal(k.shape)
        # Sums of 1,800 products of size about 20.
        assert np.vdot(dx, u) == pytest.approx(np.vdot(dy, long_convolve(u, k)), rel=1e-9, abs=1e-9)
        assert np.vdot(dk, v) == pytest.approx(np.vdot(dy, long_convolve(x, v)), rel=1e-9, abs=1e-9)


def test_errors_of_long_convolve() -> None:
    x = np.ones((2, 3, 8))
    for k, text in (
        (np.ones((2, 8)), "must have a kernel for each channel"),
        (np.ones((1, 3, 8)), r"`k` \(channels, taps\) or \(taps,\)"),
        (np.ones((3, 0)), "`k` must have at least one element"),
    ):
        with pytest.raises(ValueError, match=text):
            long_convolve(x, k)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", ["auto", "direct", "fft"])
def test_calls_are_convolutions(method: Any, dtype: str) -> None:
    random = random_for("plan", method, dtype)
    k = random.standard_normal(300).astype(dtype)
    plan = ConvolutionPlan(k, "same", 0, method=method, boundary="reflect")
    for shape in ((5000, 2), (400,), (100, 3)):
        x = random.standard_normal(shape).astype(dtype)
        want = convolve(x, k, "same", 0, method="direct", boundary="reflect")
        close(plan(x), want, x, k)
        out = np.empty_like(want)
        assert plan(x, out=out) is out
        close(out, want, x, k)


@pytest.mark.parametrize("taps", [1, 2, 40, 3000])
@pytest.mark.parametrize("method", ["auto", "direct"])
def test_a_stream_is_the_whole(method: Any, taps: int) -> None:
    random = random_for("stream", method, taps)
    x, k = random.standard_normal((3, 9000)), random.standard_normal(taps)
    plan = ConvolutionPlan(k, method=method)
    for _ in range(2):  # the stream ends with flush
        cuts = [0, *sorted(random.integers(0, 9001, 7)), 9000]
        parts = [plan.step(x[:, a:b]) for a, b in itertools.pairwise(cuts)]
        parts.append(plan.flush())
        got = np.concatenate(parts, axis=1)
        want = convolve(x, k, "full", method="direct")
        if method == "direct" and _backend.core is not None:  # NumPy's sums depend on the place
            np.testing.assert_array_equal(got, want)
        close(got, want, x, k)
    plan.step(x)
    with pytest.raises(ValueError, match="`chunk` must have the lines"):
        plan.step(x[:2])
    plan.reset()
    close(plan.step(x[:2]), want[:2, :9000], x, k)


def test_plans_can_be_copied_pickled_and_shared() -> None:
    random = random_for("shared")
    k = random.standard_normal(1000).astype(np.float32)
    plan = ConvolutionPlan(k)
    x = random.standard_normal((8, 20_000)).astype(np.float32)
    first = plan.step(x[0, :500])
    for other in (pickle.loads(pickle.dumps(plan)), copy.deepcopy(plan)):
        assert repr(other) == repr(plan)
        np.testing.assert_array_equal(other.flush()[:5], copy.copy(plan).flush()[:5])
    close(first, convolve(x[0, :500], k, "causal", method="direct"), x[0, :500], k)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(plan, x))
    for got, line in zip(results, x, strict=True):
        np.testing.assert_array_equal(got, plan(line))
    k[:] = 0  # the plan has its own copy
    assert plan.kernel[0] != 0
    with pytest.raises(ValueError, match="read-only"):
        plan.kernel[0] = 1


def test_errors_of_plans() -> None:
    for call, error, text in (
        (lambda: ConvolutionPlan(np.ones((2, 2))), ValueError, "`k` must have one axis"),
        (lambda: ConvolutionPlan([]), ValueError, "`k` must have one axis and at least one tap"),
        (lambda: ConvolutionPlan([1.0], "half"), ValueError, "`mode` must be one of"),  # type: ignore[arg-type]
        (lambda: ConvolutionPlan(["a"]), TypeError, "`k` must be numbers"),
        (lambda: ConvolutionPlan([1.0]).step(1.0), ValueError, "at least one axis"),
    ):
        with pytest.raises(error, match=text):
            call()  # type: ignore[no-untyped-call]
