"""Toeplitz matrices against SciPy and the dense matrix."""

import threading
from typing import Any

import numpy as np
import pytest
from checks import random_for

from unitstride import Toeplitz, convolve, toeplitz, toeplitz_matmul, toeplitz_matmul_vjp

linalg = pytest.importorskip("scipy.linalg")

DTYPES = ("float32", "float64", "complex64", "complex128", "int32")


def numbers(random: np.random.Generator, shape: Any, name: str) -> Any:
    values = random.standard_normal(shape)
    if name.startswith("complex"):
        values = values + 1j * random.standard_normal(shape)
    return (values * (9 if name == "int32" else 1)).astype(name)


@pytest.mark.parametrize("name", DTYPES)
def test_the_matrix_is_scipys(name: str) -> None:
    random = random_for("matrix", name)
    for rows, columns in ((1, 1), (1, 4), (5, 1), (4, 4), (3, 7), (9, 2)):
        c, r = numbers(random, rows, name), numbers(random, columns, name)
        np.testing.assert_array_equal(toeplitz(c, r), linalg.toeplitz(c, r))
        np.testing.assert_array_equal(toeplitz(c), linalg.toeplitz(c))
        np.testing.assert_array_equal(Toeplitz(c, r).to_array(), linalg.toeplitz(c, r))
    batch = toeplitz(np.arange(6).reshape(2, 3), [9, 8])
    assert batch.tolist() == [[[0, 8], [1, 0], [2, 1]], [[3, 8], [4, 3], [5, 4]]]


@pytest.mark.parametrize("name", DTYPES)
def test_products_with_vectors_and_matrices(name: str) -> None:
    """Each sum within 16 log2(n) roundings of the product of the norms; integers exact."""
    random = random_for("product", name)
    unit = 2.0**-23 if name in ("float32", "complex64") else 2.0**-52
    for rows, columns in ((1, 1), (5, 3), (3, 5), (64, 64), (300, 200), (700, 900)):
        c, r = numbers(random, rows, name), numbers(random, columns, name)
        operator, matrix = Toeplitz(c, r), linalg.toeplitz(c, r)
        norm = np.linalg.norm(np.concatenate([c, r]).astype(complex))
        for shape in ((columns,), (columns, 1), (columns, 5), (2, columns, 3)):
            x = numbers(random, shape, name)
            exact = matrix.astype("c16") @ x.astype("c16")
            allowed = (
                16 * np.log2(2 + rows + columns) * unit * norm * np.linalg.norm(x.astype("c16"))
            )
            methods = ("auto", "direct") if name == "int32" else ("auto", "direct", "fft")
            for method in methods:
                got = toeplitz_matmul((c, r), x, method=method)  # type: ignore[arg-type]
                assert got.shape == exact.shape and got.dtype == np.dtype(name)
                assert np.abs(got - exact).max() <= (0 if name == "int32" else allowed)
            assert np.abs(operator @ x - exact).max() <= allowed
            assert np.abs(operator @ x[::-1][::-1] - exact).max() <= allowed
        left = numbers(random, (4, rows), name)
        exact = left.astype("c16") @ matrix
        limit = 16 * np.log2(2 + rows + columns) * unit * norm * np.linalg.norm(left)
        assert np.abs(left @ operator - exact).max() <= limit
        assert np.abs(left[0] @ operator - exact[0]).max() <= limit
        np.testing.assert_array_equal(operator.T.to_array(), matrix.T)
        np.testing.assert_array_equal(operator.H.to_array(), matrix.T.conj())


