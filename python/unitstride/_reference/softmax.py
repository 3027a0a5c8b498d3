"""The softmax family in plain NumPy, in float64, rounded once at the end.

With m = max(x) and d_i = (x_i - m) / temperature, and S = sum of exp(d_j) without one maximum:

    softmax(x)_i     = exp(d_i) / (1 + S)
    log_softmax(x)_i = d_i - log1p(S)
    logsumexp(x)     = m / temperature + log1p(S)

Leaving one maximum out of S keeps the logarithm accurate where one element dominates the row.
float64 input also keeps the rounding error of d_i and folds it into exp(d_i), because exp
multiplies a relative error in its argument by |d_i|.
"""

from typing import NamedTuple

import numpy as np

from unitstride._float_status import DIVIDE, INVALID, OVERFLOW
from unitstride._reference._rows import (
    Array,
    Mask,
    Rows,
    column,
    float_status,
    from_rows,
    rejected_rows,
    to_rows,
)

_quiet = np.errstate(all="ignore")


class _Shifted(NamedTuple):
    """Rows of x seen from their maximum; (rows, elements) or (rows, 1)."""

    rows: Rows  # x, -inf where rejected
    rejected: Mask | None  # None without a mask
    maximum: Rows  # (rows, 1); -inf for a row with nothing in it
    distance: Rows  # d
    error: Rows | float  # what rounding took from d
    exponential: Rows  # exp(d)
    others: Rows  # (rows, 1): S


def _two_sum_error(first: Rows, second: Rows, total: Rows) -> Rows:
    """Return the exact rounding error of total = first + second (Knuth)."""
    virtual = total - first
    error: Rows = (first - (total - virtual)) + (second - virtual)
    return error


def _division_error(dividend: Rows, divisor: float, quotient: Rows) -> Rows:
    """Return (dividend - quotient * divisor) / divisor, the product being exact (Dekker)."""
    splitter = 134217729.0  # 2^27 + 1 halves a 53-bit significand
    high_quotient = splitter * quotient - (splitter * quotient - quotient)
    high_divisor = splitter * divisor - (splitter * divisor - divisor)
    low_quotient, low_divisor = quotient - high_quotient, divisor - high_divisor
    product = quotient * divisor
    product_error = (
        (high_quotient * high_divisor - product)
        + (high_quotient * low_divisor + low_quotient * high_divisor)
    ) + low_quotient * low_divisor
    error: Rows = ((dividend - product) - product_error) / divisor
    return error


def _shift(rows: Rows, temperature: float, compensate: bool) -> tuple[Rows, Rows, Rows | float]:
    """Return the maximum of each row, d and the rounding error of d."""
    maximum: Rows = rows.max(axis=1, keepdims=True, initial=-np.inf)
    difference = rows - maximum
    distance = difference if temperature == 1.0 else difference / temperature
    if not compensate:
        return maximum, distance, 0.0
    error = _two_sum_error(rows, -maximum, difference)
    if temperature != 1.0:
        error = error / temperature + _division_error(difference, temperature, distance)
    error[~np.isfinite(error)] = 0.0
    return maximum, distance, error


def _exponentials(
    x: Array, axes: tuple[int, ...], where: Array | None, temperature: float
) -> _Shifted:
    """Return what all three functions are made of; rejected elements count as -inf."""
    rows = to_rows(x, axes)
    rejected = rejected_rows(where, axes)
    if rejected is not None:
        rows[rejected] = -np.inf
    compensate = x.dtype == np.float64
    maximum, distance, error = _shift(rows, temperature, compensate)
    exponential = np.exp(distance)
    if compensate:
        exponential += exponential * error
    # One maximum, whose exponential is exactly 1, is left out of the sum.
    leading = rows.argmax(axis=1)[:, None] if rows.shape[1] else np.empty(rows.shape, np.intp)
    np.put_along_axis(exponential, leading, 0.0, axis=1)
    others: Rows = exponential.sum(axis=1, keepdims=True)
    np.put_along_axis(exponential, leading, 1.0, axis=1)
    return _Shifted(rows, rejected, maximum, distance, error, exponential, others)


