"""A network of labelled tensors: sets of labels as bits, their sizes, and trees of contractions.

Tensors are numbered: the operands from 0, then each result of a step. A tree is the list of its
steps, pairs of such numbers; every number but the last is used once.
"""

from collections.abc import Sequence

from unitstride._einsum_cost import Machine, step_seconds

Tree = list[tuple[int, int]]


class Network:
    """Terms and output as sets of labels (bit i is label i), and what contracting them costs."""

    def __init__(
        self, terms: Sequence[int], output: int, sizes: Sequence[int], machine: Machine
    ) -> None:
        self.terms = tuple(terms)
        self.output = output
        self.machine = machine
        self._sizes = sizes
        self._elements: dict[int, float] = {0: 1.0}

    def elements(self, labels: int) -> float:
        """Return the number of elements of a tensor with these labels."""
        found = self._elements.get(labels)
        if found is None:
            lowest = labels & -labels
            found = self._sizes[lowest.bit_length() - 1] * self.elements(labels ^ lowest)
            self._elements[labels] = found
        return found

    def seconds(self, first: int, second: int, result: int) -> float:
        """Return the time of one step, given the labels of its arrays."""
        moved = self.elements(first) + self.elements(second) + self.elements(result)
        return step_seconds(self.machine, self.elements(first | second), moved)

    def restricted(self, terms: Sequence[int], output: int) -> "Network":
        """Return the network of other terms over the same labels."""
        part = Network(terms, output, self._sizes, self.machine)
        part._elements = self._elements
        return part


def labels_of_tree(network: Network, tree: Tree) -> list[int]:
    """Return the labels of the operands and of each result of a tree."""
    users = [0] * max(labels_used(network).bit_length(), 1)
    for labels in (*network.terms, network.output):
        for label in bits(labels):
            users[label] += 1
    found = list(network.terms)
    for first, second in tree:
        for label in bits(found[first]):
            users[label] -= 1
        for label in bits(found[second]):
            users[label] -= 1
        result = sum(1 << x for x in bits(found[first] | found[second]) if users[x])
        for label in bits(result):
            users[label] += 1
        found.append(result)
    return found


def tree_seconds(network: Network, tree: Tree) -> float:
    """Return the time of a whole tree."""
    labels = labels_of_tree(network, tree)
    results = labels[len(network.terms) :]
    return sum(
        network.seconds(labels[first], labels[second], result)
        for (first, second), result in zip(tree, results, strict=True)
    )


def labels_used(network: Network) -> int:
    """Return all labels of a network."""
    used = network.output
    for labels in network.terms:
        used |= labels
    return used


def bits(labels: int) -> list[int]:
    """Return the numbers of the labels in a set."""
    found = []
    while labels:
        lowest = labels & -labels
        found.append(lowest.bit_length() - 1)
        labels ^= lowest
    return found


def peak_elements(network: Network, tree: Tree) -> float:
    """Return the most elements that intermediates hold at one time; operands do not count."""
    labels = labels_of_tree(network, tree)
    operands, last = len(network.terms), len(labels) - 1
    alive = peak = 0.0
    for number, (first, second) in enumerate(tree, operands):
        if number != last:
            alive += network.elements(labels[number])
        peak = max(peak, alive)
        for used in (first, second):
            if used >= operands:
                alive -= network.elements(labels[used])
    return peak
