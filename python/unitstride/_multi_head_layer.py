"""The arguments of multi-head attention, checked and brought to one form, and its weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import index
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unitstride import _arguments

Array = NDArray[Any]
Biases = Sequence[ArrayLike | None]

WEIGHTS = ("w_q", "w_k", "w_v", "w_o")


class MultiHeadWeights(NamedTuple):
    """What `multi_head_weights` returns: arguments of `multi_head_attention` in their order.

    Attributes
    ----------
    w_q, w_o : ndarray
        The first and the last projection.
    w_k, w_v : ndarray or None
        None where `w_q` is packed.
    biases : tuple of 4 ndarray or None
        In the order of the weights.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import MultiHeadWeights, multi_head_attention
    >>> one = np.eye(2)
    >>> weights = MultiHeadWeights(one, one, one, one, (None, None, None, None))
    >>> multi_head_attention(one, *weights[:4], biases=weights.biases, num_heads=1, scale=0.0)
    array([[0.5, 0.5],
           [0.5, 0.5]])
    """

    w_q: Array
    w_k: Array | None
    w_v: Array | None
    w_o: Array
    biases: tuple[Array | None, ...]


@dataclass(frozen=True)
class Layer:
    """Checked arguments in one dtype; `parts` are rows of the projections: queries, keys, values.

    Where the weights are packed, those of all three are one array, and so is their bias.
    """

    x: Array  # (..., queries, width)
    context: Array  # (..., keys, context width)
    weights: tuple[Array, ...]  # packed: (all rows, width); else three
    w_o: Array  # (width of the result, heads * value features)
    biases: tuple[Array | None, ...]  # of `weights`, then of `w_o`
    heads: int
    key_heads: int
    parts: tuple[slice, slice, slice]
    attends_to_itself: bool

    @property
    def packed(self) -> bool:
        """Say whether one array holds the projections of queries, keys and values."""
        return len(self.weights) == 1


def check_count(function: str, argument: str, value: Any) -> int:
    """Return a number of heads."""
    text = f"{function}: `{argument}` must be an integer of 1 or more, got {value!r}"
    try:
        count = index(value)
    except TypeError:
        raise TypeError(text) from None
    if count < 1:
        raise ValueError(text)
    return count


def _check_weight(function: str, argument: str, array: Array, width: int, what: str) -> None:
    if array.ndim != 2 or array.shape[1] != width:
        raise ValueError(
            f"{function}: `{argument}` must have shape (rows, {width}) to multiply {what}, "
            f"got {array.shape}"
        )


def _head_width(function: str, argument: str, rows: int, heads: int) -> int:
    if rows % heads:
        raise ValueError(
            f"{function}: `{argument}` must have a number of rows that {heads} heads divide, "
            f"got {rows}"
        )
    return rows // heads


def _read_biases(function: str, biases: Biases | None, rows: list[int | None]) -> list[Any]:
    """Return the biases in the order of the weights; `rows` is None where there is no weight."""
    given = [None] * 4 if biases is None else list(biases)
    if len(given) != 4:
        raise ValueError(
            f"{function}: `biases` must have 4 entries (None where there is none), got {len(given)}"
        )
    found: list[Any] = []
    for name, bias, size in zip(WEIGHTS, given, rows, strict=True):
        if bias is None or size is None:
            if bias is not None:
                raise ValueError(f"{function}: `biases` must be None where `{name}` is packed")
            found.append(None)
            continue
        array = _arguments.as_array(function, f"biases of {name}", bias)
        _arguments.check_shape(function, f"biases of {name}", array, (size,))
        found.append(array)
    return found


def _check_projections(
    function: str, arrays: list[Array | None], x: Array, context: Array, heads: tuple[int, int]
) -> tuple[slice, slice, slice]:
    """Return which rows of the weights make queries, keys and values."""
    many, few = heads
    w_q, w_k, w_v, _ = arrays
    assert w_q is not None
    _check_weight(function, "w_q", w_q, x.shape[-1], "`x`")
    if w_k is None or w_v is None:
        if w_k is not None or w_v is not None:
            raise ValueError(
                f"{function}: `w_k` and `w_v` must both be arrays, or both None beside packed "
                "weights, got one of each"
            )
        _check_weight(function, "w_q", w_q, context.shape[-1], "`context`")
        width = _head_width(function, "w_q", w_q.shape[0], many + 2 * few)
        ends = (many * width, (many + few) * width, (many + 2 * few) * width)
        return slice(0, ends[0]), slice(ends[0], ends[1]), slice(ends[1], ends[2])
    _check_weight(function, "w_k", w_k, context.shape[-1], "`context`")
    _check_weight(function, "w_v", w_v, context.shape[-1], "`context`")
    width = _head_width(function, "w_q", w_q.shape[0], many)
    if w_k.shape[0] != few * width:
        raise ValueError(
            f"{function}: `w_k` must have {few * width} rows ({few} heads of {width} features), "
            f"got {w_k.shape[0]}"
        )
    _head_width(function, "w_v", w_v.shape[0], few)
    return slice(0, w_q.shape[0]), slice(0, w_k.shape[0]), slice(0, w_v.shape[0])


def _check_tokens(function: str, argument: str, value: ArrayLike) -> Array:
    array = _arguments.as_array(function, argument, value)
    if array.ndim < 2:
        raise ValueError(
            f"{function}: `{argument}` must have at least 2 dimensions (..., length, features), "
            f"got shape {array.shape}"
        )
    return array


def prepare(
    function: str,
    x: ArrayLike,
    weights: tuple[ArrayLike | None, ...],
    biases: Biases | None,
    num_heads: int,
    num_kv_heads: int | None,
    context: ArrayLike | None,
    more: tuple[Array, ...] = (),
) -> Layer:
    """Check the arguments; `more` are arrays whose dtypes count for the one to work in."""
    tokens = _check_tokens(function, "x", x)
    other = tokens if context is None else _check_tokens(function, "context", context)
    heads = check_count(function, "num_heads", num_heads)
    few = heads if num_kv_heads is None else check_count(function, "num_kv_heads", num_kv_heads)
    if heads % few:
        raise ValueError(
            f"{function}: `num_kv_heads` must divide the {heads} of `num_heads`, got {few}"
        )
    arrays: list[Array | None] = []
    for name, weight in zip(WEIGHTS, weights, strict=True):
        missing = weight is None and name in ("w_k", "w_v")
        given = np.asarray(weight) if weight is None else weight
        arrays.append(None if missing else _arguments.as_array(function, name, given))
    parts = _check_projections(function, arrays, tokens, other, (heads, few))
    depth = (parts[2].stop - parts[2].start) // few
    w_o = arrays[3]
    assert w_o is not None
    _check_weight(function, "w_o", w_o, heads * depth, f"{heads} heads of {depth} features")
    rows = [None if array is None else array.shape[0] for array in arrays]
    shifts = _read_biases(function, biases, rows)
    projections = [array for array in arrays[:3] if array is not None]
    if len(projections) == 1:
        shifts = [shifts[0], shifts[3]]
    everything = [tokens, other, *projections, w_o, *(b for b in shifts if b is not None), *more]
    dtype = reduce(_arguments.wider, (array.dtype for array in everything))
    cast = [None if b is None else b.astype(dtype, copy=False) for b in shifts]
    return Layer(
        x=tokens.astype(dtype, copy=False),
        context=other.astype(dtype, copy=False),
        weights=tuple(array.astype(dtype, copy=False) for array in projections),
        w_o=w_o.astype(dtype, copy=False),
        biases=tuple(cast),
        heads=heads,
        key_heads=few,
        parts=parts,
        attends_to_itself=context is None,
    )


def _plain(value: Any) -> Array:
    """Return a tensor of PyTorch, or anything array-like, as an array."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        if str(value.dtype) == "torch.bfloat16":
            value = value.float()  # NumPy has no bfloat16 of its own
    return np.asarray(value)


