"""The list of kernel records: what the generic code needs to know of every operation.

The generic tests (layouts, overlap, threads, faults, parity with the NumPy twin), the selftest and
the benchmarks run over `KERNELS`. An operation joins all of them by one record.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.exceptions import AxisError
from numpy.random import Generator
from numpy.typing import NDArray

from unitstride import (
    _arguments,
    _reference,
    log_softmax,
    log_softmax_vjp,
    logsumexp,
    logsumexp_vjp,
    softmax,
    softmax_vjp,
)

Array = NDArray[Any]
DType = np.dtype[Any]
Axis = int | tuple[int, ...] | None

# Lengths at which kernels change their way: around vectors of 4, 8 and 16 lanes, around lines that
# are packed side by side (32), and above 163,840 float32 or 81,920 float64, which go in pieces.
SHORT_LENGTHS = tuple(
    sorted(
        {0, 1, 31, 32, 33, 100}
        | {n for w in (4, 8, 16) for n in (w - 1, w, w + 1, 2 * w + 1, 4 * w - 1, 4 * w, 4 * w + 1)}
    )
)
LONG_LENGTHS = (1000, 4096 + 3, 81920, 81921, 163840, 163841, 200003)


@dataclass(frozen=True)
class Sample:
    """The arguments of one call that succeeds."""

    label: str
    arrays: tuple[Array, ...]
    keywords: Mapping[str, Any]


@dataclass(frozen=True)
class ErrorInput:
    """The arguments of one call that fails, and how."""

    arrays: tuple[Any, ...]
    keywords: Mapping[str, Any]
    error: type[Exception]
    message: str


@dataclass(frozen=True)
class KernelSpec:
    """One operation: what generic code needs to know of it."""

    name: str  # of the public function
    function: Callable[..., Any]  # function(*sample.arrays, **sample.keywords), with `out=`
    # The NumPy twin with the same arguments, without `out=`. For float64 arrays it answers in
    # float64, which is exact beside the narrower dtypes.
    reference: Callable[..., Array]
    # sample_inputs(random, dtype, shape, axis): calls that succeed.
    sample_inputs: Callable[[Generator, DType, tuple[int, ...], Axis], tuple[Sample, ...]]
    error_inputs: Callable[[], tuple[ErrorInput, ...]]  # calls that fail
    # error_scale(*arrays, **keywords) for float64 arrays: the magnitude whose ULP measures the
    # error of each element; error_budget: what is allowed for each dtype, in such ULP.
    error_scale: Callable[..., Array]
    error_budget: Mapping[str, float]
    # bytes_and_flops(elements, lines, itemsize): the least memory traffic, and the arithmetic.
    bytes_and_flops: Callable[[int, int, int], tuple[float, float]]
    dtypes: tuple[str, ...] = ("float32", "float64", "float16", "bfloat16")
    in_place: tuple[int, ...] = (0,)  # which of the arrays may be `out` itself
    reduces: bool = False  # the result lacks the reduced axes


def find_dtype(name: str) -> DType | None:
    """Return a dtype by name; None for bfloat16 where ml_dtypes is not installed."""
    if name == "bfloat16":
        try:
            import ml_dtypes
        except ModuleNotFoundError:
            return None
        name = ml_dtypes.bfloat16
    dtype: DType = np.dtype(name)
    return dtype


# Samples.


def _variants(
    random: Generator, shape: tuple[int, ...], axis: Axis, arrays: tuple[Array, ...]
) -> tuple[Sample, ...]:
    """Return a plain call, one with a mask and one with a temperature."""
    mask = random.random(shape) < 0.7
    return (
        Sample("plain", arrays, {"axis": axis}),
        Sample("masked", arrays, {"axis": axis, "where": mask}),
        Sample("temperature", arrays, {"axis": axis, "temperature": 0.7}),
    )


def _normal(random: Generator, dtype: DType, shape: tuple[int, ...], spread: float) -> Array:
    return np.asarray(random.standard_normal(shape) * spread).astype(dtype)


def _samples(
    random: Generator, dtype: DType, shape: tuple[int, ...], axis: Axis
) -> tuple[Sample, ...]:
    return _variants(random, shape, axis, (_normal(random, dtype, shape, 3.0),))


def _output_samples(
    twin: Callable[..., Array],
    random: Generator,
    dtype: DType,
    shape: tuple[int, ...],
    axis: Axis,
) -> tuple[Sample, ...]:
    """Return samples for a gradient that works from the output of the function."""
    y = twin(_normal(random, dtype, shape, 3.0), axis=axis)
    return _variants(random, shape, axis, (y, _normal(random, dtype, shape, 1.0)))


def _logsumexp_vjp_samples(
    random: Generator, dtype: DType, shape: tuple[int, ...], axis: Axis
) -> tuple[Sample, ...]:
    x = _normal(random, dtype, shape, 3.0)
    axes = _arguments.normalize_axes("logsumexp_vjp", axis, len(shape))
    dy = _normal(random, dtype, _arguments.reduced_shape(shape, axes), 1.0)
    samples = _variants(random, shape, axis, (x, dy))
    lse = np.asarray(_twin_logsumexp(x, axis=axis))
    return (*samples, Sample("lse given", (x, dy), {"axis": axis, "lse": lse}))


# References: the twin behind the arguments of the public function.


def _twin_like(
    operation: str,
    x: Array,
    *cotangent: Array,
    axis: Axis = -1,
    where: Array | None = None,
    temperature: float = 1.0,
) -> Array:
    """Run a twin whose output is like its first input."""
    values, axes, scale, mask = _arguments.prepare(operation, "x", x, axis, where, temperature)
    out = np.empty_like(values)
    axes, arrays = _arguments.with_axis(axes, values, *cotangent, out, mask)
    *inputs, sink, chosen = arrays
    extra = (None,) if operation == "softmax" else ()
    getattr(_reference, operation)(*inputs, sink, axes, chosen, scale, *extra)
    return out


def _twin_logsumexp(
    x: Array, axis: Axis = -1, where: Array | None = None, temperature: float = 1.0
) -> Array:
    values, axes, scale, mask = _arguments.prepare("logsumexp", "x", x, axis, where, temperature)
    out = np.empty(_arguments.reduced_shape(values.shape, axes), values.dtype)
    axes, (source, chosen) = _arguments.with_axis(axes, values, mask)
    assert source is not None
    _reference.logsumexp(source, out, axes, chosen, scale, None, None)
    return out


def _twin_logsumexp_vjp(
    x: Array,
    dy: Array,
    axis: Axis = -1,
    lse: Array | None = None,
    where: Array | None = None,
    temperature: float = 1.0,
) -> Array:
    if lse is None:
        lse = _twin_logsumexp(x, axis=axis, where=where, temperature=temperature)
    values, axes, scale, mask = _arguments.prepare("logsumexp", "x", x, axis, where, temperature)
    out = np.empty_like(values)
    axes, (source, sink, chosen) = _arguments.with_axis(axes, values, out, mask)
    assert source is not None and sink is not None
    _reference.logsumexp_vjp(source, lse, dy, sink, axes, chosen, scale, None, None)
    return out


# What errors are measured against, from float64 arrays.


def _own_scale(twin: Callable[..., Array], *arrays: Array, **keywords: Any) -> Array:
    return np.abs(twin(*arrays, **keywords))


def _vjp_scale(
    slope: Callable[[Array], Array],
    y: Array,
    dy: Array,
    axis: Axis = -1,
    where: Array | None = None,
    temperature: float = 1.0,
) -> Array:
    """Return the sum of the magnitudes of the terms, which may cancel."""
    axes = tuple(range(y.ndim)) if axis is None else axis
    chosen = True if where is None else where
    weight = slope(y)
    if slope is np.exp:
        inner = np.sum(np.abs(dy), axis=axes, keepdims=True, where=chosen)
        return np.asarray((np.abs(dy) + weight * inner) / temperature)
    inner = np.sum(np.abs(dy * weight), axis=axes, keepdims=True, where=chosen)
    return np.asarray(np.abs(weight) * (np.abs(dy) + inner) / temperature)


def _logsumexp_scale(x: Array, axis: Axis = -1, temperature: float = 1.0, **mask: Any) -> Array:
    """Return the larger of the terms m and log1p(S), which may cancel in float64 too."""
    level = _twin_logsumexp(x, axis=axis, temperature=temperature, **mask)
    axes = _arguments.normalize_axes("logsumexp", axis, x.ndim)
    chosen = mask.get("where", True)
    highest = np.max(x, axis=axes, where=chosen, initial=-np.inf) / temperature
    return np.maximum(np.abs(level), np.where(np.isfinite(highest), np.abs(highest), 0.0))


def _logsumexp_vjp_scale(
    x: Array, dy: Array, axis: Axis = -1, temperature: float = 1.0, **keywords: Any
) -> Array:
    """Return the result times the magnitudes that are rounded in its exponent, x and logsumexp."""
    result = np.abs(_twin_logsumexp_vjp(x, dy, axis, temperature=temperature, **keywords))
    keywords.pop("lse", None)
    level = _logsumexp_scale(x, axis, temperature, **keywords)
    axes = _arguments.normalize_axes("logsumexp_vjp", axis, x.ndim)
    finite = np.where(np.isfinite(level), level, 0.0)
    return np.asarray(result * (1.0 + np.abs(x) / temperature + np.expand_dims(finite, axes)))


# Error inputs.


def _argument_errors(name: str, argument: str) -> Iterator[tuple[Any, type[Exception], str]]:
    """Yield first arguments that are refused."""
    kinds = "must be real floating point, integer or boolean, got"
    for dtype in ("complex128", "object", "datetime64[s]"):
        yield np.zeros((3, 4), dtype), TypeError, f"{name}: `{argument}` {kinds} {dtype}"
    masked = np.ma.MaskedArray(np.zeros((3, 4)), mask=np.eye(3, 4, dtype=np.bool_))
    text = "must be an array without a mask, got MaskedArray (pass `where=~mask` and the data)"
    yield masked, TypeError, f"{name}: `{argument}` {text}"


def _keyword_errors(name: str) -> Iterator[tuple[str, Any, type[Exception], str]]:
    """Yield keywords that are refused beside a first argument of shape (3, 4)."""
    for axis in (2, -3, (0, 7)):
        wrong = axis[1] if isinstance(axis, tuple) else axis
        bounds = f"{name}: axis {wrong} is out of bounds for array of dimension 2"
        yield "axis", axis, AxisError, bounds
    kinds = f"{name}: `axis` must be an integer, a tuple of integers or None, got"
    for wrong_axis in (1.5, "0", True, (0, None), [0]):
        yield "axis", wrong_axis, TypeError, f"{kinds} {wrong_axis!r}"
    for pair in ((0, 0), (1, -1)):
        yield "axis", pair, ValueError, f"{name}: `axis` must not repeat an axis, got {pair!r}"
    where = f"{name}: `where` must be"
    text = f"{where} broadcastable to shape (3, 4), got shape (5,)"
    yield "where", np.ones(5, bool), ValueError, text
    yield "where", np.ones((3, 4)), TypeError, f"{where} boolean, got float64"
    yield "where", np.ones((3, 4), np.int8), TypeError, f"{where} boolean, got int8"
    text = f"{name}: `temperature` must be a positive finite number, got"
    for value in (0.0, -1.0, np.nan, np.inf, -0.0):
        yield "temperature", value, ValueError, f"{text} {value}"
    for wrong_kind in ("1", None, 1j):
        yield "temperature", wrong_kind, TypeError, f"{text} {wrong_kind!r}"


def _out_errors(
    name: str, shape: tuple[int, ...]
) -> Iterator[tuple[str, Any, type[Exception], str]]:
    """Yield outputs that are refused for a float32 result of `shape`."""
    out = f"{name}: `out` must"
    wrong = (*shape, 2)
    yield "out", np.zeros(wrong, "f4"), ValueError, f"{out} have shape {shape}, got {wrong}"
    for dtype, label in (("f8", "float64"), ("f2", "float16"), (">f4", ">f4"), ("i4", "int32")):
        text = f"{out} have dtype float32, got {label}"
        yield "out", np.zeros(shape, dtype), TypeError, text
    frozen = np.zeros(shape, "f4")
    frozen.flags.writeable = False
    yield "out", frozen, ValueError, f"{out} be writeable, got a read-only array"
    for strides in {(0,) * (len(shape) - 1) + (4,), (0,) * len(shape)}:
        shared = np.lib.stride_tricks.as_strided(np.zeros(16, "f4"), shape, strides)
        if 0 in strides:
            yield "out", shared, ValueError, f"{out} not overlap itself, got strides {strides}"
    yield "out", [0.0], TypeError, f"{out} be a NumPy array, got list"
    yield "out", np.ma.zeros(shape, "f4"), TypeError, f"{out} be a NumPy array, got MaskedArray"


def _errors(
    name: str, argument: str, cotangent: tuple[int, ...] | None = None, reduces: bool = False
) -> tuple[ErrorInput, ...]:
    """Return the calls that fail of a function whose first argument has shape (3, 4)."""
    x = np.linspace(-1.0, 1.0, 12, dtype=np.float32).reshape(3, 4)
    others = () if cotangent is None else (np.ones(cotangent, np.float32),)
    errors = [
        ErrorInput((bad, *others), {}, error, text)
        for bad, error, text in _argument_errors(name, argument)
    ]
    shape = (3,) if reduces else (3, 4)
    for source in (_keyword_errors(name), _out_errors(name, shape)):
        for key, value, error, text in source:
            errors.append(ErrorInput((x, *others), {key: value}, error, text))
    if cotangent is not None:
        text = f"{name}: `dy` must have shape {cotangent}, got (4, 3)"
        errors.append(ErrorInput((x, np.ones((4, 3), np.float32)), {}, ValueError, text))
        text = f"{name}: `dy` must be real floating point, integer or boolean, got complex64"
        errors.append(ErrorInput((x, np.ones(cotangent, np.complex64)), {}, TypeError, text))
    else:
        text = f"{name}: `dtype` must be float16, bfloat16, float32 or float64, got"
        for dtype, label in ((np.int32, "int32"), ("complex64", "complex64"), ("no", "'no'")):
            errors.append(ErrorInput((x,), {"dtype": dtype}, TypeError, f"{text} {label}"))
    return tuple(errors)


# 16-bit results are rounded once from float32, whose own error adds 4 ULP * 2^-13 at the most.
_FORWARD = {"float32": 4.0, "float64": 4.0, "float16": 0.51, "bfloat16": 0.51}
_REDUCED = {**_FORWARD, "float32": 2.0, "float64": 2.0}

# An exponential counts as 20 operations: the reduction of its argument and a polynomial.
_EXP = 20

_twin_softmax = partial(_twin_like, "softmax")
_twin_log_softmax = partial(_twin_like, "log_softmax")

KERNELS = (
    KernelSpec(
        name="softmax",
        function=softmax,
        reference=_twin_softmax,
        sample_inputs=_samples,
        error_inputs=partial(_errors, "softmax", "x"),
        error_scale=partial(_own_scale, _twin_softmax),
        error_budget=_FORWARD,
        bytes_and_flops=lambda n, lines, item: (2 * n * item, (_EXP + 3) * n),
    ),
    KernelSpec(
        name="log_softmax",
        function=log_softmax,
        reference=_twin_log_softmax,
        sample_inputs=_samples,
        error_inputs=partial(_errors, "log_softmax", "x"),
        error_scale=partial(_own_scale, _twin_log_softmax),
        error_budget=_FORWARD,
        bytes_and_flops=lambda n, lines, item: (2 * n * item, (_EXP + 3) * n),
    ),
    KernelSpec(
        name="logsumexp",
        function=logsumexp,
        reference=_twin_logsumexp,
        sample_inputs=_samples,
        error_inputs=partial(_errors, "logsumexp", "x", None, True),
        error_scale=_logsumexp_scale,
        error_budget=_REDUCED,
        bytes_and_flops=lambda n, lines, item: ((n + lines) * item, (_EXP + 2) * n),
        in_place=(),
        reduces=True,
    ),
    KernelSpec(
        name="softmax_vjp",
        function=softmax_vjp,
        reference=partial(_twin_like, "softmax_vjp"),
        sample_inputs=partial(_output_samples, _twin_softmax),
        error_inputs=partial(_errors, "softmax_vjp", "y", (3, 4)),
        error_scale=partial(_vjp_scale, np.abs),
        error_budget=_FORWARD,
        bytes_and_flops=lambda n, lines, item: (3 * n * item, 5 * n),
        in_place=(0, 1),
    ),
    KernelSpec(
        name="log_softmax_vjp",
        function=log_softmax_vjp,
        reference=partial(_twin_like, "log_softmax_vjp"),
        sample_inputs=partial(_output_samples, _twin_log_softmax),
        error_inputs=partial(_errors, "log_softmax_vjp", "y", (3, 4)),
        error_scale=partial(_vjp_scale, np.exp),
        error_budget=_FORWARD,
        bytes_and_flops=lambda n, lines, item: (3 * n * item, (_EXP + 4) * n),
        in_place=(0, 1),
    ),
    KernelSpec(
        name="logsumexp_vjp",
        function=logsumexp_vjp,
        reference=_twin_logsumexp_vjp,
        sample_inputs=_logsumexp_vjp_samples,
        error_inputs=partial(_errors, "logsumexp_vjp", "x", (3,)),
        error_scale=_logsumexp_vjp_scale,
        error_budget=_FORWARD,
        bytes_and_flops=lambda n, lines, item: ((2 * n + 2 * lines) * item, (_EXP + 3) * n),
    ),
)
