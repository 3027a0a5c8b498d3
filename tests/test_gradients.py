"""The gradients against central differences, and against PyTorch where it is installed."""

import importlib.util
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from checks import DTYPES, dtype_of, output_of, random_for

from unitstride import (
    log_softmax,
    log_softmax_vjp,
    logsumexp,
    logsumexp_vjp,
    softmax,
    softmax_vjp,
)

SHAPE = (3, 4, 5)
AXES = (0, 1, -1, (0, 2), None)
STEP = 1e-5
# Central differences: STEP^2 of truncation times third derivatives below 1, and eps / STEP of
# rounding, for sums of 60 terms of order 1.
TOLERANCE = 1e-9


def differences(function: Callable[[Any], Any], x: Any) -> Any:
    """Return the gradient of a scalar function, element by element."""
    gradient = np.zeros_like(x)
    for place in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[place] += STEP
        down[place] -= STEP
        gradient[place] = (function(up) - function(down)) / (2 * STEP)
    return gradient


def problem(*key: object) -> tuple[Any, Any, Any]:
    random = random_for("gradient", *key)
    where = random.random(SHAPE) < 0.6
    where[0, 0] = where[0, :, 0] = where[:, 0, 0] = True
    for axis in range(3):  # no line without anything
        where |= ~where.any(axis=axis, keepdims=True)
    return random.standard_normal(SHAPE), random.standard_normal(SHAPE), where


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("axis", AXES)
def test_softmax_vjp(axis: Any, temperature: float, masked: bool) -> None:
    x, dy, where = problem("softmax", axis)
    keywords = {"axis": axis, "temperature": temperature, "where": where if masked else None}
    expected = differences(lambda x: np.sum(softmax(x, **keywords) * dy), x)
    got = softmax_vjp(softmax(x, **keywords), dy, **keywords)
    np.testing.assert_allclose(got, expected, atol=TOLERANCE)
    assert not masked or (got[~where] == 0).all()


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("axis", AXES)
def test_log_softmax_vjp(axis: Any, temperature: float, masked: bool) -> None:
    x, dy, where = problem("log_softmax", axis)
    keywords = {"axis": axis, "temperature": temperature, "where": where if masked else None}
    chosen = where if masked else np.ones(SHAPE, bool)

    def loss(x: Any) -> Any:
        return np.sum(log_softmax(x, **keywords) * dy, where=chosen)

    got = log_softmax_vjp(log_softmax(x, **keywords), dy, **keywords)
    np.testing.assert_allclose(got, differences(loss, x), atol=TOLERANCE)
    assert (got[~chosen] == 0).all()


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("axis", AXES)
def test_logsumexp_vjp(axis: Any, temperature: float, masked: bool, keepdims: bool) -> None:
    x, _, where = problem("logsumexp", axis)
    keywords = {
        "axis": axis,
        "temperature": temperature,
        "where": where if masked else None,
        "keepdims": keepdims,
    }
    level = logsumexp(x, **keywords)
    dy = random_for("dy", axis).standard_normal(np.shape(level))
    expected = differences(lambda x: np.sum(logsumexp(x, **keywords) * dy), x)
    np.testing.assert_allclose(logsumexp_vjp(x, dy, **keywords), expected, atol=TOLERANCE)
    given = logsumexp_vjp(x, dy, lse=level, **keywords)
    np.testing.assert_allclose(given, expected, atol=TOLERANCE)


@pytest.mark.parametrize("shape", [SHAPE, (5,), (4, 1), (3, 1, 1), ()])
@pytest.mark.parametrize("axis", AXES)
def test_logsumexp_vjp_with_weights(axis: Any, shape: tuple[int, ...]) -> None:
    """Positive weights of any shape that broadcasts: the gradients of x and of b."""
    x, _, where = problem("weights", axis, shape)
    b = np.asarray(random_for("b", shape).uniform(0.5, 2, shape))
    keywords = {"axis": axis, "where": where, "temperature": 0.8}
    dy = random_for("dy of weights", axis).standard_normal(np.shape(logsumexp(x, axis)))
    dx, db = logsumexp_vjp(x, dy, b=b, **keywords)
    expected = differences(lambda x: np.sum(logsumexp(x, b=b, **keywords) * dy), x)
    np.testing.assert_allclose(dx, expected, atol=TOLERANCE)
    expected = differences(lambda b: np.sum(logsumexp(x, b=b, **keywords) * dy), b)
    assert np.shape(db) == shape
    np.testing.assert_allclose(db, expected, atol=TOLERANCE)


