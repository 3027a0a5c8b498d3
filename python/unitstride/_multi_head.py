"""Multi-head attention as a function of its weights, and its gradients."""

from typing import Any, NamedTuple, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unitstride import _arguments, _attention_calls, _outputs
from unitstride._attention_calls import Options
from unitstride._attention_vjp import attention_vjp
from unitstride._multi_head_layer import Biases, Layer, prepare
from unitstride.attention import attention
from unitstride.products import matmul

Array = NDArray[Any]


class MultiHeadGradients(NamedTuple):
    """What `multi_head_attention_vjp` returns; None for what was not given.

    Attributes
    ----------
    x, w_q, w_k, w_v, w_o, context : ndarray or None
        Gradients of the arguments of these names, of their shapes.
    biases : tuple of 4 ndarray or None
        Gradients of the biases, in the order of the weights.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import multi_head_attention_vjp
    >>> x = np.ones((3, 2))
    >>> found = multi_head_attention_vjp(x, x[[0]], x[[0]], x[[0]], x[:, :1], x @ x.T, num_heads=1)
    >>> found.w_v
    array([[18., 18.]])
    """

    x: Array
    w_q: Array
    w_k: Array | None
    w_v: Array | None
    w_o: Array
    biases: tuple[Array | None, ...]
    context: Array | None


class _Forward(NamedTuple):
    """Queries, keys and values by heads, and what attention makes of them."""

    query: Array  # (..., heads, queries, features)
    key: Array  # (..., key heads, keys, features)
    value: Array  # (..., key heads, keys, value features)
    joined: Array  # (..., queries, heads * value features)
    out: Array  # a view of `joined`: (..., heads, queries, value features)
    lse: Array | None


def _project(tokens: Array, weight: Array, bias: Array | None, out: Array | None = None) -> Array:
    result: Array = matmul(tokens, weight.T, out)
    if bias is not None:
        result += bias
    return result


def _by_heads(array: Array, heads: int) -> Array:
    """View (..., length, heads * features) as (..., heads, length, features)."""
    width = array.shape[-1] // heads
    return array.reshape(*array.shape[:-1], heads, width).swapaxes(-3, -2)


def _joined(array: Array) -> Array:
    """Return (..., heads, length, features) as (..., length, heads * features)."""
    turned = array.swapaxes(-3, -2)
    return turned.reshape(*turned.shape[:-2], turned.shape[-2] * turned.shape[-1])


def _part(layer: Layer, number: int) -> tuple[Array, Array | None]:
    """Return the weight and the bias of queries, keys or values (0, 1, 2)."""
    if not layer.packed:
        return layer.weights[number], layer.biases[number]
    rows, bias = layer.parts[number], layer.biases[0]
    return layer.weights[0][rows], None if bias is None else bias[rows]


def _run(layer: Layer, options: Options, needs_lse: bool) -> _Forward:
    """Project and attend."""
    if layer.packed and layer.attends_to_itself:
        together = _project(layer.x, layer.weights[0], layer.biases[0])
        projected = [together[..., rows] for rows in layer.parts]
    else:
        sources = (layer.x, layer.context, layer.context)
        projected = [_project(source, *_part(layer, k)) for k, source in enumerate(sources)]
    counts = (layer.heads, layer.key_heads, layer.key_heads)
    query, key, value = (_by_heads(a, n) for a, n in zip(projected, counts, strict=True))
    batch = np.broadcast_shapes(query.shape[:-3], key.shape[:-3])
    joined = np.empty((*batch, layer.x.shape[-2], layer.w_o.shape[1]), layer.x.dtype)
    out, lse = _by_heads(joined, layer.heads), None
    if needs_lse:
        _, lse = attention(query, key, value, out=out, return_lse=True, **options)
    else:
        attention(query, key, value, out=out, **options)
    return _Forward(query, key, value, joined, out, lse)


