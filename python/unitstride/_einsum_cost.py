"""What a pairwise contraction costs, in seconds: the larger of arithmetic and memory traffic.

The constants describe a two-core machine with 512-bit vectors. Only their ratios matter: they
decide between orders of contraction, which must not depend on the machine or on the number of
threads, or the bits of a result would.
"""

from typing import Any, NamedTuple

import numpy as np

DType = np.dtype[Any]

_CALL = 2e-6  # of one kernel
_CACHE_BYTES = 1 << 21
_CACHE_BANDWIDTH = 80e9
_MEMORY_BANDWIDTH = 15e9
# Multiply-adds per second of real numbers of four bytes; those of eight bytes take twice as long,
# complex ones four times as long as their parts.
_MULTIPLY_ADDS = 180e9


class Machine(NamedTuple):
    """What the cost of a step depends on beside its sizes."""

    itemsize: int
    multiply_adds: float  # per second


def machine_of(dtype: DType) -> Machine:
    """Return the rates at which elements of a dtype are multiplied."""
    parts = 2 if dtype.kind == "c" else 1
    rate = _MULTIPLY_ADDS * 4 / max(dtype.itemsize // parts, 4) / parts**2
    return Machine(dtype.itemsize, rate)


def step_seconds(machine: Machine, work: float, elements: float) -> float:
    """Return the time of `work` multiply-adds that read and write `elements` elements."""
    moved = elements * machine.itemsize
    traffic = moved / _CACHE_BANDWIDTH
    if moved > _CACHE_BYTES:
        traffic += (moved - _CACHE_BYTES) / _MEMORY_BANDWIDTH
    return _CALL + max(work / machine.multiply_adds, traffic)