def test_logsumexp_vjp_where_the_sum_is_negative() -> None:
    """The gradient of log(abs(sum)); with the pair of value and sign, and without."""
    x = random_for("sign x").standard_normal((6, 5))
    b = random_for("sign b").standard_normal((6, 5))
    dy = random_for("sign dy").standard_normal(6)
    level, sign = logsumexp(x, b=b, return_sign=True)
    assert {-1.0, 1.0} == set(sign)

    def loss(x: Any, b: Any) -> Any:
        return np.sum(logsumexp(x, b=b, return_sign=True)[0] * dy)

    for lse in (None, (level, sign)):
        dx, db = logsumexp_vjp(x, dy, b=b, lse=lse)
        # A sum that cancels multiplies the derivatives; 10 more digits are lost at the most.
        tolerance = {"rtol": 1e-6, "atol": 1e-6}
        np.testing.assert_allclose(dx, differences(lambda x: loss(x, b), x), **tolerance)
        np.testing.assert_allclose(db, differences(lambda b: loss(x, b), b), **tolerance)


def test_the_gradient_is_zero_where_the_weight_is() -> None:
    dx, db = logsumexp_vjp([1.0, np.inf, 2.0], 1.0, b=[1.0, 0.0, 1.0])
    assert dx[1] == 0
    np.testing.assert_allclose(dx.sum(), 1.0, rtol=1e-15)
    assert np.isfinite(db[[0, 2]]).all()


@pytest.mark.parametrize("name", DTYPES)
def test_dtypes_of_gradients(name: str) -> None:
    """The gradient has the dtype of the array it belongs to; a wider cotangent is not rounded."""
    dtype = dtype_of(name)
    x = random_for("dtypes", name).standard_normal((4, 9)).astype(dtype)
    y = softmax(x)
    for wide in (dtype, np.dtype(np.float32), np.dtype(np.float64)):
        dy = random_for("cotangent", wide.name).standard_normal((4, 9)).astype(wide)
        assert softmax_vjp(y, dy).dtype == dtype
        assert log_softmax_vjp(y, dy).dtype == dtype
        assert logsumexp_vjp(x, dy[:, 0]).dtype == dtype
    dx, db = logsumexp_vjp(x, np.ones(4), b=np.ones(9, np.float32))
    assert (dx.dtype, db.dtype) == (dtype, np.float32)
    exact = softmax_vjp(y.astype(float), np.full((4, 9), 1 / 3))
    got = softmax_vjp(y, np.full((4, 9), 1 / 3))
    scale = y.astype(float).max() * 2.0 ** -{"float32": 23, "float64": 52, "float16": 10}.get(
        name, 7
    )
    # A constant cotangent cancels; rounding it to the dtype of y first would not be seen here,
    # but a rounding of the products would.
    np.testing.assert_allclose(got.astype(float), exact.astype(float), atol=scale)


def test_masked_out_cotangents_never_leak() -> None:
    y = softmax(np.zeros((2, 4)), where=[True, True, False, True])
    where = np.array([True, True, False, True])
    clean = np.array([[1.0, 2.0, 0.0, 3.0]] * 2)
    for value in (np.nan, np.inf, -np.inf):
        dy = np.where(where, clean, value)
        spoilt = np.where(where, y, value)
        for function in (softmax_vjp, log_softmax_vjp):
            expected = function(y, clean, where=where)
            np.testing.assert_array_equal(function(spoilt, dy, where=where), expected)
        x = np.full((2, 4), np.where(where, 0.5, value))
        expected = logsumexp_vjp(np.full((2, 4), 0.5), [1.0, 2.0], where=where)
        np.testing.assert_array_equal(logsumexp_vjp(x, [1.0, 2.0], where=where), expected)


def test_masked_out_elements_are_zero_beside_huge_cotangents() -> None:
    """The exponential of what is masked out is never exactly zero: a huge factor would show it."""
    where = np.array([True, False, True])
    for dy in (1e30, 1e38):
        cotangent = np.full(3, dy, np.float32)
        got = log_softmax_vjp(np.zeros(3, np.float32), cotangent, where=where)
        assert got[1] == 0
        got = logsumexp_vjp(np.zeros(3, np.float32), np.float32(dy), where=where)
        assert got[1] == 0


