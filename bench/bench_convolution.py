"""Convolution by case and library: ``python -m pytest bench --benchmark-enable``.

Groups hold one problem: all libraries side by side. ``python -m unitstride bench convolution`` runs
them in turn instead, beside the limit of the machine, and prints ratios.
"""

import time
from typing import Any

import pytest

from unitstride import _bench_convolution
from unitstride._bench_peers import Unavailable
from unitstride._bench_problems import OWN, Problem


def pause() -> None:
    """Let the threads of the contender before go to sleep."""
    time.sleep(0.030)


@pytest.mark.parametrize("library", (OWN, *_bench_convolution.PEERS))
@pytest.mark.parametrize("case", _bench_convolution.cases(True), ids=lambda case: case.title)
def test_convolution(benchmark: Any, case: Problem, library: str) -> None:
    benchmark.group = case.title
    if library not in case.calls:
        pytest.skip(f"{library} has no {case.title}")
    try:
        call = case.calls[library]()
        call()
    except ImportError:
        pytest.skip(f"{library} is not installed")
    except Unavailable:
        pytest.skip(f"{library} has no {case.title}")
    benchmark.pedantic(call, setup=pause, rounds=5, warmup_rounds=1)
