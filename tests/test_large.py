"""Sizes beyond 32 bits, and sizes that cannot be."""

import math
import os
import time
from collections.abc import Callable

import numpy as np
import pytest
from checks import core, needs_core

import unitstride
from unitstride import log_softmax, logsumexp, logsumexp_vjp, softmax

BEYOND = 2**31 + 16


@needs_core
def test_more_elements_than_a_32_bit_number_counts() -> None:
    """An array of 8.6 GB that costs four bytes."""
    x = np.broadcast_to(np.float32(1), BEYOND)
    assert logsumexp(x) == np.float32(1 + math.log(BEYOND))


@needs_core
def test_the_last_element_beyond_32_bits_counts() -> None:
    """Rows of 4096 elements, one of them the same as all others: its index must not wrap."""
    host = np.zeros(4096, np.float32)
    host[-1] = 3
    rows = 2**19 + 1
    x = np.broadcast_to(host, (rows, 4096))
    assert x.size > 2**31
    exact = math.log(rows) + math.log(4095 + math.exp(3))
    assert logsumexp(x, axis=None) == pytest.approx(exact, rel=1e-7)


@needs_core
@pytest.mark.slow
def test_a_mask_beyond_32_bits() -> None:
    x = np.broadcast_to(np.float32(2), BEYOND)
    where = np.zeros(1, bool)
    assert logsumexp(x, where=np.broadcast_to(where, BEYOND)) == -np.inf


@needs_core
def test_more_lines_than_a_32_bit_number_counts() -> None:
    """2^31 lines of nothing are nothing to do, in every function."""
    x = np.zeros((2**31 + 3, 0), np.float32)
    assert softmax(x).shape == x.shape
    assert log_softmax(x).shape == x.shape


IMPOSSIBLE: dict[str, Callable[[], object]] = {
    "softmax of 2^60 bytes": lambda: softmax(np.broadcast_to(np.float32(1), 2**58)),
    "softmax of many rows": lambda: softmax(np.broadcast_to(np.float32(1), (2**40, 2**15))),
    "softmax of columns": lambda: softmax(np.broadcast_to(np.float32(1), (2**30, 2**25)), axis=0),
    "log_softmax over all axes": lambda: log_softmax(
        np.broadcast_to(np.float64(1), (2**20, 2**19, 2**18)), axis=None
    ),
    "softmax of integers": lambda: softmax(np.broadcast_to(np.int8(1), 2**57)),
    "logsumexp with more lines than memory": lambda: logsumexp(
        np.broadcast_to(np.float32(1), (2**58, 4))
    ),
    "logsumexp_vjp": lambda: logsumexp_vjp(np.broadcast_to(np.float32(1), 2**58), 1.0),
}


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_impossible_sizes_raise_at_once(case: str) -> None:
    if core is None and case == "logsumexp_vjp":
        pytest.skip("the twin sums before it allocates")
    begin = time.perf_counter()
    with pytest.raises((MemoryError, ValueError)):
        IMPOSSIBLE[case]()
    assert time.perf_counter() - begin < 1.0
    np.testing.assert_array_equal(softmax(np.zeros(2)), [0.5, 0.5])


def test_many_axes() -> None:
    """As many axes as NumPy has (64), most of them of one element."""
    x = np.random.default_rng(64).standard_normal((1,) * 30 + (3,) + (1,) * 31 + (5, 2))
    assert x.ndim == 64
    flat = x.reshape(3, 5, 2)
    np.testing.assert_array_equal(softmax(x).reshape(3, 5, 2), softmax(flat))
    np.testing.assert_array_equal(softmax(x, 30).reshape(3, 5, 2), softmax(flat, 0))
    np.testing.assert_array_equal(softmax(x, (30, 63)).reshape(3, 5, 2), softmax(flat, (0, 2)))
    np.testing.assert_array_equal(logsumexp(x, tuple(range(64))), logsumexp(flat, None))
    np.testing.assert_array_equal(logsumexp(np.zeros((1,) * 64), None), 0.0)
    strided = np.zeros((2,) * 16, np.float32)[..., ::-1].transpose(np.arange(16)[::-1])
    np.testing.assert_array_equal(softmax(strided, 3), 0.5)
    np.testing.assert_array_equal(softmax(strided, (3, 7, 11)), 0.125)


@needs_core
@pytest.mark.slow
@pytest.mark.skipif(
    "UNITSTRIDE_TEST_LARGE" not in os.environ,
    reason="takes 4 GB of memory; UNITSTRIDE_TEST_LARGE=1 runs it",
)
def test_a_real_array_beyond_32_bits() -> None:
    x = np.zeros(BEYOND, np.float16)
    assert unitstride.log_softmax(x, out=x) is x
    assert x[0] == x[BEYOND // 2] == x[-1] == np.float16(-math.log(BEYOND))
