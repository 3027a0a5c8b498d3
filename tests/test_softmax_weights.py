"""Weights of logsumexp: dtypes and shapes that the result takes from them, as in SciPy."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
from attention_cases import sum_to
from checks import assert_same_bits, random_for

from unitstride import logsumexp, logsumexp_vjp


def test_weights_promote_the_result() -> None:
    """As SciPy does: Python numbers promote nothing, arrays and lists by NumPy's rules."""
    special = pytest.importorskip("scipy.special")
    for own, other in itertools.product(
        ("float16", "float32", "float64", "int32"),
        ("float16", "float32", "float64", "int8", "int64", "bool"),
    ):
        x, b = np.array([0.5, 1.5]).astype(own), np.array([1, 3]).astype(other)
        expected = special.logsumexp(x.astype(float), b=b.astype(float))
        promoted = np.float64 if own == "int32" else np.result_type(x, b)
        level, sign = logsumexp(x, b=b, return_sign=True)
        assert level.dtype == sign.dtype == promoted
        assert level == pytest.approx(expected, rel=2e-3 if promoted == np.float16 else 1e-6)
        if own != "float16":  # of which SciPy computes in float64 now and then
            assert special.logsumexp(x, b=b).dtype == promoted
        assert logsumexp(x, b=b, dtype="float32").dtype == np.float32
        dx, db = logsumexp_vjp(x, 1.0, b=b)
        assert dx.dtype == (np.float64 if own == "int32" else x.dtype)
        assert db.dtype == (dx.dtype if b.dtype.kind != "f" else b.dtype)
    x = np.zeros(2, np.float32)
    assert logsumexp(x, b=2).dtype == logsumexp(x, b=2.0).dtype == np.float32
    assert logsumexp(x, b=[1.0, 2.0]).dtype == np.float64
    level = logsumexp(x, b=np.array([1.0, -1.0 + 2.0**-40]), dtype="float32")
    assert level == np.float32(-40 * math.log(2))


@pytest.mark.parametrize("axis", [None, 0, -1, (0, 2), (-2,)])
@pytest.mark.parametrize("shape", [(3, 1, 5), (2, 1, 1, 1), (4,), ()])
def test_weights_and_input_broadcast_together(shape: tuple[int, ...], axis: Any) -> None:
    random = random_for("together", shape, axis)
    x, b = random.standard_normal((1, 2, 1)), random.random(shape) + 0.5
    wide, weights = np.broadcast_arrays(x, b)
    where = random.random(wide.shape) < 0.7
    kept = np.where(where, weights, 0.0)
    with np.errstate(divide="ignore"):
        expected = np.log((kept * np.exp(wide)).sum(axis=axis))
        np.testing.assert_allclose(
            logsumexp(x, axis, b=b, where=where), expected, rtol=1e-13, atol=1e-14
        )
    dx, db = logsumexp_vjp(x, np.ones_like(expected), axis, b=b, where=where)
    full, full_db = logsumexp_vjp(wide, np.ones_like(expected), axis, b=weights, where=where)
    assert dx.shape == x.shape and np.shape(db) == shape
    np.testing.assert_allclose(dx, sum_to(full, x.shape), rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(db, sum_to(full_db, shape), rtol=1e-13, atol=1e-15)
    out = np.empty_like(x)
    assert logsumexp_vjp(x, np.ones_like(expected), axis, b=b, where=where, out=out)[0] is out
    assert_same_bits(out, dx)
