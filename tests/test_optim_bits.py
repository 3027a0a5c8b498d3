"""Few bits on the core: the bits of NumPy's definition, in every layout and at any thread count."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from checks import needs_core, random_for
from numpy.typing import NDArray

import unitstride
from unitstride import Adam, BlockwiseState, _optim_lists, _optim_wide, adam_step
from unitstride._reference import optim_narrow

Array = NDArray[Any]

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
SHAPES = (0, 1, 3, 17, 255, 256, 257, 5000, (7, 5, 3), (37, 530), (1200, 2), (70, 401))
LAYOUTS = ("plain", "transposed", "reversed", "step 2")


def lay_out(array: Array, layout: str) -> Array:
    if layout == "plain" or array.ndim < 2:
        return array.copy()
    if layout == "transposed":
        return array.T.copy().T
    if layout == "reversed":
        return array[::-1, ..., ::-1].copy()[::-1, ..., ::-1]
    wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)[..., ::2]
    wide[...] = array
    return wide


def run(layout: str, dtype: Any, states_in: Any, options: dict[str, Any]) -> list[Any]:
    """Return results and bits of two steps on a list of arrays, some numbers of them hard."""
    lists: dict[str, list[Any]] = {name: [] for name in ("p", "g", "m", "v", "w", "rest", "e", "c")}
    for index, shape in enumerate(SHAPES):
        random = random_for("bits", index)
        p, g, m = (random.standard_normal(shape).astype(np.float32) for _ in range(3))
        p, v = np.asarray(p), np.asarray(m * m) * np.float32(0.1)
        for array, hard in ((g, (1e20, 1e-25, -1e-3)), (m, (0.0, 1e-39)), (v, (0.0, 3e38))):
            array.reshape(-1)[: len(hard)] = hard[: array.size]
        p.reshape(-1)[3:6] = [6e-5, -1e-7, 7e4][: max(p.size - 3, 0)]
        with np.errstate(over="ignore"):
            states: list[Any] = [m, v, v]
            if states_in == "blocks":
                states = [BlockwiseState(shape, number == 0) for number in range(3)]
                for state, values in zip(states, (m, v, v), strict=True):
                    state.assign(values)
            else:
                states = [lay_out(values.astype(states_in), layout) for values in states]
            own = lay_out(p.astype(dtype), layout)
            average, copy = lay_out(p.astype(dtype), layout), np.zeros(shape, np.float16)
        items = (own, lay_out(g, layout), *states, np.zeros_like(own), average, copy)
        for kind, item in zip(lists.values(), items, strict=True):
            kind.append(item)
    extra = {key: value for key, value in options.items() if key != "kahan"}
    if options.get("kahan"):
        extra["kahan"] = lists["rest"]
    found: list[Any] = [
        adam_step(
            *(lists[name] for name in "pgmv"),
            step,
            max_norm=2.0,
            max_exp_avg_sq=lists["w"],
            ema=lists["e"],
            low_precision_copy=lists["c"],
            **extra,
        )
        for step in (1, 2)
    ]
    for kind in lists.values():
        for item in kind:
            parts = (item.codes, item.scales) if isinstance(item, BlockwiseState) else (item,)
            found += [part.tobytes() for part in parts]
    return found


CASES = (
    (np.float32, "blocks", {}),
    (np.float64, "blocks", {"weight_decay": 0.1}),
    (np.float64, BFLOAT16, {"rounding": "stochastic"}),
    (np.float32, np.float16, {"rounding": "stochastic", "seed": 5}),
    (BFLOAT16, BFLOAT16, {"rounding": "stochastic", "seed": 2**70}),
    (BFLOAT16, "blocks", {"rounding": "stochastic", "seed": -3}),
    (np.float16, "blocks", {"rounding": "stochastic"}),
    (BFLOAT16, "blocks", {"kahan": True}),
    (np.float16, np.float32, {"kahan": True}),
)


@pytest.mark.parametrize(("dtype", "states", "options"), CASES, ids=str)
def test_layouts_and_threads_do_not_show(dtype: Any, states: Any, options: dict[str, Any]) -> None:
    want = run("plain", dtype, states, options)
    assert want[0][1] and want[1][1]
    for layout in LAYOUTS:
        for threads in (1, 2):
            with unitstride.threads(threads):
                got = run(layout, dtype, states, options)
            wrong = [index for index, (a, b) in enumerate(zip(got, want, strict=True)) if a != b]
            assert not wrong, (layout, threads, wrong)


@needs_core
@pytest.mark.parametrize(("dtype", "states", "options"), CASES, ids=str)
def test_the_core_has_the_bits_of_numpy(
    dtype: Any, states: Any, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for layout in ("plain", "transposed"):
        got = run(layout, dtype, states, options)
        with monkeypatch.context() as without:
            for module in (_optim_lists, _optim_wide):
                without.setattr(module, "core", None)
            want = run(layout, dtype, states, options)
        wrong = [index for index, (a, b) in enumerate(zip(got, want, strict=True)) if a != b]
        assert not wrong, (layout, wrong)


@pytest.mark.parametrize("signed", [True, False])
def test_states_keep_what_is_not_a_number_in_its_block(signed: bool) -> None:
    """Blocks after a step that changes nothing, and the same ones encoded by hand."""
    values = np.ones(1500, np.float32)
    values[[300, 600]] = np.nan, -np.inf if signed else np.inf
    values[768:1024] = 1e-42
    values[1024:1280] = 0.0
    states = [BlockwiseState(1500, each) for each in (True, False)]
    chosen = states[not signed]
    chosen.assign(values)
    wide = [state.to_array() for state in states]
    np.testing.assert_array_equal(wide[not signed][:256], 1)
    assert np.isnan(wide[not signed][256:768]).all()
    np.testing.assert_array_equal(wide[not signed][768:], values[768:])
    param, grad = np.ones(1500, np.float32), np.zeros(1500, np.float32)
    adam_step(param.copy(), grad, states[0], states[1], 1)
    adam_step(param.copy(), grad, wide[0], wide[1], 1)
    for state, array in zip(states, wide, strict=True):
        again = BlockwiseState(1500, state.signed)
        again.assign(array)
        assert again.codes.tobytes() == state.codes.tobytes()
        assert again.scales.tobytes() == state.scales.tobytes()


@pytest.mark.parametrize("dtype", [BFLOAT16, np.dtype(np.float16)])
def test_rounding_keeps_what_a_type_holds(dtype: np.dtype[Any]) -> None:
    every = np.arange(1 << 16, dtype=np.uint16).view(dtype)
    with np.errstate(all="ignore"):
        wide = every.astype(np.float32)
    found = optim_narrow.round_stochastically(wide, dtype, 0, optim_narrow.key_of(1, 2, 3, 4))
    nan = np.isnan(wide)
    assert np.isnan(found[nan].astype(np.float32)).all()
    assert found[~nan].tobytes() == every[~nan].tobytes()


def test_random_bits_differ_with_everything_they_depend_on() -> None:
    value = np.full(4096, 1.0 + 2.0**-8, np.float32)
    numbers = ((0, 1, 0, 0), (1, 1, 0, 0), (0, 2, 0, 0), (0, 1, 1, 0), (0, 1, 0, 2), (-1, 1, 0, 0))
    draws = [
        optim_narrow.round_stochastically(value, BFLOAT16, 0, optim_narrow.key_of(*each))
        for each in numbers
    ]
    for index, draw in enumerate(draws):
        for other in draws[:index]:
            # Independent draws agree in half of the places; 320 is ten standard deviations.
            assert abs(int((draw == other).sum()) - 2048) < 320


def test_groups_and_missing_gradients_do_not_shift_the_random_bits() -> None:
    def start() -> list[Array]:
        return [np.ones(300, BFLOAT16) for _ in range(3)]

    def bits(arrays: list[Array]) -> list[bytes]:
        return [array.tobytes() for array in arrays]

    grad = np.ones(300, np.float32)
    options: dict[str, Any] = {"lr": 1e-3, "rounding": "stochastic"}
    whole, groups, without = start(), start(), start()
    Adam(whole, **options).step([grad] * 3)
    Adam([{"params": groups[:1]}, {"params": groups[1:]}], **options).step([grad] * 3)
    Adam(without, **options).step([grad, None, grad])
    assert bits(whole) == bits(groups)
    assert bits(without)[::2] == bits(whole)[::2]
    assert len(set(bits(whole))) == 3


def test_shared_memory_is_refused_before_anything_is_written() -> None:
    p, g = np.ones(300, np.float32), np.ones(300, np.float32)
    codes, scales = np.zeros(600, np.uint8), np.zeros(2, np.float32)
    first = BlockwiseState.of(codes[:300], scales, True)
    touching = BlockwiseState.of(codes[200:500], np.zeros(2, np.float32), False)
    same = BlockwiseState.of(codes[300:], scales, False)
    frozen = BlockwiseState(300, False)
    frozen.codes.flags.writeable = False
    for state, message in (
        (touching, r"`exp_avg_sq\[0\].codes` must not share memory with `exp_avg\[0\].codes`"),
        (same, r"`exp_avg_sq\[0\].scales` must not share memory with `exp_avg\[0\].scales`"),
        (frozen, r"`exp_avg_sq\[0\]` must be writeable"),
    ):
        with pytest.raises(ValueError, match="adam_step: " + message):
            adam_step(p, g, first, state, 1)
    with pytest.raises(TypeError, match="adam_step: `params` must be an array"):
        adam_step(first, g, first, touching, 1)  # type: ignore[arg-type]
    assert (p == 1).all() and not codes.any() and not scales.any()
