"""Learning rates that go up and down, and schedules one after the other."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from functools import partial

from unitstride import _optim_rules
from unitstride._optim_schedules import Schedule, check_count

# The formulas, with the step last.


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * share))


def _cosine(
    peak: float,
    steps: int,
    warmup: int,
    start: float,
    end: float,
    restarts: bool,
    growth: float,
    step: int,
) -> float:
    if step < warmup:
        return start + (peak - start) * step / warmup
    place, length = float(step - warmup), float(steps - warmup)
    if not restarts:
        return _half_cosine(peak, end, min(place / length, 1.0))
    if growth == 1.0:
        return _half_cosine(peak, end, place % length / length)
    # Cosines so far: the sum of the first k lengths is length (growth^k - 1) / (growth - 1).
    cycles = math.floor(math.log1p(place * (growth - 1.0) / length) / math.log(growth) + 1e-12)
    before = length * (growth**cycles - 1.0) / (growth - 1.0)
    share = (place - before) / (length * growth**cycles)
    return _half_cosine(peak, end, min(max(share, 0.0), 1.0))


def _cyclical(low: float, high: float, steps_up: int, steps_down: int, step: int) -> float:
    down = steps_down or steps_up
    place = step % (steps_up + down)
    share = place / steps_up if place < steps_up else 1.0 - (place - steps_up) / down
    return low + (high - low) * share


def _one_cycle(
    peak: float, steps: int, rise: float, start_divisor: float, end_divisor: float, step: int
) -> float:
    first = peak / start_divisor
    top = rise * steps
    if step < top:
        return _half_cosine(first, peak, step / top)
    return _half_cosine(peak, first / end_divisor, min((step - top) / (steps - top), 1.0))


def _joined(schedules: tuple[Schedule, ...], boundaries: tuple[int, ...], step: int) -> float:
    chosen = bisect_right(boundaries, step)
    return schedules[chosen](step - (boundaries[chosen - 1] if chosen else 0))


# What makes them.


def cosine_schedule(
    peak: float,
    steps: int,
    warmup: int = 0,
    start: float = 0.0,
    end: float = 0.0,
    restarts: bool = False,
    growth: float = 1.0,
) -> Schedule:
    """Return half a cosine after a linear warm-up, with or without restarts.

    Parameters
    ----------
    peak : float
        The highest rate, at the end of the warm-up.
    steps : int
        All steps, those of the warm-up too; of the first cosine with restarts.
    warmup : int, default 0
        Steps of the warm-up from `start`.
    start : float, default 0.0
        The rate at step 0 of the warm-up.
    end : float, default 0.0
        The lowest rate, at the end of the cosine.
    restarts : bool, default False
        Begin the cosine again at its end.
    growth : float, default 1.0
        How much longer each cosine is than the one before, at least 1.

    Returns
    -------
    callable
        From the number of steps so far to the rate.

    Raises
    ------
    TypeError, ValueError
        For numbers out of range.

    Notes
    -----
    rate = end + (peak - end) (1 + cos(pi t / T)) / 2; I. Loshchilov, F. Hutter,
    arXiv:1608.03983. Exact to a few roundings; O(1).

    Examples
    --------
    >>> from unitstride.optim import cosine_schedule
    >>> round(cosine_schedule(1.0, 10)(5), 12)
    0.5
    """
    name = "cosine_schedule"
    _optim_rules.check_number(name, "peak", peak)
    check_count(name, "steps", steps, 1)
    check_count(name, "warmup", warmup, 0)
    _optim_rules.check_number(name, "start", start)
    _optim_rules.check_number(name, "end", end)
    _optim_rules.check_number(name, "growth", growth, 1.0)
    check_count(name, "steps", steps, warmup + 1)
    return partial(_cosine, peak, steps, warmup, start, end, restarts, growth)


def cyclical_schedule(low: float, high: float, steps_up: int, steps_down: int = 0) -> Schedule:
    """Return a rate that goes up and down in straight lines.

    Parameters
    ----------
    low : float
        The lowest rate.
    high : float
        The highest rate.
    steps_up : int
        Steps from low to high, at least 1.
    steps_down : int, default 0
        Steps back; as many by default.

    Returns
    -------
    callable
        From the number of steps so far to the rate.

    Raises
    ------
    TypeError, ValueError
        For numbers out of range.

    Notes
    -----
    L. N. Smith, WACV 2017, arXiv:1506.01186. Exact to a few roundings; O(1).

    Examples
    --------
    >>> from unitstride.optim import cyclical_schedule
    >>> round(cyclical_schedule(0.0, 1.0, 4)(6), 12)
    0.5
    """
    name = "cyclical_schedule"
    _optim_rules.check_number(name, "low", low)
    _optim_rules.check_number(name, "high", high)
    check_count(name, "steps_up", steps_up, 1)
    check_count(name, "steps_down", steps_down, 0)
    return partial(_cyclical, low, high, steps_up, steps_down)


def one_cycle_schedule(
    peak: float,
    steps: int,
    rise: float = 0.3,
    start_divisor: float = 25.0,
    end_divisor: float = 1e4,
) -> Schedule:
    """Return one rise and one long fall, both half cosines.

    Parameters
    ----------
    peak : float
        The highest rate.
    steps : int
        Length, at least 2; constant after it.
    rise : float, default 0.3
        Share of the rise, between 0 and 1.
    start_divisor : float, default 25.0
        The first rate is ``peak / start_divisor``.
    end_divisor : float, default 1e4
        The last one is the first one divided by this.

    Returns
    -------
    callable
        From the number of steps so far to the rate.

    Raises
    ------
    TypeError, ValueError
        For numbers out of range.

    Notes
    -----
    L. N. Smith, N. Topin, arXiv:1708.07120. Exact to a few roundings; O(1).

    Examples
    --------
    >>> from unitstride.optim import one_cycle_schedule
    >>> round(one_cycle_schedule(1.0, 10)(3), 12)
    1.0
    """
    name = "one_cycle_schedule"
    _optim_rules.check_number(name, "peak", peak)
    check_count(name, "steps", steps, 2)
    _optim_rules.check_number(name, "rise", rise, 0.0, 1.0, open_low=True)
    _optim_rules.check_number(name, "start_divisor", start_divisor, open_low=True)
    _optim_rules.check_number(name, "end_divisor", end_divisor, open_low=True)
    return partial(_one_cycle, peak, steps, rise, start_divisor, end_divisor)


def join_schedules(schedules: Sequence[Schedule], boundaries: Sequence[int]) -> Schedule:
    """Return one schedule after the other.

    Parameters
    ----------
    schedules : sequence of callables
        Each counts its steps from its own beginning.
    boundaries : sequence of int
        Where each but the first begins, in rising order.

    Returns
    -------
    callable
        From the number of steps so far to the rate.

    Raises
    ------
    ValueError
        For a wrong number of boundaries, or some that do not rise.

    Notes
    -----
    At step t the schedule k with boundaries[k - 1] <= t < boundaries[k]; O(log n), exact.

    Examples
    --------
    >>> from unitstride.optim import constant_schedule, join_schedules, linear_schedule
    >>> schedule = join_schedules([linear_schedule(0.0, 1.0, 10), constant_schedule(0.5)], [10])
    >>> schedule(5), schedule(10)
    (0.5, 0.5)
    """
    if len(boundaries) != len(schedules) - 1:
        raise ValueError(
            f"join_schedules: `boundaries` must have {len(schedules) - 1} entries, "
            f"got {len(boundaries)}"
        )
    if any(a >= b for a, b in zip([0, *boundaries], boundaries, strict=False)):
        raise ValueError(f"join_schedules: `boundaries` must rise from above 0, got {boundaries}")
    return partial(_joined, tuple(schedules), tuple(boundaries))
