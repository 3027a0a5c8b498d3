"""Small calls of attention, which the core answers by itself: the bits of the general way."""

from typing import Any

import numpy as np
import pytest
from attention_cases import BATCHES, FEATURES, HEADS, LENGTHS, OPTIONS, lay_out, make_case
from checks import DTYPES, assert_same_bits, dtype_of, needs_core, random_for
from numpy.typing import NDArray

from unitstride import attention, attention_vjp
from unitstride._attention_calls import NAMES
from unitstride._backend import core

Array = NDArray[Any]


class Other(np.ndarray[Any, Any]):
    """Arrays of a class that only the general way takes."""


def in_general(arrays: tuple[Array, ...]) -> tuple[Array, ...]:
    return (arrays[0].view(Other), *arrays[1:])


def options_of(given: dict[str, Any]) -> list[Any]:
    whole = {"causal": False} | given
    return [whole.get(name) for name in NAMES]


def assert_same_order(got: Array, expected: Array) -> None:
    """Compare the strides of axes that have any."""
    steps = [
        [step for step, size in zip(x.strides, x.shape, strict=True) if size > 1]
        for x in (got, expected)
    ]
    assert steps[0] == steps[1] or not got.size


_random = random_for("small calls")
_Q, _K, _V = (_random.standard_normal((2, 4, 16, 8), np.float32) for _ in range(3))
_NUMBERS = np.array([[0.3], [2.0]], np.float32)
SMALL: dict[str, dict[str, Any]] = {
    "none": {},
    "mask": {"mask": _random.random((16, 16)) < 0.5},
    "mask of all axes": {"mask": _random.random((1, 4, 1, 16)) < 0.5},
    "bias": {"bias": _random.standard_normal((4, 16, 16), np.float32)},
    "causal": {"causal": True},
    "bottom_right": {"causal": "bottom_right", "key_lengths": np.array([3, 16])},
    "offsets": {"causal": np.array([2, -3], np.int32)},
    "offset": {"causal": 2},
    "window": {"window": (3, None)},
    "scale": {"scale": np.float64(0.7)},
    "integer scale": {"scale": 2},
    "softcap": {"softcap": 3.0},
    "slopes": {"alibi_slopes": _NUMBERS},
    "sinks": {"sinks": _NUMBERS[0].astype(np.float64)},
    "lengths": {"query_lengths": 9, "key_lengths": np.array([7])},
}


@needs_core
@pytest.mark.parametrize("label", SMALL)
@pytest.mark.parametrize("name", DTYPES)
def test_small_calls_are_recognised(label: str, name: str) -> None:
    """Every option, in the plain types: the core answers, with the bits of the general way."""
    options = dict(SMALL[label])
    if label == "bias":
        options["bias"] = options["bias"].astype(dtype_of(name))
    arrays = tuple(x.swapaxes(1, 2).astype(dtype_of(name)).swapaxes(1, 2) for x in (_Q, _K, _V))
    expected = attention(*in_general(arrays), **options, return_lse=True)
    assert core is not None
    got = core.attention_fast(*arrays, *options_of(options), True, None)
    for x, y in zip(got, expected, strict=True):
        assert_same_bits(x, y)
        assert_same_order(x, y)
    out = np.empty((2, 16, 4, 8), dtype_of(name)).swapaxes(1, 2)
    assert core.attention_fast(*arrays, *options_of(options), False, out) is out
    assert_same_bits(out, expected[0])


@needs_core
@pytest.mark.parametrize("label", SMALL)
def test_small_gradients_are_recognised(label: str) -> None:
    options = SMALL[label]
    out, lse = attention(_Q, _K, _V, **options, return_lse=True)
    expected = attention_vjp(*in_general((_Q, _K, _V)), out, lse, np.cos(out), **options)
    assert core is not None
    got = core.attention_vjp_fast(_Q, _K, _V, *options_of(options), out, lse, np.cos(out))
    for x, y in zip(got, expected, strict=True):
        assert_same_bits(x, y)


@pytest.mark.parametrize("seed", range(6))
def test_both_ways_agree_on_mixed_options(seed: int) -> None:
    random = random_for("both ways", seed)
    for _ in range(40):
        sizes = [values[int(random.integers(len(values)))] for values in (BATCHES, HEADS)]
        lengths, features = random.choice(LENGTHS[:12], 2), random.choice(FEATURES[:12], 2)
        options = {option for option in OPTIONS if random.random() < 0.3}
        name = str(random.choice(DTYPES))
        case = make_case(random, *sizes, tuple(lengths), tuple(features), name, options)
        with np.errstate(all="ignore"):
            got = attention(*case.arrays, **case.ours, return_lse=True)
            expected = attention(*in_general(case.arrays), **case.ours, return_lse=True)
            beside = (*got, np.cos(got[0].astype(np.float64)).astype(got[0].dtype))
            got += attention_vjp(*case.arrays, *beside, **case.ours)
            expected += attention_vjp(*in_general(case.arrays), *beside, **case.ours)
        for x, y in zip(got, expected, strict=True):
            assert_same_bits(x, y, (sizes, lengths, features, case.ours))
            assert_same_order(x, y)


