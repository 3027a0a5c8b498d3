"""Attention: options against the plain formula and PyTorch, NaN and empty rows, layouts, errors."""

import math
from typing import Any

import numpy as np
import pytest
from attention_cases import (
    BATCHES,
    FEATURES,
    HEADS,
    LENGTHS,
    OPTIONS,
    Case,
    assert_right,
    make_case,
    plain,
)
from checks import DTYPES, dtype_of, isa_levels, random_for
from numpy.typing import NDArray

from unitstride import attention, merge_attention

Array = NDArray[Any]


def make(
    random: np.random.Generator,
    batch: tuple[int, ...] = (2,),
    heads: tuple[int, int] = (4, 2),
    lengths: tuple[int, int] = (7, 11),
    features: tuple[int, int] = (5, 3),
    dtype: Any = np.float64,
) -> tuple[Array, Array, Array]:
    shapes = (
        (*batch, heads[0], lengths[0], features[0]),
        (*batch, heads[1], lengths[1], features[0]),
        (*batch, heads[1], lengths[1], features[1]),
    )
    q, k, v = (random.standard_normal(shape).astype(dtype) for shape in shapes)
    return q, k, v


_random = random_for("options")
_MASK = _random.random((7, 11)) < 0.6
_BIAS = _random.standard_normal((2, 1, 7, 11))
_SLOPES = np.array([0.5, 0.25, 0.125, 0.0])
_SINKS = np.array([0.3, -1.0, 2.0, 30.0])
# Options of `attention`, and the same in the words of `plain`.
GIVEN: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "none": ({}, {}),
    "mask": ({"mask": _MASK}, {"mask": _MASK}),
    "bias": ({"bias": _BIAS}, {"bias": _BIAS}),
    "top_left": ({"causal": "top_left"}, {"causal": True}),
    "bottom_right": ({"causal": "bottom_right"}, {"causal": True, "offset": 4}),
    "offset": ({"causal": -2}, {"causal": True, "offset": -2}),
    "offsets": ({"causal": [1, -3]}, {"causal": True, "offset": [1, -3]}),
    "window": ({"window": (2, 3)}, {"window": (2, 3)}),
    "left window": ({"window": (2, None), "causal": 1}, {"window": (2, 0), "offset": 1}),
    "right window": ({"window": (None, 0)}, {"causal": True}),
    "scale": ({"scale": -1.5}, {"scale": -1.5}),
    "softcap": ({"softcap": 0.7, "bias": _BIAS}, {"softcap": 0.7, "bias": _BIAS}),
    "alibi": ({"alibi_slopes": _SLOPES}, {"slopes": _SLOPES}),
    "alibi offset": (
        {"alibi_slopes": _SLOPES, "causal": "bottom_right"},
        {"slopes": _SLOPES, "causal": True, "offset": 4},
    ),
    "sinks": ({"sinks": _SINKS, "mask": _MASK}, {"sinks": _SINKS, "mask": _MASK}),
    "lengths": (
        {"query_lengths": [7, 3], "key_lengths": [0, 9], "sinks": _SINKS},
        {"lengths": ([7, 3], [0, 9]), "sinks": _SINKS},
    ),
    "lengths and causal": (
        {"query_lengths": [6, 3], "key_lengths": [4, 9], "causal": "bottom_right"},
        {"lengths": ([6, 3], [4, 9]), "causal": True, "offset": [-2, 6]},
    ),
    "all": (
        {
            "mask": _MASK,
            "bias": _BIAS,
            "causal": [3, 2],
            "window": (4, None),
            "scale": 0.3,
            "softcap": 2.0,
            "alibi_slopes": _SLOPES,
            "sinks": _SINKS,
            "key_lengths": 10,
        },
        {
            "mask": _MASK,
            "bias": _BIAS,
            "offset": [3, 2],
            "window": (4, 0),
            "scale": 0.3,
            "softcap": 2.0,
            "slopes": _SLOPES,
            "sinks": _SINKS,
            "lengths": (7, 10),
        },
    ),
}


