"""Multi-head attention against PyTorch's, its gradients, forms of weights, errors."""

from typing import Any

import numpy as np
import pytest
from checks import DTYPES, SIGNIFICAND_BITS, dtype_of, random_for
from numpy.typing import NDArray

from unitstride import (
    attention,
    multi_head_attention,
    multi_head_attention_vjp,
    multi_head_weights,
)

Array = NDArray[Any]

# Sums of some tens of terms of magnitude 1 to 10 in float64, in another order than PyTorch's.
CLOSE = {"rtol": 0.0, "atol": 1e-12}


def layer(torch: Any, context_width: int | None, bias: bool) -> Any:
    """Return PyTorch's layer of 12 features and 3 heads, with biases that are not zero."""
    torch.manual_seed(5)
    made = torch.nn.MultiheadAttention(
        12,
        3,
        bias=bias,
        kdim=context_width,
        vdim=context_width,
        batch_first=True,
        dtype=torch.float64,
    )
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.5)
    return made


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", ["self", "causal", "padded", "context", "other width"])
def test_agrees_with_pytorch_forward_and_backward(kind: str, bias: bool) -> None:
    torch = pytest.importorskip("torch")
    random = random_for("torch", kind, bias)
    width = 7 if kind == "other width" else 12
    theirs = layer(torch, width if kind == "other width" else None, bias)
    x = random.standard_normal((2, 6, 12))
    context = random.standard_normal((2, 9, width)) if kind in ("context", "other width") else None
    valid = np.arange(6) < np.array([[4], [6]])
    options: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    if kind == "causal":
        options["causal"] = True
        extra["attn_mask"] = torch.from_numpy(~np.tri(6, dtype=bool))  # True = not attended
    if kind == "padded":
        options["mask"] = valid[:, None, None, :]
        extra["key_padding_mask"] = torch.from_numpy(~valid)
    t_x = torch.from_numpy(x).requires_grad_()
    t_context = t_x if context is None else torch.from_numpy(context).requires_grad_()
    expected = theirs(t_x, t_context, t_context, need_weights=False, **extra)[0]
    weights = multi_head_weights(theirs.state_dict())
    assert (weights.w_k is None) == (kind != "other width")
    options |= {"num_heads": 3, "biases": weights.biases, "context": context}
    got = multi_head_attention(x, *weights[:4], **options)
    np.testing.assert_allclose(got, expected.detach().numpy(), **CLOSE)
    cotangent = random.standard_normal(got.shape)
    expected.backward(torch.from_numpy(cotangent))
    found = multi_head_attention_vjp(x, *weights[:4], cotangent, **options)
    np.testing.assert_allclose(found.x, t_x.grad.numpy(), **CLOSE)
    if context is None:
        assert found.context is None
    else:
        np.testing.assert_allclose(found.context, t_context.grad.numpy(), **CLOSE)
    gradients = {name: p.grad for name, p in theirs.named_parameters()}
    wanted = multi_head_weights(gradients)
    for name in ("w_q", "w_k", "w_v", "w_o"):
        ours, peer = getattr(found, name), getattr(wanted, name)
        assert (ours is None) == (peer is None)
        if ours is not None:
            np.testing.assert_allclose(ours, peer, err_msg=name, **CLOSE)
    for ours, peer in zip(found.biases, wanted.biases, strict=True):
        assert (ours is None) == (peer is None)
        if ours is not None:
            np.testing.assert_allclose(ours, peer, **CLOSE)


def grouped(random: np.random.Generator, packed: bool, dtype: Any = np.float64) -> dict[str, Any]:
    """Return arguments with 4 heads of queries and 2 of keys, all of different sizes."""
    shapes: dict[str, tuple[int, ...]] = {
        "x": (3, 5, 6), "w_q": (12, 6), "w_k": (6, 6), "w_v": (10, 6), "w_o": (7, 20)
    }  # fmt: skip
    if packed:
        shapes |= {"w_q": (24, 6), "w_o": (7, 12)}
    made: dict[str, Any] = {n: random.standard_normal(s).astype(dtype) for n, s in shapes.items()}
    rows = [shapes[name][0] for name in ("w_q", "w_k", "w_v", "w_o")]
    made["biases"] = [random.standard_normal(n).astype(dtype) for n in rows]
    if packed:
        made["w_k"] = made["w_v"] = made["biases"][1] = made["biases"][2] = None
    return made


