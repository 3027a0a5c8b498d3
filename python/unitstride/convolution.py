"""Convolution and correlation along an axis, and their gradients."""

from typing import Any, Literal

from numpy.typing import ArrayLike, NDArray

from unitstride import _convolution_call
from unitstride._backend import core
from unitstride._convolution_vjp import convolve_vjp, correlate_vjp

__all__ = ["convolve", "convolve_vjp", "correlate", "correlate_vjp"]

Array = NDArray[Any]
Mode = Literal["full", "same", "valid", "causal"]
Method = Literal["auto", "direct", "fft"]
Boundary = Literal["zero", "reflect", "replicate", "circular", "symmetric"]


def _are_defaults(method: object, boundary: object) -> bool:
    return type(method) is type(boundary) is str and method == "auto" and boundary == "zero"


def convolve(
    x: ArrayLike,
    k: ArrayLike,
    mode: Mode = "full",
    axis: int = -1,
    *,
    method: Method = "auto",
    boundary: Boundary = "zero",
    out: Array | None = None,
) -> Array:
    """Convolve lines of an array with a kernel: out[i] = sum over j of k[j] * x[i - j].

    Parameters
    ----------
    x : array_like
        Input of any shape and memory layout, with lines of length n along `axis`.
    k : array_like
        A kernel of m elements, or an array with the axes of `x`, with kernels along `axis`, that
        broadcasts against `x` along the others.
    mode : {"full", "same", "valid", "causal"}, default "full"
        Which outputs: all n + m - 1; the middle n of them, from (m - 1) // 2 on; those of whole
        kernels, abs(n - m) + 1; or the first n, which depend on no later element of `x`.
    axis : int, default -1
        The axis of `x` along which the kernel moves.
    method : {"auto", "direct", "fft"}, default "auto"
        By the definition, by FFT, or whichever is expected to be faster; see Notes.
    boundary : {"zero", "reflect", "replicate", "circular", "symmetric"}, default "zero"
        What `x` is beyond its ends. For a line a b c d these are 0, d c b | a b c d | c b a,
        a a a | a b c d | d d d, b c d | a b c d | a b c and c b a | a b c d | d c b; they go on
        for kernels longer than the line.
    out : ndarray, optional
        Array for the result, of exactly its shape and dtype.

    Returns
    -------
    ndarray
        The shape of `x`, broadcast with `k`, with the number of outputs along `axis`; the common
        dtype of `x` and `k`. `out` itself when it is given.

    Raises
    ------
    TypeError
        For dtypes that are not numbers or booleans, an `out` of another dtype, words and an `axis`
        of the wrong kind.
    ValueError
        For a line or kernel without elements, shapes that do not broadcast, unknown words,
        method="fft" for integers, booleans and longdouble, an `out` of another shape, read-only,
        or with elements that share memory.
    numpy.exceptions.AxisError
        For an axis out of range.

    Notes
    -----
    Accuracy: the direct method's error is at most 16 units of roundoff of the sum of the terms'
    magnitudes, for each output; integers are exact (modulo their range). FFT's error is at most
    16 log2(N) units of roundoff of norm(x) * norm(k) for a transform of N elements, the same for
    all outputs. 16-bit types are computed in float32 and rounded once.

    "auto" takes FFT where it is expected to be faster, unless the terms of different outputs of a
    line differ in magnitude by more than 1 / sqrt(eps), so that small outputs would lose more than
    half of their digits. NaN and infinities reach the outputs whose terms they are in, by both
    methods; a kernel that is not finite goes by the definition.

    Complexity: O(n m) directly, O(n log m) by FFT in blocks (overlap-save).

    References
    ----------
    .. [1] A. V. Oppenheim, R. W. Schafer, "Discrete-Time Signal Processing", 3rd ed., chapter 8,
       Pearson, 2010.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import convolve
    >>> convolve([1.0, 2.0, 3.0], [0.0, 1.0, 0.5])
    array([0. , 1. , 2.5, 4. , 1.5])
    >>> convolve(np.arange(6).reshape(3, 2), [1, 1], mode="causal", axis=0)
    array([[0, 1],
           [2, 4],
           [6, 8]])
    """
    if core is not None and out is None and _are_defaults(method, boundary):
        fast: Array | None = core.convolve_fast(x, k, mode, axis)
        if fast is not None:
            return fast
    return _convolution_call.run("convolve", x, k, mode, axis, method, boundary, out, False)


def correlate(
    x: ArrayLike,
    k: ArrayLike,
    mode: Mode = "full",
    axis: int = -1,
    *,
    method: Method = "auto",
    boundary: Boundary = "zero",
    out: Array | None = None,
) -> Array:
    """Correlate lines of an array with a kernel: out[i] = sum over j of conj(k[j]) * x[i + j].

    Parameters
    ----------
    x, k
        As for `convolve`.
    mode : {"full", "same", "valid", "causal"}, default "full"
        As for `convolve`: correlation is convolution with the reversed conjugate of `k`. "valid"
        is what neural networks call convolution, "causal" the same after m - 1 zeros.
    axis, method, boundary, out
        As for `convolve`.

    Returns
    -------
    ndarray
        As for `convolve`.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As for `convolve`.

    Notes
    -----
    Accuracy, methods, NaN and complexity as for `convolve`.

    References
    ----------
    .. [1] A. V. Oppenheim, R. W. Schafer, "Discrete-Time Signal Processing", 3rd ed., chapter 2,
       Pearson, 2010.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import correlate
    >>> correlate([1.0, 2.0, 4.0, 8.0], [-1.0, 1.0], mode="valid")
    array([1., 2., 4.])
    """
    if core is not None and out is None and _are_defaults(method, boundary):
        fast: Array | None = core.correlate_fast(x, k, mode, axis)
        if fast is not None:
            return fast
    return _convolution_call.run("correlate", x, k, mode, axis, method, boundary, out, True)
