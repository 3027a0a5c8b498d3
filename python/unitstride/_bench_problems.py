"""Benchmarks of problems that come as calls: measured in turn beside the machine's limits.

As in `_bench`, all contenders of a problem run in the same rounds. The limit is the larger of the
arithmetic over the multiply-add peak and of the least traffic over the bandwidth of the memory.
"""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

import unitstride
from unitstride import _backend, _bench_peers
from unitstride._bench import measure
from unitstride._bench_peers import Call, Unavailable
from unitstride._bench_tables import format_time, show_head

OWN, PLAIN = "unitstride", "plain"
ROUNDS = 5
_MEMORY, _PEAK = "memory", "peak"
_PROBE_BYTES = 64 << 20
_PROBE_ROUNDS = 2_000_000
_STREAMS = 4 << 20  # arrays of fewer bytes stay in a cache: memory is not their limit


@dataclass(frozen=True)
class Problem:
    """One line of a table. `calls` builds each contender's call when its turn comes.

    The call "plain" is ours on the problem that this one is a variation of.
    """

    group: str
    title: str
    calls: dict[str, Callable[[], Call]]
    operations: float = 0.0  # multiplications and additions
    bytes_read: int = 0
    bytes_written: int = 0
    dtype: str = "float32"


@dataclass
class Result:
    """The times of one problem in seconds, and its limit."""

    case: Problem
    times: dict[str, float] = field(default_factory=dict)
    limit: float | None = None


def limits(
    dtype: str, operations: float, bytes_read: int, bytes_written: int
) -> tuple[dict[str, Call], dict[str, float]]:
    """Return probes of the machine's limits, and what a problem needs of what they do."""
    core = _backend.core
    calls: dict[str, Call] = {}
    share: dict[str, float] = {}
    if core is None:
        return calls, share
    if operations:
        parts = "float64" if dtype in ("float64", "complex128") else "float32"
        calls[_PEAK] = partial(core.probe_fma, parts, _PROBE_ROUNDS)
        share[_PEAK] = operations / calls[_PEAK]()
    traffic = bytes_read + bytes_written
    if traffic >= _STREAMS:
        source = core.empty_like(np.ones(_PROBE_BYTES // 4, np.float32))
        source[...] = 1.0
        if bytes_written < 0.1 * bytes_read:
            calls[_MEMORY] = partial(core.probe_read, source)
            share[_MEMORY] = traffic / _PROBE_BYTES
        else:
            calls[_MEMORY] = partial(core.probe_copy, source, core.empty_like(source))
            share[_MEMORY] = traffic / (2 * _PROBE_BYTES)
    return calls, share


def run_problem(problem: Problem, rounds: int, peers: Sequence[str]) -> Result:
    """Measure one problem."""
    result = Result(problem)
    calls, share = limits(
        problem.dtype, problem.operations, problem.bytes_read, problem.bytes_written
    )
    probes = tuple(calls)
    for name in (OWN, PLAIN, *peers):
        if name not in problem.calls:
            continue
        try:
            call = problem.calls[name]()
            call()
        except (Unavailable, ImportError):
            continue
        calls[name] = call
    if OWN not in calls:
        return result
    times = measure(calls, rounds)
    result.limit = max((times.pop(name) * share[name] for name in probes), default=None)
    result.times = times
    return result


def row_of(result: Any, peers: Sequence[str]) -> list[str]:
    """Return the cells of a result: its title, time, ratios, share of the limit, and / plain."""
    times = result.times
    if not times:
        return [result.case.title, "not run", *[""] * len(peers), "", ""]
    own = times[OWN]
    ratios = [f"{times[peer] / own:.2f}x" if peer in times else "-" for peer in peers]
    limit = "-" if result.limit is None else f"{100 * result.limit / own:.0f} %"
    plain = f"{own / times[PLAIN]:.2f}x" if PLAIN in times else "-"
    return [result.case.title, format_time(own), *ratios, limit, plain]


def show_group(
    group: str, results: Sequence[Any], peers: Sequence[str], last: Sequence[str] = ()
) -> None:
    """Print one table, with a `last` row where there is one."""
    rows = [[group, "time", *peers, "of limit", "/ plain"], *(row_of(r, peers) for r in results)]
    if last:
        rows.append(list(last))
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    print()
    for row in rows:
        cells = (f"{text:>{width}}" for text, width in zip(row[1:], widths[1:], strict=True))
        print(f"{row[0]:<{widths[0]}}  " + "  ".join(cells), flush=True)


def show_progress(text: str) -> None:
    """Tell which problem runs: in one line of a terminal, or line by line."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
    elif text:
        print(text, file=sys.stderr, flush=True)


def run(
    chosen: Sequence[Problem],
    rounds: int,
    peers: Sequence[str],
    show: bool = True,
    plain: str = "our time over that of the plain problem",
) -> dict[str, Any]:
    """Measure problems, print their tables as they come, return everything as a dictionary."""
    libraries = {peer: peer.split(",")[0] for peer in peers}
    versions = _bench_peers.versions(tuple(dict.fromkeys(libraries.values())))
    found = tuple(peer for peer in peers if versions[libraries[peer]] != "not installed")
    runtime = unitstride.show_runtime("dicts")
    if show:
        show_head(runtime, versions, rounds)
    start = time.perf_counter()
    results: list[Result] = []
    for group in dict.fromkeys(problem.group for problem in chosen):
        members = []
        for number, problem in enumerate(chosen, 1):
            if problem.group == group:
                show_progress(f"{number}/{len(chosen)} {problem.title}")
                members.append(run_problem(problem, rounds, found))
        show_progress("")
        if show:
            show_group(group, members, found)
        results += members
    seconds = time.perf_counter() - start
    if show:
        print(f"\nMedians, {seconds:.0f} s in all. Peers: their time / ours.")
        print("Limit: the multiply-add peak or the bandwidth, measured in the same rounds.")
        print(f"/ plain: {plain}.")
    return {
        "runtime": runtime,
        "peers": versions,
        "rounds": rounds,
        "seconds": seconds,
        "cases": [
            {
                "group": result.case.group,
                "title": result.case.title,
                "times": result.times,
                "limit": result.limit,
            }
            for result in results
        ],
    }