def test_batches_of_matrices() -> None:
    random = random_for("batches")
    for n in (6, 400):
        c, r = random.standard_normal((3, 1, n)), random.standard_normal((2, n + 2))
        x = random.standard_normal((2, n + 2, 4))
        operator = Toeplitz(c, r)
        assert operator.shape == (3, 2, n, n + 2)
        assert repr(operator) == f"Toeplitz(shape=(3, 2, {n}, {n + 2}), dtype=float64)"
        # Sums of 402 products of numbers around one.
        np.testing.assert_allclose(operator @ x, operator.to_array() @ x, atol=1e-11)
        for method in ("direct", "fft"):
            got = toeplitz_matmul((c, r), x, method=method)  # type: ignore[arg-type]
            np.testing.assert_allclose(got, operator.to_array() @ x, atol=1e-11)
        vector = x[0, :, 0]
        np.testing.assert_allclose(operator @ vector, operator.to_array() @ vector, atol=1e-11)


def test_full_convolution_is_a_banded_product() -> None:
    k, x = np.array([1.0, -2.0, 5.0]), np.arange(1.0, 6.0)
    column, row = np.r_[k, np.zeros(4)], np.r_[k[0], np.zeros(4)]
    np.testing.assert_array_equal(toeplitz_matmul((column, row), x), convolve(x, k))


def test_nan_and_a_wide_range_go_by_definition() -> None:
    n = 600
    c = np.ones(n)
    x = np.ones(n)
    x[n - 1] = np.nan
    got = Toeplitz(c, np.r_[1.0, np.zeros(n - 1)]) @ x
    assert np.isnan(got[-1])
    small = Toeplitz(np.r_[1e-18, np.zeros(n - 1)]) @ np.ones(n)
    np.testing.assert_array_equal(small, np.full(n, 1e-18))


def test_solve() -> None:
    random = random_for("solve")
    for n in (1, 2, 5, 60):
        c, r = random.standard_normal(n), random.standard_normal(n)
        c[0] = 3.0 * np.sqrt(n)  # far from singular
        for b in (random.standard_normal(n), random.standard_normal((n, 7))):
            got = Toeplitz(c, r).solve(b)
            expected = linalg.solve_toeplitz((c, r), b)
            assert got.shape == expected.shape
            np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-12)  # condition below 100
        complex_c = c + 1j * random.standard_normal(n)
        got = Toeplitz(complex_c).solve(np.ones(n))
        np.testing.assert_allclose(linalg.toeplitz(complex_c) @ got, np.ones(n), atol=1e-10)
    assert Toeplitz(np.float32([2, 1])).solve(np.float32([3, 3])).dtype == np.float32
    stack = Toeplitz(np.array([[4.0, 1.0], [5.0, 2.0]]))
    got = stack.solve(np.ones((2, 2, 3)))
    np.testing.assert_allclose(stack @ got, np.ones((2, 2, 3)), rtol=1e-14)


def test_solve_where_the_recursion_breaks_down() -> None:
    """A zero leading minor, of a matrix that is not singular; a singular one is an error."""
    c, r = [0.0, 1.0, 2.0], [0.0, 3.0, 1.0]
    got = Toeplitz(c, r).solve([1.0, 2.0, 3.0])
    np.testing.assert_allclose(linalg.toeplitz(c, r) @ got, [1.0, 2.0, 3.0], atol=1e-14)
    c, r = [1e-13, 1.0, 2.0], [1e-13, 3.0, 1.0]  # nearly so: thirteen digits would be lost
    got = Toeplitz(c, r).solve([1.0, 2.0, 3.0])
    np.testing.assert_allclose(linalg.toeplitz(c, r) @ got, [1.0, 2.0, 3.0], atol=1e-12)
    with pytest.raises(np.linalg.LinAlgError):
        Toeplitz([1.0, 1.0, 1.0]).solve([1.0, 2.0, 3.0])


def test_as_a_linear_operator() -> None:
    sparse = pytest.importorskip("scipy.sparse.linalg")
    random = random_for("linear operator")
    c, r = random.standard_normal(5), random.standard_normal(4)
    matrix, found = linalg.toeplitz(c, r), sparse.aslinearoperator(Toeplitz(c, r))
    x, y = random.standard_normal((4, 3)), random.standard_normal((5, 2))
    np.testing.assert_allclose(found @ x, matrix @ x, atol=1e-13)
    np.testing.assert_allclose(found.H @ y, matrix.T @ y, atol=1e-13)
    np.testing.assert_allclose(found.rmatvec(y[:, 0]), matrix.T @ y[:, 0], atol=1e-13)


