"""The gradient of einsum: central differences, PyTorch, and what is exact."""

from typing import Any

import numpy as np
import pytest
from checks import dtype_of, fallback, random_for
from einsum_cases import random_array, random_subscripts

from unitstride import einsum, einsum_vjp


def loss(subscripts: str, operands: list[Any], cotangent: Any) -> float:
    """Return the real number whose gradient is asked for: Re sum(conj(cotangent) * result)."""
    return float(np.real(np.vdot(cotangent, np.einsum(subscripts, *operands))))


def random_problem(random: Any, names: tuple[str, ...]) -> Any:
    subscripts, shapes = random_subscripts(random)
    chosen = [names[int(random.integers(len(names)))] for _ in shapes]
    arrays = [random_array(random, s, name) for s, name in zip(shapes, chosen, strict=True)]
    result = np.asarray(np.einsum(subscripts, *arrays))
    return subscripts, arrays, random_array(random, result.shape, result.dtype.name)


@pytest.mark.parametrize("chunk", range(8))
def test_central_differences(chunk: int) -> None:
    """The result is linear in each operand, so differences are exact but for roundoff."""
    random = random_for("einsum vjp", chunk)
    for _ in range(40):
        subscripts, arrays, cotangent = random_problem(random, ("float64", "complex128"))
        gradients = einsum_vjp(subscripts, arrays, cotangent)
        assert len(gradients) == len(arrays)
        for position, (array, gradient) in enumerate(zip(arrays, gradients, strict=True)):
            assert gradient.shape == array.shape
            assert gradient.dtype == array.dtype.newbyteorder("=")
            if not array.size:
                continue
            step = random_array(random, array.shape, array.dtype.newbyteorder("=").name)
            moved = [list(arrays), list(arrays)]
            moved[0][position] = array + step
            moved[1][position] = array - step
            up, down = (loss(subscripts, operands, cotangent) for operands in moved)
            along = float(np.real(np.vdot(step, gradient)))
            scale = np.einsum(subscripts, *[np.abs(x) for x in moved[0]])
            allowed = 1e-11 * (1 + float(np.sum(np.abs(cotangent) * scale)))
            assert abs((up - down) / 2 - along) <= allowed, (subscripts, position)


@pytest.mark.parametrize("chunk", range(4))
def test_pytorch(chunk: int) -> None:
    torch = pytest.importorskip("torch")
    random = random_for("einsum torch", chunk)
    for _ in range(40):
        subscripts, arrays, cotangent = random_problem(random, ("complex128",))
        if chunk % 2:
            arrays = [array.real.copy() for array in arrays]
            cotangent = cotangent.real.copy()
        plain = [np.array(array, array.dtype.newbyteorder("=")) for array in arrays]
        tensors = [torch.from_numpy(array).requires_grad_() for array in plain]
        try:
            result = torch.einsum(subscripts, *tensors)
        except RuntimeError:  # PyTorch broadcasts no label against one of size one twice
            continue
        result.backward(torch.from_numpy(np.array(cotangent, plain[0].dtype)))
        for got, tensor in zip(einsum_vjp(subscripts, arrays, cotangent), tensors, strict=True):
            expected = tensor.grad.numpy()
            scale = 1 + np.max(np.abs(expected), initial=0)
            np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-10 * scale)


def test_exact_gradients() -> None:
    x = np.arange(3.0)
    (trace,) = einsum_vjp("ii->", [np.ones((3, 3))], 2.0)
    np.testing.assert_array_equal(trace, 2 * np.eye(3))
    (diagonal,) = einsum_vjp("ii->i", [np.ones((3, 3))], x)
    np.testing.assert_array_equal(diagonal, np.diag(x))
    (total,) = einsum_vjp("ij->i", [np.ones((3, 2))], x)
    np.testing.assert_array_equal(total, np.stack([x, x], axis=1))
    row, column = einsum_vjp("ij,ij->ij", [np.ones((1, 2)), np.ones((3, 1))], np.ones((3, 2)))
    assert row.tolist() == [[3.0, 3.0]] and column.tolist() == [[2.0], [2.0], [2.0]]
    (same,) = einsum_vjp("i", [x], x)
    assert not np.shares_memory(same, x)
    da, db = einsum_vjp([[7, -1], [-1, 3], [3, 7]], [np.eye(2), np.eye(2)], np.ones((2, 2)))
    np.testing.assert_array_equal(da, np.ones((2, 2)))
    np.testing.assert_array_equal(db, np.ones((2, 2)))
    empty = einsum_vjp("ij,jk->ik", [np.ones((2, 0)), np.ones((0, 3))], np.ones((2, 3)))
    assert [g.shape for g in empty] == [(2, 0), (0, 3)]


def test_conjugation() -> None:
    """As PyTorch: the cotangent times the conjugate of the other factor; real stays real."""
    a, b = np.array([1 + 2j]), np.array([3.0])
    da, db = einsum_vjp("i,i->", (a, b), 1j)
    np.testing.assert_allclose(da, [3j])
    np.testing.assert_allclose(db, [(1j * (1 - 2j)).real])
    assert (da.dtype, db.dtype) == (np.complex128, np.float64)


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32", "int32", "bool"])
def test_dtypes_of_gradients(name: str) -> None:
    dtype = dtype_of(name)
    a, b = np.ones((2, 3), dtype), np.ones((3, 4), dtype)
    for gradient in einsum_vjp("ij,jk->ik", (a, b), np.ones((2, 4))):
        assert gradient.dtype == (np.float64 if dtype.kind in "ib" else dtype)
    narrow = np.full((1, 3000), 1, dtype)
    (total, _) = einsum_vjp("ij,ij->i", (narrow, narrow), np.ones(1, dtype))
    np.testing.assert_array_equal(total.astype("f8"), 1.0)


def test_the_fallback_agrees() -> None:
    random = random_for("vjp fallback")
    for _ in range(30):
        subscripts, arrays, cotangent = random_problem(random, ("float64", "complex128"))
        got = einsum_vjp(subscripts, arrays, cotangent)
        with fallback():
            expected = einsum_vjp(subscripts, arrays, cotangent)
        for first, second in zip(got, expected, strict=True):
            scale = 1 + np.max(np.abs(second), initial=0)
            np.testing.assert_allclose(first, second, rtol=1e-10, atol=1e-11 * scale)


def test_errors() -> None:
    a = np.ones((2, 3))
    for arguments, error, text in (
        (("ij->i", [a], np.ones(3)), ValueError, r"`cotangent` must have shape \(2,\), got \(3,\)"),
        (("ij->i", [a], np.ones(2) * 1j), TypeError, "`cotangent` must be real as the result is"),
        (("ij->i", [], np.ones(2)), ValueError, "`operands` must have at least one array"),
        ((5, [a], np.ones(2)), TypeError, "`subscripts` must be a string or a list of lists"),
        (("i->i", [a], np.ones(2)), ValueError, "`subscripts` must have a label for each axis"),
        (("ij->i", [np.ones((2, 3), "M8[s]")], np.ones(2)), TypeError, "operands must"),
        (("ij->i", [a], np.ma.ones(2)), TypeError, "operand 1 must be an array without a mask"),
    ):
        with pytest.raises(error, match=f"^einsum_vjp: {text}"):
            einsum_vjp(*arguments)


def test_operands_stay_as_they_are() -> None:
    a, b = np.ones((3, 3)), np.ones((3, 3))
    before = a.tobytes(), b.tobytes()
    einsum_vjp("ij,jk,kk->i", (a, b, a), np.ones(3))
    assert (a.tobytes(), b.tobytes()) == before
    assert einsum("ij->", a) == 9
