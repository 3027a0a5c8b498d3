"""The kernel records of contraction: the patterns of one or two arrays along chosen axes.

The order of summation of einsum follows the memory layout, so the generic tests that compare bits
between layouts do not run over these records; all others do.
"""

from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from unitstride import _arguments, _reference
from unitstride._records import ErrorInput, KernelSpec, Sample
from unitstride.einsum import einsum

Array = NDArray[Any]
DType = np.dtype[Any]
Axis = int | tuple[int, ...] | None
Labels = tuple[int, ...]

_MOST_PRODUCTS = 4096  # kept elements of an operand for which all products are formed


def labels_of(
    dimensions: int, axis: Axis = -1, pattern: str = "dot"
) -> tuple[Labels, Labels, Labels]:
    """Return the labels of x, y and the result; `axis` is summed."""
    axes = _arguments.normalize_axes("einsum", axis, dimensions)
    own = tuple(range(dimensions))
    kept = tuple(k for k in own if k not in axes)
    if pattern == "products":  # of all kept elements of x with those of y
        other = tuple(k if k in axes else k + dimensions for k in own)
        return own, other, kept + tuple(k + dimensions for k in kept)
    if pattern == "vector":  # y has the summed axes alone
        return own, axes, kept
    return own, own, kept


def along(
    x: Any, y: Any, *, axis: Axis = -1, pattern: str = "dot", subscripts: Any = None, **more: Any
) -> Any:
    """Run einsum by a pattern along axes, or by subscripts."""
    if subscripts is not None:
        return einsum(subscripts, x, y, **more)
    x_labels, y_labels, labels = labels_of(np.ndim(x), axis, pattern)
    return einsum(x, x_labels, y, y_labels, labels, **more)


def _twin(x: Array, y: Array, axis: Axis = -1, pattern: str = "dot") -> Array:
    x_labels, y_labels, labels = labels_of(x.ndim, axis, pattern)
    sizes = {
        **dict(zip(x_labels, x.shape, strict=True)),
        **dict(zip(y_labels, y.shape, strict=True)),
    }
    out = np.empty([sizes[label] for label in labels], x.dtype)
    _reference.contract(x, x_labels, y, y_labels, out, labels, 1.0, 0.0)
    return out


def _scale(x: Array, y: Array, **keywords: Any) -> Array:
    """Return the sum of the magnitudes of the terms, which may cancel."""
    return _twin(np.abs(x), np.abs(y), **keywords)


def _samples(
    random: Generator, dtype: DType, shape: tuple[int, ...], axis: Axis
) -> tuple[Sample, ...]:
    def normal(shape: tuple[int, ...]) -> Array:
        return np.asarray(random.standard_normal(shape)).astype(dtype)

    axes = _arguments.normalize_axes("einsum", axis, len(shape))
    x, y, vector = normal(shape), normal(shape), normal(tuple(shape[k] for k in axes))
    samples = [
        Sample("dot", (x, y), {"axis": axis}),
        Sample("vector", (x, vector), {"axis": axis, "pattern": "vector"}),
    ]
    if np.prod([n for k, n in enumerate(shape) if k not in axes]) <= _MOST_PRODUCTS:
        samples.append(Sample("products", (x, y), {"axis": axis, "pattern": "products"}))
    return tuple(samples)


def _errors() -> tuple[ErrorInput, ...]:
    x = np.ones((3, 4), np.float32)
    y = np.ones((4, 5), np.float32)
    frozen = np.zeros((3, 5), np.float32)
    frozen.flags.writeable = False
    folded = np.lib.stride_tricks.as_strided(np.zeros(8, np.float32), (3, 5), (0, 4))
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"out": np.zeros((5, 3), "f4")}, ValueError, "`out` must have shape (3, 5), got (5, 3)"),
        ({"out": frozen}, ValueError, "`out` must be writeable, got a read-only array"),
        ({"out": folded}, ValueError, "`out` must not overlap itself, got strides (0, 4)"),
        ({"out": [0.0]}, TypeError, "`out` must be a NumPy array, got list"),
        (
            {"out": np.zeros((3, 5), "i4")},
            TypeError,
            "the result in `out` must be castable by casting='safe', got float64 for int32",
        ),
        ({"beta": 1.0}, ValueError, "`beta` must be 0 without `out`, got 1.0"),
        ({"alpha": "2"}, TypeError, "`alpha` must be a number, got '2'"),
        ({"alpha": 2j}, TypeError, "`alpha` must be real for a result of float32, got 2j"),
        ({"order": "X"}, ValueError, "`order` must be 'C', 'F', 'A' or 'K', got 'X'"),
        (
            {"casting": "maybe"},
            ValueError,
            "`casting` must be one of no, equiv, safe, same_kind, unsafe, got 'maybe'",
        ),
        ({"dtype": "no"}, TypeError, "`dtype` must be a dtype, got 'no'"),
        ({"memory_limit": -1}, ValueError, "`memory_limit` must be positive, got -1"),
        (
            {"optimize": "fast"},
            ValueError,
            "`optimize` must be True, False, one of auto, greedy, optimal, or a path, got 'fast'",
        ),
        (
            {"subscripts": "ij,jk->ij1"},
            ValueError,
            "`subscripts` must be made of letters, ',', '...' and one '->', "
            "got '1' in 'ij,jk->ij1'",
        ),
        (
            {"subscripts": "ij,kj"},
            ValueError,
            "operand 1 must have size 4 for label 'j' as operand 0 has, got 5",
        ),
        (
            {"subscripts": "ij->ij"},
            ValueError,
            "`subscripts` must have one term for each operand, got 1 for 2 operands in 'ij->ij'",
        ),
    ]
    return tuple(
        ErrorInput((x, y), {"subscripts": "ij,jk->ik", **keywords}, error, f"einsum: {text}")
        for keywords, error, text in cases
    )


# 8 ULP of the sum of magnitudes are at most 16 units of roundoff of it. 16-bit results are summed
# in float32 and rounded once.
_BUDGET = {"float32": 8.0, "float64": 8.0, "float16": 0.51, "bfloat16": 0.51}

CONTRACTIONS = (
    KernelSpec(
        name="einsum",
        function=along,
        reference=_twin,
        sample_inputs=_samples,
        error_inputs=_errors,
        error_scale=_scale,
        error_budget=_BUDGET,
        bytes_and_flops=lambda n, lines, item: ((2 * n + lines) * item, 2 * n),
        in_place=(),
        reduces=True,
    ),
)
