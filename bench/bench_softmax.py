"""The softmax family by layout, dtype and library: ``python -m pytest bench --benchmark-enable``.

Groups hold one problem: all libraries side by side. ``python -m unitstride bench softmax`` runs
them in turn instead, beside the limit of the machine, and prints ratios.
"""

import time
import warnings
from typing import Any

import pytest

from unitstride import _bench, _bench_peers
from unitstride._bench import Case

SHAPE = (2048, 2048)
LAYOUTS = ("contiguous", "axis 0", "transposed", "step 2", "reversed")
LIBRARIES = {"unitstride": _bench_peers.ours, **_bench_peers.PEERS}
CASES = [
    *(Case("float32", name, SHAPE, layout=layout) for name in _bench.SPECS for layout in LAYOUTS),
    *(
        Case(dtype, "softmax", SHAPE, dtype, layout)
        for dtype in ("float64", "bfloat16", "float16")
        for layout in ("contiguous", "axis 0")
    ),
    *(Case("small", "softmax", shape) for shape in ((64, 128), (1, 10))),
]


def pause() -> None:
    """Let the threads of the contender before go to sleep."""
    time.sleep(0.030)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_softmax(benchmark: Any, case: Case, library: str) -> None:
    benchmark.group = case.title
    arrays = _bench.inputs(case, case.layout)
    if arrays is None:
        pytest.skip("ml_dtypes is not installed")
    axis = case.axis % arrays[0].ndim
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other libraries warn about themselves when imported
        try:
            call = LIBRARIES[library](case.function, arrays, axis, None)
            call()
        except ImportError:
            pytest.skip(f"{library} is not installed")
        except (_bench_peers.Unavailable, TypeError, ValueError, RuntimeError):
            pytest.skip(f"{library} has no {case.title}")
        if arrays[0].nbytes < 1 << 20:
            benchmark(call)
        else:
            benchmark.pedantic(call, setup=pause, rounds=9, warmup_rounds=2)
