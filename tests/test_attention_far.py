"""Scores of any size: biases like -1e9 that stand for a mask, huge products."""

from typing import Any

import numpy as np
import pytest
from attention_cases import plain
from checks import dtype_of, random_for

from unitstride import attention, attention_vjp

LOWEST = float(np.finfo(np.float32).min)
FAR = [-1e6, -1e9, -3e9, -1e10, -1e20, -1e29, -1e30, -1e35, LOWEST, 1e6, 1e10, 1e30]


def arrays(name: str, queries: int, keys: int = 150) -> Any:
    random = random_for("far", name, queries)
    shapes = ((2, 4, queries, 24), (2, 2, keys, 24), (2, 2, keys, 9))
    return [random.standard_normal(shape).astype(dtype_of(name)) for shape in shapes]


def assert_close(got: Any, expected: Any, name: str, size: float = 0.0) -> None:
    """Compare; a score of `size` is rounded, and what it weighs errs by that much."""
    rtol = {"float32": 1e-5, "float64": 1e-13, "bfloat16": 3e-2}[name]
    if name == "float64" and size < 2.0**49:  # beyond it differences are exact
        rtol += 2.0 * size * 2.0**-52
    np.testing.assert_allclose(got.astype(float), expected, rtol=rtol, atol=rtol)


@pytest.mark.parametrize(
    ("name", "far"),
    [(name, far) for name in ("float32", "float64", "bfloat16") for far in FAR]
    + [("float64", -1e300), ("float64", 1e300)],
)
@pytest.mark.parametrize("queries", [1, 40])
def test_rows_that_are_biased_as_a_whole(far: float, name: str, queries: int, isa: str) -> None:
    """With products of zero they average all keys, beside a sink as it weighs against the bias."""
    q, k, v = arrays(name, queries)
    bias = np.full((queries, 150), far, np.float64 if name == "float64" else np.float32)
    far = float(bias[0, 0])
    mean = np.repeat(v.astype(float).mean(axis=-2, keepdims=True), 2, axis=1)
    for sinks in (np.full(4, -np.inf), np.array([0.0, far, 0.5 * far, 2.0])):
        out, lse = attention(0.0 * q, k, v, bias=bias, sinks=sinks, return_lse=True)
        highest = np.maximum(sinks, far)
        keys = 150.0 * np.exp(far - highest)
        total = keys + np.exp(sinks - highest)
        expected = np.tile((keys / total)[:, None, None] * mean, (queries, 1))
        assert_close(out, expected, name, abs(far))
        level = highest + np.log(total)
        wide = "float32" if name == "bfloat16" else name
        assert_close(lse / abs(far), np.broadcast_to(level[:, None] / abs(far), lse.shape), wide)


@pytest.mark.parametrize("far", [far for far in FAR if far < 0])
@pytest.mark.parametrize("name", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("queries", [1, 40])
def test_keys_far_below_others_count_for_nothing(
    far: float, name: str, queries: int, isa: str
) -> None:
    """The same bits as with a bias of -inf, wherever in a row the others are."""
    q, k, v = arrays(name, queries, 700)
    bias = np.full((queries, 700), far, np.float32)
    for row in range(queries):
        bias[row, row * 17 : row * 17 + 5] = 0.0
    out, lse = attention(q, k, v, bias=bias, return_lse=True)
    expected, level = attention(q, k, v, bias=np.where(bias < 0, -np.inf, 0.0), return_lse=True)
    assert_close(out, expected.astype(float), name)
    assert_close(lse, level.astype(float), "float32" if name == "bfloat16" else name)


@pytest.mark.parametrize("name", ["float32", "float64"])
@pytest.mark.parametrize("size", [1e4, 1e8, 1e15])
def test_huge_products_choose_the_largest(name: str, size: float, isa: str) -> None:
    q, k, v = arrays(name, 30)
    out, lse = attention(q * size, k, v, return_lse=True)
    expected = plain((q * size).astype(q.dtype), k, v)
    # Where the best key leads by far, no rounding of products decides.
    first, second = np.sort(np.log(np.maximum(expected.weights, 1e-300)), axis=-1)[..., :-3:-1].T
    leads = (first - second).T > 50
    assert leads.mean() > 0.8
    assert_close(out[leads], expected.out[leads], name)
    assert_close(lse[leads] / size, expected.lse[leads] / size, name)


@pytest.mark.parametrize("far", [-1e10, -1e20, LOWEST, 1e10])
@pytest.mark.parametrize("name", ["float32", "float64"])
def test_gradients_stay_finite(far: float, name: str) -> None:
    q, k, v = arrays(name, 40)
    bias = np.zeros((40, 150), dtype_of(name))
    bias[:9] = far
    bias[9:, 30:50] = far
    out, lse = attention(q, k, v, bias=bias, return_lse=True)
    cotangent = np.ones_like(out)
    cotangent[:, :, :9] = 0.0  # whose log-sum-exp has no place for the number of keys
    near = np.where((bias == far) & (far < 0), -np.inf, bias)[9:]
    if far > 0:
        near = np.where(bias == 0.0, -np.inf, 0.0)[9:]
    found = attention_vjp(q, k, v, out, lse, cotangent, bias=bias)
    assert all(np.isfinite(gradient).all() for gradient in found)
    if far < 0:
        short = q[:, :, 9:]
        out, lse = attention(short, k, v, bias=near, return_lse=True)
        expected = attention_vjp(short, k, v, out, lse, cotangent[:, :, 9:], bias=near)
        assert_close(found[0][:, :, 9:], expected[0], name)
        assert_close(found[1], expected[1], name)
        assert_close(found[2], expected[2], name)
