"""Optimisers beside Adam: momentum, signs, and variants of Adam."""

import math
from typing import Any

import numpy as np

from unitstride import _optim_rules
from unitstride._optim_base import Group, Optimizer, Schedule
from unitstride._optim_classes import Params


class SGD(Optimizer):
    """Gradient descent with momentum, dampening, and Nesterov's rule.

    Parameters
    ----------
    params, lr
        As for `Adam`; `lr` is 1e-3 by default.
    momentum : float, default 0.0
        In [0, 1).
    dampening : float, default 0.0
        The gradient enters the momentum times ``1 - dampening``, whole at the first step.
    weight_decay : float, default 0.0
        Added to the gradient, times the parameter.
    nesterov : bool, default False
        Look ahead; needs momentum and no dampening.
    maximize : bool, default False
        Go up instead of down.
    max_norm, skip_nonfinite, ema_decay, state_dtype
        As for `Adam`.

    Raises
    ------
    TypeError, ValueError
        As for `Adam`.

    Notes
    -----
    b = momentum b + (1 - dampening) g; param -= lr b, or lr (g + momentum b) with `nesterov`.
    I. Sutskever et al., ICML 2013.
    Results in float32 and float64 have the bits of the formula in NumPy. O(n), one pass.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import SGD
    >>> x = np.array([3.0, 3.0])
    >>> optimizer = SGD(x, lr=0.1, momentum=0.5)
    >>> for _ in range(500):
    ...     norm, stepped = optimizer.step(np.array([2.0, 8.0]) * x)  # of x0^2 + 4 x1^2
    >>> bool(np.abs(x).max() < 0.1)
    True
    """

    _RULE = _optim_rules.SGD
    _STATES = ("momentum_buffer",)

    def __init__(
        self,
        params: Params,
        lr: float | Schedule = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        max_norm: float | None = None,
        skip_nonfinite: bool = False,
        ema_decay: float | None = None,
        state_dtype: Any = None,
    ) -> None:
        options = {
            "lr": lr,
            "maximize": maximize,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
        }
        super().__init__(params, options, max_norm, skip_nonfinite, ema_decay, state_dtype)

    def _wanted(self, group: Group) -> tuple[str, ...]:
        return self._STATES if group["momentum"] else ()

    def _constants(self, group: Group, step: int, lr: float) -> tuple[float, ...]:
        momentum = self._number(group, "momentum", 1.0)
        dampening = self._number(group, "dampening", math.nextafter(1.0, 2.0))
        if group["nesterov"] and (momentum == 0.0 or dampening != 0.0):
            raise ValueError(f"{self._name}: `nesterov` needs momentum and no dampening")
        return _optim_rules.sgd(lr, momentum, dampening, group["nesterov"], step)


class Lion(Optimizer):
    """Steps of one size, by the sign of a moving average.

    Parameters
    ----------
    params, lr
        As for `Adam`; `lr` is 1e-4 by default.
    betas : tuple of two floats, default (0.9, 0.99)
        Weights of the average in the sign and in the state.
    weight_decay : float, default 0.0
        Decoupled, times `lr`.
    maximize : bool, default False
        Go up instead of down.
    max_norm, skip_nonfinite, ema_decay, state_dtype
        As for `Adam`.

    Raises
    ------
    TypeError, ValueError
        As for `Adam`.

    Notes
    -----
    param -= lr sign(b1 m + (1 - b1) g) + lr decay param; m = b2 m + (1 - b2) g.
    X. Chen et al., arXiv:2302.06675.
    Results in float32 and float64 have the bits of the formula in NumPy. O(n), one pass.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import Lion
    >>> x = np.array([3.0, 3.0])
    >>> optimizer = Lion(x, lr=0.02)
    >>> for _ in range(500):
    ...     norm, stepped = optimizer.step(np.array([2.0, 8.0]) * x)  # of x0^2 + 4 x1^2
    >>> bool(np.abs(x).max() < 0.1)
    True
    """

    _RULE = _optim_rules.LION
    _STATES = ("exp_avg",)

    def __init__(
        self,
        params: Params,
        lr: float | Schedule = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        max_norm: float | None = None,
        skip_nonfinite: bool = False,
        ema_decay: float | None = None,
        state_dtype: Any = None,
    ) -> None:
        options = {"lr": lr, "maximize": maximize, "betas": betas, "weight_decay": weight_decay}
        super().__init__(params, options, max_norm, skip_nonfinite, ema_decay, state_dtype)

    def _decoupled(self, group: Group) -> bool:
        return True

    def _constants(self, group: Group, step: int, lr: float) -> tuple[float, ...]:
        return _optim_rules.lion(lr, _optim_rules.check_betas(self._name, group["betas"]))


