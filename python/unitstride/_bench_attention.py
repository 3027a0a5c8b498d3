"""The benchmark of attention, forward, backward and decoding: ``bench attention``."""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

import unitstride
from unitstride import _bench_peers, _bench_problems, _records
from unitstride._bench_peers import Call, Unavailable
from unitstride._bench_problems import OWN, PLAIN, ROUNDS, Problem

Array = NDArray[Any]
Arrays = tuple[Array, Array, Array]

__all__ = ["PEERS", "QUICK_PEERS", "ROUNDS", "cases", "run"]

PEERS = ("NumPy", "PyTorch", "JAX")
QUICK_PEERS = ("NumPy",)


@dataclass(frozen=True)
class Shape:
    """The sizes of a problem and how its arrays lie."""

    batch: int
    heads: int
    queries: int
    keys: int
    features: int
    key_heads: int
    dtype: str = "float32"
    transposed: bool = False  # (batch, length, heads, features) in memory

    @property
    def operations(self) -> float:
        """Multiplications and additions of both products."""
        return 4.0 * self.batch * self.heads * self.queries * self.keys * self.features


def _operands(shape: Shape) -> Arrays:
    dtype = _records.find_dtype(shape.dtype)
    if dtype is None:
        raise Unavailable
    random = np.random.default_rng(7)

    def draw(heads: int, length: int) -> Array:
        sizes = (shape.batch, heads, length, shape.features)
        values = random.standard_normal(sizes, np.float32).astype(dtype)
        if not shape.transposed:
            return values
        return np.ascontiguousarray(values.swapaxes(1, 2)).swapaxes(1, 2)

    return (
        draw(shape.heads, shape.queries),
        draw(shape.key_heads, shape.keys),
        draw(shape.key_heads, shape.keys),
    )


def _cotangent(arrays: Arrays) -> Array:
    values = np.random.default_rng(8).standard_normal(arrays[0].shape, np.float32)
    return values.astype(arrays[0].dtype)


def _ours(shape: Shape, **options: Any) -> Call:
    return partial(unitstride.attention, *_operands(shape), **options)


def _ours_backward(shape: Shape, **options: Any) -> Call:
    arrays = _operands(shape)
    cotangent = _cotangent(arrays)

    def call() -> Any:
        out, lse = unitstride.attention(*arrays, return_lse=True, **options)
        return unitstride.attention_vjp(*arrays, out, lse, cotangent, **options)

    return call


def _numpy(shape: Shape, causal: bool = False, **options: Any) -> Call:
    if options or shape.batch * shape.heads * shape.queries * shape.keys > 1 << 25:
        raise Unavailable
    q, k, v = (array.astype(np.float32) for array in _operands(shape))
    repeat = shape.heads // shape.key_heads

    def call() -> Array:
        keys, values = (np.repeat(x, repeat, axis=1) if repeat > 1 else x for x in (k, v))
        scores = q @ keys.swapaxes(-1, -2) / np.sqrt(np.float32(shape.features))
        if causal:
            scores = np.where(np.tri(*scores.shape[-2:], dtype=np.bool_), scores, -np.inf)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        return np.asarray(weights @ values / weights.sum(axis=-1, keepdims=True))

    return call


def _torch_arguments(shape: Shape, options: dict[str, Any]) -> tuple[Any, list[Any], Any]:
    torch = importlib.import_module("torch")
    torch.set_num_threads(unitstride.get_num_threads())
    tensors = [_bench_peers.to_torch(torch, array) for array in _operands(shape)]
    more: dict[str, Any] = {"is_causal": bool(options.get("causal", False))}
    if shape.heads != shape.key_heads:
        more["enable_gqa"] = True
    mask = options.get("mask", options.get("bias"))
    if "window" in options:
        i, j = np.ogrid[: shape.queries, : shape.keys]
        mask, more["is_causal"] = (j <= i) & (j >= i - options["window"][0]), False
    if mask is not None:
        more["attn_mask"] = torch.from_numpy(np.ascontiguousarray(mask))
    function = torch.nn.functional.scaled_dot_product_attention
    return torch, tensors, partial(function, **more)


def _torch(shape: Shape, **options: Any) -> Call:
    torch, tensors, function = _torch_arguments(shape, options)

    def call() -> Any:
        with torch.no_grad():
            return function(*tensors)

    return call


def _torch_backward(shape: Shape, **options: Any) -> Call:
    torch, tensors, function = _torch_arguments(shape, options)
    for tensor in tensors:
        tensor.requires_grad_(True)
    cotangent = _bench_peers.to_torch(torch, _cotangent(_operands(shape)))
    return lambda: torch.autograd.grad(function(*tensors), tensors, cotangent)


