"""Caches of keys and values: decoding equals attention over the whole, in every form."""

from typing import Any

import numpy as np
import pytest
from checks import DTYPES, SIGNIFICAND_BITS, dtype_of, random_for
from numpy.typing import NDArray

from unitstride import KVCache, attention, rotary

Array = NDArray[Any]

FORMS: dict[str, dict[str, Any]] = {
    "block": {"capacity": 40},
    "exact block": {"capacity": 23},
    "pages of 1": {"capacity": None, "page_size": 1},
    "pages of 4": {"capacity": None, "page_size": 4},
    "pages of 64": {"capacity": 40, "page_size": 64},
}
OPTIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "window": {"window": (5, None)},
    "softcap and scale": {"softcap": 2.0, "scale": 0.7},
    "alibi": {"alibi_slopes": [0.5, 0.25, 0.125, 0.0]},
    "sinks": {"sinks": [[1.0, 0.0, -1.0, 3.0], [0.0, 2.0, 0.0, 0.0]]},
}


def tokens(random: np.random.Generator, length: int, dtype: Any) -> tuple[Array, Array, Array]:
    """Two sequences, four heads of queries, two of keys."""
    shapes = (2, 4, length, 6), (2, 2, length, 6), (2, 2, length, 3)
    q, k, v = (random.standard_normal(shape).astype(dtype) for shape in shapes)
    return q, k, v


def assert_near(got: Array, expected: Array, name: str) -> None:
    """Allow results of magnitude 4 some roundings; 16-bit parts are rounded before a merge."""
    bits = SIGNIFICAND_BITS[name]
    atol = 2.0 ** (2 - bits) if name.endswith("16") else 2.0 ** (6 - bits)
    wide = (x.astype(np.float64) for x in (got, expected))
    np.testing.assert_allclose(*wide, rtol=0, atol=atol)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("label", OPTIONS)
@pytest.mark.parametrize("rotated", [False, True])
def test_steps_equal_the_whole(form: str, label: str, rotated: bool) -> None:
    """A prompt of 7, then tokens one by one, then a chunk of 5."""
    q, k, v = tokens(random_for("steps", form, label), 23, np.float64)
    turn: dict[str, Any] = {"dimensions": 4, "interleaved": True, "base": 100.0}
    cache = KVCache(
        2,
        2,
        features=6,
        value_features=3,
        dtype=np.float64,
        rotary=turn if rotated else None,
        **FORMS[form],
    )
    got = []
    for first, last in [(0, 7), *((n, n + 1) for n in range(7, 18)), (18, 23)]:
        part = (..., slice(first, last), slice(None))
        cache.append(k[part], v[part])
        assert cache.length == last and (cache.lengths == last).all()
        got.append(cache.attend(q[part], **OPTIONS[label]))
    if rotated:
        q, k = rotary(q, **turn), rotary(k, **turn)
    expected = attention(q, k, v, causal=True, **OPTIONS[label])
    assert_near(np.concatenate(got, axis=-2), expected, "float64")


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("form", FORMS)
def test_dtypes(form: str, name: str) -> None:
    q, k, v = tokens(random_for("dtypes", form, name), 23, dtype_of(name))
    cache = KVCache(2, 2, features=6, value_features=3, dtype=q.dtype, **FORMS[form])
    cache.append(k, v)
    got, lse = cache.attend(q, return_lse=True)
    expected, level = attention(q, k, v, causal=True, return_lse=True)
    assert got.dtype == expected.dtype and lse.dtype == level.dtype
    assert_near(got, expected, name)
    # Levels of magnitude 8 of 23 keys, merged in float64 from parts in float32.
    np.testing.assert_allclose(lse, level, rtol=0, atol=2e-5 if name != "float64" else 1e-13)


