"""Arguments of attention, checked and brought to one form that core and twin read."""

import math
from operator import index
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unitstride import _arguments

Array = NDArray[Any]
DType = np.dtype[Any]
Causal = bool | str | int | ArrayLike
Window = tuple[int | None, int | None]

# Offsets beyond this mean nothing for arrays that fit in memory; below it no sum overflows.
_FARTHEST = 1 << 40
_WORDS = '"top_left" or "bottom_right"'


class Inputs(NamedTuple):
    """Queries, keys and values with the same batch dimensions, in one dtype.

    Key j is within reach of query i when lowest <= j - i - offset <= highest.
    """

    query: Array  # (*batch, heads, queries, features)
    key: Array  # (*batch, key heads, keys, features)
    value: Array  # (*batch, key heads, keys, value features)
    mask: Array | None  # (*batch, heads, queries, keys), True = attend
    bias: Array | None  # the same shape
    offset: Array  # (*batch,) int64: the diagonal is j = i + offset
    lowest: int | None
    highest: int | None
    scale: float
    softcap: float | None
    slopes: Array | None  # (*batch, heads)
    sinks: Array | None  # (*batch, heads)
    query_lengths: Array  # (*batch,) int64
    key_lengths: Array  # (*batch,) int64

    @property
    def batch(self) -> tuple[int, ...]:
        """Return the batch dimensions."""
        return self.query.shape[:-3]


def check_number(function: str, argument: str, value: Any, positive: bool = False) -> float:
    """Return a finite number as a float; a positive one where asked."""
    if type(value) is float and math.isfinite(value) and not (positive and value <= 0.0):
        return value
    kind = "positive finite number" if positive else "finite number"
    text = f"{function}: `{argument}` must be a {kind}, got {value!r}"
    try:
        if isinstance(value, (str, bytes, complex)) or np.asarray(value).shape != ():
            raise TypeError(text)
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise TypeError(text) from None
    if not math.isfinite(number) or (positive and number <= 0.0):
        raise ValueError(text)
    return number


def _spread(function: str, argument: str, array: Array, shape: tuple[int, ...]) -> Array:
    lead = len(shape) - array.ndim
    if lead >= 0 and array.shape == shape[lead:] and shape[:lead] == (1,) * lead:
        return array[(np.newaxis,) * lead] if lead else array
    try:
        return np.broadcast_to(array, shape)
    except ValueError:
        raise ValueError(
            f"{function}: `{argument}` must be broadcastable to shape {shape}, "
            f"got shape {array.shape}"
        ) from None


def _integers(
    function: str, argument: str, value: ArrayLike, batch: tuple[int, ...], kind: str
) -> Array:
    array = _arguments.plain(function, argument, value)
    if array.dtype.kind not in "iu":
        got = repr(value) if array.ndim == 0 else _arguments.dtype_label(array.dtype)
        raise TypeError(f"{function}: `{argument}` must be {kind}, got {got}")
    return _spread(function, argument, array, batch)


def _filled(batch: tuple[int, ...], number: int) -> Array:
    array = np.empty(batch, np.int64)
    array.fill(number)
    return array


def _check_lengths(
    function: str, argument: str, value: ArrayLike | None, batch: tuple[int, ...], size: int
) -> Array:
    """Return the number of valid positions for each entry of the batch."""
    if value is None:
        return _filled(batch, size)
    array = _integers(function, argument, value, batch, "integers")
    wrong = (array < 0) | (array > size)
    if wrong.any():
        raise ValueError(
            f"{function}: `{argument}` must lie between 0 and {size}, got {array[wrong][0]}"
        )
    return array.astype(np.int64)


def _check_diagonal(
    function: str, causal: Any, batch: tuple[int, ...], queries: Array, keys: Array
) -> tuple[bool, Array]:
    """Return whether later keys are excluded, and the offset of the diagonal."""
    top_left = np.zeros(batch, np.int64)
    if isinstance(causal, (bool, np.bool_)):
        if causal and (queries != keys).any():
            n, m = (side[queries != keys][0] for side in (queries, keys))
            raise ValueError(
                f"{function}: `causal` must be {_WORDS} where the numbers of queries and keys "
                f"differ ({n} and {m}), got True"
            )
        return bool(causal), top_left
    if isinstance(causal, str):
        if causal not in ("top_left", "bottom_right"):
            raise ValueError(
                f"{function}: `causal` must be False, True, {_WORDS} or integer offsets, "
                f"got {causal!r}"
            )
        return True, top_left if causal == "top_left" else keys - queries
    kind = f"False, True, {_WORDS} or integer offsets"
    offset = _integers(function, "causal", causal, batch, kind)
    wrong = (offset > _FARTHEST) | (offset < -_FARTHEST)
    if wrong.any():
        raise ValueError(
            f"{function}: `causal` must not exceed 2**40 in magnitude, got {offset[wrong][0]}"
        )
    return True, offset.astype(np.int64)


