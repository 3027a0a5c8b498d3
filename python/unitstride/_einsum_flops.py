"""NumPy's order of contraction: the searches of ``numpy.einsum_path``, by counts of operations.

Among orders that take the same time, NumPy's is the one to choose: paths are compared, kept and
printed. A step of k operands counts max(1, k - 1) operations per element of its loop, and one more
where it sums. No intermediate is larger than the largest operand or the result; where nothing else
is left, one step takes all operands.
"""

from collections.abc import Iterator
from itertools import combinations

from unitstride._einsum_network import Network

Path = tuple[tuple[int, ...], ...]
Known = tuple[tuple[float, float], int, int]  # key of the choice, positions

MOST_GREEDY = 8  # operands
MOST_OPTIMAL = 7  # ways to group the operands: 877


def _operations(network: Network, labels: int, result: int, count: int) -> float:
    return network.elements(labels) * (max(1, count - 1) + (labels != result))


def _result(network: Network, terms: list[int], taken: tuple[int, ...]) -> tuple[int, int]:
    """Return all labels of a step, and those that are left of them."""
    union, outside = 0, network.output
    for position, term in enumerate(terms):
        if position in taken:
            union |= term
        else:
            outside |= term
    return union, union & outside


def _largest(network: Network) -> float:
    return max(network.elements(term) for term in (*network.terms, network.output))


def greedy_path(network: Network) -> Path:
    """Take the pair that shrinks the network most, then the cheapest, then the first.

    A pair is known from the step on at which its later operand appears, with its gain at that
    time. Pairs without a common label come last; what would cost more than a single loop over
    all labels ends in one step of all operands that are left.
    """
    terms = list(network.terms)
    union, result = _result(network, terms, tuple(range(len(terms))))
    naive = _operations(network, union, result, len(terms))
    largest = _largest(network)
    spent = 0.0
    known: list[Known] = []
    path: list[tuple[int, ...]] = []

    def offer(first: int, second: int) -> None:
        union, result = _result(network, terms, (first, second))
        cost = _operations(network, union, result, 2)
        shrinks = sum(network.elements(terms[k]) for k in (first, second))
        if network.elements(result) <= largest and spent + cost <= naive:
            known.append(((network.elements(result) - shrinks, cost), first, second))

    fresh = list(combinations(range(len(terms)), 2))
    while len(terms) > 1:
        for first, second in fresh:
            if terms[first] & terms[second]:
                offer(first, second)
        if not known:
            for first, second in combinations(range(len(terms)), 2):
                offer(first, second)
        if not known:
            return (*path, tuple(range(len(terms))))
        (_, cost), first, second = min(known, key=lambda one: one[0])
        path.append((first, second))
        spent += cost
        result = _result(network, terms, (first, second))[1]
        terms = [term for k, term in enumerate(terms) if k not in (first, second)] + [result]
        known = [
            (key, x - (x > first) - (x > second), y - (y > first) - (y > second))
            for key, x, y in known
            if not {x, y} & {first, second}
        ]
        fresh = [(k, len(terms) - 1) for k in range(len(terms) - 1)]
    return tuple(path)


def optimal_path(network: Network) -> Path:
    """Return the first of the paths of pairs with the fewest operations, in the order of pairs."""
    groups = [1 << k for k in range(len(network.terms))]
    labels: dict[int, int] = {1 << k: term for k, term in enumerate(network.terms)}
    largest = _largest(network)
    best: dict[frozenset[int], tuple[int, float]] = {}

    def ways(groups: list[int]) -> Iterator[tuple[tuple[int, int], list[int], float]]:
        terms = [labels[group] for group in groups]
        for pair in combinations(range(len(groups)), 2):
            union, result = _result(network, terms, pair)
            if network.elements(result) <= largest:
                joined = groups[pair[0]] | groups[pair[1]]
                labels[joined] = result
                rest = [group for k, group in enumerate(groups) if k not in pair]
                yield pair, [*rest, joined], _operations(network, union, result, 2)

    def best_of(groups: list[int]) -> tuple[int, float]:
        """Return how many operands are left at the least, and what it takes to get there."""
        key = frozenset(groups)
        if key not in best:
            found = [_plus(best_of(after), cost) for _, after, cost in ways(groups)]
            best[key] = min(found, default=(len(groups), 0.0))
        return best[key]

    path: list[tuple[int, ...]] = []
    while len(groups) > best_of(groups)[0]:
        pair, groups = next(
            (pair, after)
            for pair, after, cost in ways(groups)
            if _plus(best_of(after), cost) == best_of(groups)
        )
        path.append(pair)
    return (*path, tuple(range(len(groups)))) if len(groups) > 1 else tuple(path)


def _plus(reached: tuple[int, float], cost: float) -> tuple[int, float]:
    return reached[0], reached[1] + cost