@pytest.mark.parametrize("steps", [(1,) * 30, (3, 1, 8, 1, 1, 5, 4, 7), (12, 18), (30,)])
@pytest.mark.parametrize("rotated", [False, True])
def test_a_window_on_a_ring_equals_the_windowed_whole(
    steps: tuple[int, ...], rotated: bool
) -> None:
    q, k, v = tokens(random_for("ring", steps), sum(steps), np.float64)
    turn: dict[str, Any] | None = {} if rotated else None
    cache = KVCache(2, 2, 4 + max(steps), 6, 3, dtype="float64", ring=True, rotary=turn)
    options: dict[str, Any] = {"window": (4, None), "sinks": 0.5, "alibi_slopes": 0.1}
    bias = random_for("bias").standard_normal((4, sum(steps), sum(steps)))
    got, first = [], 0
    for count in steps:
        part = (..., slice(first, first + count), slice(None))
        cache.append(k[part], v[part])
        first += count
        columns = bias[:, first - count : first, :first]
        got.append(cache.attend(q[part], bias=columns, **options))
    if rotated:
        q, k = rotary(q), rotary(k)
    expected = attention(q, k, v, causal=True, bias=bias, **options)
    assert_near(np.concatenate(got, axis=-2), expected, "float64")


def test_more_tokens_than_a_ring_holds_leave_the_last() -> None:
    q, k, v = tokens(random_for("long"), 21, np.float64)
    cache = KVCache(2, 2, 8, 6, 3, dtype=np.float64, ring=True)
    cache.append(k, v)
    got = cache.attend(q[..., -1:, :])
    assert_near(got, attention(q[..., -1:, :], k[..., -8:, :], v[..., -8:, :]), "float64")


@pytest.mark.parametrize(
    "form", [{"capacity": 40}, {"capacity": 9, "ring": True}, {"capacity": None, "page_size": 3}]
)
def test_sequences_of_different_lengths(form: dict[str, Any]) -> None:
    random = random_for("ragged", form)
    cache = KVCache(2, 2, features=6, value_features=3, dtype=np.float64, rotary={}, **form)
    seen: list[list[tuple[Array, Array]]] = [[], []]
    mask = np.ones((2, 1, 1, 40), bool)
    mask[0, ..., 6], mask[1, ..., 5] = False, False
    for counts in ([4, 1], [0, 3], [3, 3], [1, 0], [1, 1], [2, 4]):
        q, k, v = tokens(random, 4, np.float64)
        cache.append(k, v, counts=counts)
        now = mask[..., : cache.length]
        got, lse = cache.attend(q, counts=counts, mask=now, window=(4, 0), return_lse=True)
        for entry, count in enumerate(counts):
            seen[entry].append((k[entry, :, :count], v[entry, :, :count]))
            keys, values = (np.concatenate(x, axis=1) for x in zip(*seen[entry], strict=True))
            length = keys.shape[1]
            assert cache.lengths[entry] == length
            query = rotary(q[entry, :, :count], np.arange(length - count, length))
            expected, level = attention(
                query,
                rotary(keys),
                values,
                causal="bottom_right",
                window=(4, 0),
                mask=mask[entry, ..., :length],
                return_lse=True,
            )
            assert_near(got[entry, :, :count], expected, "float64")
            np.testing.assert_allclose(lse[entry, :, :count], level, rtol=0, atol=1e-13)
            assert (got[entry, :, count:] == 0).all()


@pytest.mark.parametrize("form", ["block", "pages of 4"])
def test_truncate_and_reset(form: str) -> None:
    q, k, v = tokens(random_for("truncate", form), 23, np.float64)
    cache = KVCache(2, 2, features=6, value_features=3, dtype=np.float64, **FORMS[form])
    cache.append(k, v)
    size = cache.nbytes
    cache.truncate([9, 12])
    np.testing.assert_array_equal(cache.lengths, [9, 12])
    cache.truncate(9)
    cache.append(k[..., 9:23, :], v[..., 9:23, :])
    assert_near(cache.attend(q), attention(q, k, v, causal=True), "float64")
    cache.reset()
    assert cache.length == 0 and (cache.attend(q[..., :1, :]) == 0).all()
    cache.append(k, v)
    assert_near(cache.attend(q), attention(q, k, v, causal=True), "float64")
    assert cache.nbytes == size


def test_a_ring_forgets_and_says_so() -> None:
    _, k, v = tokens(random_for("forget"), 10, np.float64)
    cache = KVCache(2, 2, 6, 6, 3, dtype=np.float64, ring=True)
    cache.append(k, v)
    with pytest.raises(ValueError, match=r"^KVCache.truncate: `lengths` must be 0 or at least 4"):
        cache.truncate(3)
    cache.truncate(7)
    cache.append(k[..., 7:8, :], v[..., 7:8, :])
    q = np.ones((2, 2, 1, 6))
    # Positions 4 to 7 are left.
    assert_near(cache.attend(q), attention(q, k[..., 4:8, :], v[..., 4:8, :]), "float64")


