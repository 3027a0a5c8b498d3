"""Attention in plain NumPy, in float64, over blocks of query rows, rounded once at the end.

For query i and key j with the diagonal at j = i + offset:

    s = scale * (q_i . k_j)                          softcap: s = softcap * tanh(s / softcap)
    s = s + bias_ij - slope * |i + offset - j|       excluded: s = -inf
    lse_i = log(exp(sink) + sum_j exp(s_ij))         out_i = sum_j exp(s_ij - lse_i) v_j
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unitstride._attention_options import Inputs
from unitstride._float_status import INVALID, OVERFLOW

Array = NDArray[Any]

# Scores that exist at a time.
_BLOCK = 1 << 18


class _Block(NamedTuple):
    """The scores of some rows of the heads that share their keys: (group, rows, keys)."""

    scores: Array  # -inf where excluded
    allowed: Array
    keys: slice
    derivative: Array | None  # of the soft-cap


def _exclude(inputs: Inputs, entry: tuple[int, ...], rows: Array, columns: Array) -> Array:
    """Return which keys the positions alone allow."""
    distance = columns - rows - int(inputs.offset[entry])
    allowed = np.broadcast_to(rows < inputs.query_lengths[entry], distance.shape).copy()
    if inputs.lowest is not None:
        allowed &= distance >= inputs.lowest
    if inputs.highest is not None:
        allowed &= distance <= inputs.highest
    return allowed


def _key_range(inputs: Inputs, entry: tuple[int, ...], first: int, last: int) -> slice:
    """Return the keys that any of the query rows first..last reaches."""
    offset, end = int(inputs.offset[entry]), int(inputs.key_lengths[entry])
    begin = 0 if inputs.lowest is None else max(0, first + offset + inputs.lowest)
    if inputs.highest is not None:
        end = min(end, last + offset + inputs.highest + 1)
    return slice(min(begin, max(end, 0)), max(end, 0))


def score(inputs: Inputs, entry: tuple[int, ...], heads: slice, first: int, last: int) -> _Block:
    """Compute the scores of rows first..last of one group of heads."""
    keys = _key_range(inputs, entry, first, last)
    group = max(inputs.query.shape[-3] // max(inputs.key.shape[-3], 1), 1)
    query = inputs.query[entry][heads, first : last + 1].astype(np.float64)
    key = inputs.key[entry][heads.start // group, keys].astype(np.float64)
    scores = (query @ key.T) * inputs.scale
    derivative = None
    if inputs.softcap is not None:
        share = np.tanh(scores / inputs.softcap)
        scores, derivative = inputs.softcap * share, 1.0 - share * share
    rows = np.arange(first, last + 1)[:, None]
    columns = np.arange(keys.start, keys.stop)
    where = (*entry, heads, slice(first, last + 1), keys)
    allowed = np.broadcast_to(_exclude(inputs, entry, rows, columns), scores.shape)
    if inputs.mask is not None:
        allowed = allowed & inputs.mask[where]
    if inputs.bias is not None:
        bias = inputs.bias[where].astype(np.float64)
        allowed = allowed & (bias != -np.inf)
        scores = scores + bias
    if inputs.slopes is not None:
        slopes = inputs.slopes[entry][heads].astype(np.float64)[:, None, None]
        scores = scores - slopes * np.abs(rows + int(inputs.offset[entry]) - columns)
    return _Block(np.where(allowed, scores, -np.inf), allowed, keys, derivative)


def _weigh(block: _Block, sinks: Array | None) -> tuple[Array, Array]:
    """Return the weights and the log-sum-exp of each row; zeros and -inf for an empty row."""
    level = block.scores.max(axis=-1, keepdims=True, initial=-np.inf)
    if sinks is not None:
        level = np.maximum(level, sinks)
    shift = np.where(level == -np.inf, 0.0, level)
    weights = np.exp(block.scores - shift)
    total = weights.sum(axis=-1, keepdims=True)
    if sinks is not None:
        total = total + np.exp(sinks - shift)
    return weights / np.where(total == 0.0, 1.0, total), (shift + np.log(total))[..., 0]


def average(weights: Array, allowed: Array, value: Array) -> Array:
    """Return weights @ value, where excluded values count as nothing even if they are NaN."""
    special = ~np.isfinite(value).all(axis=-1)
    if not special.any():
        return np.asarray(weights @ value)
    result = weights @ np.where(special[:, None], 0.0, value)
    for j in np.flatnonzero(special):
        part = weights[..., j, None] * value[j]
        result = result + np.where(allowed[..., j, None], part, 0.0)
    return np.asarray(result)


def _sinks_of(inputs: Inputs, entry: tuple[int, ...], heads: slice, rows: Array) -> Array | None:
    """Return the sinks as (group, rows, 1); -inf for rows past the length of the queries."""
    if inputs.sinks is None:
        return None
    sinks = inputs.sinks[entry][heads].astype(np.float64)[:, None, None]
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


def block_rows(inputs: Inputs) -> int:
    """Return how many query rows are computed at a time."""
    heads, (groups, keys) = inputs.query.shape[-3], inputs.key.shape[-3:-1]
    return max(1, _BLOCK // max(heads // max(groups, 1) * keys, 1))


@np.errstate(all="ignore")
def attention(inputs: Inputs, out: Array, lse: Array | None) -> int:
    """Write the averages of the values into `out` and the log-sum-exp into `lse`."""
    heads, length = inputs.query.shape[-3:-1]
    groups = inputs.key.shape[-3]
    group = heads // groups if groups else 1
    step = block_rows(inputs)
    for entry in np.ndindex(*inputs.batch):
        for head in range(0, heads, group):
            chosen = slice(head, head + group)
            for first in range(0, length, step):
                last = min(first + step, length) - 1
                block = score(inputs, entry, chosen, first, last)
                sinks = _sinks_of(inputs, entry, chosen, np.arange(first, last + 1))
                weights, level = _weigh(block, sinks)
                value = inputs.value[entry][head // group, block.keys].astype(np.float64)
                where = (*entry, chosen, slice(first, last + 1))
                out[where] = average(weights, block.allowed, value)
                if lse is not None:
                    lse[where] = level
    return attention_status(inputs, out)
