"""The result has the same bits whatever the memory layout of inputs and outputs.

Each layout is compared with the call on contiguous copies of the same values. Nothing is close or
almost: every bit agrees, for every kernel, dtype, axis, position of the array and instruction set.
"""

import math
from typing import Any

import numpy as np
import pytest
from checks import (
    DTYPES,
    assert_same_bits,
    call,
    dtype_of,
    fallback,
    random_for,
)
from layouts import LAYOUTS, OUTPUT_LAYOUTS, Layout

from unitstride import _arguments
from unitstride._records import KERNELS, LONG_LENGTHS, SHORT_LENGTHS, KernelSpec, Sample

SHAPE = (5, 6, 37)  # the last axis is two vectors and a tail, the middle one shorter than a vector
AXES = (0, 1, -1, (0, 2), (1, 2), None)


def axes_that_fit(axis: Any, dimensions: int) -> Any:
    """Return the axis, or the last one where the problem has fewer axes."""
    return axis if dimensions == len(SHAPE) or axis is None else -1


def contiguous(sample: Sample) -> Sample:
    """Return the sample with plain contiguous copies of its arrays."""

    def plain(value: Any) -> Any:
        if not isinstance(value, np.ndarray):
            return value
        return np.array(value.astype(value.dtype.newbyteorder("=")), order="C", subok=False)

    keywords = {key: plain(value) for key, value in sample.keywords.items()}
    return Sample(sample.label, tuple(map(plain, sample.arrays)), keywords)


def relaid(sample: Sample, layout: Layout, shape: tuple[int, ...]) -> list[Sample]:
    """Return the sample with each array laid out in turn, and with all of them."""
    variants = []
    everything = list(sample.arrays)
    for position, array in enumerate(sample.arrays):
        everything[position] = layout(array)
        arrays = (*sample.arrays[:position], everything[position], *sample.arrays[position + 1 :])
        variants.append(Sample(f"{sample.label}, {position}", arrays, sample.keywords))
    keywords = {
        key: layout(value) if isinstance(value, np.ndarray) else value
        for key, value in sample.keywords.items()
    }
    if len(everything) > 1 or keywords.keys() - {"axis", "temperature"}:
        variants.append(Sample(f"{sample.label}, all", tuple(everything), keywords))
    return variants


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("spec", KERNELS, ids=lambda spec: spec.name)
def test_inputs_in_every_layout(spec: KernelSpec, dtype: str, layout: Layout, isa: str) -> None:
    shape = layout.shape(SHAPE)
    random = random_for("inputs", spec.name, dtype, layout.name)
    for axis in AXES:
        axis = axes_that_fit(axis, len(shape))
        for sample in spec.sample_inputs(random, dtype_of(dtype), shape, axis):
            for variant in relaid(sample, layout, shape):
                expected = call(spec, contiguous(variant))
                got = call(spec, variant)
                assert_same_bits(got, expected, f"{layout.name}, axis {axis}, {variant.label}")


