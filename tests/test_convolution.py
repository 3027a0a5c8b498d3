"""Convolution along an axis: against SciPy and NumPy's padding, values, NaN, methods, gradients."""

from typing import Any

import numpy as np
import pytest
from checks import DTYPES, assert_same_bits, core, dtype_of, fallback, random_for
from numpy.exceptions import AxisError

import unitstride
from unitstride import (
    _convolution_call,
    _convolution_methods,
    convolve,
    convolve_vjp,
    correlate,
    correlate_vjp,
)

signal = pytest.importorskip("scipy.signal")

MODES = ("full", "same", "valid", "causal")
PADDING = {"reflect": "reflect", "replicate": "edge", "circular": "wrap", "symmetric": "symmetric"}
BOUNDARIES = ("zero", *PADDING)
# Around vectors, tiles of 4, 8 and 16 of them, blocks of 128 taps and stretches of 4096 outputs.
LENGTHS = (1, 2, 3, 7, 15, 16, 17, 31, 63, 64, 65, 127, 129, 200, 257, 300, 1000, 4095, 4097, 5000)
TAPS = (1, 2, 3, 4, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 100, 127, 128, 129, 255, 300)
ROUNDOFF = {"float32": 2.0**-24, "float64": 2.0**-53, "float16": 2.0**-11, "bfloat16": 2.0**-8}


def numbers(random: np.random.Generator, shape: Any, name: str) -> Any:
    values = random.standard_normal(shape)
    if name.startswith("complex"):
        values = values + 1j * random.standard_normal(shape)
    if name.startswith("int"):
        values = values * 20
    return values.astype(dtype_of(name))


def wide(array: Any) -> Any:
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)


def expected_of(operation: str, x: Any, k: Any, mode: str) -> Any:
    """SciPy's direct result in double precision."""
    own = "full" if mode == "causal" else mode
    found = getattr(signal, operation)(wide(x), wide(k), own, method="direct")
    return found[: x.shape[-1]] if mode == "causal" else found


def tolerance(x: Any, k: Any, name: str, method: str, terms: Any) -> Any:
    """16 units of roundoff of the terms' magnitudes; by FFT 16 log2(n) of the norms' product.

    A rounding of the result itself is all for the 16-bit types. Complex terms are four products.
    """
    if name.startswith("int"):
        return 0.0
    real = {"complex64": "float32", "complex128": "float64"}.get(name, name)
    unit = ROUNDOFF[real] * (2 if name.startswith("complex") else 1)
    if method == "fft":
        norms = np.linalg.norm(wide(x)) * np.linalg.norm(wide(k))
        working = ROUNDOFF["float32"] if name in ("float16", "bfloat16") else unit
        return 16 * np.log2(2 + x.size + k.size) * working * norms + unit * terms
    return (1.01 if name in ("float16", "bfloat16") else 16) * unit * terms


@pytest.mark.parametrize("name", [*DTYPES, "complex64", "complex128", "int16", "int32", "int64"])
def test_random_options_against_scipy(name: str, isa: str) -> None:
    random = random_for("scipy", name)
    for _ in range(60):
        n, m = int(random.choice(LENGTHS)), int(random.choice(TAPS))
        mode, operation = str(random.choice(MODES)), str(random.choice(["convolve", "correlate"]))
        methods = ("direct", "auto") if name.startswith("int") else ("direct", "auto", "fft")
        method = str(random.choice(methods))
        host = numbers(random, 2 * n, name)
        x = (host[::2], host[:n], host[:n][::-1], host[n:])[random.integers(4)]
        k = numbers(random, m, name)
        got = getattr(unitstride, operation)(x, k, mode, method=method)
        expected = expected_of(operation, x, k, mode)
        case = (operation, mode, method, n, m)
        assert got.shape == expected.shape, case
        assert got.dtype == x.dtype, case
        terms = expected_of(operation, np.abs(wide(x)), np.abs(wide(k)), mode)
        if name.startswith("int"):  # sums of exact doubles; the narrow type wraps around
            expected = np.round(expected).astype(np.int64).astype(got.dtype)
        allowed = tolerance(x, k, name, "fft" if method == "auto" else method, terms)
        assert (np.abs(wide(got) - wide(expected)) <= allowed).all(), case


