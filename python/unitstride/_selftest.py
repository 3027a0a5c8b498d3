"""The selftest: every kernel at every instruction-set level of this CPU beside the NumPy twin.

On an installation without the extension the twin itself is checked against plain formulas.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unitstride import _backend, _records
from unitstride._einsum_records import CONTRACTIONS, labels_of
from unitstride._records import KernelSpec, Sample

Array = NDArray[Any]

# Bits of the significand after the leading one, and the exponent of the least normal number.
_FORMATS = {
    "float32": (23, -126),
    "float64": (52, -1022),
    "float16": (10, -14),
    "bfloat16": (7, -126),
}

# Lines shorter than a vector, whole vectors, tails, lines side by side, pieces of long lines.
_CASES: tuple[tuple[tuple[int, ...], Any], ...] = (
    ((5, 6, 37), -1),
    ((5, 6, 37), 0),
    ((5, 6, 37), 1),
    ((5, 6, 37), (0, 2)),
    ((5, 6, 37), None),
    *(((35, n), -1) for n in (1, 3, 8, 16, 33, 65)),
    ((67, 130), 0),
    ((4, 4099), -1),
    ((4099, 5), 0),
    ((0, 3), 0),
)
_LONG = ((2, 200_003), -1)


KERNELS = (*_records.KERNELS, *CONTRACTIONS)


def _step_two(array: Array) -> Array:
    host = np.zeros([2 * n for n in array.shape], array.dtype)
    view = host[(slice(None, None, 2),) * array.ndim]
    view[...] = array
    return view


def _reversed(array: Array) -> Array:
    backwards = (slice(None, None, -1),) * array.ndim
    return array[backwards].copy()[backwards]


def _unaligned(array: Array) -> Array:
    memory = np.zeros(array.nbytes + 1, np.uint8)
    view = memory[1:].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


_LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "contiguous": np.copy,
    "transposed": lambda array: array.copy("F"),
    "step 2": _step_two,
    "reversed": _reversed,
    "unaligned": _unaligned,
}


def ulp_error(got: Array, exact: Array, scale: Array, dtype: str) -> float:
    """Return the largest abs(got - exact) in units of the last place of `scale` in a dtype."""
    bits, least = _FORMATS[dtype]
    with np.errstate(all="ignore"):
        values = np.asarray(got).astype(np.float64)
        exponent = np.maximum(np.frexp(np.abs(scale).astype(np.float64))[1] - 1, least)
        error = np.abs(values - exact) / np.ldexp(1.0, exponent - bits)
        equal = (values == exact) | (np.isnan(values) & np.isnan(exact))
        error = np.where(equal, 0.0, np.where(np.isnan(error), np.inf, error))
    return float(np.max(error, initial=0.0))


def _plain(name: str, sample: Sample) -> Array:
    """Compute a sample by the textbook formula, without any care for overflow."""
    first, *others = (array.astype(np.longdouble) for array in sample.arrays)
    if name == "einsum":
        left, right, kept = labels_of(first.ndim, **sample.keywords)
        call: tuple[Any, ...] = first, left, others[0], right, kept
        return np.asarray(np.einsum(*call))
    axis = sample.keywords["axis"]
    axes = tuple(range(first.ndim)) if axis is None else axis
    mask = sample.keywords.get("where", True)
    temperature = np.longdouble(sample.keywords.get("temperature", 1.0))

    def total(array: Array) -> Array:
        return np.asarray(np.sum(np.where(mask, array, 0.0), axis=axes, keepdims=True))

    z = first / temperature
    if name == "softmax":
        result = np.exp(z) / total(np.exp(z))
    elif name == "log_softmax":
        return np.where(mask, z - np.log(total(np.exp(z))), -np.inf)
    elif name == "logsumexp":
        return np.asarray(np.squeeze(np.log(total(np.exp(z))), axes))
    elif name == "softmax_vjp":
        result = first * (others[0] - total(others[0] * first)) / temperature
    elif name == "log_softmax_vjp":
        result = (others[0] - np.exp(first) * total(others[0])) / temperature
    else:
        lse = sample.keywords.get("lse")
        weight = (
            total(np.exp(z)) if lse is None else np.exp(np.expand_dims(lse.astype(z.dtype), axes))
        )
        result = np.expand_dims(others[0], axes) * np.exp(z) / weight / temperature
    return np.where(mask, result, 0.0)


@dataclass
class Outcome:
    """What was found for one kernel, dtype and instruction-set level."""

    isa: str
    kernel: str
    dtype: str
    checks: int = 0
    failures: int = 0
    worst_ulp: float = 0.0
    allowed_ulp: float = 0.0
    worst_case: str = ""

    def add(self, error: float, case: str) -> None:
        """Count one check."""
        self.checks += 1
        self.failures += not error <= self.allowed_ulp
        if error > self.worst_ulp:
            self.worst_ulp, self.worst_case = error, case


def _with_special_rows(spec: KernelSpec, sample: Sample) -> Sample:
    """Put a NaN into the first row and, for functions of any x, infinities into the next ones."""
    first = sample.arrays[0].copy()
    first[0, 1] = np.nan
    if not spec.name.endswith("vjp"):
        first[1, 2] = np.inf
        first[2] = -np.inf
        first[3, ::2] = -np.inf
    return Sample("NaN and inf", (first, *sample.arrays[1:]), sample.keywords)


def _samples(
    spec: KernelSpec, dtype: np.dtype[Any], native: bool
) -> Iterator[tuple[str, Sample, tuple[str, ...]]]:
    """Yield calls to check, each with its name and the layouts in which it is made."""
    random = np.random.default_rng(20_240_229)
    for shape, axis in _CASES:
        for sample in spec.sample_inputs(random, dtype, shape, axis):
            yield f"{shape}, axis {axis}, {sample.label}", sample, tuple(_LAYOUTS)
    if native:
        shape, axis = _LONG
        sample = spec.sample_inputs(random, dtype, shape, axis)[0]
        yield f"{shape}, axis {axis}, plain", sample, ("contiguous", "step 2")
        plain = spec.sample_inputs(random, dtype, (6, 35), -1)[0]
        yield "(6, 35), NaN and inf", _with_special_rows(spec, plain), tuple(_LAYOUTS)


def _expected(spec: KernelSpec, sample: Sample, native: bool) -> tuple[Array, Array]:
    """Return the exact result and the magnitude whose last place measures errors."""
    arrays = [array.astype(np.float64) for array in sample.arrays]
    keywords = dict(sample.keywords)
    if "lse" in keywords:
        keywords["lse"] = keywords["lse"].astype(np.float64)
    scale = spec.error_scale(*arrays, **keywords)
    if native:
        return spec.reference(*arrays, **keywords), scale
    # The textbook formula of log_softmax loses what is far below 1; so does this comparison.
    return _plain(spec.name, sample), np.maximum(scale, spec.name == "log_softmax")


def _call(spec: KernelSpec, sample: Sample, layout: str) -> Array:
    """Call a function with every array, and the output too, in a layout."""
    lay_out = _LAYOUTS[layout]

    def place(value: Any) -> Any:
        return lay_out(value) if isinstance(value, np.ndarray) and value.ndim else value

    keywords = {key: place(value) for key, value in sample.keywords.items()}
    arrays = tuple(map(place, sample.arrays))
    if layout != "contiguous" and not spec.reduces:
        keywords["out"] = lay_out(np.empty_like(sample.arrays[0]))
    return np.asarray(spec.function(*arrays, **keywords))


def _check_kernel(spec: KernelSpec, name: str, levels: list[str]) -> list[Outcome]:
    core = _backend.core
    dtype = _records.find_dtype(name)
    if dtype is None:
        return []
    # In float64 the twin is as far from the truth as the core may be.
    allowed = spec.error_budget[name] * (2 if name == "float64" else 1)
    outcomes = [Outcome(level, spec.name, name, allowed_ulp=allowed) for level in levels]
    for label, sample, layouts in _samples(spec, dtype, core is not None):
        exact, scale = _expected(spec, sample, core is not None)
        for layout in layouts:
            for outcome in outcomes:
                if core is not None:
                    core.use_isa(outcome.isa)
                case = f"{label}, {layout}"
                try:
                    got = _call(spec, sample, layout)
                except Exception as exception:
                    outcome.add(np.inf, f"{case}: {exception!r}")
                    continue
                same_kind = got.dtype == dtype and got.shape == exact.shape
                error = ulp_error(got, exact, scale, name) if same_kind else np.inf
                outcome.add(error, case)
    return outcomes


def run() -> dict[str, Any]:
    """Check everything and return the counts, the errors and the time as a dictionary."""
    core = _backend.core
    levels = ["numpy"] if core is None else list(core.isa_detected())
    before = None if core is None else core.isa_in_use()
    progress = sys.stderr.isatty()
    start = perf_counter()
    outcomes: list[Outcome] = []
    try:
        with np.errstate(all="ignore"):
            for spec in KERNELS:
                for name in spec.dtypes:
                    if progress:
                        print(f"\r\x1b[K{spec.name} {name}", end="", file=sys.stderr, flush=True)
                    outcomes += _check_kernel(spec, name, levels)
    finally:
        if core is not None:
            core.use_isa(before)
        if progress:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    return {
        "backend": _backend.backend_name(),
        "compared_with": "plain formulas" if core is None else "the NumPy twin in float64",
        "isa": levels,
        "checks": sum(outcome.checks for outcome in outcomes),
        "failures": sum(outcome.failures for outcome in outcomes),
        "seconds": perf_counter() - start,
        "outcomes": [asdict(outcome) for outcome in outcomes],
    }


def show(report: dict[str, Any]) -> None:
    """Print a report: the worst error of each kernel in ULP, and each failure."""
    names = list(dict.fromkeys(outcome["dtype"] for outcome in report["outcomes"]))
    for level in report["isa"]:
        print(f"{level:<17}" + "".join(f"{name:>11}" for name in names) + "    checks")
        for spec in KERNELS:
            found = [
                outcome
                for outcome in report["outcomes"]
                if outcome["isa"] == level and outcome["kernel"] == spec.name
            ]
            errors = "".join(f"{outcome['worst_ulp']:>11.3g}" for outcome in found)
            checks = sum(outcome["checks"] for outcome in found)
            print(f"  {spec.name:<15}{errors}{checks:>10}")
    for outcome in report["outcomes"]:
        if outcome["failures"]:
            print(
                f"FAILED: {outcome['kernel']} {outcome['dtype']} at {outcome['isa']}: "
                f"{outcome['failures']} of {outcome['checks']} checks, {outcome['worst_ulp']:.3g} "
                f"ULP where {outcome['allowed_ulp']:.3g} are allowed: {outcome['worst_case']}"
            )
    verdict = f"{report['failures']} failed" if report["failures"] else "all passed"
    print(
        f"{report['checks']} checks against {report['compared_with']} in "
        f"{report['seconds']:.1f} s, {verdict} (errors are the worst, in ULP)"
    )
