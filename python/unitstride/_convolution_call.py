"""The general way of convolutions along one axis: every argument checked, any dtype."""

import math
from operator import index
from typing import Any, NamedTuple

import numpy as np
from numpy.exceptions import AxisError
from numpy.typing import ArrayLike, NDArray

from unitstride import _arguments, _backend, _convolution_methods, _outputs
from unitstride._einsum_run import fresh
from unitstride._reference.convolution import BOUNDARIES

Array = NDArray[Any]
DType = np.dtype[Any]

MODES = ("full", "same", "valid", "causal")
METHODS = ("auto", "direct", "fft")

TRANSFORMED = ("float16", "bfloat16", "float32", "float64", "complex64", "complex128")


class Problem(NamedTuple):
    """A checked call: arrays in the working dtype that have the same axes."""

    x: Array
    k: Array
    axis: int
    start: int  # of the outputs, in the whole convolution
    shape: tuple[int, ...]  # of the result
    boundary: int


def as_numbers(function: str, argument: str, value: ArrayLike) -> Array:
    """Convert an input to an array of numbers or booleans in native byte order."""
    array = _arguments.plain(function, argument, value)
    if array is not value and isinstance(value, np.ma.MaskedArray):
        raise TypeError(
            f"{function}: `{argument}` must be an array without a mask, got MaskedArray"
        )
    if array.dtype.kind not in "biufc" and array.dtype.name != "bfloat16":
        raise TypeError(
            f"{function}: `{argument}` must be numbers or booleans, "
            f"got {_arguments.dtype_label(array.dtype)}"
        )
    return array


def in_dtype(array: Array, dtype: DType) -> Array:
    """Return an array in the dtype of the result; a real factor of a complex one stays real."""
    if dtype.kind == "c" and array.dtype.kind != "c":
        dtype = np.empty(0, dtype).real.dtype
    if array.dtype != dtype:
        with np.errstate(all="ignore"):
            return array.astype(dtype)
    return array if _arguments.has_element_strides(array) else array.copy()


def one_of(function: str, argument: str, value: Any, choices: tuple[str, ...]) -> int:
    """Return the number of a word among the choices."""
    if isinstance(value, str) and value in choices:
        return choices.index(value)
    words = ", ".join(choices)
    error = ValueError if isinstance(value, str) else TypeError
    raise error(f"{function}: `{argument}` must be one of {words}, got {value!r}")


def axis_number(function: str, axis: Any, dimensions: int) -> int:
    """Return one axis as a number from 0."""
    try:
        found = None if isinstance(axis, (bool, np.bool_)) else index(axis)
    except TypeError:
        found = None
    if found is None:
        raise TypeError(f"{function}: `axis` must be an integer, got {axis!r}")
    if not -dimensions <= found < dimensions:
        raise AxisError(found, dimensions, function)
    return found % dimensions


def _with_axes(function: str, x: Array, k: Array, axis: int) -> Array:
    """Return the kernel with the axes of `x`."""
    if k.ndim == 1:
        return k.reshape([-1 if a == axis else 1 for a in range(x.ndim)])
    if k.ndim != x.ndim:
        raise ValueError(f"{function}: `k` must have 1 or {x.ndim} axes, got {k.ndim}")
    return k


def _lines_shape(function: str, x: Array, k: Array, axis: int) -> list[int]:
    """Return the common shape, with one element along the axis."""
    shapes = [[1 if a == axis else n for a, n in enumerate(v.shape)] for v in (x, k)]
    try:
        return list(np.broadcast_shapes(*map(tuple, shapes)))
    except ValueError:
        raise ValueError(
            f"{function}: `k` must broadcast to shape {x.shape} but along axis {axis}, "
            f"got shape {k.shape}"
        ) from None


