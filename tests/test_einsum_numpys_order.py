"""NumPy's order of contraction, and when it is chosen."""

import math
from typing import Any

import numpy as np
import pytest
from checks import random_for

from unitstride import einsum, einsum_path
from unitstride._einsum_cost import machine_of
from unitstride._einsum_flops import greedy_path, optimal_path
from unitstride._einsum_network import Network, tree_seconds
from unitstride._einsum_paths import Choice, choose_order, tree_of_path
from unitstride._einsum_search import search


def random_problem(random: Any) -> tuple[str, dict[str, int]]:
    """Return subscripts with hyperedges, outer products and dangling labels, and sizes."""
    letters = list("abcdefgh"[: random.integers(3, 9)])
    terms = [
        "".join(random.choice(letters, random.integers(1, min(4, len(letters)) + 1), replace=False))
        for _ in range(random.integers(3, 7))
    ]
    used = sorted(set("".join(terms)))
    output = "".join(x for x in used[:-1] if random.random() < 0.3)
    return ",".join(terms) + "->" + output, {x: int(random.integers(2, 9)) for x in used}


def network_of(text: str, sizes: dict[str, int]) -> Network:
    place = {letter: k for k, letter in enumerate(sizes)}

    def mask(term: str) -> int:
        return sum(1 << place[x] for x in set(term))

    inputs, output = text.split("->")
    terms = [mask(term) for term in inputs.split(",")]
    return Network(terms, mask(output), list(sizes.values()), machine_of(np.dtype("float64")))


def operands(text: str, sizes: dict[str, int]) -> list[Any]:
    random = random_for("order", text)
    terms = text.split("->")[0].split(",")
    return [random.standard_normal([sizes[x] for x in term]) for term in terms]


@pytest.mark.parametrize("method", ["greedy", "optimal"])
def test_the_searches_find_what_numpy_finds(method: str) -> None:
    search = {"greedy": greedy_path, "optimal": optimal_path}[method]
    for number in range(60):
        text, sizes = random_problem(random_for("numpys order", number))
        expected, _ = np.einsum_path(text, *operands(text, sizes), optimize=method)
        assert ["einsum_path", *search(network_of(text, sizes))] == expected, (text, sizes)


# For small arrays the calls take the time, however they are ordered.
@pytest.mark.parametrize("optimize", [True, "greedy", "optimal"])
@pytest.mark.parametrize(
    "text",
    [
        "eb,cb,fb->cef",
        "dd,fb,be,cdb->cef",
        "bca,cdb,dbf,afc->",
        "dcc,fce,ea,dbf->ab",
        "acdf,jbje,gihb,hfac,gfac,gifabc,hfac->de",
        "chd,bde,agbc,hiad,bdi,cgh,agdb->e",
        "a,ac,ab,ad,cd,bd,bc->",
    ],
)
def test_small_arrays_have_numpys_path(text: str, optimize: Any) -> None:
    sizes = dict(zip("abcdefghij", [2, 3, 4, 5, 4, 3, 2, 6, 5, 4], strict=True))
    if text.startswith("a,"):
        sizes = dict.fromkeys("abcd", 20)
    arrays = operands(text, sizes)
    path, report = einsum_path(text, *arrays, optimize=optimize)
    expected, theirs = np.einsum_path(text, *arrays, optimize=optimize)
    assert path == expected
    assert report.splitlines()[0] == theirs.splitlines()[0]
    # The same steps in another arithmetic: rounding alone.
    got, scale = einsum(text, *arrays, optimize=optimize), np.einsum(text, *map(np.abs, arrays))
    assert (np.abs(got - np.einsum(text, *arrays)) <= 1e-13 * scale).all()


def test_numpys_path_is_not_chosen_where_it_takes_longer() -> None:
    others = 0
    for number in range(100):
        text, sizes = random_problem(random_for("longer", number))
        sizes = {x: n * 8 for x, n in sizes.items()}
        network = network_of(text, sizes)
        tree, path = choose_order("", Choice("auto"), network, list(sizes.values()), math.inf)
        best = search(network, "auto")
        assert best is not None
        ours, least = tree_seconds(network, tree), tree_seconds(network, best)
        numpys = tree_seconds(network, tree_of_path("", network, greedy_path(network)))
        assert ours <= 1.02 * least
        if path != greedy_path(network) and set(text.split("->")[1]) != set(sizes):
            others += 1
            assert numpys > 1.02 * least
    assert others > 0
