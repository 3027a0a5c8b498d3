"""A mergeable logsumexp: the sum over data that arrives in pieces.

The state is (m, s): m is the largest of the logsumexps seen and s the sum of exp(other - m) of the
others, so that the value is m + log1p(s). Two states merge without the data (M. Milakov and
N. Gimelshein, "Online normalizer calculation for softmax", 2018, arXiv:1805.02867).
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unitstride import _arguments, _backend

_FLOAT32 = np.dtype(np.float32)
_FLOAT64 = np.dtype(np.float64)


class LogSumExp:
    """The logsumexp of everything given to `update`, in any number of pieces.

    Parameters
    ----------
    axis : int, tuple of ints or None, default -1
        The axis or axes of each piece to sum over; None means all of them.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        By `update` and `merge`: as `logsumexp` does, and ValueError for a piece whose remaining
        axes have another shape than those before.

    Notes
    -----
    The state is two float64 arrays of the remaining shape. It pickles, and states from several
    processes merge into one. A NaN in a row makes the value of that row NaN; +inf makes it +inf.

    Accuracy: each piece adds at most one rounding of its own logsumexp (in float32 for 16-bit
    types); the merging is in float64.

    Complexity: that of `logsumexp` for each piece; O(remaining size) for each merge.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import LogSumExp, logsumexp
    >>> x = np.linspace(-3.0, 3.0, 10)
    >>> state = LogSumExp()
    >>> state.update(x[:4])
    >>> rest = LogSumExp()
    >>> rest.update(x[4:])
    >>> state.merge(rest)
    >>> bool(np.isclose(state.value, logsumexp(x)))
    True
    """

    def __init__(self, axis: int | tuple[int, ...] | None = -1) -> None:
        self._axis = axis
        self._maximum: NDArray[np.float64] | None = None  # m, of the remaining shape
        self._others: NDArray[np.float64] = np.zeros(())  # s
        self._dtype: np.dtype[Any] = _FLOAT64

    def update(self, x: ArrayLike) -> None:
        """Add a piece of data: an array_like whose axes besides `axis` agree with the others."""
        name = "LogSumExp.update"
        values, axes, scale, _ = _arguments.prepare(name, "x", x, self._axis, None, 1.0)
        shape = _arguments.reduced_shape(values.shape, axes)
        self._check_shape(name, "x", shape)
        working = _arguments.wider(values.dtype, _FLOAT32)
        level = np.empty(shape, working)
        axes, (rows,) = _arguments.with_axis(axes, values.astype(working, copy=False))
        status = _backend.run("logsumexp", rows, level, axes, None, scale, None, None)
        self._absorb(level.astype(np.float64), np.zeros(shape), values.dtype)
        _arguments.report_float_status(name, status)

    def merge(self, other: "LogSumExp") -> None:
        """Add everything that `other` has seen; `other` does not change."""
        name = "LogSumExp.merge"
        if not isinstance(other, LogSumExp):
            raise TypeError(f"{name}: `other` must be a LogSumExp, got {type(other).__name__}")
        if other._maximum is None:
            return
        self._check_shape(name, "other", other._maximum.shape)
        self._absorb(other._maximum, other._others, other._dtype)

    @property
    def value(self) -> Any:
        """The logsumexp of everything seen so far, an array or a scalar; -inf when nothing was."""
        maximum = np.float64(-np.inf) if self._maximum is None else self._maximum
        with np.errstate(all="ignore"):
            value = np.where(np.isfinite(maximum), maximum + np.log1p(self._others), maximum)
            return value.astype(self._dtype)[()]

    def __repr__(self) -> str:
        shape = None if self._maximum is None else self._maximum.shape
        return f"LogSumExp(axis={self._axis}, shape={shape}, dtype={self._dtype.name})"

    def _check_shape(self, name: str, argument: str, shape: tuple[int, ...]) -> None:
        if self._maximum is not None and shape != self._maximum.shape:
            raise ValueError(
                f"{name}: `{argument}` must have remaining shape {self._maximum.shape}, got {shape}"
            )

    def _absorb(
        self, maximum: NDArray[np.float64], others: NDArray[np.float64], dtype: np.dtype[Any]
    ) -> None:
        """Merge the state (maximum, others), both of the remaining shape."""
        if self._maximum is None:
            self._maximum, self._others, self._dtype = maximum.copy(), others.copy(), dtype
            return
        larger = np.maximum(self._maximum, maximum)
        with np.errstate(all="ignore"):
            weight = np.exp(np.minimum(self._maximum, maximum) - larger)
            keeps = self._maximum >= maximum
            first = np.where(keeps, self._others, others)
            second = np.where(keeps, others, self._others)
            total = first + (1.0 + second) * weight
        # An infinite or NaN maximum is itself the value.
        self._others = np.where(np.isfinite(larger), total, 0.0)
        self._maximum = larger
        self._dtype = _arguments.wider(self._dtype, dtype)
