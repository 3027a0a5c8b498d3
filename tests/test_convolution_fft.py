"""Convolution by Fourier transforms: every form, against sums in extended precision."""

import math

import numpy as np
import pytest
from checks import random_for
from numpy.typing import NDArray

import unitstride
from unitstride import _backend, _convolution_methods, convolve
from unitstride._reference.convolution import BOUNDARIES

# (lines, length, taps, one kernel for all lines): blocks of one line and of several, one block of
# each line, kernels in pieces, a kernel for each line in blocks, pieces and as a whole.
FORMS = [
    (1, 3000, 40, True),
    (5, 900, 70, True),
    (37, 150, 90, True),
    (1, 1500, 1400, True),
    (2, 4000, 2500, False),
    (3, 3000, 40, False),
    (33, 200, 150, False),
    (1, 1, 1, True),
    (4, 2, 300, False),
]
NUMBERS = ("float32", "float64", "complex64", "complex128")


def exact(x: NDArray, k: NDArray) -> NDArray:
    """Convolve line by line in extended precision."""
    wide = np.clongdouble if x.dtype.kind == "c" or k.dtype.kind == "c" else np.longdouble
    k = np.broadcast_to(k, (len(x), k.shape[-1]))
    return np.stack([np.convolve(a.astype(wide), b.astype(wide)) for a, b in zip(x, k)])  # noqa: B905


def normal(name: str, shape: tuple[int, ...], dtype: str) -> NDArray:
    random = random_for(name, *shape, dtype)
    values = random.standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        values = values + 1j * random.standard_normal(shape)
    return values.astype(dtype)


def error(got: NDArray, want: NDArray, x: NDArray, k: NDArray) -> float:
    """Return the largest error in roundoffs of the product of the norms of the own line."""
    size = np.linalg.norm(x, axis=-1) * np.linalg.norm(
        np.broadcast_to(k, (len(x), k.shape[-1])), axis=-1
    )
    unit = np.finfo(got.dtype).eps / 2
    return float((np.abs(got - want).max(axis=-1) / (unit * size)).max())


@pytest.mark.parametrize("dtype", NUMBERS)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_within_the_bound(form: tuple[int, int, int, bool], dtype: str) -> None:
    """Lines of very different magnitudes keep their own accuracy."""
    lines, length, taps, shared = form
    scale = np.logspace(-9, 9, lines)[:, None].astype(dtype)
    x = normal("x", (lines, length), dtype) * scale
    k = normal("k", (1 if shared else lines, taps), dtype)
    k = k if shared else k * scale[::-1]
    got = convolve(x, k, method="fft")
    # The issue of accuracy: 16 units of roundoff for each doubling of the length, of the norms.
    assert error(got, exact(x, k), x, k) <= 16 * math.log2(length + taps)


@pytest.mark.parametrize("dtype", NUMBERS)
def test_real_and_complex_factors(dtype: str) -> None:
    real = np.empty(0, dtype).real.dtype.name
    complex_name = np.result_type(real, np.complex64).name
    for first, second in ((real, complex_name), (complex_name, real)):
        x, k = normal("x", (2, 700), first), normal("k", (1, 200), second)
        got = convolve(x, k, method="fft")
        assert got.dtype == complex_name
        assert error(got, exact(x, k), x, k) <= 16 * math.log2(900)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("mode", ["full", "same", "valid", "causal"])
def test_layouts_modes_and_boundaries(mode: str, boundary: str, dtype: str) -> None:
    """Every layout gives what the direct method gives, but for rounding."""
    x, k = normal("x", (3, 500), dtype), normal("k", (150,), dtype)
    base = np.zeros((3, 1000), dtype)
    base[:, ::2] = x
    layouts = [x, base[:, ::2], x[:, ::-1].copy()[:, ::-1], np.asfortranarray(x)]
    want = convolve(x, k, mode, method="direct", boundary=boundary).astype(np.float64)
    # 16-bit results are rounded once from float32 by both methods.
    unit = 2.0 ** {"float16": -11, "float32": -24, "float64": -53}[dtype]
    bound = (
        16
        * unit
        * math.log2(650)
        * np.linalg.norm(x.astype(float))
        * np.linalg.norm(k.astype(float))
    )
    for array in layouts:
        got = convolve(array, k, mode, method="fft", boundary=boundary)
        assert np.abs(got.astype(np.float64) - want).max() <= bound
        out = np.zeros((got.shape[1], 3), dtype).T
        convolve(array, k, mode, method="fft", boundary=boundary, out=out)
        np.testing.assert_array_equal(out, got)


@pytest.mark.parametrize("form", FORMS)
def test_threads_change_no_bit(form: tuple[int, int, int, bool]) -> None:
    lines, length, taps, shared = form
    x, k = normal("x", (lines, length), "float32"), normal("k", (lines, taps), "float32")
    k = k[:1] if shared else k
    with unitstride.threads(1):
        one = convolve(x, k, method="fft")
    with unitstride.threads(3):
        three = convolve(x, k, method="fft")
    assert one.tobytes() == three.tobytes()


def test_large_arrays_along_axis_0() -> None:
    """Lines that lie among one another are brought together first."""
    x, k = normal("x", (3000, 70), "float32"), normal("k", (400,), "float32")
    got = convolve(x, k, axis=0, method="fft")
    want = exact(np.ascontiguousarray(x.T), k[None])
    assert error(np.ascontiguousarray(got.T), want, x.T, k[None]) <= 16 * math.log2(3400)


def test_special_values_reach_what_they_reach_by_definition() -> None:
    x, k = normal("x", (2, 3000), "float32"), normal("k", (300,), "float32")
    x[0, 1000], x[1, 5], x[1, 2000] = np.nan, np.inf, -np.inf
    got = convolve(x, k, method="fft")
    with np.errstate(invalid="ignore"):
        want = convolve(x, k, method="direct")
    np.testing.assert_array_equal(np.isfinite(got), np.isfinite(want))
    np.testing.assert_array_equal(got[~np.isfinite(got)], want[~np.isfinite(want)])
    finite = np.isfinite(want)
    bound = 16 * 2.0**-24 * math.log2(3300) * np.linalg.norm(x[np.isfinite(x)]) * np.linalg.norm(k)
    assert np.abs(got[finite] - want[finite]).max() <= bound


@pytest.mark.skipif(_backend.core is None, reason="compares the core with its twin")
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_range_of_the_core_is_that_of_the_twin(dtype: str) -> None:
    for lines, length, taps, shared in FORMS:
        random = random_for("range", lines, length, dtype)
        x = normal("x", (lines, length), dtype)
        x *= np.exp2(random.integers(-7, 7, x.shape)).astype(dtype)
        k = normal("k", (1 if shared else lines, taps), dtype)
        x[0, length // 2 :] *= np.asarray(0.01, dtype)
        x[-1, 0] = np.inf
        both = np.broadcast_to(k, (lines, taps))
        for segment in (16, 64, 1000):
            got = _backend.core.convolution_range(x, both, 1, segment)
            want = _convolution_methods.range_of(x, k, segment)
            assert got == pytest.approx(want, rel=1e-15)  # products of the same numbers


def test_the_plan_prefers_transforms_where_there_is_more_work() -> None:
    """More taps never make the direct method the faster one again."""
    one = np.dtype(np.float32)
    chosen = [_convolution_methods.fft_is_faster(1, 1 << 20, 1 << n, one) for n in range(20)]
    assert chosen == sorted(chosen)
    assert chosen[0] is False and chosen[-1] is True
