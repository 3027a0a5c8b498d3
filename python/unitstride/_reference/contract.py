"""The contraction of one or two labelled arrays in plain NumPy.

    out = alpha * sum over the labels that `out` lacks (a * b) + beta * out

A label that an array carries twice takes its diagonal. With the labels in four groups (batch: in
both and in the result; rows: in `a` only; depth: in both, summed; columns: in `b` only) the sum is
a matrix product for each element of the batch:

    c[batch, row, column] = sum over depth of a[batch, row, depth] * b[batch, depth, column]

float16 and bfloat16 are computed in float32 and rounded once; every other dtype in itself.
"""

import math
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from unitstride._float_status import INVALID, OVERFLOW

Array = NDArray[Any]
Labels = tuple[int, ...]


def _diagonal(array: Array, labels: Labels) -> tuple[Array, Labels]:
    """View an array so that each label names one axis; steps along a repeated one add up."""
    unique = tuple(dict.fromkeys(labels))
    if len(unique) == len(labels):
        return array, labels
    steps = dict.fromkeys(unique, 0)
    for label, step in zip(labels, array.strides, strict=True):
        steps[label] += step
    sizes = dict(zip(labels, array.shape, strict=True))
    shape = [sizes[label] for label in unique]
    return as_strided(array, shape, list(steps.values()), writeable=False), unique


def _sum_others(array: Array, labels: Labels, kept: set[int]) -> tuple[Array, Labels]:
    """Sum over the labels that are not in `kept`."""
    axes = tuple(axis for axis, label in enumerate(labels) if label not in kept)
    if not axes:
        return array, labels
    total = np.asarray(array.sum(axis=axes, dtype=array.dtype))
    return total, tuple(label for label in labels if label in kept)


def _grouped(array: Array, labels: Labels, *groups: Labels) -> Array:
    """Bring the axes into the order of the groups, and make each group one axis."""
    moved = array.transpose([labels.index(label) for group in groups for label in group])
    sizes = iter(moved.shape)
    return moved.reshape([math.prod(next(sizes) for _ in group) for group in groups])


def _product(a: Array, a_labels: Labels, b: Array, b_labels: Labels, out_labels: Labels) -> Array:
    """Contract two arrays whose labels are all shared or kept; axes as in `out_labels`."""
    batch = tuple(x for x in out_labels if x in a_labels and x in b_labels)
    depth = tuple(x for x in a_labels if x in b_labels and x not in out_labels)
    rows = tuple(x for x in out_labels if x not in b_labels)
    columns = tuple(x for x in out_labels if x not in a_labels)
    sizes = {
        **dict(zip(a_labels, a.shape, strict=True)),
        **dict(zip(b_labels, b.shape, strict=True)),
    }
    left = _grouped(a, a_labels, batch, rows, depth)
    right = _grouped(b, b_labels, batch, depth, columns)
    result = np.matmul(left, right) if depth else np.multiply(left, right)
    order = batch + rows + columns
    result = result.reshape([sizes[label] for label in order])
    return result.transpose([order.index(label) for label in out_labels])


def _contracted(
    a: Array, a_labels: Labels, b: Array | None, b_labels: Labels, out_labels: Labels
) -> Array:
    """Return the sum, with the axes of `out_labels`."""
    a, a_labels = _diagonal(a, a_labels)
    if b is None:
        a, a_labels = _sum_others(a, a_labels, set(out_labels))
        return a.transpose([a_labels.index(label) for label in out_labels])
    b, b_labels = _diagonal(b, b_labels)
    a, a_labels = _sum_others(a, a_labels, {*b_labels, *out_labels})
    b, b_labels = _sum_others(b, b_labels, {*a_labels, *out_labels})
    return _product(a, a_labels, b, b_labels, out_labels)


def _status(
    result: Array, a: Array, a_labels: Labels, b: Array | None, b_labels: Labels, out_labels: Labels
) -> int:
    """Status of a result: NaN out of no NaN is invalid, inf out of finite terms is overflow."""
    if np.isfinite(result).all():
        return 0

    def reached(test: Any) -> Array:
        """Say which results have a term in which an input passes the test."""
        if b is None:
            return _contracted(test(a), a_labels, None, (), out_labels)
        from_a = _contracted(test(a), a_labels, np.ones(b.shape, np.bool_), b_labels, out_labels)
        from_b = _contracted(np.ones(a.shape, np.bool_), a_labels, test(b), b_labels, out_labels)
        return np.asarray(from_a | from_b)

    invalid = (np.isnan(result) & ~reached(np.isnan)).any()
    overflow = (np.isinf(result) & ~reached(lambda x: ~np.isfinite(x))).any()
    return (INVALID if invalid else 0) | (OVERFLOW if overflow else 0)


def contract(
    a: Array,
    a_labels: Labels,
    b: Array | None,
    b_labels: Labels,
    out: Array,
    out_labels: Labels,
    alpha: Any,
    beta: Any,
) -> int:
    """Write alpha * sum(a * b) + beta * out into `out`; without `b`, the sum of `a` alone."""
    is_float = out.dtype.kind in "fcV"
    narrow = is_float and out.dtype.itemsize == 2
    wide_a, wide_b = a, b
    with np.errstate(all="ignore"):
        if narrow:
            wide_a = a.astype(np.float32)
            wide_b = None if b is None else b.astype(np.float32)
        result = _contracted(wide_a, a_labels, wide_b, b_labels, out_labels)
        status = 0
        if alpha != 1:
            result = result * alpha
        if beta != 0:
            before = out.astype(result.dtype, copy=False)
            result = result + (before if beta == 1 else before * beta)
        if is_float and (beta == 0 or np.isfinite(out).all()):
            with_rounding = result.astype(out.dtype, copy=False)
            status = _status(with_rounding, wide_a, a_labels, wide_b, b_labels, out_labels)
        out[...] = result
    return status
