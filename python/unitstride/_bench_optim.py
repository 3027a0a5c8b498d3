"""The benchmark of optimisers: the time, the ratio to each peer, and the share of the limit.

As in `_bench`, all contenders of a case run in turn in the same rounds. The limit is the least
memory traffic of the step over the bandwidth of a copy with stores past the caches.
"""

import importlib
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

import unitstride
from unitstride import _backend, _bench_peers, _records
from unitstride._bench import measure
from unitstride._bench_peers import Call, Unavailable
from unitstride._bench_problems import show_group, show_progress
from unitstride._bench_tables import show_head

Array = NDArray[Any]
Arrays = list[Array]

_OWN, _PLAIN, _MEMORY = "unitstride", "plain", "memory"
_PROBE_BYTES = 64 << 20
_STREAMS = 4 << 20  # arrays of fewer bytes stay in a cache: memory is not their limit
_EVERYTHING = "clip, unscale, average, copy"


@dataclass(frozen=True)
class Step:
    """One problem: an optimiser on arrays of some shapes, in a layout and dtypes."""

    group: str
    label: str
    shapes: tuple[tuple[int, ...], ...]
    optimiser: str = "Adam"
    layout: str = "contiguous"
    dtype: str = "float32"
    state_dtype: str = "float32"

    @property
    def title(self) -> str:
        """The name by which ``--only`` finds the case."""
        return f"{self.optimiser} {self.label}"

    @property
    def elements(self) -> int:
        """The number of parameters."""
        return int(sum(np.prod(shape) for shape in self.shapes))

    @property
    def traffic(self) -> int:
        """Bytes that a step reads and writes at least."""
        item, state = (2 if "16" in name else 4 for name in (self.dtype, self.state_dtype))
        states = {"Adam": 2, "AdamW": 2, "SGD": 1, "Lion": 1}[self.optimiser]
        extra = 4 + 8 + 2 if self.label == _EVERYTHING else 0  # gradient again, average, copy
        return self.elements * (3 * item + 2 * states * state + extra)


@dataclass
class Result:
    """The times of one case in seconds, and its limit."""

    case: Step
    times: dict[str, float] = field(default_factory=dict)
    limit: float | None = None


def cases(quick: bool = False) -> Sequence[Step]:
    """Return the cases: sizes and lists, layouts, dtypes, other optimisers."""
    n = 1 << 20 if quick else 1 << 25
    square = ((1024, 1024),) if quick else ((4096, 8192),)
    model = (*[(768, 768)] * 24, *[(768,)] * 100, (50257, 768))
    lists = [
        Step("sizes", "100 parameters", ((100,),)),
        Step("sizes", "1 M", ((1_000_000,),)),
        Step("sizes", f"{n / 1e6:.1f} M", ((n,),)),
        Step("sizes", "1000 arrays of 1000", ((1000,),) * 1000),
    ]
    if not quick:
        lists.append(Step("sizes", "language model, 125 arrays, 53 M", model))
    layouts = ("transposed", "step 2", "gradient transposed")
    return [
        *lists,
        *(Step("layouts", name, square, layout=name) for name in layouts),
        Step("dtypes", "bfloat16 states", ((n,),), state_dtype="bfloat16"),
        Step("dtypes", "bfloat16, states too", ((n,),), dtype="bfloat16", state_dtype="bfloat16"),
        Step("in one pass", _EVERYTHING, ((n,),)),
        *(
            Step("optimisers", f"{n / 1e6:.1f} M", ((n,),), name)
            for name in ("SGD", "Lion", "AdamW")
        ),
    ]


def _lay_out(shape: tuple[int, ...], dtype: Any, layout: str, value: float) -> Array:
    if layout == "transposed":
        return np.full(shape[::-1], value, dtype).T
    if layout == "step 2":
        return np.full((*shape[:-1], 2 * shape[-1]), value, dtype)[..., ::2]
    return np.full(shape, value, dtype)


