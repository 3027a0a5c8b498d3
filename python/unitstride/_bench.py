"""The benchmark: the time, the ratio to each peer, and the share of the machine's limit.

All contenders of a case, the limit too, run in turn in the same rounds of one process, because the
bandwidth of a shared machine changes by a factor of two within minutes. Before each there is a
pause in which the threads of the one before go to sleep. Medians are reported.
"""

import gc
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import repeat
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

import unitstride
from unitstride import _backend, _bench_peers, _records
from unitstride._bench_peers import Call, Unavailable
from unitstride._selftest import ulp_error

Array = NDArray[Any]

PEERS = tuple(_bench_peers.PEERS)
QUICK_PEERS = ("NumPy", "SciPy")
SPECS = {spec.name: spec for spec in _records.KERNELS}

_PAUSE = 0.030  # seconds; libgomp and OpenBLAS threads spin for less
_PROBE_UNIT = 256 << 10  # the probes take whole pieces of this many bytes
_STREAMS = 4 << 20  # arrays of fewer bytes stay in a cache: memory is not their limit
_OWN = "unitstride"


@dataclass(frozen=True)
class Case:
    """One problem: a function on an array of a shape, dtype and layout."""

    group: str
    function: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    layout: str = "contiguous"

    @property
    def title(self) -> str:
        """The name by which ``--only`` finds the case."""
        return f"{self.function} {self.dtype} {self.shape} {self.layout}"

    @property
    def axis(self) -> int:
        """The axis of the operation."""
        return 0 if self.layout == "axis 0" else -1


@dataclass
class Result:
    """The times of one case in seconds: ``times[contender][kind]``, kind "out=" or "fresh"."""

    case: Case
    times: dict[str, dict[str, float]] = field(default_factory=dict)
    limit: float | None = None


