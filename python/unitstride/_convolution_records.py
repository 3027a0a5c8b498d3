"""The kernel records of convolution along an axis, for the generic tests."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from unitstride import _arguments, _convolution_call, _reference
from unitstride._records import ErrorInput, KernelSpec, Sample
from unitstride.convolution import convolve, correlate

Array = NDArray[Any]
DType = np.dtype[Any]
Axis = int | tuple[int, ...] | None


def _last_of(dimensions: int, axis: Axis) -> int:
    """Return the one axis along which a kernel moves, where a generic test means several."""
    return _arguments.normalize_axes("convolve", axis, dimensions)[-1]


def along(function: Callable[..., Any], x: Any, k: Any, *, axis: Axis = -1, **more: Any) -> Any:
    """Run `convolve` or `correlate` along the last of the axes."""
    return function(x, k, axis=_last_of(np.ndim(x), axis), **more)


def _twin(
    name: str,
    x: Array,
    k: Array,
    axis: Axis = -1,
    mode: str = "full",
    boundary: str = "zero",
) -> Array:
    problem, dtype = _convolution_call.prepare(
        name, x, k, mode, _last_of(x.ndim, axis), boundary, name == "correlate"
    )
    out = np.empty(problem.shape, dtype)
    _reference.convolve(problem.x, problem.k, out, problem.axis, problem.start, problem.boundary)
    return out


def _scale(name: str, x: Array, k: Array, **keywords: Any) -> Array:
    """Return the sum of the magnitudes of the terms, which may cancel."""
    return _twin(name, np.abs(x), np.abs(k), **keywords)


def _samples(
    random: Generator, dtype: DType, shape: tuple[int, ...], axis: Axis
) -> tuple[Sample, ...]:
    """Return short kernels, one for all lines and one for each, and a long one."""
    if 0 in shape or not shape:
        return ()
    own = _last_of(len(shape), axis)

    def normal(shape: tuple[int, ...]) -> Array:
        return np.asarray(random.standard_normal(shape)).astype(dtype)

    each = tuple(3 if a == own else n for a, n in enumerate(shape))
    return (
        Sample("short", (normal(shape), normal((7,))), {"axis": axis}),
        Sample(
            "each",
            (normal(shape), normal(each)),
            {"axis": axis, "mode": "same", "boundary": "reflect"},
        ),
        Sample("long", (normal(shape), normal((61,))), {"axis": axis, "mode": "causal"}),
    )


def _errors(name: str) -> tuple[ErrorInput, ...]:
    x, k = np.ones((3, 4), np.float32), np.ones(3, np.float32)
    frozen = np.zeros((3, 6), np.float32)
    frozen.flags.writeable = False
    folded = np.lib.stride_tricks.as_strided(np.zeros(9, np.float32), (3, 6), (0, 4))
    empty = "must have at least one element along the axis, got shape"
    words = "zero, reflect, replicate, circular, symmetric"
    calls: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"out": np.zeros((3, 4), "f4")}, ValueError, "`out` must have shape (3, 6), got (3, 4)"),
        ({"out": frozen}, ValueError, "`out` must be writeable, got a read-only array"),
        ({"out": folded}, ValueError, "`out` must not overlap itself, got strides (0, 4)"),
        ({"out": [0.0]}, TypeError, "`out` must be a NumPy array, got list"),
        (
            {"out": np.zeros((3, 6))},
            TypeError,
            "`out` must have dtype float32, got float64",
        ),
        (
            {"mode": "half"},
            ValueError,
            "`mode` must be one of full, same, valid, causal, got 'half'",
        ),
        ({"mode": 1}, TypeError, "`mode` must be one of full, same, valid, causal, got 1"),
        ({"method": "fast"}, ValueError, "`method` must be one of auto, direct, fft, got 'fast'"),
        (
            {"method": np.arange(2)},
            TypeError,
            "`method` must be one of auto, direct, fft, got array([0, 1])",
        ),
        ({"boundary": "wrap"}, ValueError, f"`boundary` must be one of {words}, got 'wrap'"),
    ]
    arrays: list[tuple[tuple[Any, ...], type[Exception], str]] = [
        (
            (x, np.ones((2, 3), "f4")),
            ValueError,
            "`k` must broadcast to shape (3, 4) but along axis 1, got shape (2, 3)",
        ),
        ((x, np.ones((1, 1, 3), "f4")), ValueError, "`k` must have 1 or 2 axes, got 3"),
        ((x, k[:0]), ValueError, f"`k` {empty} (0,)"),
        ((x[:, :0], k), ValueError, f"`x` {empty} (3, 0)"),
        ((x, np.array(["a"])), TypeError, "`k` must be numbers or booleans, got str32"),
        (
            (x, np.ma.ones(3)),
            TypeError,
            "`k` must be an array without a mask, got MaskedArray",
        ),
    ]
    found = [ErrorInput((x, k), keywords, e, f"{name}: {text}") for keywords, e, text in calls]
    found += [ErrorInput(given, {}, e, f"{name}: {text}") for given, e, text in arrays]
    return tuple(found)


# 8 ULP of the sum of magnitudes are at most 16 units of roundoff of it. 16-bit results are summed
# in float32 and rounded once.
_BUDGET = {"float32": 8.0, "float64": 8.0, "float16": 0.51, "bfloat16": 0.51}

CONVOLUTIONS = tuple(
    KernelSpec(
        name=name,
        function=partial(along, function),
        reference=partial(_twin, name),
        sample_inputs=_samples,
        error_inputs=partial(_errors, name),
        error_scale=partial(_scale, name),
        error_budget=_BUDGET,
        bytes_and_flops=lambda n, lines, item: (2 * n * item, 14 * n),
        in_place=(),
    )
    for name, function in (("convolve", convolve), ("correlate", correlate))
)
