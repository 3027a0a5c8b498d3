"""Convolution of each channel with kernels of its own, natively and in one pass."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unitstride import _backend
from unitstride._conv_windows import Conv
from unitstride._einsum_run import fresh

Array = NDArray[Any]

_SPARSE = 4  # terms that are computed for one that counts, at the most


def takes(conv: Conv) -> bool:
    """Say whether each channel has kernels of its own, and how it is met by them suits planes.

    A dilated kernel is taken with its zeros, and of a stride every result is computed.
    """
    reach = [d * (m - 1) + 1 for d, m in zip(conv.dilation, conv.taps, strict=True)]
    pads = [max(p, q) for p, q in zip(conv.before, conv.after, strict=True)]
    computed = math.prod(reach) * math.prod(conv.stride)
    return (
        conv.groups == conv.x.shape[1]
        and conv.x.dtype.name in ("float32", "float64", "float16", "bfloat16")
        and computed <= _SPARSE * math.prod(conv.taps)
        and all(pad < far for pad, far in zip(pads, reach, strict=True))
        and 0 not in conv.shape
    )


def _two_axes(array: Array, axes: int) -> Array:
    """Return signals or kernels of one axis as planes of one row."""
    return array if axes == 2 else array[..., None, :]


def _every(steps: tuple[int, ...]) -> Any:
    """Return an index of the last axes that takes every so many elements."""
    return (Ellipsis, *(slice(None, None, step) for step in steps))


def _with_zeros(w: Array, dilation: tuple[int, ...]) -> Array:
    """Return kernels with the zeros that a dilation puts between their taps."""
    if set(dilation) == {1}:
        return w
    reach = [d * (m - 1) + 1 for d, m in zip(dilation, w.shape[2:], strict=True)]
    wide = np.zeros((*w.shape[:2], *reach), w.dtype)
    wide[_every(dilation)] = w
    return wide


def forward(conv: Conv, out: Array) -> None:
    """Write the convolution and its bias into `out`, (batch, outputs, *places), contiguous."""
    axes, channels = len(conv.taps), conv.x.shape[1]
    several = conv.w.shape[0] // channels
    w = _with_zeros(conv.w, conv.dilation)
    taps = w.shape[2:]
    kernel = np.flip(w, tuple(range(2, 2 + axes))).reshape(1, channels, several, *taps)
    batch = (conv.x.shape[0], channels, several)
    x = np.broadcast_to(conv.x[:, :, None], (*batch, *conv.x.shape[2:]))
    start = [m - 1 - p for m, p in zip(taps, conv.before, strict=True)]
    ends = [
        n + p + q - m + 1
        for n, p, q, m in zip(conv.x.shape[2:], conv.before, conv.after, taps, strict=True)
    ]
    target = whole = out.reshape(*batch, *conv.places)
    if tuple(ends) != conv.places:
        whole = fresh((*batch, *ends), out.dtype)
    bias = None
    if conv.bias is not None:
        bias = np.broadcast_to(conv.bias.reshape(1, channels, several), batch)
    _backend.run(
        "convolve_planes",
        _two_axes(x, axes),
        _two_axes(np.broadcast_to(kernel, (*batch, *taps)), axes),
        _two_axes(whole, axes),
        tuple([0] * (2 - axes) + start),
        0,
        bias,
        False,
    )
    if whole is not target:
        target[...] = whole[_every(conv.stride)]


def gives_input_gradient(conv: Conv) -> bool:
    """Say whether the gradient of x is such a convolution itself."""
    return takes(conv) and conv.w.shape[0] == conv.x.shape[1] and set(conv.stride) == {1}


def input_gradient(conv: Conv, cotangent: Array) -> Array:
    """Return the gradient of x: the cotangent under the kernel turned round."""
    axes = len(conv.taps)
    result = fresh(conv.x.shape, conv.x.dtype)
    kernel = _with_zeros(conv.w, conv.dilation)[:, 0]
    _backend.run(
        "convolve_planes",
        _two_axes(cotangent, axes),
        _two_axes(np.broadcast_to(kernel, (*cotangent.shape[:2], *kernel.shape[1:])), axes),
        _two_axes(result, axes),
        tuple([0] * (2 - axes) + list(conv.before)),
        0,
        None,
        False,
    )
    return result
