"""What the tests of attention share: the formula over whole matrices, its error bounds, cases."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from checks import SIGNIFICAND_BITS, dtype_of
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Expected:
    """What attention must give, in float64, and the sizes that bound its error."""

    out: Array
    lse: Array
    weights: Array
    keep: Array  # (..., heads, queries, keys): what is attended
    weighted: Array  # the weights times the magnitudes of the values
    size: Array  # the largest magnitude of what a row's scores are sums of
    slope: Array  # derivative of the soft-capped products by the products of queries and keys
    shape: tuple[int, int]  # keys, features


def plain(
    query: Array,
    key: Array,
    value: Array,
    *,
    mask: Any = True,
    bias: Any = 0.0,
    offset: Any = 0,
    causal: bool = False,
    window: tuple[int | None, int | None] = (None, None),
    scale: float | None = None,
    softcap: float | None = None,
    slopes: Any = 0.0,
    sinks: Any = None,
    lengths: tuple[Any, Any] | None = None,
) -> Expected:
    """Compute the formula over whole matrices in float64, for finite inputs."""
    q, k, v = (np.asarray(array).astype(np.float64) for array in (query, key, value))
    repeat = q.shape[-3] // max(k.shape[-3], 1)
    k, v = np.repeat(k, repeat, axis=-3), np.repeat(v, repeat, axis=-3)
    batch = np.broadcast_shapes(*(array.shape[:-3] for array in (q, k, v)))
    q, k, v = (np.broadcast_to(array, (*batch, *array.shape[-3:])) for array in (q, k, v))
    scale = max(q.shape[-1], 1) ** -0.5 if scale is None else scale
    scores = (q @ k.swapaxes(-1, -2)) * scale
    size = np.abs(scale) * (np.abs(q) @ np.abs(k).swapaxes(-1, -2))
    slope = np.full(scores.shape, float(scale))
    if softcap is not None:
        bent = np.tanh(scores / softcap)
        scores, slope = softcap * bent, slope * (1.0 - bent * bent)
    i, j = np.indices(scores.shape[-2:])
    distance = j - i - np.asarray(offset)[..., None, None, None]
    bias = np.asarray(bias).astype(np.float64)
    keep = np.broadcast_to(np.asarray(mask) & (bias != -np.inf), scores.shape).copy()
    bias = np.where(bias == -np.inf, 0.0, bias)
    far = np.asarray(slopes).astype(np.float64)[..., None, None] * np.abs(distance)
    scores, size = scores + bias - far, size + np.abs(bias) + np.abs(far)
    if causal:
        keep &= distance <= 0
    if window[0] is not None:
        keep &= distance >= -window[0]
    if window[1] is not None:
        keep &= distance <= window[1]
    queries, keys = (np.asarray(n)[..., None, None, None] for n in lengths or scores.shape[-2:])
    keep &= (i < queries) & (j < keys)
    scores = np.where(keep, scores, -np.inf)
    column = np.full((*scores.shape[:-1], 1), -np.inf)
    if sinks is not None:
        column[...] = np.asarray(sinks).astype(np.float64)[..., None, None]
        rows = np.arange(scores.shape[-2])[:, None]
        column[np.broadcast_to(rows >= queries, column.shape)] = -np.inf
    with np.errstate(divide="ignore"):
        lse = np.logaddexp.reduce(np.concatenate([scores, column], axis=-1), axis=-1)
    weights = np.exp(scores - np.where(np.isinf(lse), 0.0, lse)[..., None])
    return Expected(
        out=weights @ v,
        lse=lse,
        weights=weights,
        keep=keep,
        weighted=weights @ np.abs(v),
        size=np.where(keep, size, 0.0).max(axis=-1, initial=0.0) + np.where(np.isinf(lse), 0, lse),
        slope=slope,
        shape=(scores.shape[-1], q.shape[-1]),
    )


def sum_to(array: Array, shape: tuple[int, ...]) -> Array:
    """Sum over what broadcasting from `shape` repeats."""
    array = array.sum(axis=tuple(range(array.ndim - len(shape))))
    axes = tuple(k for k, n in enumerate(shape) if n == 1)
    return np.asarray(array.sum(axis=axes, keepdims=True).reshape(shape))


def plain_vjp(
    query: Array, key: Array, value: Array, cotangent: Array, options: dict[str, Any]
) -> dict[str, tuple[Array, Array]]:
    """Compute each gradient over whole matrices, and the sum of the magnitudes of its terms."""
    expected = plain(query, key, value, **options)
    q, k, v, g = (np.asarray(x).astype(np.float64) for x in (query, key, value, cotangent))
    repeat = q.shape[-3] // max(k.shape[-3], 1)
    k, v = np.repeat(k, repeat, axis=-3), np.repeat(v, repeat, axis=-3)
    batch = np.broadcast_shapes(*(array.shape[:-3] for array in (q, k, v)))
    q, k, v = (np.broadcast_to(array, (*batch, *array.shape[-3:])) for array in (q, k, v))
    p, out = expected.weights, expected.out
    product = (g * out).sum(axis=-1, keepdims=True)
    sizes = (np.abs(g) * np.abs(out)).sum(axis=-1, keepdims=True)
    both = []
    for sign in (False, True):
        x, y, z, f = (np.abs(a) if sign else a for a in (q, k, v, g))
        rate = f @ z.swapaxes(-1, -2)
        d_scores = p * (rate + sizes if sign else rate - product)
        slope = np.abs(options.get("scale", q.shape[-1] ** -0.5 if q.shape[-1] else 1.0) or 0.0)
        d_products = d_scores * (slope if sign else expected.slope)
        found = [d_products @ y, d_products.swapaxes(-1, -2) @ x, p.swapaxes(-1, -2) @ f]
        for n in (1, 2):
            heads = (*found[n].shape[:-3], key.shape[-3], repeat, *found[n].shape[-2:])
            found[n] = found[n].reshape(heads).sum(axis=-3)
        found.append(d_scores)
        if options.get("sinks") is not None:
            sink = np.asarray(options["sinks"]).astype(np.float64)[..., None]
            level = np.where(expected.keep.any(axis=-1), expected.lse, np.inf)
            share = np.exp(sink - level) * (sizes if sign else -product)[..., 0]
            found.append(share.sum(axis=-1))
        both.append(found)
    named = {"query": query, "key": key, "value": value}
    named |= {name: np.asarray(options[name]) for name in ("bias", "sinks") if name in options}
    order = {name: n for n, name in enumerate(("query", "key", "value", "bias", "sinks"))}
    return {
        name: (sum_to(both[0][order[name]], a.shape), sum_to(both[1][order[name]], a.shape))
        for name, a in named.items()
    }


def gradient_bound(expected: Expected, name: str, rows: int) -> float:
    """Return the error of a gradient relative to the magnitudes of its terms.

    Weights err as in `assert_right`, and by the error of the log-sum-exp; each sum rounds once
    per term. 16-bit types round the result of the forward pass, weights and factors, and the
    gradient itself.
    """
    keys, features = expected.shape
    unit = 2.0 ** (-53 if name == "float64" else -24)
    level = np.where(np.isinf(expected.lse), 0.0, np.abs(expected.lse)).max(initial=0.0)
    score = (features + 8) * np.abs(expected.size).max(initial=0.0) + 4.0 * level
    narrow = 2.0 ** (-1 - SIGNIFICAND_BITS[name])
    return float(unit * (2.0 * score + 2.0 * keys + rows + features + 64) + 4.0 * narrow)


def assert_right(
    got: Array, lse: Array | None, expected: Expected, name: str, rows: Array | bool = True
) -> None:
    """Compare, in the given rows, with what rounding explains.

    A score is a sum of products and of a few more terms: each addition rounds once, in float32 or
    float64 (16-bit types only store). An error d of all scores of a row changes its weights by
    2 d at most, and their sums over the keys round once per key. Products of 16-bit numbers may
    round the weights to 16 bits; the result is rounded once more.
    """
    keys, features = expected.shape
    unit = 2.0 ** (-53 if name == "float64" else -24)
    score = unit * (features + 8) * np.abs(expected.size)
    narrow = 2.0 ** (-1 - SIGNIFICAND_BITS[name])
    relative = 2.0 * score + unit * (keys + 16) + (narrow if name.endswith("16") else 0.0)
    least = float(np.finfo(np.float16).smallest_subnormal if name == "float16" else 1e-37)
    bound = relative[..., None] * expected.weighted + narrow * np.abs(expected.out) + least
    _assert_below(got, expected.out, bound, np.broadcast_to(np.asarray(rows)[..., None], got.shape))
    if lse is not None:
        bound = score + unit * (
            keys + 16 + 4.0 * np.abs(np.where(np.isinf(expected.lse), 0, expected.lse))
        )
        _assert_below(lse, expected.lse, bound, np.broadcast_to(rows, lse.shape))


def _assert_below(got: Array, expected: Array, bound: Array, rows: Array) -> None:
    assert got.shape == expected.shape
    wide = got.astype(np.float64)
    with np.errstate(invalid="ignore"):
        close = (np.abs(wide - expected) <= bound) | (wide == expected) | ~rows
    if not close.all():
        worst = np.unravel_index(np.argmin(close), close.shape)
        raise AssertionError(
            f"{(~close).sum()} of {close.size} wrong, first at {worst}: {wide[worst]}, "
            f"expected {expected[worst]} +- {bound[worst]}"
        )


# Sizes around the widths of vectors and the edges of blocks.
LENGTHS = (0, 1, 2, 3, 13, 14, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 130)
FEATURES = (0, 1, 3, 7, 8, 13, 15, 16, 17, 31, 32, 33, 48, 63, 64, 65, 80, 127, 128, 130)
HEADS = ((1, 1), (2, 1), (3, 3), (4, 2), (6, 2), (5, 1), (0, 0))
BATCHES = ((), (1,), (2,), (3,), (2, 2), (0,))
OPTIONS = ("mask", "bias", "causal", "window", "scale", "softcap", "slopes", "sinks", "lengths")


@dataclass
class Case:
    """Arguments of attention and the same in the words of `plain`."""

    arrays: tuple[Array, Array, Array]
    ours: dict[str, Any] = field(default_factory=dict)
    theirs: dict[str, Any] = field(default_factory=dict)

    def both(self, name: str, value: Any, plainly: str | None = None) -> None:
        self.ours[name] = self.theirs[plainly or name] = value


def lay_out(random: np.random.Generator, array: Array) -> Array:
    """Return the array with its axes in any order in memory and steps of any size and sign.

    Now and then one axis repeats its first entry, by a stride of zero.
    """
    if array.ndim == 0:
        return array
    order = random.permutation(array.ndim)
    steps = random.choice([1, 1, 1, 2, 3, -1, -2], size=array.ndim)
    if random.random() < 0.3:
        steps = np.ones_like(steps)
    host = np.zeros([array.shape[a] * abs(steps[a]) for a in order], array.dtype)
    inverse = np.argsort(order)
    view = host.transpose(inverse)[tuple(slice(None, None, int(step)) for step in steps)]
    view[...] = array
    if array.size and random.random() < 0.15:
        axis = int(random.integers(array.ndim))
        view = np.broadcast_to(np.take(view, [0], axis=axis), array.shape)
    return view


def _narrowed(random: np.random.Generator, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape that broadcasts to `shape`."""
    kept = tuple(1 if random.random() < 0.3 else size for size in shape)
    return kept[int(random.integers(len(kept) + 1)) :] if random.random() < 0.4 else kept


