"""Contractions of given shapes, planned once."""

import itertools
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unitstride import _einsum_call, _einsum_dtypes, _einsum_plan, _outputs
from unitstride._einsum_fold import Rest, fold
from unitstride._einsum_parse import parse_text
from unitstride._einsum_paths import Choice, read_choice
from unitstride._einsum_plan import Plan
from unitstride._einsum_run import as_operand, execute

Array = NDArray[Any]
Shape = tuple[int, ...]

_NAME = "contract_expression"
_numbers = itertools.count()


class ContractExpression:
    """A contraction of operands of given shapes; see `contract_expression`.

    Attributes
    ----------
    subscripts : str
        The subscripts it was made with.
    shapes : tuple of tuple of int
        The shapes of all operands.
    constants : tuple of int
        The positions of operands that are not given again.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import contract_expression
    >>> product = contract_expression("ij,jk->ik", (2, 3), (3, 4))
    >>> product(np.ones((2, 3)), np.ones((3, 4))).shape
    (2, 4)
    """

    def __init__(
        self,
        subscripts: str,
        shapes: tuple[Shape, ...],
        choice: Choice,
        limit: float,
        constants: dict[int, Array],
    ) -> None:
        self.subscripts = subscripts
        self.shapes = shapes
        self.constants = tuple(sorted(constants))
        self._arrays = constants
        self._given = tuple(k for k in range(len(shapes)) if k not in constants)
        # By the dtypes of the operands that are given: what is left to do with them.
        self._rests: dict[Any, Rest] = {}
        self._parsed = parse_text(_NAME, subscripts, tuple(len(shape) for shape in shapes))
        self._choice = choice
        self._limit = limit
        self._plans: dict[tuple[np.dtype[Any], ...], Plan] = {}
        self._key = f"expression:{next(_numbers)}"
        self._plan((np.dtype(np.float64),) * len(shapes))  # raises for sizes that do not fit

    def __repr__(self) -> str:
        shapes = ", ".join(map(str, self.shapes))
        return f"<ContractExpression {self.subscripts!r} of {shapes}>"

    def _plan(self, dtypes: tuple[np.dtype[Any], ...]) -> Plan:
        plan = self._plans.get(dtypes)
        if plan is None:
            resolved = _einsum_dtypes.resolve(_NAME, dtypes)
            plan = _einsum_plan.build(
                _NAME, self._parsed, self.shapes, resolved, self._choice, self._limit
            )
            _einsum_call.remember(self._plans, dtypes, plan)
        return plan

    def _rest(self, dtypes: tuple[np.dtype[Any], ...]) -> Rest:
        """Return what is left when everything among constants is done."""
        found = self._rests.get(dtypes)
        if found is not None:
            return found
        given = dict(zip(self._given, dtypes, strict=True))
        plan = self._plan(
            tuple(
                self._arrays[k].dtype if k in self._arrays else given[k]
                for k in range(len(self.shapes))
            )
        )
        found = fold(plan, self._given, self._arrays) if self._arrays else Rest(plan, [])
        _einsum_call.remember(self._rests, dtypes, found)
        return found

    def __call__(
        self,
        *operands: ArrayLike,
        out: Array | None = None,
        alpha: complex = 1,
        beta: complex = 0,
    ) -> Any:
        """Contract operands of the given shapes; `out`, `alpha` and `beta` as for `einsum`."""
        if not self._arrays:
            found = _einsum_call.run_again(self._key, operands, out, alpha, beta)
            if found is not None:
                return _einsum_call.reported(_NAME, found)
        if len(operands) != len(self._given):
            raise ValueError(
                f"{_NAME}: the expression must get {len(self._given)} operands, got {len(operands)}"
            )
        arrays = [as_operand(_NAME, k, value) for k, value in enumerate(operands)]
        for position, (array, place) in enumerate(zip(arrays, self._given, strict=True)):
            if array.shape != self.shapes[place]:
                raise ValueError(
                    f"{_NAME}: operand {position} must have shape {self.shapes[place]}, "
                    f"got {array.shape}"
                )
        rest = self._rest(tuple([array.dtype for array in arrays]))
        plan, arrays = rest.plan, rest.operands(arrays)
        if self._arrays:
            found = _einsum_call.run_again(self._key, tuple(arrays), out, alpha, beta)
            if found is not None:
                return _einsum_call.reported(_NAME, found)
        if out is not None:
            _outputs.check_out(_NAME, out, plan.shape, plan.dtype)
        _einsum_call.check_beta(_NAME, beta, out)
        alpha = _einsum_call.check_factor(_NAME, "alpha", alpha, plan.dtype)
        beta = _einsum_call.check_factor(_NAME, "beta", beta, plan.dtype)
        _einsum_call.remember_plan(self._key, plan, arrays)
        return execute(_NAME, plan, arrays, out, "K", alpha, beta)


