"""Optimisers by case and library: ``python -m pytest bench --benchmark-enable``.

Groups hold one problem: all libraries side by side. ``python -m unitstride bench optim`` runs them
in turn instead, beside the limit of the machine, and prints ratios.
"""

import time
from typing import Any

import pytest

from unitstride import _bench_optim
from unitstride._bench_optim import Step
from unitstride._bench_peers import Unavailable

LIBRARIES = {"unitstride": _bench_optim.ours, **_bench_optim.CALLS}


def pause() -> None:
    """Let the threads of the contender before go to sleep."""
    time.sleep(0.030)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("case", _bench_optim.cases(True), ids=lambda case: case.title)
def test_optim(benchmark: Any, case: Step, library: str) -> None:
    benchmark.group = case.title
    arrays = _bench_optim.operands(case)
    if arrays is None:
        pytest.skip("ml_dtypes is not installed")
    try:
        call = LIBRARIES[library](case, *arrays)
        call()
    except ImportError:
        pytest.skip(f"{library} is not installed")
    except (Unavailable, TypeError, ValueError, RuntimeError):
        pytest.skip(f"{library} has no {case.title}")
    if case.elements < 1 << 18:
        benchmark(call)
    else:
        benchmark.pedantic(call, setup=pause, rounds=5, warmup_rounds=1)
