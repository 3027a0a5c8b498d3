"""Running plans: operands in, one kernel per step, the result out."""

import itertools
import math
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import ArrayLike, NDArray

from unitstride import _arguments, _backend
from unitstride._einsum_order import inward_axes
from unitstride._einsum_parse import Subscripts
from unitstride._einsum_plan import Plan
from unitstride._float_status import OVERFLOW

Array = NDArray[Any]
DType = np.dtype[Any]

_NUMPY_LABELS = 52
RECYCLED_FROM = 1 << 20  # bytes; smaller results come from NumPy's own allocator


def as_operand(function: str, position: int, value: ArrayLike) -> Array:
    """Convert an operand to an array; the mask of a masked array would be lost silently."""
    if type(value) is np.ndarray:
        return value
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(
            f"{function}: operand {position} must be an array without a mask, got MaskedArray "
            "(pass its data, with 0 for what is masked)"
        )
    try:
        return np.asarray(value)
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(
            f"{function}: operand {position} must be an array or nested sequences of equal "
            f"lengths, got {type(value).__name__}"
        ) from error


def fresh(shape: tuple[int, ...], dtype: DType) -> Array:
    """Return a new array in C order; large ones use memory that was freed before."""
    size = math.prod(shape) * dtype.itemsize
    if size < RECYCLED_FROM or _backend.core is None or dtype.hasobject:
        return np.empty(shape, dtype)
    template = np.broadcast_to(np.uint16(0), (-(-size // 2),))
    return _backend.empty_like(template).view(np.uint8)[:size].view(dtype).reshape(shape)


def _allocate(plan: Plan, arrays: list[Array], order: str) -> Array:
    """Return memory for the result, its axes in the order that is asked for."""
    shape = plan.shape
    axes = range(len(shape))
    if order == "F" or (order == "A" and _all_fortran(arrays)):
        return fresh(shape[::-1], plan.dtype).transpose()
    if order == "K" and plan.loop is not None:
        inward = inward_axes(plan.loop, len(shape), [array.strides for array in arrays])
        if inward != list(axes):
            host = fresh(tuple(shape[axis] for axis in inward), plan.dtype)
            return host.transpose(np.argsort(inward))
    elif order == "K" and plan.follows is not None:
        number, places = plan.follows
        if arrays[number].flags.c_contiguous and places == tuple((axis,) for axis in axes):
            return fresh(shape, plan.dtype)
        strides = arrays[number].strides
        steps = [abs(sum(strides[axis] for axis in found)) for found in places]
        inward = sorted(axes, key=lambda axis: -steps[axis])
        if inward != list(axes):
            host = fresh(tuple(shape[axis] for axis in inward), plan.dtype)
            return host.transpose(np.argsort(inward))
    return fresh(shape, plan.dtype)


def _all_fortran(arrays: list[Array]) -> bool:
    return all(array.flags.f_contiguous for array in arrays) and not all(
        array.flags.c_contiguous for array in arrays
    )


def view_of(subscripts: Subscripts, array: Array) -> Array:
    """Return the view of one operand that transposes axes and takes diagonals."""
    (term,), output = subscripts.terms, subscripts.output
    if len(term) == len(output):
        return array.transpose([term.index(label) for label in output])
    if len(output) <= _NUMPY_LABELS:  # NumPy's own view names the owner of the memory as its base
        view: Array = np.einsum(array, term, output)
        return view
    places = [[axis for axis, x in enumerate(term) if x == label] for label in output]
    return as_strided(
        array,
        [array.shape[found[0]] for found in places],
        [sum(array.strides[axis] for axis in found) for found in places],
        writeable=array.flags.writeable,
    )


def prepare(plan: Plan, arrays: list[Array]) -> list[Array]:
    """Return the operands in the dtypes and with the axes that the steps read."""
    prepared: list[Array] = []
    for array, dtype, selection in zip(arrays, plan.operand_dtypes, plan.selections, strict=True):
        if array.dtype != dtype:
            with np.errstate(all="ignore"):
                array = array.astype(dtype)
        elif not _arguments.has_element_strides(array):
            array = array.copy()
        prepared.append(array if selection is None else array[selection])
    return prepared


def _run_steps(plan: Plan, operands: list[Array], target: Array, alpha: Any, beta: Any) -> int:
    """Run the steps, the last one into `target`; each array is let go when it has been used."""
    arrays: list[Array | None] = [*operands]
    operands.clear()
    status = 0
    last = len(plan.steps) - 1
    for number, step in enumerate(plan.steps):
        first = arrays[step.first]
        second = None if step.second is None else arrays[step.second]
        final = number == last
        result = target if final else fresh(step.shape, step.dtype)
        status |= _backend.run(
            "contract",
            first,
            step.first_labels,
            second,
            step.second_labels,
            result,
            step.labels,
            alpha if final else 1.0,
            beta if final else 0.0,
        )
        arrays[step.first] = None
        if step.second is not None:
            arrays[step.second] = None
        arrays.append(result)
        del first, second
    return status


def _scale(out: Array, beta: Any) -> None:
    """Write beta * out, the result of a sum over nothing; `out` is not read for beta = 0."""
    if beta == 0:
        out[...] = 0
    elif beta != 1:
        np.multiply(out, beta, out=out, casting="unsafe")


def _run_slices(plan: Plan, arrays: list[Array], target: Array, alpha: Any, beta: Any) -> int:
    """Take the sliced labels one value at a time; what has no axis in the result adds up."""
    assert plan.inner is not None
    status = 0
    for values in itertools.product(*(range(item.size) for item in plan.slices)):
        indices: list[list[Any]] = [[slice(None)] * array.ndim for array in arrays]
        place: list[Any] = [slice(None)] * target.ndim
        is_first = True
        for item, value in zip(plan.slices, values, strict=True):
            for array, index, axes in zip(arrays, indices, item.axes, strict=True):
                for axis in axes:
                    index[axis] = value if array.shape[axis] > 1 else 0
            if item.out_axis is None:
                is_first = is_first and value == 0
            else:
                place[item.out_axis] = value
        views = [array[(*index, ...)] for array, index in zip(arrays, indices, strict=True)]
        part = target[(*place, ...)]
        status |= _compute(plan.inner, views, part, alpha, beta if is_first else 1)
    return status


def _compute(plan: Plan, arrays: list[Array], target: Array, alpha: Any, beta: Any) -> int:
    """Write alpha * sum + beta * target into `target`, which shares no memory with operands."""
    if plan.is_empty:
        _scale(target, beta)
        return 0
    if plan.inner is not None:
        return _run_slices(plan, arrays, target, alpha, beta)
    dtype = plan.steps[-1].dtype
    if target.dtype == dtype:
        return _run_steps(plan, prepare(plan, arrays), target, alpha, beta)
    # Real operands of a complex result, or 16-bit ones that are computed in 32 bits.
    result = fresh(target.shape, dtype)
    status = _run_steps(plan, prepare(plan, arrays), result, 1, 0)
    with np.errstate(all="ignore"):
        total = result if alpha == 1 else result * alpha
        if beta != 0:
            total = total + target.astype(np.result_type(dtype, target.dtype)) * beta
        target[...] = total
        overflowed = (np.isinf(target) & ~np.isinf(total)).any()
    return status | (OVERFLOW if overflowed else 0)


def execute(
    function: str,
    plan: Plan,
    arrays: list[Array],
    out: Array | None = None,
    order: str = "K",
    alpha: Any = 1,
    beta: Any = 0,
) -> Any:
    """Run a plan on operands of its shapes and dtypes; return `out`, an array or a scalar."""
    target = out
    if out is None:
        target = _allocate(plan, arrays, order)
    elif (
        out.dtype != plan.dtype
        or not _arguments.has_element_strides(out)
        or any(np.may_share_memory(out, array) for array in arrays)
    ):
        target = fresh(plan.shape, plan.dtype)
        if beta != 0:
            with np.errstate(all="ignore"):
                target[...] = out
    assert target is not None
    status = _compute(plan, arrays, target, alpha, beta)
    if out is None:
        _arguments.report_float_status(function, status)
        return target if target.ndim else target[()]
    if target is not out:
        with np.errstate(all="ignore"):
            out[...] = target
            if out.dtype.kind in "fcV" and (np.isinf(out) & ~np.isinf(target)).any():
                status |= OVERFLOW
    _arguments.report_float_status(function, status)
    return out