def contract_expression(
    subscripts: str,
    /,
    *shapes: Any,
    optimize: Any = True,
    memory_limit: float | None = None,
    constants: Sequence[int] = (),
) -> ContractExpression:
    """Plan a contraction for operands of given shapes.

    Parameters
    ----------
    subscripts : str
        As for `einsum`.
    *shapes : sequences of int
        The shape of each operand; the array itself where it is constant.
    optimize, memory_limit
        As for `einsum`.
    constants : sequence of int, default ()
        Positions of operands that stay the same and are given here, once. Whatever involves
        constants alone is contracted at the first call with certain dtypes, and kept; the arrays
        must not change afterwards.

    Returns
    -------
    ContractExpression
        A function of the operands, with the keywords `out` (of the dtype of the result), `alpha`
        and `beta` of `einsum`; constant operands are left out. Its results are always new arrays,
        never views. It plans once for each combination of dtypes.

    Raises
    ------
    ValueError, TypeError
        As for `einsum`; also, when it is called, for operands of other shapes.

    Notes
    -----
    Accuracy and complexity are those of `einsum`, whose own plans are kept too: an expression
    saves the search where ``optimize`` or ``memory_limit`` are given.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import contract_expression
    >>> chain = contract_expression("ij,jk,kl->il", (2, 3), (3, 4), (4, 5), optimize="optimal")
    >>> float(chain(np.ones((2, 3)), np.ones((3, 4)), np.ones((4, 5))).sum())
    120.0
    >>> chain = contract_expression(
    ...     "ij,jk,kl->il", (2, 3), np.ones((3, 4)), np.ones((4, 5)), constants=[1, 2]
    ... )
    >>> float(chain(np.ones((2, 3))).sum())
    120.0
    """
    if not isinstance(subscripts, str):
        raise TypeError(f"{_NAME}: `subscripts` must be a string, got {subscripts!r}")
    fixed = _constant_arrays(constants, shapes)
    try:
        sizes = tuple(
            fixed[k].shape if k in fixed else tuple(operator.index(n) for n in shape)
            for k, shape in enumerate(shapes)
        )
    except (TypeError, ValueError, OverflowError):
        raise TypeError(
            f"{_NAME}: `shapes` must be sequences of integers, got {shapes!r}"
        ) from None
    if any(n < 0 for shape in sizes for n in shape):
        raise ValueError(f"{_NAME}: `shapes` must not have negative sizes, got {shapes!r}")
    if not sizes:
        raise ValueError(f"{_NAME}: `shapes` must have at least one shape, got none")
    choice = read_choice(_NAME, optimize)
    return ContractExpression(
        subscripts, sizes, choice, _einsum_call.check_limit(_NAME, memory_limit), fixed
    )


def _constant_arrays(constants: Sequence[int], shapes: Sequence[Any]) -> dict[int, Array]:
    """Return the constant operands by position."""
    try:
        places = [operator.index(place) for place in constants]
    except TypeError:
        raise TypeError(
            f"{_NAME}: `constants` must be a sequence of integers, got {constants!r}"
        ) from None
    for place in places:
        if not 0 <= place < len(shapes):
            raise ValueError(
                f"{_NAME}: `constants` must be positions of operands, below {len(shapes)}, "
                f"got {place}"
            )
    return {place: as_operand(_NAME, place, shapes[place]) for place in places}
