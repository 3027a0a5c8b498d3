"""Convolution of each channel with kernels of its own, natively and in one pass; its gradients."""

import math
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unitstride import _backend
from unitstride._conv_windows import Conv
from unitstride._einsum_run import fresh

Array = NDArray[Any]

_FETCHED = 16  # elements that may be brought together for each result, or as many as taps
_COLUMNS, _ELEMENTS, _ROWS = 2048, 48 << 10, 8  # of what is brought, as in ops/plane_tiles.cpp
_FARTHEST = 1 << 40  # places that the core takes
_SUMS = 64  # sums at the least, so that all threads find work


def _fetched(conv: Conv) -> float:
    """Return the elements that are brought together for each result."""
    stride, spread, taps, places = (
        _pair(values, 1) for values in (conv.stride, conv.dilation, conv.taps, conv.places)
    )
    reach = [d * (m - 1) // s for d, m, s in zip(spread, taps, stride, strict=True)]
    phases = math.prod(min(m, s) for m, s in zip(taps, stride, strict=True))
    columns = min(places[1], _COLUMNS)
    pitch = columns + reach[1]
    rows = min(max(_ELEMENTS // (pitch * phases) - reach[0], _ROWS), places[0])
    return phases * pitch * (rows + reach[0]) / (rows * columns)


def takes(conv: Conv) -> bool:
    """Say whether each channel has kernels of its own, which are not met too far apart."""
    return (
        conv.groups == conv.x.shape[1]
        and conv.x.dtype.name in ("float32", "float64", "float16", "bfloat16")
        and conv.x.size > 0
        and 0 not in conv.shape
        and _fetched(conv) <= max(_FETCHED, math.prod(conv.taps))
        and max(*conv.before, *conv.after, *conv.stride, *conv.dilation) < _FARTHEST >> 20
        and max(conv.x.shape) < _FARTHEST >> 20
    )


def _planes(array: Array, axes: int) -> Array:
    """Return signals or kernels of one axis as planes of one row."""
    return array if axes == 2 else array[..., None, :]


def _pair(values: tuple[int, ...], other: int) -> tuple[int, ...]:
    return values if len(values) == 2 else (other, *values)


def _last(*places: slice) -> Any:
    """Return an index of the last axes."""
    return (Ellipsis, *places)


def forward(conv: Conv, out: Array) -> None:
    """Write the convolution and its bias into `out`, (batch, outputs, *places)."""
    axes, channels = len(conv.taps), conv.x.shape[1]
    several = conv.w.shape[0] // channels
    x, target = conv.x, out
    lead: tuple[int, ...] = (1, channels)
    if several > 1:
        x, lead = x[:, :, None], (1, channels, several)
        target = out.reshape(out.shape[0], channels, several, *conv.places)
    kernel = conv.w.reshape(*lead, *conv.taps)[_last(*[slice(None, None, -1)] * axes)]
    start = tuple(
        d * (m - 1) - p for d, m, p in zip(conv.dilation, conv.taps, conv.before, strict=True)
    )
    _backend.run(
        "convolve_planes",
        _planes(x, axes),
        _planes(kernel, axes),
        _planes(target, axes),
        _pair(start, 0),
        0,
        None if conv.bias is None else conv.bias.reshape(lead),
        False,
        _pair(conv.stride, 1),
        _pair(conv.dilation, 1),
    )


def writes_into(conv: Conv, out: Array) -> bool:
    """Say whether `forward` takes this array."""
    return out.flags.c_contiguous or (takes(conv) and conv.w.shape[0] == conv.x.shape[1])


class _Class(NamedTuple):
    """Elements of x along an axis that meet the same taps: every stride-th of them."""

    chosen: slice  # of x
    taps: slice
    start: int  # the result that the first of them meets with the first of the taps
    spread: int  # results from tap to tap


def _classes(conv: Conv, axis: int) -> list[_Class]:
    """Return the classes of an axis: element i meets result o and tap p where i + pad = s o + d p.

    These taps are s / g apart, g the greatest common divisor of s and d, and their results d / g.
    """
    step, spread, taps = conv.stride[axis], conv.dilation[axis], conv.taps[axis]
    pad, length = conv.before[axis], conv.x.shape[2 + axis]
    shared = math.gcd(step, spread)
    found = []
    for first in range(min(step, length)):
        nearest = range(min(step // shared, taps))
        tap = next((p for p in nearest if (first + pad - p * spread) % step == 0), taps)
        found.append(
            _Class(
                slice(first, None, step),
                slice(tap, None, step // shared),
                (first + pad - tap * spread) // step,
                spread // shared,
            )
        )
    return found


def input_gradient(conv: Conv, cotangent: Array) -> Array:
    """Return the gradient of x: for each class of elements, the cotangent under its taps."""
    axes = len(conv.taps)
    result = fresh(conv.x.shape, conv.x.dtype)
    kernel = conv.w.reshape(1, conv.w.shape[0], *conv.taps)
    for chosen in product(*(_classes(conv, axis) for axis in range(axes))):
        part = result[_last(*(own.chosen for own in chosen))]
        taps = kernel[_last(*(own.taps for own in chosen))]
        if taps.size == 0:
            part[...] = 0
            continue
        _backend.run(
            "convolve_planes",
            _planes(cotangent, axes),
            _planes(taps, axes),
            _planes(part, axes),
            _pair(tuple(own.start for own in chosen), 0),
            0,
            None,
            False,
            (1, 1),
            _pair(tuple(own.spread for own in chosen), 1),
        )
    return result


def other_gradients(conv: Conv, cotangent: Array) -> tuple[Array, Array]:
    """Return the gradients of w and of a bias."""
    axes, channels = len(conv.taps), conv.x.shape[1]
    several = conv.w.shape[0] // channels
    x, slopes = conv.x, cotangent
    if several > 1:
        x = x[:, :, None]
        slopes = cotangent.reshape(len(x), channels, several, *conv.places)
    chunks = max(1, -(-_SUMS // conv.w.shape[0]))
    sums = np.empty((chunks, conv.w.shape[0], math.prod(conv.taps) + 1))
    _backend.run(
        "convolution_products",
        _planes(x, axes),
        _planes(slopes, axes),
        sums,
        _pair(tuple(-p for p in conv.before), 0),
        _pair(conv.stride, 1),
        _pair(conv.dilation, 1),
        _pair(conv.taps, 1),
    )
    total = sums.sum(axis=0).astype(conv.x.dtype)
    return np.ascontiguousarray(total[:, :-1]).reshape(conv.w.shape), total[:, -1].copy()
