"""Toeplitz matrices: built, or multiplied and solved without being built."""

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unitstride import _convolution_call, _toeplitz_call
from unitstride._convolution_vjp import gradients

__all__ = ["Toeplitz", "toeplitz", "toeplitz_matmul", "toeplitz_matmul_vjp"]

Array = NDArray[Any]
Method = Literal["auto", "direct", "fft"]


def toeplitz(c: ArrayLike, r: ArrayLike | None = None) -> Array:
    """Build the matrix T[i, j] = c[i - j] for i >= j, r[j - i] above the diagonal.

    Parameters
    ----------
    c : array_like
        The first column, along the last axis; axes before it are a batch. A number counts as one
        element.
    r : array_like, optional
        The first row, along the last axis; r[0] is not used. The conjugate of `c` by default.

    Returns
    -------
    ndarray
        (..., rows, columns), of the common dtype.

    Raises
    ------
    TypeError
        For dtypes that are not numbers or booleans.
    ValueError
        For a column or row without elements, batches that do not broadcast.

    Notes
    -----
    Values are copied: the result is exact. Complexity: O(rows columns).

    References
    ----------
    .. [1] G. H. Golub, C. F. Van Loan, "Matrix Computations", 4th ed., section 4.7, 2013.

    Examples
    --------
    >>> from unitstride import toeplitz
    >>> toeplitz([1, 2, 3], [1, 4, 5, 6])
    array([[1, 4, 5, 6],
           [2, 1, 4, 5],
           [3, 2, 1, 4]])
    """
    return _toeplitz_call.dense(*_toeplitz_call.diagonals_of("toeplitz", c, r))


