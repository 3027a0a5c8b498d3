"""Values of the softmax family: known answers, special values, axes, dtypes, masks, weights."""

import math
import pickle
from typing import Any

import numpy as np
import pytest
from checks import DTYPES, assert_same_bits, dtype_of, random_for

from unitstride import LogSumExp, log_softmax, logsumexp, softmax, softmax_vjp

INF, NAN = math.inf, math.nan


# Known answers.


def test_known_answers() -> None:
    np.testing.assert_array_equal(softmax([1000.0, 2000.0, 3000.0]), [0, 0, 1])
    np.testing.assert_array_equal(softmax([[5.0, 5.0, 5.0, 5.0]]), [[0.25] * 4])
    np.testing.assert_array_equal(softmax([0.0, -math.log(3)]).round(15), [0.75, 0.25])
    expected = [-0.41703001, -1.41703001, -2.31703001]
    np.testing.assert_allclose(log_softmax([2.0, 1.0, 0.1]), expected, rtol=2e-8)
    np.testing.assert_allclose(logsumexp([1000.0, 1000.0]), 1000 + math.log(2), rtol=1e-15)
    # The others are exp(-50): 1 + S is 1, and yet log_softmax of the largest is -S.
    assert log_softmax([0.0, -50.0])[0] == pytest.approx(-math.exp(-50), rel=1e-15)


def test_vjp_known_answer() -> None:
    np.testing.assert_array_equal(softmax_vjp([0.5, 0.5], [1.0, 0.0]), [0.25, -0.25])


# NaN and infinities: rows by kind, where in the row, how long, masked or not.


def oracle(operation: str, row: list[float], selected: list[bool]) -> Any:
    """Compute one row in plain Python, rule by rule as the documentation states them."""
    chosen = [x for x, keep in zip(row, selected, strict=True) if keep]
    masked = {"softmax": 0.0, "log_softmax": -INF}
    if any(math.isnan(x) for x in chosen):
        level = NAN
    elif not chosen or max(chosen) in (INF, -INF):
        level = max(chosen, default=-INF)
    else:
        highest = max(chosen)
        level = highest + math.log(math.fsum(math.exp(x - highest) for x in chosen))
    if operation == "logsumexp":
        return level
    defined = math.isfinite(level)

    def element(x: float) -> float:
        if not defined:
            return NAN
        return math.exp(x - level) if operation == "softmax" else x - level

    pairs = zip(row, selected, strict=True)
    return [element(x) if keep else masked[operation] for x, keep in pairs]


SPECIAL = {
    "one NaN": [NAN],
    "NaN and +inf": [NAN, INF],
    "NaN and -inf": [-INF, NAN],
    "+inf": [INF],
    "two +inf": [INF, INF],
    "+inf and -inf": [-INF, INF],
    "-inf": [-INF],
    "two -inf": [-INF, -INF],
    "zeros of both signs": [-0.0, 0.0],
    "all -inf": None,
    "all NaN": None,
    "all +inf": None,
}
MASKS = ("none", "all true", "special ones out", "special ones only", "all false", "every other")


