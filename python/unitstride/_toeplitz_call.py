"""Products with Toeplitz matrices, and their systems, from the 2n - 1 numbers of the diagonals.

A matrix of `rows` x `columns` is kept as its diagonals, from the upper right corner to the lower
left one: T[i, j] = diagonals[columns - 1 + i - j], so that T @ x is the "valid" convolution of the
diagonals with x.
"""

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray

from unitstride import _backend, _convolution_call, _convolution_methods
from unitstride._einsum_run import fresh
from unitstride._reference.convolution import good_size

Array = NDArray[Any]
DType = np.dtype[Any]

_BATCH_ELEMENTS = 1 << 17  # of columns that are transformed together: they stay in a cache
_ACCEPTED = 100.0  # roundings of the largest terms, in the residual of a solution


def diagonals_of(function: str, c: ArrayLike, r: ArrayLike | None) -> tuple[Array, int]:
    """Return the diagonals, (..., rows + columns - 1), and the number of columns."""
    column = _line_of(function, "c", c)
    row = column.conj() if r is None else _line_of(function, "r", r)
    batch = common_batch(function, "r", column.shape[:-1], row.shape[:-1])
    upper = np.broadcast_to(row[..., :0:-1], (*batch, row.shape[-1] - 1))
    column = np.broadcast_to(column, (*batch, column.shape[-1]))
    return np.concatenate([upper, column], axis=-1), row.shape[-1]


def common_batch(
    function: str, argument: str, first: tuple[int, ...], second: tuple[int, ...]
) -> tuple[int, ...]:
    """Broadcast the batch of an argument, `second`, with that of the matrices before it."""
    try:
        return np.broadcast_shapes(first, second)
    except ValueError:
        raise ValueError(
            f"{function}: the batch of `{argument}` must broadcast with {first}, got {second}"
        ) from None


def _line_of(function: str, argument: str, value: ArrayLike) -> Array:
    array = _convolution_call.as_numbers(function, argument, value)
    if array.ndim == 0:
        return array.reshape(1)
    if array.shape[-1] == 0:
        raise ValueError(
            f"{function}: `{argument}` must have at least one element along its last axis, "
            f"got shape {array.shape}"
        )
    return array


def dense(diagonals: Array, columns: int) -> Array:
    """Return the matrix itself."""
    windows = sliding_window_view(diagonals, columns, axis=-1)
    return np.ascontiguousarray(windows[..., ::-1])


def check_columns(function: str, x: Array, columns: int) -> None:
    """Raise unless `x` is a vector, or matrices, that the matrix can multiply."""
    if x.ndim == 0:
        raise ValueError(f"{function}: `x` must have at least one axis, got a scalar")
    rows = x.shape[0] if x.ndim == 1 else x.shape[-2]
    if rows != columns:
        what = "elements" if x.ndim == 1 else "rows"
        raise ValueError(f"{function}: `x` must have {columns} {what}, got shape {x.shape}")


def with_axes(diagonals: Array, x: Array) -> tuple[Array, Array]:
    """Return the diagonals and `x` with the same axes, the lines along the one before the last."""
    x = x[:, None] if x.ndim == 1 else x
    diagonals = diagonals[..., None]
    axes = max(x.ndim, diagonals.ndim)
    first, second = (v.reshape((1,) * (axes - v.ndim) + v.shape) for v in (diagonals, x))
    return first, second


class Spectra:
    """The spectrum of the diagonals for each dtype, computed when it is first wanted.

    Threads may compute one twice, with the same result.
    """

    def __init__(self, diagonals: Array) -> None:
        self.diagonals = diagonals
        self.size = good_size(diagonals.shape[-1])
        self._of: dict[str, Array] = {}

    def of(self, dtype: DType) -> Array:
        """Return the spectrum in which products of `dtype` are formed."""
        found = self._of.get(dtype.name)
        if found is None:
            transform = np.fft.fft if dtype.kind == "c" else np.fft.rfft
            found = transform(self.diagonals.astype(dtype), self.size, axis=-1)
            self._of[dtype.name] = found
        return found


def _by_fft(spectra: Spectra, x: Array, columns: int, dtype: DType) -> Array:
    """Multiply by FFT: on the core, or with NumPy by the spectrum that is kept."""
    if _backend.core is None:
        return _by_spectrum(spectra, x, columns, dtype)
    # The diagonals are the kernel: there is one of them for all columns.
    diagonals = spectra.diagonals.astype(dtype, copy=False)[..., None]
    rows = diagonals.shape[-2] - columns + 1
    batch = np.broadcast_shapes(x.shape[:-2], diagonals.shape[:-2])
    axes = len(batch) + 2
    signal = np.broadcast_to(x, (*batch, *x.shape[-2:])).astype(dtype, copy=False)
    kernel = np.broadcast_to(diagonals, (*batch, diagonals.shape[-2], x.shape[-1]))
    out = fresh((*batch, x.shape[-1], rows), dtype).swapaxes(-1, -2)
    _backend.run("convolve_fft", signal, kernel, out, axes - 2, columns - 1, 0)
    return out


