"""The benchmark of contraction: the time, the ratio to each peer, and the share of the limit.

As in `_bench`, all contenders of a case run in turn in the same rounds, the limit too. It is the
larger of the arithmetic over the multiply-add peak and of the least memory traffic over the
bandwidth of a copy.
"""

import importlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

import unitstride
from unitstride import _bench_peers, _records
from unitstride._bench import measure
from unitstride._bench_contractions import Contraction, contractions
from unitstride._bench_peers import Call, Unavailable
from unitstride._bench_problems import limits, show_group, show_progress
from unitstride._bench_tables import show_head

Array = NDArray[Any]

_OWN, _PLAIN = "unitstride", "plain"
_MOST_OF_NUMPY = 8  # operands; the loop over all labels that it falls back to takes minutes
ROUNDS = 3  # by default: there are many cases, and all of them take some minutes


@dataclass
class Result:
    """The times of one case in seconds, and its limit."""

    case: Contraction
    times: dict[str, float] = field(default_factory=dict)
    limit: float | None = None


def cases(quick: bool = False) -> Sequence[Contraction]:
    """Return the cases of contraction."""
    return contractions(quick)


def _lay_out(array: Array, layout: str) -> Array:
    if layout == "step 2":
        host = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
        host[..., ::2] = array
        return host[..., ::2]
    return np.array(array, order="F" if layout == "F" else "C")


def operands(case: Contraction) -> tuple[Array, ...] | None:
    """Return the arrays of a case; None where NumPy lacks the dtype."""
    dtype = _records.find_dtype(case.dtype)
    if dtype is None:
        return None
    random = np.random.default_rng(7)
    arrays = []
    for position, shape in enumerate(case.shapes):
        values: Array = random.standard_normal(shape)
        if dtype.kind == "c":
            values = values + 1j * random.standard_normal(shape)
        layout = case.layouts[position] if case.layouts else "C"
        arrays.append(_lay_out(values.astype(dtype), layout))
    return tuple(arrays)


# Peers.


def ours(case: Contraction, arrays: tuple[Array, ...]) -> Call:
    """Return the call of this library."""
    if case.order == "C":
        return partial(unitstride.einsum, case.subscripts, *arrays)
    return partial(unitstride.einsum, case.subscripts, *arrays, order=case.order)


def numpy_call(case: Contraction, arrays: tuple[Array, ...]) -> Call:
    """Return the optimised call of NumPy, whose search gives up on large networks."""
    if len(arrays) > _MOST_OF_NUMPY:
        raise Unavailable
    return partial(np.einsum, case.subscripts, *arrays, optimize=True)


def opt_einsum_call(case: Contraction, arrays: tuple[Array, ...]) -> Call:
    """Return the call of opt_einsum on NumPy arrays."""
    library = importlib.import_module("opt_einsum")
    return partial(library.contract, case.subscripts, *arrays)


def torch_call(case: Contraction, arrays: tuple[Array, ...]) -> Call:
    """Return the call of PyTorch on the same memory and with our number of threads."""
    torch = importlib.import_module("torch")
    torch.set_num_threads(unitstride.get_num_threads())
    tensors = [_bench_peers.to_torch(torch, array) for array in arrays]
    return partial(torch.einsum, case.subscripts, *tensors)


def jax_call(case: Contraction, arrays: tuple[Array, ...]) -> Call:
    """Return the compiled call of JAX, which keeps copies of the arrays in its own layout."""
    jax = importlib.import_module("jax")
    if arrays[0].dtype.name in ("float64", "complex128"):
        jax.config.update("jax_enable_x64", True)
    compiled = jax.jit(partial(jax.numpy.einsum, case.subscripts))
    copies = [jax.numpy.asarray(array) for array in arrays]
    return lambda: compiled(*copies).block_until_ready()


def pytblis_call(case: Contraction, arrays: tuple[Array, ...]) -> Call:
    """Return the call of TBLIS."""
    library = importlib.import_module("pytblis")
    return partial(library.einsum, case.subscripts, *arrays)