def special_row(kind: str, length: int, place: str, random: Any) -> list[float]:
    if SPECIAL[kind] is None:
        return [{"all -inf": -INF, "all NaN": NAN, "all +inf": INF}[kind]] * length
    row = random.standard_normal(length).tolist()
    values = SPECIAL[kind][:length]
    begin = {"first": 0, "middle": (length - len(values)) // 2, "last": length - len(values)}
    for i, value in enumerate(values):
        row[begin[place] + i] = value
    return row


def mask_of(kind: str, row: list[float]) -> Any:
    special = np.array([not math.isfinite(x) for x in row])
    return {
        "none": None,
        "all true": np.ones(len(row), bool),
        "special ones out": ~special,
        "special ones only": special,
        "all false": np.zeros(len(row), bool),
        "every other": np.arange(len(row)) % 2 == 0,
    }[kind]


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("operation", ["softmax", "log_softmax", "logsumexp"])
@pytest.mark.parametrize("name", DTYPES)
def test_special_values(name: str, operation: str, mask: str, isa: str) -> None:
    """12 kinds of rows, at 3 places, 7 lengths from one element to pieces, by rows and columns."""
    function = {"softmax": softmax, "log_softmax": log_softmax, "logsumexp": logsumexp}[operation]
    random = random_for("special", name, operation, mask)
    tolerance = 6 * 2.0 ** -{"float32": 23, "float64": 52, "float16": 10, "bfloat16": 7}[name]
    for length in (1, 2, 7, 33, 100):
        rows = [
            np.array(special_row(kind, length, place, random)).astype(dtype_of(name)).tolist()
            for kind in SPECIAL
            for place in ("first", "middle", "last")
        ]
        masks = [mask_of(mask, row) for row in rows]
        full = [[True] * length if m is None else m.tolist() for m in masks]
        expected = [oracle(operation, row, keep) for row, keep in zip(rows, full, strict=True)]
        x = np.array(rows).astype(dtype_of(name))
        where = None if masks[0] is None else np.array(masks)
        with np.errstate(invalid="ignore"):
            by_rows = function(x, where=where)
            turned = None if where is None else np.ascontiguousarray(where.T)
            by_columns = function(np.ascontiguousarray(x.T), axis=0, where=turned)
        np.testing.assert_allclose(
            by_rows.astype(float), expected, rtol=tolerance, atol=tolerance, err_msg=str(length)
        )
        assert_same_bits(by_columns.T, by_rows, f"columns of {length}")


@pytest.mark.parametrize("name", ["float32", "float64"])
@pytest.mark.parametrize("kind", SPECIAL)
def test_special_values_in_long_lines(name: str, kind: str, isa: str) -> None:
    """Lines in pieces: what is special about one piece reaches the whole line."""
    length = 200_003
    for place in ("first", "middle", "last"):
        row = special_row(kind, length, place, random_for("long", kind, place))
        x = np.array(row, name)
        with np.errstate(invalid="ignore"):
            y, level = softmax(x, return_lse=True)
            logarithm = log_softmax(x)
        chosen = x.astype(np.float64)
        with np.errstate(invalid="ignore"):
            expected_level = float(np.logaddexp.reduce(np.sort(chosen)))
        np.testing.assert_allclose(level, expected_level, rtol=1e-6)
        assert np.isnan(y).all() == (not math.isfinite(expected_level))
        assert np.isnan(logarithm).all() == (not math.isfinite(expected_level))
        if math.isfinite(expected_level):
            assert math.fsum(y.astype(float)) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("axis", [0, 1])
def test_special_rows_leave_the_others_alone(name: str, axis: int, isa: str) -> None:
    for lines, length in ((37, 5), (9, 70), (130, 33)):
        x = random_for(name, axis, lines).standard_normal((lines, length)).astype(dtype_of(name))
        x = np.ascontiguousarray(x if axis else x.T)
        clean = softmax(x, axis=axis), log_softmax(x, axis=axis), logsumexp(x, axis=axis)
        for value in (NAN, INF, -INF):
            spoilt = x.copy()
            line = [lines // 2, slice(None)] if axis else [slice(None), lines // 2]
            spoilt[tuple(line)] = value
            keep = np.arange(lines) != lines // 2
            with np.errstate(invalid="ignore"):
                results = (
                    softmax(spoilt, axis=axis),
                    log_softmax(spoilt, axis=axis),
                    logsumexp(spoilt, axis=axis),
                )
            for got, expected in zip(results, clean, strict=True):
                other = 1 - axis if got.ndim == 2 else 0
                assert_same_bits(np.compress(keep, got, other), np.compress(keep, expected, other))


def test_masked_out_values_never_leak() -> None:
    x = random_for("leak").standard_normal((6, 40)).astype(np.float32)
    where = random_for("mask").random((6, 40)) < 0.6
    where[2] = False
    clean = [function(x, where=where) for function in (softmax, log_softmax, logsumexp)]
    for value in (NAN, INF, -INF, 3e38):
        spoilt = np.where(where, x, np.float32(value))
        for function, expected in zip((softmax, log_softmax, logsumexp), clean, strict=True):
            assert_same_bits(function(spoilt, where=where), expected, function.__name__)
    np.testing.assert_array_equal(clean[0][2], 0)
    np.testing.assert_array_equal(clean[1][2], -INF)
    assert clean[2][2] == -INF


# Shapes and dtypes.


@pytest.mark.parametrize("axis", [-1, 0, None, (), (0,), (-1,)])
@pytest.mark.parametrize("name", DTYPES)
def test_zero_dimensional_input_is_one_element(name: str, axis: Any) -> None:
    x = np.array(2.5).astype(dtype_of(name))
    assert_same_bits(softmax(x, axis=axis), np.ones_like(x))
    assert_same_bits(log_softmax(x, axis=axis), np.zeros_like(x))
    assert isinstance(softmax(x, axis=axis), np.ndarray)
    level = logsumexp(x, axis=axis)
    assert level == 2.5 and level.dtype == x.dtype and not isinstance(level, np.ndarray)


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 3), (2, 0, 4)])
def test_zero_size(name: str, shape: tuple[int, ...]) -> None:
    x = np.zeros(shape, dtype_of(name))
    for axis in (*range(-len(shape), len(shape)), None):
        assert softmax(x, axis=axis).shape == shape
        assert log_softmax(x, axis=axis).dtype == x.dtype
        level = np.asarray(logsumexp(x, axis=axis))
        kept = () if axis is None else tuple(np.delete(shape, axis))
        assert_same_bits(level, np.full(kept, -INF, x.dtype))
    y, level = softmax(x, axis=None, return_lse=True)
    assert y.shape == shape and level == -INF
    # Inside records of an odd number of bytes nothing is aligned, were there anything.
    host = np.zeros([n + 2 for n in shape], [("tag", "u1"), ("value", dtype_of(name))])
    field = host["value"][tuple(slice(n) for n in shape)]
    for axis in (*range(len(shape)), None):
        assert_same_bits(logsumexp(field, axis=axis), logsumexp(x, axis=axis))
        assert softmax(field, axis=axis).shape == shape


