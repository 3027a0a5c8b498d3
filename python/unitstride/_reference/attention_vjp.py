"""Gradients of attention in plain NumPy, in float64, over blocks of query rows.

With weights p_ij = exp(s_ij - lse_i), cotangent g and result o of the forward pass:

    dv_j = sum_i p_ij g_i                ds_ij = p_ij (g_i . v_j - g_i . o_i)
    dbias_ij = ds_ij                     dsink = -sum_i exp(sink - lse_i) (g_i . o_i)
    dx_ij = ds_ij * (1 - tanh^2)         the derivative of the soft-cap, 1 without one
    dq_i = scale * sum_j dx_ij k_j       dk_j = scale * sum_i dx_ij q_i
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from unitstride._attention_options import Inputs
from unitstride._float_status import INVALID, OVERFLOW
from unitstride._reference.attention import average, blocks, group_size, score, sinks_of

Array = NDArray[Any]


def _add(target: Array, entry: tuple[int, ...], place: tuple[slice, ...], part: Array) -> None:
    """Add a part at its place, summed over the axes in which the target has only one entry."""
    own = tuple(0 if size == 1 else i for i, size in zip(entry, target.shape, strict=False))
    target = target[own]
    where = []
    for axis, (size, chosen) in enumerate(zip(target.shape, place, strict=True)):
        where.append(slice(None) if size == 1 else chosen)
        if size == 1:
            part = part.sum(axis=axis, keepdims=True)
    target[tuple(where)] += part


def _rows_side_by_side(array: Array) -> Array:
    """Return (group, rows, n) as (group * rows, n)."""
    return array.reshape(array.shape[0] * array.shape[1], array.shape[2])


def attention_vjp_status(inputs: Inputs, others: tuple[Array, ...], results: list[Array]) -> int:
    """Return the status of results that are special where no input is."""
    if all(np.isfinite(result).all() for result in results):
        return 0
    given = [inputs.query, inputs.key, inputs.value, *others]
    given += [a for a in (inputs.bias, inputs.sinks, inputs.slopes) if a is not None]
    if any(np.isnan(array).any() for array in given):
        return 0
    status = INVALID if any(np.isnan(result).any() for result in results) else 0
    if any(np.isinf(array).any() for array in (*given[:3], others[-1])):
        return status
    return status | (OVERFLOW if any(np.isinf(result).any() for result in results) else 0)


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
    """Write the gradients; those of bias and sinks have size 1 where these are broadcast."""
    targets = [x for x in (d_key, d_value, d_bias, d_sinks) if x is not None]
    wide = {id(target): np.zeros(target.shape) for target in targets}
    for entry, heads, rows in blocks(inputs):
        block = score(inputs, entry, heads, rows)
        group = heads.start // group_size(inputs)
        query = inputs.query[entry][heads, rows].astype(np.float64)
        key, value = (
            x[entry][group, block.keys].astype(np.float64) for x in (inputs.key, inputs.value)
        )
        slope = cotangent[entry][heads, rows].astype(np.float64)
        level = lse[entry][heads, rows].astype(np.float64)[..., None]
        allowed = block.allowed & (level != -np.inf)
        weights = np.where(allowed, np.exp(block.scores - level), 0.0)
        product = (slope * out[entry][heads, rows].astype(np.float64)).sum(-1, keepdims=True)
        product = np.where(allowed.any(axis=-1, keepdims=True), product, 0.0)
        d_scores = np.where(allowed, weights * (slope @ value.T - product), 0.0)
        if d_bias is not None:
            _add(wide[id(d_bias)], entry, (heads, rows, block.keys), d_scores)
        sinks = sinks_of(inputs, entry, heads, rows)
        if d_sinks is not None and sinks is not None:
            share = np.where(product == 0.0, 0.0, np.exp(sinks - level) * product)
            _add(wide[id(d_sinks)], entry, (heads,), -share.sum(axis=(-1, -2)))
        if block.slope is not None:
            d_scores = np.where(allowed, d_scores * block.slope, 0.0)
        d_query[entry][heads, rows] = average(d_scores, allowed, key) * inputs.scale
        turned = _rows_side_by_side(allowed).T
        wide[id(d_value)][entry][group, block.keys] += average(
            _rows_side_by_side(weights).T, turned, _rows_side_by_side(slope)
        )
        wide[id(d_key)][entry][group, block.keys] += inputs.scale * average(
            _rows_side_by_side(d_scores).T, turned, _rows_side_by_side(query)
        )
    for target in targets:
        target[...] = wide[id(target)]
    return attention_vjp_status(inputs, (out, lse, cotangent), [d_query, *targets])
