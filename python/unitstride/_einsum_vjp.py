"""The gradient of einsum: its steps backwards."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unitstride import _arguments, _backend, _einsum_dtypes, _einsum_plan
from unitstride._einsum_dtypes import Dtypes, is_narrow
from unitstride._einsum_parse import Subscripts, parse_lists, parse_text
from unitstride._einsum_paths import read_choice
from unitstride._einsum_plan import Plan
from unitstride._einsum_run import as_operand, fresh, prepare, view_of
from unitstride._einsum_steps import Labels, Step

Array = NDArray[Any]
DType = np.dtype[Any]

_NAME = "einsum_vjp"
_FLOAT32, _FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)


def _own_dtype(array: Array) -> DType:
    """Return the dtype of the gradient of an operand: its own, float64 for integers."""
    dtype: DType = array.dtype.newbyteorder("=")
    return _FLOAT64 if dtype.kind in "biu" else dtype


def _working_dtypes(arrays: list[Array], cotangent: Array) -> Dtypes:
    """Return the dtypes in which everything is computed: 16-bit types widen to float32."""
    own = tuple(_own_dtype(array) for array in arrays)
    result = _einsum_dtypes.resolve(_NAME, own).result
    if cotangent.dtype.kind == "c" and result.kind != "c":
        raise TypeError(
            f"{_NAME}: `cotangent` must be real as the result is, "
            f"got {_arguments.dtype_label(cotangent.dtype)}"
        )
    joined = own if cotangent.dtype.kind in "biu" else (*own, cotangent.dtype)
    working = _einsum_dtypes.resolve(_NAME, joined)
    dtypes = Dtypes(working.result, working.operands[: len(own)])
    if is_narrow(dtypes.result):
        return Dtypes(_FLOAT32, (_FLOAT32,) * len(own))
    return dtypes


def _embedded(values: Array, labels: Labels, shape: tuple[int, ...]) -> Array:
    """Put values with an axis for each different label on the diagonal of zeros."""
    if len(set(labels)) == len(labels):
        return values
    whole = np.zeros(shape, values.dtype)
    unique = tuple(dict.fromkeys(labels))
    view_of(Subscripts((labels,), unique, ()), whole)[...] = values
    return whole


class _Backward:
    """The gradients of the arrays of a plan, from the last step to the first."""

    def __init__(self, plan: Plan, operands: list[Array]) -> None:
        self.plan = plan
        self.arrays: list[Array] = list(operands)  # operands and results, by number
        self.gradients: dict[int, Array] = {}
        self.status = 0
        for step in plan.steps[:-1]:
            result = fresh(step.shape, step.dtype)
            second = None if step.second is None else self.arrays[step.second]
            self._contract(
                self.arrays[step.first],
                step.first_labels,
                second,
                step.second_labels,
                result,
                step.labels,
            )
            self.arrays.append(result)

    def _contract(
        self,
        a: Array,
        a_labels: Labels,
        b: Array | None,
        b_labels: Labels,
        out: Array,
        labels: Labels,
    ) -> None:
        self.status |= _backend.run("contract", a, a_labels, b, b_labels, out, labels, 1.0, 0.0)

    def run(self, cotangent: Array) -> list[Array]:
        """Return the gradients of the operands as the steps read them."""
        count = len(self.plan.operand_dtypes)
        gradient = cotangent
        for number in range(len(self.plan.steps) - 1, -1, -1):
            step = self.plan.steps[number]
            if number + count in self.gradients:
                gradient = self.gradients.pop(number + count)
            if step.second is None:
                self._add_unary(step, gradient)
            else:
                self._add_pair(step, gradient)
        return [self.gradients[k] for k in range(count)]

    def _add_unary(self, step: Step, gradient: Array) -> None:
        """Repeat the gradient of a sum for all elements that were added."""
        source = self.arrays[step.first]
        unique = tuple(dict.fromkeys(step.first_labels))
        sizes = dict(zip(step.first_labels, source.shape, strict=True))
        places = [step.labels.index(x) for x in unique if x in step.labels]
        spread = gradient.transpose(places)
        index = tuple(slice(None) if x in step.labels else np.newaxis for x in unique)
        whole = np.broadcast_to(spread[(*index, ...)], [sizes[x] for x in unique])
        self._store(step.first, _embedded(whole, step.first_labels, source.shape))

    def _add_pair(self, step: Step, gradient: Array) -> None:
        """Contract the gradient of a product with the conjugate of the other factor."""
        assert step.second is not None
        sides = (step.first, step.first_labels), (step.second, step.second_labels)
        for (target, labels), (other, other_labels) in (sides, sides[::-1]):
            source, factor = self.arrays[target], self.arrays[other]
            if factor.dtype.kind == "c":
                factor = np.asarray(factor.conj())
            unique = tuple(dict.fromkeys(labels))
            sizes = dict(zip(labels, source.shape, strict=True))
            dtype = _einsum_dtypes.step_dtype(gradient.dtype, factor.dtype)
            result = fresh(tuple(sizes[x] for x in unique), dtype)
            self._contract(gradient, step.labels, factor, other_labels, result, unique)
            self._store(target, _embedded(result, labels, source.shape))

    def _store(self, number: int, gradient: Array) -> None:
        """Keep a gradient; that of a real array is real."""
        is_real = self.arrays[number].dtype.kind != "c"
        self.gradients[number] = gradient.real if is_real else gradient


def _read(subscripts: Any, arrays: list[Array]) -> Subscripts:
    dimensions = tuple(array.ndim for array in arrays)
    if isinstance(subscripts, str):
        return parse_text(_NAME, str(subscripts), dimensions)
    if not isinstance(subscripts, (list, tuple)):
        raise TypeError(
            f"{_NAME}: `subscripts` must be a string or a list of lists of labels, "
            f"got {subscripts!r}"
        )
    count = len(arrays)
    output = subscripts[count] if len(subscripts) == count + 1 else None
    lists = subscripts[:count] if output is not None else subscripts
    return parse_lists(_NAME, lists, output, dimensions)


def einsum_vjp(
    subscripts: Any,
    operands: Sequence[ArrayLike],
    cotangent: ArrayLike,
    *,
    optimize: Any = True,
) -> tuple[Array, ...]:
    """Compute the gradient of einsum with respect to each of its operands.

    Parameters
    ----------
    subscripts : str or list of lists of int
        As for `einsum`. In the other form, the lists of labels of the operands, and perhaps that
        of the result at the end: ``[[0, 1], [1, 2], [0, 2]]``.
    operands : sequence of array_like
        The operands of `einsum`.
    cotangent : array_like
        The gradient of a real number L with respect to the result of `einsum`, of its shape.
    optimize : bool, str, path, default True
        As for `einsum`.

    Returns
    -------
    tuple of ndarray
        The gradient of L with respect to each operand: new arrays of the shapes and dtypes of
        the operands, float64 for integers and booleans.

    Raises
    ------
    TypeError, ValueError
        As for `einsum`; also for a cotangent of another shape, and a complex one of a real result.

    Notes
    -----
    With complex operands the gradient is dL/d(real part) + i dL/d(imaginary part), as in PyTorch:
    the cotangent is multiplied by the conjugates of the other operands, and the gradient of a
    real operand is the real part.

    An axis that was broadcast is summed over, a label that was summed over in one operand alone
    repeats its gradient, and a label that an operand has twice has a gradient on its diagonal and
    zeros elsewhere.

    Accuracy: each contraction as in `einsum`; 16-bit types are computed in float32 and rounded
    once.

    Complexity: each step of the contraction once, and backwards twice as much; the intermediates
    are kept until they are used.

    References
    ----------
    .. [1] A. Griewank, A. Walther, "Evaluating Derivatives", 2nd ed., SIAM, 2008, chapter 3,
       doi:10.1137/1.9780898717761.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import einsum_vjp
    >>> a, x = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([5.0, 6.0])
    >>> da, dx = einsum_vjp("ij,j->i", (a, x), np.array([1.0, 10.0]))
    >>> da
    array([[ 5.,  6.],
           [50., 60.]])
    >>> dx
    array([31., 42.])
    """
    try:
        listed = list(operands)
    except TypeError:
        raise TypeError(
            f"{_NAME}: `operands` must be a sequence of arrays, got {type(operands).__name__}"
        ) from None
    arrays = [as_operand(_NAME, k, value) for k, value in enumerate(listed)]
    slope = as_operand(_NAME, len(arrays), cotangent)
    if not arrays:
        raise ValueError(f"{_NAME}: `operands` must have at least one array, got none")
    parsed = _read(subscripts, arrays)
    dtypes = _working_dtypes(arrays, slope)
    shapes = tuple(array.shape for array in arrays)
    plan = _einsum_plan.build(_NAME, parsed, shapes, dtypes, read_choice(_NAME, optimize))
    _arguments.check_shape(_NAME, "cotangent", slope, plan.shape)
    if plan.is_empty:
        return tuple(np.zeros(array.shape, _own_dtype(array)) for array in arrays)
    backward = _Backward(plan, prepare(plan, arrays))
    with np.errstate(all="ignore"):
        slope = slope.astype(dtypes.result)
        if plan.steps[-1].dtype.kind != "c":
            slope = slope.real
        found = backward.run(slope)
        results = tuple(
            np.array(gradient.reshape(array.shape), dtype=_own_dtype(array), order="C")
            for gradient, array in zip(found, arrays, strict=True)
        )
    _arguments.report_float_status(_NAME, backward.status)
    return results
