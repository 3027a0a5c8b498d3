"""The parser of subscripts on any text: the right answer, or an error of NumPy's kind."""

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from unitstride import einsum, einsum_path
from unitstride._einsum_parse import letters_of, parse_text

ALPHABET = "ijkAZ,.->  \t1é"
SHAPES = st.lists(
    st.sampled_from([(), (2,), (2, 2), (2, 3), (3, 2), (1, 2), (2, 2, 2)]), max_size=3
)


def numpys_answer(subscripts: Any, operands: list[Any]) -> Any:
    """Return what either form of NumPy's einsum answers; None if both refuse."""
    for optimize in (False, True):
        try:
            return np.einsum(subscripts, *operands, optimize=optimize)
        except (ValueError, TypeError, IndexError, RuntimeError):
            continue
    return None


@settings(max_examples=1500, deadline=None, derandomize=True)
@given(st.text(ALPHABET, max_size=14), SHAPES)
@example("...->", [(2, 2)])
@example("->", [()])
@example(".. .i , ...->...", [(2, 2), (2,)])
@example("i->...i", [(2,)])
@example("ij->...", [(2, 3)])
@example("i,->i", [(2,), ()])
@example(",", [(), ()])
@example("", [()])
@example("i" * 70, [(2, 2)])
def test_any_text(subscripts: str, shapes: list[tuple[int, ...]]) -> None:
    operands = [np.arange(1.0, 1 + np.prod(shape)).reshape(shape) for shape in shapes]
    expected = numpys_answer(subscripts, operands)
    try:
        got = einsum(subscripts, *operands)
    except (ValueError, TypeError) as error:
        assert expected is None, f"{subscripts!r} {shapes}: {error}"
        assert str(error).startswith("einsum: ")
        return
    if expected is None:
        # What NumPy has no letters for.
        assert any(not letter.isascii() for letter in subscripts), (subscripts, shapes)
        return
    assert np.shape(got) == np.shape(expected)
    np.testing.assert_allclose(got, expected, rtol=1e-13)


@settings(max_examples=600, deadline=None, derandomize=True)
@given(st.text(max_size=10), SHAPES)
def test_any_unicode(subscripts: str, shapes: list[tuple[int, ...]]) -> None:
    operands = [np.ones(shape) for shape in shapes]
    try:
        einsum(subscripts, *operands)
        einsum_path(subscripts, *operands)
    except (ValueError, TypeError) as error:
        assert str(error).startswith("einsum")


LABELS = st.one_of(
    st.lists(st.one_of(st.integers(-3, 60), st.just(Ellipsis)), max_size=3),
    st.lists(st.one_of(st.integers(), st.floats(), st.text(max_size=1), st.none()), max_size=3),
    st.one_of(st.none(), st.integers(), st.text(max_size=2), st.tuples(st.integers(0, 3))),
)


@settings(max_examples=600, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.sampled_from([(), (2,), (2, 2)]), LABELS), max_size=3),
    LABELS,
    st.booleans(),
)
def test_any_lists(pairs: list[Any], output: Any, with_output: bool) -> None:
    call: list[Any] = []
    for shape, labels in pairs:
        call += [np.ones(shape), labels]
    if with_output and output is not None:
        call.append(output)
    expected = numpys_answer(call[0], call[1:]) if call else None
    try:
        got = einsum(*call)
    except (ValueError, TypeError) as error:
        integers = [x for x in call[1::2] if isinstance(x, list)]
        # NumPy takes negative numbers for letters from the end, some of them for the same letter.
        odd = any(isinstance(x, int) and x < 0 for labels in integers for x in labels)
        assert expected is None or odd or _has_text(call), str(error)
        return
    if expected is not None and np.shape(got) == np.shape(expected):
        np.testing.assert_allclose(got, expected)


def _has_text(call: list[Any]) -> bool:
    """NumPy takes an empty string for an empty list."""
    return any(isinstance(x, str) for x in call)


@pytest.mark.parametrize(
    ("text", "dimensions", "terms", "output"),
    [
        ("ij,jk->ik", (2, 2), ((0, 1), (1, 2)), (0, 2)),
        ("ba", (2,), ((0, 1),), (1, 0)),
        ("b...a,...", (4, 1), ((0, 1, 2, 3), (2,)), (1, 2, 3, 0)),
        ("...a,a...->...a", (3, 2), ((0, 1, 2), (2, 1)), (0, 1, 2)),
        ("i...j->j...", (2,), ((0, 1),), (1,)),
        (" i i -> i ", (2,), ((0, 0),), (0,)),
    ],
)
def test_numbers_of_labels(text: str, dimensions: Any, terms: Any, output: Any) -> None:
    parsed = parse_text("einsum", text, dimensions)
    assert (parsed.terms, parsed.output) == (terms, output)


def test_letters_for_reports_are_different() -> None:
    parsed = parse_text("einsum", "a...zé", (60,))
    letters = letters_of(parsed)
    assert len(set(letters)) == len(letters) == 60
    assert {letters[0], letters[-2], letters[-1]} == {"a", "z", "é"}
