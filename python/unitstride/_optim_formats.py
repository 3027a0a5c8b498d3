"""States of optimisers in 8 bits an element."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unitstride._reference import optim_narrow

Array = NDArray[Any]

BLOCK = optim_narrow.BLOCK


class BlockwiseState:
    """A state of an optimiser in 8 bits an element, each 256 of them with a scale of their own.

    Parameters
    ----------
    shape : tuple of int
        The shape of the parameter.
    signed : bool
        Whether elements may be negative; second moments are not.

    Attributes
    ----------
    codes : ndarray of uint8
        One for each element: places in a table of 256 numbers from -1 (or 0) to 1, which are
        close together near zero.
    scales : ndarray of float32
        The largest magnitude of each 256 elements in C order.

    Notes
    -----
    The error is at most half of the distance of the two numbers of the table around an element; a
    positive element of an unsigned state never becomes zero, and a block that holds NaN or an
    infinity becomes NaN.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import BlockwiseState
    >>> state = BlockwiseState((2, 2), signed=True)
    >>> state.assign(np.array([[1.0, -0.5], [0.0, 1e-3]]))
    >>> state.to_array().round(3)
    array([[ 1.   , -0.501],
           [ 0.   ,  0.001]], dtype=float32)
    """

    def __init__(self, shape: Sequence[int] | int, signed: bool) -> None:
        self.signed = bool(signed)
        zero = int(np.searchsorted(optim_narrow.code_values(self.signed), 0))
        self.codes = np.full(shape, zero, np.uint8)
        self.scales = np.zeros(-(-self.codes.size // BLOCK), np.float32)

    @classmethod
    def of(cls, codes: Array, scales: Array, signed: bool) -> "BlockwiseState":
        """Return a state on arrays that exist."""
        state = cls.__new__(cls)
        state.codes, state.scales, state.signed = codes, scales, signed
        return state

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the parameter."""
        return self.codes.shape

    @property
    def size(self) -> int:
        """The number of elements."""
        return self.codes.size

    def assign(self, values: Any) -> None:
        """Replace all elements."""
        given = np.ascontiguousarray(values, np.float32)
        if given.shape != self.shape:
            raise ValueError(
                f"BlockwiseState: `values` must have shape {self.shape}, got {given.shape}"
            )
        codes, self.scales[...] = optim_narrow.encode(given.reshape(-1), self.signed)
        self.codes[...] = codes.reshape(self.shape)

    def to_array(self) -> Array:
        """Return the elements as float32."""
        values = optim_narrow.decode(self.codes.reshape(-1), self.scales, self.signed)
        return values.reshape(self.shape)

    def __repr__(self) -> str:
        kind = "signed" if self.signed else "unsigned"
        return f"BlockwiseState(shape={self.shape}, {kind}, {self.scales.size} blocks)"
