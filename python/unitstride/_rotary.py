"""Rotary embedding: pairs of features turned by angles that grow with the position."""

from operator import index
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unitstride import _arguments, _outputs
from unitstride._attention_options import check_number
from unitstride._float_status import OVERFLOW

Array = NDArray[Any]

_NAME = "rotary"


def _check_dimensions(dimensions: Any, features: int) -> int:
    """Return how many leading features are turned: an even number."""
    if dimensions is None and features % 2:
        raise ValueError(
            f"{_NAME}: `dimensions` must be given where the number of features is odd, "
            f"got {features} features"
        )
    try:
        count = features if dimensions is None else index(dimensions)
    except TypeError:
        raise TypeError(f"{_NAME}: `dimensions` must be an integer, got {dimensions!r}") from None
    if count < 0 or count > features or count % 2:
        raise ValueError(
            f"{_NAME}: `dimensions` must be even and lie between 0 and the {features} features, "
            f"got {count}"
        )
    return count


def _angles(
    positions: ArrayLike | None, shape: tuple[int, ...], frequencies: Array
) -> tuple[Array, Array]:
    """Return cosines and sines, which broadcast to (*shape, pairs)."""
    if positions is None:
        where = np.arange(shape[-1], dtype=np.float64)
    else:
        where = _arguments.as_array(_NAME, "positions", positions).astype(np.float64)
        try:
            np.broadcast_to(where, shape)
        except ValueError:
            raise ValueError(
                f"{_NAME}: `positions` must be broadcastable to shape {shape}, "
                f"got shape {where.shape}"
            ) from None
    angles = where[..., None] * frequencies
    return np.cos(angles), np.sin(angles)


def _check_frequencies(frequencies: ArrayLike | None, base: Any, pairs: int) -> Array:
    if frequencies is None:
        number = check_number(_NAME, "base", base, True)
        return np.asarray(number ** (-np.arange(pairs) / max(pairs, 1)))
    array = _arguments.as_array(_NAME, "frequencies", frequencies).astype(np.float64)
    _arguments.check_shape(_NAME, "frequencies", array, (pairs,))
    return array


def rotary(
    values: ArrayLike,
    positions: ArrayLike | None = None,
    /,
    *,
    base: float = 10000.0,
    frequencies: ArrayLike | None = None,
    dimensions: int | None = None,
    interleaved: bool = False,
    inverse: bool = False,
    out: Array | None = None,
) -> Array:
    """Turn pairs of features by angles proportional to the position (rotary embedding).

    Parameters
    ----------
    values : array_like, shape (..., length, features)
        Queries or keys, of any strides.
    positions : array_like, optional
        The position of each token, broadcast to ``values.shape[:-1]``: shape (length,), or
        (batch, 1, length) beside values of (batch, heads, length, features). Whole or not;
        by default 0, 1, 2 ...
    base : float, default: 10000.0
        Pair i of n turns by ``base ** (-i / n)`` per position.
    frequencies : array_like, shape (dimensions / 2,), optional
        The angles per position themselves, in radians, instead of those of `base`.
    dimensions : int, optional
        How many leading features are turned, an even number; the others are copied. By default
        all.
    interleaved : bool, default: False
        Pairs are features (2 i, 2 i + 1) instead of (i, i + dimensions / 2).
    inverse : bool, default: False
        Turn backwards: the inverse, which is also the gradient of the function.
    out : ndarray, optional
        Array for the result, of the shape and dtype of `values`; it may be `values` itself.

    Returns
    -------
    ndarray
        Of the shape and dtype of `values`; `out` itself when it is given.

    Raises
    ------
    TypeError
        For an array that is not real, or an option of a wrong kind.
    ValueError
        For shapes that do not fit, and `dimensions` that are odd or too many.

    Notes
    -----
    A pair (x, y) at angle t becomes ``(x cos t - y sin t, x sin t + y cos t)``, so that products
    of queries and keys depend on differences of positions alone [1]_. Angles and results are
    computed in float64 and rounded once: an angle of position p is wrong by p * 1e-16 at most.
    O(values.size) time, with temporary arrays in float64.

    References
    ----------
    .. [1] J. Su et al., "RoFormer: enhanced transformer with rotary position embedding", 2021,
       arXiv:2104.09864.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import rotary
    >>> rotary(np.array([[1.0, 0.0], [1.0, 0.0]]), frequencies=[np.pi / 2]).round(6)
    array([[1., 0.],
           [0., 1.]])
    """
    array = _arguments.as_array(_NAME, "values", values)
    if array.ndim < 2:
        raise ValueError(
            f"{_NAME}: `values` must have at least 2 dimensions (..., length, features), "
            f"got shape {array.shape}"
        )
    count = _check_dimensions(dimensions, array.shape[-1])
    cosine, sine = _angles(
        positions, array.shape[:-1], _check_frequencies(frequencies, base, count // 2)
    )
    if out is not None:
        _outputs.check_out(_NAME, out, array.shape, array.dtype)
    target = out
    if target is None or not _outputs.can_write_into(target, array.dtype, (array,)):
        target = np.empty(array.shape, array.dtype)
    first, second = slice(0, count // 2), slice(count // 2, count)
    if interleaved:
        first, second = slice(0, count, 2), slice(1, count, 2)
    sine = -sine if inverse else sine
    with np.errstate(all="ignore"):
        # Only 16-bit types can overflow when they round a turned pair.
        was_infinite = array.dtype.itemsize > 2 or bool(np.isinf(array).any())
        x, y = (array[..., pair].astype(np.float64) for pair in (first, second))
        target[..., first] = x * cosine - y * sine
        target[..., second] = x * sine + y * cosine
        target[..., count:] = array[..., count:]
        overflowed = not was_infinite and bool(np.isinf(target).any())
    result, _ = _outputs.deliver(target, out, array.dtype)
    _arguments.report_float_status(_NAME, OVERFLOW if overflowed else 0)
    return result