@pytest.mark.parametrize("dtype", [bool, "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"])
def test_integers_and_booleans_become_float64(dtype: Any) -> None:
    x = random_for(dtype).integers(0, 2, (4, 9)).astype(dtype)
    for function in (softmax, log_softmax, logsumexp):
        assert_same_bits(function(x), function(x.astype(np.float64)))


def test_large_integers_are_cast_like_numpy_does() -> None:
    x = np.array([2**63 - 1, 2**63 - 1025, 0])
    assert_same_bits(softmax(x), softmax(x.astype(np.float64)))


@pytest.mark.parametrize("name", DTYPES)
def test_dtype_argument_casts_first(name: str) -> None:
    dtype = dtype_of(name)
    x = random_for("dtype", name).standard_normal((5, 21)) * 4
    for source in (x, x.astype(np.float32), x.astype(np.float16), x.astype(np.longdouble)):
        for function in (softmax, log_softmax, logsumexp):
            expected = function(source.astype(dtype))
            assert_same_bits(function(source, dtype=dtype), expected)
            out = np.empty_like(expected)
            assert function(source, dtype=dtype, out=out) is out
            assert_same_bits(out, expected)


def test_a_reduction_to_one_number_is_a_scalar() -> None:
    x = random_for("scalar").standard_normal((3, 4)).astype(np.float32)
    assert type(logsumexp(x, axis=None)) is np.float32
    assert type(logsumexp(x[0])) is np.float32
    assert type(softmax(x, axis=None, return_lse=True)[1]) is np.float32
    assert type(logsumexp(x, axis=None, keepdims=True)) is np.ndarray


@pytest.mark.parametrize("axis", [0, 1, -1, (0, 2), None])
def test_keepdims(axis: Any) -> None:
    x = random_for("keep").standard_normal((3, 4, 5))
    level = logsumexp(x, axis=axis)
    kept = logsumexp(x, axis=axis, keepdims=True)
    assert kept.shape == np.sum(x, axis=axis, keepdims=True).shape
    assert_same_bits(np.squeeze(kept), np.squeeze(level))
    out = np.empty_like(kept)
    assert logsumexp(x, axis=axis, keepdims=True, out=out) is out
    assert_same_bits(out, kept)


# Masks.


