"""Paths: the search, its quality, paths of others, limits of memory, expressions."""

import itertools
import math
import sys
import time
from typing import Any

import numpy as np
import pytest
from checks import random_for
from einsum_cases import assert_close

from unitstride import contract_expression, einsum, einsum_path
from unitstride._einsum_cost import machine_of
from unitstride._einsum_network import Network, peak_elements, tree_seconds
from unitstride._einsum_paths import path_of_tree, tree_of_path
from unitstride._einsum_search import exact, improve, search

FLOAT64 = machine_of(np.dtype("float64"))
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ" + "".join(
    map(chr, range(200, 500))
)


def random_network(random: Any, count: int, sizes: tuple[int, ...] = (2, 3, 4)) -> Any:
    """Return subscripts and shapes of a connected network with a few open labels."""
    terms: list[list[str]] = [[] for _ in range(count)]
    letters = iter(LETTERS)
    size_of: dict[str, int] = {}
    output = []

    def join(*members: int) -> None:
        letter = next(letters)
        size_of[letter] = int(random.choice(sizes))
        for member in members:
            terms[member].append(letter)

    for k in range(1, count):
        join(k, int(random.integers(k)))
    for _ in range(count // 2):
        join(*map(int, random.choice(count, 2, replace=False)))
    for _ in range(int(random.integers(0, 3))):
        join(int(random.integers(count)))
        output.append(next(reversed(size_of)))
    for _ in range(int(random.integers(0, 2))):
        join(*map(int, random.choice(count, min(3, count), replace=False)))
    text = ",".join(map("".join, terms)) + "->" + "".join(output)
    return text, [tuple(size_of[x] for x in term) for term in terms]


def network_of(text: str, shapes: Any) -> Network:
    inputs, output = text.split("->")
    numbers = {letter: k for k, letter in enumerate(sorted(set(inputs) - {","}))}
    sizes = [1] * len(numbers)
    masks = []
    for term, shape in zip(inputs.split(","), shapes, strict=True):
        masks.append(sum(1 << numbers[x] for x in set(term)))
        for letter, size in zip(term, shape, strict=True):
            sizes[numbers[letter]] = size
    return Network(masks, sum(1 << numbers[x] for x in output), sizes, FLOAT64)


def all_trees(count: int) -> Any:
    """Yield every tree of pairs."""

    def extend(alive: tuple[int, ...], tree: list[Any]) -> Any:
        if len(alive) == 1:
            yield list(tree)
        for pair in itertools.combinations(alive, 2):
            tree.append(pair)
            rest = tuple(k for k in alive if k not in pair)
            yield from extend((*rest, count + len(tree) - 1), tree)
            tree.pop()

    yield from extend(tuple(range(count)), [])


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_the_exact_search_is_exact(count: int) -> None:
    """Against all trees there are: 180 for five operands, times orders of steps."""
    for number in range(8):
        network = network_of(*random_network(random_for("exact", count, number), count, (2, 9, 40)))
        best = min(tree_seconds(network, tree) for tree in all_trees(count))
        found = exact(network, True)
        assert found is not None
        assert tree_seconds(network, found) <= best * (1 + 1e-12)


def test_the_search_is_near_the_best() -> None:
    """Greedy and improved trees beside exact ones for eight operands; the sum over 20 networks."""
    totals = {"auto": 0.0, "greedy": 0.0, "optimal": 0.0}
    for number in range(20):
        network = network_of(*random_network(random_for("near", number), 8, (4, 16, 64)))
        for method in totals:
            tree = search(network, method)
            assert tree is not None
            totals[method] += tree_seconds(network, tree)
    # What shares no label is only joined at the end, which costs little; greedy costs more.
    assert totals["optimal"] <= totals["auto"] <= 1.05 * totals["optimal"]
    assert totals["greedy"] <= 3 * totals["optimal"]


@pytest.mark.parametrize("count", [12, 30, 100])
def test_large_networks_take_milliseconds(count: int) -> None:
    network = network_of(*random_network(random_for("large", count), count, (2, 3)))
    start = time.perf_counter()
    tree = search(network, "greedy")
    seconds = time.perf_counter() - start
    assert tree is not None and len(tree) == count - 1
    assert seconds < 2.5e-3 * count  # four greedy searches
    better = improve(network, tree)
    assert tree_seconds(network, better) <= tree_seconds(network, tree)
    assert sorted(k for pair in better for k in pair) == list(range(2 * count - 2))


def test_long_chains_do_not_recurse() -> None:
    count = sys.getrecursionlimit() + 200
    shapes = [(2, 2)] * count
    call: list[Any] = []
    for k in range(count):
        call += [np.eye(2), [k, k + 1]]
    assert einsum(*call, [0, count]).shape == shapes[0]


@pytest.mark.parametrize("count", [3, 4, 6, 8, 10, 15])
@pytest.mark.parametrize("optimize", [True, False, "greedy", "auto", "optimal", ("greedy", 100)])
def test_networks_by_every_method(count: int, optimize: Any) -> None:
    for number in range(3):
        random = random_for("network", count, number)
        text, shapes = random_network(random, count, (2, 3) if count < 10 else (2,))
        arrays = [random.standard_normal(shape) for shape in shapes]
        got = einsum(text, *arrays, optimize=optimize)
        expected = np.einsum(text, *arrays, optimize="greedy")
        scale = np.einsum(text, *map(np.abs, arrays), optimize="greedy")
        # Each step adds a few units of roundoff.
        assert (np.abs(got - expected) <= 16 * count * 2.0**-53 * scale).all()
        path, _ = einsum_path(text, *arrays, optimize=optimize)
        again = einsum(text, *arrays, optimize=path)
        if optimize is not False:  # that path is one step of all operands
            np.testing.assert_array_equal(again, got)


def test_paths_of_numpy_and_reports_like_numpys() -> None:
    random = random_for("numpy paths")
    text = "ea,fb,abcd,gc,hd->efgh"
    c, x = random.standard_normal((5, 5)), random.standard_normal((5, 5, 5, 5))
    arrays = [c, c, x, c, c]
    for optimize in ("greedy", "optimal", False):
        path, theirs = np.einsum_path(text, *arrays, optimize=optimize)
        assert_close(einsum(text, *arrays, optimize=path), text, arrays, 80)
        again, ours = einsum_path(text, *arrays, optimize=path)
        assert again == path
        # The same numbers; NumPy sorts the labels of intermediates in its own way.
        assert ours.splitlines()[:9] == theirs.splitlines()[:9]
        assert ours.splitlines()[9].split() == theirs.splitlines()[9].split()
        assert [len(line) for line in ours.splitlines()] == [
            len(line) for line in theirs.splitlines()
        ]


def test_the_report_for_few_operands() -> None:
    a = np.ones((2, 3))
    path, report = einsum_path("ij,jk", a, np.ones((3, 4)))
    assert path == ["einsum_path", (0, 1)]
    assert "Complete contraction:  ij,jk->ik" in report
    assert "Optimized FLOP count:  4.900e+01" in report
    assert einsum_path("ij->i", a)[0] == ["einsum_path", (0,)]
    assert einsum_path("ij,jk,kl", a, np.ones((3, 4)), np.ones((4, 2)), optimize=False)[0] == [
        "einsum_path",
        (0, 1, 2),
    ]
    assert einsum_path(a, [0, 1], np.ones((3, 1)), [1, 70])[0] == ["einsum_path", (0, 1)]


def test_a_limit_out_of_reach_is_one_step() -> None:
    arrays = [np.ones(2), np.ones(3), np.ones(4)]
    for method in ("greedy", "optimal"):
        path, _ = einsum_path("a,b,c->abc", *arrays, optimize=(method, 0))
        assert path == ["einsum_path", (0, 1, 2)]
        assert einsum("a,b,c->abc", *arrays, optimize=(method, 0)).tolist() == [[[1.0] * 4] * 3] * 2


def test_letters_of_lists_in_reports() -> None:
    """As in NumPy: A to Z, then a to z."""
    for count in (26, 27, 40):
        x = np.ones((1,) * count)
        _, report = einsum_path(x, range(count))
        _, numpys = np.einsum_path(x, range(count))
        line = report.splitlines()[0].split("->")[1]
        assert line == numpys.splitlines()[0].split("->")[1]
    _, report = einsum_path(np.ones((2, 2)), [60, 1], np.ones(2), [60], [1])
    assert report.splitlines()[0].endswith("AB,A->B")


def test_paths_that_do_not_fit() -> None:
    arrays = [np.ones((2, 2))] * 3
    for path in (
        ["einsum_path", (0, 1)],
        [(0, 1), (0, 5)],
        [(0, 0), (0, 1)],
        ["einsum_path"],
        [(), (0, 1)],
        [(0, 1), (0, 1), (0, 1)],
        [(0, -1), (0, 1)],
    ):
        with pytest.raises((ValueError, RuntimeError), match=r"^einsum: `optimize` must be a path"):
            einsum("ij,jk,kl->il", *arrays, optimize=path)
    for path in (["einsum_path", (0, 1)], [(1,), (0, 1)]):  # NumPy's kind of error
        with pytest.raises(RuntimeError, match="one that leaves 2 operands"):
            einsum("ij,jk,kl->il", *arrays, optimize=path)
    for junk in (3, [1, 2], {"a": 1}, [("a", "b")], ("greedy", "x")):
        with pytest.raises((TypeError, ValueError), match=r"^einsum: `optimize` must be"):
            einsum("ij,jk,kl->il", *arrays, optimize=junk)


def test_trees_and_paths_are_the_same_thing() -> None:
    for count in (2, 5, 9, 20):
        network = network_of(*random_network(random_for("tree", count), count))
        tree = search(network, "greedy")
        assert tree is not None
        path = path_of_tree(tree, count)
        again = tree_of_path("einsum", network, tuple(path))
        assert [set(pair) for pair in again] == [set(pair) for pair in tree]


def test_a_path_with_several_operands_at_once() -> None:
    random = random_for("several")
    text, shapes = random_network(random, 6)
    arrays = [random.standard_normal(shape) for shape in shapes]
    expected = np.einsum(text, *arrays, optimize=True)
    for path in ([(0, 1, 2), (0, 1, 2, 3)], [(5,), (0, 1, 2, 3, 4, 5)], [(1, 2, 3, 4), (0, 2, 1)]):
        np.testing.assert_allclose(einsum(text, *arrays, optimize=path), expected, rtol=1e-10)


class Tree:
    """As cotengra's ContractionTree shows itself."""

    def get_path(self) -> Any:
        return ((1, 2), (0, 1))


def test_trees_and_optimisers_of_others() -> None:
    arrays = [np.ones((2, 3)), np.ones((3, 4)), np.ones((4, 5))]
    calls = []

    def optimiser(inputs: Any, output: Any, sizes: Any, memory_limit: Any) -> Any:
        calls.append((inputs, output, sizes, memory_limit))
        return [(0, 1), (0, 1)]

    for optimize in (Tree(), optimiser):
        assert einsum("ij,jk,kl->il", *arrays, optimize=optimize).tolist() == [[12.0] * 5] * 2
        assert einsum_path("ij,jk,kl->il", *arrays, optimize=optimize)[0][0] == "einsum_path"
    inputs, output, sizes, memory_limit = calls[0]
    assert [len(term) for term in inputs] == [2, 2, 2] and len(output) == 2
    assert sorted(sizes.values()) == [2, 3, 4, 5] and memory_limit is None


# Limits of memory.


@pytest.mark.parametrize("count", [3, 5, 8])
def test_a_limit_of_memory_keeps_the_result(count: int) -> None:
    for number in range(6):
        random = random_for("limit", count, number)
        text, shapes = random_network(random, count, (2, 3))
        arrays = [random.standard_normal(shape) for shape in shapes]
        start = random.standard_normal(np.einsum(text, *arrays, optimize=True).shape)
        for limit in (8, 60, 200) if count == 3 else (200, 1000, 1 << 30):
            got = einsum(text, *arrays, memory_limit=limit)
            expected = einsum(text, *arrays)
            np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9)
            out = start.copy()
            einsum(text, *arrays, memory_limit=limit, out=out, alpha=2, beta=-1)
            np.testing.assert_allclose(out, 2 * expected - start, rtol=1e-9, atol=1e-9)


