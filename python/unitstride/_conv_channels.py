"""Convolution with channels on the matrix unit of the processor, where it has one.

Every element is brought to the unit's form once for all taps, instead of once for each window.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unitstride import _backend
from unitstride._arguments import report_float_status, storage_view

Array = NDArray[Any]

_STORED = ("float32", "float16", "bfloat16")
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
    """Write the convolution into `out`, or return False where it is not for the unit.

    Axes are those of `Conv`; `before` are zeros before each line, which may be cut off instead.
    """
    taps = w.shape[2:]
    if (
        _backend.core is None
        or x.dtype.name not in _STORED
        or 0 in (x.size, w.size, out.size)
        or math.prod(taps) == 1
        or out.size * math.prod(w.shape[1:]) < _FEWEST_PRODUCTS
        or max(*map(abs, before), *stride, *dilation, *x.shape) >= _FARTHEST
    ):
        return False
    status: int = _backend.core.convolve_channels(
        *(storage_view(_images(array)) for array in (x, w)),
        storage_view(bias),
        storage_view(_images(out)),
        groups,
        _pair(tuple(-p for p in before), 0),
        _pair(stride, 1),
        _pair(dilation, 1),
    )
    if status < 0:
        return False
    report_float_status(function, status)
    return True


def _images(array: Array) -> Array:
    """Return signals or kernels of one axis as images of one row."""
    return array if array.ndim == 4 else np.expand_dims(array, 2)


def _pair(values: tuple[int, ...], other: int) -> tuple[int, ...]:
    return values if len(values) == 2 else (other, *values)
