"""How many threads a call uses, and who says so.

From the strongest to the weakest: `threads` (n) in the calling thread, threadpoolctl,
`set_num_threads`, ``UNITSTRIDE_NUM_THREADS``, ``OMP_NUM_THREADS``, and last the CPUs the process
may run on, bounded by the CPU quota of its control group.
"""

import math
import os
import threading
from collections.abc import Iterator
from contextlib import ContextDecorator
from operator import index
from typing import Self

from unitstride._backend import core

_VARIABLE = "UNITSTRIDE_NUM_THREADS"


class _Context(threading.local):
    """The numbers that `threads` has set in this thread, the innermost last."""

    def __init__(self) -> None:
        self.counts: list[int] = []


_context = _Context()


def _check_count(function: str, n: object) -> int:
    """Return a number of threads as an int of at least 1."""
    try:
        count = None if isinstance(n, bool) else index(n)  # type: ignore[arg-type]
    except TypeError:
        count = None
    if count is None:
        raise TypeError(f"{function}: `n` must be an integer, got {n!r}")
    if not 1 <= count < 2**31:
        raise ValueError(f"{function}: `n` must be an integer >= 1, got {count}")
    return count


class threads(ContextDecorator):
    """Context manager: calls of this Python thread use `n` threads; also a decorator.

    Parameters
    ----------
    n : int
        Number of threads, at least 1. Results do not depend on it.

    Raises
    ------
    TypeError
        When `n` is not an integer.
    ValueError
        When `n` is less than 1.

    Notes
    -----
    It holds for the calling Python thread only and is stronger than every other setting. It may
    be nested. The NumPy backend is serial at any number.

    Examples
    --------
    >>> import unitstride
    >>> with unitstride.threads(1):
    ...     unitstride.get_num_threads()
    1
    """

    def __init__(self, n: int) -> None:
        self.n = _check_count("threads", n)

    def __enter__(self) -> Self:
        _context.counts.append(self.n)
        _apply_context()
        return self

    def __exit__(self, *exception: object) -> None:
        _context.counts.pop()
        _apply_context()

    def __repr__(self) -> str:
        return f"threads({self.n})"


def _apply_context() -> None:
    """Tell the core the innermost number of this thread, 0 for none."""
    if core is not None:
        core.set_context_threads(_context.counts[-1] if _context.counts else 0)


def set_num_threads(n: int) -> None:
    """Set the number of threads for all Python threads of the process.

    Parameters
    ----------
    n : int
        Number of threads, at least 1. Results do not depend on it.

    Raises
    ------
    TypeError
        When `n` is not an integer.
    ValueError
        When `n` is less than 1.

    Notes
    -----
    `threads` and threadpoolctl are stronger; the environment variables are weaker. The NumPy
    backend is serial at any number.

    Examples
    --------
    >>> import unitstride
    >>> before = unitstride.get_num_threads()
    >>> unitstride.set_num_threads(1)
    >>> unitstride.get_num_threads()
    1
    >>> unitstride.set_num_threads(before)
    """
    _set_default(_check_count("set_num_threads", n), "set_num_threads")


def get_num_threads() -> int:
    """Return the number of threads that the next call of this Python thread may use.

    Returns
    -------
    int
        At least 1. A small problem uses fewer.

    Examples
    --------
    >>> import unitstride
    >>> unitstride.get_num_threads() >= 1
    True
    """
    if core is not None:
        return int(core.get_num_threads())
    return _context.counts[-1] if _context.counts else _default_count


def thread_source() -> str:
    """Return where the number of threads came from."""
    if _context.counts:
        return "threads(n)"
    if core is not None and core.openmp_limit():
        return "threadpoolctl"
    return _default_source


def _from_environment() -> tuple[int, str] | None:
    """Read the environment variables; a bad value of our own is an error."""
    own = os.environ.get(_VARIABLE, "").strip()
    if own:
        if not _is_count(own):
            raise ValueError(f"{_VARIABLE} must be an integer >= 1, got {own!r}")
        return int(own), _VARIABLE
    # A list gives one number for each level of nesting; we never nest.
    shared = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return (int(shared), "OMP_NUM_THREADS") if _is_count(shared) else None


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and 1 <= int(text) < 2**31


def available_cpus() -> int:
    """Return the number of CPUs this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _read(path: str) -> str:
    """Return the text of a file, nothing when there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _ancestors(folder: str, group: str) -> Iterator[str]:
    """Yield the folders of a control group and of those that contain it."""
    group = os.path.normpath("/" + group.lstrip("/"))
    while True:
        yield folder + group
        if group == "/":
            return
        group = os.path.dirname(group)


def _ratio(quota: str, period: str) -> float:
    """Return quota / period in CPUs, inf for no limit ("max" or -1)."""
    try:
        limit, unit = float(quota), float(period)
    except ValueError:
        return math.inf
    return limit / unit if limit > 0 and unit > 0 else math.inf


def cpu_quota(root: str = "") -> float:
    """Return the CPU quota of the control groups of this process, inf when there is none.

    `root` stands before /proc and /sys.
    """
    quota = math.inf
    for line in _read(f"{root}/proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if controllers == "":  # version 2
            for folder in _ancestors(f"{root}/sys/fs/cgroup", group):
                words = _read(f"{folder}/cpu.max").split()
                quota = min(quota, _ratio(*words) if len(words) == 2 else math.inf)
        elif "cpu" in controllers.split(","):  # version 1
            for mount in {controllers, "cpu"}:
                for folder in _ancestors(f"{root}/sys/fs/cgroup/{mount}", group):
                    limit = _read(f"{folder}/cpu.cfs_quota_us")
                    quota = min(quota, _ratio(limit, _read(f"{folder}/cpu.cfs_period_us")))
    return quota


def _from_machine() -> tuple[int, str]:
    """Return the number of CPUs, or the quota rounded up where it is smaller."""
    cpus, quota = available_cpus(), cpu_quota()
    if quota < cpus:
        return max(1, math.ceil(quota)), "cgroup quota"
    return cpus, "affinity"


def _set_default(count: int, source: str) -> None:
    global _default_count, _default_source
    _default_count, _default_source = count, source
    if core is not None:
        core.set_default_threads(count)


_default_count = 1
_default_source = ""
_set_default(*(_from_environment() or _from_machine()))
