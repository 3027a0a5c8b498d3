"""The softmax family: softmax, log_softmax, logsumexp, their gradients and a mergeable state.

The formulas, the shift by the maximum and the error analysis are those of P. Blanchard,
D. J. Higham and N. J. Higham, "Accurately computing the log-sum-exp and softmax functions",
IMA Journal of Numerical Analysis 41(4), 2021, doi:10.1093/imanum/draa038.
"""

from typing import Any, Literal, overload

from numpy.typing import ArrayLike, DTypeLike, NDArray

from unitstride import _softmax_general
from unitstride._backend import core
from unitstride._logsumexp_state import LogSumExp
from unitstride._logsumexp_vjp import logsumexp_vjp
from unitstride._softmax_vjp import log_softmax_vjp, softmax_vjp

__all__ = [
    "LogSumExp",
    "log_softmax",
    "log_softmax_vjp",
    "logsumexp",
    "logsumexp_vjp",
    "softmax",
    "softmax_vjp",
]

Array = NDArray[Any]
Axis = int | tuple[int, ...] | None

# The default temperature, one object: `temperature is _ONE` costs less than a comparison.
_ONE = 1.0


@overload
def softmax(
    x: ArrayLike,
    axis: Axis = -1,
    *,
    where: ArrayLike | None = None,
    temperature: float = 1.0,
    dtype: DTypeLike | None = None,
    out: Array | None = None,
    return_lse: Literal[False] = False,
) -> Array: ...
@overload
def softmax(
    x: ArrayLike,
    axis: Axis = -1,
    *,
    where: ArrayLike | None = None,
    temperature: float = 1.0,
    dtype: DTypeLike | None = None,
    out: Array | None = None,
    return_lse: Literal[True],
) -> tuple[Array, Any]: ...
def softmax(
    x: ArrayLike,
    axis: Axis = -1,
    *,
    where: ArrayLike | None = None,
    temperature: float = _ONE,
    dtype: DTypeLike | None = None,
    out: Array | None = None,
    return_lse: bool = False,
) -> Array | tuple[Array, Any]:
    """Compute exp(x / temperature) / sum(exp(x / temperature)) along an axis.

    Parameters
    ----------
    x : array_like
        Input of any shape and memory layout. float32, float64, float16 and bfloat16 (ml_dtypes)
        keep their dtype; integers and booleans are computed in float64.
    axis : int, tuple of ints or None, default -1
        The axis or axes over which the result sums to one; None means all of them.
    where : array_like of bool, optional
        Broadcast to the shape of `x`. Elements where it is False take no part, whatever they
        hold, and their result is 0.
    temperature : float, default 1.0
        A positive finite number that divides `x`.
    dtype : dtype, optional
        float16, bfloat16, float32 or float64: `x` is cast to it first.
    out : ndarray, optional
        Array for the result, of exactly the shape of `x` and the dtype of the result. It may be
        `x` itself.
    return_lse : bool, default False
        Also return the logsumexp of each row, from the same pass over the data.

    Returns
    -------
    ndarray
        Array of the shape and memory order of `x`; `out` itself when it is given.
    lse : ndarray or scalar
        Only with `return_lse`: logsumexp(x / temperature) without the reduced axes, in the
        dtype of the result.

    Raises
    ------
    TypeError
        For complex, longdouble (without `dtype`), object and other dtypes without a kernel, a
        mask that is not boolean, an `out` of another dtype, an `axis` that is not made of ints.
    ValueError
        For a temperature that is not positive and finite, a repeated axis, a mask that does not
        broadcast, an `out` of another shape, read-only, or with elements that share memory.
    numpy.exceptions.AxisError
        For an axis out of range.

    Notes
    -----
    A NaN makes its row NaN and no other. A row with +inf, and a row of nothing but -inf, is NaN
    and raises the "invalid" floating-point event of `numpy.errstate`. A row with nothing selected
    by `where` is 0. An interrupted call leaves `out` partly written.

    Accuracy: at most 4 ULP for each normal float32 and float64 result, tails included; the
    rounding error of ``x - max(x)`` is kept and folded into the exponential. 16-bit types are
    computed in float32 or wider and rounded once.

    Complexity: one exponential per element, O(x.size) time, and no copy of the array.

    The formula is exp(x - m) / sum(exp(x - m)), m = max(x) [1]_.

    References
    ----------
    .. [1] P. Blanchard, D. J. Higham, N. J. Higham, "Accurately computing the
       log-sum-exp and softmax functions", IMA Journal of Numerical Analysis 41(4), 2021,
       doi:10.1093/imanum/draa038.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import softmax
    >>> softmax(np.array([1000.0, 2000.0, 3000.0]))
    array([0., 0., 1.])
    >>> softmax([[1.0, 2.0], [3.0, 3.0]], where=[[True, False], [True, True]])
    array([[1. , 0. ],
           [0.5, 0.5]])
    """
    if (
        core is not None
        and where is None
        and out is None
        and dtype is None
        and (temperature is _ONE or (type(temperature) is float and temperature == 1.0))
        and not return_lse
    ):
        fast: Array | None = core.softmax_fast(x, axis)
        if fast is not None:
            return fast
    result, lse = _softmax_general.normalize(
        "softmax", x, axis, where, temperature, dtype, out, return_lse
    )
    return result if lse is None else (result, lse[()])