def operands(case: Step) -> tuple[Arrays, Arrays] | None:
    """Return parameters and gradients; None where NumPy lacks a dtype."""
    dtype, state = _records.find_dtype(case.dtype), _records.find_dtype(case.state_dtype)
    if dtype is None or state is None:
        return None
    mixed = case.layout == "gradient transposed"
    params = [_lay_out(s, dtype, "contiguous" if mixed else case.layout, 1.0) for s in case.shapes]
    grads = [_lay_out(s, dtype, "transposed" if mixed else case.layout, 0.01) for s in case.shapes]
    return params, grads


def ours(case: Step, params: Arrays, grads: Arrays) -> Call:
    """Return the step of this library: the function for Adam, the classes for the others."""
    if case.optimiser != "Adam":
        options: dict[str, Any] = {"momentum": 0.9} if case.optimiser == "SGD" else {}
        return partial(getattr(unitstride, case.optimiser)(params, **options).step, grads)
    state = _records.find_dtype(case.state_dtype)
    moments = [[np.zeros_like(p, dtype=state) for p in params] for _ in range(2)]
    extra: dict[str, Any] = {}
    if case.label == _EVERYTHING:
        extra = {"max_norm": 1.0, "grad_scale": 2.0, "ema": [p.copy() for p in params]}
        low = _records.find_dtype("bfloat16")
        extra["low_precision_copy"] = [np.zeros(p.shape, low or np.float16) for p in params]
    if len(params) == 1:
        extra = {k: v[0] if isinstance(v, list) else v for k, v in extra.items()}
        return partial(
            unitstride.adam_step, params[0], grads[0], moments[0][0], moments[1][0], 3, **extra
        )
    return partial(unitstride.adam_step, params, grads, moments[0], moments[1], 3, **extra)


# Peers.


def numpy_call(case: Step, params: Arrays, grads: Arrays) -> Call:
    """Return Adam as eight expressions of arrays."""
    if case.optimiser != "Adam" or case.label == _EVERYTHING or "16" in case.dtype:
        raise Unavailable
    moments = [(np.zeros_like(p), np.zeros_like(p)) for p in params]

    def step() -> None:
        for p, g, (m, v) in zip(params, grads, moments, strict=True):
            m *= 0.9
            m += 0.1 * g
            v *= 0.999
            v += 0.001 * (g * g)
            p -= 1e-3 * (m / (1 - 0.9**3)) / (np.sqrt(v / (1 - 0.999**3)) + 1e-8)

    return step


def torch_call(kind: str, case: Step, params: Arrays, grads: Arrays) -> Call:
    """Return the step of PyTorch on the same memory and with our number of threads."""
    if case.state_dtype != case.dtype or case.optimiser == "Lion":
        raise Unavailable
    torch = importlib.import_module("torch")
    torch.set_num_threads(unitstride.get_num_threads())
    tensors = [_bench_peers.to_torch(torch, array) for array in params]
    for tensor, grad in zip(tensors, grads, strict=True):
        tensor.grad = _bench_peers.to_torch(torch, grad)
    options: dict[str, Any] = {kind: True} if kind else {"foreach": False}
    if case.optimiser == "SGD":
        options["momentum"] = 0.9
    optimiser = getattr(torch.optim, case.optimiser)(tensors, **options)
    if case.label != _EVERYTHING:
        return lambda: optimiser.step()
    averages = [tensor.clone() for tensor in tensors]
    copies = [tensor.bfloat16() for tensor in tensors]
    gradients = [tensor.grad for tensor in tensors]

    def everything() -> None:
        torch._foreach_mul_(gradients, 0.5)
        torch.nn.utils.clip_grad_norm_(tensors, 1.0)
        optimiser.step()
        torch._foreach_lerp_(averages, tensors, 0.001)
        for copy, tensor in zip(copies, tensors, strict=True):
            copy.copy_(tensor)

    return everything