def run(given: dict[str, Any], **options: Any) -> Array:
    return multi_head_attention(num_heads=4, num_kv_heads=2, **given, **options)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("crossed", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"causal": "bottom_right", "sinks": [0.5, 0.0, -0.5, 1.0]},
        {"softcap": 1.5, "window": (2, 1)},
        {"alibi_slopes": [0.1, 0.2, 0.3, 0.4], "key_lengths": [4, 2, 0]},
    ],
    ids=str,
)
def test_gradients_by_central_differences(
    packed: bool, crossed: bool, options: dict[str, Any]
) -> None:
    random = random_for("differences", packed, crossed, options)
    given = grouped(random, packed)
    if crossed:
        # One context for all three entries of the batch, where no length differs.
        count = 3 if "key_lengths" in options else 1
        given["context"] = random.standard_normal((count, 8, 6))
    cotangent = random.standard_normal((3, 5, 7))
    named = [given[name] for name in ("x", "w_q", "w_k", "w_v", "w_o")]
    found = multi_head_attention_vjp(
        *named,
        cotangent,
        num_heads=4,
        num_kv_heads=2,
        biases=given["biases"],
        context=given.get("context"),
        **options,
    )
    pairs = [(name, given.get(name), getattr(found, name)) for name in found._fields[:5]]
    pairs.append(("context", given.get("context"), found.context))
    pairs += [("bias", b, g) for b, g in zip(given["biases"], found.biases, strict=True)]
    for name, array, gradient in pairs:
        assert (array is None) == (gradient is None), name
        if array is None:
            continue
        assert gradient.shape == array.shape, name
        direction = random.standard_normal(array.shape)

        def at(step: float, array: Array = array, direction: Array = direction) -> float:
            before = array.copy()
            array += step * direction
            result = float((run(given, **options) * cotangent).sum())
            array[...] = before
            return result

        # The fifth derivative times h^4 and a rounding over h are both about 1e-11.
        h = 3e-4
        slope = (8.0 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12.0 * h)
        terms = np.abs(gradient * direction).sum() + np.abs(cotangent).sum()
        assert abs((gradient * direction).sum() - slope) <= 1e-7 * terms, name


@pytest.mark.parametrize("name", DTYPES)
def test_dtypes(name: str) -> None:
    given = grouped(random_for("dtypes", name), False, dtype_of(name))
    for key in ("w_q", "w_k", "w_v", "w_o"):
        given[key] = (given[key] * 0.3).astype(given[key].dtype)
    wide = {k: v.astype(np.float64) for k, v in given.items() if k != "biases"}
    wide["biases"] = [bias.astype(np.float64) for bias in given["biases"]]
    got, exact = run(given, causal=True), run(wide, causal=True)
    assert got.dtype == given["x"].dtype
    # Five results in a row are rounded: numbers of magnitude 4, sums of 20 products of the last.
    atol = 2.0 ** (6 - SIGNIFICAND_BITS[name])
    np.testing.assert_allclose(got.astype(np.float64), exact, rtol=0, atol=atol)


def test_packed_equals_separate_and_out_is_returned() -> None:
    random = random_for("packed")
    given = grouped(random, True)
    expected = run(given)
    separate = dict(given)
    separate["w_q"], separate["w_k"], separate["w_v"] = np.split(given["w_q"], [12, 18])
    separate["biases"] = [*np.split(given["biases"][0], [12, 18]), given["biases"][3]]
    np.testing.assert_allclose(run(separate), expected, rtol=0, atol=1e-13)  # other blocks of sums
    out = np.empty((3, 5, 7))
    assert run(given, out=out) is out
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_allclose(run(given, context=given["x"]), expected, rtol=0, atol=1e-13)


def test_it_is_the_composition_of_its_parts() -> None:
    random = random_for("parts")
    x = random.standard_normal((5, 6))
    w_q, w_k, w_v, w_o = (random.standard_normal((6, 6)) for _ in range(4))
    heads = [(x @ w.T).reshape(5, 2, 3).swapaxes(0, 1) for w in (w_q, w_k, w_v)]
    expected = attention(*heads, causal=True).swapaxes(0, 1).reshape(5, 6) @ w_o.T
    got = multi_head_attention(x, w_q, w_k, w_v, w_o, num_heads=2, causal=True)
    np.testing.assert_allclose(got, expected, **CLOSE)


