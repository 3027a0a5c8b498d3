"""The native kernels of planes: steps, spreads and layouts against the twin, and gradients."""

from typing import Any

import numpy as np
import pytest
from checks import random_for
from numpy.typing import NDArray

import unitstride
from unitstride import _backend, _reference

Array = NDArray[Any]

UNIT = {"float32": 2.0**-24, "float64": 2.0**-53}


LAYOUTS = ("contiguous", "channels last", "every second", "backwards", "turned")


def laid_out(array: Array, layout: str) -> Array:
    """Return an equal array of (batch, channels, rows, columns) that lies in another way."""
    if layout == "channels last":
        return np.moveaxis(np.ascontiguousarray(np.moveaxis(array, 1, -1)), -1, 1)
    if layout == "every second":
        return np.repeat(array, 2, 3)[..., ::2]
    if layout == "backwards":
        return np.ascontiguousarray(array[..., ::-1, ::-1])[..., ::-1, ::-1]
    if layout == "turned":
        return np.ascontiguousarray(np.swapaxes(array, 2, 3)).swapaxes(2, 3)
    return array


def draw_windows(random: np.random.Generator, number: int) -> dict[str, Any]:
    """Return a random problem of windows with steps and spreads, in any layout."""
    batch, channels = (int(n) for n in random.integers(1, [4, 40]))
    sizes = random.integers(1, [30, 40]) if number % 20 else random.integers([60, 500], [90, 2600])
    if number % 20 == 0:
        batch, channels = 1, 2
    taps = random.integers(1, [6, 6]) if number % 7 else random.integers([8, 9], [14, 20])
    step = random.integers(1, 4, 2) if random.random() < 0.6 else np.array([1, 1])
    spread = random.integers(1, 4, 2) if random.random() < 0.5 else np.array([1, 1])
    shape = [int(n) for n in random.integers(1, np.maximum(sizes // step, 1) + 3)]
    begin = [int(n) for n in random.integers(-np.minimum(sizes, 20), np.minimum(sizes, 20))]
    reach = [int(d * (m - 1)) for d, m in zip(spread, taps, strict=True)]
    return {
        "x": (batch, channels, *(int(n) for n in sizes)),
        "taps": tuple(int(n) for n in taps),
        "out": (batch, channels, *shape),
        "begin": tuple(begin),
        "start": tuple(b + r for b, r in zip(begin, reach, strict=True)),
        "step": tuple(int(n) for n in step),
        "spread": tuple(int(n) for n in spread),
        "dtype": str(random.choice(["float16", "float32", "float64", "bfloat16"])),
    }


def as_type(array: Array, name: str) -> Array:
    if name != "bfloat16":
        return array.astype(name)
    ml_dtypes = pytest.importorskip("ml_dtypes")
    return array.astype(ml_dtypes.bfloat16)


def test_windows_with_steps_and_spreads_are_those_of_the_twin(isa: str) -> None:
    random = random_for("planes", "windows")
    for number in range(120):
        problem = draw_windows(random, number)
        place = problem["start"], 0
        steps = problem["step"], problem["spread"]
        layouts = [str(name) for name in random.choice(LAYOUTS, 2)]
        name = problem["dtype"]
        x = laid_out(as_type(random.standard_normal(problem["x"]), name), layouts[0])
        batch, channels = problem["x"][:2]
        own = (batch if number % 3 == 0 else 1, channels if number % 2 else 1)
        k = as_type(random.standard_normal((*own, *problem["taps"])), name)
        bias = as_type(random.standard_normal((1, channels)), name) if number % 5 else None
        silu = number % 4 == 0
        out = laid_out(as_type(np.zeros(problem["out"]), name), layouts[1])
        want = np.zeros(problem["out"], np.float64)
        wide = (x.astype(np.float64), k.astype(np.float64))
        _reference.convolve_planes(
            *wide, want, *place, None if bias is None else bias.astype(np.float64), silu, *steps
        )
        with unitstride.threads(int(random.integers(1, 4))):
            _backend.run("convolve_planes", x, k, out, *place, bias, silu, *steps)
        terms = np.zeros_like(want)
        _reference.convolve_planes(*(abs(a) for a in wide), terms, *place, None, False, *steps)
        # A chain of at most 128 multiply-adds for each block of taps, the addition of each block
        # and of the bias; the sigmoid unit's slope is at most 1.1, and it adds a few roundings. A
        # 16-bit result is rounded once more.
        count = min(np.prod(problem["taps"]), 128) + np.prod(problem["taps"]) // 128 + 8
        unit = UNIT[name if name == "float64" else "float32"]
        bound = 1.1 * count * unit * (terms + 4) + 8 * unit * abs(want)
        bound += np.spacing(np.float64(1)) * count * terms
        if np.dtype(out.dtype).itemsize == 2:
            bound += 2.0 ** (-11 if name == "float16" else -8) * (abs(want) + 2.0**-13)
        assert (abs(out.astype(np.float64) - want) <= bound).all(), (number, problem, layouts)


def test_gradients_of_taps_are_those_of_the_twin(isa: str) -> None:
    random = random_for("planes", "products")
    for number in range(80):
        problem = draw_windows(random, number)
        options = tuple(problem[key] for key in ("begin", "step", "spread", "taps"))
        layouts = [str(name) for name in random.choice(LAYOUTS, 2)]
        if number % 3 == 0:
            layouts = ["channels last"] * 2
        name = problem["dtype"]
        x = laid_out(as_type(random.standard_normal(problem["x"]), name), layouts[0])
        slopes = laid_out(as_type(random.standard_normal(problem["out"]), name), layouts[1])
        taps, channels = int(np.prod(problem["taps"])), problem["x"][1]
        wide = (x.astype(np.float64), slopes.astype(np.float64))
        want, terms = (np.zeros((1, channels, taps + 1)) for _ in range(2))
        _reference.convolution_products(*wide, want, *options)
        _reference.convolution_products(*(abs(a) for a in wide), terms, *options)
        found = []
        for threads in (1, 3):
            sums = np.full((int(1 + number % 4), channels, taps + 1), np.nan)
            with unitstride.threads(threads):
                _backend.run("convolution_products", x, slopes, sums, *options)
            found.append(sums)
        np.testing.assert_array_equal(found[0], found[1])
        # Lanes add at most 128 products before their sums go on in float64.
        unit = UNIT["float64"] * 2000 if name == "float64" else UNIT["float32"] * 129
        assert (abs(found[0].sum(axis=0) - want[0]) <= unit * terms[0]).all(), (number, problem)
