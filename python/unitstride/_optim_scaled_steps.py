"""Steps of Adamax, Adagrad and RMSprop, in the form of `adam_step`."""

from unitstride import _optim_rules
from unitstride._optim_lists import Arrays, take_step


def adamax_step(
    params: Arrays,
    grads: Arrays,
    exp_avg: Arrays,
    exp_inf: Arrays,
    step: int,
    *,
    lr: float = 2e-3,
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
    """Take one Adamax step in place: v = max(b2 v, |g| + eps), params -= lr m / v [1]_.

    Parameters
    ----------
    params, grads : ndarray or list of ndarray
        Parameters, updated in place, and their gradients, as for `adam_step`.
    exp_avg, exp_inf : ndarray or list of ndarray
        The moment m and the largest gradient v, updated in place.
    step : int
        The number t of this step, from 1.
    lr : float, default 2e-3
        Learning rate.
    betas : (float, float), default (0.9, 0.999)
        The factors b1 and b2.
    eps : float, default 1e-8
        Added to the magnitude of the gradient.
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
    .. [1] D. P. Kingma, J. Ba, "Adam: a method for stochastic optimization", arXiv:1412.6980.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import adamax_step
    >>> x, m, v = np.array([1.0, 2.0]), np.zeros(2), np.zeros(2)
    >>> norm, stepped = adamax_step(x, np.array([3.0, -4.0]), m, v, 1, lr=0.5)
    >>> x.round(6)
    array([0.5, 2.5])
    """
    name = "adamax_step"
    rate = _optim_rules.check_number(name, "lr", lr)
    numbers = _optim_rules.adamax(
        rate,
        _optim_rules.check_betas(name, betas),
        _optim_rules.check_number(name, "eps", eps),
        _optim_rules.check_step(name, step),
    )
    return take_step(
        name,
        _optim_rules.ADAMAX,
        ("exp_avg", "exp_inf"),
        (params, grads, exp_avg, exp_inf, None, ema, low_precision_copy),
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


def adagrad_step(
    params: Arrays,
    grads: Arrays,
    state_sum: Arrays,
    step: int,
    *,
    lr: float = 1e-2,
    lr_decay: float = 0.0,
    eps: float = 1e-10,
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
    """Take one Adagrad step in place: s = s + g^2, params -= lr g / (sqrt(s) + eps) [1]_.

    Parameters
    ----------
    params, grads : ndarray or list of ndarray
        Parameters, updated in place, and their gradients, as for `adam_step`.
    state_sum : ndarray or list of ndarray
        The sum s of squares, updated in place.
    step : int
        The number of this step, from 1; it counts for `lr_decay` alone.
    lr : float, default 1e-2
        Learning rate.
    lr_decay : float, default 0
        The rate is lr / (1 + (step - 1) lr_decay).
    eps : float, default 1e-10
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
    .. [1] J. Duchi, E. Hazan, Y. Singer, "Adaptive subgradient methods for online learning and
       stochastic optimization", JMLR 12, 2011.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import adagrad_step
    >>> x = np.array([1.0, 2.0])
    >>> norm, stepped = adagrad_step(x, np.array([3.0, -4.0]), np.zeros(2), 1, lr=0.5)
    >>> x.round(6)
    array([0.5, 2.5])
    """
    name = "adagrad_step"
    rate = _optim_rules.check_number(name, "lr", lr)
    decline = _optim_rules.check_number(name, "lr_decay", lr_decay)
    numbers = _optim_rules.adagrad(
        rate,
        decline,
        _optim_rules.check_number(name, "eps", eps),
        _optim_rules.check_step(name, step),
    )
    return take_step(
        name,
        _optim_rules.ADAGRAD,
        ("state_sum",),
        (params, grads, state_sum, None, None, ema, low_precision_copy),
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


def rmsprop_step(
    params: Arrays,
    grads: Arrays,
    square_avg: Arrays,
    *,
    lr: float = 1e-2,
    alpha: float = 0.99,
    eps: float = 1e-8,
    momentum: float = 0.0,
    momentum_buffer: Arrays | None = None,
    grad_avg: Arrays | None = None,
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
    """Take one RMSprop step in place: v = a v + (1 - a) g^2, params -= lr g / (sqrt(v) + eps) [1]_.

    Parameters
    ----------
    params, grads : ndarray or list of ndarray
        Parameters, updated in place, and their gradients, as for `adam_step`.
    square_avg : ndarray or list of ndarray
        The mean v of squares, updated in place.
    lr : float, default 1e-2
        Learning rate.
    alpha : float, default 0.99
        The factor a.
    eps : float, default 1e-8
        Added to the root.
    momentum : float, default 0
        Factor of the momentum; it needs `momentum_buffer`.
    momentum_buffer : ndarray or list of ndarray, optional
        The momentum, updated in place.
    grad_avg : ndarray or list of ndarray, optional
        The mean of the gradient, updated in place, whose square is taken off v (centered).
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
    .. [1] T. Tieleman, G. Hinton, "Lecture 6.5 - rmsprop", Coursera, 2012.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import rmsprop_step
    >>> x = np.array([1.0, 2.0])
    >>> norm, stepped = rmsprop_step(x, np.array([3.0, -4.0]), np.zeros(2), lr=0.05)
    >>> x.round(6)
    array([0.5, 2.5])
    """
    name = "rmsprop_step"
    rate = _optim_rules.check_number(name, "lr", lr)
    momentum = _optim_rules.check_number(name, "momentum", momentum, 0.0, 1.0)
    if (momentum_buffer is None) != (momentum == 0.0):
        raise ValueError(
            f"{name}: `momentum_buffer` must be given with a momentum and only then, "
            f"got momentum {momentum}"
        )
    keep = _optim_rules.check_number(name, "alpha", alpha, 0.0, 1.0)
    numbers = _optim_rules.rmsprop(
        rate, keep, _optim_rules.check_number(name, "eps", eps), momentum
    )
    return take_step(
        name,
        _optim_rules.RMSPROP,
        ("square_avg", "grad_avg", "momentum_buffer"),
        (params, grads, square_avg, grad_avg, momentum_buffer, ema, low_precision_copy),
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
