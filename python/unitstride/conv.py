"""Convolution with channels, in the words of PyTorch: conv1d, conv2d, and their gradients.

The kernel is not turned round, as everywhere in machine learning: what this module calls a
convolution is a correlation.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unitstride import _arguments, _conv_planes, _conv_windows, _outputs
from unitstride._conv_causal import causal_conv1d
from unitstride._conv_windows import Conv, Padding, Size

__all__ = ["causal_conv1d", "conv1d", "conv1d_vjp", "conv2d", "conv2d_vjp"]

Array = NDArray[Any]


def _run(function: str, conv: Conv, out: Array | None) -> Array:
    shape = conv.shape if conv.batched else conv.shape[1:]
    if out is not None:
        _outputs.check_out(function, out, shape, conv.x.dtype)
    target = out
    safe = out is not None and _outputs.can_write_into(
        out, conv.x.dtype, (), (conv.x, conv.w, conv.bias)
    )
    if target is None or not safe or not _conv_planes.writes_into(conv, target):
        target = _outputs.fresh(np.empty(0, conv.x.dtype).reshape((0,) * len(shape)), shape)
    full = target if conv.batched else target[None]
    if _conv_planes.takes(conv):
        _conv_planes.forward(conv, full)
    elif not _conv_windows.forward_on_core(function, conv, full):
        if conv.bias is not None:
            full[...] = conv.bias.reshape(-1, *(1,) * len(conv.places))
        _conv_windows.forward(conv, full, conv.bias is not None)
    result, _ = _outputs.deliver(target, out, conv.x.dtype)
    return result


def _gradients(function: str, conv: Conv, cotangent: ArrayLike) -> tuple[Array, ...]:
    slope = _arguments.as_array(function, "cotangent", cotangent)
    shape = conv.shape if conv.batched else conv.shape[1:]
    _arguments.check_shape(function, "cotangent", slope, shape)
    slope = slope.astype(conv.x.dtype, copy=False)
    slope = slope if conv.batched else slope[None]
    own_kernels = _conv_planes.takes(conv)
    if own_kernels and len(conv.w) == conv.x.shape[1]:
        d_x = _conv_planes.input_gradient(conv, slope)
    else:
        slope = np.ascontiguousarray(slope)
        d_x = _conv_windows.input_gradient(function, conv, slope)
    if own_kernels:
        d_w, d_bias = _conv_planes.other_gradients(conv, slope)
    else:
        d_w = _conv_windows.weight_gradient(function, conv, slope)
        wide = np.float64 if conv.x.dtype == np.float64 else np.float32
        d_bias = slope.sum(axis=(0, *range(2, slope.ndim)), dtype=wide).astype(conv.x.dtype)
    return (d_x if conv.batched else d_x[0]), d_w, d_bias


def conv1d(
    x: ArrayLike,
    w: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    out: Array | None = None,
) -> Array:
    """Correlate signals of several channels with kernels, as PyTorch's conv1d does.

    Parameters
    ----------
    x : array_like, shape (batch, channels, length) or (channels, length)
        Any strides: (batch, length, channels) arrays pass as their transposed views.
    w : array_like, shape (outputs, channels / groups, taps)
        The kernels.
    bias : array_like, shape (outputs,), optional
        Added to each output.
    stride : int, default: 1
        From output to output.
    padding : int, "same" or "valid", default: 0
        Zeros on both sides; "same" keeps the length (with stride 1; one more zero at the end where
        the number is odd).
    dilation : int, default: 1
        From tap to tap.
    groups : int, default: 1
        Groups of channels that do not see one another; as many as channels is depthwise.
    out : ndarray, optional
        Array for the result, of exactly its shape and dtype.

    Returns
    -------
    ndarray, shape (batch, outputs, places) or (outputs, places)
        In the wider dtype of `x` and `w`;
        places = (length + 2 padding - dilation (taps - 1) - 1) // stride + 1.

    Raises
    ------
    TypeError
        For arrays that are not real numbers, and options of a wrong kind.
    ValueError
        For shapes that do not fit together, and kernels longer than the padded signal.

    Notes
    -----
    ``out[n, o, t] = bias[o] + sum over c, j of w[o, c, j] * x[n, c, stride t + dilation j -
    padding]``: one contraction over windows of the padded signal, which are views. Accuracy is that
    of `einsum`; 16-bit types add in float32 and round once. Time O(out.size * channels * taps).

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import conv1d
    >>> conv1d(np.array([[1.0, 2.0, 3.0]]), np.array([[[1.0, 1.0]]]), padding="same")
    array([[3., 5., 3.]])
    """
    name = "conv1d"
    return _run(
        name, _conv_windows.prepare(name, x, w, bias, 1, stride, padding, dilation, groups), out
    )


def conv2d(
    x: ArrayLike,
    w: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    out: Array | None = None,
) -> Array:
    """Correlate images of several channels with kernels, as PyTorch's conv2d does.

    Parameters
    ----------
    x : array_like, shape (batch, channels, height, width) or (channels, height, width)
        Any strides: (batch, height, width, channels) arrays pass as their transposed views.
    w : array_like, shape (outputs, channels / groups, taps, taps)
        The kernels.
    bias : array_like, shape (outputs,), optional
        Added to each output.
    stride, dilation : int or (int, int), default: 1
        From output to output, from tap to tap.
    padding : int, (int, int), "same" or "valid", default: 0
        Zeros around the image; "same" keeps its size (with stride 1).
    groups : int, default: 1
        Groups of channels that do not see one another; as many as channels is depthwise.
    out : ndarray, optional
        Array for the result, of exactly its shape and dtype.

    Returns
    -------
    ndarray, shape (batch, outputs, places, places) or (outputs, places, places)
        In the wider dtype of `x` and `w`.

    Raises
    ------
    TypeError, ValueError
        As for `conv1d`.

    Notes
    -----
    As for `conv1d`. A 1 x 1 kernel is a product of matrices.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import conv2d
    >>> conv2d(np.ones((1, 3, 3)), np.ones((1, 1, 2, 2)), np.array([1.0]))
    array([[[5., 5.],
            [5., 5.]]])
    """
    name = "conv2d"
    return _run(
        name, _conv_windows.prepare(name, x, w, bias, 2, stride, padding, dilation, groups), out
    )


def conv1d_vjp(
    x: ArrayLike,
    w: ArrayLike,
    cotangent: ArrayLike,
    *,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> tuple[Array, ...]:
    """Compute the gradients of `conv1d`.

    Parameters
    ----------
    x, w, stride, padding, dilation, groups
        As for `conv1d`.
    cotangent : array_like
        The cotangent of its result, of the same shape.

    Returns
    -------
    d_x, d_w, d_bias : ndarray
        In the wider dtype of `x` and `w`; `d_bias` is what a bias would have.

    Raises
    ------
    TypeError, ValueError
        As for `conv1d`; also ValueError for a cotangent of another shape.

    Notes
    -----
    Contractions of windows as the function itself: each takes about its time.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import conv1d_vjp
    >>> x, w = np.array([[1.0, 2.0, 3.0]]), np.array([[[1.0, 1.0]]])
    >>> conv1d_vjp(x, w, np.ones((1, 2)))
    (array([[1., 2., 1.]]), array([[[3., 5.]]]), array([2.]))
    """
    name = "conv1d_vjp"
    conv = _conv_windows.prepare(name, x, w, None, 1, stride, padding, dilation, groups)
    return _gradients(name, conv, cotangent)


def conv2d_vjp(
    x: ArrayLike,
    w: ArrayLike,
    cotangent: ArrayLike,
    *,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> tuple[Array, ...]:
    """Compute the gradients of `conv2d`.

    Parameters
    ----------
    x, w, stride, padding, dilation, groups
        As for `conv2d`.
    cotangent : array_like
        The cotangent of its result, of the same shape.

    Returns
    -------
    d_x, d_w, d_bias : ndarray
        In the wider dtype of `x` and `w`; `d_bias` is what a bias would have.

    Raises
    ------
    TypeError, ValueError
        As for `conv2d`; also ValueError for a cotangent of another shape.

    Notes
    -----
    Contractions of windows as the function itself: each takes about its time.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import conv2d_vjp
    >>> d_x, d_w, d_bias = conv2d_vjp(
    ...     np.ones((1, 3, 3)), np.ones((1, 1, 2, 2)), np.ones((1, 2, 2))
    ... )
    >>> d_x
    array([[[1., 2., 1.],
            [2., 4., 2.],
            [1., 2., 1.]]])
    """
    name = "conv2d_vjp"
    conv = _conv_windows.prepare(name, x, w, None, 2, stride, padding, dilation, groups)
    return _gradients(name, conv, cotangent)
