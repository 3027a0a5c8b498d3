"""Contractions that are called again: the second call takes the core's short way, or must not."""

from typing import Any

import numpy as np
import pytest
from checks import random_for
from einsum_cases import assert_close

from unitstride import contract_expression, einsum, matmul

Array = np.ndarray[Any, Any]


def arrays_for(dtype: str, *shapes: tuple[int, ...]) -> list[Array]:
    random = random_for("again", dtype, *shapes)
    return [random.standard_normal(shape).astype(dtype) for shape in shapes]


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize(
    ("text", "shapes"),
    [
        ("ij,jk->ik", ((3, 4), (4, 5))),
        ("ij,jk,kl->il", ((3, 4), (4, 5), (5, 6))),
        ("ij,ij->", ((3, 4), (3, 4))),
        ("bij,bjk->bik", ((1, 3, 4), (6, 4, 5))),
        ("...ij,...jk->...ik", ((2, 1, 3, 4), (6, 4, 5))),
        ("ii->", ((4, 4),)),
        ("ij,ij->ij", ((3, 4), (3, 4))),
    ],
)
def test_the_second_call_equals_the_first(dtype: str, text: str, shapes: Any) -> None:
    arrays = arrays_for(dtype, *shapes)
    first = einsum(text, *arrays)
    second = einsum(text, *arrays)
    assert type(second) is type(first)
    np.testing.assert_array_equal(second, first)
    assert_close(second, text, arrays)
    other = [np.asfortranarray(array) for array in arrays]  # the same shapes in another layout
    again = einsum(text, *other)
    np.testing.assert_allclose(again, first, rtol=1e-4, atol=1e-5)
    assert np.asarray(again).strides == np.asarray(einsum(text, *other, order="K")).strides
    reversed_views = [array[::-1] for array in arrays]
    assert_close(einsum(text, *reversed_views), text, reversed_views)
    out = np.full_like(np.asarray(first), 2)
    assert einsum(text, *arrays, out=out, alpha=0.5, beta=1) is out
    np.testing.assert_allclose(out, 0.5 * np.asarray(first) + 2, rtol=1e-4, atol=1e-5)


def test_outputs_of_the_second_call() -> None:
    a, b = arrays_for("float64", (4, 4), (4, 4))
    expected = einsum("ij,jk->ik", a, b)
    einsum("ij,jk->ik", a, b, out=np.empty((4, 4)))
    wide = np.zeros((8, 12))
    for out in (wide[::2, ::3], wide[:4, 3::-1], np.empty((4, 4), order="F"), wide[4:, 4:8]):
        assert einsum("ij,jk->ik", a, b, out=out) is out
        np.testing.assert_array_equal(out, expected)
    same = a.copy()
    assert einsum("ij,jk->ik", same, b, out=same) is same  # reads what it overwrites
    np.testing.assert_array_equal(same, expected)
    single = np.empty((4, 4), np.complex128)
    np.testing.assert_array_equal(einsum("ij,jk->ik", a, b, out=single), expected)
    frozen = np.empty((4, 4))
    frozen.flags.writeable = False
    folded = np.lib.stride_tricks.as_strided(wide, (4, 4), (8, 8))
    for wrong, text in (
        (frozen, "writeable"),
        (folded, "must not overlap itself"),
        (np.empty((4, 5)), "must have shape"),
    ):
        with pytest.raises(ValueError, match=text):
            einsum("ij,jk->ik", a, b, out=wrong)
    with pytest.raises(TypeError, match="`out` must be a NumPy array"):
        einsum("ij,jk->ik", a, b, out=[[0.0] * 4] * 4)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`beta` must be 0 without `out`"):
        einsum("ij,jk->ik", a, b, beta=1)
    with pytest.raises(TypeError, match="`alpha` must be a number"):
        einsum("ij,jk->ik", a, b, alpha="2")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="`alpha` must be real"):
        einsum("ij,jk->ik", a, b, alpha=1j)


def test_operands_that_only_look_alike() -> None:
    a, b = arrays_for("float64", (4, 4), (4, 4))
    expected = einsum("ij,jk->ik", a, b)
    np.testing.assert_array_equal(einsum("ij,jk->ik", a.astype(">f8"), b), expected)
    np.testing.assert_array_equal(einsum("ij,jk->ik", a.tolist(), b), expected)
    bytes_of = np.zeros(4 * 4 * 9, np.uint8)
    odd = np.ndarray((4, 4), np.float64, bytes_of, 1, (36, 9))  # steps are not whole elements
    odd[...] = a
    np.testing.assert_array_equal(einsum("ij,jk->ik", odd, b), expected)
    masked = np.ma.masked_array(a, mask=False)
    with pytest.raises(TypeError, match="without a mask"):
        einsum("ij,jk->ik", masked, b)
    assert einsum("ij->ji", a).base is a
    assert einsum("ij->ji", a).base is a
    frozen = a.copy()
    frozen.flags.writeable = False
    assert einsum("ij->ji", a).flags.writeable and not einsum("ij->ji", frozen).flags.writeable
    cube = np.ones((4, 4, 4))
    for _ in range(2):
        np.testing.assert_array_equal(matmul(a, b), expected)
        np.testing.assert_array_equal(einsum("ijk->jik", cube), cube)


def test_status_of_the_second_call_is_reported() -> None:
    huge = np.full((3, 3), 1e30, np.float32)
    product = contract_expression("ij,jk->ik", (3, 3), (3, 3))
    for function in (lambda: einsum("ij,jk->ik", huge, huge), lambda: product(huge, huge)):
        for _ in range(2):
            with pytest.warns(RuntimeWarning, match="overflow encountered"):
                assert np.isinf(function()).all()
            with np.errstate(over="raise"), pytest.raises(FloatingPointError):
                function()
