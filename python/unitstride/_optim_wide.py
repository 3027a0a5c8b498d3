"""Steps whose parameters or states are not what the engine computes with.

Arrays are taken in pieces that stay in a cache: decoded to float32, stepped by the engine, encoded.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unitstride import _optim_lists, _optim_rules
from unitstride._optim_formats import BLOCK, BlockwiseState, key_of, round_stochastically
from unitstride._optim_lists import GRADS, Arrays

Array = NDArray[Any]

ROUNDINGS = ("nearest", "stochastic")
_PIECE = 256 * BLOCK  # elements
_PARAMS, _FIRST_STATE, _EMA, _COPY = 0, 2, 5, 6


class Formats(NamedTuple):
    """How 16-bit numbers are rounded, and what is kept of the rounding."""

    rounding: str = "nearest"
    seed: int = 0
    kahan: Arrays | None = None


def wants(arrays: Sequence[Any], formats: Formats) -> bool:
    """Say whether a step needs this module: its states, its rounding, its compensation."""
    if formats.rounding != "nearest" or formats.kahan is not None:
        return True
    states = arrays[_FIRST_STATE:_EMA]
    firsts = (state[0] if isinstance(state, list | tuple) and state else state for state in states)
    return any(isinstance(first, BlockwiseState) for first in firsts)


def _as_items(function: str, name: str, value: Any) -> list[Any]:
    return (
        [value]
        if isinstance(value, BlockwiseState)
        else _optim_lists.as_list(function, name, value)
    )


def _check_blockwise(function: str, label: str, state: BlockwiseState, like: Array) -> None:
    if state.shape != like.shape:
        raise ValueError(f"{function}: `{label}` must have shape {like.shape}, got {state.shape}")
    if state.codes.dtype != np.uint8 or state.scales.dtype != np.float32:
        raise ValueError(f"{function}: `{label}` must have codes of uint8 and scales of float32")
    if not state.codes.flags.c_contiguous or state.scales.shape != (-(-like.size // BLOCK),):
        raise ValueError(
            f"{function}: `{label}` must have contiguous codes and a scale for each {BLOCK}"
        )


def _checked(
    function: str, names: Sequence[str], arrays: Sequence[Any], formats: Formats
) -> tuple[list[list[Any] | None], list[Array] | None]:
    """Check everything before anything is written."""
    rounding = _optim_rules.check_choice(function, "rounding", formats.rounding, ROUNDINGS)
    if not hasattr(formats.seed, "__index__"):
        raise TypeError(f"{function}: `seed` must be an integer, got {formats.seed!r}")
    lists = [
        None if a is None else _as_items(function, n, a) for n, a in zip(names, arrays, strict=True)
    ]
    params = lists[_PARAMS]
    assert params is not None
    plain: list[Any] = []
    for operand, items in enumerate(lists):
        if items is None or not any(isinstance(item, BlockwiseState) for item in items):
            plain.append(arrays[operand])
            continue
        if len(items) != len(params):
            raise ValueError(
                f"{function}: `{names[operand]}` must have {len(params)} arrays, got {len(items)}"
            )
        for index, (item, like) in enumerate(zip(items, params, strict=True)):
            label = f"{names[operand]}[{index}]"
            if not isinstance(item, BlockwiseState):
                raise TypeError(
                    f"{function}: `{label}` must be a BlockwiseState as the others are, "
                    f"got {type(item).__name__}"
                )
            _check_blockwise(function, label, item, like)
        plain.append(None)
    more = ["kahan"] if formats.kahan is not None else []
    checked = _optim_lists.check_lists(
        function, (*names, *more), (*plain, *([formats.kahan] if more else []))
    )
    kahan = checked[len(names)] if more else None
    for index, (own, like) in enumerate(zip(kahan or [], checked[_PARAMS] or [], strict=False)):
        if own.dtype != like.dtype or like.dtype.itemsize != 2:
            raise ValueError(
                f"{function}: `kahan[{index}]` must be of the 16-bit dtype of its parameter, "
                f"got {own.dtype} for {like.dtype}"
            )
    if kahan is not None and rounding == "stochastic":
        raise ValueError(f"{function}: `rounding` must be nearest with `kahan`, got 'stochastic'")
    found = [c if c is not None else items for c, items in zip(checked, lists, strict=False)]
    return found, kahan


class _Line:
    """An array as a line of elements in C order; written back at the end if it was copied."""

    def __init__(self, array: Array) -> None:
        self.array = array
        self.is_view = array.flags.c_contiguous
        self.line = array.reshape(-1)

    def finish(self) -> None:
        """Bring a copy back."""
        if not self.is_view:
            self.array[...] = self.line.reshape(self.array.shape)


class _Piece:
    """What one array has in the engine's dtypes while a piece of it is worked on."""

    def __init__(self, formats: Formats, step: int, number: int, begin: int, end: int) -> None:
        self.formats, self.step, self.number = formats, step, number
        self.begin, self.end = begin, end

    def wide(self, line: Array, extra: Array | None = None) -> Array:
        """Return elements as the engine may change them: as they lie, or in float32."""
        part = line[self.begin : self.end]
        if part.dtype.itemsize > 2 or (extra is None and self.formats.rounding == "nearest"):
            return part
        values = part.astype(np.float32)
        if extra is not None:
            values += extra[self.begin : self.end].astype(np.float32)
        return values

    def narrow(self, line: Array, values: Array, operand: int, extra: Array | None) -> None:
        """Round what was changed in float32."""
        part = line[self.begin : self.end]
        if values.dtype == part.dtype:
            return
        if extra is not None:
            rounded = values.astype(part.dtype)
            extra[self.begin : self.end] = values - rounded.astype(np.float32)
            part[...] = rounded
            return
        key = key_of(int(self.formats.seed), self.step, self.number, operand)
        part[...] = round_stochastically(values, part.dtype, self.begin, key)


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
    grads = lists[GRADS]
    assert grads is not None
    norm = _optim_lists.run_norm(function, "grads", grads) * abs(scale)
    if skip_nonfinite and not np.isfinite(norm):
        return norm, False
    if clipping:
        factor = max_norm / norm if clipping == 2 and norm > 0 else max_norm / (norm + 1e-6)
        constants = (constants[0] * (factor if not factor >= 1.0 else 1.0), *constants[1:])
    for number in range(len(grads)):
        own = [None if each is None else each[number] for each in lists]
        extra = None if kahan is None else kahan[number]
        _step_array(function, rule, names, own, extra, constants, formats, step, number)
    return norm, True


