"""Norms of gradients, clipping, and moving averages of parameters."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from unitstride import _optim_lists, _optim_rules
from unitstride._optim_lists import Arrays

Array = NDArray[Any]


def global_norm(grads: Arrays) -> float:
    """Return the Euclidean norm of all arrays together.

    Parameters
    ----------
    grads : ndarray or list of ndarray
        float32, float64, float16 or bfloat16 arrays of any shapes and strides.

    Returns
    -------
    float
        The norm; NaN or infinite if an element is. Zero for no elements.

    Raises
    ------
    TypeError
        For something else than arrays, and for other dtypes.

    Notes
    -----
    One pass. Squares are added in float64 with their rounding errors kept, so the result is that
    of the exact sum, rounded, whatever the layout, the order of the elements and the number of
    threads. Squares that leave the range of float64 do no harm.

    Complexity: O(n). The formula is sqrt(sum of squares).

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import global_norm
    >>> global_norm([np.array([3.0, 0.0]), np.array([[4.0]])])
    5.0
    """
    return _optim_lists.run_norm("global_norm", "grads", grads)


def _writeable(function: str, name: str, arrays: Any) -> list[Array]:
    """Return the arrays of a list that is changed in place, checked."""
    if arrays is None:
        raise TypeError(f"{function}: `{name}` must be an array or a list of arrays, got None")
    (found,) = _optim_lists.check_lists(function, (name,), (arrays,))
    assert found is not None
    return found


def clip_grad_norm_(grads: Arrays, max_norm: float, error_if_nonfinite: bool = False) -> float:
    """Scale gradients in place so that their norm together is at most `max_norm`.

    Parameters
    ----------
    grads : ndarray or list of ndarray
        Gradients of any shapes and strides; changed where their norm is larger.
    max_norm : float
        Not negative; with infinity only the norm is computed.
    error_if_nonfinite : bool, default False
        Raise ValueError for a norm that is NaN or infinite, before anything is written.

    Returns
    -------
    float
        The norm before.

    Raises
    ------
    TypeError
        For something else than arrays, and for other dtypes.
    ValueError
        For a negative limit, read-only arrays, arrays that share memory, and as above.

    Notes
    -----
    The factor is ``min(1, max_norm / (norm + 1e-6))``, PyTorch's. A step with `max_norm` does the
    same without writing the gradients. Accuracy: each element is rounded once; the norm is that of
    `global_norm`. Complexity: O(n), two passes.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import clip_grad_norm_
    >>> g = np.array([3.0, 4.0])
    >>> clip_grad_norm_(g, 1.0)
    5.0
    >>> g.round(3)
    array([0.6, 0.8])
    """
    name = "clip_grad_norm_"
    limit = np.inf
    if not (isinstance(max_norm, (float, np.floating)) and max_norm == np.inf):
        limit = _optim_rules.check_number(name, "max_norm", max_norm)
    arrays = _writeable(name, "grads", grads)
    norm = global_norm(arrays)
    if error_if_nonfinite and not np.isfinite(norm):
        raise ValueError(f"{name}: the norm of `grads` must be finite, got {norm}")
    factor = limit / (norm + 1e-6)
    if not factor >= 1.0 and limit != np.inf:
        for array in arrays:
            np.multiply(array, array.dtype.type(factor), out=array)
    return norm


def clip_grad_value_(grads: Arrays, clip_value: float) -> None:
    """Bring all elements of gradients into [-clip_value, clip_value], in place.

    Parameters
    ----------
    grads : ndarray or list of ndarray
        Gradients of any shapes and strides; NaN stays NaN.
    clip_value : float
        Not negative.

    Raises
    ------
    TypeError
        For something else than arrays, and for other dtypes.
    ValueError
        For a negative limit, read-only arrays, and arrays that share memory.

    Notes
    -----
    Exact, but for the rounding of `clip_value` to the dtype. Complexity: O(n). The formula is
    max(-c, min(c, g)).

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import clip_grad_value_
    >>> g = np.array([3.0, -0.5])
    >>> clip_grad_value_(g, 1.0)
    >>> g
    array([ 1. , -0.5])
    """
    name = "clip_grad_value_"
    limit = _optim_rules.check_number(name, "clip_value", clip_value)
    for array in _writeable(name, "grads", grads):
        bound = array.dtype.type(limit)
        np.minimum(np.maximum(array, -bound), bound, out=array)


def ema_update(ema: Arrays, params: Arrays, decay: float = 0.999) -> None:
    """Move averages towards parameters: ``ema = decay * ema + (1 - decay) * params``, in place.

    Parameters
    ----------
    ema : ndarray or list of ndarray
        The averages; updated.
    params : ndarray or list of ndarray
        The parameters, of the same shapes.
    decay : float, default 0.999
        In [0, 1).

    Raises
    ------
    TypeError
        For something else than arrays, and for other dtypes.
    ValueError
        For lists or shapes that do not match, read-only averages, or averages that share memory
        with any other array. Nothing is written then.

    Notes
    -----
    Computed in the dtype of `ema`, in float32 for 16-bit ones, and rounded once there. A step
    with ``ema=`` does the same in its own pass. Complexity: O(n), one pass.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import ema_update
    >>> average = np.zeros(2)
    >>> ema_update(average, np.array([1.0, 2.0]), decay=0.5)
    >>> average
    array([0.5, 1. ])
    """
    name = "ema_update"
    keep = _optim_rules.check_number(name, "decay", decay, 0.0, 1.0)
    numbers = _optim_rules.padded(keep, 1.0 - keep)
    _optim_lists.run_step(
        name,
        _optim_rules.AVERAGE,
        ("ema", "params"),
        (ema, params, None, None, None, None, None),
        (1.0, 0.0, 0.0, 0.0, 0.0, *numbers),
    )
