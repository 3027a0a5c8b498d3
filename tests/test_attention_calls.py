"""Plain calls of attention go straight to the core: the same bits as the general way gives."""

from typing import Any

import numpy as np
import pytest
from checks import core, random_for

from unitstride import attention

Array = np.ndarray[Any, Any]

pytestmark = pytest.mark.skipif(core is None, reason="the extension is not in use")


class Other(np.ndarray[Any, Any]):
    """What the core's own call does not recognise."""


def draw(case: int) -> tuple[tuple[Array, ...], dict[str, Any]]:
    random = random_for("plain attention", case)
    heads, group = int(random.integers(1, 3)), int(random.integers(1, 3))
    queries, keys = (int(n) for n in random.integers(1, 40, 2))
    features, values = (int(n) for n in random.integers(1, 70, 2))
    dtype = random.choice(["float32", "float64"])
    sizes = [(2, heads * group, queries, features), (2, heads, keys, features)]
    sizes.append((2, heads, keys, values))
    arrays = []
    for size in sizes:
        array = random.standard_normal(size).astype(dtype)
        if random.random() < 0.3:
            array = np.ascontiguousarray(array.swapaxes(1, 2)).swapaxes(1, 2)
        arrays.append(array)
    options: dict[str, Any] = {"causal": random.choice([False, "top_left", "bottom_right"])}
    options["causal"] = False if options["causal"] == "False" else str(options["causal"])
    if random.random() < 0.6:
        options["scale"] = float(random.choice([0.25, -1.0, 0.0]))
    options["return_lse"] = bool(random.random() < 0.5)
    return tuple(arrays), options


@pytest.mark.parametrize("case", range(60))
def test_both_ways_give_the_same_bits(case: int) -> None:
    arrays, options = draw(case)
    general = attention(arrays[0].view(Other), *arrays[1:], **options)
    shape = (*arrays[0].shape[:-1], arrays[2].shape[-1])
    outs = [None, np.empty(shape, arrays[0].dtype)]
    outs.append(np.empty((*shape[:-1], 2 * shape[-1]), arrays[0].dtype)[..., ::2])
    outs.append(np.empty(shape[::-1], arrays[0].dtype).T)
    outs.append(np.empty(shape, arrays[0].dtype)[:, :, ::-1])
    for out in outs:
        plain = attention(*arrays, out=out, **options)
        if options["return_lse"]:
            result, lse = plain
            np.testing.assert_array_equal(lse, general[1])
        else:
            result = plain
        np.testing.assert_array_equal(result, general[0] if options["return_lse"] else general)
        if out is not None:
            assert result is out


def test_an_output_over_an_input_is_read_first() -> None:
    (query, key, _), _ = draw(3)
    query, key = query[..., :8].copy(), key[..., :8].copy()
    expected = attention(query, key, key)
    np.testing.assert_array_equal(attention(query, key, key, out=query), expected)


def test_what_does_not_fit_is_refused_in_words() -> None:
    query = np.zeros((1, 2, 5, 8), np.float32)
    for out in (
        np.zeros((1, 2, 5, 7), np.float32),
        np.zeros((2, 5, 8), np.float32),
        np.zeros((1, 2, 5, 8), np.float64),
    ):
        with pytest.raises((ValueError, TypeError), match="attention: `out`"):
            attention(query, query, query, out=out)
    readonly = np.zeros((1, 2, 5, 8), np.float32)
    readonly.setflags(write=False)
    with pytest.raises(ValueError, match="attention: `out`"):
        attention(query, query, query, out=readonly)
    with pytest.raises((ValueError, TypeError), match="attention: `scale`"):
        attention(query, query, query, scale=float("nan"))
    with pytest.raises((ValueError, TypeError), match="attention: `out`"):
        attention(query, query, query, out=np.broadcast_to(np.float32(0), (1, 2, 5, 8)))