def log_softmax(
    x: ArrayLike,
    axis: Axis = -1,
    *,
    where: ArrayLike | None = None,
    temperature: float = _ONE,
    dtype: DTypeLike | None = None,
    out: Array | None = None,
) -> Array:
    """Compute the logarithm of softmax(x / temperature) along an axis.

    Parameters
    ----------
    x : array_like
        Input of any shape and memory layout; dtypes as for `softmax`.
    axis : int, tuple of ints or None, default -1
        The axis or axes over which the exponential of the result sums to one; None means all.
    where : array_like of bool, optional
        Broadcast to the shape of `x`. Elements where it is False take no part, whatever they
        hold, and their result is -inf.
    temperature : float, default 1.0
        A positive finite number that divides `x`.
    dtype : dtype, optional
        float16, bfloat16, float32 or float64: `x` is cast to it first.
    out : ndarray, optional
        Array for the result, of exactly the shape of `x` and the dtype of the result. It may be
        `x` itself.

    Returns
    -------
    ndarray
        Array of the shape and memory order of `x`; `out` itself when it is given.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As for `softmax`.

    Notes
    -----
    NaN and infinities are treated as in `softmax`: a row with NaN, with +inf, or of nothing but
    -inf is NaN. (SciPy gives -inf for the finite elements beside a +inf.)

    Accuracy: at most 4 ULP of the correctly rounded value for float32 and float64, also where one
    element dominates the row: the sum leaves one maximum out and goes through log1p. 16-bit types
    are computed in float32 or wider and rounded once.

    Complexity: one exponential per element and one logarithm per row, O(x.size) time, and no
    copy of the array.

    The formula is (x - m) - log1p(sum of exp(x - m) without one maximum), m = max(x) [1]_.

    References
    ----------
    .. [1] P. Blanchard, D. J. Higham, N. J. Higham, "Accurately computing the
       log-sum-exp and softmax functions", IMA Journal of Numerical Analysis 41(4), 2021,
       doi:10.1093/imanum/draa038.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import log_softmax
    >>> log_softmax(np.array([2.0, 1.0, 0.1])).round(6)
    array([-0.41703, -1.41703, -2.31703])
    >>> log_softmax(np.array([0.0, -50.0]))
    array([-1.92874985e-22, -5.00000000e+01])
    """
    if (
        core is not None
        and where is None
        and out is None
        and dtype is None
        and (temperature is _ONE or (type(temperature) is float and temperature == 1.0))
    ):
        fast: Array | None = core.log_softmax_fast(x, axis)
        if fast is not None:
            return fast
    return _softmax_general.normalize("log_softmax", x, axis, where, temperature, dtype, out)[0]


