"""Convolution of planes: against its twin, SciPy and its definition, and its gradients."""

from typing import Any

import numpy as np
import pytest
from checks import random_for
from numpy.exceptions import AxisError
from numpy.typing import NDArray

import unitstride
from unitstride import (
    _backend,
    _reference,
    convolve,
    convolve2d,
    convolve2d_vjp,
    correlate2d,
    correlate2d_vjp,
)
from unitstride._reference.convolution import BOUNDARIES
from unitstride._reference.planes import silu

UNIT = {"float16": 2.0**-11, "float32": 2.0**-24, "float64": 2.0**-53}


def numbers(name: str, shape: tuple[int, ...], dtype: str = "float64") -> NDArray[Any]:
    random = random_for(name, *shape, dtype)
    values = random.standard_normal(shape) * 9
    if np.dtype(dtype).kind == "c":
        values = values + 1j * random.standard_normal(shape)
    return np.asarray(values.astype(dtype))


def test_random_planes_are_those_of_the_twin() -> None:
    """Layouts, boundaries, starts, bias, activation; one kernel for all planes or one for each."""
    random = random_for("planes")
    for number in range(150):
        planes, height, width = (int(n) for n in random.integers(1, [4, 40, 70]))
        width = 3000 if number % 50 == 0 else width
        rows, columns = (int(n) for n in random.integers(1, [8, 25]))
        dtype = str(random.choice(["float16", "float32", "float64"]))
        x = random.standard_normal((planes, height, width)).astype(dtype)
        layout = random.integers(3)
        x = np.asfortranarray(x) if layout == 1 else np.repeat(x, 2, 2)[..., ::2] if layout else x
        own = planes if random.random() < 0.5 else 1
        k = random.standard_normal((own, rows, columns)).astype(dtype)
        k = np.broadcast_to(k, (planes, rows, columns))
        start = [int(random.integers(n + m - 1)) for n, m in ((height, rows), (width, columns))]
        shape = (
            planes,
            int(random.integers(1, height + rows - start[0])),
            int(random.integers(1, width + columns - start[1])),
        )
        bias = random.standard_normal(planes).astype(dtype) if random.random() < 0.5 else None
        options = (tuple(start), int(random.integers(5)), bias, bool(random.random() < 0.3))
        out, want = (np.empty(shape, dtype) for _ in range(2))
        with unitstride.threads(int(random.integers(1, 4))):
            _backend.run("convolve_planes", x, k, out, *options)
        _reference.convolve_planes(x, k, want, *options)
        # Sums of at most 200 terms of size one, in another order; a 16-bit result is rounded once.
        bound = 2 * 200 * UNIT["float32" if dtype == "float16" else dtype] * 8
        bound += 60 * UNIT[dtype] if dtype == "float16" else 0
        assert np.abs(out.astype(float) - want.astype(float)).max() <= bound, (number, dtype)


def test_the_sigmoid_linear_unit() -> None:
    values = np.concatenate(
        [random_for("silu").standard_normal(10_000) * 10, np.linspace(-80, 90, 999)]
    )
    for dtype, limit in ((np.float32, 4), (np.float64, 4)):
        x = values.astype(dtype)
        wide = x.astype(np.longdouble)
        want = wide / (1 + np.exp(-wide))
        out = np.empty((1, x.size), dtype)
        one = np.ones((1, 1), dtype)
        _backend.run("convolve_planes", x[None], one, out, (0, 0), 0, None, True)
        errors = np.abs(out[0] - want) / np.spacing(np.abs(want).astype(dtype))
        assert errors.max() <= limit  # stated in simd/silu.hpp; levels without fma: see below
    special = np.array([np.inf, 0.0, np.nan, -100.0], np.float32)
    np.testing.assert_array_equal(silu(special)[:3], [np.inf, 0.0, np.nan])


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128", "int32"])
def test_against_scipy(dtype: str) -> None:
    signal = pytest.importorskip("scipy.signal")
    random = random_for("scipy2d", dtype)
    words = {"zero": "fill", "symmetric": "symm", "circular": "wrap"}
    for number in range(60):
        height, width = (int(n) for n in random.integers(9, [25, 40]))
        rows, columns = (int(n) for n in random.integers(1, [9, 9]))
        x, k = (numbers(f"x{number}", s, dtype) for s in ((height, width), (rows, columns)))
        mode: Any = random.choice(["full", "same", "valid"])
        method: Any = "auto" if dtype == "int32" else random.choice(["auto", "direct", "fft"])
        boundary: Any = "zero" if mode == "valid" else random.choice(list(words))
        for ours, theirs in ((convolve2d, signal.convolve2d), (correlate2d, signal.correlate2d)):
            got = ours(x, k, mode, method=method, boundary=boundary)
            want = theirs(x, k, mode, words[boundary])
            assert got.dtype == want.dtype
            unit = 0.0 if dtype == "int32" else float(np.finfo(dtype).eps)
            # FFT's bound, of norms; the direct method's is smaller.
            size = np.linalg.norm(x) * np.linalg.norm(k) * unit
            np.testing.assert_allclose(got, want, rtol=0, atol=8 * 12 * size)


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("mode", ["full", "same", "valid", "causal"])
def test_a_row_and_a_column_are_convolutions_along_an_axis(mode: Any, boundary: Any) -> None:
    x = numbers("lines", (3, 12, 17))
    k = numbers("taps", (5,))
    for axis, kernel in ((1, k[:, None]), (2, k[None])):
        got = convolve2d(x, kernel, mode, boundary=boundary)
        want = convolve(x, k, mode, axis, boundary=boundary)
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-11)  # 5 terms of size 81


