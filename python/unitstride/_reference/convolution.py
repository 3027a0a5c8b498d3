"""Convolution along the last axis in plain NumPy, directly and by FFT.

    out[i] = sum over j of k[j] * x[start + i - j]

`x` and `k` have the same axes; those before the last are broadcast. Beyond its ends `x` is zero, or
what `boundary` says: reflect (d c b | a b c d | c b a), replicate (a a a | a b c d | d d d),
circular (b c d | a b c d | a b c) or symmetric (c b a | a b c d | d c b). float16 and bfloat16 are
computed in float32 and rounded once; every other dtype in itself.
"""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from unitstride._float_status import INVALID, OVERFLOW
from unitstride._threads import get_num_threads

Array = NDArray[Any]

BOUNDARIES = ("zero", "reflect", "replicate", "circular", "symmetric")

_LONG_KERNEL = 32  # taps; NumPy's own function, line by line, is faster from here on
_MANY_SPECIAL = 1000  # elements that are not finite
_ELEMENTS_FOR_THREADS = 1 << 17  # of transforms; starting threads takes longer for fewer
_BATCH_ELEMENTS = 1 << 18  # of blocks that are transformed together: they stay in a cache


def places(begin: int, end: int, length: int, boundary: str) -> Array:
    """Return which elements of a line stand at the places from `begin` to `end`."""
    place = np.arange(begin, end)
    if boundary == "circular":
        return place % length
    if boundary == "replicate" or length == 1:
        return place.clip(0, length - 1)
    period = 2 * length - 2 if boundary == "reflect" else 2 * length
    found = place % period
    last = period if boundary == "reflect" else period - 1
    return np.where(found < length, found, last - found)


def _window(x: Array, taps: int, start: int, count: int, boundary: str) -> tuple[Array, int]:
    """Return a line that need not be extended, and `start` in it."""
    if boundary == "zero":
        return x, start
    return x[..., places(start - taps + 1, start + count, x.shape[-1], boundary)], taps - 1


def _direct(x: Array, k: Array, start: int, shape: tuple[int, ...]) -> Array:
    """Return the sums of the terms that exist, in `shape`."""
    count, length, taps = shape[-1], x.shape[-1], k.shape[-1]
    out = np.zeros(shape, np.result_type(x, k))
    if taps > _LONG_KERNEL and min(length, count) > _LONG_KERNEL:
        x = np.broadcast_to(x, (*shape[:-1], length))
        k = np.broadcast_to(k, (*shape[:-1], taps))
        for line in np.ndindex(shape[:-1]):
            # Contiguous lines: for others NumPy adds in another order.
            first, second = np.ascontiguousarray(x[line]), np.ascontiguousarray(k[line])
            out[line] = np.convolve(first, second)[start : start + count]
        return out
    if taps > count:  # one output after the other
        for i in range(count):
            low, high = max(0, start + i - length + 1), min(taps, start + i + 1)
            met = x[..., start + i - high + 1 : start + i - low + 1][..., ::-1]
            # In C order whatever the order of the inputs: the sum runs along contiguous terms.
            terms = np.multiply(k[..., low:high], met, order="C")
            out[..., i] = terms.sum(axis=-1, dtype=out.dtype)
        return out
    for j in range(taps):
        low, high = max(0, j - start), min(count, length + j - start)
        if low < high:
            met = x[..., low + start - j : high + start - j]
            out[..., low:high] += k[..., j : j + 1] * met
    return out


def _status(result: Array, x: Array, k: Array, start: int) -> int:
    """Status of a result: NaN out of no NaN is invalid, inf out of finite terms is overflow."""
    if result.dtype.kind in "biu" or np.isfinite(result).all():
        return 0

    def reached(test: Any) -> Array:
        """Say which results have a term in which an input passes the test."""
        shape = result.shape
        from_x = _direct(test(x), np.ones(k.shape, np.bool_), start, shape)
        return from_x | _direct(np.ones(x.shape, np.bool_), test(k), start, shape)

    invalid = (np.isnan(result) & ~reached(np.isnan)).any()
    overflow = (np.isinf(result) & ~reached(lambda a: ~np.isfinite(a))).any()
    return (INVALID if invalid else 0) | (OVERFLOW if overflow else 0)


def _is_narrow(array: Array) -> bool:
    return array.dtype.itemsize == 2 and array.dtype.kind in "fV"


def _prepared(
    x: Array, k: Array, out: Array, axis: int, start: int, boundary: int
) -> tuple[Array, Array, Array, int]:
    """Bring the axis to the end, extend `x` and widen 16-bit types; return the new start too."""
    x, k, last = (np.moveaxis(array, axis, -1) for array in (x, k, out))
    if _is_narrow(x):
        x, k = x.astype(np.float32), k.astype(np.float32)
    x, start = _window(x, k.shape[-1], start, last.shape[-1], BOUNDARIES[boundary])
    return x, k, last, start


def convolve(x: Array, k: Array, out: Array, axis: int, start: int, boundary: int) -> int:
    """Write the convolution along `axis` into `out`, by its definition."""
    x, k, last, start = _prepared(x, k, out, axis, start, boundary)
    with np.errstate(all="ignore"):
        result = _direct(x, k, start, last.shape).astype(out.dtype, copy=False)
        last[...] = result
        return _status(result, x, k, start)


# By FFT.


