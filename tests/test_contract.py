"""The contraction of the core, against NumPy in wider arithmetic, without the Python layer."""

import itertools
from typing import Any

import numpy as np
import pytest
from checks import core, needs_core

import unitstride

pytestmark = needs_core

REAL = {"float32": np.float32, "float64": np.float64}
COMPLEX = {"complex64": np.complex64, "complex128": np.complex128}
HALF = ("float16", "bfloat16")
UNIT = {"float32": 2.0**-24, "float64": 2.0**-53, "float16": 2.0**-11, "bfloat16": 2.0**-8}
REAL_PART = {"complex64": "float32", "complex128": "float64"}


def widened_bfloat16(bits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def rounded_bfloat16(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def make(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray[Any, Any]:
    values = np.asarray(rng.standard_normal(shape))
    if dtype in COMPLEX:
        return np.asarray(values + 1j * rng.standard_normal(shape)).astype(dtype)
    if dtype == "bfloat16":
        return rounded_bfloat16(values)
    return values.astype(dtype)


def wide(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if array.dtype == np.uint16:
        array = widened_bfloat16(array)
    return array.astype(np.clongdouble if array.dtype.kind == "c" else np.longdouble)


def unit_of(dtype: str) -> float:
    return UNIT[REAL_PART.get(dtype, dtype)]


def letters(labels: tuple[int, ...]) -> str:
    return "".join(chr(ord("a") + label) for label in labels)


def check(
    a: np.ndarray[Any, Any],
    a_labels: tuple[int, ...],
    b: np.ndarray[Any, Any] | None,
    b_labels: tuple[int, ...],
    out: np.ndarray[Any, Any],
    out_labels: tuple[int, ...],
    alpha: complex = 1.0,
    beta: complex = 0.0,
) -> None:
    """Compare a call with the definition: |error| <= 16 u (|alpha| |A||B| + |beta| |out|)."""
    operands = [wide(a)] if b is None else [wide(a), wide(b)]
    labels = [a_labels] if b is None else [a_labels, b_labels]
    subscripts = ",".join(map(letters, labels)) + "->" + letters(out_labels)
    old = wide(out)
    expected = alpha * np.einsum(subscripts, *operands)
    bound = abs(alpha) * np.einsum(subscripts, *map(abs, operands))
    if beta != 0:
        expected = expected + beta * old
        bound = bound + abs(beta) * abs(old)
    dtype = "bfloat16" if out.dtype == np.uint16 else out.dtype.name
    status = core.contract(a, a_labels, b, b_labels, out, out_labels, alpha, beta)
    assert status == 0
    # A sum in float that is rounded to 16 bits at the end has half a unit of the result as error.
    unit = unit_of(dtype)
    factor = (16 if dtype not in HALF else 1) * (2 if dtype in COMPLEX else 1)
    # Results that are subnormal in float16 have half of its least number as error.
    least = 2.0**-25 if dtype == "float16" else 1e-300
    error = np.abs(wide(out) - expected)
    assert np.all(error <= factor * unit * bound.real * (1 + 2.0**-8) + least), (
        subscripts,
        a.shape,
        None if b is None else b.shape,
        float(np.max(error)),
    )


def restride(
    rng: np.random.Generator, array: np.ndarray[Any, Any], output: bool
) -> np.ndarray[Any, Any]:
    """Return the same values in another layout."""
    order = rng.permutation(array.ndim)
    steps = [int(rng.choice([1, 1, 1, 2, 3, -1, -2])) for _ in range(array.ndim)]
    shape = [array.shape[axis] * abs(steps[axis]) + 1 for axis in order]
    base = np.zeros(shape, array.dtype).transpose(np.argsort(order))
    index = tuple(
        slice(0, n * step, step) if step > 0 else slice(n * -step, 0, step)
        for n, step in zip(array.shape, steps, strict=True)
    )
    view = base[(*index, ...)]
    view[...] = array
    if output or rng.random() < 0.8 or array.ndim == 0:
        return view
    axis = int(rng.integers(array.ndim))
    zero = np.take(view, [0] if array.shape[axis] else [], axis=axis)
    return np.broadcast_to(zero, view.shape) if zero.size else view


def random_case(seed: int, dtype: str) -> None:
    rng = np.random.default_rng([seed, len(dtype), ord(dtype[-1])])
    count = int(rng.integers(1, 7))
    sizes = [int(rng.choice([1, 2, 3, 5, 8, 14, 17, 33])) for _ in range(count)]
    if rng.random() < 0.05:
        sizes[int(rng.integers(count))] = 0
    unary = rng.random() < 0.25
    place = {0: (0,), 1: (1,), 2: (0, 1)}
    where = [(0,) if unary else place[int(rng.integers(3))] for _ in range(count)]
    labels: list[list[int]] = [[], []]
    for label, operands in enumerate(where):
        for operand in operands:
            labels[operand].append(label)
            if rng.random() < 0.1:
                labels[operand].append(label)
    for own in labels:
        rng.shuffle(own)
        while np.prod([sizes[label] for label in own], dtype=float) > 2e5:
            largest = max(own, key=lambda label: sizes[label])
            sizes[largest] = max(sizes[largest] // 3, 1)
    out_labels = [label for label in range(count) if rng.random() < 0.6]
    rng.shuffle(out_labels)
    while np.prod([sizes[label] for label in range(count)], dtype=float) > 3e6:
        sizes[int(rng.integers(count))] = 2
    a, b = (
        restride(rng, make(rng, tuple(sizes[label] for label in own), kind), False)
        for own, kind in zip(labels, kinds(rng, dtype, unary), strict=True)
    )
    out = restride(rng, make(rng, tuple(sizes[label] for label in out_labels), dtype), True)
    alpha, beta = [(1.0, 0.0), (1.0, 1.0), (-0.5, 2.0), (3, 0)][int(rng.integers(4))]
    if dtype in COMPLEX and rng.random() < 0.3:
        alpha, beta = alpha + 0.5j, beta * (1 - 2j)
    if beta == 0 and dtype != "bfloat16":
        out[...] = np.nan
    check(
        a,
        tuple(labels[0]),
        None if unary else b,
        () if unary else tuple(labels[1]),
        out,
        tuple(out_labels),
        alpha,
        beta,
    )


def kinds(rng: np.random.Generator, dtype: str, unary: bool) -> tuple[str, str]:
    if dtype in COMPLEX and not unary:
        real = REAL_PART[dtype]
        return [(dtype, dtype), (real, dtype), (dtype, real)][int(rng.integers(3))]
    return dtype, dtype


@pytest.mark.parametrize("dtype", [*REAL, *COMPLEX, *HALF])
@pytest.mark.parametrize("block", range(10))
def test_random_contractions(isa: str, dtype: str, block: int) -> None:
    for seed in range(30):
        random_case(1000 * block + seed, dtype)


# What memory limits: products of elements, sums of them, and transposition.
STREAMS = (
    *("ij,ij->", "ij,j->i", "ij,i->j", "i,j->ij", "ij,ij->ij", "ij->ji", "ij,ji->ij", "ij,ji->"),
    *("ijk->kji", "ijk->jik", "ij->i", "ij->j", "ij->", "ijk,ikj->ij", "ijk,kj->j", "ijk,ji->k"),
    *("ijk,jki->ik", "ijk,ikj->k", "ijkl,lkji->", "ijkl,jl->ik", "ij,j->ij", "ij,i->ji"),
    *("ijk,i->jk", "ij,ij->ji", "ijk->j", "ijk->ik", "ii->i", "iij->ji", "iij,j->i"),
)
LENGTHS = (1, 2, 3, 5, 8, 17, 40, 67, 130, 300)


@pytest.mark.parametrize("dtype", [*REAL, *COMPLEX, *HALF])
@pytest.mark.parametrize("subscripts", STREAMS)
def test_what_memory_limits(isa: str, dtype: str, subscripts: str) -> None:
    rng = np.random.default_rng([len(dtype), *map(ord, subscripts)])
    inputs, output = subscripts.split("->")
    terms = inputs.split(",")
    names = sorted(set(inputs) - {","})
    for _ in range(3):
        most = 10 if len(names) < 3 else 7 if len(names) < 4 else 5
        sizes = {name: LENGTHS[int(rng.integers(most))] for name in names}
        arrays = [
            restride(rng, make(rng, tuple(sizes[x] for x in term), kind), False)
            for term, kind in zip(terms, kinds(rng, dtype, len(terms) == 1), strict=False)
        ]
        out = restride(rng, make(rng, tuple(sizes[x] for x in output), dtype), True)
        alpha, beta = [(1.0, 0.0), (1.0, 1.0), (-0.5, 0.5)][int(rng.integers(3))]
        if dtype in COMPLEX and rng.random() < 0.3:
            alpha, beta = alpha + 0.5j, beta * (1 - 2j)
        labels = [tuple(map(names.index, term)) for term in (*terms, output)]
        second = arrays[1] if len(arrays) > 1 else None
        check(arrays[0], labels[0], second, labels[-2], out, labels[-1], alpha, beta)


@pytest.mark.parametrize("dtype", [*REAL, "complex64", *HALF])
@pytest.mark.parametrize("subscripts", ["aebd,ce->dcba", "aeb,ce->cba", "ebad,ec->abcd"])
def test_few_rows_and_two_orders(isa: str, dtype: str, subscripts: str) -> None:
    rng = np.random.default_rng(10)
    sizes = dict(zip("abcde", (150, 27, 5, 13, 23), strict=True))
    first, second, output = subscripts.replace("->", ",").split(",")
    arrays = [make(rng, tuple(sizes[x] for x in term), dtype) for term in (first, second)]
    labels = [tuple(map("abcde".index, term)) for term in (first, second, output)]
    shape = tuple(sizes[x] for x in output)
    results = []
    for threads in (1, 2):
        out = make(np.random.default_rng(11), shape, dtype)
        with unitstride.threads(threads):
            check(arrays[0], labels[0], arrays[1], labels[1], out, labels[2], 0.5, 1.0)
        results.append(out.tobytes())
    assert results[0] == results[1]


@pytest.mark.parametrize("dtype", [*REAL, *COMPLEX])
def test_infinities_in_sums_raise_no_flags(isa: str, dtype: str) -> None:
    for shape in ((300, 700), (3, 70_000), (70_000, 3)):
        x = np.ones(shape, dtype)
        x[2, 1] = np.inf
        for array in (x, x.T, x[:, ::-1]):
            for labels in ((), (0,), (1,)):
                out = np.zeros([array.shape[axis] for axis in labels], dtype)
                assert core.contract(array, (0, 1), None, (), out, labels, 1.0, 0.0) == 0
                assert np.isinf(out.real).sum() == 1


@pytest.mark.parametrize("dtype", [*REAL, *COMPLEX])
def test_large_tiles_and_threads(isa: str, dtype: str) -> None:
    rng = np.random.default_rng(9)
    x, y = make(rng, (300, 420), dtype), make(rng, (420, 300), dtype)
    for labels, shape in (((0, 1), (300, 420)), ((), ()), ((1,), (420,)), ((0,), (300,))):
        results = []
        for threads in (1, 2, 3):
            out = make(rng, (np.prod(shape, dtype=int) + 1,), dtype)[1:].reshape(shape)
            with unitstride.threads(threads):
                check(x, (0, 1), y, (1, 0), out, labels)
            results.append(out.tobytes())
        assert len(set(results)) == 1


EDGES = (1, 2, 5, 6, 7, 13, 14, 15, 16, 17, 28, 31, 32, 33, 55, 57, 65)
DEPTHS = (1, 2, 15, 16, 17, 127, 128, 129, 257, 321, 700)


@pytest.mark.parametrize("dtype", [*REAL, *COMPLEX, *HALF])
@pytest.mark.parametrize("layout", ["nn", "nt", "tn", "tt"])
def test_sizes_around_blocks(isa: str, dtype: str, layout: str) -> None:
    rng = np.random.default_rng(7)
    for index, (m, n) in enumerate(itertools.product(EDGES, EDGES)):
        k = DEPTHS[index % len(DEPTHS)]
        a = make(rng, (m, k), dtype) if layout[0] == "n" else make(rng, (k, m), dtype).T
        b = make(rng, (k, n), dtype) if layout[1] == "n" else make(rng, (n, k), dtype).T
        out = make(rng, (m, n) if index % 2 else (n, m), dtype)
        out = out if index % 2 else out.T
        check(a, (0, 1), b, (1, 2), out, (0, 2), 1.0, float(index % 3 == 0))


# The innermost axis of the result is cut where it is longer than 64; 97 cannot be.
@pytest.mark.parametrize("dtype", [*REAL, *COMPLEX])
@pytest.mark.parametrize("inner", [20, 64, 97, 120])
def test_input_and_result_contiguous_along_different_axes(isa: str, dtype: str, inner: int) -> None:
    rng = np.random.default_rng(9)
    a, b, c, d, e = range(5)
    large, small = make(rng, (inner, 3, 5, 18), dtype), make(rng, (7, 3), dtype)
    shape = {a: inner, b: 5, c: 7, d: 18}
    for labels in ((d, c, b, a), (c, d, b, a), (b, d, c, a), (d, b, a, c)):
        out = make(rng, tuple(shape[label] for label in labels), dtype)
        check(large, (a, e, b, d), small, (c, e), out, labels, 1.0, 1.0)
        check(small, (c, e), large, (a, e, b, d), out, labels, -0.5, 1.0)


@pytest.mark.parametrize("dtype", [*REAL, *COMPLEX, *HALF])
def test_several_blocks_and_threads(isa: str, dtype: str) -> None:
    rng = np.random.default_rng(8)
    a, b = make(rng, (150, 700), dtype), make(rng, (700, 1100), dtype)
    results = []
    for threads in (1, 2, 3):
        out = make(rng, (150, 1100), dtype)
        with unitstride.threads(threads):
            check(a, (0, 1), b, (1, 2), out, (0, 2))
        results.append(out.tobytes())
    assert len(set(results)) == 1


@pytest.mark.parametrize("dtype", [*REAL, *COMPLEX])
@pytest.mark.parametrize("n", [3, 20, 47, 200])
def test_infinities_stay_where_they_belong(isa: str, dtype: str, n: int) -> None:
    a, b = np.ones((n, n), dtype), np.ones((n, n), REAL_PART.get(dtype, dtype))
    a[1, 2] = np.inf
    out = np.zeros((n, n), dtype)
    assert core.contract(a, (0, 1), b, (1, 2), out, (0, 2), 1.0, 0.0) == 0
    assert np.all(np.isinf(out[1].real))
    assert np.all(np.delete(out, 1, axis=0) == n)
    b[2, 0] = 0
    assert core.contract(a, (0, 1), b, (1, 2), out, (0, 2), 1.0, 0.0) & 8
    assert np.isnan(out[1, 0].real)
    a[1, 2] = np.nan
    assert core.contract(a, (0, 1), b, (1, 2), out, (0, 2), 1.0, 0.0) == 0


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_overflow_is_reported(isa: str, dtype: str) -> None:
    big = np.full((4, 4), np.finfo(dtype).max, dtype)
    out = np.zeros((4, 4), dtype)
    assert core.contract(big, (0, 1), big, (1, 2), out, (0, 2), 1.0, 0.0) == 2
    assert np.all(np.isinf(out))


def test_errors() -> None:
    a, b, out = np.ones((2, 3)), np.ones((3, 4)), np.ones((2, 4))

    def call(*changes: tuple[int, Any]) -> None:
        arguments: list[Any] = [a, (0, 1), b, (1, 2), out, (0, 2), 1.0, 0.0]
        for place, value in changes:
            arguments[place] = value
        core.contract(*arguments)

    call()
    with pytest.raises(ValueError, match="label 1 has lengths"):
        call((3, (2, 1)))
    with pytest.raises(ValueError, match="one label for each axis"):
        call((1, (0,)))
    with pytest.raises(ValueError, match="repeats label"):
        call((5, (0, 0)), (4, np.ones((2, 2))))
    with pytest.raises(ValueError, match="in no input"):
        call((5, (0, 7)))
    with pytest.raises(ValueError, match="labels must lie"):
        call((1, (0, 300)))
    with pytest.raises(TypeError, match="do not fit"):
        call((2, b.astype(np.float32)))
    with pytest.raises(TypeError, match="must be real"):
        call((6, 1j))
    with pytest.raises(TypeError, match="unsupported dtype"):
        call((0, a.astype(int)))
    with pytest.raises(TypeError, match="native byte order"):
        call((0, a.astype(">f8")))
    with pytest.raises(ValueError, match="zero stride"):
        call((4, np.lib.stride_tricks.as_strided(out, (2, 4), (0, 8))))
    frozen = out.copy()
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="writeable"):
        call((4, frozen))
    with pytest.raises(TypeError, match="8 arguments"):
        core.contract(a)