def test_errors_of_gradients_are_those_of_the_general_way() -> None:
    out, lse = attention(_Q, _K, _V, return_lse=True)
    with pytest.raises(ValueError, match=r"^attention_vjp: `lse` must have shape \(2, 4, 16\)"):
        attention_vjp(_Q, _K, _V, out, lse[..., :3], out)
    with pytest.raises(TypeError, match=r"^attention_vjp: options must be among .*, got 'masks'"):
        attention_vjp(_Q, _K, _V, out, lse, out, masks=None)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"`causal` must be .*, got None"):
        attention_vjp(_Q, _K, _V, out, lse, out, causal=None)  # type: ignore[arg-type]
    with np.errstate(all="raise"), pytest.raises(FloatingPointError, match="in attention_vjp"):
        attention_vjp(_Q * np.float32(1e30), _K, _V * np.float32(1e30), out, lse, out, scale=1e30)


def test_out_may_be_any_view_and_overlap_the_inputs() -> None:
    expected = attention(*in_general((_Q, _K, _V)), scale=0.5)
    for array in (_Q, _K, _V):
        given = [x.copy() if x is array else x for x in (_Q, _K, _V)]
        out = next(x for x, y in zip(given, (_Q, _K, _V), strict=True) if y is array)
        assert attention(*given, scale=0.5, out=out) is out
        assert_same_bits(out, expected)
    # A mask whose memory the result overwrites.
    host = np.zeros(_Q.shape, np.float32)
    mask = host.view(np.bool_)[0, 0, :, :16]
    mask[...] = SMALL["mask"]["mask"]
    wanted = attention(_Q, _K, _V, mask=mask.copy())
    assert_same_bits(attention(_Q, _K, _V, mask=mask, out=host), wanted)
    for seed in range(10):
        out = lay_out(random_for("out", seed), np.zeros_like(_Q))
        if 0 in out.strides:
            with pytest.raises(ValueError, match="`out` must"):
                attention(_Q, _K, _V, out=out, scale=0.5)
        else:
            assert attention(_Q, _K, _V, out=out, scale=0.5) is out
            assert_same_bits(out, expected)


@pytest.mark.parametrize("general", [False, True])
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"out": np.empty((2, 4, 16, 8))}, TypeError, "`out` must have dtype float32, got float64"),
        ({"out": np.empty((4, 16, 8), np.float32)}, ValueError, "`out` must have shape (2, 4, 16"),
        ({"out": [1.0]}, TypeError, "`out` must be a NumPy array, got list"),
        ({"out": np.broadcast_to(_Q[:1], _Q.shape)}, ValueError, "`out` must be writeable"),
        ({"mask": np.ones((16, 16), np.uint8)}, TypeError, "`mask` must be boolean"),
        ({"mask": np.ones((1, 2, 4, 16, 16), bool)}, ValueError, "`mask` must be broadcastable"),
        ({"bias": np.ones((15, 16), np.float32)}, ValueError, "`bias` must be broadcastable"),
        ({"bias": np.ones(16, complex)}, TypeError, "`bias` must be real floating point"),
        ({"scale": float("nan")}, ValueError, "`scale` must be a finite number, got nan"),
        ({"scale": 10**400}, TypeError, "`scale` must be a finite number, got 1000"),
        ({"softcap": -1.0}, ValueError, "`softcap` must be a positive finite number, got -1.0"),
        ({"causal": "diagonal"}, ValueError, "got 'diagonal'"),
        ({"causal": np.array([1 << 41])}, ValueError, "`causal` must not exceed 2**40"),
        ({"causal": True, "key_lengths": 3}, ValueError, "differ (16 and 3), got True"),
        ({"key_lengths": np.array([1, 17])}, ValueError, "must lie between 0 and 16, got 17"),
        ({"query_lengths": -1}, ValueError, "`query_lengths` must lie between 0 and 16, got -1"),
        ({"query_lengths": np.array([1, 2, 3])}, ValueError, "`query_lengths` must be broadcast"),
        ({"window": (1, -1)}, ValueError, "`window` must be two integers of 0 or more"),
        ({"sinks": np.ones(3)}, ValueError, "`sinks` must be broadcastable to shape (2, 4)"),
        ({"alibi_slopes": np.ones((2, 1, 4))}, ValueError, "`alibi_slopes` must be broadcast"),
    ],
)
def test_errors_are_those_of_the_general_way(
    options: dict[str, Any], error: type[Exception], message: str, general: bool
) -> None:
    arrays = in_general((_Q, _K, _V)) if general else (_Q, _K, _V)
    with pytest.raises(error) as caught:
        attention(*arrays, **options)
    assert str(caught.value).startswith("attention: ") and message in str(caught.value)


def test_results_that_are_not_finite_are_reported_once() -> None:
    wide = tuple(x.astype(np.float64) * 1e200 for x in (_Q, _K, _V))
    with np.errstate(all="raise"), pytest.raises(FloatingPointError, match="in attention"):
        attention(*wide, scale=1.0)
    value = _V.copy()
    value[0, 0, 3] = np.nan
    with np.errstate(all="raise"):
        assert np.isnan(attention(_Q, _K, value, scale=1.0)[0, 0]).all()
