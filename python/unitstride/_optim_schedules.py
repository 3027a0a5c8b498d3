"""Learning rates as pure functions of the number of steps taken so far.

A schedule is called with a number from 0 on and returns the rate of the next step. Schedules have
no state: they may be shared, pickled, and asked in any order.
"""

from collections.abc import Callable
from functools import partial

from unitstride import _optim_rules

Schedule = Callable[[int], float]

# The formulas, with the step last.


def _constant(value: float, step: int) -> float:
    return value


def _linear(start: float, end: float, steps: int, step: int) -> float:
    return start + (end - start) * min(step / steps, 1.0)


def _polynomial(start: float, end: float, power: float, steps: int, step: int) -> float:
    return float(end + (start - end) * (1.0 - min(step / steps, 1.0)) ** power)


def _exponential(start: float, factor: float, steps: int, step: int) -> float:
    return float(start * factor ** (step / steps))


def _inverse_time(start: float, factor: float, steps: int, step: int) -> float:
    return start / (1.0 + factor * step / steps)


def _staircase(start: float, factor: float, steps: int, step: int) -> float:
    return float(start * factor ** (step // steps))


# What makes them.


def constant_schedule(value: float) -> Schedule:
    """Return a schedule of one rate.

    Parameters
    ----------
    value : float
        The rate.

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
    rate = value. Exact to a few roundings; O(1).

    Examples
    --------
    >>> from unitstride.optim import constant_schedule
    >>> round(constant_schedule(0.1)(5), 12)
    0.1
    """
    name = "constant_schedule"
    _optim_rules.check_number(name, "value", value)
    return partial(_constant, value)


def linear_schedule(start: float, end: float, steps: int) -> Schedule:
    """Return a straight line from one rate to another, constant after it.

    Parameters
    ----------
    start : float
        The rate at step 0.
    end : float
        The rate from `steps` on.
    steps : int
        Length, at least 1.

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
    rate = start + (end - start) min(t / steps, 1). Exact to a few roundings; O(1).

    Examples
    --------
    >>> from unitstride.optim import linear_schedule
    >>> round(linear_schedule(1.0, 0.0, 4)(1), 12)
    0.75
    """
    name = "linear_schedule"
    _optim_rules.check_number(name, "start", start)
    _optim_rules.check_number(name, "end", end)
    check_count(name, "steps", steps, 1)
    return partial(_linear, start, end, steps)


def polynomial_schedule(start: float, end: float, power: float, steps: int) -> Schedule:
    """Return a polynomial from one rate to another, constant after it.

    Parameters
    ----------
    start : float
        The rate at step 0.
    end : float
        The rate from `steps` on.
    power : float
        Of the polynomial, positive.
    steps : int
        Length, at least 1.

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
    rate = end + (start - end) (1 - min(t / steps, 1))^power. Exact to a few roundings; O(1).

    Examples
    --------
    >>> from unitstride.optim import polynomial_schedule
    >>> round(polynomial_schedule(1.0, 0.0, 2.0, 4)(2), 12)
    0.25
    """
    name = "polynomial_schedule"
    _optim_rules.check_number(name, "start", start)
    _optim_rules.check_number(name, "end", end)
    _optim_rules.check_number(name, "power", power, open_low=True)
    check_count(name, "steps", steps, 1)
    return partial(_polynomial, start, end, power, steps)


def exponential_schedule(start: float, factor: float, steps: int = 1) -> Schedule:
    """Return an exponential decay.

    Parameters
    ----------
    start : float
        The rate at step 0.
    factor : float
        Of each `steps` steps, positive.
    steps : int, default 1
        After how many steps the factor has acted once.

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
    rate = start factor^(t / steps). Exact to a few roundings; O(1).

    Examples
    --------
    >>> from unitstride.optim import exponential_schedule
    >>> round(exponential_schedule(1.0, 0.5)(3), 12)
    0.125
    """
    name = "exponential_schedule"
    _optim_rules.check_number(name, "start", start)
    _optim_rules.check_number(name, "factor", factor, open_low=True)
    check_count(name, "steps", steps, 1)
    return partial(_exponential, start, factor, steps)


def inverse_time_schedule(start: float, factor: float, steps: int = 1) -> Schedule:
    """Return a rate that falls as 1 / t.

    Parameters
    ----------
    start : float
        The rate at step 0.
    factor : float
        How fast it falls.
    steps : int, default 1
        In how many steps.

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
    rate = start / (1 + factor t / steps). Exact to a few roundings; O(1).

    Examples
    --------
    >>> from unitstride.optim import inverse_time_schedule
    >>> round(inverse_time_schedule(1.0, 1.0)(3), 12)
    0.25
    """
    name = "inverse_time_schedule"
    _optim_rules.check_number(name, "start", start)
    _optim_rules.check_number(name, "factor", factor)
    check_count(name, "steps", steps, 1)
    return partial(_inverse_time, start, factor, steps)


def step_schedule(start: float, factor: float, steps: int) -> Schedule:
    """Return a rate that falls by a factor at each of equal distances.

    Parameters
    ----------
    start : float
        The rate at step 0.
    factor : float
        Of each fall.
    steps : int
        Steps between falls, at least 1.

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
    rate = start factor^floor(t / steps). Exact to a few roundings; O(1).

    Examples
    --------
    >>> from unitstride.optim import step_schedule
    >>> round(step_schedule(1.0, 0.5, 10)(25), 12)
    0.25
    """
    name = "step_schedule"
    _optim_rules.check_number(name, "start", start)
    _optim_rules.check_number(name, "factor", factor, open_low=True)
    check_count(name, "steps", steps, 1)
    return partial(_staircase, start, factor, steps)


def check_count(function: str, name: str, value: int, lowest: int) -> None:
    """Raise unless a number of steps is an integer that is large enough."""
    if not isinstance(value, int) or value < lowest:
        raise ValueError(
            f"{function}: `{name}` must be an integer of at least {lowest}, got {value!r}"
        )
