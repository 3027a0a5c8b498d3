"""The search for a good order of contraction.

Up to eight operands it is exact: dynamic programming over sets of operands. Beyond, a greedy search
contracts the pair that shrinks the network most, under several weights; the best of its trees is
then improved part by part, each part exactly, where that can pay for itself.
"""

import heapq
import math

from unitstride._einsum_network import (
    Network,
    Tree,
    bits,
    labels_of_tree,
    labels_used,
    tree_seconds,
)

_EXACT = 8  # operands
_EXACT_WITH_OUTER = 5  # as many operands may also meet without a common label on the way
_OPTIMAL = 12  # operands: the most for which the exact search is affordable at all
_PART = 6  # leaves of a part that is improved exactly
_WEIGHTS = (1.0, 0.5, 0.0, 2.0)
# A part takes about this long to improve; shorter contractions are not worth it.
_IMPROVE_SECONDS = 2e-3


def search(network: Network, method: str, largest: float = math.inf) -> Tree | None:
    """Return a tree by "auto", "greedy" or "optimal"; None if none has results below `largest`."""
    count = len(network.terms)
    if count < 2:
        return []
    if method == "greedy":
        return _best_greedy(network, largest)
    if method == "optimal" and count <= _OPTIMAL:
        return exact(network, True, largest)
    if count <= _EXACT:
        return exact(network, count <= _EXACT_WITH_OUTER, largest)
    tree = _best_greedy(network, largest)
    return None if tree is None else improve(network, tree, largest)


def exact(network: Network, with_outer: bool, largest: float = math.inf) -> Tree | None:
    """Return the cheapest tree, over all or over those that join what shares a label.

    best[s] is the cheapest way to contract the set of operands s: the minimum over its splits.
    Parts of a network that share no label are joined at the end.
    """
    count = len(network.terms)
    everything = (1 << count) - 1
    result = _results_of_sets(network)
    closed = _ClosedSets(network)
    cost = {1 << k: 0.0 for k in range(count)}
    split: dict[int, int] = {}
    for chosen in range(3, everything + 1):
        if chosen & (chosen - 1) == 0:
            continue
        last = chosen == everything
        if not last and network.elements(result[chosen]) > largest:
            continue
        lowest = chosen & -chosen
        best, way = math.inf, 0
        part = (chosen - 1) & chosen
        while part:
            # Each split once: the part with the lowest operand comes first.
            if part & lowest and part in cost and chosen ^ part in cost:
                other = chosen ^ part
                joined = result[part] & result[other]
                if joined or with_outer or (closed(part) and closed(other)):
                    before = cost[part] + cost[other]
                    if before < best:
                        total = before + network.seconds(
                            result[part], result[other], result[chosen]
                        )
                        if total < best:
                            best, way = total, part
            part = (part - 1) & chosen
        if way:
            cost[chosen], split[chosen] = best, way
    return _tree_of_splits(split, everything, count) if everything in split else None


def _results_of_sets(network: Network) -> list[int]:
    """Return the labels that are left when each set of operands is contracted."""
    count = len(network.terms)
    union = [0] * (1 << count)
    for chosen in range(1, 1 << count):
        lowest = chosen & -chosen
        union[chosen] = union[chosen ^ lowest] | network.terms[lowest.bit_length() - 1]
    everything = (1 << count) - 1
    result = [
        labels & (network.output | union[everything ^ chosen])
        for chosen, labels in enumerate(union)
    ]
    for number, term in enumerate(network.terms):
        result[1 << number] = term
    return result


class _ClosedSets:
    """Says whether a set of operands consists of whole connected parts of the network."""

    def __init__(self, network: Network) -> None:
        self._parts: list[int] = []
        labels: list[int] = []
        for number, term in enumerate(network.terms):
            joined = [k for k, seen in enumerate(labels) if seen & term]
            part, seen = 1 << number, term
            for k in reversed(joined):
                part |= self._parts.pop(k)
                seen |= labels.pop(k)
            self._parts.append(part)
            labels.append(seen)

    def __call__(self, chosen: int) -> bool:
        return all(chosen & part in (0, part) for part in self._parts)


def _tree_of_splits(split: dict[int, int], everything: int, count: int) -> Tree:
    tree: Tree = []

    def visit(chosen: int) -> int:
        if chosen not in split:
            return chosen.bit_length() - 1
        part = split[chosen]
        first, second = visit(part), visit(chosen ^ part)
        tree.append((first, second))
        return count + len(tree) - 1

    visit(everything)
    return tree


def _best_greedy(network: Network, largest: float) -> Tree | None:
    """Return the fastest of the greedy trees under each weight."""
    best, least = None, math.inf
    for weight in _WEIGHTS:
        tree = _greedy(network, weight)
        fits = all(
            network.elements(labels) <= largest
            for labels in labels_of_tree(network, tree)[len(network.terms) : -1]
        )
        seconds = tree_seconds(network, tree) if fits else math.inf
        if seconds < least:
            best, least = tree, seconds
    return best


