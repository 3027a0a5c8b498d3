"""Attention on the matrix unit: what the vector kernels give, to the rounding of sums.

Lists of rows with elements that the unit cannot represent go to the vector kernels, list by list.
"""

from typing import Any

import numpy as np
import pytest
from checks import core, dtype_of, random_for

from unitstride import attention, attention_vjp, threads

Array = np.ndarray[Any, Any]

pytestmark = pytest.mark.skipif(
    core is None or "amx" not in core.isa_detected(), reason="this machine has no matrix unit"
)

UNIT_ROUNDOFF = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
# (batch, query heads, key heads, queries, keys, features, value features): strips and blocks that
# are filled, cut, single; heads that share keys; padded features.
SHAPES = [
    (1, 2, 2, 128, 512, 64, 64),
    (2, 3, 3, 33, 32, 32, 64),
    (1, 4, 2, 97, 131, 80, 60),
    (1, 6, 1, 24, 700, 128, 32),
    (1, 2, 2, 300, 257, 48, 96),
]
OPTIONS: dict[str, Any] = {
    "plain": lambda random, queries, keys: {},
    "top left": lambda random, queries, keys: {"causal": "top_left"},
    "window": lambda random, queries, keys: {"causal": "bottom_right", "window": (40, None)},
    "mask": lambda random, queries, keys: {"mask": random.random((queries, keys)) < 0.6},
    "bias": lambda random, queries, keys: {
        "bias": random.standard_normal((queries, keys)).astype(np.float32)
    },
    "soft-cap": lambda random, queries, keys: {"softcap": 2.0, "scale": 0.7},
}


@pytest.fixture(autouse=True)
def _level() -> Any:
    before = core.isa_in_use()
    core.use_isa("amx")
    yield
    core.use_isa(before)


def inputs(dtype: str, shape: tuple[int, ...], kind: str = "normal") -> tuple[Array, ...]:
    """Return query, key, value and cotangent."""
    batch, heads, key_heads, queries, keys, features, value_features = shape
    random = random_for("attention unit", dtype, *shape, kind)
    sizes = [
        (batch, heads, queries, features),
        (batch, key_heads, keys, features),
        (batch, key_heads, keys, value_features),
        (batch, heads, queries, value_features),
    ]
    return tuple(random.standard_normal(size).astype(dtype_of(dtype)) for size in sizes)


def wide(array: Any) -> Array:
    return np.asarray(array, np.float64)


def assert_close(result: Any, exact: Array, dtype: str, roundings: int = 1) -> None:
    # Sums of some hundred terms of float32, each below the largest result, and roundings.
    limit = (64 * 2.0**-24 + roundings * UNIT_ROUNDOFF[dtype]) * np.abs(exact).max() + 1e-30
    np.testing.assert_allclose(wide(result), exact, rtol=0, atol=limit)


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_results_and_gradients(dtype: str, shape: tuple[int, ...], option: str) -> None:
    query, key, value, cotangent = inputs(dtype, shape)
    options = OPTIONS[option](random_for(option, *shape), shape[3], shape[4])
    out, lse = attention(query, key, value, return_lse=True, **options)
    four = [wide(array) for array in (query, key, value, cotangent)]
    exact, exact_lse = attention(*four[:3], return_lse=True, **options)
    assert_close(out, exact, dtype)
    finite = np.isfinite(exact_lse)
    np.testing.assert_array_equal(np.isfinite(lse), finite)
    # Scores of some tens, sums of up to 128 products of float32.
    np.testing.assert_allclose(wide(lse)[finite], exact_lse[finite], rtol=1e-5, atol=1e-5)
    gradients = attention_vjp(query, key, value, out, lse, cotangent, **options)
    exact_ones = attention_vjp(*four[:3], exact, exact_lse, four[3], **options)
    for gradient, exact_one in zip(gradients, exact_ones, strict=True):
        # `out` is rounded to the dtype before the gradient starts from it: a second one.
        assert_close(gradient, exact_one, dtype, roundings=2)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_number_of_threads_and_the_batch_leave_the_bits_alone(dtype: str) -> None:
    query, key, value, cotangent = inputs(dtype, (3, 2, 2, 150, 600, 64, 64))

    def run(some: slice) -> list[Array]:
        given = [array[some] for array in (query, key, value)]
        out, lse = attention(*given, causal="top_left", return_lse=True)
        others = attention_vjp(*given, out, lse, cotangent[some], causal="top_left")
        return [np.asarray(array, np.float32) for array in (out, lse, *others)]

    with threads(1):
        expected = run(slice(None))
    for count in (2, 3):
        with threads(count):
            for result, one in zip(run(slice(None)), expected, strict=True):
                np.testing.assert_array_equal(result, one)
    for entry in range(3):
        for result, one in zip(run(slice(entry, entry + 1)), expected, strict=True):
            np.testing.assert_array_equal(result, one[entry : entry + 1])


@pytest.mark.parametrize("operand", [0, 1, 2])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30, 1e-40])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_elements_without_parts_send_their_head_to_the_vector_kernels(
    dtype: str, value: float, operand: int
) -> None:
    arrays = inputs(dtype, (2, 2, 2, 70, 300, 64, 64))
    plain = attention(*arrays[:3])
    random = random_for("refused", dtype, operand)
    place = tuple(int(random.integers(n)) for n in arrays[operand].shape)
    arrays[operand][place] = value

    def run() -> list[Array]:
        out, lse = attention(*arrays[:3], return_lse=True)
        gradients = attention_vjp(*arrays[:3], out, lse, arrays[3])
        return [np.asarray(array, np.float32) for array in (out, lse, *gradients)]

    results = run()
    core.use_isa("avx512")
    below = run()
    for result, expected in zip(results, below, strict=True):
        np.testing.assert_array_equal(result[place[:2]], expected[place[:2]])
    others = np.ones((2, 2), bool)
    others[place[:2]] = False
    np.testing.assert_array_equal(
        results[0][others], np.asarray(plain, np.float32)[others], "other heads stay on the unit"
    )


@pytest.mark.parametrize("power", [-60, -30, 30])
def test_scales_of_the_data_scale_the_results(power: int) -> None:
    """Cotangents and values are often small: all their bits count."""
    query, key, value, cotangent = inputs("float32", (1, 2, 2, 128, 256, 64, 64))
    out, lse = attention(query, key, value, return_lse=True)
    factor = np.float32(2.0**power)
    np.testing.assert_array_equal(attention(query, key, value * factor), out * factor)
    gradients = attention_vjp(query, key, value, out, lse, cotangent)
    scaled = attention_vjp(query, key, value, out, lse, cotangent * factor)
    for gradient, other in zip(gradients, scaled, strict=True):
        limit = 64 * 2.0**-24 * np.abs(gradient).max() * factor
        np.testing.assert_allclose(other, gradient * factor, rtol=0, atol=limit)


def test_what_is_excluded_is_exactly_nothing() -> None:
    query, key, value, cotangent = inputs("float32", (1, 1, 1, 64, 256, 32, 32))
    mask = np.zeros((64, 256), bool)
    mask[:50, 100:180] = True  # the last rows attend to nothing
    out, lse = attention(query, key, value, mask=mask, return_lse=True)
    assert not out[0, 0, 50:].any()
    assert np.isneginf(lse[0, 0, 50:]).all()
    d_query, d_key, d_value = attention_vjp(query, key, value, out, lse, cotangent, mask=mask)
    assert not d_query[0, 0, 50:].any()
    for gradient in (d_key, d_value):
        assert not gradient[0, 0, :100].any()
        assert not gradient[0, 0, 180:].any()
