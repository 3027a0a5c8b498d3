"""Convolution with long kernels, and with one kernel many times."""

import threading
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unitstride import _arguments, _backend, _convolution_call, _native_convolution, _outputs
from unitstride._convolution_vjp import gradients
from unitstride._einsum_run import fresh
from unitstride._reference.convolution import BOUNDARIES
from unitstride.convolution import Boundary, Method, Mode

__all__ = ["ConvolutionPlan", "long_convolve", "long_convolve_vjp"]

Array = NDArray[Any]
DType = np.dtype[Any]

_LONGEST = 1 << 17  # taps of a kernel whose spectrum is kept
_LEAST_LOGARITHM = 10


def _kernels(function: str, x: ArrayLike, k: ArrayLike) -> tuple[Array, Array]:
    """Return signals, and kernels with their axes, no longer than the signals."""
    signal = _convolution_call.as_numbers(function, "x", x)
    kernel = _convolution_call.as_numbers(function, "k", k)
    if signal.ndim == 0 or kernel.ndim not in (1, 2):
        raise ValueError(
            f"{function}: `x` must have shape (..., channels, length) and `k` (channels, taps) or "
            f"(taps,), got {signal.shape} and {kernel.shape}"
        )
    if kernel.ndim == 2 and (signal.ndim < 2 or kernel.shape[0] not in (1, signal.shape[-2])):
        raise ValueError(
            f"{function}: `k` must have a kernel for each channel of `x`, got shapes "
            f"{kernel.shape} and {signal.shape}"
        )
    for argument, array in (("x", signal), ("k", kernel)):
        if array.shape[-1] == 0:
            raise ValueError(
                f"{function}: `{argument}` must have at least one element along its last axis, "
                f"got shape {array.shape}"
            )
    kernel = kernel[..., : signal.shape[-1]]
    if kernel.ndim == 2:
        kernel = kernel.reshape((1,) * (signal.ndim - 2) + kernel.shape)
    return signal, kernel


def long_convolve(x: ArrayLike, k: ArrayLike, *, out: Array | None = None) -> Array:
    """Convolve each channel with a kernel as long as the signal, looking back only.

    Parameters
    ----------
    x : array_like, shape (..., channels, length)
        Signals.
    k : array_like, shape (channels, taps) or (taps,)
        A kernel for each channel, or one for all; taps beyond the length meet nothing.
    out : ndarray, optional
        Array for the result, of exactly its shape and dtype.

    Returns
    -------
    ndarray, shape (..., channels, length)
        ``out[..., c, t] = sum over j of k[c, j] * x[..., c, t - j]``.

    Raises
    ------
    TypeError
        For arrays that are not numbers, or an `out` of another dtype.
    ValueError
        For shapes that do not fit together, and an `out` of another shape.

    Notes
    -----
    `convolve` with mode="causal", whose accuracy and choice of the method it has. Complexity:
    O(length log length) for each line.

    References
    ----------
    .. [1] D. Y. Fu et al., "FlashFFTConv: Efficient Convolutions for Long Sequences with Tensor
       Cores", ICLR 2024.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import long_convolve
    >>> long_convolve(np.array([[1.0, 2.0, 3.0]]), np.array([[1.0, 0.5, 0.25]]))
    array([[1.  , 2.5 , 4.25]])
    """
    signal, kernel = _kernels("long_convolve", x, k)
    return _convolution_call.run(
        "long_convolve", signal, kernel, "causal", -1, "auto", "zero", out, False
    )


def long_convolve_vjp(x: ArrayLike, k: ArrayLike, dy: ArrayLike) -> tuple[Array, Array]:
    """Compute the gradients of `long_convolve` for both of its inputs.

    Parameters
    ----------
    x, k
        The inputs of `long_convolve`.
    dy : array_like
        The cotangent: the gradient of a scalar with respect to the result, of its shape.

    Returns
    -------
    dx, dk : ndarray
        The gradients, of the shapes and dtypes of `x` and `k`.

    Raises
    ------
    TypeError, ValueError
        As for `long_convolve`; also ValueError for a `dy` of another shape.

    Notes
    -----
    Accuracy as for `convolve_vjp`; twice the work of `long_convolve`.

    References
    ----------
    .. [1] D. Y. Fu et al., "FlashFFTConv: Efficient Convolutions for Long Sequences with Tensor
       Cores", ICLR 2024.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import long_convolve_vjp
    >>> dx, dk = long_convolve_vjp(np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]]), np.ones((1, 2)))
    >>> dx, dk
    (array([[7., 3.]]), array([[3., 1.]]))
    """
    signal, kernel = _kernels("long_convolve_vjp", x, k)
    dx, part = gradients(
        "long_convolve_vjp", signal, kernel, dy, "causal", -1, "auto", "zero", False
    )
    given = np.asarray(k)
    dk = np.zeros(given.shape, part.dtype)
    dk[..., : part.shape[-1]] = part.reshape(*given.shape[:-1], part.shape[-1])
    return dx, dk


