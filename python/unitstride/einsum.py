"""Contraction of arrays by Einstein's summation convention: einsum, its paths and its gradient."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from unitstride import _einsum_call, _einsum_plan
from unitstride._einsum_expression import ContractExpression, contract_expression
from unitstride._einsum_paths import choose_order, read_choice, tree_within
from unitstride._einsum_report import report
from unitstride._einsum_steps import network_of
from unitstride._einsum_vjp import einsum_vjp

__all__ = ["ContractExpression", "contract_expression", "einsum", "einsum_path", "einsum_vjp"]

Array = NDArray[Any]

# Defaults, one object each: `order is _KEEP` costs less than a comparison.
_KEEP, _SAFE = "K", "safe"
_run_again = _einsum_call.run_again


def einsum(
    subscripts: Any = None,
    /,
    *operands: Any,
    out: Array | None = None,
    dtype: DTypeLike | None = None,
    order: str | None = _KEEP,
    casting: str = _SAFE,
    optimize: Any = True,
    alpha: complex = 1,
    beta: complex = 0,
    memory_limit: float | None = None,
) -> Any:
    """Multiply arrays and sum over labels of their axes, as `numpy.einsum` does.

    Parameters
    ----------
    subscripts : str
        A label for each axis of each operand, as in ``"ij,jk->ik"``. Without ``->`` the result
        has the labels that occur once, sorted. ``...`` stands for the axes without a label,
        which are broadcast. Letters of any alphabet are labels. In the other form of the call
        each operand is followed by the list of its labels, any integers or Ellipsis, and the
        list of the result may come last: ``einsum(a, [0, 1], b, [1, 2], [0, 2])``.
    *operands : array_like
        Any number of arrays of any memory layout. An axis of length one is broadcast against
        longer ones of the same label. A label that an operand has twice takes its diagonal.
    out : ndarray, optional
        Array for the result, of exactly its shape. It may share memory with operands.
    dtype : dtype, optional
        The dtype to compute in; the common dtype of the operands and `out` by default.
    order : {"C", "F", "A", "K"}, default "K"
        Memory order of a new result. "K" follows that of the operands, as NumPy does without
        `optimize`: axes along which they take small steps come last in memory.
    casting : {"no", "equiv", "safe", "same_kind", "unsafe"}, default "safe"
        Which casts to `dtype`, and from there to `out`, are allowed.
    optimize : bool, str, path, default True
        How the order of contraction is found. True and "auto" search by the time that steps take,
        exactly for few operands; "optimal" searches exactly, "greedy" quickly; False keeps the
        order given. A pair like ``("greedy", 1000)`` adds the most elements of an intermediate. A
        path of `einsum_path`, `numpy.einsum_path` or opt_einsum, an optimiser of opt_einsum, and a
        tree of cotengra are taken as they are.
    alpha, beta : number, default 1 and 0
        The result is ``alpha * sum + beta * out``; `out` is not read when `beta` is 0.
    memory_limit : float, optional
        The most bytes for intermediates. Where they would take more, labels are summed, or
        results computed, one value at a time.

    Returns
    -------
    ndarray or scalar
        The contraction. One operand of which nothing is summed gives a view, writeable if the
        operand is (not with `out`, another `dtype` or `alpha`). A result without axes is a
        scalar. `out` itself when it is given.

    Raises
    ------
    ValueError
        For subscripts that cannot be read or do not fit the operands, sizes that differ, an
        `out` of another shape, read-only or overlapping itself, a path that does not fit, and
        a result larger than any array.
    RuntimeError
        For a path that leaves more than one operand.
    TypeError
        For dtypes that are not numbers, casts that are not allowed, lists of labels that are
        not integers, masked arrays, and complex factors of real results.

    Notes
    -----
    The dtype of the result is NumPy's. float32, float64, complex64 and complex128 are computed
    natively, and real operands of a complex result stay real. float16 and bfloat16 (ml_dtypes) are
    summed in float32 and rounded once. Integers wrap around and booleans are or-ed as in NumPy;
    they, longdouble and object run on NumPy.

    Accuracy: on ordinary data each element is within 16 units of roundoff of the sum of the
    magnitudes of its terms. The order of summation depends on shapes, strides and dtypes alone:
    the same call gives the same bits at any number of threads.

    Complexity: for two operands the product of all sizes; for more, that of the path. The plan
    of a call is kept, so that the next one with the same shapes costs no parsing.

    Axes of operands are read with their strides; no operand is copied as a whole, unless its
    dtype has to change.

    References
    ----------
    .. [1] D. A. Matthews, "High-performance tensor contraction without transposition", SIAM J.
       Sci. Comput. 40(1), 2018, doi:10.1137/16M108968X.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import einsum
    >>> a, b = np.arange(6.0).reshape(2, 3), np.arange(12.0).reshape(3, 4)
    >>> einsum("ij,jk->ik", a, b)
    array([[20., 23., 26., 29.],
           [56., 68., 80., 92.]])
    >>> einsum(a, [0, 1], b, [1, 2], [2, 0]).shape
    (4, 2)
    >>> square = np.zeros((3, 3))
    >>> einsum("ii->i", square)[:] = 1  # a view
    >>> float(einsum("ii", square))
    3.0
    """
    direct_key = None
    if (
        optimize is True
        and dtype is None
        and memory_limit is None
        and order is _KEEP
        and casting is _SAFE
        and type(subscripts) is str
    ):
        found = _run_again(subscripts, operands, out, alpha, beta)
        if found is not None:
            return _einsum_call.reported("einsum", found) if type(found) is tuple else found
        direct_key = subscripts
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
        direct_key,
    )


def einsum_path(
    subscripts: Any = None,
    /,
    *operands: ArrayLike,
    optimize: Any = True,
    memory_limit: Any = None,
) -> tuple[list[Any], str]:
    """Find the order of contraction that `einsum` uses.

    Parameters
    ----------
    subscripts, *operands
        As for `einsum`; of the operands only shapes and dtypes matter.
    optimize : bool, str, path, default True
        As for `einsum`.
    memory_limit : float, optional
        As for `einsum`; paths whose largest intermediate is below it are preferred.

    Returns
    -------
    path : list
        "einsum_path", followed by a tuple of positions for each step: its operands are taken
        from the list of what is left, and the result is appended.
    report : str
        A table of the costs and the steps, in NumPy's form.

    Raises
    ------
    ValueError, TypeError
        As for `einsum`.

    Notes
    -----
    A step costs the larger of its arithmetic and its memory traffic, in time. Up to eight
    operands the search is exact (dynamic programming over sets of operands, O(3**n)), beyond
    it is greedy with several weights, O(n**2 log n) each, and parts of the best tree are then
    improved exactly where that pays. Of orders that take the same time within 2 %, NumPy's
    is chosen, of up to eight operands.

    References
    ----------
    .. [1] R. N. C. Pfeifer, J. Haegeman, F. Verstraete, "Faster identification of optimal
       contraction sequences for tensor networks", Phys. Rev. E 90, 033315 (2014).

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import einsum_path
    >>> a, b, c = np.ones((2, 30)), np.ones((30, 30)), np.ones((30, 2))
    >>> path, report = einsum_path("ij,jk,kl->il", a, b, c)
    >>> path
    ['einsum_path', (0, 1), (0, 1)]
    >>> print(report.splitlines()[0])
      Complete contraction:  ij,jk,kl->il
    """
    name = "einsum_path"
    arrays, parsed, _ = _einsum_call.split_arguments(name, subscripts, operands)
    limit = _einsum_call.check_limit(name, memory_limit)
    choice = read_choice(name, optimize)
    found = parsed()
    sizes = _einsum_plan.label_sizes(name, found, tuple(array.shape for array in arrays))
    count = len(arrays)
    path: list[tuple[int, ...]] = [tuple(range(count))]
    if choice.path is not None and count > 0:
        path = list(choice.path)
    if count > 1 and choice.method != "given":
        dtype = np.result_type(*arrays)
        terms = [
            tuple(x for x, n in zip(term, array.shape, strict=True) if n == sizes[x])
            for term, array in zip(found.terms, arrays, strict=True)
        ]
        network = network_of(sizes, terms, found.output, dtype)
        _, order = choose_order(name, choice, network, sizes, limit / max(dtype.itemsize, 1))
        fits = choice.largest is None or tree_within(choice, network) is not None
        if choice.path is None and fits:  # otherwise one step of all operands, as in NumPy
            path = list(order)
    return ["einsum_path", *path], report(found, sizes, path)
