"""Gradients of attention, from its results."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unitstride import _arguments, _attention_options, _backend, _outputs
from unitstride._attention_options import Causal, Window

Array = NDArray[Any]


def _rows(function: str, argument: str, given: ArrayLike, shape: tuple[int, ...]) -> Array:
    """Return an array of exactly this shape."""
    array = _arguments.as_array(function, argument, given)
    _arguments.check_shape(function, argument, array, shape)
    return array


def _like(gradient: Array, given: ArrayLike) -> Array:
    """Sum a gradient over the dimensions along which its array was broadcast."""
    shape = np.shape(given)
    extra = gradient.ndim - len(shape)
    axes = tuple(
        axis
        for axis in range(gradient.ndim)
        if axis < extra or (shape[axis - extra] == 1 and gradient.shape[axis] != 1)
    )
    if axes:
        wide = gradient.dtype.itemsize >= 8
        gradient = np.add.reduce(gradient, axis=axes, dtype=np.float64 if wide else np.float32)
    dtype = getattr(given, "dtype", gradient.dtype)
    dtype = dtype if dtype.kind in "fV" else np.dtype(np.float64)
    return gradient.reshape(shape).astype(dtype, copy=False)


def attention_vjp(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    out: ArrayLike,
    lse: ArrayLike,
    cotangent: ArrayLike,
    /,
    *,
    mask: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    causal: Causal = False,
    window: Window | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    alibi_slopes: ArrayLike | None = None,
    sinks: ArrayLike | None = None,
    query_lengths: ArrayLike | None = None,
    key_lengths: ArrayLike | None = None,
    bias_gradient: bool = False,
    sinks_gradient: bool = False,
) -> tuple[Array, ...]:
    """Compute the gradients of sum(cotangent * attention(query, key, value)).

    Parameters
    ----------
    query, key, value : array_like
        The arguments of `attention`.
    out : array_like, shape (..., heads, queries, value_features)
        Its result.
    lse : array_like, shape (..., heads, queries)
        The log-sum-exp that it returns with ``return_lse=True``.
    cotangent : array_like, shape (..., heads, queries, value_features)
        The gradient with respect to `out`.
    mask, bias, causal, window, scale, softcap, alibi_slopes, sinks, query_lengths, key_lengths
        The options of the forward call.
    bias_gradient : bool, default: False
        Also return the gradient of `bias`, in its own shape. It takes memory of the size of all
        scores.
    sinks_gradient : bool, default: False
        Also return the gradient of `sinks`, in their own shape.

    Returns
    -------
    d_query, d_key, d_value : ndarray
        In the shapes and dtypes of `query`, `key` and `value`; summed over dimensions along which
        they were broadcast. A row with nothing to attend to contributes nothing.
    d_bias : ndarray
        With `bias_gradient`.
    d_sinks : ndarray
        With `sinks_gradient`.

    Raises
    ------
    TypeError
        As `attention` does.
    ValueError
        As `attention` does, for results of a wrong shape, and where the gradient of an absent
        `bias` or of absent `sinks` is asked for.

    Notes
    -----
    Weights are computed anew from `lse`, block by block: 2.5 times the arithmetic of the forward
    call, and memory for the gradients alone. float32 sums are kept in float32, those of 16-bit
    types too, and each gradient is rounded once. The gradients of bias and sinks run on NumPy.

    The formulas are those of T. Dao et al., "FlashAttention", 2022, arXiv:2205.14135.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import attention, attention_vjp
    >>> x = np.eye(2)[np.newaxis]
    >>> out, lse = attention(x, x, x, return_lse=True)
    >>> d_query, d_key, d_value = attention_vjp(x, x, x, out, lse, np.ones_like(x))
    >>> d_value.sum()
    np.float64(4.0)
    """
    name = "attention_vjp"
    inputs, dtype = _attention_options.prepare(
        name,
        query,
        key,
        value,
        mask=mask,
        bias=bias,
        causal=causal,
        window=window,
        scale=scale,
        softcap=softcap,
        alibi_slopes=alibi_slopes,
        sinks=sinks,
        query_lengths=query_lengths,
        key_lengths=key_lengths,
    )
    for wanted, given, argument in (
        (bias_gradient, bias, "bias"),
        (sinks_gradient, sinks, "sinks"),
    ):
        if wanted and given is None:
            raise ValueError(f"{name}: `{argument}_gradient` needs `{argument}`, got None")
    shape = (*inputs.query.shape[:-1], inputs.value.shape[-1])
    level_type = np.dtype(np.float64 if dtype == np.float64 else np.float32)
    result = _rows(name, "out", out, shape).astype(dtype, copy=False)
    level = _rows(name, "lse", lse, shape[:-1]).astype(level_type, copy=False)
    slope = _rows(name, "cotangent", cotangent, shape).astype(dtype, copy=False)
    arrays = (inputs.query, inputs.key, inputs.value)
    gradients = [_outputs.fresh(array, array.shape) for array in arrays]
    extra: list[Array | None] = [None, None]
    if bias_gradient:
        extra[0] = np.empty((*shape[:-1], inputs.key.shape[-2]), level_type)
    if sinks_gradient:
        extra[1] = np.empty(shape[:-2], np.float64)
    status = _backend.run(name, inputs, result, level, slope, *gradients, *extra)
    _arguments.report_float_status(name, status)
    given_arrays = (query, key, value, bias, sinks)
    return tuple(
        _like(gradient, given)
        for gradient, given in zip((*gradients, *extra), given_arrays, strict=True)
        if gradient is not None and given is not None
    )