def _infinite_status(part: _Shifted) -> int:
    """Status of inf - inf: a selected +inf, or all selected elements -inf."""
    infinite = np.isinf(part.maximum)
    if part.rejected is not None:
        infinite &= ~part.rejected.all(axis=1, keepdims=True)
    elif part.rows.shape[1] == 0:
        return 0
    return INVALID if infinite.any() else 0


def _logsumexp_value(part: _Shifted, temperature: float) -> Rows:
    """Return logsumexp as (rows, 1); an infinite or NaN maximum is itself the answer."""
    value = part.maximum / temperature + np.log1p(part.others)
    return np.where(np.isfinite(part.maximum), value, part.maximum)


@_quiet
def softmax(
    x: Array,
    out: Array,
    axes: tuple[int, ...],
    where: Array | None,
    temperature: float,
    lse: Array | None,
) -> int:
    """Write softmax(x / temperature), and its logsumexp into `lse` unless None."""
    part = _exponentials(x, axes, where, temperature)
    result = part.exponential / np.where(np.isfinite(part.maximum), 1.0 + part.others, np.nan)
    if part.rejected is not None:
        result[part.rejected] = 0.0
    from_rows(result, out, axes)
    status = _infinite_status(part)
    if lse is not None:
        stored = from_rows(_logsumexp_value(part, temperature), lse, ())
        status |= float_status(stored, part.maximum)
    return status


@_quiet
def log_softmax(
    x: Array, out: Array, axes: tuple[int, ...], where: Array | None, temperature: float
) -> int:
    """Write log_softmax(x / temperature)."""
    part = _exponentials(x, axes, where, temperature)
    logarithm = np.where(np.isfinite(part.maximum), np.log1p(part.others), np.nan)
    result = part.distance - (logarithm - part.error)
    if part.rejected is not None:
        result[part.rejected] = -np.inf
    infinite = np.isinf(from_rows(result, out, axes))
    overflow = infinite.any() and (infinite & np.isfinite(part.rows)).any()
    return _infinite_status(part) | (OVERFLOW if overflow else 0)


@_quiet
def logsumexp(
    x: Array,
    out: Array,
    axes: tuple[int, ...],
    where: Array | None,
    temperature: float,
    b: Array | None,
    sign: Array | None,
) -> int:
    """Write log(sum(b * exp(x / temperature))), or of its absolute value with `sign`."""
    if b is not None:
        return _weighted_logsumexp(x, out, axes, where, temperature, b, sign)
    part = _exponentials(x, axes, where, temperature)
    stored = from_rows(_logsumexp_value(part, temperature), out, ())
    if sign is not None:
        maximum = part.maximum
        from_rows(np.where(np.isnan(maximum), maximum, maximum > -np.inf), sign, ())
    return float_status(stored, part.maximum)


def _weighted_terms(
    rows: Rows, weights: Rows, temperature: float, compensate: bool
) -> tuple[Rows, Rows]:
    """Return max(x) as (rows, 1) and b * exp((x - max(x)) / temperature)."""
    maximum, distance, error = _shift(rows, temperature, compensate)
    exponential = np.exp(distance) * (1.0 + error)
    # Seen from an infinite maximum only the kind of each element counts: inf, finite or -inf.
    kinds = np.where(np.isfinite(rows), 1.0, np.exp(rows))
    exponential = np.where(np.isfinite(maximum), exponential, kinds)
    # An infinite weight does not vanish because exp underflows.
    lasting = np.isinf(weights) & (rows > -np.inf)
    return maximum, np.where(lasting, weights, weights * exponential)


