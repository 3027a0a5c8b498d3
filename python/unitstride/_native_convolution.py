"""Convolution on the compiled core: what it takes as it is, and what is brought to it."""

from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unitstride import _reference
from unitstride._arguments import storage_view
from unitstride._einsum_run import fresh
from unitstride._reference.planes import status_of

Array = NDArray[Any]
Pair = tuple[int, int]  # one number for rows, one for columns

_REAL = ("float32", "float64", "float16", "bfloat16")
_COMPLEX = ("complex64", "complex128")
_NOT_FINITE = -1  # the core's status for results that are not
_MANY_PLANES, _MOST_AXES = 4, 5  # that are read at a time, and of their arrays
_CACHED_BYTES = 1 << 18  # lines of smaller arrays need not be brought together


class Spectrum(NamedTuple):
    """The spectrum of one kernel at 2^logarithm points, as the core takes it."""

    values: Array
    logarithm: int


def convolve(
    core: ModuleType, x: Array, k: Array, out: Array, axis: int, start: int, boundary: int
) -> int:
    """Run the direct convolution.

    Complex numbers go part by part. Kernels that are not finite, which must not meet the zeros
    beyond the ends, and other dtypes than the core's run on NumPy.
    """
    real = out.dtype.name in _REAL
    if not (real or out.dtype.name in _COMPLEX) or not np.isfinite(k).all():
        return _reference.convolve(x, k, out, axis, start, boundary)
    if not real:
        return _convolve_parts(core.convolve, x, k, out, axis, start, boundary)
    status: int = core.convolve(
        storage_view(x), storage_view(k), storage_view(out), axis, start, boundary
    )
    return status


def _convolve_parts(run: Callable[..., int], x: Array, k: Array, out: Array, *place: Any) -> int:
    """Run a complex convolution, of which either factor may be real."""
    if k.dtype.kind != "c":
        return int(run(x.real, k, out.real, *place) | run(x.imag, k, out.imag, *place))
    if x.dtype.kind != "c":
        return int(run(x, k.real, out.real, *place) | run(x, k.imag, out.imag, *place))
    status: int = run(x.real, k.real, out.real, *place)
    status |= run(x.real, k.imag, out.imag, *place)
    other = np.empty(out.shape, out.real.dtype)
    with np.errstate(all="ignore"):
        status |= run(x.imag, k.imag, other, *place)
        np.subtract(out.real, other, out=out.real)
        status |= run(x.imag, k.real, other, *place)
        np.add(out.imag, other, out=out.imag)
    return status


def convolve_fft(
    core: ModuleType,
    x: Array,
    k: Array,
    out: Array,
    axis: int,
    start: int,
    boundary: int,
    spectrum: Spectrum | None = None,
) -> int:
    """Run the convolution by Fourier transforms."""
    target = host_for(out, axis)
    lines = together(core, x, axis)
    status = _transform(core, lines, k, target, axis, start, boundary, spectrum)
    if status == _NOT_FINITE:
        transform = partial(_transform_window, core)
        return _reference.convolve_fft(x, k, out, axis, start, boundary, transform)
    if target is not out:
        _copy(core, target, out)
    return status


def convolve_planes(
    core: ModuleType,
    x: Array,
    k: Array,
    out: Array,
    start: Pair,
    boundary: int,
    bias: Array | None,
    silu: bool,
    step: Pair = (1, 1),
    spread: Pair = (1, 1),
) -> int:
    """Run the direct convolution along the last two axes, as `convolve`.

    Axes of `x`, `k` and `bias` but the last two of the former may have length one instead.
    """
    real = out.dtype.name in _REAL
    if not (real or out.dtype.name in _COMPLEX) or not np.isfinite(k).all():
        return _reference.convolve_planes(x, k, out, start, boundary, bias, silu, step, spread)
    if not real:
        status = _convolve_parts(core.convolve_planes, x, k, out, start, boundary, None, False)
        return status_of(out, x, k) if status else 0
    # Planes that lie among one another, as channels last do, are read and written several at a
    # time; others of such strides are brought together.
    channel = _adjoining(x) if boundary == 0 else None
    lines = x if channel is not None else together(core, x, x.ndim - 1)
    is_like = channel is not None and out.strides[channel] == out.itemsize
    target = out if is_like else host_for(out, out.ndim - 1)
    status = core.convolve_planes(
        storage_view(lines),
        storage_view(k),
        storage_view(target),
        start,
        boundary,
        storage_view(bias),
        silu,
        step,
        spread,
    )
    if target is not out:
        _copy(core, target, out)
    return status_of(out, x, k) if status else 0


