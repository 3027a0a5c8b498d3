"""Weights of attention, their sums and entropies against whole matrices of weights."""

import tracemalloc
from typing import Any

import numpy as np
import pytest
from attention_cases import (
    BATCHES,
    HEADS,
    LENGTHS,
    OPTIONS,
    make_case,
    plain,
)
from checks import DTYPES, random_for

from unitstride import attention, attention_statistics, attention_weights


@pytest.mark.parametrize("number", range(60))
def test_agree_with_the_plain_formula(number: int) -> None:
    random = random_for("weights", number)
    name = DTYPES[number % 4]
    options = set(random.permutation(OPTIONS)[: number % (len(OPTIONS) + 1)])
    lengths = tuple(int(n) for n in random.choice(LENGTHS, size=2))
    sizes = (lengths[0], lengths[1]), (int(random.integers(0, 20)), 1)
    batch, heads = BATCHES[number % len(BATCHES)], HEADS[number % len(HEADS)]
    case = make_case(random, batch, heads, *sizes, name, options)
    q, k, v = case.arrays
    # The values take no part, and may be those that bring the batch.
    q = np.broadcast_to(q, (*batch, *q.shape[-3:]))
    expected = plain(q, k, v, **case.theirs)
    rows = random.integers(-lengths[0], lengths[0], 5 if lengths[0] else 0)
    got = attention_weights(q, k, rows=rows, **case.ours)
    wanted = expected.weights[..., rows, :]
    unit = 2.0 ** (-53 if name == "float64" else -24)
    digits = {"bfloat16": 8, "float16": 11, "float32": 24}.get(name, 53)
    # Twice the error of the scores, one rounding per term of the sum, one of the result.
    score = unit * (q.shape[-1] + 8) * np.abs(expected.size)
    relative = 2.0 * score + unit * (lengths[1] + 16)
    bound = (relative[..., rows, None] + 2.0**-digits) * wanted + 2.0 ** -(
        24 if digits == 11 else 120
    )
    assert got.shape == wanted.shape and got.dtype == q.dtype
    assert (np.abs(got.astype(np.float64) - wanted) <= bound).all()
    sums, entropy = attention_statistics(q, k, **case.ours)
    assert sums.dtype == entropy.dtype == np.dtype("float64" if name == "float64" else "float32")
    weights = expected.weights
    error = (relative[..., None] * weights).sum(axis=-2) + unit * (lengths[0] + 4)
    assert (np.abs(sums - weights.sum(axis=-2)) <= error + 4 * unit * sums).all()
    logs = np.log(weights, where=weights > 0, out=np.zeros_like(weights))
    exact = -(weights * logs).sum(axis=-1)
    # d(-p log p) = -(1 + log p) dp, summed.
    error = (1.0 + np.abs(exact)) * (relative + 64.0 * unit)
    assert entropy.shape == exact.shape and (np.abs(entropy - exact) <= error).all()


def test_weights_of_all_rows_average_the_values_like_attention() -> None:
    random = random_for("average")
    q, k, v = (random.standard_normal((2, 3, 9, 4)) for _ in range(3))
    options: dict[str, Any] = {"causal": True, "sinks": [0.1, 0.2, 0.3], "softcap": 3.0}
    weights = attention_weights(q, k, **options)
    np.testing.assert_allclose(weights @ v, attention(q, k, v, **options), rtol=0, atol=1e-14)


def test_excluded_nan_never_shows_and_attended_nan_does() -> None:
    random = random_for("nan")
    q, k = random.standard_normal((2, 2, 6, 4))
    k[:, 4] = np.nan
    weights = attention_weights(q, k, causal=True)
    sums, entropy = attention_statistics(q, k, causal=True)
    assert np.isfinite(weights[:, :4]).all() and np.isfinite(entropy[:, :4]).all()
    assert np.isnan(weights[:, 4, :5]).all() and (weights[:, 4, 5:] == 0).all()
    assert np.isnan(entropy[:, 4:]).all() and np.isnan(sums[:, :5]).all()


def test_statistics_never_store_queries_times_keys() -> None:
    """2,048 x 2,048 weights of two heads in float64 are 64 MiB; blocks of them are 2 MiB each."""
    x = random_for("memory").standard_normal((2, 2048, 8)).astype(np.float32)
    tracemalloc.start()
    try:
        sums, entropy = attention_statistics(x, x)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sums.shape == entropy.shape == (2, 2048)
    # A score block exists some eight times at once: raw, masked, exponentials, weights ...
    assert peak < 24 << 20


def test_errors_name_the_argument() -> None:
    x = np.ones((2, 3, 4))
    for rows, error, message in (
        ([0.5], TypeError, "`rows` must be integers, got float64"),
        ([[1]], ValueError, r"`rows` must be 1-dimensional, got \(1, 1\)"),
        ([3], ValueError, "`rows` must lie between -3 and 2, got 3"),
    ):
        with pytest.raises(error, match=f"^attention_weights: {message}"):
            attention_weights(x, x, rows=rows)
    with pytest.raises(ValueError, match=r"^attention_statistics: `key` must have the 4 features"):
        attention_statistics(x, x[..., :3])
    with pytest.raises(TypeError, match=r"^attention_statistics: options must be among"):
        attention_statistics(x, x, rows=[1])  # type: ignore[call-arg]
