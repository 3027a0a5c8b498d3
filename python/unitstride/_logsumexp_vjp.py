"""The gradient of logsumexp, for its input and its weights."""

from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unitstride import _arguments, _backend, _outputs

Array = NDArray[Any]
Axis = int | tuple[int, ...] | None

_NAME = "logsumexp_vjp"


@overload
def logsumexp_vjp(
    x: ArrayLike,
    dy: ArrayLike,
    axis: Axis = -1,
    *,
    lse: ArrayLike | tuple[ArrayLike, ArrayLike] | None = None,
    b: None = None,
    where: ArrayLike | None = None,
    temperature: float = 1.0,
    keepdims: bool = False,
    out: Array | None = None,
) -> Array: ...
@overload
def logsumexp_vjp(
    x: ArrayLike,
    dy: ArrayLike,
    axis: Axis = -1,
    *,
    lse: ArrayLike | tuple[ArrayLike, ArrayLike] | None = None,
    b: ArrayLike,
    where: ArrayLike | None = None,
    temperature: float = 1.0,
    keepdims: bool = False,
    out: Array | None = None,
) -> tuple[Array, Any]: ...
def logsumexp_vjp(
    x: ArrayLike,
    dy: ArrayLike,
    axis: Axis = -1,
    *,
    lse: ArrayLike | tuple[ArrayLike, ArrayLike] | None = None,
    b: ArrayLike | None = None,
    where: ArrayLike | None = None,
    temperature: float = 1.0,
    keepdims: bool = False,
    out: Array | None = None,
) -> Array | tuple[Array, Any]:
    """Compute the gradient of logsumexp: dy * b * exp(x / temperature - lse) / temperature.

    Parameters
    ----------
    x : array_like
        The input of `logsumexp`, of any shape and memory layout.
    dy : array_like
        The cotangent of the result, of the reduced shape.
    axis : int, tuple of ints or None, default -1
        The axis or axes given to `logsumexp`.
    lse : array_like or tuple of two array_like, optional
        The result of `logsumexp`, of the shape of `dy`. With weights of both signs it is the pair
        (log of the absolute value, sign) that ``return_sign=True`` gives. Computed when None.
    b : array_like, optional
        The weights given to `logsumexp`, broadcast together with `x`.
    where : array_like of bool, optional
        The mask given to `logsumexp`. The gradient is 0 where it is False.
    temperature : float, default 1.0
        The temperature given to `logsumexp`.
    keepdims : bool, default False
        Whether `dy` and `lse` keep the reduced axes with length one.
    out : ndarray, optional
        Array for the result, of exactly the shape and dtype of `x`. It may be `x` itself.

    Returns
    -------
    ndarray
        The cotangent of `x`, of the shape, dtype and memory order of `x`; `out` itself when it is
        given. With a wider `dy`, `b` or `lse` it is computed in the widest dtype and rounded
        once. It is 0 where `b` is 0.
    db : ndarray or scalar
        Only with `b`: the cotangent of `b`, sign * dy * exp(x / temperature - lse) summed to the
        shape of `b`, in the dtype of `b` (of `x`, when `b` is not floating point).

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As for `logsumexp`; also ValueError when `dy` or `lse` does not have the reduced shape.

    Notes
    -----
    Where the weighted sum is negative the gradient is that of the logarithm of its absolute value.

    Accuracy: an error in `lse` multiplies the whole row by its exponential, so that each element
    carries about abs(lse) ULP from the rounding of `lse`. For 16-bit input without `lse` the
    logsumexp is kept in float32.

    Complexity: one exponential per element, O(x.size) time, twice that when `lse` is None.

    The formula is the chain rule with the gradient softmax(x) of logsumexp [1]_.

    References
    ----------
    .. [1] P. Blanchard, D. J. Higham, N. J. Higham, "Accurately computing the
       log-sum-exp and softmax functions", IMA Journal of Numerical Analysis 41(4), 2021,
       doi:10.1093/imanum/draa038.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import logsumexp_vjp
    >>> logsumexp_vjp(np.array([[0.0, 0.0], [1.0, 1.0]]), np.array([1.0, 2.0]))
    array([[0.5, 0.5],
           [1. , 1. ]])
    """
    plain = _arguments.as_array(_NAME, "x", x)
    dtype = plain.dtype
    terms = plain if b is None else _arguments.join_weights(_NAME, plain, b)[0]
    values, axes, scale, mask = _arguments.prepare(_NAME, "x", terms, axis, where, temperature)
    if out is not None:
        _outputs.check_out(_NAME, out, plain.shape, dtype)
    if dy is None:
        raise TypeError(f"{_NAME}: `dy` must be an array, got None")
    level, sign = lse if isinstance(lse, tuple) and len(lse) == 2 else (lse, None)
    joined, working = _join(dtype, {"dy": dy, "lse": level, "sign": sign, "b": b})
    shape = _arguments.reduced_shape(values.shape, axes, keepdims)
    for argument in joined.keys() & {"dy", "lse", "sign"}:
        _arguments.check_shape(_NAME, argument, joined[argument], shape)
        joined[argument] = joined[argument].squeeze(axes) if keepdims else joined[argument]
    weights = joined.get("b")
    if weights is not None:
        weights = np.broadcast_to(weights, values.shape)
    direct = out if values.shape == plain.shape else None
    target = _outputs.output_for(
        values.astype(working, copy=False), direct, (values,), (mask, weights, *joined.values())
    )
    db = None if weights is None else np.empty_like(target)
    status = _run(values, axes, scale, mask, weights, joined, target, db)
    if values.shape != plain.shape:
        target = _sum_wide(target, plain.shape)
    result, cast_status = _outputs.deliver(target, out, dtype)
    if db is None or b is None:
        _arguments.report_float_status(_NAME, status | cast_status)
        return result
    weight_dtype = dtype if _arguments.joins_weakly(b) else np.asarray(b).dtype
    summed, sum_status = _sum_to_shape(db, joined["b"].shape, weight_dtype)
    _arguments.report_float_status(_NAME, status | cast_status | sum_status)
    return result, summed