@pytest.mark.parametrize("name", DTYPES)
def test_a_mask_is_the_same_as_minus_infinity(name: str, isa: str) -> None:
    for shape in ((6, 5), (6, 50), (2, 90_001)):
        x = random_for("as -inf", name, shape).standard_normal(shape).astype(dtype_of(name))
        where = random_for("where", name, shape).random(shape) < 0.5
        where[:, 1] = True
        hidden = np.where(where, x, np.array(-INF, x.dtype))
        for function in (softmax, log_softmax, logsumexp):
            assert_same_bits(function(x, where=where), function(hidden), function.__name__)


@pytest.mark.parametrize("axis", [0, 1, -1, None, (0, 2)])
def test_masks_broadcast(axis: Any) -> None:
    x = random_for("broadcast", axis).standard_normal((4, 5, 6)).astype(np.float32)
    random = random_for("masks", axis)
    for shape in ((), (1,), (6,), (5, 1), (4, 1, 1), (1, 5, 6), (4, 5, 6)):
        where = np.asarray(random.random(shape) < 0.6)
        full = np.ascontiguousarray(np.broadcast_to(where, x.shape))
        for function in (softmax, log_softmax, logsumexp):
            assert_same_bits(function(x, axis, where=where), function(x, axis, where=full))
    assert_same_bits(softmax(x, axis, where=True), softmax(x, axis))
    np.testing.assert_array_equal(softmax(x, axis, where=False), 0)
    nested = full.tolist()
    assert_same_bits(softmax(x, axis, where=nested), softmax(x, axis, where=full))


# Temperature.


@pytest.mark.parametrize("temperature", [0.25, 2.0, 1024.0])
@pytest.mark.parametrize("name", DTYPES)
def test_a_power_of_two_divides_exactly(name: str, temperature: float) -> None:
    """x / temperature is exact then, so both ways are within their budgets of one truth."""
    x = random_for(temperature).standard_normal((7, 40)).astype(dtype_of(name))
    divided = (x.astype(float) / temperature).astype(x.dtype)
    epsilon = 2.0 ** -{"float32": 23, "float64": 52, "float16": 10, "bfloat16": 7}[name]
    for function in (softmax, log_softmax, logsumexp):
        got = function(x, temperature=temperature).astype(float)
        # Two results of at most 4 ULP of error each.
        np.testing.assert_allclose(got, function(divided).astype(float), rtol=8 * epsilon)


def test_temperatures_of_any_number_type() -> None:
    x = random_for("types").standard_normal((3, 8))
    expected = softmax(x, temperature=2.0)
    for temperature in (2, np.float32(2), np.int64(2), np.array(2.0), True + True):
        assert_same_bits(softmax(x, temperature=temperature), expected)


# return_lse.


@pytest.mark.parametrize("axis", [0, 1, -1, (0, 1), None])
@pytest.mark.parametrize("name", DTYPES)
def test_return_lse_gives_both_from_one_pass(name: str, axis: Any, isa: str) -> None:
    for shape in ((6, 7, 40), (3, 2, 1000)):
        x = random_for("both", name, axis, shape).standard_normal(shape).astype(dtype_of(name))
        where = random_for("both mask", name, axis, shape).random(shape) < 0.8
        for keywords in ({}, {"where": where}, {"temperature": 0.3}):
            y, level = softmax(x, axis, return_lse=True, **keywords)
            assert_same_bits(y, softmax(x, axis, **keywords))
            assert_same_bits(level, logsumexp(x, axis, **keywords))


# Weights.


def weighted_oracle(x: Any, b: Any) -> tuple[float, float]:
    """Return log(abs(sum)) and its sign, exactly rounded sums."""
    highest = max(x)
    total = math.fsum(w * math.exp(v - highest) for v, w in zip(x, b, strict=True))
    sign = math.copysign(1.0, total) if total else 0.0
    return (math.log(abs(total)) + highest if total else -INF), sign


