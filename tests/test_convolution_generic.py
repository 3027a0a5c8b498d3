"""The generic tests over the records of convolution."""

from collections.abc import Callable
from typing import Any

import pytest
import test_accuracy
import test_errors
import test_errstate
import test_isa
import test_layouts
import test_memory
import test_out
import test_threads
from checks import DTYPES, needs_core
from layouts import LAYOUTS, Layout

from unitstride._convolution_records import CONVOLUTIONS
from unitstride._records import KernelSpec

OF_EVERY_DTYPE: list[Callable[[KernelSpec, str], None]] = [
    test_threads.test_same_bits_at_any_number_of_threads,
    test_out.test_out_is_returned_and_holds_the_result,
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

specs = pytest.mark.parametrize("spec", CONVOLUTIONS, ids=lambda spec: spec.name)


def title(test: Any) -> str:
    return str(test.__name__).removeprefix("test_")


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("test", OF_EVERY_DTYPE, ids=title)
def test_of_every_dtype(test: Any, name: str) -> None:
    test(CONVOLUTIONS[0], name)


@specs
@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("test", OF_EVERY_DTYPE_AND_LEVEL, ids=title)
def test_of_every_dtype_and_level(test: Any, spec: KernelSpec, name: str, isa: str) -> None:
    test(spec, name, isa)


@pytest.mark.parametrize("test", ONCE, ids=title)
def test_once(test: Any) -> None:
    test(CONVOLUTIONS[0])


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
@pytest.mark.parametrize("name", DTYPES)
def test_same_bits_in_every_layout(name: str, layout: Layout, isa: str) -> None:
    test_layouts.test_inputs_in_every_layout(CONVOLUTIONS[0], name, layout, isa)


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("axis", [0, 1])
def test_nothing_is_written_around_out(name: str, axis: int, isa: str) -> None:
    test_out.test_nothing_is_written_around_out(CONVOLUTIONS[0], name, axis, isa)


@needs_core
def test_the_control_word_stays(isa: str) -> None:
    test_isa.test_the_control_word_stays(CONVOLUTIONS[0], isa)


@specs
def test_error_texts(spec: KernelSpec) -> None:
    for error in spec.error_inputs():
        test_errors.test_error_text(spec, error)
        test_errors.test_error_text_of_the_fallback(spec, error)