def _by_spectrum(spectra: Spectra, x: Array, columns: int, dtype: DType) -> Array:
    """Multiply by circular convolution: the wrapped outputs are those before the first row."""
    rows = spectra.diagonals.shape[-1] - columns + 1
    forward: Any = np.fft.rfft
    backward: Any = np.fft.irfft
    if dtype.kind == "c":
        forward, backward = np.fft.fft, np.fft.ifft
    spectrum = spectra.of(dtype)[..., None, :]
    lines = np.moveaxis(x, -2, -1)  # (..., right-hand sides, columns)
    batch = np.broadcast_shapes(lines.shape[:-2], spectrum.shape[:-2])
    out = np.empty((*batch, lines.shape[-2], rows), dtype)
    step = max(1, _BATCH_ELEMENTS // (spectra.size * max(1, int(np.prod(batch)))))
    for first in range(0, lines.shape[-2], step):
        part = np.ascontiguousarray(lines[..., first : first + step, :], dtype)
        sums = backward(forward(part, spectra.size, axis=-1) * spectrum, spectra.size, axis=-1)
        out[..., first : first + step, :] = sums[..., columns - 1 : columns - 1 + rows]
    return np.moveaxis(out, -1, -2)


def _goes_by_fft(diagonals: Array, x: Array, columns: int, dtype: DType) -> bool:
    """Say whether FFT is faster, and as safe as the direct product."""
    rows = diagonals.shape[-2] - columns + 1
    lines = x.size // columns
    taps = diagonals.shape[-2]
    if not _convolution_methods.fft_is_faster(lines, rows, taps, dtype, columns):
        return False
    if not (np.isfinite(diagonals).all() and np.isfinite(x).all()):
        return False
    first, second = (np.moveaxis(v, -2, -1) for v in (diagonals, x))
    return _convolution_methods.range_is_small(second, first)


def product(
    function: str, spectra: Spectra, columns: int, x: ArrayLike, method: Any = "auto"
) -> Array:
    """Multiply a vector, or the matrices in the last two axes of an array."""
    array = _convolution_call.as_numbers(function, "x", x)
    check_columns(function, array, columns)
    _convolution_call.one_of(function, "method", method, _convolution_call.METHODS)
    dtype = np.result_type(spectra.diagonals, array).newbyteorder("=")
    is_vector = array.ndim == 1
    common_batch(function, "x", spectra.diagonals.shape[:-1], array.shape[:-2])
    diagonals, array = with_axes(spectra.diagonals, array)
    found: Array | None = None
    transformed = dtype.name in ("float32", "float64", "complex64", "complex128") and array.size
    if transformed and (
        method == "fft" or (method == "auto" and _goes_by_fft(diagonals, array, columns, dtype))
    ):
        with np.errstate(all="ignore"):
            found = _by_fft(spectra, array, columns, dtype)
        if not np.isfinite(found).all():
            found = None  # NaN and overflow stay where the definition puts them
    if found is None:
        rule = "fft" if method == "fft" and not transformed else "direct"
        found = _convolution_call.run(
            function, diagonals, array, "valid", -2, rule, "zero", None, False
        )
    return found[..., 0] if is_vector else found


# Systems.


def _levinson(diagonals: Array, b: Array) -> Array | None:
    """Solve by Levinson's recursion, all right-hand sides at once; None where it breaks down.

    `forward` and `backward` solve the leading system of each order for the first and the last unit
    vector.
    """
    order = b.shape[0]
    corner = diagonals[order - 1]
    lower, upper = diagonals[order:], diagonals[order - 2 :: -1] if order > 1 else diagonals[:0]
    eps = np.finfo(b.dtype).eps
    if corner == 0:
        return None
    forward, backward = (np.zeros(order, b.dtype) for _ in range(2))
    y = np.zeros_like(b)
    forward[0] = backward[0] = 1 / corner
    y[0] = b[0] / corner
    for k in range(1, order):
        down = lower[:k][::-1]
        miss = down @ forward[:k]
        over = upper[:k] @ backward[:k]
        scale = 1 - miss * over
        if not abs(scale) > eps:
            return None
        shifted = np.concatenate([[0], backward[:k]])
        backward[: k + 1] = (shifted - over * forward[: k + 1]) / scale
        forward[: k + 1] = (forward[: k + 1] - miss * shifted) / scale
        rest = b[k] - down @ y[:k]
        y[: k + 1] += np.multiply.outer(backward[: k + 1], rest)
    return y


def solve_one(diagonals: Array, b: Array) -> Array:
    """Solve T y = b for one square matrix and a matrix `b`, in double precision.

    The recursion is unstable for some matrices and breaks down for others; a solution whose
    residual is more than some roundings is left to elimination on the dense matrix.
    """
    order = b.shape[0]
    with np.errstate(all="ignore"):
        y = _levinson(diagonals, b)
        if y is not None:
            missed = np.abs(product("solve", Spectra(diagonals), order, y) - b).max(axis=0)
            size = np.abs(diagonals).sum() * np.abs(y).max(axis=0) + np.abs(b).max(axis=0)
            if (missed <= _ACCEPTED * np.finfo(b.dtype).eps * size).all():
                return y
    found: Array = np.linalg.solve(dense(diagonals, order), b)
    return found