@pytest.mark.parametrize("label", GIVEN)
@pytest.mark.parametrize("name", DTYPES)
def test_options_agree_with_the_plain_formula(label: str, name: str) -> None:
    arrays = make(random_for(label, name), dtype=dtype_of(name))
    ours, theirs = GIVEN[label]
    got, lse = attention(*arrays, return_lse=True, **ours)
    wide = "float64" if name == "float64" else "float32"
    assert got.dtype == dtype_of(name) and lse.dtype == np.dtype(wide)
    assert_right(got, lse, plain(*arrays, **theirs), name)


def test_blocks_of_rows_agree_with_the_plain_formula() -> None:
    """900 keys of two heads that share them: rows go in blocks of 145."""
    arrays = make(random_for("blocks"), (), (2, 1), (400, 900), (4, 2))
    cases: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({}, {}),
        ({"causal": "bottom_right"}, {"causal": True, "offset": 500}),
        ({"window": (30, 20), "causal": 200}, {"window": (30, 0), "offset": 200}),
        ({"causal": -150}, {"causal": True, "offset": -150}),
    ]
    for ours, theirs in cases:
        assert_right(attention(*arrays, **ours), None, plain(*arrays, **theirs), "float64")


def test_a_bias_of_minus_infinity_is_a_mask_also_beside_a_softcap() -> None:
    q, k, v = make(random_for("poison"))
    v[:, :, 2] = k[:, :, 2] = np.nan
    bias = np.zeros((7, 11))
    bias[:, 2] = bias[3] = -np.inf
    got, lse = attention(q, k, v, bias=bias, softcap=1.0, return_lse=True)
    k[:, :, 2] = v[:, :, 2] = 0.0
    assert_right(got, lse, plain(q, k, v, mask=bias == 0, softcap=1.0), "float64")
    assert (got[:, :, 3] == 0).all() and (lse[:, :, 3] == -np.inf).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["key", "value"])
def test_what_is_excluded_never_leaks_and_what_is_attended_shows(bad: float, where: str) -> None:
    q, k, v = make(random_for("leak", bad), lengths=(11, 11))
    clean = attention(q, k, v, causal=True)
    (k if where == "key" else v)[:, :, 6] = bad
    with np.errstate(all="ignore"):
        got = attention(q, k, v, causal=True)
    np.testing.assert_array_equal(got[:, :, :6], clean[:, :, :6])
    if where == "value" or math.isnan(bad):
        assert not np.isfinite(got[:, :, 6:]).any()


def test_a_query_of_nan_shows_in_its_row_alone_unless_it_attends_to_nothing() -> None:
    q, k, v = make(random_for("query"))
    clean = attention(q, k, v)
    q[:, :, [2, 4]] = np.nan
    mask = np.arange(7)[:, None] != 4
    got, lse = attention(q, k, v, mask=mask, return_lse=True)
    assert np.isnan(got[:, :, 2]).all() and np.isnan(lse[:, :, 2]).all()
    assert (got[:, :, 4] == 0).all() and (lse[:, :, 4] == -np.inf).all()
    np.testing.assert_array_equal(got[:, :, [0, 1, 3, 5, 6]], clean[:, :, [0, 1, 3, 5, 6]])


def test_an_empty_row_with_a_sink_is_zero_and_its_level_is_the_sink() -> None:
    q, k, v = make(random_for("sink"))
    got, lse = attention(q, k, v, sinks=_SINKS, key_lengths=0, return_lse=True)
    assert (got == 0).all()
    expected = np.broadcast_to(_SINKS[:, None], lse.shape)
    # The kernel keeps levels as powers of two: one rounding on the way there, one on the way back.
    np.testing.assert_allclose(lse, expected, rtol=4 * np.finfo(lse.dtype).eps)