CALLS: dict[str, Callable[[Contraction, tuple[Array, ...]], Call]] = {
    "NumPy": numpy_call,
    "opt_einsum": opt_einsum_call,
    "PyTorch": torch_call,
    "JAX": jax_call,
    "pytblis": pytblis_call,
}
PEERS = tuple(CALLS)
QUICK_PEERS = ("NumPy", "opt_einsum")


def contenders(
    case: Contraction, arrays: tuple[Array, ...], peers: Sequence[str]
) -> dict[str, Call]:
    """Return the calls of a case by library; each has run once, and agrees with ours."""
    calls = {_OWN: ours(case, arrays)}
    expected = np.asarray(calls[_OWN]()).astype(np.complex128)
    scale = float(np.max(np.abs(expected), initial=0.0))
    if case.layouts and (*case.layouts, case.order) != ("C", "C", "C"):
        plain = replace(case, layouts=(), order="C")
        calls[_PLAIN] = ours(plain, operands(plain) or ())
    if case.dtype == "bfloat16":
        plain = replace(case, dtype="float32")
        calls[_PLAIN] = ours(plain, operands(plain) or ())
    for peer in peers:
        try:
            call = CALLS[peer](case, arrays)
            got = np.asarray(call()).astype(np.complex128)
        except (Unavailable, ImportError, TypeError, ValueError, RuntimeError):
            continue
        if np.max(np.abs(got - expected), initial=0.0) <= 0.05 * scale:
            calls[peer] = call
    return calls


def run_case(case: Contraction, rounds: int, peers: Sequence[str]) -> Result:
    """Measure one case."""
    result = Result(case)
    arrays = operands(case)
    if arrays is None:
        return result
    probes: dict[str, Call] = {}
    share: dict[str, float] = {}
    if len(case.shapes) <= 2:
        probes, share = limits(
            case.dtype, case.operations, int(case.bytes_read), int(case.bytes_written)
        )
    times = measure({**probes, **contenders(case, arrays, peers)}, rounds)
    result.limit = max((times.pop(name) * share[name] for name in probes), default=None)
    result.times = times
    return result


# Tables.


def _means(results: Sequence[Result], peers: Sequence[str]) -> list[str]:
    """Return the geometric mean of the ratios to each peer."""
    row = ["geometric mean", ""]
    for peer in peers:
        logs = [math.log(r.times[peer] / r.times[_OWN]) for r in results if peer in r.times]
        row.append(f"{math.exp(sum(logs) / len(logs)):.2f}x" if logs else "-")
    return [*row, "", ""]


def run(
    chosen: Sequence[Contraction], rounds: int, peers: Sequence[str], show: bool = True
) -> dict[str, Any]:
    """Measure cases, print their tables as they come, and return everything as a dictionary."""
    versions = _bench_peers.versions(tuple(peers))
    found = tuple(peer for peer in peers if versions[peer] != "not installed")
    runtime = unitstride.show_runtime("dicts")
    if show:
        show_head(runtime, versions, rounds)
    start = time.perf_counter()
    results: list[Result] = []
    for group in dict.fromkeys(case.group for case in chosen):
        members = []
        for case in (case for case in chosen if case.group == group):
            show_progress(f"{chosen.index(case) + 1}/{len(chosen)} {case.title}")
            members.append(run_case(case, rounds, found))
        show_progress("")
        if show:
            means = _means(members, found) if len(members) > 2 else ()
            show_group(group, members, found, means)
        results += members
    seconds = time.perf_counter() - start
    if show:
        print(f"\nMedians, {seconds:.0f} s in all. Peers: their time / ours.")
        print("Limit: the multiply-add peak or the bandwidth, measured in the same rounds.")
        print("/ plain: our time over that of row-major arrays, or of float32 for bfloat16.")
    return {
        "runtime": runtime,
        "peers": versions,
        "rounds": rounds,
        "seconds": seconds,
        "cases": [{**asdict(result), "title": result.case.title} for result in results],
    }
