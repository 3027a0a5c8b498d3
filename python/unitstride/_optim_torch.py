"""States of PyTorch's optimisers, taken over and given back."""

import importlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# Options that have another name there.
_OPTIONS = {"decoupled": "decoupled_weight_decay", "adjust_lr": "adjust_lr_fn"}


def as_array(value: Any) -> Array:
    """Return a tensor or an array as an array, 16-bit ones as float32; torch is not imported."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        if str(value.dtype) in ("torch.bfloat16", "torch.float16"):
            value = value.float()
        value = value.numpy()
    return np.asarray(value)


def plain(value: Any) -> Any:
    """Return an option as Python's own numbers; tensors of one element become numbers."""
    if isinstance(value, list | tuple):
        return tuple(plain(item) for item in value)
    if hasattr(value, "item"):
        return value.item()
    return value


def read(
    name: str, given: Any, counts: list[int], options: Mapping[str, Any]
) -> tuple[int, list[dict[str, Any]], list[dict[str, Array]]]:
    """Return the step, the options of each group and the states of each parameter.

    `counts` are the numbers of parameters in each group, `options` the names that are known.
    """
    state = given.state_dict() if hasattr(given, "state_dict") else given
    if not isinstance(state, Mapping) or "state" not in state or "param_groups" not in state:
        raise ValueError(f"{name}: the state must have `state` and `param_groups` as PyTorch's has")
    groups, entries = list(state["param_groups"]), state["state"]
    found = [len(group["params"]) for group in groups]
    if found != counts:
        raise ValueError(f"{name}: the state must be of {counts} parameters, got {found}")
    chosen: list[dict[str, Any]] = []
    arrays: list[dict[str, Array]] = []
    steps: set[int] = set()
    for group in groups:
        own = {}
        for option in options:
            there = _OPTIONS.get(option, option)
            if group.get(there) is not None and not callable(options[option]):
                own[option] = plain(group[there])
        chosen.append(own)
        for key in group["params"]:
            entry = dict(entries.get(key, {}))
            step = entry.pop("step", None)
            if step is not None:
                steps.add(int(plain(step)))
            arrays.append({k: as_array(v) for k, v in entry.items() if v is not None})
    if len(steps) > 1:
        raise ValueError(
            f"{name}: all parameters must have taken the same steps, got {sorted(steps)}"
        )
    return (steps.pop() if steps else -1), chosen, arrays


def written(
    name: str,
    step: int,
    groups: list[dict[str, Any]],
    states: list[dict[str, Array]],
    counts: list[int],
) -> dict[str, Any]:
    """Return what PyTorch's `load_state_dict` takes: of the class that has this name there."""
    try:
        torch = importlib.import_module("torch")
    except ImportError:
        raise ImportError("to_torch needs PyTorch: pip install torch") from None

    def tensor(array: Array) -> Any:
        if array.dtype.name == "bfloat16":
            return torch.from_numpy(array.astype(np.float32)).to(torch.bfloat16)
        return (
            torch.from_numpy(np.array(array, order="C")) if np.ndim(array) else torch.tensor(array)
        )

    entries: dict[int, dict[str, Any]] = {}
    for index, state in enumerate(states):
        entry = {name: tensor(array) for name, array in state.items()}
        if step > 0:
            entries[index] = {"step": torch.tensor(float(step)), **entry}
    theirs = getattr(torch.optim, name, None)
    defaults = {} if theirs is None else theirs([torch.zeros(1, 1)]).defaults
    first, found = 0, []
    for group, count in zip(groups, counts, strict=True):
        own = {_OPTIONS.get(k, k): v for k, v in group.items()}
        own = {k: v for k, v in own.items() if k in defaults or not defaults}
        found.append({**defaults, **own, "params": list(range(first, first + count))})
        first += count
    return {"state": entries, "param_groups": found}