def _check_window(function: str, window: Any) -> tuple[int | None, int | None]:
    """Return how far a query sees to each side of its diagonal; None is without limit."""
    if window is None:
        return None, None
    text = f"{function}: `window` must be two integers of 0 or more, None for an open side"
    if not isinstance(window, (tuple, list)) or len(window) != 2:
        raise TypeError(f"{text}, got {window!r}")
    sides: list[int | None] = []
    for side in window:
        try:
            reach = None if side is None else index(side)
        except TypeError:
            raise TypeError(f"{text}, got {window!r}") from None
        if isinstance(side, (bool, np.bool_)):
            raise TypeError(f"{text}, got {window!r}")
        if reach is not None and reach < 0:
            raise ValueError(f"{text}, got {window!r}")
        sides.append(None if reach is None or reach > 4 * _FARTHEST else reach)
    return sides[0], sides[1]


def _check_shapes(function: str, query: Array, key: Array, value: Array) -> tuple[int, ...]:
    """Return the batch dimensions of arrays that fit together."""
    for argument, array in (("query", query), ("key", key), ("value", value)):
        if array.ndim < 3:
            raise ValueError(
                f"{function}: `{argument}` must have at least 3 dimensions "
                f"(..., heads, length, features), got shape {array.shape}"
            )
    heads, features = query.shape[-3], query.shape[-1]
    groups = key.shape[-3]
    if key.shape[-1] != features:
        raise ValueError(
            f"{function}: `key` must have the {features} features of `query`, got shape {key.shape}"
        )
    if heads != groups and (groups == 0 or heads % groups != 0):
        raise ValueError(
            f"{function}: `key` must have a number of heads that divides the {heads} of `query`, "
            f"got {groups}"
        )
    if value.shape[-3:-1] != key.shape[-3:-1]:
        raise ValueError(
            f"{function}: `value` must have the {groups} heads and the length {key.shape[-2]} "
            f"of `key`, got shape {value.shape}"
        )
    batch: tuple[int, ...] = query.shape[:-3]
    if batch == key.shape[:-3] == value.shape[:-3]:
        return batch
    try:
        return np.broadcast_shapes(query.shape[:-3], key.shape[:-3], value.shape[:-3])
    except ValueError:
        raise ValueError(
            f"{function}: `query`, `key` and `value` must have batch dimensions that broadcast, "
            f"got shapes {query.shape}, {key.shape} and {value.shape}"
        ) from None


def _optional(
    function: str, argument: str, value: ArrayLike | None, shape: tuple[int, ...]
) -> Array | None:
    if value is None:
        return None
    return _spread(function, argument, _arguments.as_array(function, argument, value), shape)


def _check_mask(function: str, mask: ArrayLike, shape: tuple[int, ...]) -> Array:
    array = _arguments.plain(function, "mask", mask)
    if array.dtype != np.bool_:
        raise TypeError(
            f"{function}: `mask` must be boolean (True = attend; pass numbers as `bias`), "
            f"got {_arguments.dtype_label(array.dtype)}"
        )
    return _spread(function, "mask", array, shape)


def prepare(
    function: str,
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    *,
    mask: ArrayLike | None,
    bias: ArrayLike | None,
    causal: Causal,
    window: Window | None,
    scale: float | None,
    softcap: float | None,
    alibi_slopes: ArrayLike | None,
    sinks: ArrayLike | None,
    query_lengths: ArrayLike | None,
    key_lengths: ArrayLike | None,
) -> tuple[Inputs, DType]:
    """Check the arguments of attention; return them, and the dtype of the result."""
    q = _arguments.as_array(function, "query", query)
    k = _arguments.as_array(function, "key", key)
    v = _arguments.as_array(function, "value", value)
    dtype = q.dtype
    if not dtype == k.dtype == v.dtype:
        dtype = _arguments.wider(_arguments.wider(dtype, k.dtype), v.dtype)
        q, k, v = (array.astype(dtype, copy=False) for array in (q, k, v))
    batch = _check_shapes(function, q, k, v)
    q, k, v = (
        array if array.shape[:-3] == batch else np.broadcast_to(array, (*batch, *array.shape[-3:]))
        for array in (q, k, v)
    )
    heads, length, features = q.shape[-3:]
    full, by_head = (*batch, heads, length, k.shape[-2]), (*batch, heads)
    queries = _check_lengths(function, "query_lengths", query_lengths, batch, length)
    keys = _check_lengths(function, "key_lengths", key_lengths, batch, k.shape[-2])
    is_causal, offset = _check_diagonal(function, causal, batch, queries, keys)
    left, right = _check_window(function, window)
    default = 1.0 / math.sqrt(max(features, 1))
    inputs = Inputs(
        query=q,
        key=k,
        value=v,
        mask=None if mask is None else _check_mask(function, mask, full),
        bias=_optional(function, "bias", bias, full),
        offset=offset,
        lowest=None if left is None else -left,
        highest=0 if is_causal else right,
        scale=default if scale is None else check_number(function, "scale", scale),
        softcap=None if softcap is None else check_number(function, "softcap", softcap, True),
        slopes=_optional(function, "alibi_slopes", alibi_slopes, by_head),
        sinks=_optional(function, "sinks", sinks, by_head),
        query_lengths=queries,
        key_lengths=keys,
    )
    return inputs, dtype
