"""NumPy's views of axes and diagonals, and the sum of diagonals."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.exceptions import AxisError
from numpy.typing import ArrayLike, DTypeLike, NDArray

from unitstride import _einsum_call
from unitstride._einsum_parse import Subscripts
from unitstride._einsum_run import as_operand

__all__ = ["diagonal", "trace", "transpose"]

Array = NDArray[Any]


def _named(function: str, view: Callable[..., Array], *arguments: Any) -> Array:
    """Take a view of NumPy's; its errors name the function."""
    try:
        return view(*arguments)
    except AxisError as error:
        if error.axis is None or error.ndim is None:
            raise
        raise AxisError(error.axis, error.ndim, function) from None
    except (TypeError, ValueError, OverflowError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{function}: {error}") from None


def transpose(a: ArrayLike, axes: Sequence[int] | None = None) -> Array:
    """Return a view with the axes in another order, as `numpy.transpose` does.

    Parameters
    ----------
    a : array_like
        Array of any shape.
    axes : sequence of int, optional
        The axes of `a` in their new order; reversed by default.

    Returns
    -------
    ndarray
        A view of `a`.

    Raises
    ------
    ValueError, numpy.exceptions.AxisError
        For axes that are repeated, missing or out of range.

    Notes
    -----
    Nothing is copied; the functions of this library read transposed views as they are. Complexity:
    O(a.ndim).

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import transpose
    >>> transpose(np.ones((2, 3, 4)), (2, 0, 1)).shape
    (4, 2, 3)
    """
    return _named("transpose", np.transpose, as_operand("transpose", 0, a), axes)


def diagonal(a: ArrayLike, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Array:
    """Return a view of diagonals, as `numpy.diagonal` does.

    Parameters
    ----------
    a : array_like
        Array of at least two axes.
    offset : int, default 0
        How far the diagonal lies beside the main one, to the right.
    axis1, axis2 : int, default 0 and 1
        The axes of the matrices.

    Returns
    -------
    ndarray
        A read-only view, with the other axes first and the diagonal last; ``einsum("ii->i", a)``
        gives a writeable one.

    Raises
    ------
    ValueError, numpy.exceptions.AxisError
        For too few axes, axes out of range, or the same axis twice.

    Notes
    -----
    Nothing is copied. Complexity: O(a.ndim).

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import diagonal
    >>> diagonal(np.arange(9.0).reshape(3, 3), 1)
    array([1., 5.])
    """
    return _named("diagonal", np.diagonal, as_operand("diagonal", 0, a), offset, axis1, axis2)


def trace(
    a: ArrayLike,
    offset: int = 0,
    axis1: int = 0,
    axis2: int = 1,
    dtype: DTypeLike | None = None,
    out: Array | None = None,
) -> Any:
    """Sum along diagonals, as `numpy.trace` does.

    Parameters
    ----------
    a : array_like
        Array of at least two axes.
    offset : int, default 0
        How far the diagonal lies beside the main one, to the right.
    axis1, axis2 : int, default 0 and 1
        The axes of the matrices.
    dtype : dtype, optional
        The dtype to add in. Booleans and integers narrower than the platform's are added in
        that by default.
    out : ndarray, optional
        Array for the result, of exactly its shape.

    Returns
    -------
    ndarray or scalar
        Array of the other axes; `out` itself when it is given.

    Raises
    ------
    ValueError, TypeError, numpy.exceptions.AxisError
        As for `diagonal` and `einsum`.

    Notes
    -----
    Accuracy and bits are those of `einsum`. Complexity: the number of elements that are added.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import trace
    >>> float(trace(np.arange(9.0).reshape(3, 3)))
    12.0
    """
    line = _named("trace", np.diagonal, as_operand("trace", 0, a), offset, axis1, axis2)
    if dtype is None and line.dtype.kind in "bi" and line.dtype.itemsize < np.dtype(int).itemsize:
        dtype = int
    if dtype is None and line.dtype.kind == "u" and line.dtype.itemsize < np.dtype("uint").itemsize:
        dtype = np.uint
    axes = tuple(range(line.ndim))
    return _einsum_call.contract(
        "trace",
        [line],
        lambda: Subscripts((axes,), axes[:-1], tuple(map(str, axes))),
        "trace",
        out,
        dtype,
        casting="unsafe",
    )
