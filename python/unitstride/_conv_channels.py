"""Convolution with channels on the core, on the matrix unit of the processor or on vectors.

Every element is brought there once for all taps, instead of once for each window.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unitstride import _backend
from unitstride._arguments import report_float_status, storage_view

Array = NDArray[Any]

_STORED = ("float32", "float64", "float16", "bfloat16")
_FEWEST_PRODUCTS = 1 << 18  # below, contraction of windows takes no longer
_FARTHEST = 1 << 20  # places that the core takes


def run(
    function: str,
    x: Array,
    w: Array,
    bias: Array | None,
    out: Array,
    groups: int,
    before: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
) -> bool:
    """Write the convolution into `out`, or return False where windows take no longer.

    Axes are those of `Conv`; `before` are zeros before each line, which may be cut off instead.
    """
    core = _core_for(x, w, out, (*before, *stride, *dilation))
    if core is None:
        return False
    status: int = core.convolve_channels(
        *(storage_view(_images(array)) for array in (x, w)),
        storage_view(bias),
        storage_view(_images(out)),
        groups,
        *_places(before, stride, dilation),
    )
    return _report(function, status)


def weight_gradient(
    function: str,
    x: Array,
    cotangent: Array,
    out: Array,
    groups: int,
    before: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
) -> bool:
    """Write the gradient of the kernels into `out`, as `run`."""
    core = _core_for(x, out, cotangent, (*before, *stride, *dilation))
    if core is None:
        return False
    status: int = core.convolution_channel_products(
        *(storage_view(_images(array)) for array in (x, cotangent, out)),
        groups,
        *_places(before, stride, dilation),
    )
    return _report(function, status)


def _core_for(x: Array, w: Array, results: Array, places: tuple[int, ...]) -> Any:
    """Return the core where it may be the faster way, else None."""
    if (
        x.dtype.name not in _STORED
        or 0 in (x.size, w.size, results.size)
        or math.prod(w.shape[2:]) == 1
        or results.size * math.prod(w.shape[1:]) < _FEWEST_PRODUCTS
        or max(*map(abs, places), *x.shape) >= _FARTHEST
    ):
        return None
    return _backend.core


def _report(function: str, status: int) -> bool:
    if status < 0:
        return False
    report_float_status(function, status)
    return True


def _places(before: tuple[int, ...], *steps: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Return where windows begin and how they move, for rows and columns."""
    pads = tuple(-p for p in before)
    return [_pair(pads, 0), *(_pair(values, 1) for values in steps)]


def _images(array: Array) -> Array:
    """Return signals or kernels of one axis as those of images of one row."""
    return array if array.ndim == 4 else np.expand_dims(array, 2)


def _pair(values: tuple[int, ...], other: int) -> tuple[int, ...]:
    return values if len(values) == 2 else (other, *values)