@pytest.mark.parametrize("function", [convolve2d, correlate2d])
@pytest.mark.parametrize("mode", ["full", "same", "valid", "causal"])
@pytest.mark.parametrize("method", ["direct", "fft"])
def test_gradients_are_those_of_a_bilinear_function(function: Any, mode: Any, method: Any) -> None:
    vjp: Any = convolve2d_vjp if function is convolve2d else correlate2d_vjp
    for boundary in BOUNDARIES:
        for x_shape, k_shape in (((2, 9, 8), (3, 4)), ((2, 3, 4), (2, 5, 7)), ((9, 8), (9, 8))):
            x, k = numbers("gx", x_shape), numbers("gk", k_shape)
            options = {"method": method, "boundary": boundary}
            dy = numbers("dy", function(x, k, mode, **options).shape)
            dx, dk = vjp(x, k, dy, mode, **options)
            assert dx.shape == x.shape and dk.shape == k.shape
            for gradient, at, call in (
                (dx, numbers("tx", x_shape), lambda v: function(v, k, mode, **options)),  # noqa: B023
                (dk, numbers("tk", k_shape), lambda v: function(x, v, mode, **options)),  # noqa: B023
            ):
                want = np.vdot(dy, call(at))
                size = np.linalg.norm(dy) * np.linalg.norm(call(np.abs(at))) + abs(want)
                assert abs(np.vdot(gradient, at) - want) <= 1e-12 * size + 1e-8


def test_axes_out_layouts_and_threads() -> None:
    x, k = numbers("axes", (20, 3, 30), "float32"), numbers("k", (4, 6), "float32")
    want = np.stack([convolve2d(x[:, c], k, "same") for c in range(3)], axis=1)
    np.testing.assert_array_equal(convolve2d(x, k, "same", (0, 2)), want)
    turned = convolve2d(x, k.T, "same", (2, 0), method="direct")
    np.testing.assert_allclose(turned, want, rtol=0, atol=2e-3)  # 24 terms of size 81
    out = np.empty((30, 3, 20), np.float32).T
    assert convolve2d(x, k, "same", (0, 2), out=out) is out
    np.testing.assert_array_equal(out, want)
    convolve2d(x, k, "same", (0, 2), out=x)
    np.testing.assert_array_equal(x, want)
    large = numbers("large", (300, 400), "float32")
    for method in ("direct", "fft"):
        with unitstride.threads(1):
            one = convolve2d(large, k, method=method)  # type: ignore[arg-type]
        with unitstride.threads(3):
            assert convolve2d(large, k, method=method).tobytes() == one.tobytes()  # type: ignore[arg-type]


def test_special_values_stay_where_they_belong() -> None:
    x, k = numbers("special", (50, 60), "float32"), numbers("k", (20, 20), "float32")
    x[25, 30], x[3, 3] = np.nan, np.inf
    for method in ("direct", "fft", "auto"):
        got = convolve2d(x, k, "same", method=method)  # type: ignore[arg-type]
        reached = np.zeros(x.shape, bool)
        reached[16:36, 21:41] = True
        reached[:14, :14] = True
        np.testing.assert_array_equal(np.isfinite(got), ~reached)


def test_errors_say_what_is_wrong() -> None:
    x, k = np.ones((4, 5)), np.ones((2, 2))
    for call, error, text in (
        (lambda: convolve2d(x[0], k), ValueError, "`x` must have two axes or more"),
        (lambda: convolve2d(x, k[0]), ValueError, "`k` must have two axes or more"),
        (lambda: convolve2d(x, k[None]), ValueError, "`k` must have 2 or 2 axes, got 3"),
        (lambda: convolve2d(x, k, axes=(0, 0)), ValueError, "`axes` must be different"),
        (lambda: convolve2d(x, k, axes=(0, 5)), AxisError, "out of bounds"),
        (lambda: convolve2d(x, k, axes=1), ValueError, "`axes` must be two integers"),  # type: ignore[arg-type]
        (lambda: convolve2d(x[:0], k), ValueError, "at least one element along each axis"),
        (lambda: convolve2d(x, np.ones((9, 1)), "valid"), ValueError, "mode='valid'"),
        (
            lambda: convolve2d(x, k, out=np.empty((4, 5))),
            ValueError,
            r"`out` must have shape \(5, 6\)",
        ),
        (lambda: convolve2d(x.astype(int), k.astype(int), method="fft"), ValueError, "`method`"),
        (lambda: convolve2d_vjp(x, k, x), ValueError, "convolve2d_vjp: `dy` must have shape"),
    ):
        with pytest.raises(error, match=text):
            call()  # type: ignore[no-untyped-call]
