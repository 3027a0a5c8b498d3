"""Contraction: einsum, its paths, plans and gradient."""

from typing import Any

from numpy.typing import DTypeLike, NDArray

from unitstride import _einsum_call

Array = NDArray[Any]


def einsum(
    subscripts: Any,
    /,
    *operands: Any,
    out: Array | None = None,
    dtype: DTypeLike | None = None,
    order: str | None = "K",
    casting: str = "safe",
    optimize: Any = True,
    alpha: complex = 1,
    beta: complex = 0,
    memory_limit: float | None = None,
) -> Any:
    """Einsum."""
    return _einsum_call.einsum(
        "einsum",
        subscripts,
        operands,
        out,
        dtype,
        order,
        casting,
        optimize,
        alpha,
        beta,
        memory_limit,
    )
