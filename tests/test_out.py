"""`out=`: identity, in place, overlap, and nothing written outside.

For every kernel: whatever `out` shares with the inputs, the result is the one without `out`.
"""

from typing import Any

import numpy as np
import pytest
from checks import DTYPES, array_arguments, assert_same_bits, call, dtype_of, random_for

from unitstride._records import KERNELS, KernelSpec, Sample

GUARD = 64  # bytes on each side of an output
POISON = 0xA5


def samples_of(spec: KernelSpec, name: str, shape: tuple[int, ...], axis: Any, *key: object) -> Any:
    return spec.sample_inputs(random_for(spec.name, name, *key), dtype_of(name), shape, axis)


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("spec", KERNELS, ids=lambda spec: spec.name)
def test_out_is_returned_and_holds_the_result(spec: KernelSpec, name: str) -> None:
    for axis in (0, -1, (0, 1), None):
        for sample in samples_of(spec, name, (5, 4, 33), axis, "identity"):
            expected = np.asarray(call(spec, sample))
            out = np.full_like(expected, 99)
            assert call(spec, sample, out=out) is out
            assert_same_bits(out, expected, sample.label)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("spec", KERNELS, ids=lambda spec: spec.name)
def test_nothing_is_written_around_out(spec: KernelSpec, name: str, axis: int, isa: str) -> None:
    """Guard bytes before and after, at every place of `out` within a cache line."""
    item = dtype_of(name).itemsize
    for columns in (1, 2, 3, 7, 16, 33, 100):
        for sample in samples_of(spec, name, (11, columns), axis, "guard", columns):
            expected = np.asarray(call(spec, sample))
            for offset in range(0, 64, item * 3):
                memory, out = guarded(expected, offset)
                call(spec, sample, out=out)
                context = f"{sample.label}, {columns} columns, {offset} bytes past a cache line"
                assert_same_bits(out, expected, context)
                out[...] = 0
                memory = memory.copy()
                memory[GUARD : -GUARD or None][: out.nbytes] = POISON
                assert (memory == POISON).all(), context


def guarded(like: Any, offset: int) -> tuple[Any, Any]:
    """Return poisoned memory and an output inside it, `offset` bytes past a cache line."""
    host = np.full(like.nbytes + 2 * GUARD + 64, POISON, np.uint8)
    begin = -host.__array_interface__["data"][0] % 64 + offset
    memory = host[begin - GUARD :] if begin >= GUARD else host[begin:]
    memory = memory[: like.nbytes + 2 * GUARD]
    inside = memory[GUARD : GUARD + like.nbytes]
    return memory, inside.view(like.dtype).reshape(like.shape)


@pytest.mark.parametrize("spec", KERNELS, ids=lambda spec: spec.name)
@pytest.mark.parametrize("name", ["float32", "float16"])
def test_gaps_between_strided_outputs_stay(spec: KernelSpec, name: str, isa: str) -> None:
    """Elements of the host that are not part of `out` keep their bytes."""
    for axis in (0, -1):
        for sample in samples_of(spec, name, (9, 37), axis, "gaps"):
            expected = np.asarray(call(spec, sample))
            host = np.full([3 * n + 1 for n in expected.shape], 99, expected.dtype)
            out = host[(slice(1, None, 3),) * expected.ndim]
            call(spec, sample, out=out)
            assert_same_bits(out, expected, sample.label)
            out[...] = 99
            assert (host == 99).all(), sample.label


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("spec", KERNELS, ids=lambda spec: spec.name)
def test_in_place(spec: KernelSpec, name: str, isa: str) -> None:
    for shape in ((6, 5, 40), (3, 20, 7), (2, 3, 30_000)):
        for axis in (0, 1, -1, None):
            for position in spec.in_place:
                for sample in samples_of(spec, name, shape, axis, "in place", position):
                    expected = call(spec, sample)
                    arrays = [array.copy() for array in sample.arrays]
                    out = arrays[position]
                    inside = Sample(sample.label, tuple(arrays), sample.keywords)
                    assert call(spec, inside, out=out) is out
                    assert_same_bits(out, expected, f"{shape}, axis {axis}, {sample.label}")


