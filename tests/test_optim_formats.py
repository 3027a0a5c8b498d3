"""Optimisers with few bits: 8-bit states, stochastic rounding, compensation of rounding."""

import pickle
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from checks import random_for

import unitstride
from unitstride import Adam, AdamW, BlockwiseState, Lion, adam_step
from unitstride._reference.optim_narrow import code_values, key_of, round_stochastically

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
FLOAT16 = np.dtype(np.float16)


@pytest.mark.parametrize("signed", [True, False])
def test_codes_are_a_table_of_decades(signed: bool) -> None:
    values = code_values(signed)
    assert values.size == 256 and (np.diff(values) >= 0).all()
    assert values[-1] == 1 and 0 in values and (values >= (-1 if signed else 0)).all()
    positive = values[values > 0]
    assert positive[0] < 1e-6  # seven decades
    large = positive[positive > 0.1]
    assert (np.diff(large) <= (0.9 / 64 if signed else 0.9 / 128) * 1.6).all()


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("size", [0, 1, 255, 256, 1000])
def test_a_state_is_its_nearest_codes(size: int, signed: bool) -> None:
    values = random_for("codes", size, signed).standard_normal(size).astype(np.float32)
    values = values if signed else values**2
    state = BlockwiseState(size, signed)
    assert (state.to_array() == 0).all()
    state.assign(values)
    scales = np.repeat(state.scales, 256)[:size]
    table = code_values(signed).astype(float)
    want = np.abs(values[:, None] - table * scales[:, None]).min(axis=1) if size else values
    # One rounding of the quotient, one of the product.
    got = np.abs(state.to_array() - values)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=3e-7 * (scales.max() if size else 0))


def test_small_second_moments_do_not_become_zero() -> None:
    state = BlockwiseState(3, signed=False)
    state.assign(np.array([1.0, 1e-12, 0.0]))
    assert state.to_array()[1] > 0 and state.to_array()[2] == 0
    state.assign(np.array([1.0, np.nan, 0.0]))
    assert np.isnan(state.to_array()).all()


@pytest.mark.parametrize("dtype", [BFLOAT16, FLOAT16])
def test_stochastic_rounding_is_right_on_average(dtype: np.dtype[Any]) -> None:
    random = random_for("stochastic", dtype.name)
    values = (random.standard_normal(500) * np.exp2(random.integers(-9, 9, 500))).astype(np.float32)
    values[:6] = [0.0, -0.0, np.inf, -np.inf, 1.0, -2.5]
    rounded = np.stack(
        [round_stochastically(values, dtype, 0, key_of(1, t, 0, 0)) for t in range(2000)]
    )
    wide = rounded.astype(np.float64)
    np.testing.assert_array_equal(wide[:, :6], np.tile(values[:6], (2000, 1)))
    near = values[6:].astype(dtype)
    sides = [np.nextafter(near, dtype.type(way)).astype(float) for way in (np.inf, -np.inf)]
    ulp = np.max([np.abs(side - near.astype(float)) for side in sides], axis=0)
    assert (np.abs(wide[:, 6:] - values[6:]) < 1.01 * ulp).all()
    # The mean of 2,000 numbers of one of two values: five standard deviations at the most.
    assert (np.abs(wide[:, 6:].mean(axis=0) - values[6:]) <= 5 * 0.5 * ulp / np.sqrt(2000)).all()
    assert np.isnan(
        round_stochastically(np.full(9, np.nan, np.float32), dtype, 0, 5).astype(float)
    ).all()


def run(count: int, dtype: Any, layout: int = 0, **options: Any) -> np.ndarray[Any, Any]:
    """Return parameters after some steps on the sum of squares with noise."""
    random = random_for("training", count)
    x = random.standard_normal((40, 50)).astype(dtype)
    if layout == 1:
        x = np.asfortranarray(x)
    if layout == 2:
        x = np.repeat(x, 2, axis=1)[:, ::2]
    optimizer = Adam(x, lr=0.02, **options)
    scales = np.linspace(0.5, 4, 2000).reshape(40, 50)
    for _ in range(count):
        noise = random.standard_normal(x.shape) * 0.05
        optimizer.step((scales * x.astype(float) + noise).astype(np.float32))
    return x.astype(float)


@pytest.mark.parametrize(
    "options",
    [
        {"state_dtype": np.uint8},
        {"state_dtype": np.uint8, "amsgrad": True, "ema_decay": 0.9},
        {"state_dtype": BFLOAT16, "rounding": "stochastic", "seed": 3},
    ],
)
def test_bits_do_not_depend_on_layout_or_threads(options: dict[str, Any]) -> None:
    want = run(12, np.float32, **options)
    for layout in (1, 2):
        np.testing.assert_array_equal(run(12, np.float32, layout, **options), want)
    with unitstride.threads(1):
        np.testing.assert_array_equal(run(12, np.float32, **options), want)