def _step_array(
    function: str,
    rule: int,
    names: Sequence[str],
    arrays: list[Any],
    extra: Array | None,
    constants: tuple[float, ...],
    formats: Formats,
    step: int,
    number: int,
) -> None:
    """Take one step of one parameter, piece by piece."""
    lines = [_Line(a) if isinstance(a, np.ndarray) else a for a in arrays]
    kept = None if extra is None else _Line(extra)
    size = arrays[_PARAMS].size
    for begin in range(0, size, _PIECE):
        piece = _Piece(formats, step, number, begin, min(begin + _PIECE, size))
        operands: list[Any] = []
        for operand, line in enumerate(lines):
            if isinstance(line, BlockwiseState):
                operands.append([line.read(piece.begin, piece.end)])
            elif line is None:
                operands.append(None)
            elif operand == _PARAMS:
                operands.append([piece.wide(line.line, None if kept is None else kept.line)])
            elif _FIRST_STATE <= operand < _EMA:
                operands.append([piece.wide(line.line)])
            else:
                operands.append([line.line[piece.begin : piece.end]])
        _optim_lists.run_step(function, rule, names, tuple(operands), constants)
        for operand, (line, values) in enumerate(zip(lines, operands, strict=True)):
            if isinstance(line, BlockwiseState):
                line.write(piece.begin, values[0])
            elif line is not None and (operand == _PARAMS or _FIRST_STATE <= operand < _EMA):
                more = kept.line if kept is not None and operand == _PARAMS else None
                piece.narrow(line.line, values[0], operand, more)
    for operand, line in enumerate([*lines, kept]):
        if isinstance(line, _Line) and operand != GRADS:
            line.finish()
