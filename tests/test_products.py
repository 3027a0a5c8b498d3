"""matmul, tensordot, inner, outer, transpose, trace, diagonal against NumPy's."""

from typing import Any

import numpy as np
import pytest
from checks import random_for
from einsum_cases import PLACES, random_array

import unitstride
from unitstride import diagonal, inner, matmul, outer, tensordot, trace, transpose

DTYPES = ("float32", "float64", "complex64", "complex128", "int32", "bool")


def compare(got: Any, expected: Any) -> None:
    """Small sums in two orders: a few roundings apart."""
    assert np.asarray(got).dtype == np.asarray(expected).dtype
    assert isinstance(got, np.ndarray) == isinstance(expected, np.ndarray)
    single = np.asarray(got).dtype.name in ("float32", "complex64")
    np.testing.assert_allclose(got, expected, rtol=1e-5 if single else 1e-12, atol=1e-5)


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize(
    "shapes",
    [
        ((3, 4), (4, 5)),
        ((4,), (4, 5)),
        ((3, 4), (4,)),
        ((4,), (4,)),
        ((2, 3, 4), (4, 5)),
        ((3, 4), (2, 4, 5)),
        ((2, 3, 4), (4,)),
        ((4,), (2, 4, 5)),
        ((2, 1, 3, 4), (6, 4, 5)),
        ((1, 3, 4), (6, 4, 5)),
        ((2, 0), (0, 3)),
        ((0, 2), (2, 3)),
        ((3, 1), (1, 5)),
        ((64, 64), (64, 64)),
    ],
    ids=str,
)
def test_matmul(shapes: Any, name: str, isa: str) -> None:
    random = random_for("matmul", shapes, name)
    for _ in range(3):
        a, b = (random_array(random, shape, name) for shape in shapes)
        expected = np.matmul(a, b)
        compare(matmul(a, b), expected)
        compare(matmul(a, b), expected)  # by the plan that is kept
        if expected.ndim:
            out = np.empty_like(expected, order="C")
            assert matmul(a, b, out) is out
            compare(out, expected)


def test_matmul_errors_are_of_numpys_kind() -> None:
    for a, b in (
        (np.ones((2, 3)), np.ones((2, 3))),
        (np.ones((2, 1)), np.ones((3, 2))),
        (np.ones((2, 2, 3)), np.ones((3, 3, 2))),
        (np.float64(1), np.ones(2)),
        (np.ones(2), 1.0),
        (np.ones(2), np.ones(3)),
    ):
        with pytest.raises(ValueError):
            np.matmul(a, b)
        with pytest.raises(ValueError, match=r"^matmul: "):
            matmul(a, b)
    with pytest.raises(TypeError, match=r"^matmul: "):
        matmul(np.ones((2, 2)), np.ones((2, 2)), dtype=np.int64)
    assert matmul(np.ones((2, 2)), np.ones((2, 2)), dtype=np.float32).dtype == np.float32


@pytest.mark.parametrize("name", DTYPES)
def test_tensordot(name: str) -> None:
    random = random_for("tensordot", name)
    a, b = random_array(random, (2, 3, 4, 5), name), random_array(random, (5, 4, 3, 6), name)
    for axes in (0, 1, ([3], [0]), (3, 0), ([-1, 1], [0, 2]), ((2, 3), (1, 0)), ([], [])):
        compare(tensordot(a, b, axes), np.tensordot(a, b, axes))
    compare(tensordot(a, a, 0 if name == "bool" else ([0, 1, 2, 3], [0, 1, 2, 3])), _dot(a, name))
    for axes in (2, 5, ([0], [0, 1]), ([0, 0], [0, 0]), ([0], [0])):
        with pytest.raises((ValueError, IndexError)):
            np.tensordot(a, b, axes)
        with pytest.raises(ValueError, match=r"^tensordot: "):
            tensordot(a, b, axes)
    with pytest.raises(np.exceptions.AxisError, match=r"^tensordot: axis 4 is out of bounds"):
        tensordot(a, b, ([4], [0]))


def _dot(a: Any, name: str) -> Any:
    axes: Any = 0 if name == "bool" else ([0, 1, 2, 3], [0, 1, 2, 3])
    result = np.tensordot(a, a, axes)
    return result if result.ndim else result[()]


@pytest.mark.parametrize("name", DTYPES)
def test_inner_and_outer(name: str) -> None:
    random = random_for("inner", name)
    for first, second in (((4,), (4,)), ((2, 4), (3, 4)), ((2, 3, 4), (4,)), ((), (3,)), ((), ())):
        a, b = random_array(random, first, name), random_array(random, second, name)
        compare(inner(a, b), np.inner(a, b)[()])
        compare(outer(a, b), np.outer(a, b))
    out = np.empty((6, 4), "complex128")
    a, b = np.ones((2, 3)), np.arange(4.0)
    assert outer(a, b, out) is out
    np.testing.assert_array_equal(out, np.outer(a, b))
    with pytest.raises(ValueError, match=r"^inner: the summed axes must have the same size"):
        inner(np.ones((2, 3)), np.ones((2, 1)))


@pytest.mark.parametrize("name", [*DTYPES, "int8", "uint8", "float16"])
def test_trace_and_diagonal(name: str) -> None:
    a = random_array(random_for("trace", name), (3, 4, 5), name)
    for offset in (-2, 0, 1, 7):
        for axes in ((0, 1), (1, 2), (-1, 0)):
            view = diagonal(a, offset, *axes)
            assert not view.size or np.shares_memory(view, a)
            assert not view.flags.writeable
            np.testing.assert_array_equal(view, np.diagonal(a, offset, *axes))
            if name != "float16":
                compare(trace(a, offset, *axes), np.trace(a, offset, *axes))
    if "complex" not in name:
        compare(trace(np.ones((3, 3), name), dtype="f8"), np.float64(3))
    out = np.empty(5)
    assert trace(np.ones((3, 4, 5)), out=out) is out


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.name)
def test_transpose(place: Any) -> None:
    a = place(np.arange(24.0).reshape(2, 3, 4))
    for axes in (None, (1, 2, 0), (-1, 0, 1)):
        view = transpose(a, axes)
        assert np.shares_memory(view, a)
        np.testing.assert_array_equal(view, np.transpose(a, axes))
    with pytest.raises(ValueError):
        transpose(a, (0, 0, 1))


def test_masked_arrays_are_refused() -> None:
    masked = np.ma.ones((2, 2))
    for function in (matmul, tensordot, inner, outer):
        with pytest.raises(TypeError, match=rf"^{function.__name__}: operand 1 must be an array"):
            function(np.ones((2, 2)), masked)
    assert not hasattr(unitstride.trace(np.ones((2, 2))), "mask")