@overload
def logsumexp(
    x: ArrayLike,
    axis: Axis = -1,
    *,
    b: ArrayLike | None = None,
    where: ArrayLike | None = None,
    temperature: float = 1.0,
    keepdims: bool = False,
    return_sign: Literal[False] = False,
    dtype: DTypeLike | None = None,
    out: Array | None = None,
) -> Any: ...
@overload
def logsumexp(
    x: ArrayLike,
    axis: Axis = -1,
    *,
    b: ArrayLike | None = None,
    where: ArrayLike | None = None,
    temperature: float = 1.0,
    keepdims: bool = False,
    return_sign: Literal[True],
    dtype: DTypeLike | None = None,
    out: Array | None = None,
) -> tuple[Any, Any]: ...
def logsumexp(
    x: ArrayLike,
    axis: Axis = -1,
    *,
    b: ArrayLike | None = None,
    where: ArrayLike | None = None,
    temperature: float = _ONE,
    keepdims: bool = False,
    return_sign: bool = False,
    dtype: DTypeLike | None = None,
    out: Array | None = None,
) -> Any:
    """Compute log(sum(b * exp(x / temperature))) along an axis.

    Parameters
    ----------
    x : array_like
        Input of any shape and memory layout; dtypes as for `softmax`.
    axis : int, tuple of ints or None, default -1
        The axis or axes to sum over; None means all of them.
    b : array_like, optional
        Weights, broadcast together with `x`; they may be negative. An element of weight 0 is
        ignored, also when it is infinite or NaN. The result has the dtype that NumPy promotes
        both to, as in SciPy.
    where : array_like of bool, optional
        Broadcast to the shape of the terms. Elements where it is False take no part, whatever
        they hold.
    temperature : float, default 1.0
        A positive finite number that divides `x`.
    keepdims : bool, default False
        Keep the reduced axes with length one.
    return_sign : bool, default False
        Return the logarithm of the absolute value of the sum, and the sign of the sum.
    dtype : dtype, optional
        float16, bfloat16, float32 or float64: `x` is cast to it first.
    out : ndarray, optional
        Array for the result, of exactly the reduced shape and the dtype of the result.

    Returns
    -------
    ndarray or scalar
        The reduced array, a NumPy scalar when it has no axes left; `out` itself when it is given.
    sign : ndarray or scalar
        Only with `return_sign`: 1, 0, -1 or NaN, in the dtype of the result.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As for `softmax`; also ValueError for weights that do not broadcast with `x`.

    Notes
    -----
    A NaN makes its row NaN and no other. The result is +inf for a row with +inf, and -inf for a
    row with nothing selected, of length zero, or of nothing but -inf. A sum that is negative
    without `return_sign`, or inf - inf, is NaN and raises the "invalid" floating-point event of
    `numpy.errstate`; weights that cancel to exactly zero give -inf and raise "divide".

    Accuracy: without weights at most 2 ULP for float32 and float64. With weights of both signs
    the relative error of the sum grows by sum(abs(b) * exp(x)) / abs(sum(b * exp(x))). 16-bit
    types are computed in float32 or wider and rounded once.

    Complexity: one exponential per element and one logarithm per row, O(x.size) time, and no
    copy of the array.

    The formula is m + log1p(sum of exp(x - m) without one maximum), m = max(x) [1]_.

    References
    ----------
    .. [1] P. Blanchard, D. J. Higham, N. J. Higham, "Accurately computing the
       log-sum-exp and softmax functions", IMA Journal of Numerical Analysis 41(4), 2021,
       doi:10.1093/imanum/draa038.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import logsumexp
    >>> float(logsumexp([1000.0, 1000.0]))
    1000.6931471805599
    >>> value, sign = logsumexp(np.array([1.0, 2.0]), b=[1.0, -1.0], return_sign=True)
    >>> print(value.round(6), sign)
    1.541325 -1.0
    """
    if (
        core is not None
        and b is None
        and where is None
        and out is None
        and dtype is None
        and (temperature is _ONE or (type(temperature) is float and temperature == 1.0))
        and not keepdims
        and not return_sign
    ):
        fast = core.logsumexp_fast(x, axis)
        if fast is not None:
            return fast if fast.ndim else fast[()]
    return _softmax_general.logsumexp(
        x, axis, b, where, temperature, keepdims, return_sign, dtype, out
    )
