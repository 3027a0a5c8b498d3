"""Gradients that lie in memory in another order than their parameters."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from checks import random_for

import unitstride
from unitstride import adam_step, global_norm

SHAPES = [(16, 16), (15, 33), (100, 40), (37, 1500), (3, 20_000), (2, 50, 70), (4, 3, 17, 19)]


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_turned_gradients_give_the_same_bits(shape: tuple[int, ...], dtype: Any) -> None:
    """Lines around every edge of what is turned together, with a norm and without."""
    random = random_for("turned", *shape, np.dtype(dtype).name)
    grad = random.standard_normal(shape).astype(dtype)
    orders = [np.asfortranarray(grad), np.swapaxes(np.swapaxes(grad, -1, -2).copy(), -1, -2)]
    wide = np.zeros((*shape[:-2], shape[-1], shape[-2] + 3), dtype)
    orders.append(np.swapaxes(wide, -1, -2)[..., 1 : 1 + shape[-2], :])
    orders[-1][...] = grad
    for param_dtype in (np.float32, np.float64):
        start = random.standard_normal(shape).astype(param_dtype)
        results = []
        for each in (grad, *orders):
            for threads in (1, 3):
                arrays = [start.copy(), np.zeros_like(start), np.zeros_like(start)]
                with unitstride.threads(threads):
                    for step in (1, 2):
                        norm, _ = adam_step(
                            arrays[0], each, *arrays[1:], step, max_norm=1.0 if step == 2 else None
                        )
                results.append([norm, *arrays])
        for got in results[1:]:
            assert got[0] == results[0][0]  # a sum in two words, rounded once
            for a, b in zip(got[1:], results[0][1:], strict=True):
                np.testing.assert_array_equal(a, b)
    assert global_norm([orders[0]]) == global_norm([grad])