@pytest.mark.parametrize("name", ["float32", "float64", "float16"])
@pytest.mark.parametrize("boundary", PADDING)
def test_boundaries_against_padding(boundary: Any, name: str, isa: str) -> None:
    random = random_for("boundary", boundary, name)
    for n, m in ((1, 1), (1, 5), (2, 9), (5, 3), (50, 60), (100, 7), (17, 140), (4200, 33)):
        x, k = numbers(random, (3, n), name), numbers(random, m, name)
        padded = np.pad(x, ((0, 0), (m - 1, m - 1)), PADDING[boundary])
        for mode in MODES:
            if mode == "valid" and m > n:
                continue
            start = {"full": 0, "same": (m - 1) // 2, "causal": 0, "valid": m - 1}[mode]
            for method in ("direct", "fft"):
                got = convolve(x, k, mode, method=method, boundary=boundary)
                for line in range(3):
                    own = padded[line, start : start + got.shape[-1] + m - 1]
                    expected = np.convolve(wide(own), wide(k), "valid")
                    terms = np.convolve(np.abs(wide(own)), np.abs(wide(k)), "valid")
                    allowed = tolerance(own, k, name, method, terms)
                    assert (np.abs(wide(got[line]) - expected) <= allowed).all(), (n, m, mode)


@pytest.mark.parametrize("name", ["float32", "float64"])
def test_lines_have_the_same_bits_in_every_layout(name: str, isa: str) -> None:
    """Rows, columns, reversed and broadcast arrays; kernels for all lines and for each."""
    random = random_for("lines", name)
    for n, lines, m in ((300, 64, 31), (1000, 5, 10), (77, 70, 140), (600, 17, 33), (40, 16, 100)):
        x, k = numbers(random, (n, lines), name), numbers(random, m, name)
        own = numbers(random, (m, lines), name)
        for mode, boundary in (("full", "zero"), ("same", "reflect"), ("causal", "circular")):
            options: Any = {"mode": mode, "boundary": boundary, "method": "direct"}
            alone = [convolve(x[:, i].copy(), k, **options) for i in range(lines)]
            expected = np.stack(alone, 1)
            assert_same_bits(convolve(x, k, axis=0, **options), expected)
            assert_same_bits(convolve(np.asfortranarray(x), k, axis=0, **options), expected)
            assert_same_bits(convolve(np.ascontiguousarray(x.T), k, **options).T, expected)
            back = convolve(x[:, ::-1], k[::-1][::-1], axis=0, **options)
            assert_same_bits(back[:, ::-1], expected)
            same = np.broadcast_to(x[:, :1], x.shape)
            repeated = np.broadcast_to(expected[:, :1], expected.shape)
            assert_same_bits(convolve(same, k, axis=0, **options), repeated)
            each = np.stack([convolve(x[:, i], own[:, i], **options) for i in range(lines)], 1)
            assert_same_bits(convolve(x, own, axis=0, **options), each)


def test_values() -> None:
    """The full convolution is the product with the banded Toeplitz matrix of the kernel."""
    x, k = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, -2.0, 5.0])
    matrix = np.array([[k[i - j] if 0 <= i - j < 3 else 0.0 for j in range(4)] for i in range(6)])
    np.testing.assert_array_equal(convolve(x, k), matrix @ x)
    np.testing.assert_array_equal(correlate(x, k, "valid"), [12.0, 16.0])
    np.testing.assert_array_equal(convolve(x, k, "causal"), (matrix @ x)[:4])
    assert convolve([1, 2], [3]).dtype == np.int64
    assert convolve([True, False], [True, True]).tolist() == [True, True, False]
    big = np.array([2**62 + 1, 3])
    assert convolve(big, [1]).tolist() == big.tolist()


def test_dtypes_promote_as_numpys() -> None:
    for a in ("int8", "float16", "float32", "float64", "complex64", "bool", ">f4", "longdouble"):
        for b in ("int8", "float32", "complex128", "uint16"):
            x, k = np.ones(5, a), np.ones(2, b)
            got = convolve(x, k, "same")
            assert got.dtype == np.result_type(x, k).newbyteorder("=")
            expected = [1, 2, 2, 2, 2]
            if got.dtype.kind == "b":
                expected = [1] * 5
            np.testing.assert_array_equal(got, expected)


