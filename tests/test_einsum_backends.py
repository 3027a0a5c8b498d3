"""einsum as the back-end of opt_einsum and cotengra, where they are installed."""

from typing import Any

import numpy as np
import pytest
from checks import random_for
from test_einsum_paths import random_network

import unitstride

CASES = ("ij,jk,kl->il", "pi,qj,ijkl,rk,sl->pqrs", "bij,bjk,bk->bi", "ij,ij,jk->k", "ii,ij,kj->k")


def operands_of(text: str, random: Any) -> list[Any]:
    return [random.standard_normal((4,) * len(term)) for term in text.split("->")[0].split(",")]


@pytest.mark.parametrize("text", CASES)
def test_opt_einsum(text: str) -> None:
    opt_einsum = pytest.importorskip("opt_einsum", reason="opt_einsum is not installed")
    arrays = operands_of(text, random_for("opt_einsum", text))
    expected = np.einsum(text, *arrays)
    got = opt_einsum.contract(text, *arrays, backend="unitstride")
    np.testing.assert_allclose(got, expected, rtol=1e-10)
    shapes = [array.shape for array in arrays]
    expression = opt_einsum.contract_expression(text, *shapes)
    np.testing.assert_allclose(expression(*arrays, backend="unitstride"), expected, rtol=1e-10)
    path, _ = opt_einsum.contract_path(text, *arrays)
    np.testing.assert_allclose(unitstride.einsum(text, *arrays, optimize=path), expected)
    optimiser = opt_einsum.DynamicProgramming()
    np.testing.assert_allclose(unitstride.einsum(text, *arrays, optimize=optimiser), expected)


def test_opt_einsum_on_networks() -> None:
    opt_einsum = pytest.importorskip("opt_einsum", reason="opt_einsum is not installed")
    for number in range(10):
        random = random_for("opt_einsum network", number)
        text, shapes = random_network(random, 8, (2, 3))
        arrays = [random.standard_normal(shape) for shape in shapes]
        got = opt_einsum.contract(text, *arrays, backend="unitstride")
        expected = unitstride.einsum(text, *arrays)
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("text", CASES)
def test_cotengra(text: str) -> None:
    cotengra = pytest.importorskip("cotengra", reason="cotengra is not installed")
    arrays = operands_of(text, random_for("cotengra", text))
    expected = np.einsum(text, *arrays)
    implementation = (unitstride.einsum, unitstride.tensordot)
    got = cotengra.einsum(text, *arrays, implementation=implementation)
    np.testing.assert_allclose(got, expected, rtol=1e-10)
    tree = cotengra.einsum_tree(text, *[array.shape for array in arrays])
    np.testing.assert_allclose(unitstride.einsum(text, *arrays, optimize=tree), expected)