@pytest.mark.parametrize("layout", OUTPUT_LAYOUTS, ids=lambda layout: layout.name)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("spec", KERNELS, ids=lambda spec: spec.name)
def test_outputs_in_every_layout(spec: KernelSpec, dtype: str, layout: Layout, isa: str) -> None:
    shape = layout.shape(SHAPE)
    random = random_for("outputs", spec.name, dtype, layout.name)
    for axis in AXES:
        axis = axes_that_fit(axis, len(shape))
        for sample in spec.sample_inputs(random, dtype_of(dtype), shape, axis):
            expected = np.asarray(call(spec, sample))
            out = layout(np.full_like(expected, 7))
            assert call(spec, sample, out=out) is out
            assert_same_bits(out, expected, f"{layout.name}, axis {axis}, {sample.label}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("spec", KERNELS, ids=lambda spec: spec.name)
def test_every_length_by_rows_and_by_columns(spec: KernelSpec, dtype: str, isa: str) -> None:
    """A line has the same bits alone, among rows, among columns and with a step."""
    for length in SHORT_LENGTHS:
        random = random_for("lengths", spec.name, dtype, length)
        for sample in spec.sample_inputs(random, dtype_of(dtype), (19, length), -1):
            rows = np.asarray(call(spec, sample))
            assert_line_by_line(spec, sample, rows)
            assert_same_bits(call(spec, by_columns(sample)).T, rows, f"columns of {length}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("spec", KERNELS, ids=lambda spec: spec.name)
def test_long_lengths_by_rows_and_by_columns(spec: KernelSpec, dtype: str, isa: str) -> None:
    for length in LONG_LENGTHS:
        random = random_for("long", spec.name, dtype, length)
        sample = spec.sample_inputs(random, dtype_of(dtype), (2, length), -1)[length % 2]
        rows = np.asarray(call(spec, sample))
        assert_line_by_line(spec, sample, rows)
        assert_same_bits(call(spec, by_columns(sample)).T, rows, f"columns of {length}")


def assert_line_by_line(spec: KernelSpec, sample: Sample, rows: Any) -> None:
    """Compare the lines of a (lines, length) call with calls of one line each."""
    for line in range(len(rows)):
        keywords = {
            key: value[line] if isinstance(value, np.ndarray) else value
            for key, value in sample.keywords.items()
        }
        alone = Sample(sample.label, tuple(array[line] for array in sample.arrays), keywords)
        context = f"line {line} of {sample.arrays[0].shape}, {sample.label}"
        assert_same_bits(call(spec, alone), rows[line], context)


def by_columns(sample: Sample) -> Sample:
    """Return a (lines, length) sample over axis 0 of its contiguous transpose."""
    arrays = tuple(np.ascontiguousarray(array.T) for array in sample.arrays)
    keywords = {
        key: np.ascontiguousarray(value.T) if isinstance(value, np.ndarray) else value
        for key, value in sample.keywords.items()
    }
    return Sample(sample.label, arrays, {**keywords, "axis": 0})


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("spec", KERNELS, ids=lambda spec: spec.name)
def test_alignment_of_inputs_and_outputs(spec: KernelSpec, dtype: str, isa: str) -> None:
    """Every place of input and output within a cache line, lines with body and tail."""
    (sample, *_) = spec.sample_inputs(random_for("place", spec.name), dtype_of(dtype), (3, 133), -1)
    expected = np.asarray(call(spec, sample))
    item = expected.itemsize
    for offset in range(0, 64, item):
        arrays = tuple(placed(array, offset) for array in sample.arrays)
        out = placed(np.zeros_like(expected), (3 * offset) % 64 // item * item)
        moved = Sample(f"offset {offset}", arrays, sample.keywords)
        assert_same_bits(call(spec, moved, out=out), expected, moved.label)


def placed(array: Any, offset: int) -> Any:
    """Copy an array to an address that is `offset` modulo 64."""
    memory = np.zeros(array.nbytes + 128, np.uint8)
    begin = -memory.__array_interface__["data"][0] % 64 + offset
    view = memory[begin : begin + array.nbytes].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


@pytest.mark.parametrize("axis", [*AXES, (0, 1, 2), (2, 0), -2, ()])
@pytest.mark.parametrize("spec", KERNELS, ids=lambda spec: spec.name)
def test_axes_agree_with_moved_axes(spec: KernelSpec, axis: Any) -> None:
    """Several axes are one axis after a transpose and a reshape; no axis is lines of one."""
    for sample in spec.sample_inputs(random_for(axis), dtype_of("float32"), SHAPE, axis):
        axes = _arguments.normalize_axes(spec.name, axis, len(SHAPE))
        kept = [i for i in range(len(SHAPE)) if i not in axes]
        length = math.prod(SHAPE[i] for i in axes)

        def flat(value: Any, kept: Any = kept, axes: Any = axes, length: int = length) -> Any:
            return value.transpose(*kept, *axes).reshape(*(SHAPE[i] for i in kept), length)

        arrays = tuple(
            flat(array) if i in (0, *spec.in_place) else array
            for i, array in enumerate(sample.arrays)
        )
        keywords = {**sample.keywords, "axis": -1}
        if "where" in keywords:
            keywords["where"] = flat(keywords["where"])
        moved = Sample("moved", arrays, keywords)
        got = np.asarray(call(spec, sample))
        if not spec.reduces:
            got = flat(got)
        assert_same_bits(got, call(spec, moved), sample.label)


@pytest.mark.parametrize("spec", KERNELS, ids=lambda spec: spec.name)
def test_results_keep_the_memory_order(spec: KernelSpec) -> None:
    if spec.reduces:
        pytest.skip("the result has other axes than the input")
    for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
        host = tuple(SHAPE[i] for i in order)
        (sample, *_) = spec.sample_inputs(random_for(order), dtype_of("float64"), SHAPE, -1)
        arrays = list(sample.arrays)
        laid = np.empty(host).transpose(np.argsort(order))
        laid[...] = arrays[0]
        arrays[0] = laid
        result = call(spec, Sample("ordered", tuple(arrays), sample.keywords))
        assert result.strides == laid.strides
        assert type(result) is np.ndarray


@pytest.mark.parametrize("spec", KERNELS, ids=lambda spec: spec.name)
def test_subclasses(spec: KernelSpec) -> None:
    """A matrix counts as a plain array; a masked array is refused, with advice."""
    (sample, *_) = spec.sample_inputs(random_for("matrix"), dtype_of("float64"), (3, 4), -1)
    with pytest.warns(PendingDeprecationWarning):
        arrays = (np.matrix(sample.arrays[0]), *sample.arrays[1:])
    result = call(spec, Sample("matrix", arrays, sample.keywords))
    assert type(result) is np.ndarray
    assert_same_bits(result, call(spec, sample))


@pytest.mark.parametrize("spec", KERNELS, ids=lambda spec: spec.name)
def test_lists_and_scalars(spec: KernelSpec) -> None:
    (sample, *_) = spec.sample_inputs(random_for("list"), dtype_of("float64"), (3, 4), -1)
    arrays = tuple(array.tolist() for array in sample.arrays)
    assert_same_bits(spec.function(*arrays, axis=-1), call(spec, sample))
    (sample, *_) = spec.sample_inputs(random_for("scalar"), dtype_of("float64"), (), -1)
    arrays = tuple(float(array) for array in sample.arrays)
    assert_same_bits(spec.function(*arrays, axis=-1), call(spec, sample))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("spec", KERNELS, ids=lambda spec: spec.name)
def test_the_fallback_gives_the_same_dtypes_shapes_and_strides(
    spec: KernelSpec, dtype: str
) -> None:
    for axis in (0, -1, None):
        random = random_for("fallback", spec.name, dtype, axis)
        for sample in spec.sample_inputs(random, dtype_of(dtype), SHAPE, axis):
            transposed = tuple(array.copy("F") for array in sample.arrays)
            sample = Sample(sample.label, transposed, sample.keywords)
            got = call(spec, sample)
            with fallback():
                twin = call(spec, sample)
            assert got.dtype == twin.dtype and got.shape == twin.shape
            if got.ndim:
                assert got.strides == twin.strides
