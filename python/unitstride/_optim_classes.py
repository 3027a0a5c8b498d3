"""Optimisers as classes: their options, states and rules."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unitstride import _optim_rules
from unitstride._optim_base import Group, Optimizer, Schedule
from unitstride._optim_lists import Arrays
from unitstride._optim_wide import ROUNDINGS, Formats

Array = NDArray[Any]

Params = Arrays | Sequence[Mapping[str, Any]]


class Adam(Optimizer):
    """Adam, and AdamW with `decoupled`.

    Parameters
    ----------
    params : ndarray, list of ndarray or list of dict
        What is optimised, in place; or groups, ``{"params": [...], "lr": ...}``, each with
        options of its own.
    lr : float or callable, default 1e-3
        The learning rate, or a schedule: a function of the number of steps taken so far.
    betas, eps, weight_decay, decoupled, amsgrad, nesterov, maximize, bias_correction, compat
        As for `unitstride.adam_step`; `amsgrad` keeps the highest second moments.
    max_norm : float, optional
        The gradients of all groups together are scaled to at most this norm.
    skip_nonfinite : bool, default False
        A step with a NaN or an infinity in any gradient changes nothing.
    ema_decay : float, optional
        Keep moving averages of the parameters, in `ema`.
    state_dtype : dtype, optional
        Of the moments: float32, float64, bfloat16, float16, or uint8 for `BlockwiseState`; that of
        the parameter by default, float32 for 16-bit parameters.
    rounding, seed
        As for `unitstride.adam_step`.
    kahan : bool, default False
        Keep what rounding takes off 16-bit parameters, and add it at the next step.

    Raises
    ------
    TypeError, ValueError
        For arrays and options that `unitstride.adam_step` refuses.

    Notes
    -----
    Accuracy, complexity and formula are those of `unitstride.adam_step`. One group is one parallel
    region. Optimisers can be pickled when their schedules can.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import Adam
    >>> x = np.array([3.0, 3.0])
    >>> optimizer = Adam(x, lr=0.1)
    >>> for _ in range(300):
    ...     norm, stepped = optimizer.step(np.array([2.0, 8.0]) * x)  # of x0^2 + 4 x1^2
    >>> bool(np.abs(x).max() < 0.01)
    True
    """

    _RULE = _optim_rules.ADAM
    _STATES = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")

    def __init__(
        self,
        params: Params,
        lr: float | Schedule = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        decoupled: bool = False,
        nesterov: bool = False,
        maximize: bool = False,
        bias_correction: bool = True,
        compat: str = "torch",
        max_norm: float | None = None,
        skip_nonfinite: bool = False,
        ema_decay: float | None = None,
        state_dtype: Any = None,
        rounding: str = "nearest",
        seed: int = 0,
        kahan: bool = False,
    ) -> None:
        options = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "decoupled": decoupled,
            "nesterov": nesterov,
            "maximize": maximize,
            "bias_correction": bias_correction,
            "compat": compat,
            "rounding": rounding,
            "seed": seed,
            "kahan": kahan,
        }
        super().__init__(params, options, max_norm, skip_nonfinite, ema_decay, state_dtype)

    def _wanted(self, group: Group) -> tuple[str, ...]:
        return self._STATES if group["amsgrad"] else self._STATES[:2]

    def _decoupled(self, group: Group) -> bool:
        return bool(group["decoupled"])

    def _fresh_state(self, group: Group, array: Array) -> dict[str, Array]:
        fresh = super()._fresh_state(group, array)
        if group["kahan"]:
            if array.dtype.itemsize != 2:
                raise ValueError(
                    f"{self._name}: `kahan` needs parameters of 16 bits, got {array.dtype}"
                )
            fresh["kahan"] = np.zeros_like(array)
        return fresh

    def _formats(self, group: Group, places: list[int]) -> Formats:
        kahan = [self._state[i]["kahan"] for i in places] if group["kahan"] else None
        return Formats(group["rounding"], group["seed"], kahan, places)

    def _constants(self, group: Group, step: int, lr: float) -> tuple[float, ...]:
        _optim_rules.check_choice(self._name, "rounding", group["rounding"], ROUNDINGS)
        return _optim_rules.adam(
            step,
            lr,
            _optim_rules.check_betas(self._name, group["betas"]),
            _optim_rules.check_number(self._name, "eps", group["eps"]),
            group["nesterov"],
            group["bias_correction"],
            _optim_rules.check_choice(self._name, "compat", group["compat"], _optim_rules.COMPATS),
        )


class AdamW(Adam):
    """Adam with decoupled weight decay, 0.01 by default.

    Parameters
    ----------
    params, lr, betas, eps, weight_decay, amsgrad, options
        As for `Adam`, with ``decoupled=True``.

    Raises
    ------
    TypeError, ValueError
        As for `Adam`.

    Notes
    -----
    I. Loshchilov, F. Hutter, arXiv:1711.05101; accuracy and complexity as for `Adam`.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import AdamW
    >>> x = np.ones(3, np.float32)
    >>> AdamW(x, lr=0.1, weight_decay=0.1).step(np.zeros(3, np.float32))
    (0.0, True)
    >>> x
    array([0.99, 0.99, 0.99], dtype=float32)
    """

    def __init__(
        self,
        params: Params,
        lr: float | Schedule = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        amsgrad: bool = False,
        **options: Any,
    ) -> None:
        options.setdefault("decoupled", True)
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, **options)