@pytest.mark.parametrize("name", DTYPES)
def test_weights_of_both_signs(name: str) -> None:
    x = (random_for("x", name).standard_normal((20, 11)) * 3).astype(dtype_of(name))
    b = random_for("b", name).standard_normal((20, 11)).astype(dtype_of(name))
    expected = [weighted_oracle(*rows) for rows in zip(x.tolist(), b.tolist(), strict=True)]
    level, sign = logsumexp(x, b=b, return_sign=True)
    assert level.dtype == sign.dtype == x.dtype
    np.testing.assert_array_equal(sign.astype(float), [s for _, s in expected])
    # The sum of both signs cancels by less than 2^6 in this data, and the logarithm is near 1.
    epsilon = 2.0 ** -{"float32": 23, "float64": 52, "float16": 10, "bfloat16": 7}[name]
    tolerance = 64 * epsilon if name == "float64" else 4 * epsilon
    np.testing.assert_allclose(
        level.astype(float), [v for v, _ in expected], rtol=tolerance, atol=tolerance
    )
    with np.errstate(invalid="ignore"):
        unsigned = logsumexp(x, b=b)
    assert_same_bits(unsigned, np.where(sign < 0, np.array(NAN, x.dtype), level))


def test_weights_of_zero_ignore_anything() -> None:
    x = [1.0, INF, NAN, -INF, 2.0]
    assert logsumexp(x, b=[1, 0, 0, 0, 1]) == pytest.approx(logsumexp([1.0, 2.0]), rel=1e-15)
    assert logsumexp(x, b=np.zeros(5)) == -INF
    assert logsumexp(x, b=0) == -INF


def test_weights_of_one_change_nothing() -> None:
    x = random_for("ones").standard_normal((8, 30))
    for weights in (1, 1.0, np.ones(30), np.ones((8, 1)), np.ones((8, 30), np.float32), True):
        np.testing.assert_allclose(logsumexp(x, b=weights), logsumexp(x), rtol=1e-14)


def test_weights_that_cancel() -> None:
    with pytest.warns(RuntimeWarning, match="divide by zero encountered in logsumexp"):
        level, sign = logsumexp([1.0, 1.0], b=[1.0, -1.0], return_sign=True)
    assert (level, sign) == (-INF, 0.0)


def test_sign_without_weights() -> None:
    x = [[1.0, 2.0], [-INF, -INF], [NAN, 1.0], [INF, 1.0]]
    level, sign = logsumexp(x, return_sign=True)
    # Two roundings of the expected value and two of the result: 2 ULP.
    expected = [2 + math.log1p(math.exp(-1)), -INF, NAN, INF]
    np.testing.assert_allclose(level, expected, rtol=2 * np.finfo(np.float64).eps)
    np.testing.assert_array_equal(sign, [1, 0, NAN, 1])


def test_weights_with_masks_axes_and_keepdims() -> None:
    random = random_for("weights")
    x, b = random.standard_normal((4, 5, 6)), random.standard_normal((5, 1))
    where = random.random((4, 5, 6)) < 0.7
    level, sign = logsumexp(x, axis=(0, 2), b=b, where=where, keepdims=True, return_sign=True)
    assert level.shape == sign.shape == (1, 5, 1)
    for i in range(5):
        chosen = x[:, i][where[:, i]]
        expected, expected_sign = weighted_oracle(chosen.tolist(), [b[i, 0]] * len(chosen))
        assert level[0, i, 0] == pytest.approx(expected, rel=1e-13)
        assert sign[0, i, 0] == expected_sign


# The mergeable state.


@pytest.mark.parametrize("name", DTYPES)
def test_state_in_any_number_of_pieces(name: str) -> None:
    x = (random_for("state", name).standard_normal((3, 100)) * 5).astype(dtype_of(name))
    epsilon = 2.0 ** -{"float32": 23, "float64": 52, "float16": 10, "bfloat16": 7}[name]
    for cuts in ([100], [1, 99], [33, 33, 34], [10] * 10):
        state = LogSumExp()
        for begin, end in zip(np.cumsum([0, *cuts]), np.cumsum(cuts), strict=False):
            state.update(x[:, begin:end])
        assert state.value.dtype == x.dtype
        np.testing.assert_allclose(
            state.value.astype(float), logsumexp(x).astype(float), rtol=4 * epsilon
        )