def random_view(random: Any, host: Any, shape: tuple[int, ...]) -> Any:
    """Return a view of `shape` at a random place of the host, with random steps and axes."""
    order = random.permutation(len(shape))
    slices = []
    for position in range(len(shape)):
        size = shape[order[position]]
        most = max((host.shape[position] - 1) // max(size - 1, 1), 1)
        step = int(random.integers(1, min(most, 3) + 1))
        begin = int(random.integers(0, host.shape[position] - step * (size - 1)))
        chosen = list(range(begin, begin + step * size, step))[:size]
        if random.random() < 0.3:
            chosen.reverse()
        last = chosen[-1] + (1 if chosen[-1] >= chosen[0] else -1)
        direction = step if chosen[-1] >= chosen[0] else -step
        slices.append(slice(chosen[0], last if last >= 0 else None, direction))
    return host[tuple(slices)].transpose(np.argsort(order))


@pytest.mark.parametrize("spec", KERNELS, ids=lambda spec: spec.name)
def test_partly_overlapping_views(spec: KernelSpec) -> None:
    """Pairs of random views of one host, most of them overlapping, in any relative position."""
    overlapping = 0
    random = random_for("overlap", spec.name)
    for number in range(500):
        shape = tuple(int(n) for n in random.integers(1, 6, 2))
        axis = int(random.integers(-1, 2))
        host = random.standard_normal((12, 12)).astype(np.float32)
        x = random_view(random, host, shape)
        (sample, *_) = samples_of(spec, "float32", shape, axis, number)
        position = int(random.integers(len(sample.arrays))) if not spec.reduces else 0
        arrays = list(sample.arrays)
        if arrays[position].shape != shape:
            position = 0
        arrays[position] = x
        separate = [array.copy() for array in arrays]
        expected = np.asarray(call(spec, Sample("separate", tuple(separate), sample.keywords)))
        line = host[tuple([slice(None)] * expected.ndim + [3] * (2 - expected.ndim))]
        out = random_view(random, line, expected.shape)
        overlapping += np.shares_memory(x, out)
        untouched = outside(host, out)
        call(spec, Sample("overlapping", tuple(arrays), sample.keywords), out=out)
        assert_same_bits(out, expected, f"pair {number}: {x.strides}, {out.strides}, axis {axis}")
        np.testing.assert_array_equal(outside(host, out), untouched)
    assert overlapping >= 60  # the test is about overlap: many pairs must have some


def outside(host: Any, view: Any) -> Any:
    """Return the elements of the host that are not in the view."""
    marks = np.zeros(host.shape, bool)
    base = host.__array_interface__["data"][0]
    offset = view.__array_interface__["data"][0] - base
    np.ndarray(view.shape, bool, marks, offset // 4, [s // 4 for s in view.strides])[...] = True
    return host[~marks]


@pytest.mark.parametrize("spec", KERNELS, ids=lambda spec: spec.name)
def test_out_may_overlap_masks(spec: KernelSpec) -> None:
    """A mask that lives in the memory of the output is read before it is written."""
    _, sample, *_ = samples_of(spec, "float32", (4, 24), -1, "mask")
    expected = np.asarray(call(spec, sample))
    memory = np.zeros(max(expected.nbytes, 96), np.uint8)
    where = memory[:96].view(bool).reshape(4, 24)
    where[...] = sample.keywords["where"]
    out = memory[: expected.nbytes].view(np.float32).reshape(expected.shape)
    spec.function(*sample.arrays, **{**sample.keywords, "where": where}, out=out)
    assert_same_bits(out, expected)


@pytest.mark.parametrize("spec", KERNELS, ids=lambda spec: spec.name)
def test_inputs_are_never_modified(spec: KernelSpec) -> None:
    """Read-only inputs work, and writeable ones keep their bytes; for every axis and dtype."""
    for name in DTYPES:
        for axis in (0, 1, None):
            for sample in samples_of(spec, name, (7, 45), axis, "inputs"):
                expected = call(spec, sample)
                for array in array_arguments(sample):
                    array.flags.writeable = False
                assert_same_bits(call(spec, sample), expected)


@pytest.mark.parametrize("spec", KERNELS, ids=lambda spec: spec.name)
def test_a_refused_out_is_untouched(spec: KernelSpec) -> None:
    for error in spec.error_inputs():
        out = error.keywords.get("out")
        if not isinstance(out, np.ndarray):
            continue
        before = np.asarray(out).tobytes()
        with pytest.raises(error.error):
            spec.function(*error.arrays, **error.keywords)
        assert np.asarray(out).tobytes() == before


@pytest.mark.parametrize("spec", KERNELS, ids=lambda spec: spec.name)
def test_out_with_size_one_axes_of_stride_zero(spec: KernelSpec) -> None:
    """A stride of zero along an axis of one element shares nothing."""
    if spec.reduces:
        pytest.skip("the result has other axes than the input")
    (sample, *_) = samples_of(spec, "float64", (1, 9), -1, "stride zero")
    out = np.lib.stride_tricks.as_strided(np.zeros(9), (1, 9), (0, 8))
    call(spec, sample, out=out)
    assert_same_bits(out, call(spec, sample))


def test_a_subclass_is_returned_as_is() -> None:
    (spec, *_) = KERNELS
    (sample, *_) = samples_of(spec, "float64", (3, 4), -1, "subclass")

    class Tagged(np.ndarray):
        pass

    out = np.zeros((3, 4)).view(Tagged)
    assert call(spec, sample, out=out) is out
    assert_same_bits(np.asarray(out), call(spec, sample))
