"""Optimisers that look at whole arrays, as classes: LAMB, Adafactor, Muon."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from unitstride import _optim_lists, _optim_rules
from unitstride._optim_base import Group, Optimizer, Schedule
from unitstride._optim_classes import Params
from unitstride._optim_clip import ema_update
from unitstride._optim_matrix_steps import adafactor_step, lamb_step, muon_step

Array = NDArray[Any]


def _options(group: Group) -> dict[str, Any]:
    """Return the options of a group beside those that a step has of its own."""
    return {k: v for k, v in group.items() if k not in ("params", "lr")}


class _WholeArrays(Optimizer):
    """What they share: everything around the step of a function."""

    def _apply(
        self, group: Group, lr: float, params: list[Array], grads: list[Any], places: list[int]
    ) -> None:
        raise NotImplementedError

    def _kept(self, places: list[int], name: str) -> list[Any]:
        return [self._state[place].get(name) for place in places]

    def _step_group(
        self,
        group: Group,
        first: int,
        grads: list[Any],
        copies: list[Any] | None,
        grad_scale: float | None,
        clip_factor: float | None,
    ) -> tuple[float, bool]:
        chosen = [index for index, grad in enumerate(grads) if grad is not None]
        params = [group["params"][i] for i in chosen]
        given = [grads[i] for i in chosen]
        targets = None if copies is None else [copies[i] for i in chosen]
        _optim_lists.check_lists(
            self._name, ("params", "grads", "low_precision_copy"), (params, given, targets)
        )
        lr = self._rate(group)
        constants, scale, clipping, limit = _optim_rules.common(
            self._name,
            lr,
            self._number(group, "weight_decay"),
            False,
            False,
            grad_scale,
            clip_factor,
            self.max_norm if clip_factor is None else None,
        )
        norm = _optim_lists.run_norm(self._name, "grads", given) * scale
        if clip_factor is None and self.skip_nonfinite and not np.isfinite(norm):
            return norm, False
        factor = constants[0]
        if clipping and not limit / (norm + 1e-6) >= 1.0:
            factor *= limit / (norm + 1e-6)
        if factor != 1.0:
            given = [np.asarray(g * g.dtype.type(factor)) for g in given]
        self._apply(group, lr, params, given, [first + i for i in chosen])
        if self.ema is not None and chosen:
            ema_update([self.ema[first + i] for i in chosen], params, self.ema_decay or 0.0)
        for target, param in zip(targets or [], params, strict=False):
            target[...] = param
        self.step_count += 1
        return norm, True


class LAMB(_WholeArrays):
    """Adam's direction, as long as each array is large.

    Parameters
    ----------
    params, lr
        As for `Adam`.
    betas, eps, weight_decay, bias_correction, maximize
        As for `unitstride.lamb_step`.
    max_norm, skip_nonfinite, ema_decay, state_dtype
        As for `Adam`.

    Raises
    ------
    TypeError, ValueError
        As for `Adam`.

    Notes
    -----
    Formula, accuracy and complexity are those of `unitstride.lamb_step`.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import LAMB
    >>> x = np.array([3.0, 3.0])
    >>> optimizer = LAMB(x, lr=0.05)
    >>> for _ in range(300):
    ...     norm, stepped = optimizer.step(np.array([2.0, 8.0]) * x)  # of x0^2 + 4 x1^2
    >>> bool(np.abs(x).max() < 0.01)
    True
    """

    _STATES = ("exp_avg", "exp_avg_sq")

    def __init__(
        self,
        params: Params,
        lr: float | Schedule = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        *,
        bias_correction: bool = True,
        maximize: bool = False,
        max_norm: float | None = None,
        skip_nonfinite: bool = False,
        ema_decay: float | None = None,
        state_dtype: Any = None,
    ) -> None:
        options = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "bias_correction": bias_correction,
            "maximize": maximize,
        }
        super().__init__(params, options, max_norm, skip_nonfinite, ema_decay, state_dtype)

    def _constants(self, group: Group, step: int, lr: float) -> tuple[float, ...]:
        _optim_rules.check_betas(self._name, group["betas"])
        return (self._number(group, "eps"), self._number(group, "weight_decay"))

    def _apply(
        self, group: Group, lr: float, params: list[Array], grads: list[Any], places: list[int]
    ) -> None:
        m, v = (self._kept(places, name) for name in self._STATES)
        options = _options(group)
        lamb_step(params, grads, m, v, self.step_count + 1, lr=lr, **options)


class Adafactor(_WholeArrays):
    """Second moments of matrices as the product of two vectors.

    Parameters
    ----------
    params, lr
        As for `Adam`; `lr` is 1e-2 by default.
    beta2_decay, eps, d, weight_decay, maximize
        As for `unitstride.adafactor_step`.
    max_norm, skip_nonfinite, ema_decay, state_dtype
        As for `Adam`.

    Raises
    ------
    TypeError, ValueError
        As for `Adam`.

    Notes
    -----
    Formula, accuracy and complexity are those of `unitstride.adafactor_step`.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import Adafactor
    >>> x = np.ones((4, 3))
    >>> optimizer = Adafactor(x, lr=0.1)
    >>> norm, stepped = optimizer.step(x / 2)
    >>> x[0].round(3)
    array([0.9, 0.9, 0.9])
    """

    _STATES = ("row_var", "col_var", "variance")

    def __init__(
        self,
        params: Params,
        lr: float | Schedule = 1e-2,
        beta2_decay: float = -0.8,
        eps: tuple[float | None, float] = (None, 1e-3),
        d: float = 1.0,
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
            "beta2_decay": beta2_decay,
            "eps": eps,
            "d": d,
            "weight_decay": weight_decay,
            "maximize": maximize,
        }
        super().__init__(params, options, max_norm, skip_nonfinite, ema_decay, state_dtype)

    def _constants(self, group: Group, step: int, lr: float) -> tuple[float, ...]:
        return (self._number(group, "d"), self._number(group, "weight_decay"))

    def _fresh_state(self, group: Group, array: Array) -> dict[str, Array]:
        dtype = self._dtype_for(array)
        if array.ndim < 2:
            return {"variance": np.zeros(array.shape, dtype)}
        rows, columns = (*array.shape[:-1], 1), (*array.shape[:-2], 1, array.shape[-1])
        return {"row_var": np.zeros(rows, dtype), "col_var": np.zeros(columns, dtype)}

    def _apply(
        self, group: Group, lr: float, params: list[Array], grads: list[Any], places: list[int]
    ) -> None:
        rows, columns, own = (self._kept(places, name) for name in self._STATES)
        options = _options(group)
        adafactor_step(params, grads, rows, columns, own, self.step_count + 1, lr=lr, **options)


class Muon(_WholeArrays):
    """Momentum of matrices, brought to orthogonal ones.

    Parameters
    ----------
    params, lr
        As for `Adam`; all parameters are matrices.
    momentum, nesterov, weight_decay, ns_steps, ns_coefficients, adjust_lr, maximize
        As for `unitstride.muon_step`.
    max_norm, skip_nonfinite, ema_decay, state_dtype
        As for `Adam`.

    Raises
    ------
    TypeError, ValueError
        As for `Adam`; also ValueError for a parameter that is not a matrix.

    Notes
    -----
    Formula, accuracy and complexity are those of `unitstride.muon_step`.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import Muon
    >>> x = np.eye(3) + 1
    >>> optimizer = Muon(x, lr=0.03, weight_decay=0.0)
    >>> for _ in range(200):
    ...     norm, stepped = optimizer.step(2 * x)
    >>> bool(np.abs(x).max() < 0.1)
    True
    """

    _STATES = ("momentum_buffer",)

    def __init__(
        self,
        params: Params,
        lr: float | Schedule = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        *,
        ns_steps: int = 5,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.775, 2.0315),
        adjust_lr: str = "original",
        maximize: bool = False,
        max_norm: float | None = None,
        skip_nonfinite: bool = False,
        ema_decay: float | None = None,
        state_dtype: Any = None,
    ) -> None:
        options = {
            "lr": lr,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "nesterov": nesterov,
            "ns_steps": ns_steps,
            "ns_coefficients": ns_coefficients,
            "adjust_lr": adjust_lr,
            "maximize": maximize,
        }
        super().__init__(params, options, max_norm, skip_nonfinite, ema_decay, state_dtype)

    def _constants(self, group: Group, step: int, lr: float) -> tuple[float, ...]:
        return (self._number(group, "momentum", 1.0), self._number(group, "weight_decay"))

    def _fresh_state(self, group: Group, array: Array) -> dict[str, Array]:
        if array.ndim != 2:
            raise ValueError(f"{self._name}: `params` must be matrices, got shape {array.shape}")
        return super()._fresh_state(group, array)

    def _apply(
        self, group: Group, lr: float, params: list[Array], grads: list[Any], places: list[int]
    ) -> None:
        buffers = self._kept(places, "momentum_buffer")
        options = _options(group)
        muon_step(params, grads, buffers, lr=lr, **options)