def multi_head_attention(
    x: ArrayLike,
    w_q: ArrayLike,
    w_k: ArrayLike | None,
    w_v: ArrayLike | None,
    w_o: ArrayLike,
    *,
    num_heads: int,
    num_kv_heads: int | None = None,
    biases: Biases | None = None,
    context: ArrayLike | None = None,
    out: Array | None = None,
    **options: Unpack[Options],
) -> Array:
    """Project tokens to queries, keys and values, attend by heads, and project the result.

    Parameters
    ----------
    x : array_like, shape (..., queries, width)
        The tokens that ask.
    w_q : array_like, shape (num_heads * features, width)
        As in PyTorch, rows make features: queries are ``x @ w_q.T``. Where `w_k` and `w_v` are
        None it holds the rows of all three, one after the other (packed).
    w_k : array_like, shape (num_kv_heads * features, context_width), or None
    w_v : array_like, shape (num_kv_heads * value_features, context_width), or None
    w_o : array_like, shape (result_width, num_heads * value_features)
        The last projection.
    num_heads : int
        Heads of the queries.
    num_kv_heads : int, optional
        Heads of keys and values, which divide `num_heads`; by default as many.
    biases : sequence of 4 array_like or None, optional
        What is added to the four products, each of the length of its weight's rows, None where
        there is none. Beside packed weights the first is packed and the next two are None.
    context : array_like, shape (..., keys, context_width), optional
        The tokens that are asked (cross-attention); by default `x`. Leading dimensions broadcast.
    out : ndarray, optional
        Array for the result, of its exact shape and dtype.
    **options
        The options of `attention`: `mask`, `bias`, `causal`, `window`, `scale`, `softcap`,
        `alibi_slopes`, `sinks`, `query_lengths`, `key_lengths`. A mask of padded keys of shape
        (batch, keys) is ``mask=valid[:, None, None, :]``; True = attend.

    Returns
    -------
    ndarray, shape (..., queries, result_width)
        In the widest dtype of the arrays.

    Raises
    ------
    TypeError, ValueError
        As for `attention`; also for weights and biases whose shapes do not fit.

    Notes
    -----
    The composition of `matmul` and `attention` on views by heads, without copies between them:
    each rounds its result to the dtype. Time O(tokens * width * rows) for the projections beside
    that of `attention`. The formula is in section 3.2.2 of [1]_.

    References
    ----------
    .. [1] A. Vaswani et al., "Attention is all you need", 2017, arXiv:1706.03762.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import multi_head_attention
    >>> x, one = np.array([[1.0, 2.0], [3.0, 4.0]]), np.eye(2)
    >>> multi_head_attention(x, one, one, one, one, num_heads=2, scale=0.0)
    array([[2., 3.],
           [2., 3.]])
    """
    name = "multi_head_attention"
    _attention_calls.check_names(name, options)
    layer = prepare(name, x, (w_q, w_k, w_v, w_o), biases, num_heads, num_kv_heads, context)
    if out is not None:
        batch = np.broadcast_shapes(layer.x.shape[:-2], layer.context.shape[:-2])
        shape = (*batch, layer.x.shape[-2], layer.w_o.shape[0])
        _outputs.check_out(name, out, shape, layer.x.dtype)
    forward = _run(layer, options, needs_lse=False)
    last = layer.biases[-1]
    if out is not None and last is not None and np.may_share_memory(out, last):
        last = last.copy()
    return _project(forward.joined, layer.w_o, last, out)


def _flat(array: Array) -> Array:
    """View tokens as one list: (tokens, width)."""
    return array.reshape(int(np.prod(array.shape[:-1])), array.shape[-1])


def _of_weight(cotangent: Array, tokens: Array) -> Array:
    """Return the gradient of w in tokens @ w.T."""
    result: Array = matmul(_flat(cotangent).T, _flat(tokens))
    return result


def _of_bias(bias: Array | None, cotangent: Array) -> Array | None:
    if bias is None:
        return None
    return np.asarray(_flat(cotangent).sum(axis=0, dtype=np.float64)).astype(bias.dtype)


