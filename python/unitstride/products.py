"""NumPy's products of arrays on the engine of einsum."""

import operator
from collections.abc import Sequence
from typing import Any

from numpy.lib.array_utils import normalize_axis_index
from numpy.typing import ArrayLike, DTypeLike, NDArray

from unitstride import _einsum_call
from unitstride._einsum_parse import Subscripts, parse_lists
from unitstride._einsum_run import as_operand

__all__ = ["inner", "matmul", "outer", "tensordot"]

Array = NDArray[Any]

_KEEP, _SAME_KIND = "K", "same_kind"
_run_again = _einsum_call.run_again


def _pair(function: str, first: ArrayLike, second: ArrayLike) -> tuple[Array, Array]:
    return as_operand(function, 0, first), as_operand(function, 1, second)


def _check_sum(function: str, a: Array, b: Array, pairs: Sequence[tuple[int, int]]) -> None:
    """Raise unless the axes that are summed have the same sizes; one is not broadcast here."""
    for i, j in pairs:
        if a.shape[i] != b.shape[j]:
            raise ValueError(
                f"{function}: the summed axes must have the same size, got {a.shape[i]} in shape "
                f"{a.shape} and {b.shape[j]} in shape {b.shape}"
            )


def matmul(
    x1: ArrayLike,
    x2: ArrayLike,
    /,
    out: Array | None = None,
    *,
    casting: str = _SAME_KIND,
    order: str | None = _KEEP,
    dtype: DTypeLike | None = None,
) -> Any:
    """Multiply matrices, or stacks of them, as `numpy.matmul` does.

    Parameters
    ----------
    x1, x2 : array_like
        Arrays of shapes (..., n, k) and (..., k, m); the other axes are broadcast. One without a
        second axis is a vector, (k,), and its axis is missing in the result.
    out : ndarray, optional
        Array for the result, of exactly its shape. It may share memory with operands.
    casting, order, dtype
        As for `einsum`; `casting` is "same_kind" by default.

    Returns
    -------
    ndarray or scalar
        Array of shape (..., n, m); `out` itself when it is given.

    Raises
    ------
    ValueError
        For operands without axes, and sizes that differ.
    TypeError
        As for `einsum`.

    Notes
    -----
    Accuracy and bits are those of `einsum`. Complexity: O(n k m) for each matrix.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import matmul
    >>> matmul(np.eye(2), np.arange(6.0).reshape(3, 2, 1)).shape
    (3, 2, 1)
    >>> float(matmul([1.0, 2.0], [3.0, 4.0]))
    11.0
    """
    key = None
    if dtype is None and order is _KEEP and casting is _SAME_KIND:
        key = "matmul:"  # no subscripts contain a colon
        found = _run_again(key, (x1, x2), out, 1, 0)
        if found is not None:
            return _einsum_call.reported("matmul", found)
    a, b = _pair("matmul", x1, x2)
    if not a.ndim or not b.ndim:
        raise ValueError(
            f"matmul: `x1` and `x2` must have at least one axis, got shapes {a.shape} and {b.shape}"
        )
    _check_sum("matmul", a, b, [(-1, 0 if b.ndim == 1 else -2)])
    rows, columns = [0] * (a.ndim > 1), [2] * (b.ndim > 1)
    a_labels = [*([Ellipsis] * (a.ndim > 1)), *rows, 1]
    b_labels = [*([Ellipsis] * (b.ndim > 1)), 1, *columns]
    labels = [Ellipsis, *rows, *columns]
    return _einsum_call.contract(
        "matmul",
        [a, b],
        lambda: parse_lists("matmul", [a_labels, b_labels], labels, (a.ndim, b.ndim)),
        "matmul",
        out,
        dtype,
        order,
        casting,
        direct_key=key,
    )


def _axes_of(function: str, axes: Any, dimensions: int) -> tuple[int, ...]:
    """Return the axes as different non-negative numbers."""
    try:
        entries = [operator.index(axes)]
    except TypeError:
        try:
            entries = [operator.index(axis) for axis in axes]
        except TypeError:
            raise TypeError(
                f"{function}: `axes` must be an integer, or a pair of integers or sequences of "
                f"integers, got {axes!r}"
            ) from None
    found = tuple(normalize_axis_index(axis, dimensions, function) for axis in entries)
    if len(set(found)) != len(found):
        raise ValueError(f"{function}: `axes` must not repeat an axis, got {axes!r}")
    return found


def _count_or_pair(function: str, axes: Any) -> tuple[int, tuple[Any, Any] | None]:
    """Return how many axes are summed, or those of either array."""
    try:
        return operator.index(axes), None
    except TypeError:
        pass
    try:
        first, second = axes
    except (TypeError, ValueError):
        raise TypeError(
            f"{function}: `axes` must be an integer, or a pair of integers or sequences of "
            f"integers, got {axes!r}"
        ) from None
    return 0, (first, second)


