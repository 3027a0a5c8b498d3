"""Convolution and correlation of images, and their gradients."""

from collections.abc import Sequence
from typing import Any

from numpy.typing import ArrayLike, NDArray

from unitstride import _planes_call
from unitstride.convolution import Boundary, Method, Mode

__all__ = ["convolve2d", "convolve2d_vjp", "correlate2d", "correlate2d_vjp"]

Array = NDArray[Any]


def convolve2d(
    x: ArrayLike,
    k: ArrayLike,
    mode: Mode = "full",
    axes: Sequence[int] = (-2, -1),
    *,
    method: Method = "auto",
    boundary: Boundary = "zero",
    out: Array | None = None,
) -> Array:
    """Convolve images with a kernel: out[i, j] = sum over p, q of k[p, q] * x[i - p, j - q].

    Parameters
    ----------
    x : array_like
        Input of two axes or more and any memory layout, with images along `axes`.
    k : array_like
        A kernel of two axes, or an array with the axes of `x`, with kernels along `axes`, that
        broadcasts against `x` along the others.
    mode : {"full", "same", "valid", "causal"}, default "full"
        Which outputs, along each of the two axes: see `convolve`.
    axes : two ints, default (-2, -1)
        The axes of `x` along which the first and the second axis of the kernel move.
    method : {"auto", "direct", "fft"}, default "auto"
        By the definition, by FFT, or whichever is expected to be faster; see Notes.
    boundary : {"zero", "reflect", "replicate", "circular", "symmetric"}, default "zero"
        What `x` is beyond its ends, along each axis: see `convolve`.
    out : ndarray, optional
        Array for the result, of exactly its shape and dtype.

    Returns
    -------
    ndarray
        The shape of `x`, broadcast with `k`, with the numbers of outputs along `axes`; the common
        dtype of `x` and `k`. `out` itself when it is given.

    Raises
    ------
    TypeError
        For dtypes that are not numbers or booleans, an `out` of another dtype, words and `axes` of
        the wrong kind.
    ValueError
        For fewer than two axes, an image or kernel without elements, shapes that do not broadcast,
        mode="valid" where neither holds the other, unknown words, method="fft" for integers,
        booleans and longdouble, and an `out` of another shape, read-only, or with elements that
        share memory.
    numpy.exceptions.AxisError
        For axes out of range.

    Notes
    -----
    Accuracy: the direct method's error is at most 16 units of roundoff of the sum of the terms'
    magnitudes, for each output; integers are exact (modulo their range). FFT's error is at most
    16 log2(N) units of roundoff of norm(x) * norm(k) for a transform of N elements. 16-bit types
    are computed in float32 and rounded once. "auto" takes FFT under the conditions that `convolve`
    states; images that are not finite go by the definition.

    Complexity: O(x.size * k.size) directly, O(x.size log k.size) by FFT of the rows one after the
    other.

    References
    ----------
    .. [1] R. C. Gonzalez, R. E. Woods, "Digital Image Processing", 4th ed., chapters 3 and 4,
       Pearson, 2018.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import convolve2d
    >>> convolve2d(np.eye(3), np.array([[1.0, -1.0]]), "same")
    array([[ 1., -1.,  0.],
           [ 0.,  1., -1.],
           [ 0.,  0.,  1.]])
    """
    return _planes_call.run("convolve2d", x, k, mode, axes, method, boundary, out, False)


def correlate2d(
    x: ArrayLike,
    k: ArrayLike,
    mode: Mode = "full",
    axes: Sequence[int] = (-2, -1),
    *,
    method: Method = "auto",
    boundary: Boundary = "zero",
    out: Array | None = None,
) -> Array:
    """Correlate images with a kernel: the convolution with its conjugate, turned round.

    Parameters
    ----------
    x, k, mode, axes, method, boundary, out
        As for `convolve2d`.

    Returns
    -------
    ndarray
        As for `convolve2d`.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As for `convolve2d`.

    Notes
    -----
    Accuracy and complexity as for `convolve2d`. The outputs of mode="same" begin at m // 2 of the
    whole correlation for m taps, as SciPy's do (`convolve2d`: (m - 1) // 2).

    References
    ----------
    .. [1] R. C. Gonzalez, R. E. Woods, "Digital Image Processing", 4th ed., chapter 3, Pearson,
       2018.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import correlate2d
    >>> correlate2d(np.arange(9.0).reshape(3, 3), np.array([[1.0, 0.0], [0.0, 1.0]]), "valid")
    array([[ 4.,  6.],
           [10., 12.]])
    """
    return _planes_call.run("correlate2d", x, k, mode, axes, method, boundary, out, True)


def convolve2d_vjp(
    x: ArrayLike,
    k: ArrayLike,
    dy: ArrayLike,
    mode: Mode = "full",
    axes: Sequence[int] = (-2, -1),
    *,
    method: Method = "auto",
    boundary: Boundary = "zero",
) -> tuple[Array, Array]:
    """Compute the gradients of `convolve2d` for both of its inputs.

    Parameters
    ----------
    x, k
        The inputs of `convolve2d`.
    dy : array_like
        The cotangent: the gradient of a scalar with respect to the result, of its shape.
    mode, axes, method, boundary
        As for `convolve2d`.

    Returns
    -------
    dx, dk : ndarray
        The gradients, of the shapes and dtypes of `x` and `k` (float64 for integers). For complex
        inputs they are formed with the conjugates of the other factor.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As for `convolve2d`; also ValueError for a `dy` of another shape, TypeError for a complex
        one of a real result.

    Notes
    -----
    Both are convolutions again, with the accuracy of `convolve2d`; a gradient of what was broadcast
    is summed. Complexity: twice that of `convolve2d`.

    References
    ----------
    .. [1] I. Goodfellow, Y. Bengio, A. Courville, "Deep Learning", section 9.5, MIT Press, 2016.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import convolve2d_vjp
    >>> dx, dk = convolve2d_vjp(np.ones((2, 2)), [[2.0]], np.ones((2, 2)))
    >>> dx, dk
    (array([[2., 2.],
           [2., 2.]]), array([[4.]]))
    """
    return _planes_call.gradients("convolve2d_vjp", x, k, dy, mode, axes, method, boundary, False)


def correlate2d_vjp(
    x: ArrayLike,
    k: ArrayLike,
    dy: ArrayLike,
    mode: Mode = "full",
    axes: Sequence[int] = (-2, -1),
    *,
    method: Method = "auto",
    boundary: Boundary = "zero",
) -> tuple[Array, Array]:
    """Compute the gradients of `correlate2d` for both of its inputs.

    Parameters
    ----------
    x, k, dy, mode, axes, method, boundary
        As for `convolve2d_vjp`.

    Returns
    -------
    dx, dk : ndarray
        As for `convolve2d_vjp`.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As for `convolve2d_vjp`.

    Notes
    -----
    Accuracy and complexity as for `convolve2d_vjp`; for complex inputs `dk` is the gradient with
    respect to `k`, not to its conjugate.

    References
    ----------
    .. [1] I. Goodfellow, Y. Bengio, A. Courville, "Deep Learning", section 9.5, MIT Press, 2016.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import correlate2d_vjp
    >>> dx, dk = correlate2d_vjp(np.eye(2), [[1.0, 2.0]], np.ones((2, 1)), "valid")
    >>> dx, dk
    (array([[1., 2.],
           [1., 2.]]), array([[1., 1.]]))
    """
    return _planes_call.gradients("correlate2d_vjp", x, k, dy, mode, axes, method, boundary, True)