class _Live:
    """The tensors that are left during a greedy search, and who has which label."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.labels = dict(enumerate(network.terms))
        self.owners: dict[int, set[int]] = {x: set() for x in bits(labels_used(network))}
        for number, term in self.labels.items():
            for label in bits(term):
                self.owners[label].add(number)
        self.last_pair = 0  # labels of exactly two tensors, and not of the output
        for label in self.owners:
            self._update(label)

    def _update(self, label: int) -> None:
        bit = 1 << label
        if len(self.owners[label]) <= 2 and not self.network.output & bit:
            self.last_pair |= bit
        else:
            self.last_pair &= ~bit

    def result(self, first: int, second: int) -> int:
        """Return the labels of the contraction of two tensors."""
        a, b = self.labels[first], self.labels[second]
        return (a | b) & ~(a & b & self.last_pair)

    def join(self, first: int, second: int, number: int) -> None:
        """Replace two tensors by their contraction."""
        result = self.result(first, second)
        for old in (first, second):
            for label in bits(self.labels.pop(old)):
                self.owners[label].discard(old)
        for label in bits(result):
            self.owners[label].add(number)
            self._update(label)
        self.labels[number] = result

    def neighbours(self, number: int) -> list[int]:
        """Return the tensors that share a label with one, in order."""
        found: set[int] = set()
        for label in bits(self.labels[number]):
            found |= self.owners[label]
        return sorted(found - {number})


def _greedy(network: Network, weight: float) -> Tree:
    """Contract, again and again, the pair whose result is smallest beside `weight` * its inputs.

    What shares no label is joined at the end, the smallest first.
    """
    live = _Live(network)
    elements = network.elements
    heap: list[tuple[float, int, int]] = []

    def offer(first: int, second: int) -> None:
        inputs = elements(live.labels[first]) + elements(live.labels[second])
        gain = elements(live.result(first, second)) - weight * inputs
        heapq.heappush(heap, (gain, first, second))

    for first in list(live.labels):
        for second in live.neighbours(first):
            if first < second:
                offer(first, second)
    tree: Tree = []
    number = len(network.terms)
    while len(live.labels) > 1:
        while heap:
            _, first, second = heapq.heappop(heap)
            if first in live.labels and second in live.labels:
                break
        else:
            sizes = sorted((elements(labels), k) for k, labels in live.labels.items())
            first, second = sizes[0][1], sizes[1][1]
        tree.append((first, second))
        live.join(first, second, number)
        for other in live.neighbours(number):
            offer(other, number)
        number += 1
    return tree


def improve(network: Network, tree: Tree, largest: float = math.inf) -> Tree:
    """Replace parts of a tree by their cheapest trees, as long as that can pay for itself."""
    count = len(network.terms)
    left = tree_seconds(network, tree)
    spent = 0.0
    for node in range(count + len(tree) - 1, count - 1, -1):
        if spent + _IMPROVE_SECONDS > left:
            break
        better = _improve_part(network, tree, node, largest)
        spent += _IMPROVE_SECONDS
        if better is not None:
            tree = better
    return tree


def _improve_part(network: Network, tree: Tree, node: int, largest: float) -> Tree | None:
    """Search the cheapest tree over the leaves of the part of a tree below `node`."""
    count = len(network.terms)
    labels = labels_of_tree(network, tree)
    leaves, inner = [node], set()
    while len(leaves) < _PART:
        open_leaves = [leaf for leaf in leaves if leaf >= count]
        if not open_leaves:
            break
        opened = max(open_leaves, key=lambda leaf: (network.elements(labels[leaf]), leaf))
        leaves.remove(opened)
        leaves.extend(tree[opened - count])
        inner.add(opened)
    if len(leaves) < 3:
        return None
    part = network.restricted([labels[leaf] for leaf in leaves], labels[node])
    found = exact(part, False, largest)
    if found is None:
        return None
    before = sum(
        network.seconds(labels[tree[k - count][0]], labels[tree[k - count][1]], labels[k])
        for k in inner
    )
    if tree_seconds(part, found) >= before * (1.0 - 1e-9):
        return None
    return _with_part(tree, count, node, leaves, found)


def _with_part(tree: Tree, count: int, node: int, leaves: list[int], found: Tree) -> Tree:
    """Return a tree in which the part from `leaves` to `node` is contracted as in `found`."""
    result: Tree = []
    numbers = {leaf: leaf for leaf in range(count)}
    waiting = [count + len(tree) - 1]
    while waiting:  # a node waits until what it is made of has its number
        old = waiting[-1]
        sources = leaves if old == node else tree[old - count] if old >= count else ()
        missing = [source for source in sources if source not in numbers]
        if missing:
            waiting.extend(missing)
            continue
        waiting.pop()
        if old in numbers:
            continue
        steps = found if old == node else [(0, 1)]
        local = [numbers[source] for source in sources]
        for first, second in steps:
            result.append((local[first], local[second]))
            local.append(count + len(result) - 1)
        numbers[old] = local[-1]
    return result
