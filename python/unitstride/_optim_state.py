"""States of optimisers as plain arrays: taken out, put back, written to files and read."""

import json
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class SavedState:
    """What an optimiser has beside its parameters, and its way to files and back."""

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
        """Write `state_dict` to a file, as npz without pickle.

        Parameters
        ----------
        path : path
            Where to; written to exactly this name.
        """
        state = self.state_dict()
        head = json.dumps({"step": state["step"], "groups": state["groups"], "class": self._name})
        arrays = {"head": np.frombuffer(head.encode(), np.uint8)}
        for index, each in enumerate(state["state"]):
            arrays |= {f"state.{index}.{name}": _stored(value) for name, value in each.items()}
        for index, array in enumerate(state["ema"] or []):
            arrays[f"ema.{index}"] = _stored(array)
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
            with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            head = json.loads(bytes(arrays["head"]).decode())
            name, step, groups = head["class"], head["step"], head["groups"]
        except FileNotFoundError:
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


def _stored(array: Array) -> Array:
    """Return an array in a form that npz keeps: 16-bit types of others as their bits."""
    return array.view(np.uint16) if array.dtype.kind == "V" else array


def _restored(array: Array | None, like: Array) -> Array:
    if array is None:
        return np.empty(0, like.dtype)
    return array.view(like.dtype) if like.dtype.kind == "V" and array.dtype == np.uint16 else array
