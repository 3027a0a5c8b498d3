"""Outputs: the checks of ``out=``, where a kernel may write, and the way to the caller."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from unitstride import _arguments, _backend
from unitstride._float_status import OVERFLOW

DType = np.dtype[Any]
Array = NDArray[Any]


def overlaps_itself(array: Array) -> bool:
    """Say whether two elements of `array` share memory."""
    if array.flags.c_contiguous or array.flags.f_contiguous or array.size < 2:
        return False
    steps = [(abs(s), n) for s, n in zip(array.strides, array.shape, strict=True) if n > 1]
    reach = array.itemsize
    for step, size in sorted(steps):
        if step < reach:
            break
        reach += step * (size - 1)
    else:
        return False
    # The axes are not nested, so only the addresses themselves can tell.
    offsets = np.zeros(1, dtype=np.int64)
    for step, size in steps:
        if step == 0:
            return True
        offsets = np.add.outer(offsets, np.arange(size, dtype=np.int64) * step).ravel()
    offsets.sort()
    return bool((np.diff(offsets) < array.itemsize).any())


def check_out(function: str, out: Any, shape: tuple[int, ...], dtype: DType | None = None) -> None:
    """Raise unless `out` is a writeable array of exactly this shape, and of this dtype if any."""
    if not isinstance(out, np.ndarray) or isinstance(out, np.ma.MaskedArray):
        raise TypeError(f"{function}: `out` must be a NumPy array, got {type(out).__name__}")
    _arguments.check_shape(function, "out", out, shape)
    if dtype is not None and out.dtype != dtype:
        got = _arguments.dtype_label(out.dtype)
        raise TypeError(f"{function}: `out` must have dtype {dtype.name}, got {got}")
    if not out.flags.writeable:
        raise ValueError(f"{function}: `out` must be writeable, got a read-only array")
    if overlaps_itself(out):
        raise ValueError(f"{function}: `out` must not overlap itself, got strides {out.strides}")


def _is_same_view(first: Array, second: Array) -> bool:
    """Say whether two arrays are the same elements in the same order."""
    return (
        first.dtype == second.dtype
        and first.shape == second.shape
        and first.strides == second.strides
        and first.__array_interface__["data"][0] == second.__array_interface__["data"][0]
    )


def can_write_into(
    out: Array,
    dtype: DType,
    in_place: tuple[Array, ...] = (),
    others: tuple[Array | None, ...] = (),
) -> bool:
    """Say whether a kernel that computes in `dtype` may write straight into `out`.

    It may when `out` shares no memory with the inputs. The arrays in `in_place` may also be `out`
    itself, for kernels that read each element before they write it.
    """
    if out.dtype != dtype or not _arguments.has_element_strides(out):
        return False
    for array in in_place:
        if np.may_share_memory(out, array) and not _is_same_view(out, array):
            return False
    return not any(array is not None and np.may_share_memory(out, array) for array in others)


def output_for(
    values: Array,
    out: Array | None,
    in_place: tuple[Array, ...],
    others: tuple[Array | None, ...],
    axes: tuple[int, ...] | None = None,
) -> Array:
    """Return where the kernel writes: `out` where that is safe, else a fresh array like `values`.

    `in_place` and `others` are the inputs, as in `can_write_into`; `axes` are the kernel's.
    """
    if out is not None and can_write_into(out, values.dtype, in_place, others):
        return out
    return _backend.empty_like(values, axes)


def fresh(like: Array, shape: tuple[int, ...]) -> Array:
    """Return a new array of another shape with the dtype of `like` and its order of axes."""
    if _backend.core is None:
        return np.empty_like(np.lib.stride_tricks.as_strided(like, shape, writeable=False))
    plain = like.view(np.uint16) if like.dtype.kind == "V" else like
    found: Array = _backend.core.empty_like(plain, False, shape)
    return found if plain is like else found.view(like.dtype)


def deliver(target: Array, out: Array | None, dtype: DType) -> tuple[Array, int]:
    """Bring a kernel's output to where the caller wants it; return it and the status of a cast."""
    if target is out or (out is None and target.dtype == dtype):
        return target, 0
    with np.errstate(all="ignore"):
        if out is None:
            out = target.astype(dtype)
        else:
            out[...] = target
        overflowed = target.dtype != dtype and (np.isinf(out) & ~np.isinf(target)).any()
    return out, OVERFLOW if overflowed else 0