def cases(quick: bool = False) -> list[Case]:
    """Return the cases of the softmax family."""
    n = 1024 if quick else 4096
    square = (n, n)
    layouts = ("contiguous", "axis 0", "transposed", "step 2")
    shapes = ((8, 32064), (2, 12, 128, 128)) if quick else ((64, 128256), (8, 12, 512, 512))
    functions = ("log_softmax", "logsumexp", "softmax_vjp", "log_softmax_vjp", "logsumexp_vjp")
    strided = "contiguous and strided"
    return [
        *(Case(strided, "softmax", square, layout=layout) for layout in layouts),
        *(Case("other shapes", "softmax", shape) for shape in (*shapes, (64, 128), (1, 10))),
        Case("other dtypes", "softmax", (n // 2, n), "float64"),
        Case("other dtypes", "softmax", square, "bfloat16"),
        Case("other dtypes", "softmax", square, "float16"),
        *(Case("other functions", function, square) for function in functions),
    ]


def lay_out(array: Array, layout: str) -> Array:
    """Return a copy of an array in a layout."""
    if layout == "transposed":
        return array.copy("F")
    if layout == "reversed":
        return array[..., ::-1].copy()[..., ::-1]
    if layout == "step 2":
        host = np.empty((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
        host[...] = 0  # unlike np.zeros, np.empty asks for huge pages
        host[..., ::2] = array
        return host[..., ::2]
    return array.copy()


def inputs(case: Case, layout: str) -> tuple[Array, ...] | None:
    """Return the arrays of a case in a layout; None where NumPy lacks the dtype."""
    dtype = _records.find_dtype(case.dtype)
    if dtype is None:
        return None
    random = np.random.default_rng(7)
    x = (random.standard_normal(case.shape, np.float32) * np.float32(3)).astype(dtype)
    if case.function == "logsumexp_vjp":
        lse = unitstride.logsumexp(x, case.axis)
        dy = random.standard_normal(lse.shape, np.float32).astype(dtype)
        return lay_out(x, layout), dy, lse
    if case.function.endswith("vjp"):
        y = getattr(unitstride, case.function.removesuffix("_vjp"))(x, case.axis)
        dy = random.standard_normal(case.shape, np.float32).astype(dtype)
        return lay_out(y, layout), lay_out(dy, layout)
    return (lay_out(x, layout),)


def _limit_call(case: Case, itemsize: int) -> tuple[Call, float] | None:
    """Return a call that moves memory, and by how much the case moves more."""
    core = _backend.core
    elements = int(np.prod(case.shape))
    if core is None or elements * itemsize < _STREAMS:
        return None
    spec = SPECS[case.function]
    lines = elements // case.shape[case.axis]
    least_bytes = spec.bytes_and_flops(elements, lines, itemsize)[0]
    size = -(-elements * itemsize // _PROBE_UNIT) * _PROBE_UNIT
    template = np.ones(size // 4, np.float32)
    source = core.empty_like(template)
    source[...] = 1.0
    if spec.reduces:
        return lambda: core.probe_read(source), least_bytes / size
    target = core.empty_like(template)
    return lambda: core.probe_copy(source, target), least_bytes / (2 * size)


def _contenders(case: Case, peers: Sequence[str]) -> dict[tuple[str, str], Call]:
    """Return the calls of a case by library and kind ("out=" or "fresh")."""
    arrays = inputs(case, case.layout)
    if arrays is None:
        return {}
    spec = SPECS[case.function]
    small = arrays[0].nbytes < 1 << 20
    axis = case.axis % arrays[0].ndim
    shape = np.delete(case.shape, axis) if spec.reduces else case.shape
    out = np.empty(tuple(int(n) for n in shape), arrays[0].dtype)
    out[...] = 0
    kinds = {"fresh": None} if small else {"out=": out, "fresh": None}
    calls: dict[tuple[str, str], Call] = {}
    for kind, target in kinds.items():
        calls[_OWN, kind] = _bench_peers.ours(case.function, arrays, axis, target)
        if case.layout != "contiguous":
            plain = Case(case.group, case.function, case.shape, case.dtype)
            other = inputs(plain, "contiguous")
            assert other is not None
            calls["contiguous", kind] = _bench_peers.ours(case.function, other, -1, target)
        for peer in peers:
            try:
                call = _bench_peers.PEERS[peer](case.function, arrays, axis, target)
                call()  # compiles, and shows whether the library takes these arrays
                calls[peer, kind] = call
            except (Unavailable, ImportError, TypeError, ValueError, RuntimeError):
                continue
    return calls


def _time(call: Call, number: int) -> float:
    start = time.perf_counter()
    for _ in repeat(None, number):
        call()
    return (time.perf_counter() - start) / number


def measure(calls: dict[Any, Callable[[], Any]], rounds: int) -> dict[Any, float]:
    """Run all calls in turn, two rounds to warm up and then `rounds`, and return the medians.

    Calls under 100 us are repeated inside a round; those over 0.1 s take part in every third
    round, and those over 1 s in the first one only.
    """
    number = dict.fromkeys(calls, 1)
    every = dict.fromkeys(calls, 1)
    times: dict[Any, list[float]] = {name: [] for name in calls}
    collecting = gc.isenabled()
    gc.disable()
    try:
        for turn in range(-2, rounds):
            for name, call in calls.items():
                if turn > 0 and turn % every[name]:
                    continue
                time.sleep(_PAUSE)
                seconds = _time(call, number[name])
                if turn < 0 and seconds < 1e-3:  # the first call after a pause is slow
                    seconds = _time(call, 10)
                if turn >= 0:
                    times[name].append(seconds)
                elif seconds < 100e-6:
                    number[name] = int(5e-3 / seconds) + 1
                elif seconds > 0.1:
                    every[name] = 3 if seconds < 1.0 else rounds
    finally:
        if collecting:
            gc.enable()
    return {name: median(found) for name, found in times.items()}


def run_case(case: Case, rounds: int, peers: Sequence[str]) -> Result:
    """Measure one case."""
    result = Result(case)
    calls: dict[Any, Call] = dict(_contenders(case, peers))
    if not calls:
        return result
    dtype = _records.find_dtype(case.dtype)
    assert dtype is not None
    limit = _limit_call(case, dtype.itemsize)
    if limit is not None:
        calls = {"limit": limit[0], **calls}
    for name, seconds in measure(calls, rounds).items():
        if name == "limit" and limit is not None:
            result.limit = seconds * limit[1]
        else:
            result.times.setdefault(name[0], {})[name[1]] = seconds
    return result


def parity(case: Case, peers: Sequence[str]) -> dict[str, float]:
    """Return the largest error of each library on a part of a case, in ULP."""
    arrays = inputs(
        Case(case.group, case.function, (256, case.shape[-1]), case.dtype), "contiguous"
    )
    if arrays is None:
        return {}
    spec = SPECS[case.function]
    wide = [array.astype(np.float64) for array in arrays]
    keywords = {"lse": wide.pop()} if case.function == "logsumexp_vjp" else {}
    exact = spec.reference(*wide, **keywords)
    scale = spec.error_scale(*wide, **keywords)
    errors = {}
    for name, peer in {_OWN: _bench_peers.ours, **_bench_peers.PEERS}.items():
        if name != _OWN and name not in peers:
            continue
        try:
            got = np.asarray(peer(case.function, arrays, 1, None)())
            errors[name] = ulp_error(got, exact, scale, case.dtype)
        except (Unavailable, ImportError, TypeError, ValueError, RuntimeError):
            continue
    return errors


def run(
    chosen: Sequence[Case], rounds: int, peers: Sequence[str], show: bool = True
) -> dict[str, Any]:
    """Measure cases, print their tables as they come, and return everything as a dictionary."""
    from unitstride import _bench_tables

    versions = _bench_peers.versions(tuple(peers))
    found = tuple(peer for peer in peers if versions[peer] != "not installed")
    accuracy = parity(chosen[0], found)
    runtime = unitstride.show_runtime("dicts")
    if show:
        _bench_tables.show_head(runtime, versions, rounds)
        _bench_tables.show_parity(chosen[0].title, accuracy)
    start = time.perf_counter()
    results: list[Result] = []
    for group in dict.fromkeys(case.group for case in chosen):
        members = []
        for case in (case for case in chosen if case.group == group):
            if sys.stderr.isatty():
                print(f"\r\x1b[K{case.title}", end="", file=sys.stderr, flush=True)
            members.append(run_case(case, rounds, found))
        if sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
        if show:
            _bench_tables.show_group(group, members, found)
        results += members
    seconds = time.perf_counter() - start
    if show:
        _bench_tables.show_foot(seconds, results)
    return {
        "runtime": runtime,
        "peers": versions,
        "rounds": rounds,
        "parity_ulp": accuracy,
        "seconds": seconds,
        "cases": [asdict(result) for result in results],
    }