class RAdam(Optimizer):
    """Adam whose second moment waits until its variance is known.

    Parameters
    ----------
    params, lr
        As for `Adam`; `lr` is 1e-3 by default.
    betas, eps
        As for `Adam`.
    weight_decay : float, default 0.0
        Added to the gradient, times the parameter, or to the change with `decoupled`.
    decoupled : bool, default False
        Weight decay as in `AdamW`.
    maximize : bool, default False
        Go up instead of down.
    max_norm, skip_nonfinite, ema_decay, state_dtype
        As for `Adam`.

    Raises
    ------
    TypeError, ValueError
        As for `Adam`.

    Notes
    -----
    L. Liu et al., ICLR 2020, arXiv:1908.03265; eps is added before the bias correction.
    Results in float32 and float64 have the bits of the formula in NumPy. O(n), one pass.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import RAdam
    >>> x = np.array([3.0, 3.0])
    >>> optimizer = RAdam(x, lr=0.1)
    >>> for _ in range(500):
    ...     norm, stepped = optimizer.step(np.array([2.0, 8.0]) * x)  # of x0^2 + 4 x1^2
    >>> bool(np.abs(x).max() < 0.1)
    True
    """

    _RULE = _optim_rules.ADAM
    _STATES = ("exp_avg", "exp_avg_sq")

    def __init__(
        self,
        params: Params,
        lr: float | Schedule = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decoupled: bool = False,
        *,
        maximize: bool = False,
        max_norm: float | None = None,
        skip_nonfinite: bool = False,
        ema_decay: float | None = None,
        state_dtype: Any = None,
    ) -> None:
        options = {
            "lr": lr,
            "maximize": maximize,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "decoupled": decoupled,
        }
        super().__init__(params, options, max_norm, skip_nonfinite, ema_decay, state_dtype)

    def _decoupled(self, group: Group) -> bool:
        return bool(group["decoupled"])

    def _constants(self, group: Group, step: int, lr: float) -> tuple[float, ...]:
        return _optim_rules.radam(
            lr,
            _optim_rules.check_betas(self._name, group["betas"]),
            self._number(group, "eps"),
            step,
        )


class NAdam(Optimizer):
    """Adam with a momentum that looks ahead and grows.

    Parameters
    ----------
    params, lr
        As for `Adam`; `lr` is 2e-3 by default.
    betas, eps
        As for `Adam`.
    weight_decay : float, default 0.0
        Added to the gradient, times the parameter, or to the change with `decoupled`.
    momentum_decay : float, default 4e-3
        How fast the momentum of step t, b1 (1 - 0.96^(t momentum_decay) / 2), grows.
    decoupled : bool, default False
        Weight decay as in `AdamW`.
    maximize : bool, default False
        Go up instead of down.
    max_norm, skip_nonfinite, ema_decay, state_dtype
        As for `Adam`.

    Raises
    ------
    TypeError, ValueError
        As for `Adam`.

    Notes
    -----
    T. Dozat, ICLR 2016 workshop.
    Results in float32 and float64 have the bits of the formula in NumPy. O(n), one pass.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import NAdam
    >>> x = np.array([3.0, 3.0])
    >>> optimizer = NAdam(x, lr=0.1)
    >>> for _ in range(500):
    ...     norm, stepped = optimizer.step(np.array([2.0, 8.0]) * x)  # of x0^2 + 4 x1^2
    >>> bool(np.abs(x).max() < 0.1)
    True
    """

    _RULE = _optim_rules.ADAM
    _STATES = ("exp_avg", "exp_avg_sq")

    def __init__(
        self,
        params: Params,
        lr: float | Schedule = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum_decay: float = 4e-3,
        decoupled: bool = False,
        *,
        maximize: bool = False,
        max_norm: float | None = None,
        skip_nonfinite: bool = False,
        ema_decay: float | None = None,
        state_dtype: Any = None,
    ) -> None:
        options = {
            "lr": lr,
            "maximize": maximize,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "momentum_decay": momentum_decay,
            "decoupled": decoupled,
        }
        super().__init__(params, options, max_norm, skip_nonfinite, ema_decay, state_dtype)

    def _decoupled(self, group: Group) -> bool:
        return bool(group["decoupled"])

    def _torch_numbers(self, group: Group) -> dict[str, Any]:
        decay = self._number(group, "momentum_decay")
        step = max(self.step_count, 1)
        product = _optim_rules.nadam_momenta(group["betas"][0], decay, step)[2]
        return {"mu_product": np.array(product, np.float32)}

    def _constants(self, group: Group, step: int, lr: float) -> tuple[float, ...]:
        betas = _optim_rules.check_betas(self._name, group["betas"])
        decay = self._number(group, "momentum_decay")
        now, following, product = _optim_rules.nadam_momenta(betas[0], decay, step)
        return _optim_rules.nadam(
            lr, betas, self._number(group, "eps"), step, now, following, product
        )
