"""Attention in plain NumPy, in float64, over blocks of query rows, rounded once at the end.

For query i and key j with the diagonal at j = i + offset:

    s = scale * (q_i . k_j)                          softcap: s = softcap * tanh(s / softcap)
    s = s + bias_ij - slope * |i + offset - j|       excluded: s = -inf
    lse_i = log(exp(sink) + sum_j exp(s_ij))         out_i = sum_j exp(s_ij - lse_i) v_j
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unitstride._attention_options import Inputs
from unitstride._float_status import INVALID, OVERFLOW

Array = NDArray[Any]

# Scores that exist at a time.
BLOCK = 1 << 18


Entry = tuple[int, ...]


class Block(NamedTuple):
    """The scores of some rows of the heads that share their keys: (group, rows, keys)."""

    scores: Array  # -inf where excluded
    allowed: Array
    slope: Array | None  # of the soft-cap, where there is one
    keys: slice


def blocks(inputs: Inputs) -> Iterator[tuple[Entry, slice, slice]]:
    """Go through batch entries, groups of heads that share their keys, and rows."""
    heads, length = inputs.query.shape[-3:-1]
    if heads == 0:
        return
    group = group_size(inputs)
    step = max(1, BLOCK // max(group * inputs.key.shape[-2], 1))
    for entry in np.ndindex(*inputs.batch):
        for head in range(0, heads, group):
            for first in range(0, length, step):
                last = min(first + step, length)
                yield entry, slice(head, head + group), slice(first, last)


def group_size(inputs: Inputs) -> int:
    """Return how many heads share the same keys."""
    return int(inputs.query.shape[-3] // max(inputs.key.shape[-3], 1))


def _key_range(inputs: Inputs, entry: Entry, rows: Array) -> slice:
    """Return the keys that any of the query rows reaches."""
    offset, end = int(inputs.offset[entry]), int(inputs.key_lengths[entry])
    if rows.size == 0:
        return slice(0, 0)
    begin = 0 if inputs.lowest is None else max(0, int(rows.min()) + offset + inputs.lowest)
    if inputs.highest is not None:
        end = min(end, int(rows.max()) + offset + inputs.highest + 1)
    return slice(min(begin, max(end, 0)), max(end, 0))


def _reach(inputs: Inputs, entry: Entry, rows: Array, distance: Array) -> Array:
    """Return which keys the positions alone allow."""
    allowed = np.broadcast_to(rows < inputs.query_lengths[entry], distance.shape)
    if inputs.lowest is not None:
        allowed = allowed & (distance >= inputs.lowest)
    if inputs.highest is not None:
        allowed = allowed & (distance <= inputs.highest)
    return allowed


def score(inputs: Inputs, entry: Entry, heads: slice, chosen: slice | Array) -> Block:
    """Compute the scores of the chosen rows of heads that share their keys."""
    rows = np.arange(inputs.query.shape[-2])[chosen]
    keys = _key_range(inputs, entry, rows)
    query = inputs.query[entry][heads, chosen].astype(np.float64)
    key = inputs.key[entry][heads.start // group_size(inputs), keys].astype(np.float64)
    scores, slope = (query @ key.T) * inputs.scale, None
    if inputs.softcap is not None:
        bent = np.tanh(scores / inputs.softcap)
        scores, slope = inputs.softcap * bent, 1.0 - bent * bent
    distance = np.arange(keys.start, keys.stop) - rows[:, None] - int(inputs.offset[entry])
    allowed = np.broadcast_to(_reach(inputs, entry, rows[:, None], distance), scores.shape)
    if inputs.mask is not None:
        allowed = allowed & inputs.mask[entry][heads, chosen, keys]
    if inputs.bias is not None:
        bias = inputs.bias[entry][heads, chosen, keys].astype(np.float64)
        allowed = allowed & (bias != -np.inf)
        scores = scores + bias
    if inputs.slopes is not None:
        slopes = inputs.slopes[entry][heads].astype(np.float64)[:, None, None]
        scores = scores - slopes * np.abs(distance)
    return Block(np.where(allowed, scores, -np.inf), allowed, slope, keys)


def weigh(block: Block, sinks: Array | None) -> tuple[Array, Array]:
    """Return the weights and the log-sum-exp of each row; zeros and -inf for an empty row."""
    level = block.scores.max(axis=-1, keepdims=True, initial=-np.inf)
    if sinks is not None:
        level = np.maximum(level, sinks)
    shift = np.where(level == -np.inf, 0.0, level)
    weights = np.exp(block.scores - shift)
    total = weights.sum(axis=-1, keepdims=True)
    if sinks is not None:
        total = total + np.exp(sinks - shift)
    lse = shift + np.log(total)
    return weights / np.where(total == 0.0, 1.0, total), np.asarray(lse)[..., 0]


def average(weights: Array, allowed: Array, value: Array) -> Array:
    """Return weights @ value, where excluded values count as nothing even if they are NaN."""
    special = np.asarray(~np.isfinite(value).all(axis=-1))
    if not special.any():
        return np.asarray(weights @ value)
    result = weights @ np.where(special[:, None], 0.0, value)
    for j in np.flatnonzero(special):
        part = weights[..., j, None] * value[j]
        result = result + np.where(allowed[..., j, None], part, 0.0)
    return np.asarray(result)


def sinks_of(inputs: Inputs, entry: Entry, heads: slice, chosen: slice | Array) -> Array | None:
    """Return the sinks as (group, rows, 1); -inf for rows past the length of the queries."""
    if inputs.sinks is None:
        return None
    sinks = inputs.sinks[entry][heads].astype(np.float64)[:, None, None]
    rows = np.arange(inputs.query.shape[-2])[chosen]
    return np.where(rows[:, None] < inputs.query_lengths[entry], sinks, -np.inf)


def attention_status(inputs: Inputs, out: Array) -> int:
    """Return the status of results that are special where no input is."""
    arrays = (inputs.query, inputs.key, inputs.value, inputs.bias, inputs.sinks, inputs.slopes)
    if np.isfinite(out).all():
        return 0
    given = [array for array in arrays if array is not None]
    status = 0
    if np.isnan(out).any() and not any(np.isnan(array).any() for array in given):
        status |= INVALID
    if np.isinf(out).any() and np.isfinite(inputs.value).all():
        status |= OVERFLOW
    return status


@np.errstate(all="ignore")
def attention(inputs: Inputs, out: Array, lse: Array | None) -> int:
    """Write the averages of the values into `out` and the log-sum-exp into `lse`."""
    for entry, heads, rows in blocks(inputs):
        block = score(inputs, entry, heads, rows)
        weights, level = weigh(block, sinks_of(inputs, entry, heads, rows))
        group = heads.start // group_size(inputs)
        value = inputs.value[entry][group, block.keys].astype(np.float64)
        out[entry][heads, rows] = average(weights, block.allowed, value)
        if lse is not None:
            lse[entry][heads, rows] = level
    return attention_status(inputs, out)
