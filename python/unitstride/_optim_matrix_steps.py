"""Steps that look at whole arrays: LAMB, Adafactor, and Muon on the contraction engine."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unitstride import _optim_rules
from unitstride._optim_lists import Arrays, as_list, check_array, check_lists, check_overlap
from unitstride.products import matmul

Array = NDArray[Any]


def _wide(array: Array) -> Array:
    """Return an array in the type that it is computed in."""
    return array.astype(np.float64 if array.dtype.itemsize == 8 else np.float32, copy=False)


def _norm(array: Array) -> float:
    return float(np.linalg.norm(array.reshape(-1).astype(np.float64)))


def lamb_step(
    params: Arrays,
    grads: Arrays,
    exp_avg: Arrays,
    exp_avg_sq: Arrays,
    step: int,
    *,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-6,
    weight_decay: float = 0.0,
    bias_correction: bool = True,
    maximize: bool = False,
) -> None:
    """Take one step of LAMB in place: Adam's direction, as long as each array is large.

    Parameters
    ----------
    params, grads : ndarray or list of ndarray
        Parameters, updated in place, and their gradients, of the same shapes.
    exp_avg, exp_avg_sq : ndarray or list of ndarray
        The moments, zeros before the first step, updated in place.
    step : int
        The number of this step, from 1 on.
    lr : float, default 1e-3
        Learning rate.
    betas : (float, float), default (0.9, 0.999)
        Decay of the moments.
    eps : float, default 1e-6
        Added to the root of the second moment.
    weight_decay : float, default 0.0
        Times the parameter, added to the direction.
    bias_correction : bool, default True
        Divide the moments by 1 - beta^step.
    maximize : bool, default False
        Go up instead of down.

    Raises
    ------
    TypeError, ValueError
        As for `adam_step`; nothing is written then.

    Notes
    -----
    ``r = m / (sqrt(v) + eps) + weight_decay * p``, ``p -= lr * (norm(p) / norm(r)) * r`` for each
    array, the ratio being 1 where a norm is 0 [1]_. On NumPy, in float32 or wider; O(n).

    References
    ----------
    .. [1] Y. You et al., "Large batch optimization for deep learning", 2020, arXiv:1904.00962.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import lamb_step
    >>> x, m, v = np.array([3.0, 4.0]), np.zeros(2), np.zeros(2)
    >>> lamb_step(x, np.array([1.0, 1.0]), m, v, 1, lr=0.1)
    >>> x.round(3)
    array([2.646, 3.646])
    """
    name = "lamb_step"
    rate, floor, decay = (
        _optim_rules.check_number(name, option, value)
        for option, value in (("lr", lr), ("eps", eps), ("weight_decay", weight_decay))
    )
    b1, b2 = _optim_rules.check_betas(name, betas)
    count = _optim_rules.check_step(name, step)
    lists = check_lists(
        name, ("params", "grads", "exp_avg", "exp_avg_sq"), (params, grads, exp_avg, exp_avg_sq)
    )
    first = 1.0 - b1**count if bias_correction else 1.0
    second = 1.0 - b2**count if bias_correction else 1.0
    for p, g, m, v in zip(*(each or [] for each in lists), strict=True):
        slope = -_wide(g) if maximize else _wide(g)
        m[...] = b1 * _wide(m) + (1.0 - b1) * slope
        v[...] = b2 * _wide(v) + (1.0 - b2) * slope * slope
        wide = _wide(p)
        ratio = (_wide(m) / first) / (np.sqrt(_wide(v) / second) + floor) + decay * wide
        size, length = _norm(wide), _norm(ratio)
        trust = size / length if size > 0.0 and length > 0.0 else 1.0
        p[...] = wide - (rate * trust) * ratio


def _check_factors(name: str, params: list[Array], factors: list[list[Any]]) -> None:
    """Check the states of Adafactor: two factors for matrices, one array for others."""
    labelled = [(f"params[{i}]", array, True) for i, array in enumerate(params)]
    for index, param in enumerate(params):
        shapes: tuple[tuple[int, ...] | None, ...]
        if param.ndim > 1:
            rows, columns = (*param.shape[:-1], 1), (*param.shape[:-2], 1, param.shape[-1])
            shapes = (rows, columns, None)
        else:
            shapes = (None, None, param.shape)
        names = ("row_var", "col_var", "variance")
        for kind, states, shape in zip(names, factors, shapes, strict=True):
            label, state = f"{kind}[{index}]", states[index]
            if (state is None) != (shape is None):
                wanted = "None" if shape is None else f"an array of shape {shape}"
                raise ValueError(f"{name}: `{label}` must be {wanted} for {param.shape}")
            if shape is None:
                continue
            array = check_array(name, label, state, True)
            if array.shape != shape:
                raise ValueError(f"{name}: `{label}` must have shape {shape}, got {array.shape}")
            labelled.append((label, array, True))
    check_overlap(name, labelled)


def adafactor_step(
    params: Arrays,
    grads: Arrays,
    row_var: Any,
    col_var: Any,
    variance: Any,
    step: int,
    *,
    lr: float = 1e-2,
    beta2_decay: float = -0.8,
    eps: tuple[float | None, float] = (None, 1e-3),
    d: float = 1.0,
    weight_decay: float = 0.0,
    maximize: bool = False,
) -> None:
    """Take one step of Adafactor in place: second moments as the product of two vectors.

    Parameters
    ----------
    params, grads : ndarray or list of ndarray
        Parameters, updated in place, and their gradients, of the same shapes.
    row_var, col_var : list of ndarray or None
        For parameters of shape (..., n, m): (..., n, 1) and (..., 1, m), zeros before the first
        step, updated in place; None for others.
    variance : list of ndarray or None
        For parameters of one axis or none: of their shape; None for others.
    step : int
        The number of this step, from 1 on.
    lr : float, default 1e-2
        The largest relative step.
    beta2_decay : float, default -0.8
        The second moments take ``step ** beta2_decay`` of what is new.
    eps : (float or None, float), default (None, 1e-3)
        Least mean of a row's second moments (None: the dtype's epsilon), and least size of a
        parameter in the step.
    d : float, default 1.0
        Steps are scaled down to this root mean square.
    weight_decay : float, default 0.0
        Times `lr`, taken off the parameter first.
    maximize : bool, default False
        Go up instead of down.

    Raises
    ------
    TypeError, ValueError
        As for `adam_step`, and for states of a wrong shape; nothing is written then.

    Notes
    -----
    The conventions are those of PyTorch's Adafactor; the method is [1]_. On NumPy, in float32 or
    wider; O(n) time, O(rows + columns) states.

    References
    ----------
    .. [1] N. Shazeer, M. Stern, "Adafactor: adaptive learning rates with sublinear memory cost",
       2018, arXiv:1804.04235.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import adafactor_step
    >>> x = np.ones((2, 3))
    >>> adafactor_step(x, x / 2, [np.zeros((2, 1))], [np.zeros((1, 3))], [None], 1, lr=0.1)
    >>> x.round(3)
    array([[0.9, 0.9, 0.9],
           [0.9, 0.9, 0.9]])
    """
    name = "adafactor_step"
    rate, clip, decay = (
        _optim_rules.check_number(name, option, value)
        for option, value in (("lr", lr), ("d", d), ("weight_decay", weight_decay))
    )
    count = _optim_rules.check_step(name, step)
    given_params, given_grads = check_lists(name, ("params", "grads"), (params, grads))
    assert given_params is not None
    assert given_grads is not None
    states = (("row_var", row_var), ("col_var", col_var), ("variance", variance))
    factors = [as_list(name, kind, value) for kind, value in states]
    for (kind, _), items in zip(states, factors, strict=True):
        if len(items) != len(given_params):
            raise ValueError(
                f"{name}: `{kind}` must have {len(given_params)} arrays, got {len(items)}"
            )
    _check_factors(name, given_params, factors)
    share = float(count) ** float(beta2_decay)
    largest = min(rate, 1.0 / math.sqrt(count))
    for p, g, rows, columns, own in zip(given_params, given_grads, *factors, strict=True):
        wide = _wide(p)
        slope = -_wide(g) if maximize else _wide(g)
        least = float(np.finfo(wide.dtype).eps) if eps[0] is None else float(eps[0])
        size = max(float(eps[1]), _norm(wide) / math.sqrt(max(wide.size, 1)))
        square = slope * slope
        if rows is None:
            own += (square - own) * share
            estimate = _wide(own)
        else:
            rows += (square.mean(axis=-1, keepdims=True) - rows) * share
            columns += (square.mean(axis=-2, keepdims=True) - columns) * share
            mean = np.maximum(_wide(rows).mean(axis=-2, keepdims=True), least)
            estimate = _wide(rows) * _wide(columns) / mean
        update = slope / np.sqrt(np.maximum(estimate, least * least))
        length = _norm(update) / (math.sqrt(max(update.size, 1)) * clip)
        p[...] = wide * (1.0 - rate * decay) - (largest * size / max(1.0, length)) * update


def _orthogonal(matrix: Array, steps: int, factors: tuple[float, float, float]) -> Array:
    """Return a matrix of the same singular vectors, with singular values of about one."""
    a, b, c = factors
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / max(_norm(x), 1e-7)
    for _ in range(steps):
        gram = matmul(x, x.T)
        x = a * x + matmul(b * gram + c * matmul(gram, gram), x)
    return x.T if matrix.shape[0] > matrix.shape[1] else x


def muon_step(
    params: Arrays,
    grads: Arrays,
    momentum_buffer: Arrays,
    *,
    lr: float = 1e-3,
    momentum: float = 0.95,
    nesterov: bool = True,
    weight_decay: float = 0.1,
    ns_steps: int = 5,
    ns_coefficients: tuple[float, float, float] = (3.4445, -4.775, 2.0315),
    adjust_lr: str = "original",
    maximize: bool = False,
) -> None:
    """Take one step of Muon in place: momentum brought to an orthogonal matrix.

    Parameters
    ----------
    params, grads : ndarray or list of ndarray
        Matrices, updated in place, and their gradients, of the same shapes.
    momentum_buffer : ndarray or list of ndarray
        Zeros before the first step, updated in place.
    lr : float, default 1e-3
        Learning rate.
    momentum : float, default 0.95
        The buffer keeps this share of itself.
    nesterov : bool, default True
        Step along the gradient mixed with the buffer instead of the buffer.
    weight_decay : float, default 0.1
        Times `lr`, taken off the parameter first.
    ns_steps : int, default 5
        Steps of the Newton-Schulz iteration.
    ns_coefficients : (float, float, float)
        Of its polynomial a x + b x^3 + c x^5.
    adjust_lr : {"original", "match_rms_adamw"}, default "original"
        Scale `lr` by ``sqrt(max(1, rows / columns))`` or ``0.2 sqrt(max(rows, columns))``.
    maximize : bool, default False
        Go up instead of down.

    Raises
    ------
    TypeError, ValueError
        As for `adam_step`, and for arrays that are not matrices; nothing is written then.

    Notes
    -----
    The conventions are those of PyTorch's Muon; the method is [1]_. The products run on the engine
    of `einsum`, in float32 or wider: 3 products of min(n, m) x min(n, m) x max(n, m) a step.

    References
    ----------
    .. [1] K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import muon_step
    >>> x, buffer = np.zeros((2, 2)), np.zeros((2, 2))
    >>> muon_step(x, np.array([[2.0, 0.0], [0.0, -1.0]]), buffer, lr=1.0)
    >>> np.sign(x)
    array([[-1.,  0.],
           [ 0.,  1.]])
    """
    name = "muon_step"
    rate, decay = (
        _optim_rules.check_number(name, option, value)
        for option, value in (("lr", lr), ("weight_decay", weight_decay))
    )
    keep = _optim_rules.check_number(name, "momentum", momentum, 0.0, 1.0)
    choice = _optim_rules.check_choice(
        name, "adjust_lr", adjust_lr, ("original", "match_rms_adamw")
    )
    count = _optim_rules.check_step(name, ns_steps)
    lists = check_lists(
        name, ("params", "grads", "momentum_buffer"), (params, grads, momentum_buffer)
    )
    for index, array in enumerate(lists[0] or []):
        if array.ndim != 2:
            raise ValueError(
                f"{name}: `params[{index}]` must have 2 dimensions, got shape {array.shape}"
            )
    for p, g, buffer in zip(*(each or [] for each in lists), strict=True):
        slope = -_wide(g) if maximize else _wide(g)
        moving = _wide(buffer) + (slope - _wide(buffer)) * (1.0 - keep)
        update = slope + (moving - slope) * keep if nesterov else moving
        rows, columns = p.shape
        scale = math.sqrt(max(1.0, rows / max(columns, 1)))
        if choice == "match_rms_adamw":
            scale = 0.2 * math.sqrt(max(rows, columns))
        turned = _orthogonal(update, count, ns_coefficients) if p.size else update
        buffer[...] = moving
        p[...] = _wide(p) * (1.0 - rate * decay) - (rate * scale) * turned
