"""Convolution with channels on the core: the definition, in every layout, option and level.

Small problems go there too, so that every edge of the records of a matrix unit and of register
tiles is met; contractions of windows in float64 are the reference.
"""

from typing import Any

import numpy as np
import pytest
from checks import core, dtype_of, needs_core, random_for

from unitstride import _conv_channels, conv1d, conv1d_vjp, conv2d, conv2d_vjp, threads

Array = np.ndarray[Any, Any]

pytestmark = needs_core

# Accumulation is in the type itself, or in float32 from parts that hold 24 bits or all that there
# is; narrow results are rounded once more.
UNIT_ROUNDOFF = {
    "float32": 2.0**-24,
    "float64": 2.0**-53,
    "float16": 2.0**-11,
    "bfloat16": 2.0**-8,
}
MOST_UNITS = 16.0  # the promise of contractions, in units of u |x| * |w|


class Core:
    """What the core was asked, and how often it took the work."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.taken, self.refuses = 0, False
        for name in ("run", "weight_gradient"):
            monkeypatch.setattr(_conv_channels, name, self.counted(getattr(_conv_channels, name)))

    def counted(self, function: Any) -> Any:
        def call(*arguments: Any) -> bool:
            took: bool = not self.refuses and function(*arguments)
            self.taken += took
            return took

        return call

    def windows(self, function: Any, *arrays: Array, **options: Any) -> Any:
        """Return what contractions of windows give."""
        self.refuses = True
        result = function(*arrays, **options)
        self.refuses = False
        return result


@pytest.fixture(name="own")
def _own(monkeypatch: pytest.MonkeyPatch, isa: str) -> Core:
    assert isa == core.isa_in_use()
    monkeypatch.setattr(_conv_channels, "_FEWEST_PRODUCTS", 0)
    return Core(monkeypatch)


@pytest.fixture(name="unit")
def _unit(own: Core, isa: str) -> Core:
    if isa != "amx":
        pytest.skip("about matrix units")
    return own


def draw(random: np.random.Generator) -> tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]:
    """Return the shapes of x and w, and options."""
    groups = int(random.choice([1, 1, 1, 2, 3]))
    channels = int(random.choice([1, 3, 5, 16, 17, 31, 32, 33, 64, 70]))
    kernels = int(random.choice([8, 16, 17, 32, 33, 50]))
    taps = random.choice([1, 2, 3, 5, 7], 2)
    stride, dilation = random.choice([1, 1, 2, 3], (2, 2))
    lengths = (taps - 1) * dilation + 1 + random.integers(0, 40, 2)
    x = (int(random.integers(1, 4)), groups * channels, *map(int, lengths))
    options = {"stride": stride, "dilation": dilation, "padding": random.integers(0, 4, 2)}
    pairs = {name: tuple(map(int, pair)) for name, pair in options.items()}
    return x, (groups * kernels, channels, *map(int, taps)), {**pairs, "groups": groups}


def layouts(x: Array) -> list[Array]:
    """Return the same image where channels are last, with gaps, and backwards."""
    last = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    return [
        np.moveaxis(last, -1, 1),
        np.repeat(x, 2, axis=3)[..., ::2],
        np.ascontiguousarray(x[:, :, ::-1, ::-1])[:, :, ::-1, ::-1],
    ]


def units_off(result: Array, exact: Array, terms: Array, dtype: str) -> float:
    """Return the largest error in units of u times the sum of the terms' magnitudes."""
    error = np.abs(result.astype(np.float64) - exact)
    return float((error / (UNIT_ROUNDOFF[dtype] * terms + 1e-300)).max())


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_random_options(dtype: str, own: Core) -> None:
    random = random_for("conv channels", dtype)
    forwards = backwards = 0
    for _ in range(40):
        shape, kernel, options = draw(random)
        x, w, bias = (
            random.standard_normal(s).astype(dtype_of(dtype)) for s in (shape, kernel, kernel[:1])
        )
        wide = [a.astype(np.float64) for a in (x, w, bias)]
        own.taken = 0
        y = conv2d(x, w, bias, **options)
        forwards += own.taken
        exact = own.windows(conv2d, *wide, **options)
        terms = own.windows(conv2d, *map(np.abs, wide), **options)
        assert units_off(y, exact, terms, dtype) <= MOST_UNITS, (shape, kernel, options)
        for other in layouts(x) if own.taken else []:
            assert np.array_equal(conv2d(other, w, bias, **options), y)
        own.taken = 0
        slope = (random.standard_normal(y.shape) / 8).astype(y.dtype)
        found = conv2d_vjp(x, w, slope, **options)
        wide[2] = slope.astype(np.float64)
        exact = own.windows(conv2d_vjp, *wide, **options)
        terms = own.windows(conv2d_vjp, *map(np.abs, wide), **options)
        for mine, known, most in list(zip(found, exact, terms, strict=True))[:2]:
            assert units_off(mine, known, most, dtype) <= MOST_UNITS, (shape, kernel, options)
        backwards += own.taken > 0
        again = [conv2d_vjp(x, w, other, **options) for other in layouts(slope)]
        for d_x, d_w, _ in again if own.taken == 2 else []:
            assert np.array_equal(d_x, found[0])
            assert np.array_equal(d_w, found[1])
    assert forwards >= 10  # of 40
    assert backwards >= 10