def test_pages_of_a_sequence_stay_together() -> None:
    """Two sequences that grow in turn: the second begins in the middle of what is free."""
    cache = KVCache(2, 1, None, 1, page_size=2)
    one = np.ones((2, 1, 16, 1), np.float32)
    cache.append(one, one)
    cache.reset()
    for _ in range(16):
        cache.append(one[:, :, :1], one[:, :, :1])
    tables = cache._storage.tables  # type: ignore[union-attr]
    for table in tables:
        assert (np.diff(table) == 1).sum() >= len(table) - 2
    assert not set(tables[0]) & set(tables[1])


def test_all_positions_without_causal() -> None:
    q, k, v = tokens(random_for("full"), 9, np.float32)
    cache = KVCache(2, 2, 9, 6, 3)
    cache.append(k, v)
    assert_near(cache.attend(q, causal=False), attention(q, k, v), "float32")


def test_what_is_refused_changes_nothing() -> None:
    _, k, v = tokens(random_for("refused"), 5, np.float32)
    cache = KVCache(2, 2, 8, 6, 3)
    cache.append(k, v)
    keys = cache._storage.keys.copy()
    cases: list[tuple[Any, Any, dict[str, Any], type[Exception], str]] = [
        (k, v, {}, ValueError, "`key` must leave sequences of at most 8 positions"),
        (k[0], v, {}, ValueError, r"`key` must have shape \(2, 2, tokens, 6\)"),
        (k, k, {}, ValueError, r"`value` must have shape \(2, 2, tokens, 3\)"),
        (k, v[:, :, :3], {}, ValueError, "`value` must have the 5 tokens of `key`, got 3"),
        (k, v, {"counts": [1, 6]}, ValueError, "`counts` must lie between 0 and 5, got 6"),
        (k, v, {"counts": [1, 1, 1]}, ValueError, "`counts` must be one integer or one for"),
        (k, v, {"counts": 1.5}, TypeError, "`counts` must be integers, got 1.5"),
    ]
    for key, value, options, error, message in cases:
        with pytest.raises(error, match=rf"^KVCache.append: {message}"):
            cache.append(key, value, **options)
    assert cache.length == 5
    np.testing.assert_array_equal(cache._storage.keys, keys)


def test_errors_name_the_argument() -> None:
    makes: list[tuple[tuple[Any, ...], dict[str, Any], type[Exception], str]] = [
        ((1, 0, 4, 2), {}, ValueError, "`heads` must be an integer of 1 or more, got 0"),
        ((1, 1, 4.0, 2), {}, TypeError, "`capacity` must be an integer of 1 or more, got 4.0"),
        ((1, 1, None, 2), {}, ValueError, "`capacity` must be given without `page_size`"),
        ((1, 1, 4, 2), {"page_size": 2, "ring": True}, ValueError, "`ring` must be False with"),
        ((1, 1, 4, 2), {"dtype": "int8"}, TypeError, "`dtype` must be float16, bfloat16"),
        ((1, 1, 4, 2), {"rotary": {"sine": 1}}, TypeError, "`rotary` must have options among"),
    ]
    for arguments, options, error, message in makes:
        with pytest.raises(error, match=rf"^KVCache: {message}"):
            KVCache(*arguments, **options)
    cache = KVCache(1, 1, 4, 2)
    cache.append(np.ones((1, 1, 3, 2)), np.ones((1, 1, 3, 2)))
    q = np.ones((1, 2, 1, 2))
    calls: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
        (q[0], {}, ValueError, r"`query` must have shape \(1, query heads, tokens, 2\)"),
        (q, {"mask": np.ones(4, bool)}, ValueError, r"`mask` must have a last axis of 3"),
        (q, {"causal": False, "window": (1, 1)}, ValueError, "`window` must be None without"),
        (q, {"key_lengths": 2}, TypeError, "options must be among those of `attention`"),
    ]
    for query, options, error, message in calls:
        with pytest.raises(error, match=rf"^KVCache.attend: {message}"):
            cache.attend(query, **options)
    assert repr(cache).startswith("KVCache(block of float32, batch=1, heads=1")
