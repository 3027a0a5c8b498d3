"""Which method a convolution takes: directly, or by FFT.

The choice follows from shapes, dtypes and values alone, with fixed constants, so that a result does
not depend on the machine's load or on the number of threads. `is_surely_direct` is also in
`bindings/convolution.cpp`.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unitstride import _backend
from unitstride._reference.convolution import block_size

Array = NDArray[Any]
DType = np.dtype[Any]

_FEW_TAPS = 64
_LITTLE_WORK = 1 << 20

# Nanoseconds for one multiply-add, and for one element times log2 of the length of a transform
# (forward and back, with the moving of data): two cores with AVX-512, and NumPy.
_NATIVE_TERM = {"float32": 0.0055, "float64": 0.011}
_NUMPY_TERM = 0.4
_TRANSFORM = {"float32": 0.35, "float64": 0.5}

_SEGMENTS = 32  # of a kernel, whose largest magnitudes stand for it


def is_surely_direct(lines: int, count: int, taps: int) -> bool:
    """Say whether there is too little to win for a closer look."""
    work = _LITTLE_WORK
    return taps <= _FEW_TAPS or (lines < work and count < work // max(lines, 1) // taps)


def real_name(dtype: DType) -> str:
    """Return the real dtype whose arithmetic a result needs."""
    return "float64" if dtype.name in ("float64", "complex128") else "float32"


def fft_is_faster(lines: int, count: int, taps: int, dtype: DType) -> bool:
    """Compare the times of both methods for `count` outputs of each line."""
    if is_surely_direct(lines, count, taps):
        return False
    name = real_name(dtype)
    term = _NUMPY_TERM if _backend.core is None else _NATIVE_TERM[name]
    size = block_size(taps, count + taps - 1)
    blocks = -(-count // (size - taps + 1))
    transforms = (2 * blocks + 1) * size * math.log2(size) / 2
    return transforms * _TRANSFORM[name] < count * taps * term


def _highest(line: Array, segment: int) -> Array:
    """Return the largest finite magnitude of each segment along the last axis."""
    magnitude = np.abs(line)
    if not np.isfinite(magnitude).all():
        magnitude = np.where(np.isfinite(magnitude), magnitude, 0)
    return np.asarray(
        np.maximum.reduceat(magnitude, range(0, line.shape[-1], segment), axis=-1)
    ).astype(np.float64)


def range_is_small(x: Array, k: Array) -> bool:
    """Say whether FFT leaves every output at least half of its digits.

    `x` and `k` have the axis last. An FFT's error is about the same for all outputs of a line: a
    unit of roundoff of the largest. The largest term of an output is estimated from the largest
    magnitudes of segments of both; where the outputs' terms differ by more than 1 / sqrt(eps),
    the small outputs would drown.
    """
    eps = float(np.finfo(real_name(np.result_type(x, k))).eps)
    segment = max(16, -(-k.shape[-1] // _SEGMENTS))
    from_x, from_k = _highest(x, segment), _highest(k, segment)
    shape = np.broadcast_shapes(from_x.shape[:-1], from_k.shape[:-1])
    count = from_x.shape[-1]
    terms = np.zeros((*shape, count + from_k.shape[-1] - 1))
    for place in range(from_k.shape[-1]):
        part = terms[..., place : place + count]
        np.maximum(part, from_x * from_k[..., place : place + 1], out=part)
    least = np.min(terms, axis=-1, where=terms > 0, initial=np.inf)
    most = np.max(terms, axis=-1)
    return bool((most <= least / math.sqrt(eps)).all())
