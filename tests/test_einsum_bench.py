"""The benchmark of contraction: its cases, its calls, its command."""

import json
import math

import numpy as np
import pytest
from checks import run_python

from unitstride import _bench_einsum
from unitstride._bench_contractions import Contraction, contractions, tccg


def test_tccg_has_its_published_sizes() -> None:
    """200 MiB for the largest array, as in the publication; the first and the ninth of them."""
    found = tccg("float32", 200 << 20)
    assert len(found) == 48
    assert found[0].sizes == {"a": 384, "b": 384, "c": 24, "d": 384}
    assert found[8].sizes == {"a": 96, "b": 84, "c": 84, "d": 84, "e": 96}
    assert found[0].subscripts == "adb,cd->cba"
    for case in tccg("float64"):
        largest = max(math.prod(shape) for shape in case.shapes) * 8
        assert largest <= 40 << 20
        assert case.operations == 2 * math.prod(case.sizes.values())


def test_titles_are_different() -> None:
    titles = [case.title for case in contractions()]
    assert len(set(titles)) == len(titles) > 130


def test_every_library_gets_the_same_answer() -> None:
    """`contenders` leaves out what is not installed and what disagrees; NumPy is always there."""
    for case in (
        Contraction("", "ij,jk->ik", ((5, 6), (6, 7)), layouts=("F", "step 2"), order="F"),
        Contraction("", "ij,jk->ik", ((5, 6), (6, 7)), "complex64"),
        Contraction("", "ir,jr,kr,r->ijk", ((3, 2), (4, 2), (5, 2), (2,)), "float64"),
    ):
        arrays = _bench_einsum.operands(case)
        assert arrays is not None
        calls = _bench_einsum.contenders(case, arrays, ("NumPy", "pytblis"))
        assert {"unitstride", "NumPy"} <= set(calls)
        expected = np.einsum(case.subscripts, *arrays)
        for call in calls.values():
            np.testing.assert_allclose(call(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("output", ["text", "json"])
def test_the_command(output: str) -> None:
    code = (
        "import sys; from unitstride.__main__ import main;"
        "sys.exit(main(['bench', 'einsum', '--quick', '--rounds', '1', '--only', 'small calls'"
        + (", '--json']))" if output == "json" else "]))")
    )
    done = run_python(code, timeout=110)
    assert done.returncode == 0, done.stderr
    if output == "json":
        report = json.loads(done.stdout)
        assert len(report["cases"]) == 3
        assert all(case["times"]["unitstride"] > 0 for case in report["cases"])
    else:
        assert "geometric mean" in done.stdout
        assert done.stdout.count("4x4") >= 1
