"""Lazy steps: the rows of a parameter that have a gradient, and no others."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unitstride import _arguments
from unitstride._optim_adam import adam_step
from unitstride._optim_lists import check_array, check_overlap
from unitstride._optim_momentum_steps import sgd_step

Array = NDArray[Any]


def _summed_rows(
    function: str, param: Array, indices: ArrayLike, values: Any
) -> tuple[NDArray[np.intp], Array]:
    """Return the rows that occur, in order, and the sums of their gradients."""
    if param.ndim == 0:
        raise ValueError(f"{function}: `param` must have at least one axis, got a scalar")
    rows = _arguments.plain(function, "indices", indices)
    if rows.size == 0:
        rows = rows.astype(np.intp)
    if rows.ndim != 1 or rows.dtype.kind not in "iu":
        raise TypeError(
            f"{function}: `indices` must be integers along one axis, "
            f"got {rows.dtype} of shape {rows.shape}"
        )
    given = check_array(function, "values", values, False)
    shape = (rows.size, *param.shape[1:])
    if given.shape != shape:
        raise ValueError(f"{function}: `values` must have shape {shape}, got {given.shape}")
    wrong = (rows < 0) | (rows >= param.shape[0])
    if wrong.any():
        raise ValueError(
            f"{function}: `indices` must be at least 0 and below {param.shape[0]}, "
            f"got {rows[wrong][0]}"
        )
    unique, place = np.unique(rows, return_inverse=True)
    dtype = np.float64 if param.dtype.itemsize == 8 else np.float32
    sums = np.zeros((unique.size, *param.shape[1:]), dtype)
    np.add.at(sums, place, given.astype(dtype))
    return unique.astype(np.intp), sums


def _check_written(function: str, named: dict[str, Any], values: Any) -> list[Array]:
    """Return the checked arrays that are written: of one shape, sharing no memory."""
    arrays = [check_array(function, name, array, True) for name, array in named.items()]
    for name, array in zip(named, arrays, strict=True):
        if array.shape != arrays[0].shape:
            raise ValueError(
                f"{function}: `{name}` must have shape {arrays[0].shape}, got {array.shape}"
            )
    labelled = [(name, array, True) for name, array in zip(named, arrays, strict=True)]
    check_overlap(
        function, [*labelled, ("values", check_array(function, "values", values, False), False)]
    )
    return arrays


def adam_rows_step(
    param: Array,
    indices: ArrayLike,
    values: Array,
    exp_avg: Array,
    exp_avg_sq: Array,
    step: int,
    *,
    compat: str = "tensorflow",
    **options: Any,
) -> tuple[float, bool]:
    """Take one Adam step on the rows that have a gradient; all others stay as they are.

    Parameters
    ----------
    param, exp_avg, exp_avg_sq : ndarray, shape (n, ...)
        Parameter and moments; their rows in `indices` are updated in place.
    indices : array_like of int, shape (k,)
        Row numbers in [0, n); gradients of a row that occurs several times are added.
    values : ndarray, shape (k, ...)
        The gradient of each of these rows.
    step : int
        The number of this step, from 1.
    compat : str, default "tensorflow"
        As for `adam_step`; the default places eps as ``torch.optim.SparseAdam`` does.
    options
        ``lr``, ``betas``, ``eps``, ``weight_decay``, ``decoupled``, ``nesterov``, ``maximize``,
        ``bias_correction``, ``grad_scale``, ``clip_factor``, ``max_norm``, ``skip_nonfinite``
        of `adam_step`.

    Returns
    -------
    grad_norm : float
        The norm of the summed gradients.
    stepped : bool
        False if the step was skipped.

    Raises
    ------
    TypeError, ValueError
        As for `adam_step`, and for indices out of range. Nothing is written then.

    Notes
    -----
    The rows have the bits of `adam_step` on them. Complexity: O(k) rows of work and memory.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import adam_rows_step
    >>> x, m, v = np.ones((3, 2)), np.zeros((3, 2)), np.zeros((3, 2))
    >>> norm, stepped = adam_rows_step(x, [2], np.ones((1, 2)), m, v, 1, lr=0.5)
    >>> x.round(6)
    array([[1. , 1. ],
           [1. , 1. ],
           [0.5, 0.5]])
    """
    name = "adam_rows_step"
    named = {"param": param, "exp_avg": exp_avg, "exp_avg_sq": exp_avg_sq}
    arrays = _check_written(name, named, values)
    rows, sums = _summed_rows(name, arrays[0], indices, values)
    p, m, v = (array[rows] for array in arrays)
    norm, stepped = adam_step(p, sums, m, v, step, compat=compat, **options)
    if stepped:
        for array, fresh in zip(arrays, (p, m, v), strict=True):
            array[rows] = fresh
    return norm, stepped


def sgd_rows_step(
    param: Array, indices: ArrayLike, values: Array, *, lr: float = 1e-3, **options: Any
) -> tuple[float, bool]:
    """Take one step of gradient descent on the rows that have a gradient.

    Parameters
    ----------
    param : ndarray, shape (n, ...)
        Its rows in `indices` are updated in place.
    indices, values
        As for `adam_rows_step`.
    lr : float, default 1e-3
        Learning rate.
    options
        ``weight_decay``, ``decoupled``, ``maximize``, ``grad_scale``, ``clip_factor``,
        ``max_norm``, ``skip_nonfinite`` of `sgd_step`.

    Returns
    -------
    grad_norm : float
        The norm of the summed gradients.
    stepped : bool
        False if the step was skipped.

    Raises
    ------
    TypeError, ValueError
        As for `sgd_step`, and for indices out of range. Nothing is written then.

    Notes
    -----
    The rows have the bits of `sgd_step` on them. Complexity: O(k) rows of work and memory.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import sgd_rows_step
    >>> x = np.ones(3)
    >>> sgd_rows_step(x, [1, 1], np.array([1.0, 2.0]), lr=0.25)
    (3.0, True)
    >>> x
    array([1.  , 0.25, 1.  ])
    """
    name = "sgd_rows_step"
    (array,) = _check_written(name, {"param": param}, values)
    rows, sums = _summed_rows(name, array, indices, values)
    p = array[rows]
    norm, stepped = sgd_step(p, sums, lr=lr, **options)
    if stepped:
        array[rows] = p
    return norm, stepped
