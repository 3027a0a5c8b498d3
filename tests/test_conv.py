"""Convolution with channels: PyTorch's answers, the definition, gradients, streams, errors."""

from typing import Any

import numpy as np
import pytest
from checks import random_for
from numpy.typing import NDArray

from unitstride import _conv_windows, causal_conv1d, conv1d, conv1d_vjp, conv2d, conv2d_vjp

Array = NDArray[Any]

FORWARD = {1: conv1d, 2: conv2d}
BACKWARD = {1: conv1d_vjp, 2: conv2d_vjp}


def by_definition(x: Array, w: Array, bias: Array | None, **options: Any) -> Array:
    """Add the taps one by one, in float64."""
    axes = w.ndim - 2
    stride, padding, dilation, groups = (
        options[k] for k in ("stride", "padding", "dilation", "groups")
    )
    spread = np.pad(x.astype(np.float64), [(0, 0), (0, 0), *[(p, p) for p in padding]])
    places = [
        (n - d * (k - 1) - 1) // s + 1
        for n, d, k, s in zip(spread.shape[2:], dilation, w.shape[2:], stride, strict=True)
    ]
    out = np.zeros((len(x), len(w), *places))
    own, outputs = w.shape[1], len(w) // groups
    for o in range(len(w)):
        first = o // outputs * own
        for tap in np.ndindex(w.shape[2:]):
            met: Any = tuple(
                slice(t * d, t * d + (n - 1) * s + 1, s)
                for t, d, n, s in zip(tap, dilation, places, stride, strict=True)
            )
            where: Any = (slice(None), slice(first, first + own), *met)
            kernel = w[(o, slice(None), *tap)].astype(np.float64)
            out[:, o] += np.moveaxis(spread[where], 1, -1) @ kernel
    return out if bias is None else out + bias.reshape(-1, *(1,) * axes)


def draw(random: np.random.Generator) -> tuple[Array, Array, Array | None, dict[str, Any]] | None:
    """Return a random problem; None where the kernel is longer than the signal."""
    axes = int(random.integers(1, 3))
    groups = int(random.choice([1, 1, 2, 3]))
    own, outputs = (int(n) for n in random.integers(1, 5, 2))
    if random.random() < 0.2:
        own = outputs = 1  # depthwise
    sizes = {
        "stride": random.integers(1, 4, axes),
        "padding": random.integers(0, 4, axes),
        "dilation": random.integers(1, 3, axes),
    }
    if random.random() < 0.4:
        sizes["stride"][:] = sizes["dilation"][:] = 1
    taps, lengths = random.integers(1, 5, axes), random.integers(1, 14, axes)
    if (lengths + 2 * sizes["padding"] <= sizes["dilation"] * (taps - 1)).any():
        return None
    x = random.standard_normal((int(random.integers(1, 4)), groups * own, *lengths))
    if random.random() < 0.3:
        x = np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)
    elif random.random() < 0.3:
        x = x[..., ::-1]
    w = random.standard_normal((groups * outputs, own, *taps))
    bias = random.standard_normal(groups * outputs) if random.random() < 0.5 else None
    options: dict[str, Any] = {k: tuple(int(n) for n in v) for k, v in sizes.items()}
    return x, w, bias, {**options, "groups": groups}


def test_random_options_against_the_definition(isa: str) -> None:
    random = random_for("conv", "definition")
    for _ in range(400):
        problem = draw(random)
        if problem is None:
            continue
        x, w, bias, options = problem
        expected = by_definition(x, w, bias, **options)
        got = FORWARD[w.ndim - 2](x, w, bias, **options)
        assert got.shape == expected.shape
        # At most 64 terms of about one in float64: their roundings stay below 1e-13.
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)


