"""The weights of attention themselves in plain NumPy: chosen rows, sums over queries, entropies."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from unitstride._attention_options import Inputs
from unitstride._reference.attention import BLOCK, Block, blocks, group_size, score, sinks_of, weigh

Array = NDArray[Any]


@np.errstate(all="ignore")
def attention_weights(inputs: Inputs, rows: Array, out: Array) -> int:
    """Write the weights of the given rows: (*batch, heads, chosen rows, keys)."""
    out[...] = 0.0
    group = group_size(inputs)
    step = max(1, BLOCK // max(group * inputs.key.shape[-2], 1))
    for entry in np.ndindex(*inputs.batch):
        for head in range(0, inputs.query.shape[-3] if rows.size else 0, max(group, 1)):
            heads = slice(head, head + group)
            for first in range(0, rows.size, step):
                chosen = rows[first : first + step]
                block = score(inputs, entry, heads, chosen)
                weights, _ = weigh(block, sinks_of(inputs, entry, heads, chosen))
                where = (heads, slice(first, first + step), block.keys)
                out[entry][where] = np.where(block.allowed, weights, 0.0)
    return 0


def _entropy(block: Block, weights: Array, lse: Array) -> Array:
    """Return -sum_j p_j log p_j, from log p_j = s_j - lse, which cannot underflow."""
    terms = weights * (lse[..., None] - block.scores)
    return np.asarray(np.where(block.allowed & (weights != 0.0), terms, 0.0).sum(axis=-1))


@np.errstate(all="ignore")
def attention_statistics(inputs: Inputs, column_sums: Array, entropy: Array) -> int:
    """Write the sums of the weights over the queries and the entropy of each row."""
    sums = np.zeros(column_sums.shape)
    for entry, heads, rows in blocks(inputs):
        block = score(inputs, entry, heads, rows)
        weights, lse = weigh(block, sinks_of(inputs, entry, heads, rows))
        seen = np.where(block.allowed, weights, 0.0)
        sums[entry][heads, block.keys] += seen.sum(axis=-2)
        entropy[entry][heads, rows] = _entropy(block, weights, lse)
    column_sums[...] = sums
    return 0
