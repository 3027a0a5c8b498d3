"""Steps of SGD and Lion, in the form of `adam_step`."""

import math

from unitstride import _optim_rules
from unitstride._optim_lists import Arrays, take_step


def sgd_step(
    params: Arrays,
    grads: Arrays,
    *,
    lr: float = 1e-3,
    momentum: float = 0.0,
    dampening: float = 0.0,
    nesterov: bool = False,
    momentum_buffer: Arrays | None = None,
    first_step: bool = False,
    weight_decay: float = 0.0,
    decoupled: bool = False,
    maximize: bool = False,
    grad_scale: float | None = None,
    max_norm: float | None = None,
    clip_factor: float | None = None,
    skip_nonfinite: bool = False,
    ema: Arrays | None = None,
    ema_decay: float = 0.999,
    low_precision_copy: Arrays | None = None,
) -> tuple[float, bool]:
    """Take one step of gradient descent in place, with momentum.

    Parameters
    ----------
    params, grads : ndarray or list of ndarray
        Parameters, updated in place, and their gradients, as for `adam_step`.
    lr : float, default 1e-3
        Learning rate.
    momentum, dampening : float, default 0
        Factors of the momentum; momentum needs `momentum_buffer`.
    nesterov : bool, default False
        Step along g + momentum m instead of m.
    momentum_buffer : ndarray or list of ndarray, optional
        The momentum m = momentum m + (1 - dampening) g, updated in place.
    first_step : bool, default False
        Start the momentum with the gradient itself, without dampening, as PyTorch does.
    weight_decay, decoupled, maximize, grad_scale, max_norm, clip_factor, skip_nonfinite
        As for `adam_step`.
    ema, ema_decay, low_precision_copy
        As for `adam_step`.

    Returns
    -------
    norm : float
        The 2-norm of all scaled gradients together, before clipping.
    stepped : bool
        False where `skip_nonfinite` left everything as it was.

    Raises
    ------
    TypeError, ValueError
        As for `adam_step`.

    Notes
    -----
    0 ULP from the NumPy expression, the same bits on every instruction set, number of threads and
    memory layout; one pass over memory.

    References
    ----------
    .. [1] I. Sutskever et al., "On the importance of initialization and momentum in deep
       learning", ICML 2013.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import sgd_step
    >>> x = np.array([1.0, 2.0])
    >>> sgd_step(x, np.array([3.0, 4.0]), lr=0.1)
    (5.0, True)
    >>> x
    array([0.7, 1.6])
    """
    name = "sgd_step"
    rate = _optim_rules.check_number(name, "lr", lr)
    momentum = _optim_rules.check_number(name, "momentum", momentum, 0.0, 1.0)
    if (momentum_buffer is None) != (momentum == 0.0):
        raise ValueError(
            f"{name}: `momentum_buffer` must be given with a momentum and only then, "
            f"got momentum {momentum}"
        )
    dampening = _optim_rules.check_number(
        name, "dampening", dampening, 0.0, math.nextafter(1.0, 2.0)
    )
    if nesterov and (momentum == 0.0 or dampening != 0.0):
        raise ValueError(f"{name}: `nesterov` needs a momentum and no dampening")
    numbers = _optim_rules.sgd(rate, momentum, dampening, nesterov, 1 if first_step else 2)
    return take_step(
        name,
        _optim_rules.SGD,
        ("momentum_buffer",),
        (params, grads, momentum_buffer, None, None, ema, low_precision_copy),
        numbers,
        rate,
        weight_decay,
        decoupled,
        maximize,
        grad_scale,
        clip_factor,
        max_norm,
        ema_decay,
        skip_nonfinite,
    )


def lion_step(
    params: Arrays,
    grads: Arrays,
    exp_avg: Arrays,
    *,
    lr: float = 1e-4,
    betas: tuple[float, float] = (0.9, 0.99),
    weight_decay: float = 0.0,
    decoupled: bool = True,
    maximize: bool = False,
    grad_scale: float | None = None,
    max_norm: float | None = None,
    clip_factor: float | None = None,
    skip_nonfinite: bool = False,
    ema: Arrays | None = None,
    ema_decay: float = 0.999,
    low_precision_copy: Arrays | None = None,
) -> tuple[float, bool]:
    """Take one Lion step in place: along sign(b1 m + (1 - b1) g), then m = b2 m + (1 - b2) g [1]_.

    Parameters
    ----------
    params, grads : ndarray or list of ndarray
        Parameters, updated in place, and their gradients, as for `adam_step`.
    exp_avg : ndarray or list of ndarray
        The momentum m, updated in place.
    lr : float, default 1e-4
        Learning rate.
    betas : (float, float), default (0.9, 0.99)
        The factors b1 and b2.
    weight_decay, decoupled, maximize, grad_scale, max_norm, clip_factor, skip_nonfinite
        As for `adam_step`.
    ema, ema_decay, low_precision_copy
        As for `adam_step`.

    Returns
    -------
    norm : float
        The 2-norm of all scaled gradients together, before clipping.
    stepped : bool
        False where `skip_nonfinite` left everything as it was.

    Raises
    ------
    TypeError, ValueError
        As for `adam_step`.

    Notes
    -----
    0 ULP from the NumPy expression, the same bits on every instruction set, number of threads and
    memory layout; one pass over memory.

    References
    ----------
    .. [1] X. Chen et al., "Symbolic discovery of optimization algorithms", arXiv:2302.06675.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import lion_step
    >>> x = np.array([1.0, 2.0])
    >>> norm, stepped = lion_step(x, np.array([3.0, -4.0]), np.zeros(2), lr=0.5)
    >>> x
    array([0.5, 2.5])
    """
    name = "lion_step"
    rate = _optim_rules.check_number(name, "lr", lr)
    numbers = _optim_rules.lion(rate, _optim_rules.check_betas(name, betas))
    return take_step(
        name,
        _optim_rules.LION,
        ("exp_avg",),
        (params, grads, exp_avg, None, None, ema, low_precision_copy),
        numbers,
        rate,
        weight_decay,
        decoupled,
        maximize,
        grad_scale,
        clip_factor,
        max_norm,
        ema_decay,
        skip_nonfinite,
    )
