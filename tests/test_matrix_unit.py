"""The matrix unit: products of bfloat16 parts give what products of whole floats give.

Whatever the unit cannot represent goes to the vector kernels, so results with such elements are
those of the level below, bit for bit.
"""

from typing import Any

import numpy as np
import pytest
from checks import core, dtype_of, random_for

from unitstride import einsum, threads

Array = np.ndarray[Any, Any]

pytestmark = pytest.mark.skipif(
    core is None or "amx" not in core.isa_detected(), reason="this machine has no matrix unit"
)

# Products that are given to the unit: many rows, few rows, blocks of every kind, filled squares and
# others.
SHAPES = [(480, 480, 480), (33, 700, 480), (500, 333, 457), (7, 300, 500), (130, 1100, 417)]
UNIT_ROUNDOFF = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}


@pytest.fixture(autouse=True)
def _level() -> Any:
    before = core.isa_in_use()
    core.use_isa("amx")
    yield
    core.use_isa(before)


def product(a: Array, b: Array) -> Array:
    return np.asarray(einsum("ik,kj->ij", a, b))


def at_the_level_below(a: Array, b: Array) -> Array:
    core.use_isa("avx512")
    try:
        return product(a, b)
    finally:
        core.use_isa("amx")


def factors(dtype: str, shape: tuple[int, int, int], kind: str = "normal") -> tuple[Array, Array]:
    rows, columns, depth = shape
    random = random_for("matrix unit", dtype, *shape, kind)
    pair = []
    for size in ((rows, depth), (depth, columns)):
        values = random.standard_normal(size)
        if kind == "wide":  # magnitudes over the whole range of the unit, ends included
            values = np.sign(values) * 2.0 ** random.integers(-50, 51, size)
        pair.append(values.astype(dtype_of(dtype)))
    return pair[0], pair[1]


def worst_error(result: Array, a: Array, b: Array, dtype: str) -> float:
    """Return the largest error in units of u |A| |B|, beside one rounding of the result."""
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
    exact = wide_a @ wide_b
    unit = UNIT_ROUNDOFF[dtype]
    rounding = unit * np.abs(exact) if dtype != "float32" else 0.0
    error = np.abs(result.astype(np.float64) - exact) - rounding
    return float((error / (2.0**-24 * (np.abs(wide_a) @ np.abs(wide_b)))).max())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_sums_are_as_accurate_as_those_of_whole_floats(
    dtype: str, shape: tuple[int, int, int]
) -> None:
    a, b = factors(dtype, shape)
    # 16 u |A| |B| is promised to every element; float32 sums of random terms stay below half of it.
    assert worst_error(product(a, b), a, b, dtype) <= 8


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_whole_range_of_the_unit_is_accurate(dtype: str) -> None:
    a, b = factors(dtype, (480, 480, 480), "wide")
    assert worst_error(product(a, b), a, b, dtype) <= 8


@pytest.mark.parametrize("bits", [4, 8, 9, 12])
def test_integers_are_exact(bits: int) -> None:
    """All partial sums are integers below 2^24."""
    depth = min(512, 2 ** (24 - 2 * bits)) if bits < 12 else 1
    random = random_for("integers", bits)
    a = np.zeros((400, 512), np.float32)
    b = np.zeros((512, 400), np.float32)
    a[:, :depth] = random.integers(-(2**bits) + 1, 2**bits, (400, depth))
    b[:depth] = random.integers(-(2**bits) + 1, 2**bits, (depth, 400))
    np.testing.assert_array_equal(product(a, b), a.astype(np.float64) @ b.astype(np.float64))


def test_all_bits_of_a_float_pass_through() -> None:
    a, _ = factors("float32", (480, 480, 480))
    scales = 2.0 ** random_for("scales").integers(-20, 21, 480)
    np.testing.assert_array_equal(product(a, np.diag(scales).astype(np.float32)), a * scales)
    np.testing.assert_array_equal(product(np.diag(scales).astype(np.float32), a), (a.T * scales).T)


def test_small_factors_beside_others_keep_their_bits() -> None:
    """Only the product of both has to lie in the range of the unit."""
    a, b = factors("float32", (480, 480, 480))
    for power in (-56, -52, 60):
        np.testing.assert_array_equal(product(a * 2.0**power, b), product(a, b) * 2.0**power)


def test_two_small_factors_get_the_vector_kernels() -> None:
    a, b = (x * np.float32(2.0**-60) for x in factors("float32", (480, 480, 480)))
    np.testing.assert_array_equal(product(a, b), at_the_level_below(a, b))


