"""Steps with few bits: 8-bit states, random rounding, what rounding takes off parameters."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unitstride import _optim_lists, _optim_rules
from unitstride._backend import core
from unitstride._optim_formats import BLOCK, BlockwiseState
from unitstride._optim_lists import GRADS, Arrays
from unitstride._reference import optim as twin
from unitstride._reference.optim_narrow import key_of

Array = NDArray[Any]

ROUNDINGS = ("nearest", "stochastic")
_PARAMS, _FIRST_STATE, _EMA = 0, 2, 5


class Formats(NamedTuple):
    """How 16-bit numbers are rounded, and what is kept of the rounding."""

    rounding: str = "nearest"
    seed: int = 0
    kahan: Arrays | None = None
    places: Sequence[int] | None = None  # of the parameters in the whole list


def wants(arrays: Sequence[Any], formats: Formats) -> bool:
    """Say whether a step needs this module: its states, its rounding, its compensation."""
    if formats.rounding != "nearest" or formats.kahan is not None:
        return True
    states = arrays[_FIRST_STATE:_EMA]
    firsts = (state[0] if isinstance(state, list | tuple) and state else state for state in states)
    return any(isinstance(first, BlockwiseState) for first in firsts)


def _is_blockwise(value: Any) -> bool:
    items = value if isinstance(value, list | tuple) else (value,)
    return any(isinstance(item, BlockwiseState) for item in items)


def _check_blockwise(function: str, label: str, state: Any, like: Array) -> None:
    if not isinstance(state, BlockwiseState):
        raise TypeError(
            f"{function}: `{label}` must be a BlockwiseState as the others are, "
            f"got {type(state).__name__}"
        )
    if state.shape != like.shape:
        raise ValueError(f"{function}: `{label}` must have shape {like.shape}, got {state.shape}")
    if state.codes.dtype != np.uint8 or state.scales.dtype != np.float32:
        raise ValueError(f"{function}: `{label}` must have codes of uint8 and scales of float32")
    if not state.codes.flags.c_contiguous or state.scales.shape != (-(-like.size // BLOCK),):
        raise ValueError(
            f"{function}: `{label}` must have contiguous codes and a scale for each {BLOCK}"
        )
    if not (state.codes.flags.writeable and state.scales.flags.writeable):
        raise ValueError(f"{function}: `{label}` must be writeable, got read-only arrays")


def _checked(
    function: str, names: Sequence[str], arrays: Sequence[Any], formats: Formats
) -> tuple[list[list[Any] | None], list[Array] | None]:
    """Check everything before anything is written."""
    rounding = _optim_rules.check_choice(function, "rounding", formats.rounding, ROUNDINGS)
    if not hasattr(formats.seed, "__index__"):
        raise TypeError(f"{function}: `seed` must be an integer, got {formats.seed!r}")
    if formats.kahan is not None and rounding == "stochastic":
        raise ValueError(f"{function}: `rounding` must be nearest with `kahan`, got 'stochastic'")
    in_blocks = {k for k in range(_FIRST_STATE, _EMA) if _is_blockwise(arrays[k])}
    plain = [None if k in in_blocks else array for k, array in enumerate(arrays)]
    names = (*names, "kahan")
    checked = _optim_lists.check_lists(function, names, (*plain, formats.kahan))
    params, kahan = checked[_PARAMS], checked[-1]
    assert params is not None
    for index, (own, like) in enumerate(zip(kahan or [], params, strict=False)):
        if own.dtype != like.dtype or like.dtype.itemsize != 2:
            raise ValueError(
                f"{function}: `kahan[{index}]` must be of the 16-bit dtype of its parameter, "
                f"got {own.dtype} for {like.dtype}"
            )
    found: list[list[Any] | None] = list(checked[:-1])
    for operand in in_blocks:
        given = arrays[operand]
        states = list(given) if isinstance(given, list | tuple) else [given]
        if len(states) != len(params):
            raise ValueError(
                f"{function}: `{names[operand]}` must have {len(params)} arrays, got {len(states)}"
            )
        for index, (state, like) in enumerate(zip(states, params, strict=True)):
            _check_blockwise(function, f"{names[operand]}[{index}]", state, like)
        found[operand] = states
    if in_blocks:
        _optim_lists.check_overlap(function, list(_labelled(names, [*found, kahan])))
    return found, kahan


def _labelled(
    names: Sequence[str], lists: Sequence[list[Any] | None]
) -> Iterator[tuple[str, Array, bool]]:
    """Yield all arrays, with names and whether they are written."""
    for operand, (name, items) in enumerate(zip(names, lists, strict=True)):
        for index, item in enumerate(items or []):
            label = f"{name}[{index}]"
            if isinstance(item, BlockwiseState):
                yield f"{label}.codes", item.codes, True
                yield f"{label}.scales", item.scales, True
            else:
                yield label, item, operand != GRADS


def run_step(
    function: str,
    rule: int,
    names: Sequence[str],
    arrays: tuple[Any, ...],
    constants: tuple[float, ...],
    scale: float,
    clipping: int,
    max_norm: float,
    skip_nonfinite: bool,
    formats: Formats,
    step: int,
) -> tuple[float, bool]:
    """Take one step, as `_optim_lists.run_step` does."""
    for name, array in zip(
        names, arrays[: GRADS + 1 + _optim_rules.NEEDED_STATES[rule]], strict=False
    ):
        if array is None:
            raise TypeError(f"{function}: `{name}` must be an array or a list of arrays, got None")
    lists, kahan = _checked(function, names, arrays, formats)
    keys = _keys(formats, step, len(lists[_PARAMS] or []))
    settings = (constants, scale, clipping, max_norm, skip_nonfinite)
    done: tuple[float, bool] | None = None
    if core is not None:
        stored = [_in_bytes(states) for states in lists[_FIRST_STATE:_EMA]]
        plain = (*lists[:_FIRST_STATE], *(codes for codes, _ in stored), *lists[_EMA:])
        scales = tuple(each for _, each in stored)
        done = core.optim_step_narrow(rule, plain, *settings, scales, kahan, keys)
    if done is None:
        done = twin.optim_step(rule, lists, *settings, True, twin.Narrow(kahan, keys))
    return done


def _in_bytes(states: list[Any] | None) -> tuple[list[Array] | None, list[Any] | None]:
    """Return the arrays of states, and the scales of those of 8 bits with their signs."""
    if not states or not isinstance(states[0], BlockwiseState):
        return states, None
    return [state.codes for state in states], [(state.scales, state.signed) for state in states]


def _keys(formats: Formats, step: int, count: int) -> list[int] | None:
    """Return the keys of the parameters' random bits."""
    if formats.rounding == "nearest":
        return None
    seed = formats.seed.__index__()
    return [key_of(seed, step, place) for place in formats.places or range(count)]
