"""The weights of attention: of chosen queries, summed over queries, and their entropies."""

from typing import Any, NamedTuple, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unitstride import _arguments, _attention_calls
from unitstride._attention_calls import Options
from unitstride._attention_options import Inputs
from unitstride._reference import attention_weights as _twin

Array = NDArray[Any]
DType = np.dtype[Any]


class AttentionStatistics(NamedTuple):
    """What `attention_statistics` returns.

    Attributes
    ----------
    column_sums : ndarray, shape (..., heads, keys)
        The weights of each key, summed over the queries.
    entropy : ndarray, shape (..., heads, queries)
        The entropy of the weights of each query.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import attention_statistics
    >>> attention_statistics(np.zeros((1, 2, 1)), np.zeros((1, 2, 1))).column_sums
    array([[1., 1.]])
    """

    column_sums: Array
    entropy: Array


def _prepare(
    function: str, query: ArrayLike, key: ArrayLike, options: Options
) -> tuple[Inputs, DType]:
    keys = _arguments.as_array(function, "key", key)
    values = keys[..., :0] if keys.ndim else keys
    return _attention_calls.prepare(function, query, keys, values, options)


def _check_rows(rows: ArrayLike | None, length: int) -> Array:
    """Return row numbers from 0."""
    if rows is None:
        return np.arange(length)
    array = _arguments.plain("attention_weights", "rows", rows)
    if array.dtype.kind not in "iu" and array.size:
        got = _arguments.dtype_label(array.dtype)
        raise TypeError(f"attention_weights: `rows` must be integers, got {got}")
    if array.ndim != 1:
        raise ValueError(f"attention_weights: `rows` must be 1-dimensional, got {array.shape}")
    wrong = (array < -length) | (array >= length)
    if wrong.any():
        raise ValueError(
            f"attention_weights: `rows` must lie between {-length} and {length - 1}, "
            f"got {array[wrong][0]}"
        )
    numbers = array.astype(np.int64)
    return np.where(numbers < 0, numbers + length, numbers)


def attention_weights(
    query: ArrayLike,
    key: ArrayLike,
    /,
    *,
    rows: ArrayLike | None = None,
    **options: Unpack[Options],
) -> Array:
    """Compute the weights with which chosen queries average the values.

    Parameters
    ----------
    query : array_like, shape (..., heads, queries, features)
    key : array_like, shape (..., key_heads, keys, features)
        As for `attention`.
    rows : array_like of int, shape (n,), optional
        The queries whose weights are wanted, in any order, from the end where negative; by default
        all of them.
    **options
        The options of `attention`: `mask`, `bias`, `causal`, `window`, `scale`, `softcap`,
        `alibi_slopes`, `sinks`, `query_lengths`, `key_lengths`. They speak of all queries.

    Returns
    -------
    ndarray, shape (..., heads, n, keys)
        In the wider dtype of query and key. 0 where a key is excluded. A row sums to 1, to less
        with sinks, and to 0 where there is nothing to attend to.

    Raises
    ------
    TypeError, ValueError
        As for `attention`; also for `rows` that are not integers, or out of range.

    Notes
    -----
    Only the chosen rows are computed: time O(heads * n * keys * features). On NumPy in float64,
    rounded once. The formula is that of `attention`.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import attention_weights
    >>> x = np.zeros((1, 4, 2))
    >>> attention_weights(x, x, causal=True, rows=[1, -1])
    array([[[0.5 , 0.5 , 0.  , 0.  ],
            [0.25, 0.25, 0.25, 0.25]]])
    """
    inputs, dtype = _prepare("attention_weights", query, key, options)
    chosen = _check_rows(rows, inputs.query.shape[-2])
    out = np.empty((*inputs.query.shape[:-2], chosen.size, inputs.key.shape[-2]), dtype)
    status = _twin.attention_weights(inputs, chosen, out)
    _arguments.report_float_status("attention_weights", status)
    return out


def attention_statistics(
    query: ArrayLike, key: ArrayLike, /, **options: Unpack[Options]
) -> AttentionStatistics:
    """Sum the weights of attention over the queries, and compute the entropy of each query.

    Parameters
    ----------
    query : array_like, shape (..., heads, queries, features)
    key : array_like, shape (..., key_heads, keys, features)
        As for `attention`.
    **options
        The options of `attention`, as for `attention_weights`.

    Returns
    -------
    column_sums : ndarray, shape (..., heads, keys)
        How much all queries together attend to each key, which tells the keys that a cache can
        drop [1]_.
    entropy : ndarray, shape (..., heads, queries)
        ``-sum(weights * log(weights))`` in nats, 0 for a row with nothing to attend to. What goes
        to sinks is left out.

    Raises
    ------
    TypeError, ValueError
        As for `attention`.

    Notes
    -----
    Both are float64 for float64, else float32, and are computed in float64 on NumPy by blocks of
    queries, so that the array of queries x keys never exists: time O(heads * queries * keys *
    features).

    References
    ----------
    .. [1] Z. Zhang et al., "H2O: heavy-hitter oracle for efficient generative inference of large
       language models", 2023, arXiv:2306.14048.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import attention_statistics
    >>> x = np.zeros((1, 2, 3))
    >>> column_sums, entropy = attention_statistics(x, x, causal=True)
    >>> column_sums
    array([[1.5, 0.5]])
    >>> entropy
    array([[0.        , 0.69314718]])
    """
    inputs, dtype = _prepare("attention_statistics", query, key, options)
    wide = _arguments.wider(dtype, np.dtype(np.float32))
    column_sums = np.empty((*inputs.query.shape[:-2], inputs.key.shape[-2]), wide)
    entropy = np.empty(inputs.query.shape[:-1], wide)
    status = _twin.attention_statistics(inputs, column_sums, entropy)
    _arguments.report_float_status("attention_statistics", status)
    return AttentionStatistics(column_sums, entropy)
