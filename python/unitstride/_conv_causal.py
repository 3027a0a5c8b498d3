"""Short causal convolution of each channel, with an activation and a state for streams."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unitstride import _arguments, _backend
from unitstride._einsum_run import fresh

Array = NDArray[Any]

_NAME = "causal_conv1d"
_ACTIVATIONS = ("silu", "swish")


def causal_conv1d(
    x: ArrayLike,
    w: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    activation: str | None = None,
    state: ArrayLike | None = None,
    return_state: bool = False,
) -> Array | tuple[Array, Array]:
    """Convolve each channel with a short kernel that looks back only.

    Parameters
    ----------
    x : array_like, shape (..., channels, length)
        Signals.
    w : array_like, shape (channels, taps)
        One kernel for each channel; its last tap meets the present element.
    bias : array_like, shape (channels,), optional
        Added to each output.
    activation : {None, "silu"}, default: None
        Applied to the outputs; "silu" (also "swish") is v / (1 + exp(-v)).
    state : array_like, shape (..., channels, taps - 1), optional
        The elements before `x`; zeros by default.
    return_state : bool, default: False
        Also return the last taps - 1 elements, the state for what follows.

    Returns
    -------
    out : ndarray, shape (..., channels, length)
        ``out[t] = activation(bias + sum over j of w[j] * x[t - (taps - 1) + j])``, in the wider
        dtype of `x` and `w`.
    state : ndarray, shape (..., channels, taps - 1)
        With `return_state`.

    Raises
    ------
    TypeError
        For arrays that are not real numbers.
    ValueError
        For shapes that do not fit together and an unknown activation.

    Notes
    -----
    Time O(x.size * taps). Pieces of a signal with the state handed on give the bits of the whole.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import causal_conv1d
    >>> causal_conv1d(np.array([[1.0, 2.0, 3.0]]), np.array([[10.0, 1.0]]))
    array([[ 1., 12., 23.]])
    """
    signal, kernel = (_arguments.as_array(_NAME, n, a) for n, a in (("x", x), ("w", w)))
    if signal.ndim < 2:
        raise ValueError(
            f"{_NAME}: `x` must have 2 dimensions (channels, length) or more, "
            f"got shape {signal.shape}"
        )
    channels, length = signal.shape[-2:]
    if kernel.ndim != 2 or kernel.shape[0] != channels or kernel.shape[1] == 0:
        raise ValueError(
            f"{_NAME}: `w` must have shape ({channels}, taps) with at least one tap, "
            f"got {kernel.shape}"
        )
    if activation is not None and not (type(activation) is str and activation in _ACTIVATIONS):
        raise ValueError(f'{_NAME}: `activation` must be None or "silu", got {activation!r}')
    dtype, taps = _arguments.wider(signal.dtype, kernel.dtype), kernel.shape[1]
    signal, kernel = signal.astype(dtype, copy=False), kernel.astype(dtype, copy=False)
    earlier = np.zeros((*signal.shape[:-1], taps - 1), dtype)
    if state is not None:
        given = _arguments.as_array(_NAME, "state", state)
        _arguments.check_shape(_NAME, "state", given, earlier.shape)
        earlier = given.astype(dtype, copy=False)
    offset = None
    if bias is not None:
        offset = _arguments.as_array(_NAME, "bias", bias)
        _arguments.check_shape(_NAME, "bias", offset, (channels,))
        offset = np.broadcast_to(offset.astype(dtype, copy=False), signal.shape[:-1])
    out = fresh(signal.shape, dtype)
    filtered = _Filter(kernel, offset, activation is not None)
    filtered.write(signal, out, 0)
    if state is not None and taps > 1 and length > 0:
        # Those that reach back beyond the signal.
        head = np.concatenate([earlier, signal[..., : taps - 1]], axis=-1)
        filtered.write(head, out[..., : taps - 1], taps - 1)
    if not return_state:
        return out
    last = np.concatenate([earlier, signal[..., max(0, length - taps + 1) :]], axis=-1)
    return out, last[..., last.shape[-1] - (taps - 1) :]


class _Filter:
    """Sums of each channel with its own kernel, its bias and the activation."""

    def __init__(self, kernel: Array, bias: Array | None, silu: bool) -> None:
        self.kernel, self.bias, self.silu = kernel, bias, silu

    def write(self, x: Array, out: Array, start: int) -> None:
        """Write the outputs from `start` on, of signals that are zero beyond their ends."""
        if out.size == 0:
            return
        taps = np.broadcast_to(self.kernel[:, ::-1], (*x.shape[:-1], self.kernel.shape[1]))
        planes = [a[..., None, :] for a in (x, taps, out)]
        _backend.run("convolve_planes", *planes, (0, start), 0, self.bias, self.silu)
