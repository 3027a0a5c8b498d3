"""Paths as the callers write them: positions in a list from which each step takes its operands.

The result of a step goes to the end of the list. NumPy's paths begin with "einsum_path";
opt_einsum's and cotengra's are the same without it.
"""

import math
from collections.abc import Callable, Sequence
from operator import index
from typing import Any, NamedTuple

from unitstride._einsum_flops import MOST_GREEDY, MOST_OPTIMAL, greedy_path, optimal_path
from unitstride._einsum_network import Network, Tree, bits, labels_used, tree_seconds
from unitstride._einsum_search import search

METHODS = ("auto", "greedy", "optimal")
Path = tuple[tuple[int, ...], ...]

_ALIKE = 1.02  # ratio of times between which NumPy's order decides


class Choice(NamedTuple):
    """What ``optimize=`` asks for: a method, "given" for the order given, or a path."""

    method: str
    path: Path | None = None
    largest: float | None = None  # elements of an intermediate
    finder: Callable[..., Any] | None = None  # a path optimiser of opt_einsum


def _read_path(function: str, entries: Sequence[Any], shown: object) -> Path:
    try:
        return tuple(tuple(index(position) for position in entry) for entry in entries)
    except TypeError:
        raise TypeError(
            f"{function}: `optimize` must be True, False, one of {', '.join(METHODS)}, or a path, "
            f"got {shown!r}"
        ) from None


def read_choice(function: str, optimize: Any) -> Choice:
    """Read ``optimize=``: a bool, a name, a name and a size, a path, a tree or an optimiser."""
    if optimize is True:
        return Choice("auto")
    if optimize is False or optimize is None:
        return Choice("given")
    if isinstance(optimize, str):
        if optimize not in METHODS:
            raise ValueError(
                f"{function}: `optimize` must be True, False, one of {', '.join(METHODS)}, or a "
                f"path, got {optimize!r}"
            )
        return Choice(optimize)
    if hasattr(optimize, "get_path"):  # a contraction tree of cotengra
        return Choice("path", _read_path(function, optimize.get_path(), optimize))
    if callable(optimize):
        return Choice("path", None, None, optimize)
    if isinstance(optimize, Sequence) and len(optimize) and isinstance(optimize[0], str):
        if optimize[0] == "einsum_path":
            return Choice("path", _read_path(function, optimize[1:], optimize))
        if len(optimize) == 2 and isinstance(optimize[1], (int, float)):
            return read_choice(function, optimize[0])._replace(largest=float(optimize[1]))
    return Choice("path", _read_path(function, _iterable(optimize), optimize))


def _iterable(optimize: Any) -> Any:
    """Return something to iterate over; an entry that is none where there is nothing."""
    return optimize if isinstance(optimize, Sequence) else (optimize,)


def find_path(choice: Choice, network: Network, sizes: Sequence[int]) -> Path:
    """Ask a path optimiser of opt_einsum for a path."""
    assert choice.finder is not None
    inputs = [frozenset(bits(term)) for term in network.terms]
    found = choice.finder(inputs, frozenset(bits(network.output)), dict(enumerate(sizes)), None)
    return tuple(tuple(entry) for entry in found)


def tree_of_path(function: str, network: Network, path: Path) -> Tree:
    """Return the tree of a path; what takes more than two operands at once is searched."""
    alive = list(range(len(network.terms)))
    labels = dict(enumerate(network.terms))
    tree: Tree = []
    for entry in path:
        if not entry or len(set(entry)) != len(entry) or not _inside(entry, len(alive)):
            raise ValueError(
                f"{function}: `optimize` must be a path whose steps take different operands of "
                f"those left, got step {entry} with {len(alive)} left"
            )
        chosen = [alive[position] for position in sorted(entry)]
        alive = [number for number in alive if number not in chosen]
        outside = network.output
        for number in alive:
            outside |= labels[number]
        union = 0
        for number in chosen:
            union |= labels[number]
        part = network.restricted([labels[number] for number in chosen], union & outside)
        local = chosen
        for first, second in search(part, "auto") or ():
            tree.append((local[first], local[second]))
            local = [*local, len(network.terms) + len(tree) - 1]
        labels[local[-1]] = union & outside if len(chosen) > 1 else labels[local[-1]]
        alive.append(local[-1])
    if len(alive) != 1:
        raise RuntimeError(
            f"{function}: `optimize` must be a path that contracts everything, "
            f"got one that leaves {len(alive)} operands"
        )
    return tree


def _inside(entry: tuple[int, ...], count: int) -> bool:
    return all(0 <= position < count for position in entry)


def path_of_tree(tree: Tree, count: int) -> list[tuple[int, ...]]:
    """Return the path of a tree over `count` operands."""
    alive = list(range(count))
    path: list[tuple[int, ...]] = []
    for number, pair in enumerate(tree, count):
        path.append(tuple(sorted(alive.index(used) for used in pair)))
        alive = [k for k in alive if k not in pair]
        alive.append(number)
    return path


def tree_in_order(count: int) -> Tree:
    """Return the tree that takes the operands one after the other."""
    return [(0, 1), *((count + k - 2, k) for k in range(2, count))] if count > 1 else []


def tree_within(choice: Choice, network: Network, largest: float = math.inf) -> Tree | None:
    """Return the best tree whose intermediates are as small as asked; None if there is none."""
    if choice.largest is not None:
        largest = min(largest, choice.largest)
    return search(network, choice.method, largest)


def _numpys_path(choice: Choice, network: Network) -> Path | None:
    """Return the path that NumPy finds for the same words; None where that would take long."""
    count = len(network.terms)
    if count < 3 or labels_used(network) == network.output:
        return None
    if choice.method == "optimal":
        return optimal_path(network) if count <= MOST_OPTIMAL else None
    return greedy_path(network) if count <= MOST_GREEDY else None


def choose_order(
    function: str, choice: Choice, network: Network, sizes: Sequence[int], largest: float
) -> tuple[Tree, Path]:
    """Return the tree that ``optimize=`` asks for, and its path.

    The lower number of a pair comes first. Where NumPy's path takes the same time as the best one,
    it is chosen.
    """
    count = len(network.terms)
    if choice.method == "given":
        tree: Tree | None = tree_in_order(count)
    elif choice.method == "path":
        path = choice.path if choice.path is not None else find_path(choice, network, sizes)
        return _low_first(tree_of_path(function, network, path)), path
    else:
        tree = tree_within(choice, network, largest)
        if tree is None:  # nothing is as small as that: then the best of all
            tree = search(network, "auto" if choice.largest is not None else choice.method)
        assert tree is not None
        if choice.largest is None and math.isinf(largest):
            numpys = _numpys_path(choice, network)
            if numpys is not None:
                same = tree_of_path(function, network, numpys)
                if tree_seconds(network, same) <= _ALIKE * tree_seconds(network, tree):
                    return _low_first(same), numpys
    assert tree is not None
    tree = _low_first(tree)
    return tree, tuple(path_of_tree(tree, count))


def _low_first(tree: Tree) -> Tree:
    return [(min(pair), max(pair)) for pair in tree]


def choose_tree(
    function: str, choice: Choice, network: Network, sizes: Sequence[int], largest: float
) -> Tree:
    """Return the tree that ``optimize=`` asks for."""
    return choose_order(function, choice, network, sizes, largest)[0]
