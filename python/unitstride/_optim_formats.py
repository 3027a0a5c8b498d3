"""Numbers of few bits in optimisers: 8-bit states in blocks, stochastic rounding."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

BLOCK = 256  # elements that share a scale
_DECADES = 7


@lru_cache(maxsize=2)
def code_values(signed: bool) -> Array:
    """Return what the 256 codes stand for, in ascending order: decades from 1e-6 to 1.

    Each decade has twice as many numbers as the one below, evenly spaced; zero and one are among
    them [T. Dettmers, "8-bit approximations for parallelism in deep learning", 2016].
    """
    numbers = [0.0, 1.0]
    for decade in range(_DECADES):
        count = 2 ** (decade if signed else decade + 1)
        edges = np.linspace(0.1, 1.0, count + 1)
        middles = 10.0 ** (decade - _DECADES + 1) * (edges[:-1] + edges[1:]) / 2
        numbers += [*middles, *(-middles if signed else ())]
    values = np.sort(np.array(numbers, np.float32))
    return np.concatenate([values, np.ones(BLOCK - values.size, np.float32)])


@lru_cache(maxsize=2)
def _middles(signed: bool) -> Array:
    values = code_values(signed).astype(np.float64)
    return ((values[:-1] + values[1:]) / 2).astype(np.float32)


class BlockwiseState:
    """A state of an optimiser in 8 bits an element, each 256 of them with a scale of their own.

    Parameters
    ----------
    shape : tuple of int
        The shape of the parameter.
    signed : bool
        Whether elements may be negative; second moments are not.

    Attributes
    ----------
    codes : ndarray of uint8
        One for each element: places in a table of 256 numbers from -1 (or 0) to 1, which are
        close together near zero.
    scales : ndarray of float32
        The largest magnitude of each 256 elements in C order.

    Notes
    -----
    The error is at most half of the distance of the two numbers of the table around an element; a
    positive element of an unsigned state never becomes zero, and a block that holds NaN or an
    infinity becomes NaN.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import BlockwiseState
    >>> state = BlockwiseState((2, 2), signed=True)
    >>> state.assign(np.array([[1.0, -0.5], [0.0, 1e-3]]))
    >>> state.to_array().round(3)
    array([[ 1.   , -0.501],
           [ 0.   ,  0.001]], dtype=float32)
    """

    def __init__(self, shape: Sequence[int] | int, signed: bool) -> None:
        self.signed = bool(signed)
        zero = int(np.searchsorted(code_values(self.signed), 0))
        self.codes = np.full(shape, zero, np.uint8)
        self.scales = np.zeros(-(-self.codes.size // BLOCK), np.float32)

    @classmethod
    def of(cls, codes: Array, scales: Array, signed: bool) -> "BlockwiseState":
        """Return a state on arrays that exist."""
        state = cls.__new__(cls)
        state.codes, state.scales, state.signed = codes, scales, signed
        return state

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the parameter."""
        return self.codes.shape

    @property
    def size(self) -> int:
        """The number of elements."""
        return self.codes.size

    def read(self, begin: int, end: int) -> Array:
        """Return elements in C order, from a multiple of 256 on."""
        values = code_values(self.signed)[self.codes.reshape(-1)[begin:end]]
        values *= np.repeat(self.scales[begin // BLOCK : -(-end // BLOCK)], BLOCK)[: end - begin]
        return np.asarray(values)

    def write(self, begin: int, values: Array) -> None:
        """Replace elements in C order, from a multiple of 256 on; whole blocks, or to the end."""
        count = values.size
        blocks = -(-count // BLOCK)
        rows = np.zeros((blocks, BLOCK), np.float32)
        rows.reshape(-1)[:count] = values
        scales = np.abs(rows).max(axis=1)
        with np.errstate(all="ignore"):
            scales[~np.isfinite(scales)] = np.nan
            rows /= np.where(scales > 0, scales, 1)[:, None]
        part = rows.reshape(-1)[:count]
        codes = np.searchsorted(_middles(self.signed), part, side="right")
        if not self.signed:  # a divisor that is not zero stays so
            codes[(codes == 0) & (part > 0)] = 1
        self.codes.reshape(-1)[begin : begin + count] = codes.astype(np.uint8)
        self.scales[begin // BLOCK : begin // BLOCK + blocks] = scales

    def assign(self, values: Any) -> None:
        """Replace all elements."""
        given = np.ascontiguousarray(values, np.float32)
        if given.shape != self.shape:
            raise ValueError(
                f"BlockwiseState: `values` must have shape {self.shape}, got {given.shape}"
            )
        self.write(0, given.reshape(-1))

    def to_array(self) -> Array:
        """Return the elements as float32."""
        return self.read(0, self.size).reshape(self.shape)

    def __repr__(self) -> str:
        kind = "signed" if self.signed else "unsigned"
        return f"BlockwiseState(shape={self.shape}, {kind}, {self.scales.size} blocks)"


# Stochastic rounding.


def _hashed(indices: Array, key: int) -> Array:
    """Return 32 random bits for each index: the same for the same key, whatever the order."""
    with np.errstate(over="ignore"):
        z = indices * np.uint64(0x9E3779B97F4A7C15) + np.uint64(key)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray((z ^ (z >> np.uint64(31))) >> np.uint64(32)).astype(np.uint32)


def key_of(seed: int, step: int, array: int, operand: int) -> int:
    """Return the key of the random bits of one array at one step."""
    mixed = (seed & (2**64 - 1)) * 0xD1342543DE82EF95 + step * 0x2545F4914F6CDD1D
    mixed += array * 0x9FB21C651E98DF25 + operand * 0xC2B2AE3D27D4EB4F
    mixed &= 2**64 - 1
    mixed ^= mixed >> 29
    return (mixed * 0x9E3779B97F4A7C15) & (2**64 - 1)


def round_stochastically(values: Array, dtype: np.dtype[Any], first: int, key: int) -> Array:
    """Round float32 up or down, with the probabilities that make the result right on average.

    `first` is the index of the first element, `key` that of the random bits.
    """
    random = _hashed(np.arange(first, first + values.size, dtype=np.uint64), key)
    if dtype.name == "bfloat16":
        bits = values.view(np.uint32)
        raised = bits + (random & np.uint32(0xFFFF))
        raised = np.where(np.isfinite(values), raised, bits | ((bits & 0xFFFF) != 0) * 0x10000)
        return (raised >> np.uint32(16)).astype(np.uint16).view(dtype)
    with np.errstate(all="ignore"):
        near = values.astype(dtype)
        past = np.abs(near.astype(np.float32)) > np.abs(values)
        low = np.where(past, np.nextafter(near, dtype.type(0)), near).astype(dtype)
        high = np.nextafter(low, np.where(np.signbit(values), -np.inf, np.inf).astype(dtype))
        base = low.astype(np.float32)
        share = (values - base) / (high.astype(np.float32) - base)
        chosen = (random >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24) < share
        found = np.where(chosen, high, low)
        return np.where(np.isfinite(values) & np.isfinite(base), found, near).astype(dtype)