def make_case(
    random: np.random.Generator,
    batch: tuple[int, ...],
    heads: tuple[int, int],
    lengths: tuple[int, int],
    features: tuple[int, int],
    name: str,
    options: set[str],
) -> Case:
    """Draw arrays and options; `options` says which are there."""
    # One of the arrays, drawn too, has the whole batch.
    batches = [batch, _narrowed(random, batch), _narrowed(random, batch)]
    first, second, third = (batches[k] for k in random.permutation(3))
    shapes = [
        (*first, heads[0], lengths[0], features[0]),
        (*second, heads[1], lengths[1], features[0]),
        (*third, heads[1], lengths[1], features[1]),
    ]
    q, k, v = (
        lay_out(random, random.standard_normal(shape).astype(dtype_of(name))) for shape in shapes
    )
    case = Case((q, k, v))
    full = (*batch, heads[0], *lengths)
    if "mask" in options:
        mask = np.asarray(random.random(_narrowed(random, full)) < random.choice([0.1, 0.5, 0.9]))
        if mask.ndim and random.random() < 0.5:
            mask[..., : int(random.integers(lengths[1] + 1)) // 2] = False
        case.both("mask", lay_out(random, mask))
    if "bias" in options:
        bias = random.standard_normal(_narrowed(random, full))
        bias = np.where(random.random(bias.shape) < 0.2, -np.inf, bias)
        dtype = random.choice(["float64", "float32", name])
        case.both("bias", lay_out(random, bias.astype(dtype_of(dtype))))
    if "scale" in options:
        case.both("scale", float(random.choice([0.0, -0.7, 0.3, 1.0])))
    if "softcap" in options:
        case.both("softcap", float(random.choice([0.5, 2.0, 30.0])))
    if "slopes" in options:
        slopes = random.random(_narrowed(random, full[:-2])).astype(np.float32)
        case.ours["alibi_slopes"] = case.theirs["slopes"] = slopes
    if "sinks" in options:
        case.both("sinks", 3.0 * random.standard_normal(_narrowed(random, full[:-2])))
    _add_positions(random, case, batch, lengths, options)
    return case


def _add_positions(
    random: np.random.Generator,
    case: Case,
    batch: tuple[int, ...],
    lengths: tuple[int, int],
    options: set[str],
) -> None:
    queries: Any = lengths[0]
    keys: Any = lengths[1]
    offset: Any
    if "lengths" in options:
        queries = random.integers(0, lengths[0] + 1, _narrowed(random, batch))
        keys = random.integers(0, lengths[1] + 1, _narrowed(random, batch))
        case.ours |= {"query_lengths": queries, "key_lengths": keys}
        case.theirs["lengths"] = (queries, keys)
    if "causal" in options:
        kind = int(random.integers(5))
        if kind == 0 and "lengths" not in options and queries == keys:
            case.ours["causal"], offset = True, 0
        elif kind <= 1:
            case.ours["causal"], offset = "top_left", 0
        elif kind == 2:
            case.ours["causal"], offset = "bottom_right", np.subtract(keys, queries)
        elif kind == 3:
            case.ours["causal"] = offset = int(random.integers(-lengths[0], lengths[1] + 1))
        else:
            shape = _narrowed(random, batch)
            case.ours["causal"] = offset = random.integers(-lengths[0], lengths[1] + 1, shape)
        case.theirs |= {"causal": True, "offset": offset}
    if "window" in options:
        sides = [None if random.random() < 0.3 else int(random.integers(40)) for _ in range(2)]
        case.both("window", tuple(sides))