@pytest.mark.parametrize("name", ["float32", "float64"])
def test_nothing_overflows_or_vanishes_on_the_way(name: str) -> None:
    """Cotangents at the ends of the range give results in the range, without a warning."""
    limits = np.finfo(name)
    y = np.full((3, 40), 1 / 40, name)
    signs = np.where(np.arange(40) % 2, 1, -1).astype(name)
    with np.errstate(over="raise"):
        dy = np.tile(signs * limits.max, (3, 1))
        got = softmax_vjp(y, dy)
        np.testing.assert_allclose(got, dy / 40, rtol=4 * limits.eps)
        got = softmax_vjp(y, dy, temperature=0.5)
        np.testing.assert_allclose(got, dy / 20, rtol=4 * limits.eps)
        small = np.tile(np.full(40, limits.tiny * 64, name), (3, 1))
        got = log_softmax_vjp(np.log(y), small)
        # Every result is dy - exp(y) 40 dy, about nothing: errors are relative to dy.
        np.testing.assert_allclose(got / small, 0, atol=40 * limits.eps)
        level = np.zeros(3, name)
        got = logsumexp_vjp(np.full((3, 40), -1.0, name), level + small[0, 0], lse=level)
        np.testing.assert_allclose(got, small * math.exp(-1.0), rtol=4 * limits.eps)


@pytest.mark.parametrize("length", [17, 40, 63, 100, 129, 1000])
def test_lines_that_share_cache_lines(length: int, isa: str) -> None:
    """Outputs large enough to go past the caches: the lines' ends are joined in memory."""
    rows = 3_000_000 // length
    random = random_for("shared", length)
    y = random.random((rows, length), np.float32)
    dy = random.standard_normal((rows, length), np.float32)
    level = y.sum(axis=1)
    calls = (
        lambda part, **out: softmax_vjp(y[part], dy[part], **out),
        lambda part, **out: log_softmax_vjp(-y[part], dy[part], **out),
        lambda part, **out: logsumexp_vjp(y[part], dy[part, 0], lse=level[part], **out),
    )
    for call in calls:
        for begin in (0, 3):
            host = np.full(rows * length + 64, 7.0, np.float32)
            out = host[begin : begin + rows * length].reshape(rows, length)
            call(slice(None), out=out)
            for first in range(0, rows, max(1, rows // 50)):
                part = slice(first, first + 2)
                np.testing.assert_array_equal(out[part], call(part))
            assert (host[:begin] == 7).all() and (host[begin + rows * length :] == 7).all()


TORCH = """if True:
    import numpy, torch, unitstride
    random = numpy.random.default_rng(5)
    x = random.standard_normal((6, 7, 8)) * 3
    for axis in (0, 1, 2):
        leaf = torch.tensor(x, requires_grad=True)
        for name, ours, theirs in (
            ("softmax", unitstride.softmax_vjp, torch.softmax),
            ("log_softmax", unitstride.log_softmax_vjp, torch.log_softmax),
        ):
            y = theirs(leaf, axis)
            dy = random.standard_normal(x.shape)
            (expected,) = torch.autograd.grad(y, leaf, torch.tensor(dy))
            got = ours(getattr(unitstride, name)(x, axis), dy, axis)
            numpy.testing.assert_allclose(got, expected.numpy(), rtol=1e-10, atol=1e-14)
        y = torch.logsumexp(leaf, axis)
        dy = random.standard_normal(tuple(y.shape))
        (expected,) = torch.autograd.grad(y, leaf, torch.tensor(dy))
        got = unitstride.logsumexp_vjp(x, dy, axis)
        numpy.testing.assert_allclose(got, expected.numpy(), rtol=1e-10, atol=1e-14)
    print("agreed")
"""


@pytest.mark.slow
def test_gradients_agree_with_pytorch() -> None:
    """In a process of its own: PyTorch brings an OpenMP runtime along."""
    if importlib.util.find_spec("torch") is None:
        pytest.skip("PyTorch is not installed")
    assert output_of(TORCH) == "agreed"
