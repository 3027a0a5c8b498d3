"""Convolutions along two axes: every argument checked, directly or by FFT, and their gradients."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.exceptions import AxisError
from numpy.typing import ArrayLike, NDArray

from unitstride import _arguments, _backend, _convolution_methods, _native_convolution, _outputs
from unitstride._convolution_call import (
    METHODS,
    MODES,
    TRANSFORMED,
    as_numbers,
    axis_number,
    in_dtype,
    one_of,
    outputs_of,
)
from unitstride._convolution_vjp import summed
from unitstride._einsum_run import fresh
from unitstride._reference.convolution import BOUNDARIES, places
from unitstride._reference.planes import extended

Array = NDArray[Any]
DType = np.dtype[Any]
Pair = tuple[int, int]


class Planes(NamedTuple):
    """A checked call: arrays in the working dtype with the same axes, the planes last."""

    x: Array
    k: Array
    start: Pair  # of the outputs, in the whole convolution
    shape: tuple[int, ...]  # of the result
    boundary: int


def two_axes(function: str, axes: Any, dimensions: int) -> Pair:
    """Return two different axes as numbers from 0."""
    if np.ndim(axes) != 1 or len(axes) != 2:
        raise ValueError(f"{function}: `axes` must be two integers, got {axes!r}")
    try:
        first, second = (axis_number(function, axis, dimensions) for axis in axes)
    except AxisError as error:
        raise AxisError(f"{function}: `axes` must be axes of `x`: {error}") from None
    if first == second:
        raise ValueError(f"{function}: `axes` must be different, got {axes!r}")
    return first, second


def _with_axes(function: str, x: Array, k: Array, along: Pair) -> tuple[Array, Array]:
    """Return both with the same axes, the planes last."""
    x = np.moveaxis(x, along, (-2, -1))
    if k.ndim == 2:
        k = k.reshape((1,) * (x.ndim - 2) + k.shape)
    elif k.ndim == x.ndim:
        k = np.moveaxis(k, along, (-2, -1))
    else:
        raise ValueError(f"{function}: `k` must have 2 or {x.ndim} axes, got {k.ndim}")
    return x, k


def _common(function: str, x: Array, k: Array) -> tuple[int, ...]:
    try:
        return np.broadcast_shapes(x.shape[:-2], k.shape[:-2])
    except ValueError:
        raise ValueError(
            f"{function}: `k` must broadcast with `x` but along the axes, got shapes "
            f"{x.shape} and {k.shape} with the planes last"
        ) from None


def prepare(
    function: str,
    x: ArrayLike,
    k: ArrayLike,
    mode: Any,
    axes: Any,
    boundary: Any,
    correlates: bool,
) -> tuple[Planes, DType, Pair]:
    """Check the inputs; return the problem, the dtype of its result and the axes of `x`."""
    first, second = as_numbers(function, "x", x), as_numbers(function, "k", k)
    one_of(function, "mode", mode, MODES)
    rule = one_of(function, "boundary", boundary, BOUNDARIES)
    for argument, array in (("x", first), ("k", second)):
        if array.ndim < 2:
            raise ValueError(
                f"{function}: `{argument}` must have two axes or more, got shape {array.shape}"
            )
    along = two_axes(function, axes, first.ndim)
    first, second = _with_axes(function, first, second, along)
    for argument, array in (("x", first), ("k", second)):
        if 0 in array.shape[-2:]:
            raise ValueError(
                f"{function}: `{argument}` must have at least one element along each axis, "
                f"got {array.shape[-2:]} of them"
            )
    lines = _common(function, first, second)
    dtype = np.result_type(first, second).newbyteorder("=")
    first, second = in_dtype(first, dtype), in_dtype(second, dtype)
    if correlates:
        second = np.flip(second, (-2, -1))
        if second.dtype.kind == "c":
            second = second.conj()
    sizes = list(zip(first.shape[-2:], second.shape[-2:], strict=True))
    if mode == "valid" and any(m > n for n, m in sizes):
        if any(m < n for n, m in sizes):
            raise ValueError(
                f"{function}: with mode='valid' `x` or `k` must be at least as long as the other "
                f"along both axes, got {first.shape[-2:]} and {second.shape[-2:]}"
            )
        first, second = second, first
    arrays = [np.broadcast_to(a, (*lines, *a.shape[-2:])) for a in (first, second)]
    found = [
        outputs_of(mode, n, m) for n, m in zip(first.shape[-2:], second.shape[-2:], strict=True)
    ]
    (top, height), (left, width) = found
    if correlates and mode == "same":  # of an even number of taps the second one in the middle
        top, left = (m // 2 for m in second.shape[-2:])
    planes = Planes(arrays[0], arrays[1], (top, left), (*lines, height, width), rule)
    return planes, dtype, along


def _flattened(x: Array, pitch: int) -> Array:
    """Return the rows of planes one after the other, zeros between them, as lines."""
    *lines, rows, columns = x.shape
    flat = fresh((*lines, rows, pitch), x.dtype)
    flat[..., :columns] = x
    flat[..., columns:] = 0
    return flat.reshape(*lines, rows * pitch)


def _line_of_taps(k: Array, pitch: int) -> Array:
    """Return a kernel as a line that meets flattened planes; one for all of them stays one."""
    one = tuple(0 if step == 0 else slice(None) for step in k.strides[:-2])
    rows, columns = k.shape[-2:]
    own = k[(*(slice(0, 1) if s == 0 else s for s in one), ...)]
    flat = _flattened(own, pitch)[..., : (rows - 1) * pitch + columns]
    return np.broadcast_to(flat, (*k.shape[:-2], flat.shape[-1]))


def _fft_is_faster(planes: Planes, dtype: DType) -> bool:
    rows, columns = planes.k.shape[-2:]
    height, width = planes.shape[-2:]
    pitch = planes.x.shape[-1] + columns - 1
    lines = math.prod(planes.shape[:-2])
    own = [n for n, s in zip(planes.k.shape[:-2], planes.k.strides, strict=False) if s != 0]
    return _convolution_methods.fft_is_faster_than(
        lines * height * width * rows * columns,
        lines,
        height * pitch,
        (rows - 1) * pitch + columns,
        dtype,
        planes.x.shape[-2] * pitch,
        math.prod(own),
    )


def _within(planes: Planes) -> Planes:
    """Return the same problem on planes that need not be extended."""
    if planes.boundary == 0:
        return planes
    x, rule = planes.x, BOUNDARIES[planes.boundary]
    taps = planes.k.shape[-2:]
    for axis in (-2, -1):
        begin = planes.start[axis] - taps[axis] + 1
        x = extended(x, begin, planes.start[axis] + planes.shape[axis], x.ndim + axis, rule)
    return planes._replace(x=x, start=(taps[0] - 1, taps[1] - 1), boundary=0)


def _by_fft(planes: Planes, out: Array, is_chosen: bool) -> bool:
    """Write the result by transforms of flattened planes; return whether that was possible.

    A row is followed by as many zeros as keep neighbouring rows apart, so that a convolution of
    planes is one of lines.
    """
    planes = _within(planes)
    pitch = planes.x.shape[-1] + planes.k.shape[-1] - 1
    lines, taps = _flattened(planes.x, pitch), _line_of_taps(planes.k, pitch)
    if is_chosen and not _convolution_methods.range_is_small(lines, taps):
        return False
    height, width = planes.shape[-2:]
    whole = fresh((*planes.shape[:-2], height * pitch), out.dtype)
    top, left = planes.start
    if _backend.core is None:
        if not np.isfinite(lines).all():
            return False
        _backend.run("convolve_fft", lines, taps, whole, whole.ndim - 1, top * pitch, 0)
    elif not _native_convolution.transform_lines(_backend.core, lines, taps, top * pitch, whole):
        return False
    rows = whole.reshape(*planes.shape[:-1], pitch)
    out[...] = rows[..., left : left + width]
    return True


def compute(function: str, method: Any, planes: Planes, dtype: DType, out: Array) -> int:
    """Write a result of the planes' dtype; return its status."""
    one_of(function, "method", method, METHODS)
    transformed = dtype.name in TRANSFORMED
    if method == "fft" and not transformed:
        raise ValueError(
            f"{function}: `method` must be auto or direct for a result of {dtype.name}, got 'fft'"
        )
    if not out.size:
        return 0
    wanted = method == "fft" or (method == "auto" and transformed and _fft_is_faster(planes, dtype))
    if wanted and np.isfinite(planes.k).all() and _by_fft(planes, out, method == "auto"):
        return 0
    return _backend.run(
        "convolve_planes", planes.x, planes.k, out, planes.start, planes.boundary, None, False
    )


