"""What the optimiser classes share: parameter groups, their states, the step."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from unitstride import _optim_lists, _optim_rules, _optim_wide
from unitstride._optim_formats import BlockwiseState
from unitstride._optim_lists import Arrays
from unitstride._optim_state import SavedState

Array = NDArray[Any]
Schedule = Callable[[int], float]
Group = dict[str, Any]

SCALES = "_scales"  # of a state of 8 bits, after its name

# Options of every optimiser, and what they are when nothing is said.
_SHARED: dict[str, Any] = {"weight_decay": 0.0, "maximize": False}


class Optimizer(SavedState):
    """Parameter groups and their states; subclasses say which rule is applied."""

    _RULE: ClassVar[int]
    # All states in the order of the engine, which may skip some of them.
    _STATES: ClassVar[tuple[str, ...]]
    # Those that are never negative.
    _UNSIGNED: ClassVar[tuple[str, ...]] = (
        "exp_avg_sq",
        "max_exp_avg_sq",
        "exp_inf",
        "square_avg",
        "sum",
    )

    def __init__(
        self,
        params: Arrays | Sequence[Mapping[str, Any]],
        options: Mapping[str, Any],
        max_norm: float | None,
        skip_nonfinite: bool,
        ema_decay: float | None,
        state_dtype: Any,
    ) -> None:
        self.remembers = False
        self.max_norm = max_norm
        self.skip_nonfinite = skip_nonfinite
        self.ema_decay = ema_decay
        self.step_count = 0
        self.param_groups: list[Group] = []
        self._options = {**_SHARED, **options}
        self._state_dtype = None if state_dtype is None else np.dtype(state_dtype)
        self._state: list[dict[str, Array]] = []
        self.ema: list[Array] | None = None if ema_decay is None else []
        items: list[Any] = [params] if isinstance(params, np.ndarray) else list(params)
        if not items or isinstance(items[0], np.ndarray):
            items = [{"params": items}]
        for item in items:
            self.add_param_group(item)

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Add parameters with options of their own.

        Parameters
        ----------
        group : mapping
            ``params``, an array or a list of them, and any option of the class.

        Raises
        ------
        TypeError
            For something else than arrays, and for options that the class does not know.
        ValueError
            For read-only arrays, arrays that share memory, and options out of range.
        """
        if not isinstance(group, Mapping) or "params" not in group:
            raise TypeError(
                f"{self._name}: a group must be a mapping with `params`, got {group!r:.80}"
            )
        unknown = sorted(set(group) - {"params", *self._options})
        if unknown:
            raise TypeError(f"{self._name}: a group must not have the option `{unknown[0]}`")
        given = _optim_lists.as_list(self._name, "params", group["params"])
        others = [array for each in self.param_groups for array in each["params"]]
        checked = _optim_lists.check_lists(self._name, ("params",), ([*others, *given],))[0]
        assert checked is not None
        arrays = checked[len(others) :]
        added: Group = {**self._options, **group, "params": arrays}
        self._constants(added, 1, self._rate(added))  # checks the options
        self._state += [self._fresh_state(added, array) for array in arrays]
        if self.ema is not None:
            self.ema += [np.array(array, order="K") for array in arrays]
        self.param_groups.append(added)

    def _dtype_for(self, array: Array) -> np.dtype[Any]:
        """Return the dtype of the states of a parameter."""
        chosen: np.dtype[Any] | None = self._state_dtype
        if chosen is not None:
            return chosen
        return np.dtype(np.float32 if array.dtype.itemsize == 2 else array.dtype)

    def _fresh_state(self, group: Group, array: Array) -> dict[str, Array]:
        dtype = self._dtype_for(array)
        if dtype == np.uint8:
            return self._fresh_blocks(group, array)
        fresh = {name: np.zeros_like(array, dtype=dtype) for name in self._wanted(group)}
        self._fill_state(group, fresh)
        return fresh

    def _fresh_blocks(self, group: Group, array: Array) -> dict[str, Array]:
        """Return states of 8 bits: codes, and scales beside them."""
        fresh: dict[str, Array] = {}
        for name in self._wanted(group):
            state = BlockwiseState(array.shape, name not in self._UNSIGNED)
            fresh |= {name: state.codes, f"{name}{SCALES}": state.scales}
        return fresh

    def _state_of(self, place: int, name: str) -> Any:
        """Return a state as a step takes it."""
        state = self._state[place]
        if state[name].dtype != np.uint8:
            return state[name]
        return BlockwiseState.of(state[name], state[f"{name}{SCALES}"], name not in self._UNSIGNED)

    def _fill_state(self, group: Group, state: dict[str, Array]) -> None:
        """Set states that do not begin with zeros."""

    def _wanted(self, group: Group) -> tuple[str, ...]:
        """Return the states that a group has."""
        return self._STATES

    def _formats(self, group: Group, places: list[int]) -> _optim_wide.Formats:
        """Return how 16-bit numbers are rounded, for the parameters at some places."""
        return _optim_wide.Formats()

    def _constants(self, group: Group, step: int, lr: float) -> tuple[float, ...]:
        """Check the options of a group and return the constants of the rule."""
        raise NotImplementedError

    def _decoupled(self, group: Group) -> bool:
        return False

    def _number(self, group: Group, option: str, high: float = math.inf) -> float:
        """Return an option of a group that is a number in [0, high)."""
        return _optim_rules.check_number(self._name, option, group[option], 0.0, high)

    def _rate(self, group: Group) -> float:
        lr = group["lr"]
        return _optim_rules.check_number(
            self._name, "lr", lr(self.step_count) if callable(lr) else lr
        )

    @property
    def params(self) -> list[Array]:
        """All parameters, group after group."""
        return [array for group in self.param_groups for array in group["params"]]

    def step(
        self,
        grads: Any,
        *,
        grad_scale: float | None = None,
        low_precision_copy: Arrays | None = None,
    ) -> tuple[float, bool]:
        """Take one step, in place.

        Parameters
        ----------
        grads : ndarray or list of ndarray or None
            Gradients in the order of `params`; None for a parameter that has none: it stays as
            it is, and so do its states.
        grad_scale : float, optional
            Gradients are divided by it first.
        low_precision_copy : ndarray or list of ndarray, optional
            Arrays in the order of `params` that receive the new parameters in their own dtype.

        Returns
        -------
        grad_norm : float
            The norm of all gradients, divided by `grad_scale`, before clipping.
        stepped : bool
            False if the step was skipped for a NaN or an infinity.

        Raises
        ------
        TypeError, ValueError
            As for `unitstride.adam_step`; nothing is written then.
        """
        everything = self.params
        found = _optim_lists.as_list(self._name, "grads", grads)
        if len(found) != len(everything):
            raise ValueError(
                f"{self._name}: `grads` must have {len(everything)} arrays, got {len(found)}"
            )
        copies = (
            None
            if low_precision_copy is None
            else _optim_lists.as_list(self._name, "low_precision_copy", low_precision_copy)
        )
        if copies is not None and len(copies) != len(everything):
            raise ValueError(
                f"{self._name}: `low_precision_copy` must have {len(everything)} arrays, "
                f"got {len(copies)}"
            )
        self._remember()
        if len(self.param_groups) == 1:
            return self._step_group(self.param_groups[0], 0, found, copies, grad_scale, None)
        return self._step_groups(found, copies, grad_scale)

    def _step_groups(
        self, grads: list[Any], copies: list[Any] | None, grad_scale: float | None
    ) -> tuple[float, bool]:
        """Take the steps of several groups, clipped and skipped together."""
        pairs = [(p, g) for p, g in zip(self.params, grads, strict=True) if g is not None]
        _optim_lists.check_lists(
            self._name, ("params", "grads"), ([p for p, _ in pairs], [g for _, g in pairs])
        )
        scale = _optim_rules.check_number(
            self._name, "grad_scale", 1.0 if grad_scale is None else grad_scale, open_low=True
        )
        norm = _optim_lists.run_norm(self._name, "grads", [g for _, g in pairs]) / scale
        if self.skip_nonfinite and not np.isfinite(norm):
            return norm, False
        factor = None
        if self.max_norm is not None:
            factor = self.max_norm / (norm + 1e-6)
            factor = factor if not factor >= 1.0 else None
        first, before = 0, self.step_count
        for group in self.param_groups:
            last = first + len(group["params"])
            self.step_count = before
            self._step_group(
                group,
                first,
                grads[first:last],
                None if copies is None else copies[first:last],
                grad_scale,
                1.0 if factor is None else factor,
            )
            first = last
        self.step_count = before + 1
        return norm, True

    def _step_group(
        self,
        group: Group,
        first: int,
        grads: list[Any],
        copies: list[Any] | None,
        grad_scale: float | None,
        clip_factor: float | None,
    ) -> tuple[float, bool]:
        """Take the step of one group; a factor that is given has been clipped with already."""
        chosen = [index for index, grad in enumerate(grads) if grad is not None]
        names = self._wanted(group)
        lr = self._rate(group)
        states: list[list[Array] | None] = [
            [self._state_of(first + i, name) for i in chosen] if name in names else None
            for name in self._STATES
        ]
        states += [None] * (3 - len(states))
        ema = self.ema
        shared = _optim_rules.common(
            self._name,
            lr,
            _optim_rules.check_number(self._name, "weight_decay", group["weight_decay"]),
            self._decoupled(group),
            group["maximize"],
            grad_scale,
            clip_factor,
            self.max_norm if clip_factor is None else None,
            group.get("compat") == "optax",
            0.0 if self.ema_decay is None else self.ema_decay,
            self._constants(group, self.step_count + 1, lr),
        )
        arrays = (
            [group["params"][i] for i in chosen],
            [grads[i] for i in chosen],
            *states,
            None if ema is None else [ema[first + i] for i in chosen],
            None if copies is None else [copies[i] for i in chosen],
        )
        formats = self._formats(group, [first + i for i in chosen])
        run = _optim_lists.run_step
        if _optim_wide.wants(arrays, formats):
            run = partial(_optim_wide.run_step, formats=formats, step=self.step_count + 1)
        norm, stepped = run(
            self._name,
            self._RULE,
            ("params", "grads", *(*self._STATES, "", "", "")[:3], "ema", "low_precision_copy"),
            arrays,
            *shared,
            self.skip_nonfinite and clip_factor is None,
        )
        self.step_count += stepped
        return norm, stepped

    def __repr__(self) -> str:
        lines = [f"{self._name}(step {self.step_count}"]
        for group in self.param_groups:
            count = sum(array.size for array in group["params"])
            options = ", ".join(f"{k}={v!r}" for k, v in group.items() if k != "params")
            lines.append(f"  {len(group['params'])} arrays, {count} elements: {options}")
        return "\n".join(lines) + ")"
