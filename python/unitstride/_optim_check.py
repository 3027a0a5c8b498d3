"""Derivatives by central differences: gradients, Jacobians, Hessians; checks of gradients."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Function = Callable[[Array], Any]

# Where the errors of truncation (h^2, h^2) and of rounding (eps / h, eps / h^2) meet.
_FIRST_STEP = float(np.finfo(np.float64).eps) ** (1 / 3)
_SECOND_STEP = float(np.finfo(np.float64).eps) ** (1 / 4)


def _point(function: str, x: ArrayLike) -> Array:
    point = np.array(x, dtype=np.float64)
    if not np.isfinite(point).all():
        raise ValueError(f"{function}: `x` must be finite, got an array with NaN or infinity")
    return point


def _steps(function: str, x: Array, step: float | None, default: float) -> Array:
    """Return the step of each element, exact in float64 beside its x."""
    if step is not None and not 0.0 < step < np.inf:
        raise ValueError(f"{function}: `step` must be positive and finite, got {step}")
    wanted = (default if step is None else step) * np.maximum(np.abs(x), 1.0)
    return np.asarray((x + wanted) - x)


def _value(function: str, f: Function, x: Array) -> float:
    value = np.asarray(f(x.copy()), dtype=np.float64)
    if value.size != 1:
        raise ValueError(f"{function}: `f` must return one number, got shape {value.shape}")
    return float(value.reshape(()))


def numerical_gradient(f: Function, x: ArrayLike, step: float | None = None) -> Array:
    """Return the gradient of a function of an array by central differences.

    Parameters
    ----------
    f : callable
        From a float64 array of the shape of `x` to a number. It gets a copy each time.
    x : array_like
        The point, of any shape; computed in float64.
    step : float, optional
        The step is this times max(1, abs(x)); the cube root of the machine epsilon by default.

    Returns
    -------
    ndarray
        Of float64 and the shape of `x`.

    Raises
    ------
    ValueError
        For a point that is not finite, a step that is not positive, an `f` that returns more than
        a number.

    Notes
    -----
    (f(x + h) - f(x - h)) / 2h for each element: 2 x.size calls. The error is about 1e-10 of the
    scale of f and its third derivative.

    Examples
    --------
    >>> from unitstride import numerical_gradient
    >>> numerical_gradient(lambda x: x[0] ** 2 + 2 * x[1] ** 2, [3.0, 4.0]).round(6)
    array([ 6., 16.])
    """
    name = "numerical_gradient"
    return _gradient(name, f, _point(name, x), step)


def _gradient(name: str, f: Function, point: Array, step: float | None) -> Array:
    h = _steps(name, point, step, _FIRST_STEP)
    gradient = np.empty(point.shape)
    for index in np.ndindex(point.shape):
        there, back = point.copy(), point.copy()
        there[index] += h[index]
        back[index] -= h[index]
        width = there[index] - back[index]
        gradient[index] = (_value(name, f, there) - _value(name, f, back)) / width
    return gradient


def jacobian(f: Function, x: ArrayLike, step: float | None = None) -> Array:
    """Return the Jacobian of a function from arrays to arrays by central differences.

    Parameters
    ----------
    f : callable
        From a float64 array of the shape of `x` to an array. It gets a copy each time.
    x : array_like
        The point, of any shape; computed in float64.
    step : float, optional
        As for `numerical_gradient`.

    Returns
    -------
    ndarray
        Of shape ``f(x).shape + x.shape``.

    Raises
    ------
    ValueError
        For a point that is not finite, and a step that is not positive.

    Notes
    -----
    As for `numerical_gradient`: 2 x.size calls, and one for the shape.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import jacobian
    >>> jacobian(lambda x: np.array([x[0] * x[1], x[0]]), [2.0, 3.0]).round(6)
    array([[3., 2.],
           [1., 0.]])
    """
    name = "jacobian"
    point = _point(name, x)
    h = _steps(name, point, step, _FIRST_STEP)
    shape = np.shape(f(point.copy()))
    result = np.empty((*shape, *point.shape))
    for index in np.ndindex(point.shape):
        there, back = point.copy(), point.copy()
        there[index] += h[index]
        back[index] -= h[index]
        width = there[index] - back[index]
        # A copy of the first result: `f` may return the same array each time.
        upper = np.array(f(there), dtype=np.float64)
        result[(..., *index)] = (upper - np.asarray(f(back), dtype=np.float64)) / width
    return result


def hessian(f: Function, x: ArrayLike, step: float | None = None) -> Array:
    """Return the matrix of second derivatives of a function by central differences.

    Parameters
    ----------
    f : callable
        From a float64 array of the shape of `x` to a number. It gets a copy each time.
    x : array_like
        The point, of any shape; computed in float64.
    step : float, optional
        The step is this times max(1, abs(x)); the fourth root of the machine epsilon by default.

    Returns
    -------
    ndarray
        Of shape ``x.shape + x.shape``, symmetric.

    Raises
    ------
    ValueError
        As for `numerical_gradient`.

    Notes
    -----
    (f(x + a + b) - f(x + a - b) - f(x - a + b) + f(x - a - b)) / 4ab for each pair of elements:
    about 2 x.size^2 calls. The error is about 1e-7 of the scale of f and its derivatives.

    Examples
    --------
    >>> from unitstride import hessian
    >>> hessian(lambda x: x[0] ** 2 * x[1], [1.0, 3.0]).round(5)
    array([[6., 2.],
           [2., 0.]])
    """
    name = "hessian"
    point = _point(name, x)
    flat = point.ravel()
    h = _steps(name, flat, step, _SECOND_STEP)
    result = np.empty((flat.size, flat.size))

    def at(first: int, a: float, second: int, b: float) -> float:
        moved = flat.copy()
        moved[first] += a * h[first]
        moved[second] += b * h[second]
        return _value(name, f, moved.reshape(point.shape))

    for i in range(flat.size):
        for j in range(i + 1):
            upper = at(i, 1, j, 1) - at(i, 1, j, -1)
            lower = at(i, -1, j, 1) - at(i, -1, j, -1)
            result[i, j] = result[j, i] = (upper - lower) / (4.0 * h[i] * h[j])
    return result.reshape(point.shape + point.shape)


@dataclass(frozen=True)
class GradientReport:
    """What `check_gradient` found: true when the gradient is right; printed, it names errors.

    Examples
    --------
    >>> from unitstride import check_gradient
    >>> report = check_gradient(lambda x: x[0] * x[1], [3.0, 2.0], [2.0, 3.0])
    >>> bool(report), report.checked
    (True, 2)
    """

    passed: bool
    checked: int
    largest_error: float  # relative to the tolerance: right up to 1
    # The worst entries: index, the gradient's value, that of the differences.
    worst: tuple[tuple[tuple[int, ...], float, float], ...]

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        state = "right" if self.passed else "WRONG"
        lines = [f"gradient {state}: {self.checked} entries, error {self.largest_error:.3g} of 1"]
        lines += [
            f"  {index}: gradient {given:.10g}, differences {found:.10g}"
            for index, given, found in self.worst
        ]
        return "\n".join(lines)


def check_gradient(
    f: Function,
    grad: Function | ArrayLike,
    x: ArrayLike,
    *,
    rtol: float = 1e-6,
    atol: float = 1e-8,
    step: float | None = None,
    show: int = 5,
) -> GradientReport:
    """Compare a gradient with central differences.

    Parameters
    ----------
    f : callable
        From a float64 array of the shape of `x` to a number.
    grad : callable or array_like
        The gradient in question: a function of the array, or its value at `x`.
    x : array_like
        The point, of any shape; computed in float64.
    rtol, atol : float
        An entry is right within ``atol * max(1, abs(f(x))) + rtol * abs(differences)``.
    step : float, optional
        As for `numerical_gradient`.
    show : int, default 5
        How many of the worst entries the report has.

    Returns
    -------
    GradientReport
        True when all entries are right; printed, it names the worst ones.

    Raises
    ------
    ValueError
        As for `numerical_gradient`, and for a gradient of another shape than `x`.

    Notes
    -----
    2 x.size + 1 calls of `f`. NaN in the gradient is an error of its entry. Differences are good
    to about 1e-10 of f (`numerical_gradient`), well below the tolerances.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import check_gradient
    >>> report = check_gradient(lambda x: (x**3).sum(), lambda x: 3 * x**2, [1.0, 2.0])
    >>> bool(report)
    True
    >>> print(check_gradient(lambda x: (x**2).sum(), [2.0, 5.0], [1.0, 2.0], show=1))
    gradient WRONG: 2 entries, error 2.47e+05 of 1
      (1,): gradient 5, differences 4
    """
    name = "check_gradient"
    point = _point(name, x)
    given = np.asarray(grad(point.copy()) if callable(grad) else grad, dtype=np.float64)
    if given.shape != point.shape:
        raise ValueError(f"{name}: `grad` must have shape {point.shape}, got {given.shape}")
    found = _gradient(name, f, point, step)
    allowed = atol * max(1.0, abs(_value(name, f, point))) + rtol * np.abs(found)
    with np.errstate(all="ignore"):
        error = np.abs(given - found) / allowed
    error = np.where(np.isnan(error), np.inf, error)
    order = np.argsort(-error, axis=None, kind="stable")[:show]
    places = [tuple(int(i) for i in np.unravel_index(k, point.shape)) for k in order]
    worst = tuple((place, float(given[place]), float(found[place])) for place in places)
    largest = float(error.max(initial=0.0))
    return GradientReport(largest <= 1.0, point.size, largest, worst)