def good_size(least: int) -> int:
    """Return the smallest product of powers of 2, 3 and 5 that is at least `least`."""
    best = 1 << max(least - 1, 0).bit_length()
    five = 1
    while five < best:
        three = five
        while three < best:
            best = min(best, three << max(-(-least // three) - 1, 0).bit_length())
            three *= 3
        five *= 5
    return best


def block_size(taps: int, window: int) -> int:
    """Return the length of transforms for a window of `window` elements, by operations."""
    whole = good_size(window)
    best, least = whole, whole * math.log2(whole + 1)
    size = 1 << max((2 * taps - 1).bit_length(), 10)
    while size < whole:
        work = -(-(window - taps + 1) // (size - taps + 1)) * size * math.log2(size)
        if work < least:
            best, least = size, work
        size *= 2
    return best


def _blocks(x: Array, k: Array, size: int, result: Array) -> None:
    """Overlap-save: the window `x` of all lines, (lines, window), into `result`, (lines, count).

    Lines, or where there is one, batches of its blocks, run side by side in threads: NumPy gives
    the interpreter free for a transform.
    """
    forward: Any = np.fft.rfft
    backward: Any = np.fft.irfft
    if result.dtype.kind == "c":
        forward, backward = np.fft.fft, np.fft.ifft
    taps, count = k.shape[-1], result.shape[-1]
    spectrum = forward(k, size, axis=-1)
    step = size - taps + 1
    blocks = -(-count // step)
    batch = max(1, min(_BATCH_ELEMENTS // size, -(-blocks // (2 * get_num_threads()))))

    def run_batch(line: int, pieces: Array, first: int) -> None:
        own = spectrum[line % len(spectrum)]
        with np.errstate(all="ignore"):  # a thread has its own
            sums = backward(forward(pieces[first : first + batch], axis=-1) * own, size, axis=-1)
        found = sums[:, taps - 1 :].reshape(-1)[: count - first * step]
        result[line, first * step : first * step + found.size] = found

    def run_line(line: int) -> None:
        window = np.zeros((blocks - 1) * step + size, result.dtype)
        window[: x.shape[-1]] = x[line]
        pieces = sliding_window_view(window, size)[::step]
        parts = [partial(run_batch, line, pieces, first) for first in range(0, blocks, batch)]
        _side_by_side(parts, 1 if len(result) > 1 else blocks * size)

    whole = len(result) * blocks * size
    _side_by_side([partial(run_line, line) for line in range(len(result))], whole)


def _side_by_side(calls: Sequence[Callable[[], None]], elements: int) -> None:
    """Make calls in threads where they are worth it."""
    threads = min(get_num_threads(), len(calls))
    if threads == 1 or elements < _ELEMENTS_FOR_THREADS:
        for call in calls:
            call()
        return
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(call) for call in calls]:
            done.result()


def _transform(window: Array, k: Array, start: int, out: Array) -> None:
    """Write the convolution along the last axis of a window that is zero beyond its ends."""
    count, m = out.shape[-1], k.shape[-1]
    low = max(0, start - m + 1)
    left = max(0, m - 1 - start)  # zeros before the first element
    part = window[..., low : start + count]
    span = np.zeros((*out.shape[:-1], count + m - 1), out.dtype)
    span[..., left : left + part.shape[-1]] = part
    flat = np.broadcast_to(k, (*out.shape[:-1], m)) if k.size > m else k
    _blocks(
        span.reshape(-1, count + m - 1),
        flat.reshape(-1, m),
        block_size(m, count + m - 1),
        out.reshape(-1, count),
    )


def convolve_fft(
    x: Array,
    k: Array,
    out: Array,
    axis: int,
    start: int,
    boundary: int,
    transform: Callable[[Array, Array, int, Array], None] = _transform,
) -> int:
    """Write the convolution along `axis` into `out` by FFT.

    Elements of `x` that are not finite are left out of the transforms, and their terms added one
    by one: they reach the outputs that they reach by definition. A kernel that is not finite, many
    such elements, and results that overflow in the transforms, go by definition altogether.
    """
    window, taps, last, first = _prepared(x, k, out, axis, start, boundary)
    if not np.isfinite(taps).all():
        return convolve(x, k, out, axis, start, boundary)
    finite = np.isfinite(window)
    special: Array | None = None
    if not finite.all():
        if finite.size - np.count_nonzero(finite) > _MANY_SPECIAL:
            return convolve(x, k, out, axis, start, boundary)
        special = np.where(finite, 0, window).astype(window.dtype)
        window = np.where(finite, window, 0).astype(window.dtype)
    result = np.empty(last.shape, np.result_type(window, taps))
    with np.errstate(all="ignore"):
        transform(window, taps, first, result)
        if not np.isfinite(result).all():
            return convolve(x, k, out, axis, start, boundary)
        if special is not None:
            _add_special(result, special, taps, first)
        rounded = result.astype(out.dtype, copy=False)
        last[...] = rounded
        if special is None and np.isfinite(rounded).all():
            return 0
        window = window if special is None else np.where(finite, window, special)
        return _status(rounded, window, taps, first)


def _add_special(result: Array, special: Array, k: Array, start: int) -> None:
    """Add the terms of the elements of `special` that are not zero."""
    count, taps = result.shape[-1], k.shape[-1]
    special = np.broadcast_to(special, (*result.shape[:-1], special.shape[-1]))
    k = np.broadcast_to(k, (*result.shape[:-1], taps))
    for index in np.argwhere(special != 0):
        line, place = tuple(index[:-1]), int(index[-1])
        low, high = max(0, place - start), min(count, place - start + taps)
        if low < high:
            terms = special[line][place] * k[line][low + start - place : high + start - place]
            result[line][low:high] += terms