class Toeplitz:
    """A Toeplitz matrix that is never built: T[i, j] = c[i - j] for i >= j, r[j - i] above.

    Parameters
    ----------
    c : array_like
        The first column, along the last axis; axes before it are a batch. Copied.
    r : array_like, optional
        The first row; r[0] is not used. The conjugate of `c` by default. Copied.

    Attributes
    ----------
    shape : tuple of int
        (..., rows, columns).
    dtype : dtype
        The common dtype of `c` and `r`.
    T : Toeplitz
        The transpose.

    Raises
    ------
    TypeError, ValueError
        As for `toeplitz`.

    Notes
    -----
    `T @ x` and `x @ T` take vectors and (batches of) matrices of any strides. Spectra are computed
    once and kept; threads may share an operator. `scipy.sparse.linalg.aslinearoperator` accepts it.

    Accuracy and methods are those of `convolve`. Complexity of a product: O(N log N) for each
    right-hand side, N = rows + columns, or O(rows columns) where that is faster.

    References
    ----------
    .. [1] G. H. Golub, C. F. Van Loan, "Matrix Computations", 4th ed., section 4.7, 2013.

    Examples
    --------
    >>> from unitstride import Toeplitz
    >>> t = Toeplitz([2.0, 1.0, 0.0])
    >>> t @ [1.0, 2.0, 3.0]
    array([4., 8., 8.])
    >>> t.solve([4.0, 8.0, 8.0]).round(12)
    array([1., 2., 3.])
    """

    __array_ufunc__ = None  # so that `array @ operator` comes here

    def __init__(self, c: ArrayLike, r: ArrayLike | None = None) -> None:
        self._keep(*_toeplitz_call.diagonals_of("Toeplitz", c, r))

    def _keep(self, diagonals: Array, columns: int) -> None:
        diagonals.flags.writeable = False
        self._columns = columns
        self._spectra = _toeplitz_call.Spectra(diagonals)
        rows = diagonals.shape[-1] - columns + 1
        self.shape = (*diagonals.shape[:-1], rows, columns)
        self.dtype = diagonals.dtype
        self.ndim = len(self.shape)

    def __repr__(self) -> str:
        return f"Toeplitz(shape={self.shape}, dtype={self.dtype.name})"

    @property
    def T(self) -> "Toeplitz":
        """The transpose."""
        return self._of(np.flip(self._spectra.diagonals, -1))

    @property
    def H(self) -> "Toeplitz":
        """The conjugate transpose."""
        return self._of(np.flip(self._spectra.diagonals, -1).conj())

    def _of(self, diagonals: Array) -> "Toeplitz":
        other = Toeplitz.__new__(Toeplitz)
        other._keep(diagonals.copy(), self.shape[-2])
        return other

    def to_array(self) -> Array:
        """Build the matrix."""
        return _toeplitz_call.dense(self._spectra.diagonals, self._columns)

    def __matmul__(self, x: ArrayLike) -> Array:
        return _toeplitz_call.product("Toeplitz", self._spectra, self._columns, x)

    def __rmatmul__(self, x: ArrayLike) -> Array:
        left = np.asarray(x)
        if left.ndim < 2:
            return self.T @ left
        return np.swapaxes(self.T @ np.swapaxes(left, -1, -2), -1, -2)

    def matvec(self, x: ArrayLike) -> Array:
        """Multiply a vector, or a matrix of one column."""
        return self @ x

    def matmat(self, x: ArrayLike) -> Array:
        """Multiply a matrix."""
        return self @ x

    def rmatvec(self, x: ArrayLike) -> Array:
        """Multiply a vector by the conjugate transpose."""
        return self.H @ x

    def rmatmat(self, x: ArrayLike) -> Array:
        """Multiply a matrix by the conjugate transpose."""
        return self.H @ x

    def solve(self, b: ArrayLike) -> Array:
        """Solve T y = b for a vector, or for all columns of (batches of) matrices.

        Parameters
        ----------
        b : array_like
            A vector of the matrix's rows, or (..., rows, right-hand sides).

        Returns
        -------
        ndarray
            The shape of `b`, broadcast with the batch; the common dtype, at least float32, float64
            for integers.

        Raises
        ------
        TypeError
            For longdouble.
        ValueError
            For a matrix that is not square, a `b` of another length.
        numpy.linalg.LinAlgError
            For a singular matrix.

        Notes
        -----
        Levinson's recursion in double precision, O(n^2) and O(n^2) for each right-hand side. Its
        residual is checked; where the recursion is unstable, the dense matrix is eliminated in
        O(n^3) with pivoting. The residual is at most 100 units of roundoff of the largest terms or
        that of elimination.

        References
        ----------
        .. [1] N. Levinson, "The Wiener RMS error criterion in filter design and prediction",
           Journal of Mathematics and Physics 25, 1947.

        Examples
        --------
        >>> from unitstride import Toeplitz
        >>> Toeplitz([2.0, 1.0]).solve([[3.0, 2.0], [3.0, 1.0]])
        array([[1., 1.],
               [1., 0.]])
        """
        right = _convolution_call.as_numbers("solve", "b", b)
        rows, columns = self.shape[-2:]
        if rows != columns:
            raise ValueError(f"solve: the matrix must be square, got shape {self.shape}")
        length = right.shape[0] if right.ndim == 1 else right.shape[-2] if right.ndim else 0
        if length != rows:
            raise ValueError(f"solve: `b` must have {rows} rows, got shape {right.shape}")
        dtype = np.result_type(self.dtype, right).newbyteorder("=")
        if dtype.kind in "biu":
            dtype = np.dtype(np.float64)
        if dtype.itemsize > (16 if dtype.kind == "c" else 8):
            raise TypeError(f"solve: `b` must not make the result {dtype.name}")
        working = np.complex128 if dtype.kind == "c" else np.float64
        matrices = right[:, None] if right.ndim == 1 else right
        diagonals = self._spectra.diagonals.astype(working)
        batch = np.broadcast_shapes(diagonals.shape[:-1], matrices.shape[:-2])
        found = np.empty((*batch, *matrices.shape[-2:]), working)
        diagonals = np.broadcast_to(diagonals, (*batch, diagonals.shape[-1]))
        matrices = np.broadcast_to(matrices.astype(working), found.shape)
        if found.size:
            for index in np.ndindex(batch):
                found[index] = _toeplitz_call.solve_one(diagonals[index], matrices[index])
        result: Array = found.astype(np.float32 if dtype.itemsize == 2 else dtype)
        return result[..., 0] if right.ndim == 1 else result


