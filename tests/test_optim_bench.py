"""The benchmark of optimisers: its calls, its command."""

import json

import numpy as np
from checks import run_python

from unitstride import _bench_optim
from unitstride._bench_optim import Step


def test_libraries_take_the_same_step() -> None:
    """What the peers are timed with is the step that we are timed with."""
    for layout in ("contiguous", "step 2"):
        case = Step("sizes", "small", ((5, 6),), layout=layout)
        results = []
        for make in (_bench_optim.ours, _bench_optim.numpy_call):
            found = _bench_optim.operands(case)
            assert found is not None
            make(case, *found)()
            results.append(found[0][0])
        # A step of 1e-3 beside parameters of one, in float32.
        np.testing.assert_allclose(results[0], results[1], rtol=1e-6)
        assert (results[0] < 1).all()


def test_titles_are_different() -> None:
    for quick in (False, True):
        titles = [case.title for case in _bench_optim.cases(quick)]
        assert len(set(titles)) == len(titles)


def test_the_command() -> None:
    code = (
        "import sys; from unitstride.__main__ import main;"
        "sys.exit(main(['bench', 'optim', '--quick', '--rounds', '1', '--only', "
        "'100 parameters', '--json']))"
    )
    done = run_python(code, timeout=110)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert [case["title"] for case in report["cases"]] == ["Adam 100 parameters"]
    assert report["cases"][0]["times"]["unitstride"] > 0