def run(
    function: str,
    x: ArrayLike,
    k: ArrayLike,
    mode: Any,
    axes: Sequence[int],
    method: Any,
    boundary: Any,
    out: Array | None,
    correlates: bool,
) -> Array:
    """Run `convolve2d` or `correlate2d`."""
    planes, dtype, along = prepare(function, x, k, mode, axes, boundary, correlates)
    axes_back = (-2, -1), along
    shape = list(planes.shape)
    if out is not None:
        shape = list(np.moveaxis(np.broadcast_to(np.uint8(0), planes.shape), *axes_back).shape)
        _outputs.check_out(function, out, tuple(shape), dtype)
    target = None
    if out is not None and _outputs.can_write_into(out, dtype, (), (planes.x, planes.k)):
        target = np.moveaxis(out, along, (-2, -1))
    if target is None:
        target = fresh(planes.shape, dtype)
    status = compute(function, method, planes, dtype, target)
    result, _ = _outputs.deliver(np.moveaxis(target, *axes_back), out, dtype)
    _arguments.report_float_status(function, status)
    return result


def gradients(
    function: str,
    x: ArrayLike,
    k: ArrayLike,
    dy: ArrayLike,
    mode: Any,
    axes: Sequence[int],
    method: Any,
    boundary: Any,
    correlates: bool,
) -> tuple[Array, Array]:
    """Return the gradients of both inputs of `convolve2d` or `correlate2d`."""
    own = [np.asarray(x), np.asarray(k)]
    planes, dtype, along = prepare(function, x, k, mode, axes, boundary, correlates)
    cotangent = as_numbers(function, "dy", dy)
    target = np.moveaxis(np.broadcast_to(np.uint8(0), planes.shape), (-2, -1), along)
    _arguments.check_shape(function, "dy", cotangent, target.shape)
    if cotangent.dtype.kind == "c" and dtype.kind != "c":
        raise TypeError(
            f"{function}: `dy` must be real as the result is, got {cotangent.dtype.name}"
        )
    working = np.dtype(np.float64) if dtype.kind in "biu" else dtype
    if cotangent.dtype.kind not in "biu":
        working = np.result_type(working, cotangent.dtype).newbyteorder("=")
    if working.itemsize == 2:
        working = np.dtype(np.float32)
    slope = np.moveaxis(in_dtype(cotangent, working), along, (-2, -1))
    wide, taps = (in_dtype(a, working) for a in (planes.x, planes.k))
    rule, rows = BOUNDARIES[planes.boundary], planes.k.shape[-2:]
    begins = [s - m + 1 for s, m in zip(planes.start, rows, strict=True)]
    ends = [s + n for s, n in zip(planes.start, planes.shape[-2:], strict=True)]
    for axis in (-2, -1):
        wide = extended(wide, begins[axis], ends[axis], wide.ndim + axis, rule)

    status = 0

    def convolved(a: Array, b: Array, start: Pair, shape: tuple[int, ...]) -> Array:
        nonlocal status
        found = np.result_type(a, b)
        result = fresh((*planes.shape[:-2], *shape), found)
        status |= compute(function, method, Planes(a, b, start, result.shape, 0), found, result)
        return result

    dx = convolved(slope, np.flip(taps, (-2, -1)).conj(), (0, 0), wide.shape[-2:])
    height, width = planes.shape[-2:]
    turned = np.flip(slope, (-2, -1)).conj()
    dk = np.flip(convolved(wide, turned, (height - 1, width - 1), rows), (-2, -1)).conj()
    for axis in (-2, -1):
        dx = _folded(dx, begins[axis], planes.x.shape[axis], axis, rule)
    if mode == "valid" and planes.x.shape[-2:] != tuple(own[0].shape[a] for a in along):
        dx, dk = dk, dx
    if correlates:
        dk = np.flip(dk, (-2, -1)).conj()
    _arguments.report_float_status(function, status)
    shape_of_k = own[1].shape
    if own[1].ndim > 2:
        dk = np.moveaxis(dk, (-2, -1), along)
    else:
        shape_of_k = (1,) * (own[0].ndim - 2) + shape_of_k
    found = []
    for gradient, array, shape in (
        (np.moveaxis(dx, (-2, -1), along), own[0], own[0].shape),
        (dk, own[1], shape_of_k),
    ):
        kind = np.dtype(np.float64) if array.dtype.kind in "biu" else array.dtype.newbyteorder("=")
        found.append(summed(gradient, shape, kind).reshape(array.shape))
    return found[0], found[1]


def _folded(gradient: Array, begin: int, length: int, axis: int, boundary: str) -> Array:
    """Add the gradients of extended places to those of the elements that stood there."""
    lines = np.moveaxis(gradient, axis, 0)
    result = np.zeros((length, *lines.shape[1:]), lines.dtype)
    if boundary == "zero":
        low, high = max(begin, 0), min(begin + len(lines), length)
        if low < high:
            result[low:high] = lines[low - begin : high - begin]
    else:
        np.add.at(result, places(begin, begin + len(lines), length, boundary), lines)
    return np.moveaxis(result, 0, axis)
