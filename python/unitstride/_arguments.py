"""Argument rules that every operation shares, so that core and twin raise the same errors.

Each check names the function and the argument: "<function>: `<argument>` must <property>, got
<value>". TypeError is for dtypes and kinds, ValueError for shapes and values, AxisError for axes.
"""

import math
from functools import lru_cache
from operator import index
from typing import Any

import numpy as np
from numpy.exceptions import AxisError
from numpy.typing import ArrayLike, DTypeLike, NDArray

from unitstride._float_status import report_float_status

__all__ = [
    "as_array",
    "broadcast_mask",
    "check_dtype",
    "check_shape",
    "check_temperature",
    "companion",
    "dtype_label",
    "has_element_strides",
    "join_weights",
    "joins_weakly",
    "native_float",
    "normalize_axes",
    "plain",
    "prepare",
    "promoted",
    "reduced_shape",
    "report_float_status",
    "wider",
    "with_axis",
]

DType = np.dtype[Any]
Array = NDArray[Any]

_FLOAT_NAMES = ("float16", "bfloat16", "float32", "float64")
_FLOAT32 = np.dtype(np.float32)
_FLOAT64 = np.dtype(np.float64)


@lru_cache(maxsize=64)
def native_float(dtype: DType) -> DType | None:
    """Return the dtype in which an array of `dtype` is computed, None when there is none.

    The four floating dtypes stay (in native byte order), booleans and integers become float64.
    bfloat16 is known by its name, so that ml_dtypes need not be installed.
    """
    if dtype.kind in "biu":
        return _FLOAT64
    return dtype.newbyteorder("=") if dtype.name in _FLOAT_NAMES else None


def dtype_label(dtype: DType) -> str:
    """Return the name of a dtype for messages; ">f4" and the like for foreign byte order."""
    return dtype.name if dtype.isnative else dtype.str


def check_dtype(function: str, dtype: DTypeLike | None) -> DType | None:
    """Return the dtype asked for by ``dtype=``: one of the four floating dtypes, or None."""
    if dtype is None:
        return None
    try:
        asked = np.dtype(dtype)
    except (TypeError, ValueError):
        asked = None
    if asked is None or asked.name not in _FLOAT_NAMES:
        got = repr(dtype) if asked is None else dtype_label(asked)
        raise TypeError(
            f"{function}: `dtype` must be float16, bfloat16, float32 or float64, got {got}"
        )
    return asked.newbyteorder("=")


def has_element_strides(array: Array) -> bool:
    """Say whether all strides are whole elements, as the core needs; views of records may not."""
    return array.flags.aligned or not any(step % array.itemsize for step in array.strides)


def plain(function: str, argument: str, value: Any) -> Array:
    """Return any array_like as NumPy reads it, or raise an error that names the argument."""
    try:
        return np.asarray(value)
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        shown = repr(value) if len(repr(value)) < 80 else type(value).__name__
        raise kind(
            f"{function}: `{argument}` must be an array or nested sequences of equal lengths, "
            f"got {shown}"
        ) from error


def as_array(function: str, argument: str, value: ArrayLike, dtype: DType | None = None) -> Array:
    """Convert an input to a plain array of a floating dtype in native byte order.

    Memory is copied only when the dtype changes or the strides are not whole elements. With
    `dtype`, real input of any precision (longdouble too) is cast to it.
    """
    array = plain(function, argument, value)
    if array is not value and isinstance(value, np.ma.MaskedArray):
        raise TypeError(
            f"{function}: `{argument}` must be an array without a mask, got MaskedArray "
            "(pass `where=~mask` and the data)"
        )
    target = native_float(array.dtype)
    if dtype is not None and (target is not None or array.dtype.kind == "f"):
        target = dtype
    if target is None:
        advice = " (longdouble has no kernel: pass `dtype=`)" if array.dtype.kind == "f" else ""
        raise TypeError(
            f"{function}: `{argument}` must be real floating point, integer or boolean, "
            f"got {dtype_label(array.dtype)}{advice}"
        )
    if array.dtype != target:
        with np.errstate(all="ignore"):
            return array.astype(target)
    return array if has_element_strides(array) else array.copy()


def wider(first: DType, second: DType) -> DType:
    """Return the floating dtype that holds both; float16 and bfloat16 meet in float32."""
    if first == second:
        return first
    return _FLOAT64 if max(first.itemsize, second.itemsize) > 4 else _FLOAT32


def joins_weakly(value: ArrayLike) -> bool:
    """Say whether a value has no floating dtype of its own: Python numbers, integers, booleans."""
    return isinstance(value, (int, float)) or np.asarray(value).dtype.kind in "biu"


def companion(function: str, argument: str, value: ArrayLike, dtype: DType) -> tuple[Array, DType]:
    """Convert an array that joins another of `dtype` (weights, a cotangent).

    Returns the array and the dtype to work in: the wider of the two, so that a float64 cotangent
    of a bfloat16 array is not rounded before it is used. Integers, booleans and Python numbers
    do not widen float32 and float64; 16-bit types widen to float32 for them.
    """
    array = as_array(function, argument, value)
    if joins_weakly(value):
        working = wider(dtype, _FLOAT32) if dtype.itemsize < 4 else dtype
    else:
        working = wider(dtype, array.dtype)
    return array, working


