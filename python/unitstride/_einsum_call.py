"""The general way of a contraction: every argument checked, plans found or taken from the cache."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unitstride import _einsum_dtypes, _einsum_plan, _outputs
from unitstride._backend import core
from unitstride._einsum_parse import Subscripts, parse_lists, parse_text, split_interleaved
from unitstride._einsum_paths import Choice, read_choice
from unitstride._einsum_plan import Plan
from unitstride._einsum_run import as_operand, execute, view_of
from unitstride._float_status import report_float_status

Array = NDArray[Any]
DType = np.dtype[Any]

_MOST_PLANS = 2048  # plans are small; a program that makes more than this starts afresh
_plans: dict[Any, Plan] = {}
_DIRECT = frozenset(map(np.dtype, ("float32", "float64", "complex64", "complex128")))


def remember(cache: dict[Any, Any], key: Any, value: Any) -> None:
    """Put an entry into a cache, which is emptied when it is full."""
    if len(cache) >= _MOST_PLANS:
        cache.clear()
    cache[key] = value


def split_arguments(
    function: str, subscripts: Any, operands: Sequence[Any]
) -> tuple[list[Array], Callable[[], Subscripts], Any]:
    """Return the operands as arrays, a function that reads the subscripts, and their key."""
    if isinstance(subscripts, bytes):
        subscripts = subscripts.decode("ascii", "replace")
    if isinstance(subscripts, str):
        text = str(subscripts)
        arrays = [as_operand(function, k, value) for k, value in enumerate(operands)]
        if not arrays:
            raise ValueError(f"{function}: `operands` must have at least one array, got none")
        return arrays, lambda: parse_text(function, text, _dimensions(arrays)), text
    values, lists, output = split_interleaved(function, (subscripts, *operands))
    arrays = [as_operand(function, k, value) for k, value in enumerate(values)]
    parsed = parse_lists(function, lists, output, _dimensions(arrays))
    return arrays, lambda: parsed, (parsed.terms, parsed.output)


def _dimensions(arrays: Sequence[Array]) -> tuple[int, ...]:
    return tuple(array.ndim for array in arrays)


def check_order(function: str, order: Any) -> str:
    """Return the memory order of the result: "C", "F", "A" or "K"."""
    if order is None:
        return "K"
    if not isinstance(order, str) or order not in ("C", "F", "A", "K", "c", "f", "a", "k"):
        raise ValueError(f"{function}: `order` must be 'C', 'F', 'A' or 'K', got {order!r}")
    return order.upper()


def check_limit(function: str, memory_limit: Any) -> float:
    """Return the limit in bytes; infinity for None."""
    if memory_limit is None:
        return math.inf
    if isinstance(memory_limit, bool) or not isinstance(memory_limit, (int, float, np.number)):
        raise TypeError(
            f"{function}: `memory_limit` must be a number of bytes or None, got {memory_limit!r}"
        )
    if not memory_limit > 0:
        raise ValueError(f"{function}: `memory_limit` must be positive, got {memory_limit}")
    return float(memory_limit)


def check_factor(function: str, argument: str, value: Any, dtype: DType) -> Any:
    """Return `alpha` or `beta` as a Python number that a result of `dtype` can take."""
    kind = dtype.kind
    if type(value) is float and kind in "fc":
        return value
    if type(value) is int and value in (0, 1):
        return float(value) if kind in "fcV" else value
    try:
        # NumPy makes objects of integers that it has no dtype for.
        factor = np.asarray(float(value) if type(value) is int and kind in "fcV" else value)
        plain = factor.item() if factor.ndim == 0 and factor.dtype.kind in "biufc" else None
    except (TypeError, ValueError, OverflowError):
        plain = None
    if plain is None:
        raise TypeError(f"{function}: `{argument}` must be a number, got {value!r}")
    kinds = {"f": "real", "V": "real", "i": "integer", "u": "integer", "b": "integer"}
    allowed = {"f": "biuf", "V": "biuf", "i": "biu", "u": "biu", "b": "biu"}
    if kind in allowed and factor.dtype.kind not in allowed[kind]:
        raise TypeError(
            f"{function}: `{argument}` must be {kinds[kind]} for a result of "
            f"{dtype.name}, got {value!r}"
        )
    if kind in "iu" and not np.iinfo(dtype).min <= plain <= np.iinfo(dtype).max:
        raise ValueError(
            f"{function}: `{argument}` must be in the range of {dtype.name}, got {value!r}"
        )
    return plain if kind in "iubO" or isinstance(plain, complex) else float(plain)


def check_beta(function: str, beta: Any, out: Array | None) -> None:
    """Raise where `beta` asks for an `out` that is not there."""
    if out is not None or (type(beta) is int and beta == 0):
        return
    if check_factor(function, "beta", beta, np.dtype(np.complex128)) != 0:
        raise ValueError(f"{function}: `beta` must be 0 without `out`, got {beta!r}")


def plan_for(
    function: str,
    arrays: Sequence[Array],
    subscripts: Callable[[], Subscripts],
    key: Any,
    dtype: Any = None,
    casting: str = "safe",
    optimize: Any = True,
    memory_limit: Any = None,
    out_dtype: DType | None = None,
) -> Plan:
    """Return the plan of a call, from the cache where there is one."""
    shapes = tuple([array.shape for array in arrays])
    dtypes = tuple([array.dtype for array in arrays])
    full_key = None
    if optimize is True and memory_limit is None:
        full_key = (key, shapes, dtypes, dtype, casting, out_dtype)
        try:
            found = _plans.get(full_key)
        except TypeError:  # a `dtype` that is not hashable
            full_key = found = None
        if found is not None:
            return found
    limit = check_limit(function, memory_limit)
    parsed = subscripts()
    choice: Choice = read_choice(function, optimize)
    resolved = _einsum_dtypes.resolve(function, dtypes, dtype, casting, out_dtype)
    plan = _einsum_plan.build(function, parsed, shapes, resolved, choice, limit)
    if full_key is not None:
        remember(_plans, full_key, plan)
    return plan


def _unknown(*arguments: Any) -> None:
    """Stand in for the core's memory where there is no core."""