@pytest.mark.parametrize(
    ("batch", "heads", "lengths", "features"),
    [
        ((0,), (2, 2), (3, 4), (5, 6)),
        ((2,), (2, 1), (0, 4), (5, 6)),
        ((2,), (2, 2), (3, 0), (5, 6)),
        ((2,), (2, 2), (3, 4), (0, 6)),
        ((2,), (2, 2), (3, 4), (5, 0)),
        ((), (0, 0), (3, 4), (5, 6)),
        ((), (0, 2), (3, 4), (5, 6)),
    ],
)
def test_empty_sizes(
    batch: tuple[int, ...],
    heads: tuple[int, int],
    lengths: tuple[int, int],
    features: tuple[int, int],
) -> None:
    q, k, v = make(random_for("empty"), batch, heads, lengths, features)
    got, lse = attention(q, k, v, return_lse=True)
    assert got.shape == (*batch, heads[0], lengths[0], features[1])
    assert lse.shape == got.shape[:-1]
    if lengths[1] == 0:
        assert (got == 0).all() and (lse == -np.inf).all()
    elif got.size and features[0] == 0:
        expected = np.broadcast_to(v.mean(axis=-2, keepdims=True), got.shape)
        np.testing.assert_allclose(got, expected, rtol=1e-14)  # sums of four float64


def test_layouts_and_broadcast_batches_change_no_bit() -> None:
    q, k, v = make(random_for("layouts"), (3, 2))
    expected = attention(q, k, v)
    views = [np.ascontiguousarray(a.swapaxes(-3, -2)).swapaxes(-3, -2) for a in (q, k, v)]
    views[2] = views[2][..., ::-1].copy()[..., ::-1]
    np.testing.assert_array_equal(attention(*views), expected)
    for entry in np.ndindex(3, 2):
        np.testing.assert_array_equal(attention(q[entry], k[entry], v[entry]), expected[entry])
    shared = attention(q, k[1, 1], v[:1])
    repeated = attention(q, np.broadcast_to(k[1, 1], k.shape), np.broadcast_to(v[:1], v.shape))
    np.testing.assert_array_equal(shared, repeated)


def test_out_is_returned_and_may_overlap_an_input() -> None:
    q, k, v = make(random_for("out"), heads=(2, 2), features=(4, 4))
    expected = attention(q, k, v)
    out = np.empty_like(q)
    assert attention(q, k, v, out=out) is out
    np.testing.assert_array_equal(out, expected)
    assert attention(q, k, v, out=q) is q
    np.testing.assert_array_equal(q, expected)


@pytest.mark.parametrize("split", [0, 1, 5, 11])
def test_merged_parts_equal_the_whole(split: int) -> None:
    q, k, v = make(random_for("merge", split))
    mask = random_for("mask").random((7, 11)) < 0.4
    mask[3] = False
    whole, level = attention(q, k, v, mask=mask, return_lse=True)
    parts = [
        attention(q, k[..., s, :], v[..., s, :], mask=mask[:, s], return_lse=True)
        for s in (slice(None, split), slice(split, None))
    ]
    got, lse = merge_attention(*parts[0], *parts[1])
    # Two weighted parts: a few ULP of values that are at most 4 or so, like the levels.
    np.testing.assert_allclose(got, whole, rtol=0, atol=1e-14)
    np.testing.assert_allclose(lse, level, rtol=0, atol=1e-14)


@pytest.mark.parametrize("given", ["none", "causal", "mask", "bias"])
def test_agrees_with_pytorch(given: str) -> None:
    torch = pytest.importorskip("torch")
    arrays = make(random_for("torch", given))
    extra = {"mask": _MASK, "bias": _BIAS}.get(given)
    theirs = torch.nn.functional.scaled_dot_product_attention(
        *map(torch.from_numpy, arrays),
        attn_mask=None if extra is None else torch.from_numpy(extra),
        is_causal=given == "causal",
        enable_gqa=True,
    )
    options: dict[str, Any] = {} if extra is None else {given: extra}
    got = attention(*arrays, causal="top_left" if given == "causal" else False, **options)
    # Two roundings of some ULP each of numbers that are at most 4 or so.
    np.testing.assert_allclose(got, theirs.numpy(), rtol=0, atol=1e-14)


