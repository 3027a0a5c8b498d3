"""Contractions of given shapes, planned once."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unitstride import _einsum_call, _einsum_dtypes, _einsum_plan, _outputs
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
        The shapes of the operands.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import contract_expression
    >>> product = contract_expression("ij,jk->ik", (2, 3), (3, 4))
    >>> product(np.ones((2, 3)), np.ones((3, 4))).shape
    (2, 4)
    """

    def __init__(
        self, subscripts: str, shapes: tuple[Shape, ...], choice: Choice, limit: float
    ) -> None:
        self.subscripts = subscripts
        self.shapes = shapes
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

    def __call__(
        self,
        *operands: ArrayLike,
        out: Array | None = None,
        alpha: complex = 1,
        beta: complex = 0,
    ) -> Any:
        """Contract operands of the given shapes; `out`, `alpha` and `beta` as for `einsum`."""
        found = _einsum_call.run_again(self._key, operands, out, alpha, beta)
        if found is not None:
            return _einsum_call.reported(_NAME, found)
        if len(operands) != len(self.shapes):
            raise ValueError(
                f"{_NAME}: the expression must get {len(self.shapes)} operands, got {len(operands)}"
            )
        arrays = [as_operand(_NAME, k, value) for k, value in enumerate(operands)]
        for position, (array, shape) in enumerate(zip(arrays, self.shapes, strict=True)):
            if array.shape != shape:
                raise ValueError(
                    f"{_NAME}: operand {position} must have shape {shape}, got {array.shape}"
                )
        plan = self._plan(tuple(array.dtype for array in arrays))
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
    *shapes: Sequence[int],
    optimize: Any = True,
    memory_limit: float | None = None,
) -> ContractExpression:
    """Plan a contraction for operands of given shapes.

    Parameters
    ----------
    subscripts : str
        As for `einsum`.
    *shapes : sequences of int
        The shape of each operand.
    optimize, memory_limit
        As for `einsum`.

    Returns
    -------
    ContractExpression
        A function of the operands, with the keywords `out` (of the dtype of the result), `alpha`
        and `beta` of `einsum`. Its results are always new arrays, never views. It plans once
        for each combination of dtypes.

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
    """
    if not isinstance(subscripts, str):
        raise TypeError(f"{_NAME}: `subscripts` must be a string, got {subscripts!r}")
    try:
        sizes = tuple(tuple(int(n) for n in shape) for shape in shapes)
    except TypeError:
        raise TypeError(
            f"{_NAME}: `shapes` must be sequences of integers, got {shapes!r}"
        ) from None
    if any(n < 0 for shape in sizes for n in shape):
        raise ValueError(f"{_NAME}: `shapes` must not have negative sizes, got {shapes!r}")
    if not sizes:
        raise ValueError(f"{_NAME}: `shapes` must have at least one shape, got none")
    choice = read_choice(_NAME, optimize)
    return ContractExpression(
        subscripts, sizes, choice, _einsum_call.check_limit(_NAME, memory_limit)
    )