REFUSED = {
    "float32": [np.nan, np.inf, -np.inf, 3e38, 1e-30, -1e-45, 2.0**101],
    "float16": [np.nan, np.inf, -np.inf],
    "bfloat16": [np.nan, np.inf, -np.inf, 3e38, 1e-30, -1e-40],
}


@pytest.mark.parametrize("operand", [0, 1])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_elements_without_parts_get_the_vector_kernels(
    dtype: str, shape: tuple[int, int, int], operand: int
) -> None:
    random = random_for("refused", dtype, *shape, operand)
    for value in REFUSED[dtype]:
        pair = factors(dtype, shape)
        place = tuple(int(random.integers(n)) for n in pair[operand].shape)
        pair[operand][place] = value
        result, expected = product(*pair), at_the_level_below(*pair)
        np.testing.assert_array_equal(result.astype(np.float32), expected.astype(np.float32))


def test_zeros_of_either_sign_have_parts() -> None:
    a, b = factors("float32", (480, 480, 480))
    a[::3], b[:, ::5] = -0.0, 0.0
    result = product(a, b)
    assert not result[::3].any()
    assert not result[:, ::5].any()
    assert worst_error(result[1::3, 1::5], a[1::3], b[:, 1::5], "float32") <= 8


LAYOUTS = {
    "plain": lambda x: x,
    "transposed": lambda x: np.ascontiguousarray(x.T).T,
    "every second": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
    "reversed": lambda x: np.ascontiguousarray(x[::-1, ::-1])[::-1, ::-1],
    "rows apart": lambda x: np.repeat(np.repeat(x, 3, axis=0), 2, axis=1)[::3, ::2],
}


@pytest.mark.parametrize("layout_b", LAYOUTS)
@pytest.mark.parametrize("layout_a", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_layouts_and_threads(dtype: str, layout_a: str, layout_b: str) -> None:
    for shape in [(150, 417, 800), (40, 650, 300)]:
        a, b = factors(dtype, shape)
        in_layout = LAYOUTS[layout_a](a), LAYOUTS[layout_b](b)
        with threads(1):
            expected = product(*in_layout)
        assert worst_error(expected, a, b, dtype) <= 8
        for count in (2, 3):
            with threads(count):
                np.testing.assert_array_equal(product(*in_layout), expected)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_tensors_whose_axes_are_in_several_groups(dtype: str) -> None:
    random = random_for("groups", dtype)
    a = random.standard_normal((3, 20, 12, 30)).astype(dtype_of(dtype))
    b = random.standard_normal((30, 25, 20, 3, 9)).astype(dtype_of(dtype))
    result = einsum("bkmn,npkbq->bpmq", a, b)
    exact = np.einsum("bkmn,npkbq->bpmq", a.astype(np.float64), b.astype(np.float64))
    scale = np.einsum("bkmn,npkbq->bpmq", abs(a.astype(np.float64)), abs(b.astype(np.float64)))
    error = np.abs(np.asarray(result).astype(np.float64) - exact) - UNIT_ROUNDOFF[dtype] * abs(
        exact
    )
    assert (error <= 8 * 2.0**-24 * scale).all()


def test_an_output_that_is_added_to() -> None:
    """Its old elements are needed until the end, so the unit must not have written over them."""
    a, b = factors("float32", (480, 480, 480))
    a[479, 479] = np.inf
    before = random_for("old").standard_normal((480, 480)).astype(np.float32)
    out = before.copy()
    einsum("ik,kj->ij", a, b, out=out, beta=2.0)
    core.use_isa("avx512")
    other = before.copy()
    einsum("ik,kj->ij", a, b, out=other, beta=2.0)
    np.testing.assert_array_equal(out, other)


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("length", [2, 5, 7, 14, 28, 56])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_axes_in_short_pieces(dtype: str, length: int, across: bool) -> None:
    """Rows, columns and depth are pieces of memory that vectors are put together from."""
    random = random_for("pieces", dtype, length)
    pieces = -(-420 // length)
    whole = random.standard_normal((pieces, length, pieces, length + 3))
    a = whole.astype(dtype_of(dtype))[..., :length]
    b = np.ascontiguousarray(whole[::-1].astype(dtype_of(dtype)))[..., 1 : length + 1]
    equation = "abcd,abef->cdef" if across else "cdab,efab->cdef"
    result = np.asarray(einsum(equation, a, b)).astype(np.float64)
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
    exact = np.einsum(equation, wide_a, wide_b, optimize=True)
    scale = np.einsum(equation, abs(wide_a), abs(wide_b), optimize=True)
    error = np.abs(result - exact)
    if dtype != "float32":
        error -= UNIT_ROUNDOFF[dtype] * np.abs(exact)
    assert (error <= 8 * 2.0**-24 * scale).all()