def test_empty_sizes() -> None:
    w = np.ones((4, 4))
    for shape in ((0, 4), (2, 0, 4), (0, 3, 4)):
        x = np.ones(shape)
        assert multi_head_attention(x, w, w, w, w, num_heads=2).shape == shape
        found = multi_head_attention_vjp(x, w, w, w, w, x, num_heads=2)
        assert found.x.shape == shape and (found.w_q == 0).all() and (found.w_o == 0).all()


def test_states_that_do_not_fit_are_refused() -> None:
    state = {"a.in_proj_weight": np.ones((6, 2)), "a.out_proj.weight": np.ones((2, 2))}
    assert multi_head_weights(state, prefix="a.").w_o.shape == (2, 2)
    with pytest.raises(ValueError, match=r"^multi_head_weights: `state` must have in_proj_weight"):
        multi_head_weights(state)
    separate = {"q_proj_weight": np.ones((2, 2)), "out_proj.weight": np.ones((2, 2))}
    with pytest.raises(ValueError, match=r"^multi_head_weights: `state` must have in_proj_weight"):
        multi_head_weights(separate)
    with pytest.raises(ValueError, match=r"^multi_head_weights: `state` must be without add_bias"):
        multi_head_weights(state | {"a.bias_k": np.ones((1, 1, 2))}, prefix="a.")


def test_bfloat16_states_are_widened() -> None:
    torch = pytest.importorskip("torch")
    made = torch.nn.MultiheadAttention(4, 2, dtype=torch.bfloat16)
    weights = multi_head_weights(made.state_dict())
    assert weights.w_q.dtype == np.float32
    np.testing.assert_array_equal(weights.w_o, made.out_proj.weight.detach().float().numpy())


def test_errors_name_the_argument() -> None:
    x, w = np.ones((3, 4)), np.ones((4, 4))
    good: dict[str, Any] = {"x": x, "w_q": w, "w_k": w, "w_v": w, "w_o": w, "num_heads": 2}
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"x": x[0]}, ValueError, "`x` must have at least 2 dimensions"),
        ({"num_heads": 0}, ValueError, "`num_heads` must be an integer of 1 or more, got 0"),
        ({"num_heads": 2.0}, TypeError, "`num_heads` must be an integer of 1 or more, got 2.0"),
        ({"num_heads": 3}, ValueError, "`w_q` must have a number of rows that 3 heads divide"),
        ({"num_kv_heads": 3}, ValueError, "`num_kv_heads` must divide the 2 of `num_heads`"),
        ({"num_kv_heads": 1}, ValueError, "`w_k` must have 2 rows"),
        ({"w_q": w[:, :3]}, ValueError, r"`w_q` must have shape \(rows, 4\) to multiply `x`"),
        ({"w_k": w[:, :3]}, ValueError, r"`w_k` must have shape \(rows, 4\) to multiply `context`"),
        ({"w_k": None}, ValueError, "`w_k` and `w_v` must both be arrays, or both None"),
        ({"w_q": None}, TypeError, "`w_q` must be real"),
        ({"w_o": w[:, :3]}, ValueError, r"`w_o` must have shape \(rows, 4\) to multiply 2 heads"),
        ({"biases": [None]}, ValueError, "`biases` must have 4 entries"),
        ({"biases": [x[0, :3], None, None, None]}, ValueError, "`biases of w_q` must have shape"),
        ({"context": np.ones((3, 5))}, ValueError, r"`w_k` must have shape \(rows, 5\)"),
        ({"out": np.ones((3, 4), "f4")}, TypeError, "`out` must have dtype float64"),
        ({"rope": True}, TypeError, "options must be among those of `attention`"),
    ]
    for change, error, message in cases:
        with pytest.raises(error, match=rf"^multi_head_attention: {message}"):
            multi_head_attention(**{**good, **change})
    with pytest.raises(ValueError, match=r"^multi_head_attention_vjp: `cotangent` must have shape"):
        multi_head_attention_vjp(x, w, w, w, w, x[:2], num_heads=2)