def test_training_with_few_bits_ends_where_float32_does() -> None:
    """Margins: the root mean square of what is left, of parameters that began at 1."""
    left = {
        name: float(np.sqrt(np.mean(run(150, dtype, **options) ** 2)))
        for name, dtype, options in (
            ("float32", np.float32, {}),
            ("8 bits", np.float32, {"state_dtype": "uint8"}),
            ("nearest", BFLOAT16, {}),
            ("kahan", BFLOAT16, {"kahan": True}),
            ("stochastic", BFLOAT16, {"rounding": "stochastic", "state_dtype": "uint8"}),
        )
    }
    assert left["float32"] < 0.1
    assert left["8 bits"] < 1.15 * left["float32"]
    assert left["kahan"] < 1.02 * left["float32"] < left["nearest"]
    assert left["stochastic"] < 1.2 * left["float32"]


def test_small_changes_are_not_lost() -> None:
    """Steps far below the spacing of bfloat16 at 1, in one direction."""
    grads = np.ones(4000, np.float32)
    moved = {}
    for name, options in (
        ("nearest", {}),
        ("kahan", {"kahan": True}),
        ("stochastic", {"rounding": "stochastic"}),
    ):
        x = np.ones(4000, BFLOAT16)
        optimizer = Adam(x, lr=1e-4, **options)  # type: ignore[arg-type]
        for _ in range(200):
            optimizer.step(grads)
        moved[name] = float(1 - x.astype(float).mean())
    assert moved["nearest"] == 0
    # 200 steps of 1e-4; a compensation has 8 bits itself.
    assert moved["kahan"] == pytest.approx(0.02, rel=0.1)
    assert moved["stochastic"] == pytest.approx(0.02, rel=0.1)


def test_functions_take_blockwise_states() -> None:
    random = random_for("function")
    params = [random.standard_normal((3, 70_000)), random.standard_normal(5).astype(np.float32)]
    grads = [random.standard_normal(p.shape).astype(p.dtype) for p in params]
    plain = [p.copy() for p in params]
    states = [[BlockwiseState(p.shape, signed) for p in params] for signed in (True, False)]
    zeros = [[np.zeros(p.shape, np.float32) for p in params] for _ in range(2)]
    for step in (1, 2):
        norm, stepped = adam_step(params, grads, *states, step, max_norm=1.0)
        wanted, _ = adam_step(plain, grads, *zeros, step, max_norm=1.0)
        assert stepped and norm == pytest.approx(wanted, rel=1e-14)
    for got, want in zip(params, plain, strict=True):
        # The first step has the sign of the gradient either way; the second one differs by codes.
        assert np.abs(got - want).max() < 1e-3
    bad = [g.copy() for g in grads]
    bad[1][2] = np.nan
    before = [p.copy() for p in params], states[0][0].codes.copy()
    assert adam_step(params, bad, *states, 3, skip_nonfinite=True)[1] is False
    for got, want in zip(params, before[0], strict=True):
        np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(states[0][0].codes, before[1])


def test_states_of_8_bits_are_saved_and_pickled(tmp_path: Path) -> None:
    random = random_for("saved")
    x = random.standard_normal(1000).astype(np.float32)
    optimizer = AdamW(x, state_dtype=np.uint8)
    optimizer.step(random.standard_normal(1000).astype(np.float32))
    assert optimizer.state_dict()["state"][0]["exp_avg"].dtype == np.uint8
    optimizer.save(tmp_path / "state.npz")
    y = x.copy()
    other = AdamW(y, state_dtype=np.uint8)
    other.load(tmp_path / "state.npz")
    third: AdamW = pickle.loads(pickle.dumps(optimizer))
    grad = random.standard_normal(1000).astype(np.float32)
    for each in (optimizer, other, third):
        each.step(grad)
    np.testing.assert_array_equal(x, y)
    np.testing.assert_array_equal(x, third.params[0])
    lion = Lion(y, state_dtype="uint8")
    assert lion.step(grad)[1]


def test_errors_name_what_is_wrong() -> None:
    x, g, m, v = (np.ones(4, np.float32) for _ in range(4))
    block = BlockwiseState(4, signed=True)
    for call, error, text in (
        (
            lambda: adam_step(x, g, BlockwiseState(5, True), v, 1),
            ValueError,
            "`exp_avg\\[0\\]` must have shape",
        ),
        (
            lambda: adam_step([x], [g], [block], [v], 1, rounding="up"),
            ValueError,
            "`rounding` must be",
        ),
        (
            lambda: adam_step(x, g, m, v, 1, rounding="stochastic", seed=0.5),
            TypeError,
            "`seed` must be",
        ),  # type: ignore[arg-type]
        (
            lambda: adam_step(x, g, m, v, 1, kahan=np.zeros(4, np.float32)),
            ValueError,
            "`kahan\\[0\\]` must be of the 16-bit",
        ),
        (lambda: Adam(x, kahan=True), ValueError, "`kahan` needs parameters of 16 bits"),
        (lambda: Adam(x, rounding="up"), ValueError, "`rounding` must be nearest or stochastic"),
        (lambda: block.assign(np.ones(3)), ValueError, "`values` must have shape"),
    ):
        before = x.copy(), block.codes.copy()
        with pytest.raises(error, match=text):
            call()  # type: ignore[no-untyped-call]
        np.testing.assert_array_equal(x, before[0])
        np.testing.assert_array_equal(block.codes, before[1])