def test_states_merge_in_any_order() -> None:
    x = random_for("merge").standard_normal((4, 3, 50)) * 20
    values = []
    for order in ((0, 1, 2), (2, 1, 0), (1, 0, 2)):
        parts = [LogSumExp(axis=-1) for _ in range(3)]
        for part, piece in zip(parts, np.array_split(x, 3, axis=-1), strict=True):
            part.update(piece)
        total = LogSumExp()
        for number in order:
            total.merge(parts[number])
        values.append(total.value)
    # Three pieces, each with half an ULP, and two merges.
    for value in values:
        np.testing.assert_allclose(value, logsumexp(x), rtol=4 * np.finfo(float).eps)


def test_merging_leaves_the_other_alone() -> None:
    first, second = LogSumExp(), LogSumExp()
    first.update([1.0, 2.0])
    second.update([3.0])
    before = second.value
    first.merge(second)
    first.merge(first)
    assert second.value == before
    assert first.value == pytest.approx(logsumexp([1.0, 2.0, 3.0] * 2), rel=1e-15)


def test_empty_states() -> None:
    assert LogSumExp().value == -INF
    state = LogSumExp()
    state.merge(LogSumExp())
    assert state.value == -INF
    state.update(np.zeros((2, 0)))
    np.testing.assert_array_equal(state.value, [-INF, -INF])
    state.update(np.zeros((2, 1)))
    np.testing.assert_array_equal(state.value, [0.0, 0.0])


def test_state_with_special_values() -> None:
    state = LogSumExp()
    state.update([[-INF], [INF], [NAN], [1.0]])
    state.update([[2.0], [1.0], [1.0], [-INF]])
    np.testing.assert_array_equal(state.value, [2.0, INF, NAN, 1.0])
    state.update([[INF], [INF], [INF], [NAN]])
    np.testing.assert_array_equal(state.value, [INF, INF, NAN, NAN])


@pytest.mark.parametrize("axis", [0, 1, (0, 2), None])
def test_state_over_any_axis(axis: Any) -> None:
    x = random_for("axis", axis).standard_normal((3, 4, 5))
    state = LogSumExp(axis)
    state.update(x)
    state.update(x)
    np.testing.assert_allclose(state.value, logsumexp(x, axis) + math.log(2), rtol=1e-15)


def test_state_pickles() -> None:
    state = LogSumExp(axis=0)
    state.update(random_for("pickle").standard_normal((6, 2)).astype(np.float32))
    copy = pickle.loads(pickle.dumps(state))
    assert_same_bits(copy.value, state.value)
    copy.update(np.ones((1, 2), np.float32))
    assert (copy.value > state.value).all()


def test_state_refuses_what_does_not_fit() -> None:
    state = LogSumExp()
    state.update(np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"LogSumExp\.update: `x` must have .*\(2,\), got \(4,\)"):
        state.update(np.zeros((4, 3)))
    other = LogSumExp()
    other.update(np.zeros((5, 3)))
    with pytest.raises(ValueError, match=r"LogSumExp\.merge: `other` must have"):
        state.merge(other)
    with pytest.raises(TypeError, match=r"LogSumExp\.merge: `other` must be a LogSumExp, got int"):
        state.merge(3)
    np.testing.assert_allclose(state.value, [math.log(3)] * 2, rtol=1e-15)


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize(
    ("lines", "length"), [(16, 33), (70, 40), (300, 65), (33, 4100), (17, 40000)]
)
def test_lines_side_by_side_become_contiguous(name: str, lines: int, length: int) -> None:
    host = random_for(name, lines).standard_normal((length, lines + 3)).astype(dtype_of(name))
    host[length // 2, lines // 2] = NAN
    x = host[:, 1 : lines + 1].T  # does not begin on a cache line
    rows = np.ascontiguousarray(x)
    for function in (softmax, log_softmax):
        out, expected = np.empty_like(rows), np.empty_like(rows)
        assert function(x, out=out) is out
        assert_same_bits(out, function(rows, out=expected), function.__name__)
        assert np.isnan(out).any(axis=1).sum() == 1
    out = np.empty_like(rows)
    _, level = softmax(x, out=out, return_lse=True)
    expected, expected_level = softmax(rows, return_lse=True)
    assert_same_bits(out, expected)
    assert_same_bits(level, expected_level)
