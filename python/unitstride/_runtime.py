"""What was built, what runs here, and the memory kept for results."""

import math
import platform
import re
import sys
from typing import Any, Literal, overload

import numpy as np

from unitstride import _backend, _threads
from unitstride._backend import core

_OPENMP_LIBRARY = re.compile(r"\s(/\S*/lib(?:gomp|iomp5|omp)(?:[-.][^/\s]*)?\.(?:so|dylib)[^/\s]*)")


def package_version() -> str:
    """Return the installed version, "0+unknown" when the package is not installed."""
    from importlib import metadata

    try:
        return metadata.version("unitstride")
    except metadata.PackageNotFoundError:
        return "0+unknown"


def _config() -> dict[str, Any]:
    return {
        "unitstride": package_version(),
        "extension": core is not None,
        "isa_compiled": [] if core is None else list(core.isa_compiled()),
        "build": {} if core is None else dict(core.build_info()),
    }


def openmp_runtimes(maps: str = "/proc/self/maps") -> list[str]:
    """Return the paths of the OpenMP runtimes loaded into this process (Linux only)."""
    try:
        with open(maps, encoding="utf-8", errors="replace") as file:
            found = {match[1] for match in map(_OPENMP_LIBRARY.search, file) if match}
    except OSError:
        return []
    return sorted(found)


def flushes_to_zero() -> bool:
    """Say whether this thread loses subnormal numbers, which other libraries may cause."""
    if core is not None:
        return bool(core.flush_to_zero())
    subnormal = np.array([sys.float_info.min]) * np.array([0.5])
    return bool((subnormal * np.array([2.0]))[0] == 0.0)


def _advice(openmp: list[str], flushing: bool, forked: bool) -> list[str]:
    """Return a sentence for each thing about this process that costs speed or accuracy."""
    advice = []
    if core is None:
        advice.append(f"calls run on NumPy: {_backend.reason}")
    if len(openmp) > 1:
        advice.append("several OpenMP runtimes are loaded; their threads compete for the CPUs")
    if flushing:
        advice.append(
            "subnormal numbers are flushed to zero; a library built with -ffast-math may have "
            "set this when it was loaded"
        )
    if forked:
        advice.append("this process was forked; calls run on one thread")
    return advice


def _runtime() -> dict[str, Any]:
    quota = _threads.cpu_quota()
    openmp = openmp_runtimes()
    flushing = flushes_to_zero()
    forked = core is not None and bool(core.forked())
    return {
        "unitstride": package_version(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "machine": f"{platform.system()} {platform.machine()}",
        "backend": {"name": _backend.backend_name(), "reason": _backend.reason},
        "isa": {
            "compiled": [] if core is None else list(core.isa_compiled()),
            "detected": [] if core is None else list(core.isa_detected()),
            "in_use": None if core is None else core.isa_in_use(),
        },
        "threads": {
            "number": _threads.get_num_threads(),
            "source": _threads.thread_source(),
            "cpus": _threads.available_cpus(),
            "cpu_quota": None if math.isinf(quota) else quota,
        },
        "openmp_runtimes": openmp,
        "flush_to_zero": flushing,
        "forked": forked,
        "advice": _advice(openmp, flushing, forked),
    }


def _print(facts: dict[str, Any], indent: str = "") -> None:
    """Print nested facts, one line each."""
    for key, value in facts.items():
        name = key.replace("_", " ")
        if isinstance(value, dict):
            print(f"{indent}{name}:")
            _print(value, indent + "  ")
        else:
            text = ", ".join(value) or "none" if isinstance(value, list) else value
            print(f"{indent}{name}: {'none' if text is None else text}")


def _show(facts: dict[str, Any], function: str, mode: str) -> dict[str, Any] | None:
    if mode == "dicts":
        return facts
    if mode != "stdout":
        raise ValueError(f"{function}: `mode` must be 'stdout' or 'dicts', got {mode!r}")
    _print(facts)
    return None


@overload
def show_config(mode: Literal["stdout"] = "stdout") -> None: ...
@overload
def show_config(mode: Literal["dicts"]) -> dict[str, Any]: ...
def show_config(mode: str = "stdout") -> dict[str, Any] | None:
    """Show how this package was built: version, compiler, flags, instruction sets.

    Parameters
    ----------
    mode : {"stdout", "dicts"}, default "stdout"
        Print the facts, or return them as nested dictionaries.

    Returns
    -------
    dict or None
        The facts, with ``mode="dicts"``.

    Raises
    ------
    ValueError
        For another mode.

    Examples
    --------
    >>> import unitstride
    >>> sorted(unitstride.show_config("dicts"))
    ['build', 'extension', 'isa_compiled', 'unitstride']
    """
    return _show(_config(), "show_config", mode)


@overload
def show_runtime(mode: Literal["stdout"] = "stdout") -> None: ...
@overload
def show_runtime(mode: Literal["dicts"]) -> dict[str, Any]: ...
def show_runtime(mode: str = "stdout") -> dict[str, Any] | None:
    """Show what runs in this process, and advice where something costs speed or accuracy.

    The facts are the backend and why it was chosen; the instruction sets compiled, detected and in
    use; the number of threads and where it came from; the OpenMP runtimes loaded (Linux); and
    whether subnormal numbers are flushed to zero.

    Parameters
    ----------
    mode : {"stdout", "dicts"}, default "stdout"
        Print the facts, or return them as nested dictionaries.

    Returns
    -------
    dict or None
        The facts, with ``mode="dicts"``.

    Raises
    ------
    ValueError
        For another mode.

    Examples
    --------
    >>> import unitstride
    >>> unitstride.show_runtime("dicts")["backend"]["name"] in ("native", "numpy")
    True
    """
    return _show(_runtime(), "show_runtime", mode)


def release_memory() -> int:
    """Give the memory that is kept for coming results back to the operating system.

    Fresh memory costs page faults, which can take longer than the computation. Blocks of 1 MiB
    and more that the library allocated itself for a fresh result (no ``out=``) are therefore kept
    when the result is deleted, and serve the next one. At most 256 MiB are kept, or
    ``UNITSTRIDE_RECYCLE_BYTES`` bytes (0 turns this off), and the system may take them back when
    memory is short. Live arrays are not touched.

    Returns
    -------
    int
        The number of bytes given back; always 0 on the NumPy backend.

    Examples
    --------
    >>> import unitstride
    >>> unitstride.release_memory() >= 0
    True
    """
    return 0 if core is None else int(core.release_memory())