def test_random_gradients_are_the_transposed_map() -> None:
    """The function is linear in each array: products with the gradients equal those with it."""
    random = random_for("conv", "gradient")
    for _ in range(200):
        problem = draw(random)
        if problem is None:
            continue
        x, w, _, options = problem
        axes = w.ndim - 2
        out = FORWARD[axes](x, w, **options)
        cotangent = random.standard_normal(out.shape)
        d_x, d_w, d_bias = BACKWARD[axes](x, w, cotangent, **options)
        assert d_x.shape == x.shape
        assert d_w.shape == w.shape
        other_x, other_w = random.standard_normal(x.shape), random.standard_normal(w.shape)
        by_x = (cotangent * FORWARD[axes](other_x, w, **options)).sum()
        by_w = (cotangent * FORWARD[axes](x, other_w, **options)).sum()
        # Sums of up to some thousand terms of about one.
        np.testing.assert_allclose((d_x * other_x).sum(), by_x, rtol=1e-10, atol=1e-9)
        np.testing.assert_allclose((d_w * other_w).sum(), by_w, rtol=1e-10, atol=1e-9)
        np.testing.assert_allclose(d_bias, cotangent.sum((0, *range(2, 2 + axes))), atol=1e-11)


@pytest.mark.parametrize("name", ["float32", "float16"])
def test_narrow_types_add_in_float32(name: str) -> None:
    random = random_for("conv", name)
    x, w, b = (random.standard_normal(s).astype(name) for s in ((2, 8, 9, 9), (4, 8, 3, 3), (4,)))
    options: dict[str, Any] = {
        "stride": (1, 1),
        "padding": (1, 1),
        "dilation": (1, 1),
        "groups": 1,
    }
    got = conv2d(x, w, b, padding=1)
    assert got.dtype == x.dtype
    expected = by_definition(x, w, b.astype(np.float64), **options)
    terms = by_definition(abs(x), abs(w), abs(b).astype(np.float64), **options)
    # 72 terms added in float32, and one rounding to the result's own type.
    bound = 72 * 2.0**-24 * terms + np.finfo(got.dtype).eps * abs(expected)
    assert (abs(got.astype(np.float64) - expected) <= bound).all()


def test_agrees_with_pytorch() -> None:
    torch = pytest.importorskip("torch")
    random = random_for("conv", "torch")
    x, w, b = (random.standard_normal(s) for s in ((2, 6, 11, 12), (4, 3, 3, 5), (4,)))
    function = torch.nn.functional.conv2d
    for options in (
        {"stride": (2, 1), "padding": (2, 1), "dilation": (1, 2), "groups": 2},
        {"padding": "same", "groups": 2},
        {"padding": "valid", "groups": 2, "stride": 3},
    ):
        tensors = [torch.from_numpy(a).requires_grad_(True) for a in (x, w, b)]
        expected = function(*tensors, **options)
        np.testing.assert_allclose(conv2d(x, w, b, **options), expected.detach(), atol=1e-12)
        cotangent = random.standard_normal(expected.shape)
        gradients = torch.autograd.grad(expected, tensors, torch.from_numpy(cotangent))
        for got, wanted in zip(conv2d_vjp(x, w, cotangent, **options), gradients, strict=True):
            np.testing.assert_allclose(got, wanted, atol=1e-11)


def test_outputs_and_missing_batches() -> None:
    random = random_for("conv", "out")
    x, w, b = (random.standard_normal(s) for s in ((3, 5, 20), (4, 5, 3), (4,)))
    expected = conv1d(x, w, b)
    np.testing.assert_array_equal(conv1d(x[0], w, b), conv1d(x[:1], w, b)[0])
    out = np.full(expected.shape, np.nan)
    assert conv1d(x, w, b, out=out) is out
    np.testing.assert_array_equal(out, expected)
    strided = np.full((3, 4, 36), np.nan)[..., ::2]
    conv1d(x, w, b, out=strided)
    np.testing.assert_array_equal(strided, expected)
    assert conv1d(x[:0], w, b).shape == (0, 4, 18)
    with pytest.raises(ValueError, match="conv1d: `out` must have shape"):
        conv1d(x, w, b, out=out[:1])


def test_channels_last_views_and_threads_change_no_bit() -> None:
    from unitstride import threads

    random = random_for("conv", "bits")
    x = random.standard_normal((2, 16, 30, 31)).astype(np.float32)
    w = random.standard_normal((40, 16, 3, 3)).astype(np.float32)
    turned = np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)
    with threads(1):
        alone = conv2d(x, w, padding=1)
    np.testing.assert_array_equal(conv2d(x, w, padding=1), alone)
    np.testing.assert_allclose(conv2d(turned, w, padding=1), alone, rtol=0, atol=1e-4)


