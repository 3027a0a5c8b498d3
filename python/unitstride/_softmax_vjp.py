"""Gradients of softmax and log_softmax, from the output of the function."""

from typing import Any

from numpy.typing import ArrayLike, NDArray

from unitstride import _arguments, _backend, _outputs

Array = NDArray[Any]
Axis = int | tuple[int, ...] | None


def _vjp_of_output(
    function: str,
    y: ArrayLike,
    dy: ArrayLike,
    axis: Axis,
    where: ArrayLike | None,
    temperature: float,
    out: Array | None,
) -> Array:
    """Run softmax_vjp or log_softmax_vjp, which work from the output y of the function."""
    values, axes, scale, mask = _arguments.prepare(function, "y", y, axis, where, temperature)
    dtype = values.dtype
    cotangent, working = _arguments.companion(function, "dy", dy, dtype)
    _arguments.check_shape(function, "dy", cotangent, values.shape)
    if out is not None:
        _outputs.check_out(function, out, values.shape, dtype)
    values = values.astype(working, copy=False)
    cotangent = cotangent.astype(working, copy=False)
    target = _outputs.output_for(values, out, (values, cotangent), (mask,))
    axes, (source, slope, sink, chosen) = _arguments.with_axis(
        axes, values, cotangent, target, mask
    )
    status = _backend.run(function, source, slope, sink, axes, chosen, scale)
    result, cast_status = _outputs.deliver(target, out, dtype)
    _arguments.report_float_status(function, status | cast_status)
    return result


def softmax_vjp(
    y: ArrayLike,
    dy: ArrayLike,
    axis: Axis = -1,
    *,
    where: ArrayLike | None = None,
    temperature: float = 1.0,
    out: Array | None = None,
) -> Array:
    """Compute the gradient of softmax: y * (dy - sum(dy * y)) / temperature.

    Parameters
    ----------
    y : array_like
        The result of `softmax`, of any shape and memory layout.
    dy : array_like
        The cotangent of `y`, of the shape of `y`.
    axis : int, tuple of ints or None, default -1
        The axis or axes given to `softmax`.
    where : array_like of bool, optional
        The mask given to `softmax`. The gradient is 0 where it is False, whatever `y` and `dy`
        hold there.
    temperature : float, default 1.0
        The temperature given to `softmax`.
    out : ndarray, optional
        Array for the result, of exactly the shape and dtype of `y`. It may be `y` or `dy` itself.

    Returns
    -------
    ndarray
        The cotangent of the input of `softmax`, of the shape, dtype and memory order of `y`;
        `out` itself when it is given. With a wider `dy` it is computed in the dtype of `dy` and
        rounded once.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As for `softmax`; also ValueError when `dy` has another shape than `y`.

    Notes
    -----
    Accuracy: the error of each element is a few ULP of abs(y) * (abs(dy) + sum(abs(dy * y))) /
    temperature; the difference may cancel.

    Complexity: O(y.size) time, two passes over each row, and no copy of the arrays.

    With J = diag(y) - y y^T the Jacobian of softmax, the formula is J dy / temperature [1]_.

    References
    ----------
    .. [1] J. S. Bridle, "Probabilistic interpretation of feedforward classification network
       outputs", in Neurocomputing, NATO ASI Series 68, 1990, doi:10.1007/978-3-642-76153-9_28.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import softmax, softmax_vjp
    >>> y = softmax(np.array([0.0, 0.0]))
    >>> softmax_vjp(y, np.array([1.0, 0.0]))
    array([ 0.25, -0.25])
    """
    return _vjp_of_output("softmax_vjp", y, dy, axis, where, temperature, out)


def log_softmax_vjp(
    y: ArrayLike,
    dy: ArrayLike,
    axis: Axis = -1,
    *,
    where: ArrayLike | None = None,
    temperature: float = 1.0,
    out: Array | None = None,
) -> Array:
    """Compute the gradient of log_softmax: (dy - exp(y) * sum(dy)) / temperature.

    Parameters
    ----------
    y : array_like
        The result of `log_softmax`, of any shape and memory layout.
    dy : array_like
        The cotangent of `y`, of the shape of `y`.
    axis : int, tuple of ints or None, default -1
        The axis or axes given to `log_softmax`.
    where : array_like of bool, optional
        The mask given to `log_softmax`. The gradient is 0 where it is False, whatever `y` and
        `dy` hold there.
    temperature : float, default 1.0
        The temperature given to `log_softmax`.
    out : ndarray, optional
        Array for the result, of exactly the shape and dtype of `y`. It may be `y` or `dy` itself.

    Returns
    -------
    ndarray
        The cotangent of the input of `log_softmax`, of the shape, dtype and memory order of `y`;
        `out` itself when it is given. With a wider `dy` it is computed in the dtype of `dy` and
        rounded once.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As for `softmax`; also ValueError when `dy` has another shape than `y`.

    Notes
    -----
    Accuracy: the error of each element is a few ULP of (abs(dy) + exp(y) * sum(abs(dy))) /
    temperature, plus what the rounding of the stored `y` costs; the difference may cancel.

    Complexity: one exponential per element, O(y.size) time, and no copy of the arrays.

    The formula is the chain rule for x - logsumexp(x), whose gradient is softmax(x) = exp(y) [1]_.

    References
    ----------
    .. [1] P. Blanchard, D. J. Higham, N. J. Higham, "Accurately computing the
       log-sum-exp and softmax functions", IMA Journal of Numerical Analysis 41(4), 2021,
       doi:10.1093/imanum/draa038.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import log_softmax, log_softmax_vjp
    >>> y = log_softmax(np.array([0.0, 0.0]))
    >>> log_softmax_vjp(y, np.array([1.0, 0.0]))
    array([ 0.5, -0.5])
    """
    return _vjp_of_output("log_softmax_vjp", y, dy, axis, where, temperature, out)
