"""Convolution along the last two axes in plain NumPy, and the sigmoid linear unit.

    out[i, j] = sum over p and q of
        k[p, q] * x[start[0] + step[0] i - spread[0] p, start[1] + step[1] j - spread[1] q]

As in `convolution.py` otherwise; a result v may become v / (1 + exp(-v)).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from unitstride._float_status import INVALID, OVERFLOW
from unitstride._reference.convolution import BOUNDARIES, places

Array = NDArray[Any]


def silu(values: Array) -> Array:
    """Return v / (1 + exp(-v)), computed so that nothing overflows."""
    with np.errstate(all="ignore"):
        small = np.exp(-np.abs(values))
        return np.asarray(np.where(values < 0, values * small, values) / (1 + small))


def extended(x: Array, begin: int, end: int, axis: int, boundary: str) -> Array:
    """Return the places from `begin` to `end` along an axis of x."""
    length = x.shape[axis]
    if boundary != "zero":
        return x.take(places(begin, end, length, boundary), axis)
    low, high = min(max(begin, 0), length), min(max(end, 0), length)
    before = min(max(-begin, 0), end - begin)
    shape = [end - begin if a == axis else n for a, n in enumerate(x.shape)]
    result = np.zeros(shape, x.dtype)
    chosen: list[Any] = [slice(None)] * x.ndim
    chosen[axis] = slice(before, before + high - low)
    source: list[Any] = [slice(None)] * x.ndim
    source[axis] = slice(low, high)
    result[tuple(chosen)] = x[tuple(source)]
    return result


def status_of(result: Array, x: Array, k: Array) -> int:
    """Status of a result: NaN out of no NaN is invalid, inf out of finite numbers is overflow."""
    if result.dtype.kind in "biu" or np.isfinite(result).all():
        return 0
    invalid = np.isnan(result).any() and not (np.isnan(x).any() or np.isnan(k).any())
    overflow = np.isinf(result).any() and np.isfinite(x).all() and np.isfinite(k).all()
    return (INVALID if invalid else 0) | (OVERFLOW if overflow else 0)


def convolve_planes(
    x: Array,
    k: Array,
    out: Array,
    start: tuple[int, int],
    boundary: int,
    bias: Array | None,
    is_silu: bool,
    step: tuple[int, int] = (1, 1),
    spread: tuple[int, int] = (1, 1),
) -> int:
    """Write the convolution of every plane into `out`, by its definition."""
    narrow = out.dtype.itemsize == 2 and out.dtype.kind in "fV"
    working = np.dtype(np.float32) if narrow else out.dtype
    rows, columns = k.shape[-2:]
    down, along = (d * (m - 1) for d, m in zip(spread, (rows, columns), strict=True))
    height, width = (s * (n - 1) + 1 for s, n in zip(step, out.shape[-2:], strict=True))
    rule = BOUNDARIES[boundary]
    with np.errstate(all="ignore"):
        wide = extended(x, start[0] - down, start[0] + height, x.ndim - 2, rule)
        wide = extended(wide, start[1] - along, start[1] + width, x.ndim - 1, rule)
        wide, taps = wide.astype(working, copy=False), k.astype(working, copy=False)
        sums = np.zeros(out.shape, working)
        for p in reversed(range(rows)):
            for q in reversed(range(columns)):
                part = wide[..., down - spread[0] * p :, along - spread[1] * q :]
                part = part[..., : height : step[0], : width : step[1]]
                sums += taps[..., p : p + 1, q : q + 1] * part
        if bias is not None:
            sums += bias[..., None, None].astype(working, copy=False)
        out[...] = silu(sums) if is_silu else sums
    return status_of(out, x, k)


def convolution_products(
    x: Array,
    slopes: Array,
    sums: Array,
    begin: tuple[int, int],
    step: tuple[int, int],
    spread: tuple[int, int],
    taps: tuple[int, int],
) -> int:
    """Write the gradients of the taps of each plane, and the sums of its slopes, in float64.

    x and slopes are (n, ..., planes); `sums`, (chunks, planes of one n, taps + 1), is to be added
    over the chunks.
    """
    height, width = (s * (n - 1) + 1 for s, n in zip(step, slopes.shape[-2:], strict=True))
    down, along = (d * (m - 1) for d, m in zip(spread, taps, strict=True))
    sums[...] = 0
    with np.errstate(all="ignore"):
        wide = extended(x, begin[0], begin[0] + height + down, x.ndim - 2, "zero")
        wide = extended(wide, begin[1], begin[1] + width + along, x.ndim - 1, "zero")
        wide, slope = wide.astype(np.float64, copy=False), slopes.astype(np.float64, copy=False)
        for number, (p, q) in enumerate(np.ndindex(*taps)):
            part = wide[..., spread[0] * p :, spread[1] * q :]
            part = part[..., : height : step[0], : width : step[1]]
            sums[0, :, number] = (slope * part).sum(axis=(0, -2, -1)).reshape(-1)
        sums[0, :, -1] = slope.sum(axis=(0, -2, -1)).reshape(-1)
    return status_of(sums, x, slopes)
