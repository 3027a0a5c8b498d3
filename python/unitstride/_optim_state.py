"""States of optimisers as plain arrays: taken out, put back, written to files and read."""

import importlib
import json
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unitstride import _optim_torch

Array = NDArray[Any]


class SavedState:
    """What an optimiser has beside its parameters, and its way to files and back."""

    # Whether a step keeps what `rollback` needs.
    remembers: bool
    step_count: int
    param_groups: list[dict[str, Any]]
    ema: list[Array] | None
    _state: list[dict[str, Array]]
    _options: dict[str, Any]

    @property
    def _name(self) -> str:
        return type(self).__name__

    def state_dict(self) -> dict[str, Any]:
        """Return everything but the parameters: copies of plain arrays, and plain numbers.

        Returns
        -------
        dict
            ``step``; ``state``, a list of dictionaries of arrays, one for each parameter;
            ``ema``, a list of arrays or None; ``groups``, the options of each group. A schedule
            has no value that could be saved: its option is left out.
        """
        groups = [
            {k: v for k, v in group.items() if k != "params" and not callable(v)}
            for group in self.param_groups
        ]
        return {
            "step": self.step_count,
            "groups": groups,
            "state": [{k: v.copy() for k, v in each.items()} for each in self._state],
            "ema": None if self.ema is None else [array.copy() for array in self.ema],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned, into an optimiser of the same parameters.

        Parameters
        ----------
        state : mapping
            As returned by `state_dict`.

        Raises
        ------
        ValueError
            Where parts are missing, or arrays differ in number, name, shape or dtype from those
            of this optimiser. Nothing is changed then.
        """
        try:
            step, groups = int(state["step"]), list(state["groups"])
            arrays, ema = list(state["state"]), state["ema"]
        except (KeyError, TypeError) as error:
            raise ValueError(f"{self._name}: the state has no part {error}") from None
        if len(groups) != len(self.param_groups):
            raise ValueError(
                f"{self._name}: the state must have {len(self.param_groups)} groups, "
                f"got {len(groups)}"
            )
        for group in groups:
            unknown = sorted(set(group) - set(self._options))
            if unknown:
                raise ValueError(f"{self._name}: the state has an unknown option `{unknown[0]}`")
        self._check_like("state", self._state, arrays)
        if (ema is None) != (self.ema is None):
            raise ValueError(f"{self._name}: only one of state and optimiser has averages (ema)")
        own = [{"ema": array} for array in self.ema or []]
        self._check_like("ema", own, [{"ema": array} for array in ema or []])
        self.step_count = step
        for group, options in zip(self.param_groups, groups, strict=True):
            group.update(options)
        for each, given in zip(self._state, arrays, strict=True):
            for name, array in each.items():
                array[...] = given[name]
        for mine, array in zip(self.ema or [], ema or [], strict=True):
            mine[...] = array

    # The last step.

    def _everything(self) -> list[Array]:
        """Return all arrays that a step changes."""
        arrays = [array for group in self.param_groups for array in group["params"]]
        arrays += [array for each in self._state for array in each.values()]
        return arrays + list(self.ema or [])

    def _remember(self) -> None:
        """Keep what a step is about to change, where that is wanted."""
        self._last: tuple[int, list[Array]] | None = None
        if self.remembers:
            self._last = self.step_count, [array.copy() for array in self._everything()]

    def rollback(self) -> None:
        """Take the last step back: parameters, states and averages are what they were before it.

        That needs copies of them, which are made before each step once `remembers` is set: it
        doubles the memory, and a step takes about twice its time.

        Raises
        ------
        RuntimeError
            Where there is no step to take back: none was taken since `remembers` was set, or the
            last one was taken back already.
        """
        last = getattr(self, "_last", None)
        if last is None:
            raise RuntimeError(
                f"{self._name}: there is no step to take back; set `remembers` to True before the "
                "step, which is taken back once"
            )
        self.step_count = last[0]
        for array, before in zip(self._everything(), last[1], strict=True):
            array[...] = before
        self._last = None

    # PyTorch's states.

    def from_torch(self, state: Any) -> None:
        """Take over the state of PyTorch's optimiser of the same name and parameters.

        Parameters
        ----------
        state : mapping or torch.optim.Optimizer
            What its `state_dict` returned, or the optimiser itself; PyTorch is not imported.
            Parameters that took no step there have no state, which becomes zeros.

        Raises
        ------
        ValueError
            For states that do not fit; nothing is changed then.
        """
        counts = [len(group["params"]) for group in self.param_groups]
        step, groups, given = _optim_torch.read(self._name, state, counts, self._options)
        arrays = []
        for own, other in zip(self._state, given, strict=True):
            found = {}
            for name, like in own.items():
                value = other.get(name)
                if like.dtype == np.uint8 or (value is not None and value.shape != like.shape):
                    raise ValueError(
                        f"{self._name}: `{name}` must be of shape {like.shape} and not of 8 bits, "
                        f"got {None if value is None else value.shape}"
                    )
                found[name] = np.zeros_like(like) if value is None else value.astype(like.dtype)
            arrays.append(found)
        if step < 0:  # PyTorch counts no steps for some
            step = self.step_count if not any(given) else max(self.step_count, 1)
        self.load_state_dict({"step": step, "groups": groups, "state": arrays, "ema": self.ema})

    def to_torch(self) -> dict[str, Any]:
        """Return the state as PyTorch's `load_state_dict` takes it: needs PyTorch.

        Returns
        -------
        dict
            ``state`` and ``param_groups``, with tensors that are copies.

        Raises
        ------
        ImportError
            Without PyTorch.
        ValueError
            For states of 8 bits, which PyTorch does not have.
        """
        if any(array.dtype == np.uint8 for each in self._state for array in each.values()):
            raise ValueError(f"{self._name}: PyTorch has no states of 8 bits")
        own = self.state_dict()
        counts = [len(group["params"]) for group in self.param_groups]
        states = [
            {**state, **self._torch_numbers(group)}
            for state, group in zip(own["state"], self._groups_of_params(), strict=True)
        ]
        return _optim_torch.written(self._name, self.step_count, own["groups"], states, counts)

    def _groups_of_params(self) -> list[dict[str, Any]]:
        return [group for group in self.param_groups for _ in group["params"]]

    def _torch_numbers(self, group: dict[str, Any]) -> dict[str, Array]:
        """Return states of PyTorch's that are functions of the step here."""
        return {}

    def _check_like(
        self, part: str, own: Sequence[Mapping[str, Array]], given: Sequence[Any]
    ) -> None:
        if len(own) != len(given):
            raise ValueError(
                f"{self._name}: `{part}` must be of {len(own)} parameters, got {len(given)}"
            )
        for index, (mine, other) in enumerate(zip(own, given, strict=True)):
            if set(mine) != set(other):
                raise ValueError(
                    f"{self._name}: `{part}[{index}]` must have {sorted(mine)}, got {sorted(other)}"
                )
            for name, array in mine.items():
                got = np.asarray(other[name])
                if got.shape != array.shape or got.dtype != array.dtype:
                    raise ValueError(
                        f"{self._name}: `{part}[{index}]['{name}']` must be {array.dtype} of shape "
                        f"{array.shape}, got {got.dtype} of shape {got.shape}"
                    )

    def save(self, path: str | PathLike[str]) -> None:
        """Write `state_dict` to a file, as npz without pickle, or as safetensors.

        Parameters
        ----------
        path : path
            Where to; written to exactly this name. One that ends in ``.safetensors`` is written in
            that format.

        Raises
        ------
        ImportError
            For safetensors, where that package is not installed.
        """
        state = self.state_dict()
        head = json.dumps({"step": state["step"], "groups": state["groups"], "class": self._name})
        arrays = {"head": np.frombuffer(head.encode(), np.uint8)}
        for index, each in enumerate(state["state"]):
            arrays |= {f"state.{index}.{name}": _stored(value) for name, value in each.items()}
        for index, array in enumerate(state["ema"] or []):
            arrays[f"ema.{index}"] = _stored(array)
        if _is_safetensors(path):
            own = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
            _safetensors().save_file(own, path)
            return
        with open(path, "wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]

    def load(self, path: str | PathLike[str]) -> None:
        """Read what `save` wrote, into an optimiser of the same parameters.

        Parameters
        ----------
        path : path
            The file.

        Raises
        ------
        ValueError
            For a file that is damaged or does not fit; nothing is changed then.
        """
        try:
            arrays = _read(path)
            head = json.loads(bytes(arrays["head"]).decode())
            name, step, groups = head["class"], head["step"], head["groups"]
        except (FileNotFoundError, ImportError):
            raise
        except Exception as error:
            raise ValueError(f"{self._name}: {path} is not a saved state: {error}") from error
        if name != self._name:
            raise ValueError(f"{self._name}: {path} holds the state of {name}")
        state = [
            {key: _restored(arrays.get(f"state.{index}.{key}"), like) for key, like in each.items()}
            for index, each in enumerate(self._state)
        ]
        ema = None
        if self.ema is not None:
            ema = [_restored(arrays.get(f"ema.{i}"), like) for i, like in enumerate(self.ema)]
        expected = sum(map(len, state)) + len(ema or []) + 1
        if expected != len(arrays):
            raise ValueError(f"{self._name}: {path} has {len(arrays)} arrays, expected {expected}")
        self.load_state_dict({"step": step, "groups": groups, "state": state, "ema": ema})


def _is_safetensors(path: str | PathLike[str]) -> bool:
    return str(path).endswith(".safetensors")


def _safetensors() -> Any:
    try:
        return importlib.import_module("safetensors.numpy")
    except ImportError:
        raise ImportError(
            "files that end in .safetensors need that package: pip install safetensors"
        ) from None


def _read(path: str | PathLike[str]) -> dict[str, Array]:
    if _is_safetensors(path):
        found: dict[str, Array] = _safetensors().load_file(path)
        return found
    with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _stored(array: Array) -> Array:
    """Return an array in a form that npz keeps: 16-bit types of others as their bits."""
    return array.view(np.uint16) if array.dtype.kind == "V" else array


def _restored(array: Array | None, like: Array) -> Array:
    if array is None:
        return np.empty(0, like.dtype)
    return array.view(like.dtype) if like.dtype.kind == "V" and array.dtype == np.uint16 else array
