"""Steps of optimisers in plain NumPy: the definition of what the core computes, bit for bit.

Each operation is rounded once, in the dtype of the parameter (float32 for 16-bit ones), in the
order in which it stands here.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unitstride._reference import optim_narrow

Array = NDArray[Any]
State = list[Array | None]
Numbers = Sequence[Any]


class Narrow(NamedTuple):
    """What is kept of the rounding of 16-bit parameters, and keys of random rounding."""

    kahan: Sequence[Array] | None = None
    keys: Sequence[int] | None = None


_PLAIN = Narrow()

# Where the constants of a rule begin, after factor, coupled, decay, ema_keep, ema_take.
_RULE = 5


def _divide(a: Array, b: Array) -> Array:
    """Divide; a divisor of zero counts as one."""
    return np.asarray(a / np.where(b == 0, b.dtype.type(1), b))


def _adam(g: Array, state: State, k: Numbers) -> Array:
    """Return rate * (n0 m + n1 g) / (c sqrt(w + inner) + outer), w = a v or the highest so far."""
    m, v, highest = state
    assert m is not None and v is not None
    state[0] = m = k[0] * m + k[1] * g
    state[1] = v = k[2] * v + k[3] * (g * g)
    w = v * k[4]
    if highest is not None:
        state[2] = w = np.where(highest > w, highest, w)
    divisor = np.sqrt(w + k[5]) * k[6] + k[7]
    direction = m * k[9] + g * k[10] if k[10] != 0 else m
    return np.asarray(k[8] * _divide(direction, divisor))


def _sgd(g: Array, state: State, k: Numbers) -> Array:
    """Return rate * b with b = keep b + take g, or rate * (g + ahead b)."""
    if state[0] is None:
        return np.asarray(k[2] * g)
    state[0] = b = k[0] * state[0] + k[1] * g
    return np.asarray(k[2] * (g + k[3] * b if k[3] != 0 else b))


def _lion(g: Array, state: State, k: Numbers) -> Array:
    """Return rate * sign(b1 m + (1 - b1) g)."""
    m = state[0]
    assert m is not None
    mix = k[0] * m + k[1] * g
    state[0] = k[2] * m + k[3] * g
    signed: Array = np.where(mix > 0, k[4], np.where(mix < 0, -k[4], mix * mix.dtype.type(0)))
    return signed


def _adamax(g: Array, state: State, k: Numbers) -> Array:
    """Return rate * m / u, u = max(b2 u, |g| + eps)."""
    m, u = state[:2]
    assert m is not None and u is not None
    state[0] = m = k[0] * m + k[1] * g
    kept, fresh = k[2] * u, np.where(g < 0, -g, g) + k[3]
    state[1] = u = np.where(kept > fresh, kept, fresh)
    return np.asarray(k[4] * _divide(m, u))


def _adagrad(g: Array, state: State, k: Numbers) -> Array:
    """Return rate * g / (sqrt(s) + eps), s = s + g^2."""
    assert state[0] is not None
    state[0] = s = state[0] + g * g
    return np.asarray(k[0] * _divide(g, np.sqrt(s) + k[1]))


def _rmsprop(g: Array, state: State, k: Numbers) -> Array:
    """Return rate * g / (sqrt(s) + eps), s a moving average of g^2, or of its variance."""
    s, mean, momentum = state
    assert s is not None
    state[0] = s = k[0] * s + k[1] * (g * g)
    if mean is not None:
        state[1] = mean = k[0] * mean + k[1] * g
        s = s - mean * mean
        s = np.where(s < 0, s.dtype.type(0), s)
    scaled = _divide(g, np.sqrt(s) + k[2])
    if momentum is None:
        return np.asarray(k[4] * scaled)
    state[2] = momentum = k[3] * momentum + scaled
    return np.asarray(k[4] * momentum)


# In the order of the core's rule numbers.
_RULES: tuple[Callable[[Array, State, Numbers], Array], ...] = (
    _adam,
    _sgd,
    _lion,
    _adamax,
    _adagrad,
    _rmsprop,
)
_AVERAGE = 6  # param = keep param + take g


def _sum_exactly(terms: Array) -> float:
    """Add float64 numbers with their rounding errors kept: the sum, rounded once."""
    high, low = terms, np.zeros_like(terms)
    while high.size > 1:
        if high.size % 2:
            high, low = np.append(high, 0.0), np.append(low, 0.0)
        half = high.size // 2
        a, b = high[:half], high[half:]
        total = a + b
        part = total - a
        low = low[:half] + low[half:] + ((a - (total - part)) + (b - part))
        high = total
    if high.size == 0:
        return 0.0
    return float(high[0] + low[0]) if np.isfinite(high[0]) else float(high[0])


def _compute_dtype(array: Array) -> Any:
    return np.float64 if array.dtype.itemsize == 8 else np.float32


def _sum_of_squares(grads: Sequence[Array], params: Sequence[Array | None], scale: float) -> float:
    sums = []
    for grad, param in zip(grads, params, strict=True):
        dtype = _compute_dtype(grad if param is None else param)
        values = np.ravel(grad).astype(dtype).astype(np.float64) * scale
        squares = np.square(values)
        sums.append(_sum_exactly(squares) if np.isfinite(squares).all() else float(squares.sum()))
    return _sum_exactly(np.array(sums, dtype=np.float64))


def _norm(grads: Sequence[Array], params: Sequence[Array | None], scale: float) -> float:
    """Return the norm of all gradients times |scale|, whatever their magnitude."""
    squares, back = _sum_of_squares(grads, params, 1.0), 1.0
    if squares > 2.0**1000 or math.isnan(squares):
        squares, back = _sum_of_squares(grads, params, 2.0**-600), 2.0**600
    elif squares < 2.0**-900:
        larger = _sum_of_squares(grads, params, 2.0**600)
        if 0.0 < larger < 2.0**1000:
            squares, back = larger, 2.0**-600
    return math.sqrt(squares) * back * abs(scale)


def optim_norm(grads: Sequence[Array]) -> float:
    """Return the square root of the sum of all squares."""
    with np.errstate(all="ignore"):
        return _norm(grads, [None] * len(grads), 1.0)


def _clipping_factor(clipping: int, max_norm: float, norm: float) -> float:
    if clipping == 0:
        return 1.0
    if clipping == 2:
        return 1.0 if norm < max_norm else max_norm / norm if norm else math.inf
    factor = max_norm / (norm + 1e-6)
    return factor if factor < 1.0 or math.isnan(factor) else 1.0


def _step_one(
    rule: int,
    arrays: Sequence[Any],
    constants: Sequence[float],
    kahan: Array | None,
    key: int | None,
) -> None:
    """Take the step of one parameter: param, grad, three states, ema, copy."""
    param, grad, *states, ema, copy = arrays
    assert param is not None and grad is not None
    dtype = _compute_dtype(param)
    numbers = [dtype(value) for value in constants]
    factor, coupled, decay, ema_keep, ema_take = numbers[:_RULE]
    p = param.astype(dtype)
    if kahan is not None:
        p = p + kahan.astype(dtype)
    g = grad.astype(dtype) * factor
    if constants[1] != 0.0:
        g = g + coupled * p
    state: State = [None if array is None else _widened(array, dtype) for array in states]
    if rule == _AVERAGE:
        p = numbers[_RULE] * p + numbers[_RULE + 1] * g
    else:
        change = _RULES[rule](g, state, numbers[_RULE:])
        if constants[2] != 0.0:
            change = change + decay * p
        p = p - change
    for operand, (array, value) in enumerate(zip(states, state, strict=True), 2):
        if array is not None and value is not None:
            _write(array, value, key, operand)
    _write(param, p, key, 0)
    if kahan is not None:
        _write(kahan, optim_narrow.remainder(p, param))
    if ema is not None:
        _write(ema, ema_keep * ema.astype(dtype) + ema_take * p)
    if copy is not None:
        _write(copy, p)


def _widened(array: Any, dtype: Any) -> Array:
    """Return the values of a state, which may be one of 8 bits."""
    wide = array if isinstance(array, np.ndarray) else array.to_array()
    return np.asarray(wide.astype(dtype))


def _write(array: Any, values: Array, key: int | None = None, operand: int = 0) -> None:
    """Write values in the dtype of an array; 16-bit types and 8 bits go through float32."""
    if not isinstance(array, np.ndarray):
        array.assign(values)
        return
    if array.dtype.itemsize == 2:
        values = values.astype(np.float32)
        if key is not None:
            line = np.ascontiguousarray(values).reshape(-1)
            own = optim_narrow.joined_key(key, operand)
            rounded = optim_narrow.round_stochastically(line, array.dtype, 0, own)
            values = rounded.reshape(array.shape)
    array[...] = values.astype(array.dtype)


def optim_step(
    rule: int,
    arrays: Sequence[Sequence[Any] | None],
    constants: Sequence[float],
    scale: float,
    clipping: int,
    max_norm: float,
    skips_nonfinite: bool,
    is_checked: bool,
    narrow: Narrow = _PLAIN,
) -> tuple[float, bool]:
    """Take one step of every parameter: lists of params, grads, three states, ema, copies."""
    params, grads = arrays[0], arrays[1]
    assert params is not None and grads is not None and is_checked
    with np.errstate(all="ignore"):
        norm = _norm(grads, params, scale)
        if skips_nonfinite and not math.isfinite(norm):
            return norm, False
        factor = constants[0] * _clipping_factor(clipping, max_norm, norm)
        for position in range(len(params)):
            chosen = [None if array is None else array[position] for array in arrays]
            kahan = None if narrow.kahan is None else narrow.kahan[position]
            key = None if narrow.keys is None else narrow.keys[position]
            _step_one(rule, chosen, (factor, *constants[1:]), kahan, key)
    return norm, True
