"""The steps of a plan: one kernel each, which contracts two arrays or sums one.

Note [Order of intermediates]: the labels of an intermediate are sorted for the step that reads it,
which then sees a matrix: first the batch, then what it keeps and what it sums, each group in one
piece, in the order of the array that fixes it (the result, or an operand).
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from unitstride._einsum_cost import machine_of
from unitstride._einsum_dtypes import is_narrow, step_dtype
from unitstride._einsum_network import Network, Tree, bits, labels_of_tree

DType = np.dtype[Any]
Labels = tuple[int, ...]
Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """One kernel: arrays by number (operands first, then results), their labels, the result."""

    first: int
    first_labels: Labels
    second: int | None
    second_labels: Labels
    labels: Labels
    shape: Shape
    dtype: DType


def _mask(labels: Labels) -> int:
    mask = 0
    for label in labels:
        mask |= 1 << label
    return mask


def _kept(term: Labels, mask: int) -> Labels:
    """Return the labels of a term that are in a set, each once."""
    return tuple(x for x in dict.fromkeys(term) if mask >> x & 1)


def network_of(sizes: list[int], terms: list[Labels], output: Labels, dtype: DType) -> Network:
    """Return the network of what is left when labels of one operand alone have been summed."""
    users = Counter(output)
    for term in terms:
        users.update(set(term))
    once = _mask(tuple(label for label, number in users.items() if number == 1))
    return Network([_mask(term) & ~once for term in terms], _mask(output), sizes, machine_of(dtype))


class StepList:
    """Collects the steps of a plan; arrays are numbered, operands first, then results."""

    def __init__(self, sizes: list[int], terms: list[Labels], dtypes: list[DType]) -> None:
        self.sizes = sizes
        self.terms = list(terms)  # of operands and results
        self.dtypes = list(dtypes)
        self.steps: list[Step] = []

    def add(self, first: int, second: int | None, labels: Labels) -> int:
        """Add a step and return the number of its result."""
        numbers: dict[int, int] = {}
        for label in self.terms[first] + (() if second is None else self.terms[second]):
            numbers.setdefault(label, len(numbers))
        renamed = [
            () if k is None else tuple(numbers[x] for x in self.terms[k]) for k in (first, second)
        ]
        dtype = step_dtype(self.dtypes[first], None if second is None else self.dtypes[second])
        self.steps.append(
            Step(
                first,
                renamed[0],
                second,
                renamed[1],
                tuple(numbers[x] for x in labels),
                tuple(self.sizes[x] for x in labels),
                dtype,
            )
        )
        self.terms.append(labels)
        self.dtypes.append(dtype)
        return len(self.terms) - 1

    def add_tree(self, network: Network, tree: Tree, output: Labels) -> None:
        """Add the steps of a tree over the operands."""
        count = len(network.terms)
        terms = [_kept(term, mask) for term, mask in zip(self.terms, network.terms, strict=True)]
        # Sums over labels of one array come first; a 16-bit array is not rounded in between.
        numbers = [
            k
            if len(term) == len(set(self.terms[k])) or is_narrow(self.dtypes[k])
            else self.add(k, None, term)
            for k, term in enumerate(terms)
        ]
        orders = _orders(tree, labels_of_tree(network, tree), terms, output)
        for node, (first, second) in enumerate(tree, count):
            numbers.append(self.add(numbers[first], numbers[second], orders[node]))


def _orders(tree: Tree, masks: list[int], terms: list[Labels], output: Labels) -> list[Labels]:
    """Return the order of labels of each result of a tree; see Note [Order of intermediates]."""
    count = len(terms)
    orders: list[Labels] = [*terms, *(() for _ in tree)]
    orders[-1] = output
    for node in range(count + len(tree) - 1, count - 1, -1):
        pair, result = tree[node - count], orders[node]
        shared = masks[pair[0]] & masks[pair[1]]
        summed = shared & ~masks[node]
        fixed = next((orders[k] for k in pair if k < count), tuple(bits(summed)))
        depth = tuple(x for x in dict.fromkeys(fixed) if summed >> x & 1)
        batch = tuple(x for x in result if shared >> x & 1)
        for child in pair:
            if child < count:
                continue
            free = tuple(x for x in result if masks[child] & ~shared & 1 << x)
            # The array with the last label of the result is the right one: depth x columns.
            is_right = bool(free) and free[-1] == result[-1]
            orders[child] = batch + (depth + free if is_right else free + depth)
    return orders