def tensordot(a: ArrayLike, b: ArrayLike, axes: Any = 2) -> Any:
    """Sum products over pairs of axes, as `numpy.tensordot` does.

    Parameters
    ----------
    a, b : array_like
        Arrays of any shapes.
    axes : int or pair of ints or of sequences of ints, default 2
        How many of the last axes of `a` meet the first of `b`, or the axes of `a` and those of `b`
        that are summed together, in order.

    Returns
    -------
    ndarray or scalar
        The other axes of `a` and then those of `b`.

    Raises
    ------
    ValueError
        For axes that are repeated, numbers of axes or sizes that differ.
    numpy.exceptions.AxisError
        For an axis out of range.
    TypeError
        As for `einsum`.

    Notes
    -----
    Accuracy and bits are those of `einsum`. No array is transposed in memory. Complexity: the
    product of the sizes of all axes.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import tensordot
    >>> tensordot(np.ones((2, 3, 4)), np.ones((4, 3, 5)), axes=([1, 2], [1, 0])).shape
    (2, 5)
    """
    name = "tensordot"
    key = None
    if type(axes) is int:
        key = f"tensordot:{axes}"
        found = _run_again(key, (a, b), None, 1, 0)
        if found is not None:
            return _einsum_call.reported(name, found)
    x, y = _pair(name, a, b)
    count, pair = _count_or_pair(name, axes)
    if pair is None:
        if not 0 <= count <= min(x.ndim, y.ndim):
            raise ValueError(
                f"{name}: `axes` must be at most the number of axes of `a` and `b`, got {count} "
                f"for shapes {x.shape} and {y.shape}"
            )
        first, second = tuple(range(x.ndim - count, x.ndim)), tuple(range(count))
    else:
        first, second = _axes_of(name, pair[0], x.ndim), _axes_of(name, pair[1], y.ndim)
    if len(first) != len(second):
        raise ValueError(f"{name}: `axes` must have as many axes of `a` as of `b`, got {axes!r}")
    _check_sum(name, x, y, list(zip(first, second, strict=True)))

    def subscripts() -> Subscripts:
        x_labels = list(range(x.ndim))
        y_labels = list(range(x.ndim, x.ndim + y.ndim))
        for i, j in zip(first, second, strict=True):
            y_labels[j] = x_labels[i]
        kept = [k for k in x_labels if k not in first] + [k for k in y_labels if k >= x.ndim]
        return parse_lists(name, [x_labels, y_labels], kept, (x.ndim, y.ndim))

    return _einsum_call.contract(name, [x, y], subscripts, (name, first, second), direct_key=key)


def inner(a: ArrayLike, b: ArrayLike, /) -> Any:
    """Sum products over the last axes of two arrays, as `numpy.inner` does.

    Parameters
    ----------
    a, b : array_like
        Arrays whose last axes have the same size. One without axes multiplies the other.

    Returns
    -------
    ndarray or scalar
        Array of shape ``(*a.shape[:-1], *b.shape[:-1])``.

    Raises
    ------
    ValueError, TypeError
        As for `tensordot`.

    Notes
    -----
    Accuracy and bits are those of `einsum`. Complexity: the product of the sizes of all axes.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import inner
    >>> inner(np.eye(2), np.array([3.0, 4.0]))
    array([3., 4.])
    """
    key = "inner:"
    found = _run_again(key, (a, b), None, 1, 0)
    if found is not None:
        return _einsum_call.reported("inner", found)
    x, y = _pair("inner", a, b)
    shared = 1 if x.ndim and y.ndim else 0
    if shared:
        _check_sum("inner", x, y, [(-1, -1)])

    def subscripts() -> Subscripts:
        x_labels = list(range(x.ndim))
        y_labels = list(range(x.ndim, x.ndim + y.ndim))
        if shared:
            y_labels[-1] = x_labels[-1]
        kept = x_labels[: x.ndim - shared] + y_labels[: y.ndim - shared]
        return parse_lists("inner", [x_labels, y_labels], kept, (x.ndim, y.ndim))

    return _einsum_call.contract("inner", [x, y], subscripts, "inner", direct_key=key)


def outer(a: ArrayLike, b: ArrayLike, out: Array | None = None) -> Any:
    """Multiply each element of one array with each of another, as `numpy.outer` does.

    Parameters
    ----------
    a, b : array_like
        Arrays of any shapes, taken as vectors of their elements.
    out : ndarray, optional
        Array for the result, of exactly its shape.

    Returns
    -------
    ndarray
        Array of shape (a.size, b.size); `out` itself when it is given.

    Raises
    ------
    ValueError, TypeError
        As for `einsum`.

    Notes
    -----
    Each product is rounded once. Complexity: O(a.size * b.size).

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import outer
    >>> outer(np.array([1.0, 2.0]), np.array([3.0, 4.0]))
    array([[3., 4.],
           [6., 8.]])
    """
    x, y = (array.reshape(-1) for array in _pair("outer", a, b))
    key = "outer:"
    found = _run_again(key, (x, y), out, 1, 0)
    if found is not None:
        return _einsum_call.reported("outer", found)
    return _einsum_call.contract(
        "outer",
        [x, y],
        lambda: Subscripts(((0,), (1,)), (0, 1), ("i", "j")),
        "outer",
        out,
        direct_key=key,
    )
