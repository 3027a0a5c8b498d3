"""Gradients of attention, from its inputs, its result and its log-sum-exp."""

from typing import Any, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unitstride import _arguments, _attention_calls, _backend, _outputs
from unitstride._attention_calls import Options
from unitstride._attention_options import Inputs
from unitstride._backend import core

Array = NDArray[Any]
DType = np.dtype[Any]

_NAME = "attention_vjp"
_FLOAT32 = np.dtype(np.float32)


def _own_dtype(value: ArrayLike) -> DType:
    dtype = _arguments.native_float(np.asarray(value).dtype)
    assert dtype is not None
    return dtype


def _summed(gradient: Array, shape: tuple[int, ...], dtype: DType) -> Array:
    """Sum over the batch dimensions along which an array of `shape` was broadcast."""
    if gradient.shape == shape and gradient.dtype == dtype:
        return gradient
    extra = gradient.ndim - len(shape)
    axes = [k for k in range(gradient.ndim) if k < extra or shape[k - extra] == 1]
    axes = [k for k in axes if k < extra or gradient.shape[k] != 1]
    with np.errstate(over="ignore", invalid="ignore"):
        if axes:
            gradient = gradient.sum(axis=tuple(axes), dtype=np.float64).reshape(shape)
        return gradient.astype(dtype, copy=False)


def _in_dtype(inputs: Inputs, dtype: DType) -> Inputs:
    if inputs.query.dtype == dtype:
        return inputs
    query, key, value = (x.astype(dtype) for x in (inputs.query, inputs.key, inputs.value))
    return inputs._replace(query=query, key=key, value=value)


def _zeros_for(
    option: str, asked: bool, value: ArrayLike | None, dimensions: int, dtype: DType
) -> Array | None:
    """Return zeros of the shape of an option, with leading dimensions of size 1."""
    if not asked:
        return None
    if value is None:
        raise ValueError(f"{_NAME}: `{option}` must be given for its gradient, got None")
    shape = np.shape(value)
    return np.zeros((*(1,) * (dimensions - len(shape)), *shape), dtype)


def attention_vjp(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    out: ArrayLike,
    lse: ArrayLike,
    cotangent: ArrayLike,
    /,
    *,
    bias_gradient: bool = False,
    sinks_gradient: bool = False,
    **options: Unpack[Options],
) -> tuple[Array, ...]:
    """Compute the gradients of `attention`.

    Parameters
    ----------
    query, key, value : array_like
        The inputs of `attention`.
    out : array_like, shape (..., heads, queries, value_features)
        Its result.
    lse : array_like, shape (..., heads, queries)
        Its log-sum-exp (``return_lse=True``).
    cotangent : array_like
        The cotangent of `out`, of the same shape.
    bias_gradient, sinks_gradient : bool, default: False
        Also return the gradient of the option `bias`, of `sinks`.
    **options
        The options given to `attention`: `mask`, `bias`, `causal`, `window`, `scale`, `softcap`,
        `alibi_slopes`, `sinks`, `query_lengths`, `key_lengths`.

    Returns
    -------
    d_query, d_key, d_value : ndarray
        The cotangents of the inputs, each of the shape and dtype of its array: what was broadcast
        is summed over.
    d_bias, d_sinks : ndarray
        Where asked for, of the shape and dtype of the option.

    Raises
    ------
    TypeError, ValueError
        As for `attention`; also ValueError for `out`, `lse` or `cotangent` of another shape, and
        for the gradient of an option that is not given.

    Notes
    -----
    Rows that attend to nothing have gradient 0, and excluded keys take no part, whatever they
    hold. The weights are computed again from `lse`, so that no array of queries x keys is stored
    beside those that are passed and asked for: time O(heads * queries * keys * features), about
    2.5 times that of `attention`, as in [1]_. Sums are in float32, in float64 for float64, and
    rounded once; with the gradients of `bias` or `sinks` it runs on NumPy, in float64. A relative
    error of `lse` is one of all the gradients of its row.

    References
    ----------
    .. [1] T. Dao et al., "FlashAttention", 2022, arXiv:2205.14135, algorithm 4.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import attention, attention_vjp
    >>> q, k, v = np.ones((1, 1, 2)), np.zeros((1, 2, 2)), np.array([[[1.0], [3.0]]])
    >>> out, lse = attention(q, k, v, return_lse=True)
    >>> attention_vjp(q, k, v, out, lse, np.ones_like(out))[2]
    array([[[0.5],
            [0.5]]])
    """
    if core is not None and not (bias_gradient or sinks_gradient):
        given = _attention_calls.in_order(_NAME, options)
        fast: tuple[Array, ...] | None = core.attention_vjp_fast(
            query, key, value, *given, out, lse, cotangent
        )
        if fast is not None:
            return fast
    inputs, dtype = _attention_calls.prepare(_NAME, query, key, value, options)
    shape = (*inputs.query.shape[:-1], inputs.value.shape[-1])
    slope, working = _arguments.companion(_NAME, "cotangent", cotangent, dtype)
    result = _arguments.as_array(_NAME, "out", out)
    level = _arguments.as_array(_NAME, "lse", lse)
    for name, array in (("out", result), ("cotangent", slope)):
        _arguments.check_shape(_NAME, name, array, shape)
    _arguments.check_shape(_NAME, "lse", level, shape[:-1])
    named = ((query, inputs.query), (key, inputs.key), (value, inputs.value))
    if any(np.shape(given) != spread.shape for given, spread in named):
        # Sums over the batch take unrounded terms.
        working = _arguments.wider(working, _FLOAT32)
    wide = _arguments.wider(working, _FLOAT32)
    inputs = _in_dtype(inputs, working)
    d_query, d_key, d_value = (
        _outputs.fresh(array, array.shape) for array in (inputs.query, inputs.key, inputs.value)
    )
    bias, sinks = options.get("bias"), options.get("sinks")
    dimensions = len(shape)
    d_bias = _zeros_for("bias", bias_gradient, bias, dimensions, wide)
    d_sinks = _zeros_for("sinks", sinks_gradient, sinks, dimensions - 2, wide)
    slope, result = (x.astype(working, copy=False) for x in (slope, result))
    level = level.astype(wide, copy=False)
    status = _backend.run(
        _NAME, inputs, result, level, slope, d_query, d_key, d_value, d_bias, d_sinks
    )
    results = [
        _summed(gradient, np.shape(given), _own_dtype(given))
        for gradient, (given, _) in zip((d_query, d_key, d_value), named, strict=True)
    ]
    for gradient, option in ((d_bias, bias), (d_sinks, sinks)):
        if gradient is not None and option is not None:
            results.append(_summed(gradient, np.shape(option), _own_dtype(option)))
    _arguments.report_float_status(_NAME, status)
    return tuple(results)
