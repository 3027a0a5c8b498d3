"""Contractions of few elements with long sums, which are cut into parts."""

from typing import Any

import numpy as np
import pytest
from checks import random_for

from unitstride import einsum, threads

Array = np.ndarray[Any, Any]

# Summed axes: one that parts divide, a prime one, several of which the first is short, several of
# which none is long enough for all parts.
DEPTHS = [(20480,), (10007,), (3, 5003), (11, 13, 7, 12)]
ROUNDOFF = {"float32": 2.0**-24, "complex64": 2.0**-24, "float64": 2.0**-53}


def draw(dtype: str, depth: tuple[int, ...], columns: int) -> Array:
    random = random_for("long sums", dtype, *depth, columns)
    values = random.standard_normal((*depth, columns))
    if dtype == "complex64":
        values = values + 1j * random.standard_normal((*depth, columns))
    return np.asarray(values, dtype)


def subscripts(depth: tuple[int, ...]) -> str:
    summed = "stuv"[: len(depth)]
    return f"{summed}i,{summed}j->ij"


@pytest.mark.parametrize("layout", ["plain", "every second", "backwards", "transposed"])
@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64"])
def test_every_layout(dtype: str, depth: tuple[int, ...], layout: str) -> None:
    a, b = draw(dtype, depth, 40), draw(dtype, depth, 33)
    given = a
    if layout == "every second":
        given = np.repeat(a, 2, axis=-1)[..., ::2]
    elif layout == "backwards":
        given = np.ascontiguousarray(a[::-1])[::-1]
    elif layout == "transposed":
        given = np.ascontiguousarray(a.T).T
    result = einsum(subscripts(depth), given, b)
    wide = "complex128" if dtype == "complex64" else "float64"
    exact = np.tensordot(a.astype(wide), b.astype(wide), (list(range(len(depth))),) * 2)
    # Rounding errors of sums of n random terms grow with the root of n; 8 is for the worst of all.
    limit = 8 * ROUNDOFF[dtype] * np.sqrt(np.prod(depth)) * np.sqrt(2.0)
    assert np.abs(result - exact).max() <= limit * max(1.0, np.log2(np.prod(depth)))


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64"])
def test_factors_and_the_number_of_threads(dtype: str) -> None:
    a, b = draw(dtype, (20011,), 40), draw(dtype, (20011,), 33)
    out = draw(dtype, (40,), 33)
    factors: dict[str, Any] = {"alpha": 0.5, "beta": -2.0}
    if dtype == "complex64":
        factors = {"alpha": 0.5 - 1j, "beta": 2j}
    results = []
    for count in (1, 2, 3):
        with threads(count):
            results.append(einsum("ki,kj->ij", a, b, out=out.copy(), **factors))
    np.testing.assert_array_equal(results[1], results[0])
    np.testing.assert_array_equal(results[2], results[0])
    product = einsum("ki,kj->ij", a, b)
    expected = factors["alpha"] * product + factors["beta"] * out
    np.testing.assert_allclose(results[0], expected, rtol=1e-5, atol=1e-3)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_infinite_and_unknown_terms_reach_their_elements_alone() -> None:
    a, b = draw("float32", (20011,), 40), draw("float32", (20011,), 33)
    a[17000, 3], a[5, 4] = np.inf, np.nan
    result = einsum("ki,kj->ij", a, b)
    assert np.isinf(result[3]).all()
    assert np.isnan(result[4]).all()
    assert np.isfinite(np.delete(result, (3, 4), axis=0)).all()


def test_an_output_of_any_strides() -> None:
    a, b = draw("float32", (20011,), 40), draw("float32", (20011,), 33)
    memory = np.full((33, 90), 7, np.float32)
    einsum("ki,kj->ij", a, b, out=memory[::-1, 2:82:2].T)
    np.testing.assert_array_equal(memory[::-1, 2:82:2].T, einsum("ki,kj->ij", a, b))
    assert (memory[:, :2] == 7).all()
    assert (memory[:, 3::2] == 7).all()
