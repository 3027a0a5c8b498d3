"""The gradients of convolutions along one axis."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unitstride import _arguments, _backend, _convolution_call
from unitstride._convolution_call import Problem
from unitstride._einsum_run import fresh
from unitstride._reference.convolution import BOUNDARIES, places

Array = NDArray[Any]
DType = np.dtype[Any]

_FLOAT64 = np.dtype(np.float64)


def summed(gradient: Array, shape: tuple[int, ...], dtype: DType) -> Array:
    """Sum over the axes that were broadcast to reach `gradient`, and cast."""
    axes = tuple(a for a, n in enumerate(shape) if n == 1 and gradient.shape[a] != 1)
    total = gradient.sum(axis=axes, keepdims=True) if axes else gradient
    if dtype.kind != "c" and total.dtype.kind == "c":
        total = total.real
    with np.errstate(all="ignore"):
        return np.asarray(total.astype(dtype, copy=False))


class _Backward:
    """The gradients of one convolution: out[i] = sum over j of k[j] * x[start + i - j]."""

    def __init__(self, function: str, method: str, problem: Problem, dy: Array) -> None:
        self.function, self.method = function, method
        self.problem, self.dy = problem, dy
        self.axis = problem.axis
        self.taps, self.count = problem.k.shape[self.axis], dy.shape[self.axis]
        self.status = 0

    def _run(self, x: Array, k: Array, start: int, count: int) -> Array:
        """Return `count` outputs of a convolution whose ends are zero."""
        shape = tuple(count if a == self.axis else n for a, n in enumerate(self.dy.shape))
        dtype = np.result_type(x, k)
        task = Problem(x, k, self.axis, start, shape, 0)
        out = fresh(shape, dtype)
        if out.size:
            operation, task = _convolution_call.choose(self.function, self.method, task, dtype)
            self.status |= _backend.run(operation, task.x, task.k, out, self.axis, start, 0)
        return out

    def of_x(self) -> Array:
        """Correlate the cotangent with the kernel, and fold what lies beyond the ends."""
        k = np.flip(self.problem.k, self.axis).conj()
        start, length = self.problem.start, self.problem.x.shape[self.axis]
        if self.problem.boundary == 0:
            # Elements that no output has met: before the first one, and past the last one.
            low = max(0, start - self.taps + 1)
            high = min(length, start + self.count)
            part = self._run(self.dy, k, low + self.taps - 1 - start, high - low)
            shape = tuple(length if a == self.axis else n for a, n in enumerate(part.shape))
            if shape == part.shape:
                return part
            whole = np.zeros(shape, part.dtype)
            np.moveaxis(whole, self.axis, -1)[..., low:high] = np.moveaxis(part, self.axis, -1)
            return whole
        reach = self.count + self.taps - 1
        extended = np.moveaxis(self._run(self.dy, k, 0, reach), self.axis, 0)
        name = BOUNDARIES[self.problem.boundary]
        begin = start - self.taps + 1
        folded = np.zeros((length, *extended.shape[1:]), extended.dtype)
        np.add.at(folded, places(begin, begin + reach, length, name), extended)
        return np.moveaxis(folded, 0, self.axis)

    def of_k(self) -> Array:
        """Correlate the line with the cotangent: a kernel as long as the outputs."""
        start, length = self.problem.start, self.problem.x.shape[self.axis]
        window = np.moveaxis(self.problem.x.conj(), self.axis, -1)
        begin, end = start - self.taps + 1, start + self.count
        if self.problem.boundary == 0:
            low, high = max(begin, 0), min(end, length)
            extended = np.zeros((*window.shape[:-1], end - begin), window.dtype)
            extended[..., low - begin : high - begin] = window[..., low:high]
        else:
            name = BOUNDARIES[self.problem.boundary]
            extended = window[..., places(begin, end, length, name)]
        lines = np.moveaxis(extended, -1, self.axis)
        dy = np.flip(self.dy, self.axis)
        return np.flip(self._run(lines, dy, self.count - 1, self.taps), self.axis)


def gradients(
    function: str,
    x: ArrayLike,
    k: ArrayLike,
    dy: ArrayLike,
    mode: Any,
    axis: Any,
    method: Any,
    boundary: Any,
    correlates: bool,
) -> tuple[Array, Array]:
    """Return the gradients of both inputs of `convolve` or `correlate`."""
    own = [np.asarray(x), np.asarray(k)]
    problem, dtype = _convolution_call.prepare(function, x, k, mode, axis, boundary, correlates)
    cotangent = _convolution_call.as_numbers(function, "dy", dy)
    _arguments.check_shape(function, "dy", cotangent, problem.shape)
    if cotangent.dtype.kind == "c" and dtype.kind != "c":
        raise TypeError(
            f"{function}: `dy` must be real as the result is, got {cotangent.dtype.name}"
        )
    _convolution_call.one_of(function, "method", method, _convolution_call.METHODS)
    working = _FLOAT64 if dtype.kind in "biu" else dtype
    if cotangent.dtype.kind not in "biu":
        working = np.result_type(working, cotangent.dtype).newbyteorder("=")
    if working.itemsize == 2:
        working = np.dtype(np.float32)
    arrays = [_convolution_call.in_dtype(a, working) for a in (problem.x, problem.k, cotangent)]
    backward = _Backward(function, method, problem._replace(x=arrays[0], k=arrays[1]), arrays[2])
    dx, dk = backward.of_x(), backward.of_k()
    along = problem.axis
    if mode == "valid" and problem.x.shape[along] != own[0].shape[along]:
        dx, dk = dk, dx
    if correlates:
        dk = np.flip(dk, along).conj()
    kernel_shape = own[1].shape
    if own[1].ndim == 1:
        kernel_shape = tuple(-1 if a == along else 1 for a in range(own[0].ndim))
    found = []
    for gradient, array, shape in ((dx, own[0], own[0].shape), (dk, own[1], kernel_shape)):
        kind = _FLOAT64 if array.dtype.kind in "biu" else array.dtype.newbyteorder("=")
        found.append(summed(gradient, shape, kind).reshape(array.shape))
    _arguments.report_float_status(function, backward.status)
    return found[0], found[1]


def convolve_vjp(
    x: ArrayLike,
    k: ArrayLike,
    dy: ArrayLike,
    mode: Any = "full",
    axis: int = -1,
    *,
    method: Any = "auto",
    boundary: Any = "zero",
) -> tuple[Array, Array]:
    """Compute the gradients of `convolve` for both of its inputs.

    Parameters
    ----------
    x, k
        The inputs of `convolve`.
    dy : array_like
        The cotangent: the gradient of a scalar with respect to the result, of its shape.
    mode, axis, method, boundary
        As for `convolve`.

    Returns
    -------
    dx, dk : ndarray
        The gradients, of the shapes and dtypes of `x` and `k` (float64 for integers). For complex
        inputs they are formed with the conjugates of the other factor.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As for `convolve`; also ValueError for a `dy` of another shape, TypeError for a complex one
        of a real result.

    Notes
    -----
    dx[p] = sum over i of dy[i] * k[start + i - p], and dk[j] = sum over i of
    dy[i] * x[start + i - j]: convolutions again, with the accuracy of `convolve`; a gradient of
    what was broadcast is summed. Complexity: twice that of `convolve`.

    References
    ----------
    .. [1] A. V. Oppenheim, R. W. Schafer, "Discrete-Time Signal Processing", 3rd ed., chapter 2,
       Pearson, 2010.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import convolve_vjp
    >>> dx, dk = convolve_vjp([1.0, 2.0, 3.0], [1.0, -1.0], np.ones(2), "valid")
    >>> dx, dk
    (array([-1.,  0.,  1.]), array([5., 3.]))
    """
    return gradients("convolve_vjp", x, k, dy, mode, axis, method, boundary, False)


def correlate_vjp(
    x: ArrayLike,
    k: ArrayLike,
    dy: ArrayLike,
    mode: Any = "full",
    axis: int = -1,
    *,
    method: Any = "auto",
    boundary: Any = "zero",
) -> tuple[Array, Array]:
    """Compute the gradients of `correlate` for both of its inputs.

    Parameters
    ----------
    x, k, dy, mode, axis, method, boundary
        As for `convolve_vjp`.

    Returns
    -------
    dx, dk : ndarray
        As for `convolve_vjp`.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As for `convolve_vjp`.

    Notes
    -----
    Accuracy and complexity as for `convolve_vjp`; for complex inputs `dk` is the gradient with
    respect to `k`, not to its conjugate.

    References
    ----------
    .. [1] A. V. Oppenheim, R. W. Schafer, "Discrete-Time Signal Processing", 3rd ed., chapter 2,
       Pearson, 2010.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import correlate_vjp
    >>> dx, dk = correlate_vjp([1.0, 2.0, 4.0], [1.0, -1.0], np.ones(2), "valid")
    >>> dx, dk
    (array([ 1.,  0., -1.]), array([3., 6.]))
    """
    return gradients("correlate_vjp", x, k, dy, mode, axis, method, boundary, True)