def _axis_index(function: str, entry: Any, axis: object, dimensions: int) -> int:
    """Return one axis as a number from 0; a 0-dimensional array counts as one element."""
    try:
        position = None if isinstance(entry, (bool, np.bool_)) else index(entry)
    except TypeError:
        position = None
    if position is None:
        raise TypeError(
            f"{function}: `axis` must be an integer, a tuple of integers or None, got {axis!r}"
        )
    limit = max(dimensions, 1)
    if not -limit <= position < limit:
        raise AxisError(position, dimensions, function)
    return position % limit


def normalize_axes(function: str, axis: object, dimensions: int) -> tuple[int, ...]:
    """Return the axes as sorted non-negative numbers; none for a 0-dimensional array."""
    if axis is None:
        return tuple(range(dimensions))
    entries = axis if isinstance(axis, tuple) else (axis,)
    axes = sorted(_axis_index(function, entry, axis, dimensions) for entry in entries)
    if len(set(axes)) != len(axes):
        raise ValueError(f"{function}: `axis` must not repeat an axis, got {axis!r}")
    return tuple(axes) if dimensions else ()


def reduced_shape(
    shape: tuple[int, ...], axes: tuple[int, ...], keepdims: bool = False
) -> tuple[int, ...]:
    """Return the shape after a reduction over `axes`."""
    if keepdims:
        return tuple(1 if i in axes else size for i, size in enumerate(shape))
    return tuple(size for i, size in enumerate(shape) if i not in axes)


def with_axis(
    axes: tuple[int, ...], first: Array, *others: Array | None
) -> tuple[tuple[int, ...], list[Array | None]]:
    """Give arrays a last axis of one element where nothing is reduced: kernels need an axis."""
    if axes:
        return axes, [first, *others]
    arrays = [None if array is None else array[..., np.newaxis] for array in (first, *others)]
    return (first.ndim,), arrays


def check_temperature(function: str, temperature: Any) -> float:
    """Return the temperature as a float; it is a positive finite number."""
    if type(temperature) is float and 0.0 < temperature < math.inf:
        return temperature
    is_number = (
        hasattr(temperature, "__float__")
        and getattr(temperature, "ndim", 0) == 0
        and getattr(getattr(temperature, "dtype", None), "kind", "f") not in "cSUOMm"
    )
    try:
        value = float(temperature) if is_number else math.nan
    except OverflowError:
        value = math.inf
    except (TypeError, ValueError):
        is_number, value = False, math.nan
    if not 0.0 < value < math.inf:
        error, got = (ValueError, temperature) if is_number else (TypeError, repr(temperature))
        raise error(f"{function}: `temperature` must be a positive finite number, got {got}")
    return value


def _broadcast(function: str, argument: str, array: Array, shape: tuple[int, ...]) -> Array:
    """Return a read-only view of `array` in `shape`."""
    if array.shape == shape:
        return array
    try:
        return np.broadcast_to(array, shape)
    except ValueError:
        raise ValueError(
            f"{function}: `{argument}` must be broadcastable to shape {shape}, "
            f"got shape {array.shape}"
        ) from None


def broadcast_mask(function: str, where: ArrayLike | None, shape: tuple[int, ...]) -> Array | None:
    """Return the mask in the shape of the input, or None when everything is selected."""
    if where is None or where is True:
        return None
    mask = plain(function, "where", where)
    if mask.dtype != np.bool_:
        raise TypeError(f"{function}: `where` must be boolean, got {dtype_label(mask.dtype)}")
    return _broadcast(function, "where", mask, shape)


def prepare(
    function: str,
    argument: str,
    value: ArrayLike,
    axis: object,
    where: ArrayLike | None,
    temperature: Any,
    dtype: DType | None = None,
) -> tuple[Array, tuple[int, ...], float, Array | None]:
    """Check the arguments that all of the softmax family have; return them in plain form."""
    values = as_array(function, argument, value, dtype)
    axes = normalize_axes(function, axis, values.ndim)
    scale = check_temperature(function, temperature)
    return values, axes, scale, broadcast_mask(function, where, values.shape)


def join_weights(
    function: str, x: ArrayLike, b: ArrayLike, dtype: DType | None = None
) -> tuple[Array, Array, DType]:
    """Return the input and the weights `b` of a sum in one shape, and the dtype of the result.

    That is the dtype asked for, or the one to which NumPy promotes both. The weights have the
    dtype to compute in, the wider of the two.
    """
    values = as_array(function, "x", x, dtype)
    weights, working = companion(function, "b", b, values.dtype)
    own = dtype if dtype is not None else promoted(values.dtype, b, working)
    weights = weights.astype(wider(working, own), copy=False)
    try:
        shape = np.broadcast_shapes(values.shape, weights.shape)
    except ValueError:
        shape = values.shape
    weights = _broadcast(function, "b", weights, shape)
    return np.broadcast_to(values, shape), weights, own


def promoted(dtype: DType, other: ArrayLike, working: DType) -> DType:
    """Return the dtype of a result of `dtype` and another input, by NumPy's rules.

    Python numbers do not widen. NumPy has no rules for bfloat16, for which `working` is taken.
    """
    if isinstance(other, (bool, int, float)) and not isinstance(other, np.generic):
        return dtype
    found = np.asarray(other).dtype
    if dtype.kind != "f" or found.kind not in "biuf":
        return working
    return np.result_type(dtype, found)


def check_shape(function: str, argument: str, array: Array, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless `array` has exactly `shape`."""
    if array.shape != shape:
        raise ValueError(f"{function}: `{argument}` must have shape {shape}, got {array.shape}")


def storage_view(array: Array | None) -> Array | None:
    """View bfloat16 arrays as uint16, the form in which the core takes them."""
    if array is not None and array.dtype.kind == "V":
        return array.view(np.uint16)
    return array