def test_a_limit_of_memory_holds() -> None:
    import tracemalloc

    n = 60
    a, b, c, d = (np.ones((n, n, 2)) for _ in range(4))
    text = "abx,bcy,cdz,daw->xyzw"
    expected = einsum(text, a, b, c, d)
    for limit in (1 << 20, 1 << 17, 1 << 15):
        tracemalloc.start()
        got = einsum(text, a, b, c, d, memory_limit=limit)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        np.testing.assert_allclose(got, expected, rtol=1e-12)
        # Beside the intermediates: copies of slices that the twin makes, plans, views.
        assert peak <= 4 * limit + 1_000_000


def test_the_peak_of_a_tree() -> None:
    network = network_of("ab,bc,cd,de->ae", [(2, 10), (10, 3), (3, 5), (5, 7)])
    assert peak_elements(network, [(0, 1), (4, 2), (5, 3)]) == 2 * 3 + 2 * 5
    assert peak_elements(network, [(0, 1), (2, 3), (4, 5)]) == 2 * 3 + 3 * 7
    assert math.isclose(network.elements(0b111), 2 * 10 * 3)


# Order of contraction and bits.


def test_diagonals_and_sums_come_first() -> None:
    """A label of one operand alone is summed before that meets the others."""
    random = random_for("early")
    a, b = random.standard_normal((6, 6, 50)), random.standard_normal((6, 7))
    assert_close(einsum("iix,ij->j", a, b), "iix,ij->j", [a, b])
    assert_close(einsum("xiy,ij->j", a.T, b), "xiy,ij->j", [a.T, b])