class ConvolutionPlan:
    """A kernel that is met by many signals, and by streams.

    Its spectrum is computed once for each dtype of the results, when it is first wanted.

    Parameters
    ----------
    k : array_like, shape (taps,)
        The kernel; a copy is kept.
    mode : {"full", "same", "valid", "causal"}, default "full"
        Which outputs a call gives: see `convolve`.
    axis : int, default -1
        The axis of signals and chunks along which the kernel moves.
    method : {"auto", "direct", "fft"}, default "auto"
        As for `convolve`.
    boundary : {"zero", "reflect", "replicate", "circular", "symmetric"}, default "zero"
        What signals are beyond their ends; streams are zero before their beginning.

    Raises
    ------
    TypeError, ValueError
        As for `convolve`; also ValueError for a kernel that has not one axis.

    Notes
    -----
    Calls may be made by several threads at once. A stream belongs to the plan: one of its steps
    waits for another.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import ConvolutionPlan
    >>> plan = ConvolutionPlan([1.0, 1.0], mode="causal")
    >>> plan
    ConvolutionPlan(taps=2, dtype=float64, mode='causal', axis=-1, method='auto', boundary='zero')
    >>> plan(np.arange(4.0))
    array([0., 1., 3., 5.])
    >>> plan.step(np.arange(2.0)), plan.step(np.array([2.0, 3.0])), plan.flush()
    (array([0., 1.]), array([3., 5.]), array([3.]))
    """

    def __init__(
        self,
        k: ArrayLike,
        mode: Mode = "full",
        axis: int = -1,
        *,
        method: Method = "auto",
        boundary: Boundary = "zero",
    ) -> None:
        name = "ConvolutionPlan"
        kernel = _convolution_call.as_numbers(name, "k", k)
        if kernel.ndim != 1 or kernel.size == 0:
            raise ValueError(
                f"{name}: `k` must have one axis and at least one tap, got shape {kernel.shape}"
            )
        _convolution_call.one_of(name, "mode", mode, _convolution_call.MODES)
        _convolution_call.one_of(name, "method", method, _convolution_call.METHODS)
        _convolution_call.one_of(name, "boundary", boundary, BOUNDARIES)
        self._kernel = np.array(kernel, dtype=kernel.dtype.newbyteorder("="))
        self._kernel.flags.writeable = False
        self._mode, self._axis, self._method = mode, axis, method
        self._boundary: Boundary = boundary
        self._spectra: dict[str, _native_convolution.Spectrum] = {}
        self._state: Array | None = None
        self._lock = threading.Lock()

    @property
    def kernel(self) -> Array:
        """The kernel, read-only."""
        return self._kernel

    def __repr__(self) -> str:
        return (
            f"ConvolutionPlan(taps={self._kernel.size}, "
            f"dtype={_arguments.dtype_label(self._kernel.dtype)}, mode={self._mode!r}, "
            f"axis={self._axis}, method={self._method!r}, boundary={self._boundary!r})"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        options = {"method": self._method, "boundary": self._boundary}
        return _rebuilt, (self._kernel, self._mode, self._axis, options, self._state)

    def _spectrum(self, dtype: DType) -> _native_convolution.Spectrum | None:
        """Return the spectrum for results of a dtype; threads may compute one twice."""
        if _backend.core is None or self._kernel.size > _LONGEST:
            return None
        own = _convolution_call.in_dtype(self._kernel, dtype)
        found = self._spectra.get(own.dtype.name)
        if found is None:
            logarithm = max((4 * own.size - 1).bit_length(), _LEAST_LOGARITHM)
            logarithm = min(logarithm, max((2 * own.size - 1).bit_length(), 13))
            found = _native_convolution.spectrum_of(_backend.core, own, logarithm)
            self._spectra[own.dtype.name] = found
        return found

    def _run(self, function: str, x: Array, mode: str, boundary: str, out: Array | None) -> Array:
        problem, dtype = _convolution_call.prepare(
            function, x, self._kernel, mode, self._axis, boundary, False
        )
        operation, problem = _convolution_call.choose(function, self._method, problem, dtype)
        target = out
        if out is not None:
            _outputs.check_out(function, out, problem.shape, dtype)
            if not _outputs.can_write_into(out, dtype, (), (problem.x, problem.k)):
                target = None
        if target is None:
            target = fresh(problem.shape, dtype)
        more: tuple[Any, ...] = ()
        if operation == "convolve_fft" and problem.k.shape[problem.axis] == self._kernel.size:
            spectrum = self._spectrum(dtype)
            more = () if spectrum is None else (spectrum,)
        status = 0
        if target.size:
            place = (problem.axis, problem.start, problem.boundary)
            status = _backend.run(operation, problem.x, problem.k, target, *place, *more)
        result, _ = _outputs.deliver(target, out, dtype)
        _arguments.report_float_status(function, status)
        return result

    def __call__(self, x: ArrayLike, out: Array | None = None) -> Array:
        """Convolve an array with the kernel.

        Parameters
        ----------
        x : array_like
            Input of any shape and memory layout.
        out : ndarray, optional
            Array for the result, of exactly its shape and dtype.

        Returns
        -------
        ndarray
            What `convolve` gives; results by FFT agree within its bound.
        """
        array = _convolution_call.as_numbers("ConvolutionPlan", "x", x)
        return self._run("ConvolutionPlan", array, self._mode, self._boundary, out)

    def step(self, chunk: ArrayLike) -> Array:
        """Convolve the next part of a stream: as many outputs as there are inputs.

        Parameters
        ----------
        chunk : array_like
            The next elements along the axis; the same number of lines each time.

        Returns
        -------
        ndarray
            The outputs of mode="causal" at the places of `chunk`.

        Raises
        ------
        ValueError
            For a chunk with other lines than the one before it.
        """
        name = "ConvolutionPlan.step"
        array = _convolution_call.as_numbers(name, "chunk", chunk)
        if array.ndim == 0:
            raise ValueError(f"{name}: `chunk` must have at least one axis, got a scalar")
        axis = _convolution_call.axis_number(name, self._axis, array.ndim)
        with self._lock:
            state = self._state
            before = [self._kernel.size - 1 if a == axis else n for a, n in enumerate(array.shape)]
            if state is None:
                state = np.zeros(before, array.dtype)
            elif list(state.shape) != before:
                lines = [n for a, n in enumerate(state.shape) if a != axis]
                raise ValueError(
                    f"{name}: `chunk` must have the lines {tuple(lines)} of the stream, got shape "
                    f"{array.shape} (reset() begins another stream)"
                )
            window = np.concatenate([state, array], axis=axis)
            count = array.shape[axis]
            if count == 0:
                return np.zeros(array.shape, np.result_type(window, self._kernel))
            result = self._run(name, window, "valid", "zero", None)
            last = [slice(None)] * array.ndim
            last[axis] = slice(count, None)
            self._state = window[tuple(last)].copy()
            return result

    def flush(self) -> Array:
        """Return the outputs that remain of the stream, taps - 1 of them, and end it."""
        with self._lock:
            state, self._state = self._state, None
        if state is None or self._kernel.size == 1:
            return np.zeros(0 if state is None else state.shape, self._kernel.dtype)
        axis = _convolution_call.axis_number("ConvolutionPlan.flush", self._axis, state.ndim)
        zeros = np.zeros(state.shape, state.dtype)
        window = np.concatenate([state, zeros], axis=axis)
        return self._run("ConvolutionPlan.flush", window, "valid", "zero", None)

    def reset(self) -> None:
        """Forget the stream: the next step begins another one."""
        with self._lock:
            self._state = None


def _rebuilt(
    k: Array, mode: Mode, axis: int, options: dict[str, Any], state: Array | None
) -> ConvolutionPlan:
    """Make a plan again: how it is pickled and copied."""
    plan = ConvolutionPlan(k, mode, axis, **options)
    plan._state = state
    return plan
