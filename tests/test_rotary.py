"""Rotary embedding against complex multiplication; its forms, in place, errors."""

from typing import Any

import numpy as np
import pytest
from checks import DTYPES, SIGNIFICAND_BITS, dtype_of, random_for
from layouts import LAYOUTS
from numpy.typing import NDArray

from unitstride import rotary

Array = NDArray[Any]


def plain(x: Array, positions: Any, frequencies: Any, interleaved: bool) -> Array:
    """Turn pairs as complex numbers, in float64."""
    wide = x.astype(np.float64)
    n = len(frequencies)
    turned = wide.copy()
    first = slice(0, 2 * n, 2) if interleaved else slice(0, n)
    second = slice(1, 2 * n, 2) if interleaved else slice(n, 2 * n)
    pairs = wide[..., first] + 1j * wide[..., second]
    pairs = pairs * np.exp(1j * np.asarray(positions)[..., None] * np.asarray(frequencies))
    turned[..., first], turned[..., second] = pairs.real, pairs.imag
    return turned


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("dimensions", [None, 0, 2, 6])
@pytest.mark.parametrize("name", DTYPES)
def test_agrees_with_complex_multiplication(
    name: str, dimensions: int | None, interleaved: bool
) -> None:
    random = random_for("rotary", name, dimensions, interleaved)
    x = random.standard_normal((2, 3, 5, 8)).astype(dtype_of(name))
    positions = random.integers(0, 5000, (2, 1, 5))
    count = 8 if dimensions is None else dimensions
    frequencies = 500.0 ** (-np.arange(0, count, 2) / max(count, 1))
    got = rotary(x, positions, base=500.0, dimensions=dimensions, interleaved=interleaved)
    expected = plain(x, positions, frequencies, interleaved)
    assert got.dtype == x.dtype
    # One rounding of the result; angles of 5,000 have errors of 5e-13, times values below 5.
    error = np.abs(got.astype(np.float64) - expected)
    assert (error <= 2.0 ** (-1 - SIGNIFICAND_BITS[name]) * np.abs(expected) + 1e-11).all()
    np.testing.assert_array_equal(got[..., count:], x[..., count:])


def test_positions_are_counted_from_zero_and_may_be_fractions() -> None:
    x = random_for("positions").standard_normal((2, 4, 6))
    np.testing.assert_array_equal(rotary(x), rotary(x, np.arange(4)))
    # Interpolated positions: a frequency halved is a position halved.
    half = rotary(x, np.arange(4) / 2, frequencies=[1.0, 0.5, 0.25])
    np.testing.assert_allclose(half, rotary(x, frequencies=[0.5, 0.25, 0.125]), rtol=1e-14)


def test_products_depend_on_differences_of_positions_alone() -> None:
    q, k = random_for("products").standard_normal((2, 1, 16))
    near = rotary(q, [3]) @ rotary(k, [1]).T
    far = rotary(q, [1003]) @ rotary(k, [1001]).T
    # Angles near 1,000 are rounded to 1e-13; sums of 16 products of magnitude 1.
    np.testing.assert_allclose(near, far, rtol=0, atol=1e-11)


@pytest.mark.parametrize("interleaved", [False, True])
def test_the_inverse_is_the_gradient_and_undoes(interleaved: bool) -> None:
    x, g = random_for("inverse").standard_normal((2, 3, 6, 10))
    turned = rotary(x, interleaved=interleaved)
    back = rotary(turned, interleaved=interleaved, inverse=True)
    np.testing.assert_allclose(back, x, rtol=0, atol=1e-14)  # some ULP of values below 4
    ahead = (turned * g).sum()
    assert abs((x * rotary(g, interleaved=interleaved, inverse=True)).sum() - ahead) < 1e-12


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_layouts_and_in_place(layout: Any) -> None:
    random = random_for("layouts", layout.name)
    shape = layout.shape((3, 4, 8))
    if len(shape) < 2 or shape[-1] % 2:
        shape = (3, 4, 8)
    x = layout(random.standard_normal(shape))
    plainly = np.array(x, dtype=np.float64)
    expected = rotary(plainly, dimensions=shape[-1] // 4 * 2)
    np.testing.assert_array_equal(rotary(x, dimensions=shape[-1] // 4 * 2), expected)
    if layout.writeable and x.dtype == np.float64 and x.dtype.isnative:
        assert rotary(x, dimensions=shape[-1] // 4 * 2, out=x) is x
        np.testing.assert_array_equal(x, expected)


def test_out_may_overlap_the_values() -> None:
    host = random_for("overlap").standard_normal((5, 6))
    expected = rotary(host[:-1].copy(), dimensions=4)
    got = rotary(host[:-1], dimensions=4, out=host[1:])
    np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(host[1:], expected)


@pytest.mark.parametrize("shape", [(0, 4), (2, 0, 4), (3, 0)])
def test_empty_sizes(shape: tuple[int, ...]) -> None:
    assert rotary(np.ones(shape)).shape == shape


def test_overflow_is_reported_as_numpy_does() -> None:
    x = np.full((2, 2), 6e4, np.float16)
    with pytest.warns(RuntimeWarning, match="overflow encountered in rotary"):
        got = rotary(x, frequencies=[0.7], out=x)
    assert np.isinf(got[1, 1])


def test_errors_name_the_argument() -> None:
    x = np.ones((3, 4))
    cases: list[tuple[Any, Any, dict[str, Any], type[Exception], str]] = [
        (x[0], None, {}, ValueError, "`values` must have at least 2 dimensions"),
        (x[:, :3], None, {}, ValueError, "`dimensions` must be given where"),
        (x, None, {"dimensions": 3}, ValueError, "`dimensions` must be even and lie between"),
        (x, None, {"dimensions": 6}, ValueError, "`dimensions` must be even and lie between"),
        (x, None, {"dimensions": 2.0}, TypeError, "`dimensions` must be an integer, got 2.0"),
        (x, [1, 2], {}, ValueError, r"`positions` must be broadcastable to shape \(3,\)"),
        (x, None, {"base": 0}, ValueError, "`base` must be a positive finite number"),
        (x, None, {"frequencies": [1.0]}, ValueError, r"`frequencies` must have shape \(2,\)"),
        (x, None, {"out": np.ones((3, 4), "f4")}, TypeError, "`out` must have dtype float64"),
        (x * 1j, None, {}, TypeError, "`values` must be real"),
    ]
    for values, positions, options, error, message in cases:
        with pytest.raises(error, match=rf"^rotary: {message}"):
            rotary(values, positions, **options)