def test_known_networks() -> None:
    random = random_for("known")
    p, v = random.standard_normal((6, 6)), random.standard_normal((6, 6, 6, 6))
    for text, arrays in (
        ("pi,qj,ijkl,rk,sl->pqrs", [p, p, v, p, p]),
        ("ir,jr,kr,r->ijk", [p, p, p, p[0]]),
        ("abc,ia,jb,kc->ijk", [v[0], p, p, p]),
        ("a,aib,bjc,ckd,d->ijk", [p[0], v[0], v[1], v[2], p[1]]),
        ("ij,kj,j->ik", [p, p, p[0]]),
        ("ij,ij,ij,ij->j", [p, p.T, p, p]),
        ("i,i,i,i->", [p[0], p[1], p[2], p[3]]),
        ("i,j,k,l->ijkl", [p[0], p[1], p[2], p[3]]),
        ("ii,jj,kk->", [p, p, p]),
    ):
        assert_close(einsum(text, *arrays), text, arrays, 16.0 * len(arrays))


# Expressions.


def test_expressions() -> None:
    random = random_for("expression")
    text, shapes = random_network(random, 6)
    expression = contract_expression(text, *shapes, optimize="optimal")
    assert repr(expression).startswith(f"<ContractExpression {text!r} of (")
    for name in ("float32", "float64", "complex128", "float32"):
        arrays = [random.standard_normal(shape).astype(name) for shape in shapes]
        got = expression(*arrays)
        assert got.dtype == name
        np.testing.assert_array_equal(got, einsum(text, *arrays, optimize="optimal"))
    out = np.asarray(got, np.float32).copy()
    assert expression(*[a.astype("f4") for a in arrays], out=out, alpha=2, beta=1) is out


