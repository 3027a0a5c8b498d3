"""The Adam step on arrays and lists of arrays."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from numpy.typing import NDArray

from unitstride import _optim_lists, _optim_rules, _optim_wide
from unitstride._backend import core
from unitstride._optim_formats import BlockwiseState
from unitstride._optim_lists import Arrays

Array = NDArray[Any]
States = Arrays | BlockwiseState | Sequence[BlockwiseState]

_BETAS = (0.9, 0.999)


def adam_step(
    params: Arrays,
    grads: Arrays,
    exp_avg: States,
    exp_avg_sq: States,
    step: int,
    *,
    lr: float = 1e-3,
    betas: tuple[float, float] = _BETAS,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decoupled: bool = False,
    max_exp_avg_sq: States | None = None,
    nesterov: bool = False,
    maximize: bool = False,
    bias_correction: bool = True,
    compat: str = "torch",
    grad_scale: float | None = None,
    clip_factor: float | None = None,
    max_norm: float | None = None,
    skip_nonfinite: bool = False,
    ema: Arrays | None = None,
    ema_decay: float = 0.999,
    low_precision_copy: Arrays | None = None,
    rounding: str = "nearest",
    seed: int = 0,
    kahan: Arrays | None = None,
) -> tuple[float, bool]:
    """Take one step of Adam or AdamW in place, on one array or a list of arrays.

    Everything happens in one pass over memory: unscaling, clipping, both moments, weight decay,
    the update, the moving average of the weights and their copy in another dtype. Only `max_norm`
    and `skip_nonfinite` read the gradients once more, before anything is written.

    Parameters
    ----------
    params : ndarray or list of ndarray
        Parameters of any shapes and strides, float32, float64, float16 or bfloat16; updated.
    grads : ndarray or list of ndarray
        Their gradients, of the same shapes and any of these dtypes.
    exp_avg, exp_avg_sq : ndarray or list of ndarray, or of BlockwiseState
        First and second moments, zeros before the first step, of any of these dtypes, or 8 bits
        an element; updated.
    step : int
        The number of this step, from 1.
    lr : float, default 1e-3
        Learning rate.
    betas : tuple of two floats, default (0.9, 0.999)
        Decay rates of the moments, each in [0, 1).
    eps : float, default 1e-8
        Added to the root of the second moment; 0 is allowed: where the divisor is then zero, it
        counts as one, and a parameter that never had a gradient stays as it is.
    weight_decay : float, default 0.0
        Added to the gradient, times the parameter; with `decoupled`, ``lr * weight_decay *
        param`` is part of the change of the parameter instead (AdamW), rounded together with it.
    decoupled : bool, default False
        AdamW's weight decay.
    max_exp_avg_sq : ndarray or list of ndarray, optional
        Highest second moments so far: AMSGrad; updated.
    nesterov : bool, default False
        Look ahead with the first moment, as NAdam with constant momentum and ``optax.nadam`` do.
    maximize : bool, default False
        Go up instead of down.
    bias_correction : bool, default True
        Correct the moments for their start at zero.
    compat : {"torch", "optax", "tensorflow", "onnx"}
        Where eps stands: "torch" and "optax" add it after the bias correction of the second
        moment, "tensorflow" and "onnx" before it. AMSGrad takes the highest moment after the
        correction in "optax", before it in the others; "optax" clips to ``max_norm / norm``,
        the others to ``max_norm / (norm + 1e-6)``. "onnx" takes step 0, without correction.
    grad_scale : float, optional
        Gradients are divided by it first.
    clip_factor : float, optional
        Gradients are multiplied by it: what `max_norm` computes, when it is known already.
    max_norm : float, optional
        Scale the gradients of the whole list so that their norm is at most this.
    skip_nonfinite : bool, default False
        Leave every array as it is if a gradient is NaN or infinite.
    ema : ndarray or list of ndarray, optional
        Moving averages of the parameters: ``ema = ema_decay * ema + (1 - ema_decay) * param``.
    ema_decay : float, default 0.999
        In [0, 1).
    low_precision_copy : ndarray or list of ndarray, optional
        Receives the new parameters, rounded to its dtype.
    rounding : {"nearest", "stochastic"}, default "nearest"
        How 16-bit parameters and states are rounded: to the nearest, or up and down with the
        probabilities that make the result right on average, so that small changes are not lost.
    seed : int, default 0
        Of the random bits, which follow from it, `step`, and the element's place alone.
    kahan : ndarray or list of ndarray, optional
        For 16-bit parameters, of their dtypes, zeros before the first step: what rounding has taken
        off, added at the next step; updated.

    Returns
    -------
    grad_norm : float
        The norm of all gradients together, divided by `grad_scale`, before clipping.
    stepped : bool
        False if the step was skipped.

    Raises
    ------
    TypeError
        For something else than arrays, and for other dtypes.
    ValueError
        For lists or shapes that do not match (the first offender is named), hyper-parameters out
        of range, arrays that are read-only, or written arrays that share memory with any other.
        Nothing is written then.

    Notes
    -----
    With m and v the moments, t the step and g the gradient [1]_::

        m = b1 m + (1 - b1) g
        v = b2 v + (1 - b2) g^2
        param -= lr / (1 - b1^t) * m / (sqrt(v / (1 - b2^t)) + eps) + lr * decay * param

    Accuracy: float32 and float64 are those of this formula in NumPy, bit for bit, at every
    instruction-set level, number of threads and layout; 16-bit types are computed in float32
    and rounded once. No floating-point warning is raised: look at `grad_norm`. An interrupted
    call leaves the arrays partly updated.

    Complexity: O(n) time, one read of four arrays and one write of three, no copies. Arrays of 16
    and 8 bits are decoded and encoded in cache.

    References
    ----------
    .. [1] D. P. Kingma, J. Ba, "Adam: a method for stochastic optimization", ICLR 2015,
       arXiv:1412.6980; I. Loshchilov, F. Hutter, "Decoupled weight decay regularization", ICLR
       2019, arXiv:1711.05101.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import adam_step
    >>> x, m, v = np.array([3.0, 3.0]), np.zeros(2), np.zeros(2)
    >>> for t in range(1, 301):
    ...     norm, stepped = adam_step(x, np.array([2.0, 8.0]) * x, m, v, t, lr=0.1)
    >>> bool(norm < 0.01), stepped
    (True, True)
    """
    if (
        core is not None
        and max_exp_avg_sq is None
        and ema is None
        and low_precision_copy is None
        and max_norm is None
        and grad_scale is None
        and clip_factor is None
        and compat == "torch"
        and bias_correction
        and not (nesterov or maximize or skip_nonfinite)
        and rounding == "nearest"
        and kahan is None
    ):
        done: tuple[float, bool] | None = core.adam_fast(
            params, grads, exp_avg, exp_avg_sq, step, lr, betas, eps, weight_decay, decoupled
        )
        if done is not None:
            return done
    name = "adam_step"
    compat = _optim_rules.check_choice(name, "compat", compat, _optim_rules.COMPATS)
    number = _optim_rules.check_step(
        name, step, 0 if compat == "onnx" or not bias_correction else 1
    )
    rate = _optim_rules.check_number(name, "lr", lr)
    numbers = _optim_rules.adam(
        number,
        rate,
        _optim_rules.check_betas(name, betas),
        _optim_rules.check_number(name, "eps", eps),
        nesterov,
        bias_correction,
        compat,
    )
    arrays = (params, grads, exp_avg, exp_avg_sq, max_exp_avg_sq, ema, low_precision_copy)
    formats = _optim_wide.Formats(rounding, seed, kahan)
    run = None
    if _optim_wide.wants(arrays, formats):
        run = partial(_optim_wide.run_step, formats=formats, step=number)
    return _optim_lists.take_step(
        name,
        _optim_rules.ADAM,
        ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"),
        arrays,
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
        compat == "optax",
        run,
    )
