"""Lists of parameters, gradients and states: their checks, and the way to the core or the twin."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unitstride import _arguments, _outputs
from unitstride._backend import core
from unitstride._optim_rules import NEEDED_STATES, check_number, common
from unitstride._reference import optim as twin

Array = NDArray[Any]
# An array, or a list of them.
Arrays = Array | Sequence[Array]

# Operands of a step: parameter, gradient, three states, moving average, copy.
GRADS = 1
_DTYPES = ("float16", "bfloat16", "float32", "float64")


def as_list(function: str, name: str, value: Any) -> list[Any]:
    """Return the arrays of an argument: of one array, or of a list."""
    if isinstance(value, np.ndarray | np.generic):
        return [value]
    if not isinstance(value, list | tuple):
        raise TypeError(
            f"{function}: `{name}` must be an array or a list of arrays, got {type(value).__name__}"
        )
    return list(value)


def _label(name: str, value: Any, index: int) -> str:
    return name if isinstance(value, np.ndarray | np.generic) else f"{name}[{index}]"


def check_array(function: str, label: str, array: Any, is_written: bool) -> Array:
    """Raise unless an item is an array of one of the four dtypes, and writeable if it must be.

    Arithmetic on arrays without axes gives scalars: a gradient may be one.
    """
    if not is_written and isinstance(array, np.generic):
        array = np.asarray(array)
    if not isinstance(array, np.ndarray) or isinstance(array, np.ma.MaskedArray):
        raise TypeError(f"{function}: `{label}` must be a NumPy array, got {type(array).__name__}")
    if array.dtype.name not in _DTYPES:
        raise TypeError(
            f"{function}: `{label}` must be float16, bfloat16, float32 or float64, "
            f"got {_arguments.dtype_label(array.dtype)}"
        )
    if core is not None and array.dtype.name == "bfloat16":
        core.set_bfloat16_number(array.dtype.num)
    if is_written and not array.flags.writeable:
        raise ValueError(f"{function}: `{label}` must be writeable, got a read-only array")
    if is_written and _outputs.overlaps_itself(array):
        raise ValueError(
            f"{function}: `{label}` must not overlap itself, got strides {array.strides}"
        )
    return array.view(np.ndarray)


def _touching(
    labelled: Sequence[tuple[str, Array, bool]],
) -> Iterator[tuple[tuple[str, Array, bool], tuple[str, Array, bool]]]:
    """Yield pairs of arrays whose extents in memory meet, one of them written."""
    ends = []
    for item in labelled:
        if item[1].size:
            low, high = np.lib.array_utils.byte_bounds(item[1])
            ends.append((low, high, item))
    ends.sort(key=lambda end: end[0])
    open_ends: list[tuple[int, int, tuple[str, Array, bool]]] = []
    for end in ends:
        open_ends = [other for other in open_ends if other[1] > end[0]]
        for other in open_ends:
            if end[2][2] or other[2][2]:
                yield other[2], end[2]
        open_ends.append(end)


def check_overlap(function: str, labelled: Sequence[tuple[str, Array, bool]]) -> None:
    """Raise if a written array shares an element with another one."""
    order = {name: position for position, (name, _, _) in enumerate(labelled)}
    faults = []
    for first, second in _touching(labelled):
        if np.shares_memory(first[1], second[1]):
            early, late = sorted((first[0], second[0]), key=order.__getitem__)
            faults.append((order[late], order[early], late, early))
    if faults:
        _, _, late, early = min(faults)
        raise ValueError(f"{function}: `{late}` must not share memory with `{early}`")


def check_lists(
    function: str, names: Sequence[str], arrays: Sequence[Any]
) -> tuple[list[Array] | None, ...]:
    """Check all arrays of a step and return them as lists; errors name the first offender."""
    first: list[Any] | None = None
    lists: list[list[Array] | None] = []
    labelled: list[tuple[str, Array, bool]] = []
    for operand, value in enumerate(arrays):
        if value is None:
            lists.append(None)
            continue
        name, is_written = names[operand], operand != GRADS
        items = as_list(function, name, value)
        if first is None:
            first = items
        if len(items) != len(first):
            raise ValueError(
                f"{function}: `{name}` must have {len(first)} arrays, got {len(items)}"
            )
        checked = []
        for index, (item, like) in enumerate(zip(items, first, strict=True)):
            label = _label(name, value, index)
            array = check_array(function, label, item, is_written)
            if array.shape != like.shape:
                raise ValueError(
                    f"{function}: `{label}` must have shape {like.shape}, got {array.shape}"
                )
            checked.append(array)
            labelled.append((label, array, is_written))
        lists.append(checked)
    check_overlap(function, labelled)
    return tuple(lists)


def run_step(
    function: str,
    rule: int,
    names: Sequence[str],
    arrays: tuple[Any, ...],
    constants: tuple[float, ...],
    scale: float = 1.0,
    clipping: int = 0,
    max_norm: float = 0.0,
    skip_nonfinite: bool = False,
) -> tuple[float, bool]:
    """Take one step on the core, or the twin; return the gradient norm and whether it was taken.

    The core looks at the lists itself. What it does not recognise is checked here, and goes to
    the core again, or to the twin, when nothing is wrong with it.
    """
    for name, array in zip(names, arrays[: GRADS + 1 + NEEDED_STATES[rule]], strict=False):
        if array is None:
            raise TypeError(f"{function}: `{name}` must be an array or a list of arrays, got None")
    skip_nonfinite = bool(skip_nonfinite)
    done: tuple[float, bool] | None = None
    if core is not None:
        done = core.optim_step(
            rule, arrays, constants, scale, clipping, max_norm, skip_nonfinite, False
        )
        if done is not None:
            return done
    lists = check_lists(function, names, arrays)
    settings = (constants, scale, clipping, max_norm, skip_nonfinite, True)
    if core is not None:
        done = core.optim_step(rule, lists, *settings)
    return twin.optim_step(rule, lists, *settings) if done is None else done


def take_step(
    function: str,
    rule: int,
    states: tuple[str, ...],
    arrays: tuple[Any, ...],
    numbers: tuple[float, ...],
    lr: float,
    weight_decay: float,
    decoupled: bool,
    maximize: bool,
    grad_scale: float | None,
    clip_factor: float | None,
    max_norm: float | None,
    ema_decay: float,
    skip_nonfinite: bool,
    clips_as_optax: bool = False,
    run: Callable[..., tuple[float, bool]] | None = None,
) -> tuple[float, bool]:
    """Take a step of a public function, with the options that all of them have.

    `run` takes the step instead of `run_step`.
    """
    shared = common(
        function,
        lr,
        check_number(function, "weight_decay", weight_decay),
        decoupled,
        maximize,
        grad_scale,
        clip_factor,
        max_norm,
        clips_as_optax,
        ema_decay,
        numbers,
    )
    names = ("params", "grads", *states, *("state",) * (3 - len(states)))
    names = (*names, "ema", "low_precision_copy")
    return (run or run_step)(function, rule, names, arrays, *shared, skip_nonfinite)


def run_norm(function: str, name: str, grads: Any) -> float:
    """Return the norm of all arrays of a list together."""
    if grads is None:
        raise TypeError(f"{function}: `{name}` must be an array or a list of arrays, got None")
    norm: float | None = core.optim_norm(grads) if core is not None else None
    if norm is not None:
        return norm
    items = as_list(function, name, grads)
    arrays = [
        check_array(function, _label(name, grads, index), item, False)
        for index, item in enumerate(items)
    ]
    if core is not None:
        norm = core.optim_norm(arrays)
    return twin.optim_norm(arrays) if norm is None else norm