def _join(
    dtype: np.dtype[Any], inputs: dict[str, ArrayLike | None]
) -> tuple[dict[str, Array], np.dtype[Any]]:
    """Convert the inputs that are given to the widest dtype among them and `dtype`.

    A logsumexp that is yet to be computed takes at least float32: rounded to 16 bits its error
    would multiply the whole row.
    """
    arrays: dict[str, Array] = {}
    working = dtype
    for argument, value in inputs.items():
        if value is not None:
            arrays[argument], own = _arguments.companion(_NAME, argument, value, dtype)
            working = _arguments.wider(working, own)
    if "lse" not in arrays:
        working = _arguments.wider(working, np.dtype(np.float32))
    return {name: array.astype(working, copy=False) for name, array in arrays.items()}, working


def _run(
    values: Array,
    axes: tuple[int, ...],
    scale: float,
    mask: Array | None,
    weights: Array | None,
    joined: dict[str, Array],
    target: Array,
    db: Array | None,
) -> int:
    """Compute logsumexp and its sign where they are missing, then the gradients."""
    slope, level, sign = joined["dy"], joined.get("lse"), joined.get("sign")
    source = values.astype(target.dtype, copy=False)
    axes, (rows, sink, chosen, factor, factor_sink) = _arguments.with_axis(
        axes, source, target, mask, weights, db
    )
    status = 0
    if level is None:
        level = np.empty_like(slope)
        sign = None if weights is None else np.empty_like(slope)
        status = _backend.run("logsumexp", rows, level, axes, chosen, scale, factor, sign)
    if sign is not None:
        with np.errstate(all="ignore"):
            slope = np.multiply(slope, sign, out=np.empty_like(slope))
    return status | _backend.run(
        _NAME, rows, level, slope, sink, axes, chosen, scale, factor, factor_sink
    )


def _sum_to_shape(array: Array, shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[Any, int]:
    """Sum a broadcast cotangent back to `shape`, in float64, as a scalar when `shape` is ()."""
    summed, status = _outputs.deliver(_sum_wide(array, shape), None, dtype.newbyteorder("="))
    return summed[()], status


def _sum_wide(array: Array, shape: tuple[int, ...]) -> Array:
    """Sum over what broadcasting from `shape` repeats, in float64."""
    extra = array.ndim - len(shape)
    stretched = [i for i, n in enumerate(shape, extra) if n == 1 and array.shape[i] != 1]
    axes = (*range(extra), *stretched)
    if not axes:
        return array
    with np.errstate(all="ignore"):
        return np.asarray(array.sum(axis=axes, dtype=np.float64).reshape(shape))
