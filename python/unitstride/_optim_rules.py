"""The numbers of a step: what each optimiser's hyper-parameters make of the engine's formulas.

The engine knows seven rules (`cpp/kernels/optim_rules.hpp`, `_reference/optim.py`); other
optimisers are constants of these. All numbers are float64 here; the engine rounds each once.
"""

import math
from functools import lru_cache
from typing import Any

ADAM, SGD, LION, ADAMAX, ADAGRAD, RMSPROP, AVERAGE = range(7)
RULE_CONSTANTS = 12
# How many states, from the first on, each rule cannot do without.
NEEDED_STATES = (2, 0, 1, 2, 1, 1, 0)

COMPATS = ("torch", "optax", "tensorflow", "onnx")


def padded(*numbers: float) -> tuple[float, ...]:
    """Fill the constants of a rule up."""
    return (*numbers, *(0.0,) * (RULE_CONSTANTS - len(numbers)))


def check_number(
    function: str,
    name: str,
    value: Any,
    low: float = 0.0,
    high: float = math.inf,
    open_low: bool = False,
) -> float:
    """Return a hyper-parameter as a float of the range [low, high), or raise."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise TypeError(f"{function}: `{name}` must be a number, got {value!r}") from None
    if low < number < high or (number == low and not open_low):
        return number
    bound = "above" if open_low else "at least"
    limit = "finite" if high == math.inf else f"below {high:g}"
    raise ValueError(f"{function}: `{name}` must be {bound} {low:g} and {limit}, got {value}")


def check_betas(function: str, betas: Any) -> tuple[float, float]:
    """Return two decay rates, each in [0, 1)."""
    try:
        first, second = betas
    except (TypeError, ValueError):
        raise TypeError(f"{function}: `betas` must be two numbers, got {betas!r}") from None
    return (
        check_number(function, "betas[0]", first, 0.0, 1.0),
        check_number(function, "betas[1]", second, 0.0, 1.0),
    )


def check_step(function: str, step: Any, lowest: int = 1) -> int:
    """Return the number of the step, from 1 on."""
    try:
        number = step.__index__()
    except (AttributeError, TypeError):
        raise TypeError(f"{function}: `step` must be an integer, got {step!r}") from None
    if number < lowest:
        raise ValueError(f"{function}: `step` must be at least {lowest}, got {step}")
    if number >= 1 << 63:
        raise ValueError(f"{function}: `step` must be below 2**63, got {step}")
    return int(number)


def check_choice(function: str, name: str, value: Any, choices: tuple[str, ...]) -> str:
    """Return a word out of some."""
    if not isinstance(value, str) or value not in choices:
        listed = ", ".join(choices[:-1]) + f" or {choices[-1]}"
        raise ValueError(f"{function}: `{name}` must be {listed}, got {value!r}")
    return str(value)


def adam(
    step: int,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    nesterov: bool = False,
    bias_correction: bool = True,
    compat: str = "torch",
) -> tuple[float, ...]:
    """Return the constants of Adam; `compat` says where eps and the corrections stand."""
    b1, b2 = betas
    corrects = bias_correction and step > 0
    c1 = 1.0 - b1**step if corrects else 1.0
    c2 = 1.0 - b2**step if corrects else 1.0
    before, after, rate = 1.0, 1.0, lr / c1
    if compat == "torch":
        after = 1.0 / math.sqrt(c2)
    elif compat == "optax":
        before = 1.0 / c2
    else:
        rate = lr * math.sqrt(c2) / c1
    moment, ahead = 1.0, 0.0
    if nesterov:
        next_c1 = 1.0 - b1 ** (step + 1) if corrects else 1.0
        moment, ahead = b1 * c1 / next_c1, 1.0 - b1
    return padded(b1, 1.0 - b1, b2, 1.0 - b2, before, 0.0, after, eps, rate, moment, ahead)


def nadam(
    lr: float,
    betas: tuple[float, float],
    eps: float,
    step: int,
    momentum_now: float,
    momentum_next: float,
    product: float,
) -> tuple[float, ...]:
    """Return the constants of NAdam, whose momentum changes: `product` is that of all so far."""
    b1, b2 = betas
    after = 1.0 / math.sqrt(1.0 - b2**step)
    moment = momentum_next / (1.0 - product * momentum_next)
    ahead = (1.0 - momentum_now) / (1.0 - product)
    return padded(b1, 1.0 - b1, b2, 1.0 - b2, 1.0, 0.0, after, eps, lr, moment, ahead)


@lru_cache(maxsize=64)
def nadam_momenta(b1: float, decay: float, step: int) -> tuple[float, float, float]:
    """Return the momenta of this step and the next, and the product of all so far."""
    now = b1 * (1.0 - 0.5 * 0.96 ** (step * decay))
    following = b1 * (1.0 - 0.5 * 0.96 ** ((step + 1) * decay))
    product, position = 1.0, 1
    # Below half a unit of roundoff it no longer changes 1 - product, its only use.
    while position <= step and product > 2.0**-60:
        warming = 0.96 ** (position * decay)
        if warming < 2.0**-60:  # from here on all factors are b1
            product *= b1 ** (step - position + 1)
            break
        product *= b1 * (1.0 - 0.5 * warming)
        position += 1
    return now, following, product


def radam(lr: float, betas: tuple[float, float], eps: float, step: int) -> tuple[float, ...]:
    """Return the constants of RAdam: no second moment while its variance has no estimate."""
    b1, b2 = betas
    c1, c2 = 1.0 - b1**step, 1.0 - b2**step
    most = 2.0 / (1.0 - b2) - 1.0
    length = most - 2.0 * step * b2**step / c2
    if length <= 5.0:
        return padded(b1, 1.0 - b1, b2, 1.0 - b2, 0.0, 0.0, 0.0, 1.0, lr / c1, 1.0, 0.0)
    share = (length - 4) * (length - 2) * most / ((most - 4) * (most - 2) * length)
    rate = lr * math.sqrt(share) * math.sqrt(c2) / c1
    return padded(b1, 1.0 - b1, b2, 1.0 - b2, 1.0, 0.0, 1.0, eps, rate, 1.0, 0.0)


def sgd(
    lr: float, momentum: float, dampening: float, nesterov: bool, step: int
) -> tuple[float, ...]:
    """Return the constants of SGD; the first step takes the gradient whole."""
    take = 1.0 if step == 1 else 1.0 - dampening
    return padded(momentum, take, lr, momentum if nesterov else 0.0)


def lion(lr: float, betas: tuple[float, float]) -> tuple[float, ...]:
    """Return the constants of Lion."""
    return padded(betas[0], 1.0 - betas[0], betas[1], 1.0 - betas[1], lr)


def adamax(lr: float, betas: tuple[float, float], eps: float, step: int) -> tuple[float, ...]:
    """Return the constants of Adamax."""
    b1, b2 = betas
    return padded(b1, 1.0 - b1, b2, eps, lr / (1.0 - b1**step))


def adagrad(lr: float, lr_decay: float, eps: float, step: int) -> tuple[float, ...]:
    """Return the constants of Adagrad."""
    return padded(lr / (1.0 + (step - 1) * lr_decay), eps)


def rmsprop(lr: float, alpha: float, eps: float, momentum: float) -> tuple[float, ...]:
    """Return the constants of RMSprop."""
    return padded(alpha, 1.0 - alpha, eps, momentum, lr)


def common(
    function: str,
    lr: float,
    weight_decay: float,
    decoupled: bool,
    maximize: bool = False,
    grad_scale: float | None = None,
    clip_factor: float | None = None,
    max_norm: float | None = None,
    clips_as_optax: bool = False,
    ema_decay: float = 0.0,
    rule: tuple[float, ...] = (),
) -> tuple[tuple[float, ...], float, int, float]:
    """Return what all rules share: all constants, the scale of the norm, the clipping."""
    scale = 1.0
    if grad_scale is not None:
        scale = 1.0 / check_number(function, "grad_scale", grad_scale, open_low=True)
    factor = -scale if maximize else scale
    if clip_factor is not None:
        factor *= check_number(function, "clip_factor", clip_factor)
    clipping, limit = 0, 0.0
    if max_norm is not None:
        clipping, limit = 1 + clips_as_optax, check_number(function, "max_norm", max_norm)
    keep = check_number(function, "ema_decay", ema_decay, 0.0, 1.0)
    coupled, decay = (0.0, lr * weight_decay) if decoupled else (weight_decay, 0.0)
    return (factor, coupled, decay, keep, 1.0 - keep, *rule), scale, clipping, limit
