"""Few bits in optimisers, in plain NumPy: 8-bit blocks, random rounding, what rounding takes off.

Everything here is defined by the index of an element in the logical (C) order of its array, so that
the layout of the array, the number of threads and the order of work do not show in the bits.
"""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

BLOCK = 256  # elements that share a scale
_WORD = (1 << 64) - 1


def key_of(*numbers: int) -> int:
    """Return 64 bits that depend on all numbers and their order.

    Those of a step are seed, step, position of the array in its list, and operand. Each is mixed in
    by G. Steele, D. Lea, C. Flood, OOPSLA 2014.
    """
    return joined_key(0, *numbers)


def joined_key(key: int, *numbers: int) -> int:
    """Return the key of more numbers."""
    for number in numbers:
        key = (key + (number & _WORD) + 0x9E3779B97F4A7C15) & _WORD
        key = ((key ^ (key >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
        key = ((key ^ (key >> 27)) * 0x94D049BB133111EB) & _WORD
        key ^= key >> 31
    return key


def random_bits(key: int, indices: Array) -> Array:
    """Return 16 random bits for each index of 32 bits, by the two halves of a key."""
    low, high = np.uint32(key & 0xFFFFFFFF), np.uint32(key >> 32)
    x = indices ^ low
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> np.uint32(15))) + high
    x = x * np.uint32(0x846CA68B)
    return np.asarray(x >> np.uint32(16))


def round_stochastically(values: Array, dtype: np.dtype[Any], first: int, key: int) -> Array:
    """Round a line of float32 up or down, so that the result is right on average.

    The random bits follow from a key and from the index of each element modulo 2^32, `first` being
    that of the first one. What is above the range becomes infinite; NaN stays what it is.
    """
    bits = values.view(np.uint32)
    indices = np.arange(first, first + values.size, dtype=np.uint64).astype(np.uint32)
    random = random_bits(key, indices)
    if dtype.name == "bfloat16":
        drawn = (bits + random) & np.uint32(0xFFFF0000)
    else:
        random = random >> np.uint32(3)
        normal = (bits + random) & np.uint32(0xFFFFE000)
        # Below 2^-14 neighbours are 2^-24 apart; sums of whole numbers and 13 bits are exact.
        magnitude = bits & np.uint32(0x7FFFFFFF)
        is_tiny = magnitude < np.uint32(0x38800000)
        in_range = np.where(is_tiny, magnitude, np.uint32(0)).view(np.float32)
        noise = random.astype(np.float32) * np.float32(2.0**-13)
        whole = np.floor(in_range * np.float32(2.0**24) + noise) * np.float32(2.0**-24)
        tiny = whole.view(np.uint32) | (bits & np.uint32(0x80000000))
        drawn = np.where(is_tiny, tiny, normal)
    with np.errstate(all="ignore"):
        chosen = np.where(np.isfinite(values), drawn.view(np.float32), values)
        return np.asarray(chosen.astype(dtype))


def remainder(wide: Array, narrow: Array) -> Array:
    """Return what rounding to a parameter has taken off; nothing where that is not finite."""
    kept = narrow.astype(np.float32)
    return np.where(np.isfinite(kept), wide - kept, np.float32(0))


_SIZES = np.array([1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0])  # the highest value of each decade
_LARGEST = np.finfo(np.float32).max


@lru_cache(maxsize=2)
def _magnitudes(signed: bool) -> Array:
    """Return the values of a byte that are not negative.

    They are 0, the middles of equal intervals in each of seven decades, and 1. T. Dettmers et al.,
    "8-bit optimizers via block-wise quantization", arXiv:2110.02861.
    """
    values = [np.zeros(1)]
    for decade, size in enumerate(_SIZES):
        count = 2 ** (decade + (not signed))
        middles = (2 * np.arange(count) + 1) / (2 * count)
        values.append(size * (0.1 + 0.9 * middles))
    return np.concatenate([*values, np.ones(1)]).astype(np.float32)


@lru_cache(maxsize=2)
def code_values(signed: bool) -> Array:
    """Return what the 256 codes stand for, in ascending order; -1 is not among them."""
    values = _magnitudes(signed)
    return np.concatenate([-values[-2:0:-1], values]) if signed else values


@lru_cache(maxsize=2)
def _middles(signed: bool) -> Array:
    values = _magnitudes(signed).astype(np.float64)
    return np.asarray(((values[:-1] + values[1:]) / 2).astype(np.float32))


def encode(values: Array, signed: bool) -> tuple[Array, Array]:
    """Return the codes of a line of float32, and the largest magnitude of each block.

    A value is that of the nearest code times its block's magnitude; unsigned ones that are positive
    do not become zero, as they are divisors. A block with NaN or an infinity has the magnitude NaN.
    """
    rows = np.zeros((-(-values.size // BLOCK), BLOCK), np.float32)
    rows.reshape(-1)[: values.size] = np.abs(values)
    with np.errstate(all="ignore"):
        scales = rows.max(axis=1, initial=0)
        scales[~np.isfinite(scales)] = np.nan
        lift = np.where(scales < 2.0**-100, np.float32(2.0**64), np.float32(1))
        rows *= lift[:, None]
        inverse = np.float32(1) / (scales * lift)
        rows *= np.where(inverse < _LARGEST, inverse, _LARGEST)[:, None]
        places = np.searchsorted(_middles(signed), rows.reshape(-1)[: values.size], side="left")
        if signed:
            places = np.where(values < 0, 127 - np.minimum(places, 127), 127 + places)
        else:
            places = np.where(values > 0, np.maximum(places, 1), 0)
    return places.astype(np.uint8), scales


def decode(codes: Array, scales: Array, signed: bool) -> Array:
    """Return the float32 values of a line of codes, from the beginning of a block on."""
    values = code_values(signed)[codes]
    with np.errstate(all="ignore"):
        values *= np.repeat(scales, BLOCK)[: values.size]
    return np.asarray(values)