def test_out_may_overlap_the_inputs() -> None:
    random = random_for("overlap")
    for name in ("float32", "float64", "int32"):
        host, k = numbers(random, 400, name), numbers(random, 9, name)
        expected = convolve(host[:300], k, "same")
        for start in (0, 1, 50, 100):
            own = host.copy()
            out = own[start : start + 300]
            assert convolve(own[:300], k, "same", out=out) is out
            assert_same_bits(out, expected)


def test_axes() -> None:
    x = np.ones((3, 4))
    for axis in (2, -3):
        with pytest.raises(AxisError, match=f"convolve: axis {axis} is out of bounds"):
            convolve(x, [1.0], axis=axis)
    for wrong in (1.0, "0", True, None):
        with pytest.raises(TypeError, match="convolve: `axis` must be an integer"):
            convolve(x, [1.0], axis=wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`x` must have at least one axis, got a scalar"):
        convolve(1.0, [1.0])
    assert convolve(np.ones((0, 4)), np.ones(3)).shape == (0, 6)
    with pytest.raises(ValueError, match="`method` must be auto or direct for a result of int64"):
        convolve([1, 2], [3, 4], method="fft")


@pytest.mark.parametrize("method", ["direct", "fft"])
@pytest.mark.parametrize("name", ["float32", "float64"])
def test_nan_and_infinity_stay_where_their_terms_are(name: str, method: Any, isa: str) -> None:
    random = random_for("special", name)
    for n, m in ((40, 5), (300, 130), (5000, 17)):
        x, k = numbers(random, n, name), numbers(random, m, name)
        x[n // 2], x[n - 3] = np.nan, np.inf
        got = convolve(x, k, method=method)
        clean = convolve(np.where(np.isfinite(x), x, 0).astype(name), k, method=method)
        spoilt = np.zeros(got.shape, bool)
        for place in (n // 2, n - 3):
            spoilt[place : place + m] = True
        assert not np.isfinite(got[spoilt]).any()
        assert_same_bits(got[~spoilt], clean[~spoilt])
        k[m // 2] = np.inf  # of the kernel: where no element of x is there is no term
        x[n // 2] = x[n - 3] = 1.0
        reached = np.zeros(got.shape, bool)
        reached[m // 2 : m // 2 + n] = True
        assert (np.isfinite(convolve(x, k, method=method)) == ~reached).all()


def test_overflow_is_reported() -> None:
    x = np.full(30, 3e38, np.float32)
    for method in ("direct", "fft"):
        with pytest.warns(RuntimeWarning, match="overflow"):
            got = convolve(x, np.ones(3, np.float32), method=method)  # type: ignore[arg-type]
        assert np.isinf(got[2:-2]).all()
        assert np.isfinite(got[[0, -1]]).all()


def test_auto_keeps_small_outputs() -> None:
    """A line whose parts differ by ten powers of ten loses nothing; an even one goes by FFT."""
    random = random_for("range")
    x, k = random.random(40_000) + 0.5, random.random(12_000) + 0.5
    assert _convolution_methods.range_is_small(x, k)
    x[20_000:] *= 1e-10
    k[6000:] *= 1e-10
    problem, dtype = _convolution_call.prepare("convolve", x, k, "full", -1, "zero", False)
    assert not _convolution_methods.range_is_small(x, k)
    assert _convolution_call.choose("convolve", "auto", problem, dtype)[0] == "convolve"
    part = convolve(x, k)[-5:]
    exact = [np.dot(x[-1 - i :], k[::-1][: i + 1]) for i in range(5)][::-1]
    np.testing.assert_allclose(part, exact, rtol=1e-14)


def test_method_words_and_their_choice() -> None:
    one = np.dtype(np.float32)
    assert _convolution_methods.is_surely_direct(1, 1000, 10)
    assert not _convolution_methods.fft_is_faster(1, 1000, 10, one)
    assert _convolution_methods.fft_is_faster(1, 1 << 20, 1 << 16, one)


@pytest.mark.parametrize("operation", ["convolve", "correlate"])
def test_the_twin_gives_the_same(operation: str) -> None:
    """Both ways give the same shapes and dtypes, and values within both budgets."""
    function = getattr(unitstride, operation)
    random = random_for("twin", operation)
    for name in (*DTYPES, "complex64", "int32"):
        for mode in MODES:
            x, k = numbers(random, (4, 50), name), numbers(random, 9, name)
            got = function(x, k, mode)
            with fallback():
                expected = function(x, k, mode)
            assert got.dtype == expected.dtype
            terms = function(np.abs(wide(x)), np.abs(wide(k)), mode)
            allowed = 2 * tolerance(x, k, name, "direct", terms)
            assert (np.abs(wide(got) - wide(expected)) <= allowed).all()


# Gradients.


@pytest.mark.parametrize("operation", ["convolve", "correlate"])
def test_gradients_are_those_of_a_bilinear_function(operation: str) -> None:
    """dy . (f(v, k) + f(x, w)) = dx . v + dk . w: a bilinear function is its own difference."""
    function, vjp = getattr(unitstride, operation), getattr(unitstride, f"{operation}_vjp")
    random = random_for("vjp", operation)
    for case in range(250):
        n, m = (int(v) for v in random.integers(1, 12, 2))
        mode, boundary = str(random.choice(MODES)), str(random.choice(BOUNDARIES))
        axis = int(random.integers(2))
        shape, kernel = [3, 3], [int(v) for v in random.choice([1, 3], 2)]
        shape[axis], kernel[axis] = n, m
        x, v = random.standard_normal(shape), random.standard_normal(shape)
        k = random.standard_normal(m if case % 2 else kernel)
        w = random.standard_normal(k.shape)
        method = str(random.choice(["auto", "direct", "fft"]))
        options: Any = {"mode": mode, "axis": axis, "boundary": boundary}
        y = function(x, k, **options)
        dy = random.standard_normal(y.shape)
        dx, dk = vjp(x, k, dy, method=method, **options)
        assert dx.shape == x.shape and dk.shape == k.shape
        left = (dy * (function(v, k, **options) + function(x, w, **options))).sum()
        # Roundings of some thousand terms of size one.
        assert abs(left - (dx * v).sum() - (dk * w).sum()) < 1e-11 * (1 + abs(left)), options


def test_gradients_of_complex_and_narrow_types() -> None:
    random = random_for("vjp types")
    x, k = numbers(random, 9, "complex128"), numbers(random, 4, "complex128")
    dy = numbers(random, 12, "complex128")
    dx, dk = convolve_vjp(x, k, dy)
    np.testing.assert_allclose(dx, correlate(dy, k, "valid"), rtol=1e-13)
    np.testing.assert_allclose(dk, correlate(dy, x, "valid"), rtol=1e-13)
    half = x.real.astype(np.float16)
    dx, dk = correlate_vjp(half, k.real.astype(np.float16), dy.real.astype(np.float16))
    assert dx.dtype == dk.dtype == np.float16
    dx, dk = convolve_vjp([1, 2, 3], [1, -1], [1.0, 1.0], "valid")
    assert dx.dtype == np.float64 and dk.tolist() == [5.0, 3.0]
    with pytest.raises(ValueError, match=r"`dy` must have shape \(12,\), got \(9,\)"):
        convolve_vjp(x, k, x)
    with pytest.raises(TypeError, match="`dy` must be real as the result is, got complex128"):
        convolve_vjp(x.real, k.real, dy)


@pytest.mark.skipif(core is None, reason="about the compiled core, which is not in use")
def test_the_fast_call_declines_what_it_cannot_do() -> None:
    assert core is not None
    x, k = np.ones(8), np.ones(3)
    assert core.convolve_fast(x, k, "full", -1) is not None
    for call in (
        (x, k.astype("f4"), "full", -1),
        (x, k, "half", -1),
        (x, k, "full", 1),
        (x, k, "full", 2**70),
        (x, k[:0], "full", -1),
        (x, np.full(3, np.inf), "full", -1),
        (x.tolist(), k, "full", -1),
        (x.astype(">f8"), k, "full", -1),
        (k, x, "valid", -1),
    ):
        assert core.convolve_fast(*call) is None
