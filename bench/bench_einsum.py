"""Contraction by case and library: ``python -m pytest bench --benchmark-enable``.

Groups hold one problem: all libraries side by side. ``python -m unitstride bench einsum`` runs them
in turn instead, beside the limit of the machine, and prints ratios.
"""

import time
import warnings
from typing import Any

import pytest

from unitstride import _bench_einsum
from unitstride._bench_contractions import Contraction
from unitstride._bench_peers import Unavailable

LIBRARIES = {"unitstride": _bench_einsum.ours, **_bench_einsum.CALLS}


def pause() -> None:
    """Let the threads of the contender before go to sleep."""
    time.sleep(0.030)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("case", _bench_einsum.cases(True), ids=lambda case: case.title)
def test_einsum(benchmark: Any, case: Contraction, library: str) -> None:
    benchmark.group = case.title
    arrays = _bench_einsum.operands(case)
    if arrays is None:
        pytest.skip("ml_dtypes is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other libraries warn about themselves when imported
        try:
            call = LIBRARIES[library](case, arrays)
            call()
        except ImportError:
            pytest.skip(f"{library} is not installed")
        except (Unavailable, TypeError, ValueError, RuntimeError):
            pytest.skip(f"{library} has no {case.title}")
        if sum(array.nbytes for array in arrays) < 1 << 20:
            benchmark(call)
        else:
            benchmark.pedantic(call, setup=pause, rounds=5, warmup_rounds=1)
