"""Rows: an array of any layout as a 2-D float64 matrix, one row per reduction, and back."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from unitstride._float_status import INVALID, OVERFLOW

Array = NDArray[Any]
Rows = NDArray[np.float64]
Mask = NDArray[np.bool_]


def _rows_last(array: Array, axes: tuple[int, ...]) -> Array:
    """View `array` with the reduced axes at the end."""
    return array.transpose([i for i in range(array.ndim) if i not in axes] + list(axes))


def _to_matrix(array: Array, axes: tuple[int, ...], dtype: type) -> Array:
    """Copy (..., axes, ...) to a contiguous (rows, elements) of `dtype`."""
    moved = _rows_last(array, axes)
    kept = moved.shape[: array.ndim - len(axes)]
    rows = int(np.prod(kept, dtype=np.int64))
    columns = int(np.prod(moved.shape[len(kept) :], dtype=np.int64))
    return np.array(moved, dtype=dtype, order="C").reshape(rows, columns)


def to_rows(array: Array, axes: tuple[int, ...]) -> Rows:
    """Copy (..., axes, ...) to float64 (rows, elements)."""
    return _to_matrix(array, axes, np.float64)


def rejected_rows(where: Array | None, axes: tuple[int, ...]) -> Mask | None:
    """Copy the mask to (rows, elements), True where an element takes no part; None for None."""
    return None if where is None else ~_to_matrix(where, axes, np.bool_)


def from_rows(rows: Rows, out: Array, axes: tuple[int, ...]) -> Array:
    """Round (rows, elements) once to the dtype of `out` and store; return the rounded values."""
    rounded = rows.astype(out.dtype, copy=False)
    moved = _rows_last(out, axes)
    moved[...] = rounded.reshape(moved.shape)
    return rounded


def column(reduced: Array) -> Rows:
    """Copy an array of reduced shape to float64 (rows, 1)."""
    return np.array(reduced, dtype=np.float64, order="C").reshape(-1, 1)


def float_status(result: Array, *inputs: Rows) -> int:
    """Status of rows of results: NaN out of no NaN is invalid, inf out of finite is overflow."""
    has_nan = np.zeros((len(result), 1), dtype=np.bool_)
    all_finite = np.ones((len(result), 1), dtype=np.bool_)
    for rows in inputs:
        has_nan |= np.isnan(rows).any(axis=1, keepdims=True)
        all_finite &= np.isfinite(rows).all(axis=1, keepdims=True)
    invalid = (np.isnan(result) & ~has_nan).any()
    overflow = (np.isinf(result) & all_finite).any()
    return (INVALID if invalid else 0) | (OVERFLOW if overflow else 0)