@pytest.mark.parametrize("causal", [False, True])
def test_errors_are_below_those_of_the_plain_formula_and_of_pytorch(causal: bool) -> None:
    torch = pytest.importorskip("torch")
    arrays = make(random_for("accuracy"), (1,), (4, 4), (256, 256), (64, 64), np.float32)
    exact = plain(*arrays, causal=causal).out
    q, k, v = arrays
    scores = (q @ k.swapaxes(-1, -2)) * np.float32(0.125)
    if causal:
        scores = np.where(np.tri(256, dtype=bool), scores, np.float32(-np.inf))
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    formula = (weights / weights.sum(axis=-1, keepdims=True)) @ v
    peer = torch.nn.functional.scaled_dot_product_attention(
        *map(torch.from_numpy, arrays), is_causal=causal
    ).numpy()

    def error(result: Any) -> float:
        return float(np.sqrt(np.mean((result - exact) ** 2)))

    got = error(attention(*arrays, causal=causal))
    assert got <= 2.0 * error(formula) and got <= error(peer)


def _check(case: Case, name: str, random: np.random.Generator) -> None:
    """Compare with the formula; keys with NaN spoil the rows that attend to them, and no other."""
    q, k, v = case.arrays
    expected = plain(q, k, v, **case.theirs)
    poisoned = np.zeros(k.shape[-2], bool)
    if random.random() < 0.3 and k.size and v.size:
        k, v = k.copy(), v.copy()
        poisoned[random.random(k.shape[-2]) < 0.1] = True
        if random.random() < 0.5:
            k[..., poisoned, 0] = np.nan
        v[..., poisoned, :] = np.nan
    out = None
    if random.random() < 0.3:
        host = np.full([n + 1 for n in expected.out.shape[::-1]], 7.0, dtype_of(name))
        out = host.T[(slice(None, -1),) * host.ndim]
    got, lse = attention(q, k, v, return_lse=True, out=out, **case.ours)
    spoiled = np.asarray((expected.keep & poisoned).any(axis=-1))
    assert np.isnan(got[spoiled]).all()
    k_is_poisoned = bool(np.isnan(k[..., poisoned, :1].astype(np.float64)).any())
    assert_right(got, None if k_is_poisoned else lse, expected, name, ~spoiled)
    assert (got[~expected.keep.any(axis=-1)] == 0).all()
    if out is not None:
        assert got is out and (host[-1] == 7.0).all() and (host[..., -1] == 7.0).all()


def test_all_options_mixed(isa: str) -> None:
    """A thousand cases in all, as many at each level, each level with numbers of its own."""
    pytest.importorskip("hypothesis")
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st

    @settings(
        derandomize=True,
        max_examples=1000 // len(isa_levels()),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(
        st.tuples(
            st.sampled_from(BATCHES),
            st.sampled_from(HEADS),
            st.tuples(st.sampled_from(LENGTHS), st.sampled_from(LENGTHS)),
            st.tuples(st.sampled_from(FEATURES), st.sampled_from(FEATURES)),
            st.sampled_from(DTYPES),
        ),
        st.sets(st.sampled_from(OPTIONS)),
        st.integers(0, 2**32 - 1),
    )
    def check(shape: Any, options: set[str], seed: int) -> None:
        random = np.random.default_rng([seed, *map(ord, isa)])
        batch, heads, lengths, features, name = shape
        case = make_case(random, batch, heads, lengths, features, name, options)
        _check(case, name, random)

    check()


_Q, _K = np.ones((2, 4, 7, 5), np.float32), np.ones((2, 2, 11, 5), np.float32)
_WORDS = 'False, True, "top_left" or "bottom_right" or integer offsets'
_SIDES = "`window` must be two integers of 0 or more, None for an open side, got"