# Runs again what `remember_plan` told: (key, operands, out, alpha, beta) -> the result,
# (result, status), or None for any other call.
run_again: Callable[..., Any] = _unknown if core is None else core.contract_fast


def reported(function: str, found: Any) -> Any:
    """Return the result of `run_again`, with its floating-point status reported."""
    if type(found) is tuple:
        found, status = found
        report_float_status(function, status)
    return found


def remember_plan(key: str, plan: Plan, arrays: list[Array]) -> None:
    """Tell the core of a plan that reads the operands as they are."""
    if core is None or not plan.steps or plan.slices or plan.steps[-1].dtype != plan.dtype:
        return
    dtypes = {*plan.operand_dtypes, *(step.dtype for step in plan.steps)}
    follows = plan.follows if plan.loop is None else None
    in_order = follows is None or follows[1] == tuple((k,) for k in range(len(plan.shape)))
    if (
        not dtypes <= _DIRECT
        or not in_order
        or plan.operand_dtypes != tuple([array.dtype for array in arrays])
    ):
        return
    axes = [
        [k for k in range(array.ndim) if selection is None or selection[k] != 0]
        for array, selection in zip(arrays, plan.selections, strict=True)
    ]
    steps = [
        (
            s.first,
            s.first_labels,
            -1 if s.second is None else s.second,
            s.second_labels,
            s.labels,
            s.shape,
            s.dtype,
        )
        for s in plan.steps
    ]
    like = -1 if follows is None else follows[0]
    core.contract_remember(key, tuple(arrays), axes, like, steps, (), plan.loop or ())


def _remember_view(key: str, array: Array, order: tuple[int, ...]) -> None:
    if core is not None:
        core.contract_remember(key, (array,), [range(array.ndim)], -1, [], order, ())


def contract(
    function: str,
    arrays: list[Array],
    subscripts: Callable[[], Subscripts],
    key: Any,
    out: Array | None = None,
    dtype: Any = None,
    order: Any = "K",
    casting: str = "safe",
    optimize: Any = True,
    alpha: Any = 1,
    beta: Any = 0,
    memory_limit: Any = None,
    direct_key: str | None = None,
) -> Any:
    """Contract arrays by subscripts that are read only where there is no plan yet."""
    order = check_order(function, order)
    check_beta(function, beta, out)
    out_dtype = out.dtype if isinstance(out, np.ndarray) else None
    plan = plan_for(
        function, arrays, subscripts, key, dtype, casting, optimize, memory_limit, out_dtype
    )
    if out is not None:
        _outputs.check_out(function, out, plan.shape)
    alpha = check_factor(function, "alpha", alpha, plan.dtype)
    beta = check_factor(function, "beta", beta, plan.dtype)
    if direct_key is not None:
        remember_plan(direct_key, plan, arrays)
    return execute(function, plan, arrays, out, order, alpha, beta)


def einsum(
    function: str,
    subscripts: Any,
    operands: Sequence[ArrayLike],
    out: Array | None = None,
    dtype: Any = None,
    order: Any = "K",
    casting: str = "safe",
    optimize: Any = True,
    alpha: Any = 1,
    beta: Any = 0,
    memory_limit: Any = None,
    direct_key: str | None = None,
) -> Any:
    """Run einsum on any arguments."""
    arrays, parsed, key = split_arguments(function, subscripts, operands)
    if len(arrays) == 1 and out is None and type(alpha) is int and alpha == 1:
        check_order(function, order)
        view = _as_view(function, arrays[0], parsed(), dtype, casting)
        if view is not None:
            if direct_key is not None and 0 < view.ndim == arrays[0].ndim:
                (term,), output = parsed().terms, parsed().output
                _remember_view(direct_key, arrays[0], tuple(map(term.index, output)))
            return view if view.ndim else view[()]
    return contract(
        function,
        arrays,
        parsed,
        key,
        out,
        dtype,
        order,
        casting,
        optimize,
        alpha,
        beta,
        memory_limit,
        direct_key,
    )


def _as_view(
    function: str, array: Array, subscripts: Subscripts, dtype: Any, casting: str
) -> Array | None:
    """Return the view that is the answer for one operand; None where something is summed."""
    _einsum_dtypes.check_casting(function, casting)
    if set(subscripts.terms[0]) != set(subscripts.output):
        return None
    if dtype is not None:
        resolved = _einsum_dtypes.resolve(function, (array.dtype,), dtype, casting)
        if resolved.result != array.dtype:
            return None
    _einsum_plan.label_sizes(function, subscripts, (array.shape,))
    return view_of(subscripts, array)