@pytest.mark.parametrize("memory_limit", [None, 2000.0])
def test_constants_of_expressions(memory_limit: float | None) -> None:
    random = random_for("constants", memory_limit)
    for case in range(12):
        text, shapes = random_network(random, 5)
        arrays = [random.standard_normal(shape) for shape in shapes]
        places = [int(k) for k in random.permutation(5)[: case % 5 + 1]]
        mixed = [arrays[k] if k in places else shapes[k] for k in range(5)]
        expression = contract_expression(
            text, *mixed, constants=places, memory_limit=memory_limit, optimize="optimal"
        )
        assert expression.constants == tuple(sorted(places))
        given = [arrays[k] for k in range(5) if k not in places]
        expected = einsum(text, *arrays, optimize="optimal", memory_limit=memory_limit)
        for _ in range(2):  # the second call finds what the first one has kept
            np.testing.assert_array_equal(expression(*given), expected)
        out = np.ones_like(expected)
        expression(*given, out=out, alpha=2, beta=1)
        np.testing.assert_allclose(out, 2 * expected + 1, rtol=1e-12, atol=1e-12)
        single = [x.astype("f4") for x in given]
        np.testing.assert_allclose(expression(*single), expected, rtol=1e-3, atol=1e-3)


def test_errors_of_expressions() -> None:
    name = "contract_expression"
    for arguments, error, text in (
        (("ij,jk", (2, 3)), ValueError, "`subscripts` must have one term for each operand"),
        (("ij,jk", (2, 3), (4, 5)), ValueError, "operand 1 must have size 3 for label 'j'"),
        (("ij", 3), TypeError, "`shapes` must be sequences of integers"),
        (("ij", (2, -3)), ValueError, "`shapes` must not have negative sizes"),
        ((5, (2, 3)), TypeError, "`subscripts` must be a string, got 5"),
        (("ij",), ValueError, "`shapes` must have at least one shape"),
    ):
        with pytest.raises(error, match=f"^{name}: {text}"):
            contract_expression(*arguments)
    with pytest.raises(ValueError, match=f"^{name}: `constants` must be positions .* got 2"):
        contract_expression("ij,jk", (2, 3), (3, 4), constants=[2])
    with pytest.raises(TypeError, match=f"^{name}: `constants` must be a sequence of integers"):
        contract_expression("ij,jk", (2, 3), (3, 4), constants=1)
    product = contract_expression("ij,jk->ik", (2, 3), (3, 4))
    for operands, text in (
        ([np.ones((2, 3))], "the expression must get 2 operands, got 1"),
        ([np.ones((2, 3)), np.ones((3, 5))], r"operand 1 must have shape \(3, 4\)"),
    ):
        with pytest.raises(ValueError, match=f"^{name}: {text}"):
            product(*operands)
    with pytest.raises(ValueError, match=f"^{name}: `beta` must be 0 without `out`"):
        product(np.ones((2, 3)), np.ones((3, 4)), beta=1)