def convolution_products(
    core: ModuleType,
    x: Array,
    slopes: Array,
    sums: Array,
    begin: Pair,
    step: Pair,
    spread: Pair,
    taps: Pair,
) -> int:
    """Run the gradients of the taps of planes; `x` and `slopes` as in `convolve_planes`."""
    channel = _adjoining(x)
    lines = x if channel is not None else together(core, x, x.ndim - 1)
    is_like = channel is not None and slopes.strides[channel] == slopes.itemsize
    own = slopes if is_like else together(core, slopes, slopes.ndim - 1)
    status = core.convolution_products(
        storage_view(lines), storage_view(own), sums, begin, step, spread, taps
    )
    return status_of(sums, x, slopes) if status else 0


def _adjoining(array: Array) -> int | None:
    """Return the axis of planes whose elements adjoin, if there is one and they can be told."""
    if array.strides[-1] == array.itemsize or array.shape[-1] == 1:
        return None
    *axes, _, _ = zip(array.shape, array.strides, strict=True)
    if any(step == 0 for length, step in axes if length > 1) or array.ndim > _MOST_AXES:
        return None
    found = [a for a, (n, step) in enumerate(axes) if n >= _MANY_PLANES and step == array.itemsize]
    return found[0] if found else None


def together(core: ModuleType, array: Array, axis: int) -> Array:
    """Return an array of the same values whose lines do not lie among one another."""
    host = host_for(array, axis)
    return array if host is array else _copy(core, array, host)


def host_for(array: Array, axis: int) -> Array:
    """Return the array itself, or a fresh one where its lines lie among one another.

    Those of axis 0 of a matrix do; a small array is read as it is.
    """
    step = abs(array.strides[axis])
    steps = [abs(s) for s, n in zip(array.strides, array.shape, strict=True) if n > 1]
    if array.nbytes <= _CACHED_BYTES or not any(0 < other < step for other in steps):
        return array
    host = fresh(np.moveaxis(array, axis, -1).shape, array.dtype)
    return np.moveaxis(host, -1, axis)


def _copy(core: ModuleType, source: Array, target: Array) -> Array:
    labels = tuple(range(source.ndim))
    core.contract(storage_view(source), labels, None, (), storage_view(target), labels, 1, 0)
    return target


def spectrum_of(core: ModuleType, k: Array, logarithm: int) -> Spectrum:
    """Compute the spectrum of a kernel of one axis."""
    wide = np.float64 if k.dtype.name in ("float64", "complex128") else np.float32
    values = np.empty(2 << logarithm, wide)
    is_complex = k.dtype.kind == "c"
    core.convolution_spectrum(
        k.real if is_complex else storage_view(k), is_complex, logarithm, values
    )
    return Spectrum(values, logarithm)


def _transform(
    core: ModuleType,
    x: Array,
    k: Array,
    out: Array,
    axis: int,
    start: int,
    boundary: int,
    spectrum: Spectrum | None = None,
) -> int:
    complex_x, complex_k = x.dtype.kind == "c", k.dtype.kind == "c"
    parts = [a.real if a.dtype.kind == "c" else storage_view(a) for a in (x, k, out)]
    status: int = core.convolve_fft(
        *parts, axis, start, boundary, complex_x, complex_k, *(spectrum or (None, 0))
    )
    return status


def transform_lines(core: ModuleType, x: Array, k: Array, start: int, out: Array) -> bool:
    """Write the convolution along the last axis; return whether all results are finite."""
    return _transform(core, x, k, out, out.ndim - 1, start, 0) != _NOT_FINITE


def _transform_window(core: ModuleType, window: Array, k: Array, start: int, out: Array) -> None:
    """Write the convolution along the last axis of a window that is zero beyond its ends."""
    if not transform_lines(core, window, k, start, out):
        out[...] = np.nan