def test_causal_streams_have_the_bits_of_the_whole() -> None:
    random = random_for("conv", "causal")
    for name in ("float32", "float64"):
        x, w, b = (random.standard_normal(s).astype(name) for s in ((2, 6, 50), (6, 4), (6,)))
        whole = causal_conv1d(x, w, b, activation="silu")
        assert isinstance(whole, np.ndarray)
        padded = np.concatenate([np.zeros((2, 6, 3)), x], axis=-1)
        sums = sum(w[:, j, None].astype("f8") * padded[..., j : j + 50] for j in range(4))
        sums = sums + b[:, None].astype("f8")
        # Four terms, a bias and a sigmoid of a few roundings each.
        np.testing.assert_allclose(
            whole, sums / (1 + np.exp(-sums)), rtol=0, atol=64 * np.finfo(name).eps
        )
        for cuts in ((1, 2, 3, 10), (25,), (49,)):
            state: Any = None
            parts = []
            for part in np.split(x, cuts, axis=-1):
                out, state = causal_conv1d(
                    part, w, b, activation="silu", state=state, return_state=True
                )
                parts.append(out)
            np.testing.assert_array_equal(np.concatenate(parts, axis=-1), whole)
            np.testing.assert_array_equal(state, x[..., -3:])


@pytest.mark.parametrize("far", [10, 1 << 40, 1 << 80])
def test_steps_beyond_the_input_leave_one_result(far: int) -> None:
    random = random_for("conv", "far", far)
    x, w = (random.standard_normal(s) for s in ((2, 4, 9), (6, 4, 3)))
    got, first = conv1d(x, w, stride=far), conv1d(x, w)[..., :1]
    # The same terms in another order: 12 of about one.
    np.testing.assert_allclose(got, first, rtol=0, atol=1e-13)
    slope = random.standard_normal(got.shape)
    whole = np.zeros((2, 6, 7))
    whole[..., :1] = slope
    for own, known in zip(
        conv1d_vjp(x, w, slope, stride=far), conv1d_vjp(x, w, whole), strict=True
    ):
        np.testing.assert_allclose(own, known, rtol=0, atol=1e-13)
    single = random.standard_normal((6, 4, 1))
    np.testing.assert_array_equal(conv1d(x, single, dilation=far), conv1d(x, single))


def test_errors() -> None:
    x, w = np.ones((2, 4, 9)), np.ones((6, 2, 3))
    for call, text in (
        (lambda: conv1d(x, w), "conv1d: `w` must have 4 channels / 1 groups"),
        (lambda: conv1d(x, np.ones((5, 2, 3)), groups=2), "`groups` must divide the 5 outputs"),
        (lambda: conv1d(x[0, 0], w, groups=2), "conv1d: `x` must have 3 dimensions"),
        (lambda: conv1d(x, w[0], groups=2), "conv1d: `w` must have 3 dimensions"),
        (lambda: conv1d(x, np.ones((6, 2, 10)), groups=2), "must not reach beyond the padded"),
        (lambda: conv1d(x, w, np.ones(5), groups=2), "conv1d: `bias` must have shape"),
        (lambda: conv1d(x, w, groups=2, stride=0), "`stride` must be an integer of 1 or more"),
        (lambda: conv1d(x, w, groups=2, padding=-1), "`padding` must be an integer of 0 or more"),
        (lambda: conv1d(x, w, groups=2, padding="full"), '"same" or "valid"'),
        (lambda: conv1d(x, w, groups=2, padding="same", stride=2), "`stride` must be 1"),
        (lambda: conv1d(x, w, groups=2, padding=1 << 61), "`padding` must leave an array that"),
        (lambda: conv1d(x, w, groups=2, padding=1 << 80), "`padding` must leave an array that"),
        (lambda: conv1d(x, w, groups=2, dilation=1 << 80), "`w` must not reach beyond the padded"),
        (lambda: conv1d(x, w, groups=1 << 80), "`w` must have 4 channels / "),
        (lambda: conv1d_vjp(x, w, np.ones(3), groups=2), "`cotangent` must have shape"),
        (lambda: causal_conv1d(x, w[0]), "causal_conv1d: `w` must have shape"),
        (lambda: causal_conv1d(x, np.ones((4, 2)), activation="tanh"), "`activation` must be"),
        (lambda: causal_conv1d(x, np.ones((4, 2)), state=np.ones(3)), "`state` must have shape"),
    ):
        with pytest.raises(ValueError) as caught:
            call()
        assert text in str(caught.value)
    odd: tuple[Any, ...] = (1.5, None, [[1], [2, 3]], [1, [2]], np.array([[1, 1]]), object())
    for value in odd:
        for argument in ("stride", "padding", "dilation", "groups"):
            with pytest.raises(TypeError, match=f"^conv1d: `{argument}` must be an integer"):
                conv1d(x, w, **{"groups": 2, argument: value})
    with pytest.raises(ValueError, match='`activation` must be None or "silu"'):
        causal_conv1d(x, np.ones((4, 2)), activation=np.array([1, 2]))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="`x` must be real"):
        conv1d(x.astype(complex), w, groups=2)


