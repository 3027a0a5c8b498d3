"""The dtypes of a contraction: NumPy's rules for the result, and in what each operand is read.

The result has the common dtype of all operands, and of `out` where there is one. Real operands of
a complex result stay real: their products with complex ones need no promotion.
"""

from typing import Any, NamedTuple

import numpy as np

from unitstride._arguments import dtype_label

DType = np.dtype[Any]

CASTINGS = ("no", "equiv", "safe", "same_kind", "unsafe")
_FLOAT32 = np.dtype(np.float32)
_REAL_OF: dict[DType, DType] = {
    np.dtype(np.complex64): _FLOAT32,
    np.dtype(np.complex128): np.dtype(np.float64),
}


class Dtypes(NamedTuple):
    """The dtype of the result, and those in which the operands are read."""

    result: DType
    operands: tuple[DType, ...]


def is_narrow(dtype: DType) -> bool:
    """Tell whether a dtype is float16 or bfloat16."""
    return dtype.itemsize == 2 and (dtype.kind == "f" or dtype.name == "bfloat16")


def check_casting(function: str, casting: Any) -> None:
    """Raise unless `casting` is one of NumPy's rules."""
    if not isinstance(casting, str) or casting not in CASTINGS:
        raise ValueError(
            f"{function}: `casting` must be one of {', '.join(CASTINGS)}, got {casting!r}"
        )


def _common(function: str, dtypes: tuple[DType, ...], dtype: Any, out: DType | None) -> DType:
    """Return the dtype to compute in: the one asked for, or the common one."""
    if dtype is not None:
        try:
            common = np.dtype(dtype)
        except (TypeError, ValueError):
            raise TypeError(f"{function}: `dtype` must be a dtype, got {dtype!r}") from None
    else:
        try:
            common = np.result_type(*dtypes, *(() if out is None else (out,)))
        except TypeError:
            names = ", ".join(map(dtype_label, dtypes))
            raise TypeError(
                f"{function}: operands must have dtypes with a common one, got {names}"
            ) from None
    if common.kind not in "?biufcO" and common.name != "bfloat16":
        raise TypeError(
            f"{function}: operands must be numbers or booleans, got {dtype_label(common)}"
        )
    native: DType = common.newbyteorder("=")
    return native


def _check_cast(function: str, what: str, source: DType, target: DType, casting: str) -> None:
    if not np.can_cast(source, target, casting):  # type: ignore[arg-type]
        raise TypeError(
            f"{function}: {what} must be castable by casting={casting!r}, "
            f"got {dtype_label(source)} for {dtype_label(target)}"
        )


def resolve(
    function: str,
    dtypes: tuple[DType, ...],
    dtype: Any = None,
    casting: str = "safe",
    out: DType | None = None,
) -> Dtypes:
    """Return the dtypes to compute in, or raise the TypeError of a cast that is not allowed."""
    check_casting(function, casting)
    common = _common(function, dtypes, dtype, out)
    for position, own in enumerate(dtypes):
        _check_cast(function, f"operand {position}", own, common, casting)
    if out is not None:
        _check_cast(function, "the result in `out`", common, out, casting)
    real = _REAL_OF.get(common, common)
    return Dtypes(common, tuple(common if own.kind == "c" else real for own in dtypes))


def step_dtype(first: DType, second: DType | None) -> DType:
    """Return the dtype of a product: the complex one of the two."""
    return first if second is None or first.kind == "c" else second
