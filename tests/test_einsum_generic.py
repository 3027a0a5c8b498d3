"""The generic tests over the records of contraction, and all layouts within the error budget."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import test_accuracy
import test_errors
import test_errstate
import test_isa
import test_layouts
import test_memory
import test_out
import test_threads
from checks import DTYPES, assert_within_budget, call, core, dtype_of, needs_core, random_for
from layouts import LAYOUTS, Layout

from unitstride._einsum_records import CONTRACTIONS
from unitstride._records import KernelSpec, Sample

(SPEC,) = CONTRACTIONS
SHAPE = (5, 6, 37)

OF_EVERY_DTYPE: list[Callable[[KernelSpec, str], None]] = [
    test_threads.test_same_bits_at_any_number_of_threads,
    test_out.test_out_is_returned_and_holds_the_result,
    test_layouts.test_the_fallback_gives_the_same_dtypes_shapes_and_strides,
]
OF_EVERY_DTYPE_AND_LEVEL: list[Callable[[KernelSpec, str, str], None]] = [
    test_accuracy.test_error_budget_of_every_kernel,
    test_errstate.test_clean_data_never_warns,
    test_layouts.test_alignment_of_inputs_and_outputs,
]
ONCE: list[Callable[[KernelSpec], None]] = [
    test_threads.test_same_bits_every_time,
    test_threads.test_64_python_threads_at_once,
    test_out.test_inputs_are_never_modified,
    test_out.test_a_refused_out_is_untouched,
    test_layouts.test_subclasses,
    test_memory.test_thousands_of_calls_leak_nothing,
    test_memory.test_references_are_given_back,
]


def title(test: Any) -> str:
    return str(test.__name__).removeprefix("test_")


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("test", OF_EVERY_DTYPE, ids=title)
def test_of_every_dtype(test: Any, name: str) -> None:
    test(SPEC, name)


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("test", OF_EVERY_DTYPE_AND_LEVEL, ids=title)
def test_of_every_dtype_and_level(test: Any, name: str, isa: str) -> None:
    test(SPEC, name, isa)


@pytest.mark.parametrize("test", ONCE, ids=title)
def test_once(test: Any) -> None:
    test(SPEC)


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("axis", [0, 1])
def test_nothing_is_written_around_out(name: str, axis: int, isa: str) -> None:
    test_out.test_nothing_is_written_around_out(SPEC, name, axis, isa)


@needs_core
def test_the_control_word_stays(isa: str) -> None:
    test_isa.test_the_control_word_stays(SPEC, isa)


@needs_core
@pytest.mark.parametrize("name", DTYPES)
def test_levels_agree_within_the_budget(name: str, isa: str) -> None:
    test_isa.test_levels_agree_within_the_budget(SPEC, name, isa)


@needs_core
@pytest.mark.parametrize("name", DTYPES)
def test_failure_at_every_allocation(name: str) -> None:
    """MemoryError at the first, second ... allocation; `out` is untouched, the next call right."""
    points = 0
    for shape, axis in (((7, 40), -1), ((90, 70), 0), ((4, 5, 6), (0, 2)), ((300, 500), 1)):
        random = random_for("allocation", name, shape)
        for plain in SPEC.sample_inputs(random, dtype_of(name), shape, axis):
            for sample in (plain, test_memory.strided(plain)):
                expected = np.asarray(call(SPEC, sample))
                for out in (None, np.full_like(expected, 77)):
                    points += test_memory.fail_everywhere(SPEC, sample, expected, out)
    assert core is not None
    assert points >= 4


@pytest.mark.parametrize("number", range(len(SPEC.error_inputs())))
def test_error_texts(number: int) -> None:
    error = SPEC.error_inputs()[number]
    test_errors.test_error_text(SPEC, error)
    test_errors.test_error_text_of_the_fallback(SPEC, error)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
@pytest.mark.parametrize("name", DTYPES)
def test_every_layout_is_within_the_budget(name: str, layout: Layout, isa: str) -> None:
    """Inputs one by one and together, and the output.

    Of broadcast arrays all terms of a sum are equal; their roundings have one sign and add up
    instead of cancelling, up to half a unit for each of 222 terms: a quarter of that is allowed.
    """
    shape = layout.shape(SHAPE)
    spec = SPEC
    if layout.name.startswith("broadcast") and name in ("float32", "float64"):
        spec = dataclasses.replace(SPEC, error_budget={name: 222 / 2 / 4})
    random = random_for("einsum layouts", name, layout.name)
    for axis in test_layouts.AXES:
        axis = test_layouts.axes_that_fit(axis, len(shape))
        for sample in SPEC.sample_inputs(random, dtype_of(name), shape, axis):
            for variant in test_layouts.relaid(sample, layout, shape):
                plain = test_layouts.contiguous(variant)
                assert_within_budget(spec, plain, call(SPEC, variant), name)
            if layout.writeable and layout.name != "foreign byte order":
                expected = np.asarray(call(SPEC, sample))
                out = layout(np.full_like(expected, 7)) if expected.ndim else expected.copy()
                if out.shape == expected.shape:
                    assert call(SPEC, sample, out=out) is out
                    assert_within_budget(SPEC, sample, out, name)


def test_lists_and_scalars() -> None:
    """Python numbers of the same values give the same result."""
    (sample, *_) = SPEC.sample_inputs(random_for("list"), dtype_of("float64"), (3, 4), -1)
    arrays = tuple(array.tolist() for array in sample.arrays)
    np.testing.assert_array_equal(SPEC.function(*arrays, axis=-1), call(SPEC, sample))
    scalar = Sample("scalar", (np.float64(2.0), np.float64(3.0)), {"axis": None})
    assert call(SPEC, scalar) == SPEC.function(2.0, 3.0, axis=None) == 6.0
