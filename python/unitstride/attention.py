"""Scaled dot-product attention with masks, windows, grouped heads, sinks and log-sum-exp.

The formula is that of A. Vaswani et al., "Attention is all you need", 2017, arXiv:1706.03762;
partial results merge by their log-sum-exp as in T. Dao et al., "FlashAttention", 2022,
arXiv:2205.14135.
"""

from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unitstride import _arguments, _attention_options, _backend, _outputs
from unitstride._attention_options import Causal, Window
from unitstride._attention_vjp import attention_vjp
from unitstride._attention_weights import (
    AttentionStatistics,
    attention_statistics,
    attention_weights,
)
from unitstride._backend import core

__all__ = [
    "AttentionStatistics",
    "attention",
    "attention_statistics",
    "attention_vjp",
    "attention_weights",
    "merge_attention",
]

Array = NDArray[Any]

_FLOAT32 = np.dtype(np.float32)


@overload
def attention(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
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
    return_lse: Literal[False] = False,
    out: Array | None = None,
) -> Array: ...
@overload
def attention(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
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
    return_lse: Literal[True],
    out: Array | None = None,
) -> tuple[Array, Array]: ...
def attention(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
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
    return_lse: bool = False,
    out: Array | None = None,
) -> Array | tuple[Array, Array]:
    """Average values by the softmax of scaled products of queries and keys.

    Scores are ``scale * query @ key.T``, soft-capped, then biased, then masked. All exclusions
    (`mask`, `causal`, `window`, the lengths, a bias of -inf) intersect, and what they exclude
    counts as absent: a NaN there never shows.

    Parameters
    ----------
    query : array_like, shape (..., heads, queries, features)
        Leading (batch) dimensions of the three arrays broadcast. Any strides.
    key : array_like, shape (..., key_heads, keys, features)
        `key_heads` divides `heads`; query head h reads key head h // (heads // key_heads).
    value : array_like, shape (..., key_heads, keys, value_features)
        What is averaged.
    mask : array_like of bool, optional
        True where a query attends to a key; broadcast to (..., heads, queries, keys).
    bias : array_like, optional
        Added to the scores; broadcast like `mask`.
    causal : bool, {"top_left", "bottom_right"} or array_like of int, default: False
        Query i sees keys j <= i + offset; the offset is 0 for "top_left", the number of keys less
        that of queries for "bottom_right", or given, one for all or per batch entry. True stands
        for either word where they mean the same.
    window : (int or None, int or None), optional
        How many keys a query sees to the left and right of its diagonal j = i + offset (offset 0
        without `causal`); None leaves a side open.
    scale : float, optional
        Factor of the products; by default ``1 / sqrt(features)``.
    softcap : float, optional
        Scores become ``softcap * tanh(score / softcap)``.
    alibi_slopes : array_like, optional
        ``slope * abs(i + offset - j)`` is taken off the scores; broadcast to (..., heads).
    sinks : array_like, optional
        One more score per head that takes part in the softmax and averages nothing; broadcast to
        (..., heads).
    query_lengths, key_lengths : array_like of int, optional
        How many leading queries and keys of each batch entry are valid; broadcast to the batch.
    return_lse : bool, default: False
        Also return the logarithm of each row's sum of exponentials, sinks included.
    out : ndarray, optional
        Where the result is written; it may overlap the inputs.

    Returns
    -------
    ndarray, shape (..., heads, queries, value_features)
        In the widest dtype of the three arrays. A row with nothing to attend to is 0.
    ndarray, shape (..., heads, queries)
        With `return_lse`: float64 for float64, else float32. -inf for an empty row.

    Raises
    ------
    TypeError
        For an array of a wrong dtype or an option of a wrong kind.
    ValueError
        For shapes that do not fit, lengths out of range, or ``causal=True`` where the numbers of
        queries and keys differ.

    Notes
    -----
    Time O(heads * queries * keys * (features + value_features)) less what positions exclude; memory
    O(block) beside the result. Scores, their softmax and sums are in float32, in float64 for
    float64, and the result is rounded once. The bits depend on neither the number of threads nor
    the rest of the batch.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import attention
    >>> x = np.eye(3, dtype=np.float32)[np.newaxis]
    >>> attention(x, x, x, causal=True, scale=1000.0)
    array([[[1., 0., 0.],
            [0., 1., 0.],
            [0., 0., 1.]]], dtype=float32)
    """
    if core is not None:
        fast: Array | tuple[Array, Array] | None = core.attention_fast(
            query,
            key,
            value,
            mask,
            bias,
            causal,
            window,
            scale,
            softcap,
            alibi_slopes,
            sinks,
            query_lengths,
            key_lengths,
            return_lse,
            out,
        )
        if fast is not None:
            return fast
    inputs, dtype = _attention_options.prepare(
        "attention",
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
    shape = (*inputs.query.shape[:-1], inputs.value.shape[-1])
    if out is not None:
        _outputs.check_out("attention", out, shape, dtype)
    given = (query, key, value, mask, bias, alibi_slopes, sinks, query_lengths, key_lengths, causal)
    if out is not None and _can_write_into(out, dtype, given):
        target = out
    else:
        target = _outputs.fresh(inputs.query, shape)
    lse = np.empty(shape[:-1], _arguments.wider(dtype, _FLOAT32)) if return_lse else None
    status = _backend.run("attention", inputs, target, lse)
    result, _ = _outputs.deliver(target, out, dtype)
    _arguments.report_float_status("attention", status)
    return result if lse is None else (result, lse)


def _can_write_into(out: Array, dtype: np.dtype[Any], given: tuple[Any, ...]) -> bool:
    others = tuple(array for array in given if isinstance(array, np.ndarray))
    return _outputs.can_write_into(out, dtype, (), others)


def merge_attention(
    out_a: ArrayLike, lse_a: ArrayLike, out_b: ArrayLike, lse_b: ArrayLike, /
) -> tuple[Array, Array]:
    """Merge attention over two sets of keys into attention over both.

    Parameters
    ----------
    out_a, out_b : array_like, shape (..., features)
        Results of `attention` for the same queries and other keys.
    lse_a, lse_b : array_like, shape (...)
        Their log-sum-exp. Sinks belong into one of the two parts only.

    Returns
    -------
    out : ndarray, shape (..., features)
        In the wider dtype of `out_a` and `out_b`.
    lse : ndarray, shape (...)
        In the wider dtype of `lse_a` and `lse_b`.

    Raises
    ------
    TypeError
        For an array that is not real.
    ValueError
        For shapes that do not fit.

    Notes
    -----
    ``lse = log(exp(lse_a) + exp(lse_b))`` and each part counts ``exp(lse_part - lse)``; computed
    in float64 and rounded once, in linear time.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import merge_attention
    >>> merge_attention(np.ones((1, 2)), np.zeros(1), np.zeros((1, 2)), np.zeros(1))[0]
    array([[0.5, 0.5]])
    """
    name = "merge_attention"
    a, b = (_arguments.as_array(name, f"out_{s}", x) for s, x in (("a", out_a), ("b", out_b)))
    p, q = (_arguments.as_array(name, f"lse_{s}", x) for s, x in (("a", lse_a), ("b", lse_b)))
    if a.ndim == 0:
        raise ValueError(f"{name}: `out_a` must have at least 1 dimension, got shape ()")
    _arguments.check_shape(name, "out_b", b, a.shape)
    _arguments.check_shape(name, "lse_a", p, a.shape[:-1])
    _arguments.check_shape(name, "lse_b", q, a.shape[:-1])
    with np.errstate(all="ignore"):
        wide_p, wide_q = p.astype(np.float64), q.astype(np.float64)
        lse = np.logaddexp(wide_p, wide_q)
        level = np.where(lse == -np.inf, 0.0, lse)
        result = np.zeros(a.shape)
        for part, own in ((a, wide_p), (b, wide_q)):
            weight = np.exp(own - level)[..., np.newaxis]
            result += np.where(own[..., np.newaxis] == -np.inf, 0.0, weight * part)
        dtype = _arguments.wider(a.dtype, b.dtype)
        return result.astype(dtype), np.asarray(lse).astype(_arguments.wider(p.dtype, q.dtype))
