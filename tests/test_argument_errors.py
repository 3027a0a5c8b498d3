"""Arguments of a wrong kind: the error names the function and the argument, whoever finds it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.exceptions import AxisError

import unitstride as us

RAGGED = [[1.0, 2.0], [3.0]]
X = np.arange(6.0, dtype=np.float32).reshape(2, 3)
QUERY = np.ones((1, 2, 3), np.float32)

CASES: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: us.softmax(RAGGED), ValueError, "softmax: `x` must be an array or nested sequences"),
    (lambda: us.softmax(X, where=RAGGED), ValueError, "softmax: `where` must be an array or"),
    (lambda: us.softmax(X, temperature=float), TypeError, "softmax: `temperature` must be a pos"),
    (lambda: us.logsumexp(X, b=RAGGED), ValueError, "logsumexp: `b` must be an array or nested"),
    (lambda: us.logsumexp(X, b=[1, 2]), ValueError, "logsumexp: `b` must be broadcastable to"),
    (lambda: us.logsumexp_vjp(X, None), TypeError, "logsumexp_vjp: `dy` must be an array"),
    (lambda: us.einsum("ij", RAGGED), ValueError, "einsum: operand 0 must be an array or nested"),
    (lambda: us.einsum("ij", X, casting=X), ValueError, "einsum: `casting` must be one of no, "),
    (lambda: us.einsum_vjp("i->", None, 1.0), TypeError, "einsum_vjp: `operands` must be a seq"),
    (lambda: us.contract_expression("i", "ab"), TypeError, "contract_expression: `shapes` must"),
    (lambda: us.tensordot(X, X, None), TypeError, "tensordot: `axes` must be an integer, or a"),
    (lambda: us.tensordot(X, X, []), TypeError, "tensordot: `axes` must be an integer, or a pair"),
    (lambda: us.tensordot(X, X, "ab"), TypeError, "tensordot: `axes` must be an integer, or a"),
    (lambda: us.tensordot(X, X, ([1.5], [1])), TypeError, "tensordot: `axes` must be an integer"),
    (lambda: us.trace(X, axis1=7), AxisError, "trace: axis 7 is out of bounds for array of dim"),
    (lambda: us.trace(X[0]), ValueError, "trace: diag requires an array of at least two dim"),
    (lambda: us.diagonal(X, "a"), TypeError, "diagonal: 'str' object cannot be interpreted"),
    (lambda: us.diagonal(X, 2**70), ValueError, "diagonal: Python int too large to convert"),
    (lambda: us.transpose(X, (0, 5)), AxisError, "transpose: axis 5 is out of bounds for array"),
    (lambda: us.transpose(X, (0,)), ValueError, "transpose: axes don't match array"),
    (
        lambda: us.attention(QUERY, QUERY, QUERY, scale=np.array("s")),
        TypeError,
        "attention: `scale` must be a finite number, got",
    ),
    (
        lambda: us.attention(QUERY, QUERY, QUERY, mask=[[True], [True, False]]),
        ValueError,
        "attention: `mask` must be an array or nested sequences",
    ),
    (
        lambda: us.attention_weights(QUERY, QUERY, rows=RAGGED),
        ValueError,
        "attention_weights: `rows` must be an array or nested sequences",
    ),
    (lambda: us.convolve(RAGGED, [1.0]), ValueError, "convolve: `x` must be an array or nested"),
    (lambda: us.global_norm(None), TypeError, "global_norm: `grads` must be an array or a list"),
    (lambda: us.clip_grad_norm_(None, 1.0), TypeError, "clip_grad_norm_: `grads` must be an arr"),
    (lambda: us.clip_grad_value_(None, 1.0), TypeError, "clip_grad_value_: `grads` must be an"),
    (
        lambda: us.adam_step(X.copy(), X, X.copy(), X.copy(), X, lr=0.1),
        TypeError,
        "adam_step: `step` must be an integer, got",
    ),
    (
        lambda: us.adam_step(X.copy(), X, X.copy(), X.copy(), 2**70, lr=0.1),
        ValueError,
        "adam_step: `step` must be below 2**63, got",
    ),
]


@pytest.mark.parametrize(
    ("function", "error", "text"), CASES, ids=[text.split(" must")[0] for *_, text in CASES]
)
def test_the_error_names_the_argument(
    function: Callable[[], Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error) as caught:
        function()
    assert str(caught.value).startswith(text)


def test_factors_beyond_the_integers_of_numpy() -> None:
    assert us.einsum("i->", np.ones(2), alpha=2**70) == 2.0**71
    with pytest.raises(TypeError, match="`alpha` must be a number"):
        us.einsum("i->", np.ones(2), alpha=10**400)


def test_steps_of_nadam_take_no_longer_as_they_count_up() -> None:
    """The product of its momenta is found in a few terms, also at step 10**9."""
    from unitstride._optim_rules import nadam_momenta

    for b1, decay in ((0.9, 0.004), (0.999, 0.0), (1 - 1e-9, 3.0), (0.5, 1e-12)):
        product = 1.0
        for position in range(1, 3000):
            product *= b1 * (1.0 - 0.5 * 0.96 ** (position * decay))
        found = nadam_momenta(b1, decay, 2999)[2]
        assert found == pytest.approx(product, rel=1e-12, abs=2.0**-54)
        assert 0.0 <= nadam_momenta(b1, decay, 10**9)[2] <= found
        assert 0.0 <= nadam_momenta(b1, decay, 2**62)[2] <= found


def test_an_infinite_limit_of_the_norm_changes_nothing() -> None:
    for value in (3.0, np.inf, np.nan):
        grads = [np.array([value, 4.0]), np.ones(2, np.float32)]
        before = [array.copy() for array in grads]
        norm = us.clip_grad_norm_(grads, float("inf"))
        np.testing.assert_equal(norm, us.global_norm(before))
        for array, old in zip(grads, before, strict=True):
            np.testing.assert_array_equal(array, old)
