"""Gradients of attention in plain NumPy, in float64, over blocks of query rows.

With the weights P = exp(s - lse), the cotangent D of the result O, and delta_i = D_i . O_i:

    dV = P^T D        dS = P * (D V^T - delta)        dQ = scale dS K        dK = scale dS^T Q

where dS is multiplied by 1 - tanh^2 behind a soft-cap; a bias gets dS as it is before that.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unitstride._attention_options import Inputs
from unitstride._float_status import INVALID, OVERFLOW
from unitstride._reference.attention import average, block_rows, score

Array = NDArray[Any]


class Results(NamedTuple):
    """Where the gradients go; those of bias and sinks only where they are asked for."""

    query: Array
    key: Array
    value: Array
    bias: Array | None  # (*batch, heads, queries, keys)
    sinks: Array | None  # (*batch, heads)


def _turned(array: Array) -> Array:
    return array.swapaxes(-1, -2)


def _block(
    inputs: Inputs,
    entry: tuple[int, ...],
    heads: slice,
    rows: slice,
    given: tuple[Array, Array, Array],
    results: Results,
    sums: tuple[Array, Array],
) -> None:
    """Add what some rows of the heads that share their keys contribute."""
    out, lse, cotangent = given
    key_sum, value_sum = sums
    block = score(inputs, entry, heads, rows.start, rows.stop - 1)
    where = (*entry, heads, rows)
    level = lse[where].astype(np.float64)[..., None]
    weights = np.where(level == -np.inf, 0.0, np.exp(block.scores - level))
    weights = np.where(block.allowed, weights, 0.0)
    slope = cotangent[where].astype(np.float64)
    delta = (slope * out[where]).sum(axis=-1, keepdims=True)
    delta = np.where(level == -np.inf, 0.0, delta)
    group = heads.stop - heads.start
    value = inputs.value[entry][heads.start // group, block.keys].astype(np.float64)
    key = inputs.key[entry][heads.start // group, block.keys].astype(np.float64)
    query = inputs.query[where].astype(np.float64)
    d_scores = np.where(block.allowed, weights * (slope @ value.T - delta), 0.0)
    if results.bias is not None:
        results.bias[(*where, block.keys)] = d_scores
    if results.sinks is not None and inputs.sinks is not None:
        sink = inputs.sinks[entry][heads].astype(np.float64)[:, None, None]
        share = np.where(level == -np.inf, 0.0, np.exp(sink - level))
        valid = np.arange(rows.start, rows.stop)[:, None] < inputs.query_lengths[entry]
        results.sinks[(*entry, heads)] -= np.where(valid, share * delta, 0.0).sum(axis=(1, 2))
    if block.derivative is not None:
        d_scores = np.where(block.allowed, d_scores * block.derivative, 0.0)
    d_scores = d_scores * inputs.scale
    results.query[where] = average(d_scores, block.allowed, key)
    for h in range(group):
        allowed = _turned(block.allowed[h])
        key_sum[block.keys] += average(_turned(d_scores[h]), allowed, query[h])
        value_sum[block.keys] += average(_turned(weights[h]), allowed, slope[h])


@np.errstate(all="ignore")
def attention_vjp(
    inputs: Inputs,
    out: Array,
    lse: Array,
    cotangent: Array,
    d_query: Array,
    d_key: Array,
    d_value: Array,
    d_bias: Array | None,
    d_sinks: Array | None,
) -> int:
    """Write the gradients of sum(cotangent * attention(...))."""
    results = Results(d_query, d_key, d_value, d_bias, d_sinks)
    heads, length = inputs.query.shape[-3:-1]
    groups = inputs.key.shape[-3]
    group = heads // groups if groups else 1
    step = block_rows(inputs)
    for summed in (d_bias, d_sinks):
        if summed is not None:
            summed[...] = 0.0
    for entry in np.ndindex(*inputs.batch):
        for head in range(0, heads, group):
            sums = (
                np.zeros(inputs.key.shape[-2:]),
                np.zeros(inputs.value.shape[-2:]),
            )
            for first in range(0, length, step):
                rows = slice(first, min(first + step, length))
                given = (out, lse, cotangent)
                _block(inputs, entry, slice(head, head + group), rows, given, results, sums)
            d_key[(*entry, head // group)] = sums[0]
            d_value[(*entry, head // group)] = sums[1]
    return attention_vjp_status(inputs, cotangent, d_query, d_key, d_value)


def attention_vjp_status(inputs: Inputs, cotangent: Array, *results: Array) -> int:
    """Return the status of gradients that are special where no input is."""
    if all(np.isfinite(result).all() for result in results):
        return 0
    given = (inputs.query, inputs.key, inputs.value, inputs.bias, inputs.sinks, cotangent)
    if any(array is not None and not np.isfinite(array).all() for array in given):
        return 0
    return INVALID if any(np.isnan(result).any() for result in results) else OVERFLOW