def outputs_of(mode: str, length: int, taps: int) -> tuple[int, int]:
    """Return where the outputs of a mode begin in the whole convolution, and how many there are."""
    if mode == "full":
        return 0, length + taps - 1
    if mode == "valid":
        return taps - 1, length - taps + 1
    return ((taps - 1) // 2 if mode == "same" else 0), length


def prepare(
    function: str,
    x: ArrayLike,
    k: ArrayLike,
    mode: Any,
    axis: Any,
    boundary: Any,
    correlates: bool,
) -> tuple[Problem, DType]:
    """Check the inputs; return the problem as a convolution, and the dtype of its result."""
    first, second = as_numbers(function, "x", x), as_numbers(function, "k", k)
    one_of(function, "mode", mode, MODES)
    rule = one_of(function, "boundary", boundary, BOUNDARIES)
    for argument, array in (("x", first), ("k", second)):
        if array.ndim == 0:
            raise ValueError(f"{function}: `{argument}` must have at least one axis, got a scalar")
    along = axis_number(function, axis, first.ndim)
    given = second.shape
    second = _with_axes(function, first, second, along)
    lines = _lines_shape(function, first, second, along)
    for argument, array, shape in (("x", first, first.shape), ("k", second, given)):
        if array.shape[along] == 0:
            raise ValueError(
                f"{function}: `{argument}` must have at least one element along the axis, "
                f"got shape {shape}"
            )
    dtype = np.result_type(first, second).newbyteorder("=")
    first, second = in_dtype(first, dtype), in_dtype(second, dtype)
    if correlates:
        second = np.flip(second, along)
        if second.dtype.kind == "c":
            second = second.conj()
    if mode == "valid" and second.shape[along] > first.shape[along]:
        first, second = second, first
    arrays: list[Array] = []
    for array in (first, second):
        lines[along] = array.shape[along]
        arrays.append(np.broadcast_to(array, lines) if list(array.shape) != lines else array)
    start, lines[along] = outputs_of(mode, first.shape[along], second.shape[along])
    return Problem(arrays[0], arrays[1], along, start, tuple(lines), rule), dtype


def once(array: Array) -> Array:
    """Return an array without the repetitions of axes that were broadcast."""
    return array[tuple(slice(0, 1 if step == 0 else None) for step in array.strides)]


def _goes_by_fft(problem: Problem, dtype: DType) -> bool:
    axis, k = problem.axis, problem.k
    count = problem.shape[axis]
    lines = int(np.prod(problem.shape, dtype=np.float64)) // count
    own = [n for a, n in enumerate(k.shape) if a != axis and n > 1 and k.strides[a] != 0]
    return _convolution_methods.fft_is_faster(
        lines, count, k.shape[axis], dtype, problem.x.shape[axis], math.prod(own)
    )


def choose(function: str, method: Any, problem: Problem, dtype: DType) -> tuple[str, Problem]:
    """Return the operation that runs, "convolve" or "convolve_fft", and what it runs on."""
    one_of(function, "method", method, METHODS)
    transformed = dtype.name in TRANSFORMED
    if method == "fft" and not transformed:
        raise ValueError(
            f"{function}: `method` must be auto or direct for a result of {dtype.name}, got 'fft'"
        )
    if method == "direct" or not transformed or 0 in problem.shape:
        return "convolve", problem
    if method == "auto" and not _goes_by_fft(problem, dtype):
        return "convolve", problem
    if not np.isfinite(once(problem.k)).all():
        return "convolve", problem
    problem = problem._replace(x=_convolution_methods.together(problem.x, problem.axis))
    x, k = (np.moveaxis(array, problem.axis, -1) for array in (problem.x, problem.k))
    if method == "auto" and not _convolution_methods.range_is_small(x, k):
        return "convolve", problem
    return "convolve_fft", problem


def run(
    function: str,
    x: ArrayLike,
    k: ArrayLike,
    mode: Any,
    axis: Any,
    method: Any,
    boundary: Any,
    out: Array | None,
    correlates: bool,
) -> Array:
    """Run `convolve` or `correlate`."""
    problem, dtype = prepare(function, x, k, mode, axis, boundary, correlates)
    operation, problem = choose(function, method, problem, dtype)
    target = out
    if out is not None:
        _outputs.check_out(function, out, problem.shape, dtype)
        if not _outputs.can_write_into(out, dtype, (), (problem.x, problem.k)):
            target = None
    if target is None:
        target = fresh(problem.shape, dtype)
    status = 0
    if target.size:
        status = _backend.run(
            operation, problem.x, problem.k, target, problem.axis, problem.start, problem.boundary
        )
    result, _ = _outputs.deliver(target, out, dtype)
    _arguments.report_float_status(function, status)
    return result