@pytest.mark.parametrize(
    ("arrays", "options", "error", "message"),
    [
        ((_Q[0, 0], _K, _K), {}, ValueError, "`query` must have at least 3 dimensions"),
        ((_Q, _K[..., :4], _K), {}, ValueError, "`key` must have the 5 features of `query`, got"),
        ((_Q[:, :3], _K, _K), {}, ValueError, "that divides the 3 of `query`, got 2"),
        ((_Q, _K, _K[:, :, :9]), {}, ValueError, "`value` must have the 2 heads and the length 11"),
        ((_Q[[0, 0, 0]], _K, _K), {}, ValueError, "must have batch dimensions that broadcast"),
        ((_Q.astype(complex), _K, _K), {}, TypeError, "`query` must be real floating point"),
        ((_Q, _K, _K), {"mask": np.ones(11)}, TypeError, "`mask` must be boolean"),
        ((_Q, _K, _K), {"mask": np.ones(7, bool)}, ValueError, "`mask` must be broadcastable"),
        ((_Q, _K, _K), {"bias": np.ones(7)}, ValueError, "`bias` must be broadcastable to shape"),
        ((_Q, _K, _K), {"causal": True}, ValueError, '`causal` must be "top_left" or "bottom_'),
        ((_Q, _K, _K), {"causal": "lower"}, ValueError, f"`causal` must be {_WORDS}, got 'lower'"),
        ((_Q, _K, _K), {"causal": 1.5}, TypeError, f"`causal` must be {_WORDS}, got 1.5"),
        ((_Q, _K, _K), {"causal": None}, TypeError, f"`causal` must be {_WORDS}, got None"),
        ((_Q, _K, _K), {"causal": [1, 2, 3]}, ValueError, "`causal` must be broadcastable to"),
        ((_Q, _K, _K), {"causal": 1 << 50}, ValueError, "`causal` must not exceed 2**40"),
        ((_Q, _K, _K), {"window": 3}, TypeError, f"{_SIDES} 3"),
        ((_Q, _K, _K), {"window": (1, 2.0)}, TypeError, f"{_SIDES} (1, 2.0)"),
        ((_Q, _K, _K), {"window": (True, 1)}, TypeError, f"{_SIDES} (True, 1)"),
        ((_Q, _K, _K), {"window": (-1, 1)}, ValueError, f"{_SIDES} (-1, 1)"),
        ((_Q, _K, _K), {"scale": np.inf}, ValueError, "`scale` must be a finite number, got inf"),
        ((_Q, _K, _K), {"scale": "1"}, TypeError, "`scale` must be a finite number, got '1'"),
        ((_Q, _K, _K), {"softcap": 0.0}, ValueError, "`softcap` must be a positive finite number"),
        ((_Q, _K, _K), {"alibi_slopes": [1, 2]}, ValueError, "`alibi_slopes` must be broadcast"),
        ((_Q, _K, _K), {"sinks": [1, 2]}, ValueError, "`sinks` must be broadcastable to shape"),
        ((_Q, _K, _K), {"key_lengths": 12}, ValueError, "`key_lengths` must lie between 0 and 11"),
        ((_Q, _K, _K), {"query_lengths": -1}, ValueError, "`query_lengths` must lie between 0"),
        ((_Q, _K, _K), {"key_lengths": 1.0}, TypeError, "`key_lengths` must be integers, got 1.0"),
        ((_Q, _K, _K), {"out": _Q}, TypeError, "`out` must have dtype float64, got float32"),
    ],
)
def test_errors_name_the_argument(
    arrays: tuple[Any, ...], options: dict[str, Any], error: type[Exception], message: str
) -> None:
    if "out" in options:
        arrays = tuple(array.astype(np.float64) for array in arrays)
    with pytest.raises(error) as caught:
        attention(*arrays, **options)
    assert str(caught.value).startswith("attention: ") and message in str(caught.value)


def test_merge_errors_name_the_argument() -> None:
    x, lse = np.ones((3, 2)), np.ones(3)
    with pytest.raises(ValueError, match=r"^merge_attention: `lse_b` must have shape \(3,\)"):
        merge_attention(x, lse, x, x)
    with pytest.raises(ValueError, match=r"^merge_attention: `out_b` must have shape \(3, 2\)"):
        merge_attention(x, lse, lse, lse)
