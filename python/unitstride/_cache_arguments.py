"""Arguments of caches: sizes, integers per sequence, parts of masks and biases."""

from operator import index
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unitstride._arguments import plain
from unitstride._cache_storage import Segment

Array = NDArray[Any]


def check_size(argument: str, value: Any, least: int) -> int:
    text = f"KVCache: `{argument}` must be an integer of {least} or more, got {value!r}"
    try:
        size = index(value)
    except TypeError:
        raise TypeError(text) from None
    if size < least:
        raise ValueError(text)
    return size


def check_per_sequence(
    function: str, argument: str, value: ArrayLike, batch: int, largest: Array | int
) -> Array:
    """Return one integer per sequence, between 0 and `largest`."""
    if type(value) is int and type(largest) is int and 0 <= value <= largest:
        return np.full(batch, value, np.int64)
    array = plain(function, argument, value)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{function}: `{argument}` must be integers, got {value!r}")
    if array.ndim > 1 or (array.ndim == 1 and len(array) not in (1, batch)):
        raise ValueError(
            f"{function}: `{argument}` must be one integer or one for each of {batch} sequences, "
            f"got shape {array.shape}"
        )
    numbers = np.broadcast_to(array.astype(np.int64), (batch,))
    wrong = (numbers < 0) | (numbers > largest)
    if wrong.any():
        limit = np.broadcast_to(largest, (batch,))[wrong][0]
        raise ValueError(
            f"{function}: `{argument}` must lie between 0 and {limit}, got {numbers[wrong][0]}"
        )
    return numbers.copy()


def check_columns(function: str, argument: str, array: ArrayLike | None, length: int) -> None:
    """Raise unless the last axis of a mask or bias speaks of all positions, or is broadcast."""
    shape = np.shape(array) if array is not None else ()
    if shape and shape[-1] not in (1, length):
        raise ValueError(
            f"{function}: `{argument}` must have a last axis of {length} (positions) or 1, "
            f"got shape {shape}"
        )


def columns(array: ArrayLike | None, segment: Segment) -> Array | None:
    """Return the part of a mask or bias that speaks of the keys of a segment."""
    if array is None:
        return None
    whole = np.asarray(array)
    if whole.ndim == 0 or whole.shape[-1] == 1:
        return whole
    return whole[..., segment.first : segment.first + segment.keys.shape[-2]]


def of_entries(array: ArrayLike | None, entries: slice, dimensions: int) -> Any:
    """Return the part of an option that speaks of some sequences."""
    if array is None:
        return None
    whole = np.asarray(array)
    return whole[entries] if whole.ndim == dimensions and whole.shape[0] != 1 else whole