def optax_call(case: Step, params: Arrays, grads: Arrays) -> Call:
    """Return the compiled step of optax, which gives back its arguments' memory."""
    if case.dtype != case.state_dtype or case.label == _EVERYTHING or len(params) > 200:
        raise Unavailable
    jax, optax = importlib.import_module("jax"), importlib.import_module("optax")
    options: dict[str, Any] = {"momentum": 0.9} if case.optimiser == "SGD" else {}
    rule = getattr(optax, case.optimiser.lower())(1e-3, **options)

    def step(values: Any, state: Any, gradients: Any) -> Any:
        change, state = rule.update(gradients, state, values)
        return optax.apply_updates(values, change), state

    compiled = jax.jit(step, donate_argnums=(0, 1))
    values = [jax.numpy.array(p) for p in params]
    gradients = [jax.numpy.array(g) for g in grads]
    held = [(values, rule.init(values))]

    def call() -> None:
        held[0] = compiled(*held[0], gradients)
        jax.block_until_ready(held[0])

    return call


CALLS: dict[str, Callable[[Step, Arrays, Arrays], Call]] = {
    "NumPy": numpy_call,
    "torch fused": partial(torch_call, "fused"),
    "foreach": partial(torch_call, "foreach"),
    "torch": partial(torch_call, ""),
    "optax": optax_call,
}
PEERS = tuple(CALLS)
QUICK_PEERS = ("NumPy",)
# Which library a peer needs.
_LIBRARIES = {"NumPy": "NumPy", "optax": "JAX"}


def contenders(case: Step, peers: Sequence[str]) -> dict[str, Call]:
    """Return the calls of a case by library; each has run once."""
    found = operands(case)
    if found is None:
        return {}
    calls = {_OWN: ours(case, *found)}
    if case.group in ("layouts", "dtypes", "in one pass"):
        plain = Step("sizes", "plain", case.shapes)
        arrays = operands(plain)
        assert arrays is not None
        calls[_PLAIN] = ours(plain, *arrays)
    for peer in peers:
        try:
            call = CALLS[peer](case, *(operands(case) or ([], [])))
            call()
            calls[peer] = call
        except (Unavailable, ImportError, TypeError, ValueError, RuntimeError):
            continue
    return calls


def run_case(case: Step, rounds: int, peers: Sequence[str]) -> Result:
    """Measure one case."""
    result = Result(case)
    core = _backend.core
    calls = contenders(case, peers)
    if not calls:
        return result
    if core is not None and case.elements * 4 >= _STREAMS:
        source = core.empty_like(np.ones(_PROBE_BYTES // 4, np.float32))
        source[...] = 1.0
        calls[_MEMORY] = partial(core.probe_copy, source, core.empty_like(source))
    times = measure(calls, rounds)
    if _MEMORY in times:
        result.limit = times.pop(_MEMORY) * case.traffic / (2 * _PROBE_BYTES)
    result.times = times
    return result


def run(
    chosen: Sequence[Step], rounds: int, peers: Sequence[str], show: bool = True
) -> dict[str, Any]:
    """Measure cases, print their tables as they come, and return everything as a dictionary."""
    libraries = {peer: _LIBRARIES.get(peer, "PyTorch") for peer in peers}
    versions = _bench_peers.versions(tuple(dict.fromkeys(libraries.values())))
    found = tuple(peer for peer in peers if versions[libraries[peer]] != "not installed")
    runtime = unitstride.show_runtime("dicts")
    if show:
        show_head(runtime, versions, rounds)
    start = time.perf_counter()
    results: list[Result] = []
    for group in dict.fromkeys(case.group for case in chosen):
        members = []
        for case in (case for case in chosen if case.group == group):
            show_progress(case.title)
            members.append(run_case(case, rounds, found))
        show_progress("")
        if show:
            show_group(group, members, found)
        results += members
    seconds = time.perf_counter() - start
    if show:
        print(f"\nMedians, {seconds:.0f} s in all. Peers: their time / ours.")
        print("Limit: the bandwidth of a copy, measured in the same rounds.")
        print("/ plain: our time over that of a plain step on contiguous float32 arrays.")
    return {
        "runtime": runtime,
        "peers": versions,
        "rounds": rounds,
        "seconds": seconds,
        "cases": [{**asdict(result), "title": result.case.title} for result in results],
    }
