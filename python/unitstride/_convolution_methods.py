"""Which method a convolution takes: directly, or by FFT.

The choice follows from shapes, dtypes and values alone, with fixed constants, so that a result does
not depend on the machine's load or on the number of threads. `is_surely_direct` is also in
`bindings/convolution.cpp`.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unitstride import _backend, _native_convolution
from unitstride._arguments import storage_view
from unitstride._reference.convolution import block_size

Array = NDArray[Any]
DType = np.dtype[Any]

_FEW_TAPS = 64
_LITTLE_WORK = 1 << 20

# Nanoseconds on one thread, of a CPU with AVX-512: for one multiply-add, directly; with NumPy, for
# one multiply-add, and for one element times log2 of the length of a transform, forward and back.
_TERM = {"float32": 0.02, "float64": 0.04}
_NUMPY_TERM = 0.4
_NUMPY_TRANSFORM = {"float32": 0.7, "float64": 1.0}

_SEGMENTS = 16  # of a kernel, whose largest magnitudes stand for it
_LEAST_SEGMENT = 64


def is_surely_direct(lines: int, count: int, taps: int) -> bool:
    """Say whether there is too little to win for a closer look."""
    work = _LITTLE_WORK
    return taps <= _FEW_TAPS or (lines < work and count < work // max(lines, 1) // taps)


def real_name(dtype: DType) -> str:
    """Return the real dtype whose arithmetic a result needs."""
    return "float64" if dtype.name in ("float64", "complex128") else "float32"


def fft_is_faster(
    lines: int, count: int, taps: int, dtype: DType, length: int | None = None, kernels: int = 1
) -> bool:
    """Compare the times of both methods for `count` outputs of each line.

    `length` is that of the inputs (`count` where it is not given); there is one kernel, or one for
    each of several lines.
    """
    if is_surely_direct(lines, count, taps):
        return False
    terms = float(lines) * count * taps
    return fft_is_faster_than(terms, lines, count, taps, dtype, length or count, kernels)


def fft_is_faster_than(
    terms: float, lines: int, count: int, taps: int, dtype: DType, length: int, kernels: int
) -> bool:
    """Compare the time of transforms with that of so many multiply-adds."""
    name, is_complex = real_name(dtype), dtype.kind == "c"
    if terms < _LITTLE_WORK:
        return False
    terms *= 2 if is_complex else 1
    if _backend.core is not None:
        time = _backend.core.convolve_fft_nanoseconds(
            lines, kernels, length, taps, count, is_complex, name == "float64"
        )
        return bool(time < terms * _TERM[name])
    size = block_size(taps, count + taps - 1)
    blocks = -(-count // (size - taps + 1))
    transforms = (2 * blocks + 1) * size * math.log2(size) / 2 * lines
    return transforms * _NUMPY_TRANSFORM[name] < terms * _NUMPY_TERM


def together(x: Array, axis: int) -> Array:
    """Return what transforms read: `x`, or a copy whose lines do not lie among one another."""
    if _backend.core is None:
        return x
    return _native_convolution.together(_backend.core, x, axis)


def _highest(line: Array, segment: int) -> Array:
    """Return the largest finite magnitude of each segment along the last axis."""
    magnitude = np.abs(line)
    if not np.isfinite(magnitude).all():
        magnitude = np.where(np.isfinite(magnitude), magnitude, 0)
    return np.asarray(
        np.maximum.reduceat(magnitude, range(0, line.shape[-1], segment), axis=-1)
    ).astype(np.float64)


def range_is_small(x: Array, k: Array) -> bool:
    """Say whether FFT leaves every output at least half of its digits; the axis is the last.

    An FFT's error is about the same for all outputs of a line: a unit of roundoff of the largest.
    The largest term of an output is estimated from the largest magnitudes of segments of both
    factors; where the outputs' terms differ by more than 1 / sqrt(eps), the small outputs would
    drown.
    """
    least = math.sqrt(float(np.finfo(real_name(np.result_type(x, k))).eps))
    segment = max(_LEAST_SEGMENT, -(-k.shape[-1] // _SEGMENTS))
    if _backend.core is None:
        return range_of(x, k, segment) >= least
    lines = np.broadcast_shapes(x.shape[:-1], k.shape[:-1])
    x, k = (np.abs(a) if a.dtype.kind == "c" else a for a in (x, k))
    first, second = (storage_view(np.broadcast_to(a, (*lines, a.shape[-1]))) for a in (x, k))
    return bool(_backend.core.convolution_range(first, second, len(lines), segment) >= least)


def range_of(x: Array, k: Array, segment: int) -> float:
    """Return the smallest of the terms that is not zero over the largest, along the last axis."""
    if x.dtype.itemsize == 2:
        x, k = x.astype(np.float32), k.astype(np.float32)
    from_x, from_k = _highest(x, segment), _highest(k, segment)
    shape = np.broadcast_shapes(from_x.shape[:-1], from_k.shape[:-1])
    count = from_x.shape[-1]
    terms = np.zeros((*shape, count + from_k.shape[-1] - 1))
    for place in range(from_k.shape[-1]):
        part = terms[..., place : place + count]
        np.maximum(part, from_x * from_k[..., place : place + 1], out=part)
    least = np.min(terms, axis=-1, where=terms > 0, initial=np.inf)
    most = np.max(terms, axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.min(np.where(most > 0, least / most, 1), initial=1))
