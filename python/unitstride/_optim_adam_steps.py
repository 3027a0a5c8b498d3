"""Steps of NAdam and RAdam, in the form of `adam_step`."""

from unitstride import _optim_rules
from unitstride._optim_lists import Arrays, take_step


def nadam_step(
    params: Arrays,
    grads: Arrays,
    exp_avg: Arrays,
    exp_avg_sq: Arrays,
    step: int,
    *,
    lr: float = 2e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    momentum_decay: float = 4e-3,
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
    """Take one NAdam step in place: Adam with momentum that looks one step ahead [1]_.

    Parameters
    ----------
    params, grads : ndarray or list of ndarray
        Parameters, updated in place, and their gradients, as for `adam_step`.
    exp_avg, exp_avg_sq : ndarray or list of ndarray
        The moments m and v, updated in place.
    step : int
        The number t of this step, from 1.
    lr : float, default 2e-3
        Learning rate.
    betas : (float, float), default (0.9, 0.999)
        The factors b1 and b2.
    eps : float, default 1e-8
        Added to the root.
    momentum_decay : float, default 4e-3
        The momentum of step t is b1 (1 - 0.96^(t momentum_decay) / 2), as in PyTorch.
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
    .. [1] T. Dozat, "Incorporating Nesterov momentum into Adam", ICLR workshop 2016.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import nadam_step
    >>> x, m, v = np.array([1.0, 2.0]), np.zeros(2), np.zeros(2)
    >>> norm, stepped = nadam_step(x, np.array([3.0, -4.0]), m, v, 1, lr=0.1)
    >>> bool(x[0] < 1.0 and x[1] > 2.0)
    True
    """
    name = "nadam_step"
    rate = _optim_rules.check_number(name, "lr", lr)
    number = _optim_rules.check_step(name, step)
    decays = _optim_rules.check_betas(name, betas)
    psi = _optim_rules.check_number(name, "momentum_decay", momentum_decay)
    momenta = _optim_rules.nadam_momenta(decays[0], psi, number)
    numbers = _optim_rules.nadam(
        rate, decays, _optim_rules.check_number(name, "eps", eps), number, *momenta
    )
    return take_step(
        name,
        _optim_rules.ADAM,
        ("exp_avg", "exp_avg_sq"),
        (params, grads, exp_avg, exp_avg_sq, None, ema, low_precision_copy),
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


def radam_step(
    params: Arrays,
    grads: Arrays,
    exp_avg: Arrays,
    exp_avg_sq: Arrays,
    step: int,
    *,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
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
    """Take one RAdam step in place: Adam with a rate that is rectified while v is uncertain [1]_.

    Parameters
    ----------
    params, grads : ndarray or list of ndarray
        Parameters, updated in place, and their gradients, as for `adam_step`.
    exp_avg, exp_avg_sq : ndarray or list of ndarray
        The moments m and v, updated in place.
    step : int
        The number t of this step, from 1.
    lr : float, default 1e-3
        Learning rate.
    betas : (float, float), default (0.9, 0.999)
        The factors b1 and b2.
    eps : float, default 1e-8
        Added to the root.
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
    .. [1] L. Liu et al., "On the variance of the adaptive learning rate and beyond",
       arXiv:1908.03265.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import radam_step
    >>> x, m, v = np.array([1.0, 2.0]), np.zeros(2), np.zeros(2)
    >>> norm, stepped = radam_step(x, np.array([3.0, -4.0]), m, v, 1, lr=0.1)
    >>> x.round(6)
    array([0.7, 2.4])
    """
    name = "radam_step"
    rate = _optim_rules.check_number(name, "lr", lr)
    numbers = _optim_rules.radam(
        rate,
        _optim_rules.check_betas(name, betas),
        _optim_rules.check_number(name, "eps", eps),
        _optim_rules.check_step(name, step),
    )
    return take_step(
        name,
        _optim_rules.ADAM,
        ("exp_avg", "exp_avg_sq"),
        (params, grads, exp_avg, exp_avg_sq, None, ema, low_precision_copy),
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