def _weighted_logsumexp(
    x: Array,
    out: Array,
    axes: tuple[int, ...],
    where: Array | None,
    temperature: float,
    b: Array,
    sign: Array | None,
) -> int:
    """Write the weighted form; an element of weight 0 counts as not selected."""
    rows, weights = to_rows(x, axes), to_rows(b, axes)
    rejected = weights == 0.0
    if where is not None:
        rejected |= rejected_rows(where, axes)
    rows[rejected], weights[rejected] = -np.inf, 0.0
    maximum, terms = _weighted_terms(rows, weights, temperature, x.dtype == np.float64)
    # The largest term is added last, and the rounding error of that addition is kept.
    leading = np.abs(terms).argmax(axis=1)[:, None] if terms.shape[1] else terms.astype(np.intp)
    largest = np.take_along_axis(terms, leading, axis=1).sum(axis=1, keepdims=True)
    np.put_along_axis(terms, leading, 0.0, axis=1)
    others = terms.sum(axis=1, keepdims=True)
    total = largest + others
    lost = _two_sum_error(largest, others, total) / total
    value = np.log(np.abs(total)) + np.where(np.isfinite(lost), lost, 0.0) + maximum / temperature
    if sign is not None:
        from_rows(np.sign(total), sign, ())
    else:
        value = np.where(total < 0.0, np.nan, value)
    stored = from_rows(value, out, ())
    cancelled = (total == 0.0) & (maximum > -np.inf)
    status = float_status(np.where(cancelled, 0.0, stored), maximum, weights)
    return status | (DIVIDE if cancelled.any() else 0)


@_quiet
def softmax_vjp(
    y: Array,
    dy: Array,
    out: Array,
    axes: tuple[int, ...],
    where: Array | None,
    temperature: float,
) -> int:
    """Write y * (dy - sum(dy * y)) / temperature; 0 where not selected."""
    values, cotangent = to_rows(y, axes), to_rows(dy, axes)
    rejected = rejected_rows(where, axes)
    if rejected is not None:
        values[rejected] = cotangent[rejected] = 0.0
    inner = (cotangent * values).sum(axis=1, keepdims=True)
    result = values * (cotangent - inner) / temperature
    if rejected is not None:
        result[rejected] = 0.0
    return float_status(from_rows(result, out, axes), values, cotangent)


@_quiet
def log_softmax_vjp(
    y: Array,
    dy: Array,
    out: Array,
    axes: tuple[int, ...],
    where: Array | None,
    temperature: float,
) -> int:
    """Write (dy - exp(y) * sum(dy)) / temperature; 0 where not selected."""
    values, cotangent = to_rows(y, axes), to_rows(dy, axes)
    rejected = rejected_rows(where, axes)
    if rejected is not None:
        values[rejected] = cotangent[rejected] = 0.0
    total = cotangent.sum(axis=1, keepdims=True)
    result = (cotangent - np.exp(values) * total) / temperature
    if rejected is not None:
        result[rejected] = 0.0
    # y = -inf is an ordinary value here: its exponential is 0.
    finite_values = np.where(values == -np.inf, 0.0, values)
    return float_status(from_rows(result, out, axes), finite_values, cotangent)


@_quiet
def logsumexp_vjp(
    x: Array,
    lse: Array,
    dy: Array,
    out: Array,
    axes: tuple[int, ...],
    where: Array | None,
    temperature: float,
    b: Array | None,
    db: Array | None,
) -> int:
    """Write dy * b * exp(x / temperature - lse) / temperature, and into `db` its part for b."""
    rows, level, cotangent = to_rows(x, axes), column(lse), column(dy)
    weights = np.ones_like(rows) if b is None else to_rows(b, axes)
    rejected = rejected_rows(where, axes)
    if rejected is not None:
        rows[rejected] = weights[rejected] = 0.0
    # A line that sums to nothing (level -inf) has no element to weigh: its gradient is 0.
    share = cotangent * np.where(level == -np.inf, 0.0, np.exp(rows / temperature - level))
    result = np.where(weights == 0.0, 0.0, weights * share / temperature)
    status = float_status(from_rows(result, out, axes), rows, level, cotangent, weights)
    if db is not None:
        if rejected is not None:
            share[rejected] = 0.0
        status |= float_status(from_rows(share, db, axes), rows, level, cotangent)
    return status
