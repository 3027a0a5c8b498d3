"""Optimisers that scale by the size of past gradients: Adamax, Adagrad, RMSprop."""

from typing import Any

from numpy.typing import NDArray

from unitstride import _optim_rules
from unitstride._optim_base import Group, Optimizer, Schedule
from unitstride._optim_classes import Params

Array = NDArray[Any]


class Adamax(Optimizer):
    """Adam by the largest gradient instead of the second moment.

    Parameters
    ----------
    params, lr
        As for `Adam`; `lr` is 2e-3 by default.
    betas, eps
        As for `Adam`.
    weight_decay : float, default 0.0
        Added to the gradient, times the parameter.
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
    u = max(b2 u, abs(g) + eps); param -= lr / (1 - b1^t) m / u. D. P. Kingma, J. Ba,
    arXiv:1412.6980, section 7.1.
    Results in float32 and float64 have the bits of the formula in NumPy. O(n), one pass.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import Adamax
    >>> x = np.array([3.0, 3.0])
    >>> optimizer = Adamax(x, lr=0.1)
    >>> for _ in range(500):
    ...     norm, stepped = optimizer.step(np.array([2.0, 8.0]) * x)  # of x0^2 + 4 x1^2
    >>> bool(np.abs(x).max() < 0.1)
    True
    """

    _RULE = _optim_rules.ADAMAX
    _STATES = ("exp_avg", "exp_inf")

    def __init__(
        self,
        params: Params,
        lr: float | Schedule = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
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
        }
        super().__init__(params, options, max_norm, skip_nonfinite, ema_decay, state_dtype)

    def _constants(self, group: Group, step: int, lr: float) -> tuple[float, ...]:
        return _optim_rules.adamax(
            lr,
            _optim_rules.check_betas(self._name, group["betas"]),
            self._number(group, "eps"),
            step,
        )


class Adagrad(Optimizer):
    """Steps that shrink with the sum of all squares.

    Parameters
    ----------
    params, lr
        As for `Adam`; `lr` is 1e-2 by default.
    lr_decay : float, default 0.0
        The rate is ``lr / (1 + (t - 1) lr_decay)``.
    weight_decay : float, default 0.0
        Added to the gradient, times the parameter.
    initial_accumulator_value : float, default 0.0
        What the sums begin with.
    eps : float, default 1e-10
        Added to the root of the sum.
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
    s = s + g^2; param -= lr g / (sqrt(s) + eps). J. Duchi, E. Hazan, Y. Singer, JMLR 12, 2011.
    Results in float32 and float64 have the bits of the formula in NumPy. O(n), one pass.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import Adagrad
    >>> x = np.array([3.0, 3.0])
    >>> optimizer = Adagrad(x, lr=1.0)
    >>> for _ in range(500):
    ...     norm, stepped = optimizer.step(np.array([2.0, 8.0]) * x)  # of x0^2 + 4 x1^2
    >>> bool(np.abs(x).max() < 0.1)
    True
    """

    _RULE = _optim_rules.ADAGRAD
    _STATES = ("sum",)

    def __init__(
        self,
        params: Params,
        lr: float | Schedule = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
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
            "lr_decay": lr_decay,
            "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value,
            "eps": eps,
        }
        super().__init__(params, options, max_norm, skip_nonfinite, ema_decay, state_dtype)

    def _fill_state(self, group: Group, state: dict[str, Array]) -> None:
        state["sum"][...] = self._number(group, "initial_accumulator_value")

    def _constants(self, group: Group, step: int, lr: float) -> tuple[float, ...]:
        return _optim_rules.adagrad(
            lr, self._number(group, "lr_decay"), self._number(group, "eps"), step
        )


class RMSprop(Optimizer):
    """Steps divided by a moving root mean square, with momentum.

    Parameters
    ----------
    params, lr
        As for `Adam`; `lr` is 1e-2 by default.
    alpha : float, default 0.99
        Weight of the past in the averages, in [0, 1).
    eps : float, default 1e-8
        Added to the root.
    weight_decay : float, default 0.0
        Added to the gradient, times the parameter.
    momentum : float, default 0.0
        In [0, 1).
    centered : bool, default False
        Divide by the root of the variance instead.
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
    s = alpha s + (1 - alpha) g^2; param -= lr g / (sqrt(s) + eps). T. Tieleman, G. Hinton, 2012.
    Results in float32 and float64 have the bits of the formula in NumPy. O(n), one pass.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import RMSprop
    >>> x = np.array([3.0, 3.0])
    >>> optimizer = RMSprop(x, lr=0.02)
    >>> for _ in range(500):
    ...     norm, stepped = optimizer.step(np.array([2.0, 8.0]) * x)  # of x0^2 + 4 x1^2
    >>> bool(np.abs(x).max() < 0.1)
    True
    """

    _RULE = _optim_rules.RMSPROP
    _STATES = ("square_avg", "grad_avg", "momentum_buffer")

    def __init__(
        self,
        params: Params,
        lr: float | Schedule = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
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
            "alpha": alpha,
            "eps": eps,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "centered": centered,
        }
        super().__init__(params, options, max_norm, skip_nonfinite, ema_decay, state_dtype)

    def _wanted(self, group: Group) -> tuple[str, ...]:
        wanted = (True, group["centered"], group["momentum"] != 0)
        return tuple(name for name, keep in zip(self._STATES, wanted, strict=True) if keep)

    def _constants(self, group: Group, step: int, lr: float) -> tuple[float, ...]:
        return _optim_rules.rmsprop(
            lr,
            self._number(group, "alpha", 1.0),
            self._number(group, "eps"),
            self._number(group, "momentum", 1.0),
        )