def test_random_kernels_of_each_channel_against_torch() -> None:
    """Multipliers, strides, dilations, padding, channels last; and their gradients."""
    torch = pytest.importorskip("torch")
    random = random_for("depthwise")
    for _ in range(80):
        axes = int(random.integers(1, 3))
        channels, several, batch = (int(n) for n in random.integers(1, [6, 3, 3]))
        lengths, taps, stride, dilation, padding = (
            tuple(int(n) for n in random.integers(low, high, axes))
            for low, high in ((9, 20), (1, 5), (1, 4), (1, 3), (0, 3))
        )
        x = random.standard_normal((batch, channels, *lengths))
        if random.random() < 0.3:
            x = np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)
        w = random.standard_normal((channels * several, 1, *taps))
        bias = random.standard_normal(channels * several)
        more = {"stride": stride, "padding": padding, "dilation": dilation, "groups": channels}
        ours, vjp, theirs = (
            (conv1d, conv1d_vjp, torch.nn.functional.conv1d),
            (conv2d, conv2d_vjp, torch.nn.functional.conv2d),
        )[axes - 1]
        t_x, t_w, t_bias = (
            torch.tensor(np.ascontiguousarray(a), requires_grad=True) for a in (x, w, bias)
        )
        want = theirs(t_x, t_w, t_bias, **more)
        got = ours(x, w, bias, **more)
        slope = random.standard_normal(got.shape)
        want.backward(torch.tensor(slope))
        gradients = vjp(x, w, slope, **more)
        # Float64 sums of at most some hundred terms of size one.
        np.testing.assert_allclose(got, want.detach().numpy(), rtol=0, atol=1e-11)
        for mine, tensor in zip(gradients, (t_x, t_w, t_bias), strict=True):
            np.testing.assert_allclose(mine, tensor.grad.numpy(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("channels", "groups", "taps", "stride", "padding", "dilation"),
    [
        (3, 1, (7, 7), 2, 3, 1),
        (6, 2, (3, 2), (3, 1), (0, 2), 1),
        (4, 1, (2, 3), 1, 1, (2, 3)),
        (1, 1, (5, 4), 4, 0, 1),
    ],
)
def test_gradients_of_few_channels_for_all_taps_at_once(
    monkeypatch: pytest.MonkeyPatch,
    dtype: str,
    channels: int,
    groups: int,
    taps: tuple[int, int],
    stride: Any,
    padding: Any,
    dilation: Any,
) -> None:
    random = random_for("few channels", dtype, channels, *taps)
    x = random.standard_normal((2, channels, 23, 30)).astype(dtype)
    w = random.standard_normal((4, channels // groups, *taps)).astype(dtype)
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    cotangent = random.standard_normal(conv2d(x, w, **options).shape).astype(dtype)
    monkeypatch.setattr(_conv_windows, "_MANY_COLUMNS", 1)
    result = conv2d_vjp(x, w, cotangent, **options)[0]
    monkeypatch.setattr(_conv_windows, "_FEW_CHANNELS", 0)
    expected = conv2d_vjp(x, w, cotangent, **options)[0]
    # Sums of at most 200 products of normal numbers, in two orders.
    limit = 64 * np.finfo(dtype).eps * np.abs(expected).max()
    np.testing.assert_allclose(result, expected, rtol=0, atol=limit)
