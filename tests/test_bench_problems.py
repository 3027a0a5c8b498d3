"""The benchmarks of attention and convolution: their calls give results, their tables print."""

import json
import subprocess
import sys

import pytest

from unitstride import _bench_attention, _bench_convolution
from unitstride._bench_peers import Unavailable
from unitstride._bench_problems import OWN, PLAIN


@pytest.mark.parametrize("bench", [_bench_attention, _bench_convolution])
def test_titles_name_one_case_each(bench: object) -> None:
    for quick in (True, False):
        titles = [case.title for case in bench.cases(quick)]  # type: ignore[attr-defined]
        assert len(set(titles)) >= len(titles) - 4  # gradients share the titles of their functions
        assert all(titles)


def test_every_quick_case_of_ours_runs() -> None:
    for bench in (_bench_attention, _bench_convolution):
        for case in bench.cases(True):
            for name in (OWN, PLAIN):
                if name in case.calls and "4096" not in case.title:
                    try:
                        assert case.calls[name]()() is not None
                    except (ImportError, Unavailable):
                        continue


@pytest.mark.parametrize(
    ("operation", "only"), [("attention", "(1, 1, 16, 16, 32)"), ("convolution", "1000 * 10")]
)
def test_the_command_prints_json(operation: str, only: str) -> None:
    words = ("bench", operation, "--quick", "--rounds", "1", "--json", "--only", only)
    found = subprocess.run(
        [sys.executable, "-m", "unitstride", *words], capture_output=True, text=True, check=True
    )
    report = json.loads(found.stdout)
    assert [case["title"] for case in report["cases"]]
    assert all(case["times"][OWN] > 0 for case in report["cases"])