def multi_head_attention_vjp(
    x: ArrayLike,
    w_q: ArrayLike,
    w_k: ArrayLike | None,
    w_v: ArrayLike | None,
    w_o: ArrayLike,
    cotangent: ArrayLike,
    /,
    *,
    num_heads: int,
    num_kv_heads: int | None = None,
    biases: Biases | None = None,
    context: ArrayLike | None = None,
    **options: Unpack[Options],
) -> MultiHeadGradients:
    """Compute the gradients of `multi_head_attention`.

    Parameters
    ----------
    x, w_q, w_k, w_v, w_o, num_heads, num_kv_heads, biases, context, **options
        As given to `multi_head_attention`.
    cotangent : array_like, shape (..., queries, result_width)
        The cotangent of its result.

    Returns
    -------
    MultiHeadGradients
        `x`, `w_q`, `w_k`, `w_v`, `w_o`, `biases` (four) and `context`, each of the shape of the
        argument and None where there is none; packed as the weights are. In the widest dtype of
        all arrays.

    Raises
    ------
    TypeError, ValueError
        As for `multi_head_attention`; also for a cotangent of another shape.

    Notes
    -----
    The forward pass is computed again; then `attention_vjp` and a product of matrices for each
    projection and each weight. About three times the time of the forward pass, without an array
    of queries x keys.

    References
    ----------
    .. [1] A. Vaswani et al., "Attention is all you need", 2017, arXiv:1706.03762.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import multi_head_attention_vjp
    >>> x, one = np.array([[1.0, 2.0], [3.0, 4.0]]), np.eye(2)
    >>> ones = np.ones_like(x)
    >>> multi_head_attention_vjp(x, one, one, one, one, ones, num_heads=2, scale=0.0).w_o
    array([[4., 6.],
           [4., 6.]])
    """
    name = "multi_head_attention_vjp"
    _attention_calls.check_names(name, options)
    slope = _arguments.as_array(name, "cotangent", cotangent)
    weights = (w_q, w_k, w_v, w_o)
    layer = prepare(name, x, weights, biases, num_heads, num_kv_heads, context, (slope,))
    batch = np.broadcast_shapes(layer.x.shape[:-2], layer.context.shape[:-2])
    shape = (*batch, layer.x.shape[-2], layer.w_o.shape[0])
    _arguments.check_shape(name, "cotangent", slope, shape)
    slope = slope.astype(layer.x.dtype, copy=False)
    forward = _run(layer, options, needs_lse=True)
    assert forward.lse is not None
    d_joined = matmul(slope, layer.w_o)
    found = attention_vjp(
        forward.query,
        forward.key,
        forward.value,
        forward.out,
        forward.lse,
        _by_heads(d_joined, layer.heads),
        **options,
    )
    cotangents = [_joined(gradient) for gradient in found]
    d_w_o = _of_weight(slope, forward.joined)
    return _collect(layer, cotangents, d_w_o, _of_bias(layer.biases[-1], slope))


def _collect(
    layer: Layer, cotangents: list[Array], d_w_o: Array, d_b_o: Array | None
) -> MultiHeadGradients:
    """Carry the gradients of queries, keys and values to tokens, weights and biases."""
    sources = (layer.x, layer.context, layer.context)
    d_tokens = [matmul(g, _part(layer, k)[0]) for k, g in enumerate(cotangents)]
    d_weights = [_of_weight(g, tokens) for g, tokens in zip(cotangents, sources, strict=True)]
    d_biases = [_of_bias(_part(layer, k)[1], g) for k, g in enumerate(cotangents)]
    d_x, d_context = d_tokens[0], d_tokens[1] + d_tokens[2]
    if layer.attends_to_itself:
        d_x, d_context = d_x + d_context, None
    if not layer.packed:
        d_q, d_k, d_v = d_weights
        return MultiHeadGradients(d_x, d_q, d_k, d_v, d_w_o, (*d_biases, d_b_o), d_context)
    rows = [bias for bias in d_biases if bias is not None]
    d_bias = np.concatenate(rows) if rows else None
    d_packed = np.concatenate(d_weights)
    shifts = (d_bias, None, None, d_b_o)
    return MultiHeadGradients(d_x, d_packed, None, None, d_w_o, shifts, d_context)