def toeplitz_matmul(c_or_cr: Any, x: ArrayLike, *, method: Method = "auto") -> Array:
    """Multiply a Toeplitz matrix, given by its first column and row, with vectors or matrices.

    Parameters
    ----------
    c_or_cr : array_like or tuple of (array_like, array_like)
        The first column, or a pair of the first column and the first row, as for `toeplitz`.
    x : array_like
        A vector, or (..., columns, right-hand sides), of any strides.
    method : {"auto", "direct", "fft"}, default "auto"
        As for `convolve`.

    Returns
    -------
    ndarray
        What ``toeplitz(c, r) @ x`` returns.

    Raises
    ------
    TypeError, ValueError
        As for `toeplitz`; for an `x` of another length; for unknown words; for method="fft" with
        integers, booleans and longdouble.

    Notes
    -----
    Accuracy and complexity as for `Toeplitz`, which keeps the spectrum for further products.

    References
    ----------
    .. [1] G. H. Golub, C. F. Van Loan, "Matrix Computations", 4th ed., section 4.7, 2013.

    Examples
    --------
    >>> from unitstride import toeplitz_matmul
    >>> toeplitz_matmul(([1.0, 2.0], [1.0, 3.0, 0.0]), [1.0, 1.0, 1.0])
    array([4., 6.])
    """
    name = "toeplitz_matmul"
    c, r = _pair(name, c_or_cr)
    diagonals, columns = _toeplitz_call.diagonals_of(name, c, r)
    return _toeplitz_call.product(name, _toeplitz_call.Spectra(diagonals), columns, x, method)


def _pair(function: str, c_or_cr: Any) -> tuple[Any, Any]:
    if not isinstance(c_or_cr, tuple):
        return c_or_cr, None
    if len(c_or_cr) != 2:
        raise ValueError(
            f"{function}: `c_or_cr` must be a column or a pair of a column and a row, "
            f"got a tuple of {len(c_or_cr)}"
        )
    return c_or_cr


def toeplitz_matmul_vjp(
    c_or_cr: Any, x: ArrayLike, dy: ArrayLike, *, method: Method = "auto"
) -> tuple[Any, Array]:
    """Compute the gradients of `toeplitz_matmul`.

    Parameters
    ----------
    c_or_cr, x, method
        The inputs of `toeplitz_matmul`.
    dy : array_like
        The cotangent, of the shape of the result.

    Returns
    -------
    dc_or_dcr : ndarray or tuple of (ndarray, ndarray)
        The gradient of `c_or_cr`: an array or a pair, as that is. That of r[0] is zero.
    dx : ndarray
        The gradient of `x`.

    Raises
    ------
    TypeError, ValueError
        As for `toeplitz_matmul` and `convolve_vjp`.

    Notes
    -----
    dx is the product of the conjugate transpose with `dy`; the gradient of a diagonal is the sum
    over it of the outer product of `dy` and conj(x). Complexity: twice that of the product.

    References
    ----------
    .. [1] G. H. Golub, C. F. Van Loan, "Matrix Computations", 4th ed., section 4.7, 2013.

    Examples
    --------
    >>> from unitstride import toeplitz_matmul_vjp
    >>> dc, dx = toeplitz_matmul_vjp([2.0, 1.0], [3.0, 4.0], [1.0, 0.0])
    >>> dc, dx
    (array([3., 4.]), array([2., 1.]))
    """
    name = "toeplitz_matmul_vjp"
    c, r = _pair(name, c_or_cr)
    diagonals, columns = _toeplitz_call.diagonals_of(name, c, r)
    array = _convolution_call.as_numbers(name, "x", x)
    _toeplitz_call.check_columns(name, array, columns)
    cotangent = _convolution_call.as_numbers(name, "dy", dy)
    lines, columns_of_x = _toeplitz_call.with_axes(diagonals, array)
    if array.ndim == 1 and cotangent.ndim:
        cotangent = cotangent[..., None]
    along, dx = gradients(name, lines, columns_of_x, cotangent, "valid", -2, method, "zero", False)
    along = along.reshape(diagonals.shape)
    column = np.asarray(c)
    dc = along[..., columns - 1 :]
    upper = along[..., columns - 2 :: -1] if columns > 1 else along[..., :0]
    dr = np.concatenate([np.zeros_like(along[..., :1]), upper], axis=-1)
    if r is None:
        return _as_given(dc + dr.conj(), column), dx.reshape(array.shape)
    return (_as_given(dc, column), _as_given(dr, np.asarray(r))), dx.reshape(array.shape)


def _as_given(gradient: Array, array: Array) -> Array:
    """Sum over the batch that was broadcast, and cast to what the array is."""
    extra = gradient.ndim - array.ndim
    axes = tuple(range(extra)) + tuple(
        a + extra for a in range(array.ndim - 1) if array.shape[a] != gradient.shape[a + extra]
    )
    total = gradient.sum(axis=axes, keepdims=True) if axes else gradient
    if array.dtype.kind != "c":
        total = total.real
    kind = np.dtype(np.float64) if array.dtype.kind in "biu" else array.dtype.newbyteorder("=")
    return np.asarray(total.reshape(array.shape).astype(kind))