def test_signals(own: Core) -> None:
    random = random_for("conv channels signals")
    x = random.standard_normal((2, 40, 5000)).astype(np.float32)
    w = random.standard_normal((32, 40, 9)).astype(np.float32)
    options: dict[str, Any] = {"stride": 2, "padding": 4, "dilation": 3}
    y = conv1d(x, w, **options)
    wide = x.astype(np.float64), w.astype(np.float64)
    exact = own.windows(conv1d, *wide, **options)
    terms = own.windows(conv1d, *map(np.abs, wide), **options)
    assert units_off(y, exact, terms, "float32") <= MOST_UNITS
    conv1d_vjp(x, w, y, **options)
    assert own.taken == 2  # the function and the gradient of w


@pytest.mark.parametrize("taps", [(1, 700), (29, 31)])
def test_sums_longer_than_a_block(taps: tuple[int, int], own: Core) -> None:
    random = random_for("conv channels taps", taps)
    x = random.standard_normal((1, 4, taps[0] + 5, taps[1] + 20)).astype(np.float32)
    w = random.standard_normal((16, 4, *taps)).astype(np.float32)
    wide = x.astype(np.float64), w.astype(np.float64)
    exact, terms = own.windows(conv2d, *wide), own.windows(conv2d, *map(np.abs, wide))
    assert units_off(conv2d(x, w), exact, terms, "float32") <= MOST_UNITS


def test_threads_change_no_bit(own: Core) -> None:
    random = random_for("conv channels threads")
    x = random.standard_normal((3, 48, 30, 30)).astype(np.float32)
    w = random.standard_normal((40, 48, 3, 3)).astype(np.float32)
    slope = random.standard_normal((3, 40, 28, 28)).astype(np.float32)
    results = []
    for count in (1, 2, 3):
        with threads(count):
            results.append((conv2d(x, w), *conv2d_vjp(x, w, slope)))
    assert own.taken == 9
    for other in results[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_stays_where_it_is(value: float, own: Core) -> None:
    random = random_for("conv channels not finite")
    x = random.standard_normal((2, 20, 12, 12)).astype(np.float32)
    w = np.abs(random.standard_normal((16, 20, 3, 3))).astype(np.float32)
    x[1, 7, 5, 6] = value
    with np.errstate(all="ignore"):
        y = conv2d(x, w)
    met = np.zeros(y.shape, bool)
    met[1, :, 3:6, 4:7] = True
    assert np.array_equal(np.isfinite(y), ~met)
    assert np.array_equal(y[met], np.full(met.sum(), value, np.float32), equal_nan=True)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e38, 1e-40])
@pytest.mark.parametrize("place", ["x", "w", "slope"])
def test_what_the_unit_cannot_hold_goes_elsewhere(value: float, place: str, unit: Core) -> None:
    random = random_for("conv channels range")
    arrays = {
        "x": random.standard_normal((2, 32, 12, 12)).astype(np.float32),
        "w": random.standard_normal((32, 32, 3, 3)).astype(np.float32),
        "slope": random.standard_normal((2, 32, 10, 10)).astype(np.float32),
    }
    arrays[place].flat[77] = value
    x, w, slope = arrays.values()
    with np.errstate(all="ignore"):
        found = conv2d(x, w), *conv2d_vjp(x, w, slope)[:2]
        core.use_isa("avx512")
        known = conv2d(x, w), *conv2d_vjp(x, w, slope)[:2]
    assert unit.taken == 6
    # Of the three products, two have each array as a factor.
    for index, (own, other) in enumerate(zip(found, known, strict=True)):
        if (place, index) not in {("x", 1), ("w", 2), ("slope", 0)}:
            assert np.array_equal(own, other, equal_nan=True)


def test_outputs_of_any_layout_and_flags(own: Core) -> None:
    random = random_for("conv channels out")
    x = random.standard_normal((2, 32, 12, 12)).astype(np.float16)
    w = random.standard_normal((32, 32, 3, 3)).astype(np.float16)
    y = conv2d(x, w)
    out = np.moveaxis(np.empty((2, 10, 10, 32), np.float16), -1, 1)
    assert conv2d(x, w, out=out) is out
    assert np.array_equal(out, y)
    with np.errstate(all="raise"):  # nothing of what lies beyond results raises flags
        conv2d(x, w, np.full(32, 60000, np.float16) * 0)
    with np.errstate(over="raise"), pytest.raises(FloatingPointError, match="in conv2d"):
        conv2d(x * np.float16(100), w * np.float16(100))
    assert own.taken == 3


def test_the_core_checks_its_arguments() -> None:
    x, w, out = np.ones((1, 32, 8, 8)), np.ones((32, 32, 3, 3)), np.ones((1, 32, 6, 6))
    given = [a.astype(np.float32) for a in (x, w, out)]
    ones, none = (1, 1), (0, 0)

    def convolve(*arrays: Array, groups: int = 1, begin: Any = none, step: Any = ones) -> int:
        status: int = core.convolve_channels(
            arrays[0], arrays[1], None, arrays[2], groups, begin, step, ones
        )
        return status

    assert convolve(*given) == 0
    x, w, out = given
    for arrays, error in [
        ((x[0], w, out), ValueError),
        ((x[:, :31], w, out), ValueError),
        ((x, w, out[:, :31]), ValueError),
        ((x, w.astype(np.float16), out), TypeError),
        ((x[:0], w, out[:0]), ValueError),
    ]:
        with pytest.raises(error, match="convolve_channels: `"):
            convolve(*arrays)
    for options in ({"groups": 0}, {"groups": 3}, {"step": (0, 1)}, {"begin": (1 << 50, 0)}):
        with pytest.raises(ValueError, match="convolve_channels: `"):
            convolve(*given, **options)
    with pytest.raises(ValueError, match="convolution_channel_products: `"):
        core.convolution_channel_products(x, out[:, :31], w, 1, none, ones, ones)