def multi_head_weights(state: Mapping[str, Any], /, *, prefix: str = "") -> MultiHeadWeights:
    """Read the weights of a PyTorch ``MultiheadAttention`` for `multi_head_attention`.

    Parameters
    ----------
    state : mapping of str to arrays or tensors
        Its ``state_dict()``, or that of a model with the layer in it.
    prefix : str, default: ""
        What stands before the names of the layer, with its dot: "encoder.layers.0.self_attn.".

    Returns
    -------
    MultiHeadWeights
        `w_q`, `w_k`, `w_v`, `w_o` and `biases`; packed weights stay packed: `w_k` and `w_v` are
        None. Arrays share the memory of the tensors; bfloat16 is widened to float32.

    Raises
    ------
    ValueError
        For a state without weights of attention, and for one with ``add_bias_kv``, which
        `multi_head_attention` does not have.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import multi_head_weights
    >>> state = {"in_proj_weight": np.ones((6, 2)), "out_proj.weight": np.ones((2, 2))}
    >>> multi_head_weights(state).w_q.shape
    (6, 2)
    """
    name = "multi_head_weights"

    def find(key: str) -> Array | None:
        value = state.get(prefix + key)
        return None if value is None else _plain(value)

    for key in ("bias_k", "bias_v"):
        if find(key) is not None:
            raise ValueError(f"{name}: `state` must be without add_bias_kv, got {prefix + key!r}")
    packed, w_o = find("in_proj_weight"), find("out_proj.weight")
    separate = [find(f"{part}_proj_weight") for part in "qkv"]
    first = separate[0] if packed is None else packed
    lacking = packed is None and any(part is None for part in separate)
    if first is None or w_o is None or lacking:
        raise ValueError(
            f"{name}: `state` must have {prefix}in_proj_weight (or q_, k_ and v_proj_weight) and "
            f"{prefix}out_proj.weight, got {sorted(state)}"
        )
    shift, last = find("in_proj_bias"), find("out_proj.bias")
    shifts: list[Array | None] = [shift, None, None]
    if packed is None:
        shifts = [None] * 3 if shift is None else list(np.split(shift, 3))
    w_k, w_v = (None, None) if packed is not None else separate[1:]
    return MultiHeadWeights(first, w_k, w_v, w_o, (*shifts, last))
