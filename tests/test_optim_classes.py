"""Optimiser classes: groups, schedules, states that are saved and loaded, faults."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from unitstride import Adam, AdamW, _records, clip_grad_norm_, clip_grad_value_, ema_update

Array = NDArray[Any]


def parameters(seed: int = 0, dtype: Any = "f4") -> list[Array]:
    random = np.random.default_rng(seed)
    return [random.standard_normal(shape).astype(dtype) for shape in ((4, 5), (3,), (2, 2, 2))]


def bits(arrays: Any) -> list[bytes]:
    return [array.tobytes() for array in arrays]


def test_the_quadratic_converges() -> None:
    """f(x, y) = x^2 + 4 y^2 from (3, 3)."""
    for options in ({}, {"amsgrad": True}, {"nesterov": True}, {"compat": "tensorflow"}):
        x = np.array([3.0, 3.0])
        optimizer = Adam(x, lr=lambda step: 0.1 * 0.99**step, **options)
        for _ in range(600):
            optimizer.step(np.array([2.0, 8.0]) * x)
        # Steps of 0.1 * 0.99^600 = 2e-4 at the end.
        assert np.abs(x).max() < 1e-3, options


def test_groups_have_options_of_their_own() -> None:
    ours, alone = parameters(), parameters()
    both = Adam([{"params": ours[:1], "lr": 0.1}, {"params": ours[1:], "weight_decay": 0.5}])
    first, rest = Adam(alone[:1], lr=0.1), Adam(alone[1:], weight_decay=0.5)
    for seed in range(5):
        grads = parameters(seed)
        both.step(grads)
        first.step(grads[:1])
        rest.step(grads[1:])
    assert both.step_count == 5
    assert bits(ours) == bits(alone)


def test_groups_are_clipped_and_skipped_together() -> None:
    ours, one = parameters(), parameters()
    split = Adam([{"params": ours[:1]}, {"params": ours[1:]}], max_norm=0.1, skip_nonfinite=True)
    whole = Adam(one, max_norm=0.1, skip_nonfinite=True)
    grads = parameters(1)
    assert split.step(grads) == whole.step(grads)
    assert bits(ours) == bits(one)
    before = bits(ours)
    grads[2][0] = np.nan
    assert not split.step(grads)[1] and split.step_count == 1
    assert bits(ours) == before


def test_a_parameter_without_gradient_stays() -> None:
    ours = parameters()
    optimizer = AdamW(ours, weight_decay=0.1)
    before = bits(ours)
    optimizer.step([None, np.ones(3, "f4"), None])
    after = bits(ours)
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, True]


def test_averages_and_copies() -> None:
    ours = parameters()
    optimizer = Adam(ours, lr=0.1, ema_decay=0.75)
    want = [array.copy() for array in ours]
    copies = [np.zeros(array.shape, np.float16) for array in ours]
    for seed in range(3):
        optimizer.step(parameters(seed), low_precision_copy=copies)
        ema_update(want, ours, 0.75)
    assert optimizer.ema is not None
    assert bits(optimizer.ema) == bits(want)
    assert bits(copies) == bits(array.astype(np.float16) for array in ours)


@pytest.mark.parametrize("state_dtype", [None, "float64", "bfloat16"])
def test_states_come_back_bit_for_bit(tmp_path: Path, state_dtype: str | None) -> None:
    dtype = None if state_dtype is None else _records.find_dtype(state_dtype)
    if state_dtype is not None and dtype is None:
        pytest.skip("ml_dtypes is not installed")
    options: dict[str, Any] = {"amsgrad": True, "ema_decay": 0.9, "state_dtype": dtype}
    ours = parameters()
    optimizer = Adam(ours, lr=0.1, **options)
    for seed in range(3):
        optimizer.step(parameters(seed))
    optimizer.save(tmp_path / "state")
    pickled = pickle.dumps(optimizer)
    for way in ("dict", "file", "pickle"):
        theirs = [array.copy() for array in ours]
        other = Adam(theirs, lr=0.7, **options)
        if way == "dict":
            other.load_state_dict(optimizer.state_dict())
        elif way == "file":
            other.load(tmp_path / "state")
        else:
            other = pickle.loads(pickled)
            theirs = other.params
        mine = [array.copy() for array in ours]
        again = Adam(mine, **options)
        again.load_state_dict(optimizer.state_dict())
        again.step(parameters(9))
        other.step(parameters(9))
        assert other.step_count == 4 and other.param_groups[0]["lr"] == 0.1
        assert bits(mine) == bits(theirs)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    optimizer = Adam(parameters())
    optimizer.step(parameters(1))
    path = tmp_path / "state"
    optimizer.save(path)
    whole = path.read_bytes()
    before = bits(a for each in optimizer._state for a in each.values())
    for damage in (whole[: len(whole) // 2], b"", b"nonsense", whole[:300] + b"x" + whole[301:]):
        path.write_bytes(damage)
        with pytest.raises(ValueError, match=r"Adam: .* is not a saved state"):
            optimizer.load(path)
    path.write_bytes(whole)
    with pytest.raises(ValueError, match=r"AdamW: .* holds the state of Adam"):
        AdamW(parameters()).load(path)
    with pytest.raises(ValueError, match=r"Adam: .* has 7 arrays, expected 3"):
        Adam(parameters()[:1]).load(path)
    with pytest.raises(ValueError, match=r"`state\[0\]\['exp_avg'\]` must be float64 of shape"):
        Adam(parameters(dtype="f8")).load(path)
    assert bits(a for each in optimizer._state for a in each.values()) == before


def test_errors() -> None:
    x = np.ones(3)
    with pytest.raises(TypeError, match="Adam: a group must not have the option `rate`"):
        Adam([{"params": [x], "rate": 1.0}])
    with pytest.raises(ValueError, match=r"Adam: `params\[1\]` must not share memory"):
        Adam([{"params": [x]}, {"params": [x]}])
    with pytest.raises(ValueError, match="Adam: `lr` must be at least 0 and finite, got -1"):
        Adam(x, lr=-1.0)
    with pytest.raises(ValueError, match="Adam: `grads` must have 1 arrays, got 2"):
        Adam(x).step([x, x])
    with pytest.raises(TypeError, match="Adam: `params` must be an array or a list"):
        Adam([{"params": 3}])
    with pytest.raises(ValueError, match="Adam: the state must have 1 groups, got 2"):
        Adam(x).load_state_dict(Adam([{"params": [np.ones(3)]}, {"params": []}]).state_dict())


def test_repr_says_what_is_optimised() -> None:
    text = repr(Adam(parameters(), lr=0.5))
    assert "Adam(step 0" in text and "3 arrays, 31 elements" in text and "lr=0.5" in text


def test_clipping() -> None:
    for dtype in ("f4", "f8"):
        grads = [array.T for array in parameters(dtype=dtype)]
        before = np.concatenate([array.ravel() for array in grads])
        norm = clip_grad_norm_(grads, 1.5)
        after = np.concatenate([array.ravel() for array in grads])
        # One rounding of the factor and one of each product.
        eps = np.finfo(dtype).eps
        np.testing.assert_allclose(after, before * (1.5 / norm), rtol=3 * eps + 1e-6)
        clip_grad_value_(grads, 0.25)
        assert max(np.abs(array).max() for array in grads) == 0.25
    assert clip_grad_norm_(np.array([3.0, 4.0]), 9.0) == 5.0
    bad = np.array([1.0, np.nan])
    with pytest.raises(ValueError, match="clip_grad_norm_: the norm of `grads` must be finite"):
        clip_grad_norm_(bad, 1.0, error_if_nonfinite=True)
    assert bad[0] == 1.0
    with pytest.raises(ValueError, match="clip_grad_value_: `clip_value` must be at least 0"):
        clip_grad_value_(bad, -1.0)