def _jax(shape: Shape, **options: Any) -> Call:
    if set(options) - {"causal"}:
        raise Unavailable
    jax = importlib.import_module("jax")
    copies = [jax.numpy.asarray(np.swapaxes(x, 1, 2)) for x in _operands(shape)]
    causal = bool(options.get("causal", False))
    compiled = jax.jit(partial(jax.nn.dot_product_attention, is_causal=causal))
    return lambda: compiled(*copies).block_until_ready()


def _problem(
    group: str,
    title: str,
    shape: Shape,
    share: float = 1.0,
    plain: Callable[[], Call] | None = None,
    backward: bool = False,
    **options: Any,
) -> Problem:
    """Return a problem of which a `share` of the scores counts."""
    own, torch = (_ours_backward, _torch_backward) if backward else (_ours, _torch)
    calls: dict[str, Callable[[], Call]] = {OWN: partial(own, shape, **options)}
    calls["PyTorch"] = partial(torch, shape, **options)
    if not backward:
        calls["NumPy"] = partial(_numpy, shape, **options)
        calls["JAX"] = partial(_jax, shape, **options)
    if plain is not None:
        calls[PLAIN] = plain
    item = 2 if "16" in shape.dtype else 4
    rows = shape.batch * shape.features * item
    read = rows * 2 * shape.key_heads * shape.keys
    factor = 3.5 if backward else 1.0
    few = shape.queries * shape.heads // shape.key_heads <= 8  # decoding: bound by memory
    return Problem(
        group,
        title,
        calls,
        operations=0.0 if few else factor * share * shape.operations,
        bytes_read=read if few else 0,
    )


def cases(quick: bool = False) -> Sequence[Problem]:
    """Return the cases: forward, backward, options, decoding, other dtypes."""
    n = 256 if quick else 1024
    first = Shape(1, 12, n, n, 64, 12)
    long = Shape(1, 8, 4 * n, 4 * n, 128, 8)
    batch = Shape(8 if quick else 64, 12, 128, 128, 64, 12)
    wide = replace(first, queries=8 * n, keys=8 * n)
    names = (
        (f"(1, 12, {n}, {n}, 64)", first, False),
        (f"(1, 12, {n}, {n}, 64) causal", first, True),
        (f"(1, 8, {4 * n}, {4 * n}, 128) causal", long, True),
        (f"({batch.batch}, 12, 128, 128, 64)", batch, False),
    )
    found = []
    for title, shape, causal in names:
        share = 0.5 if causal else 1.0
        found.append(_problem("forward", title, shape, share, causal=causal))
        turned = replace(shape, transposed=True)
        plain = partial(_ours, shape, causal=causal)
        found.append(
            _problem("forward", f"{title} transposed", turned, share, plain, causal=causal)
        )
    for title, shape, causal in names:
        share = 0.5 if causal else 1.0
        found.append(
            _problem("forward + backward", title, shape, share, backward=True, causal=causal)
        )
    plain, title = partial(_ours, first), names[0][0]
    mask = np.random.default_rng(9).random((n, n)) < 0.5
    bias = np.random.default_rng(9).standard_normal((n, n), np.float32)
    found += [
        _problem("options", f"{title} boolean mask", first, 1.0, plain, mask=mask),
        _problem("options", f"{title} bias", first, 1.0, plain, bias=bias),
        _problem(
            "options",
            f"(1, 12, {8 * n}, {8 * n}, 64) causal, window of 256",
            wide,
            256 / (8 * n),
            partial(_ours, wide, causal=True),
            causal=True,
            window=(255, 0),
        ),
    ]
    cache = Shape(2 if quick else 8, 32, 1, 4 * n, 128, 32)
    for heads in (32, 8):
        for dtype in ("float32", "bfloat16"):
            shape = replace(cache, key_heads=heads, dtype=dtype)
            title = f"({cache.batch}, 32 / {heads}, 1, {4 * n}, 128) {dtype}"
            found.append(_problem("decoding", title, shape))
    half = replace(first, dtype="bfloat16")
    found.append(_problem("other", f"{names[0][0]} bfloat16", half, 1.0, partial(_ours, first)))
    found.append(_problem("other", "(1, 1, 16, 16, 32)", Shape(1, 1, 16, 16, 32, 1)))
    return found


def run(
    chosen: Sequence[Problem], rounds: int, peers: Sequence[str], show: bool = True
) -> dict[str, Any]:
    """Measure cases, print their tables as they come, and return everything as a dictionary."""
    plain = "our time over that of contiguous float32 arrays without options, of the full causal"
    return _bench_problems.run(chosen, rounds, peers, show, f"{plain} call for a window")