def test_threads_share_an_operator() -> None:
    operator = Toeplitz(np.arange(1.0, 3001.0))
    x = np.ones((3000, 8))
    expected = operator @ x
    fresh, results = Toeplitz(np.arange(1.0, 3001.0)), []
    workers = [threading.Thread(target=lambda: results.append(fresh @ x)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(results) == 4
    for got in results:
        np.testing.assert_array_equal(got, expected)


def test_gradients_of_the_product() -> None:
    """dy . (T(v) x + T(c) w) = dc . v + dx . w, the product being bilinear."""
    random = random_for("toeplitz vjp")
    for rows, columns in ((1, 1), (4, 1), (1, 4), (5, 3), (6, 6), (300, 260)):
        for shape in ((columns,), (columns, 2), (3, columns, 2)):
            c, r, v, w = (random.standard_normal(n) for n in (rows, columns, rows, columns))
            x, t = random.standard_normal(shape), random.standard_normal(shape)
            y = toeplitz_matmul((c, r), x)
            dy = random.standard_normal(y.shape)
            (dc, dr), dx = toeplitz_matmul_vjp((c, r), x, dy)
            left = (dy * (toeplitz_matmul((v, w), x) + toeplitz_matmul((c, r), t))).sum()
            right = (dc * v).sum() + (dr * w).sum() + (dx * t).sum()
            assert dr[0] == 0
            assert abs(left - right) <= 1e-10 * (1 + abs(left) + rows * columns)
            if rows == columns:
                dc, dx = toeplitz_matmul_vjp(c, x, dy)
                left = (dy * (toeplitz_matmul(v, x) + toeplitz_matmul(c, t))).sum()
                assert abs(left - (dc * v).sum() - (dx * t).sum()) <= 1e-10 * (1 + abs(left))


def test_errors() -> None:
    for call, text in (
        (lambda: toeplitz([]), "toeplitz: `c` must have at least one element along its last"),
        (lambda: toeplitz([1], []), "toeplitz: `r` must have at least one element"),
        (lambda: toeplitz(np.ones((2, 3)), np.ones((3, 3))), "the batch of `r` must broadcast"),
        (lambda: Toeplitz([1, 2]) @ [1], r"`x` must have 2 elements, got shape \(1,\)"),
        (lambda: Toeplitz([1, 2]) @ np.ones((3, 2)), r"`x` must have 2 rows, got shape \(3, 2\)"),
        (lambda: Toeplitz([1, 2]) @ 3, "`x` must have at least one axis, got a scalar"),
        (lambda: toeplitz_matmul(([1], [1], [1]), [1]), "got a tuple of 3"),
        (lambda: toeplitz_matmul([1, 2], [1, 2], method="fft"), "`method` must be auto or direct"),
        (lambda: toeplitz_matmul([1, 2], [1, 2], method="no"), "`method` must be one of"),
        (lambda: Toeplitz([1, 2], [1, 2, 3]).solve([1, 2]), "solve: the matrix must be square"),
        (lambda: Toeplitz([1, 2]).solve([1, 2, 3]), "solve: `b` must have 2 rows, got shape"),
    ):
        with pytest.raises(ValueError, match=text):
            call()
    with pytest.raises(TypeError, match="toeplitz: `c` must be numbers or booleans, got str32"):
        toeplitz(["a"])
    with pytest.raises(TypeError, match="solve: `b` must not make the result float128"):
        Toeplitz(np.ones(2, np.longdouble)).solve([1, 2])
    assert (Toeplitz([1, 2]) @ np.ones((2, 0))).shape == (2, 0)
