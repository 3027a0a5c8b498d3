"""Memory layouts: each turns a plain array into one that lies differently in memory.

`Layout.shape` changes the shape of the problem where a layout needs it, and `Layout.apply` gives an
array of that shape. The values may change too (a broadcast array repeats itself): tests compare
with the contiguous copy of what `apply` returned.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    name: str
    apply: Callable[[Array], Array]
    shape: Callable[[Shape], Shape] = lambda shape: shape
    writeable: bool = True

    def __call__(self, array: Array) -> Array:
        """Lay an array out; one without axes is only copied."""
        return self.apply(array) if np.ndim(array) else np.array(array)


def _fortran(array: Array) -> Array:
    return np.asfortranarray(array).copy("F")


def _transposed(array: Array) -> Array:
    """Axes in a cyclic order in memory, so that the middle one of three is the contiguous one."""
    order = [*range(1, array.ndim), 0]
    return np.ascontiguousarray(array.transpose(order)).transpose(np.argsort(order))


def _step_two(array: Array) -> Array:
    host = np.zeros([2 * n for n in array.shape], array.dtype)
    view = host[(slice(None, None, 2),) * array.ndim]
    view[...] = array
    return view


def _reversed(axis: int) -> Callable[[Array], Array]:
    def apply(array: Array) -> Array:
        return np.flip(np.flip(array, axis % array.ndim).copy(), axis % array.ndim)

    return apply


def _broadcast(axis: int) -> Callable[[Array], Array]:
    def apply(array: Array) -> Array:
        if array.size == 0:
            return np.broadcast_to(array, array.shape)
        first = np.take(array, [0], axis=axis % array.ndim)
        return np.broadcast_to(first, array.shape)

    return apply


def _unaligned(array: Array) -> Array:
    """Begin one byte after an aligned address."""
    memory = np.zeros(array.nbytes + 1, np.uint8)
    view = memory[1:].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


def _record_field(array: Array) -> Array:
    """Lie inside records of an odd number of bytes: steps are not whole elements."""
    records = np.zeros(array.shape, [("tag", "u1"), ("value", array.dtype)])
    records["value"] = array
    return records["value"]


def _byte_swapped(array: Array) -> Array:
    """Foreign byte order; bfloat16 has none in NumPy and stays."""
    if array.dtype.kind == "V":
        return array.copy()
    return array.astype(array.dtype.newbyteorder("S"))


def _read_only(array: Array) -> Array:
    view = array.copy()
    view.flags.writeable = False
    return view


def _memory_map(array: Array) -> Array:
    """A read-only file mapping, as joblib hands large arrays to its workers."""
    if array.size == 0:
        return _read_only(array)
    with tempfile.TemporaryFile() as file:
        file.write(np.ascontiguousarray(array).tobytes())
        file.flush()
        raw = np.memmap(file, np.uint8, "r", shape=(array.nbytes,))
        return raw.view(array.dtype).reshape(array.shape)


def _wild_strides(array: Array) -> Array:
    """Axes of length one with strides that point far outside, which are legal and mean nothing."""
    strides = [
        stride if size != 1 else 123456789 * array.itemsize
        for size, stride in zip(array.shape, array.strides, strict=True)
    ]
    return as_strided(array, array.shape, strides)


def _windows(array: Array) -> Array:
    """Overlapping windows: element (i, ..., k) is number i + ... + k of one line."""
    line = np.resize(array.ravel(), sum(array.shape) + 1)
    return as_strided(line, array.shape, (array.itemsize,) * array.ndim)


def _padded_rows(array: Array) -> Array:
    """Rows that begin at uneven places: the last axis is contiguous, the pitch is odd."""
    host = np.zeros((*array.shape[:-1], array.shape[-1] + 3), array.dtype)
    view = host[..., 2 : 2 + array.shape[-1]]
    view[...] = array
    return view


def _negative_transposed(array: Array) -> Array:
    """All axes reversed in memory, in Fortran order."""
    backwards = (slice(None, None, -1),) * array.ndim
    return array[backwards].copy("F")[backwards]


def _ones(axis: int) -> Callable[[Shape], Shape]:
    return lambda shape: tuple(1 if i == axis % len(shape) else n for i, n in enumerate(shape))


def _zero(axis: int) -> Callable[[Shape], Shape]:
    return lambda shape: tuple(0 if i == axis % len(shape) else n for i, n in enumerate(shape))


LAYOUTS = (
    Layout("contiguous", np.copy),
    Layout("Fortran order", _fortran),
    Layout("transposed", _transposed),
    Layout("step 2 on every axis", _step_two),
    Layout("step -1 on the first axis", _reversed(0)),
    Layout("step -1 on the middle axis", _reversed(1)),
    Layout("step -1 on the last axis", _reversed(-1)),
    Layout("reversed Fortran order", _negative_transposed),
    Layout("rows of odd pitch", _padded_rows),
    Layout("broadcast along the first axis", _broadcast(0), writeable=False),
    Layout("broadcast along the last axis", _broadcast(-1), writeable=False),
    Layout("one byte off", _unaligned),
    Layout("field of odd records", _record_field),
    Layout("foreign byte order", _byte_swapped),
    Layout("read-only", _read_only, writeable=False),
    Layout("memory map", _memory_map, writeable=False),
    Layout("overlapping windows", _windows, writeable=False),
    Layout("0-d", np.copy, lambda shape: ()),
    Layout("empty first axis", np.copy, _zero(0)),
    Layout("empty middle axis", np.copy, _zero(1)),
    Layout("empty last axis", np.copy, _zero(-1)),
    Layout("first axis of one, wild stride", _wild_strides, _ones(0)),
    Layout("last axis of one, wild stride", _wild_strides, _ones(-1)),
)

# Layouts in which a caller may hand over an output of the same shape.
OUTPUT_LAYOUTS = tuple(
    layout for layout in LAYOUTS if layout.writeable and layout.name != "foreign byte order"
)
