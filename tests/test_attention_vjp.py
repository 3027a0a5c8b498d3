"""Gradients of attention: differences, the plain formula, PyTorch, NaN, empty rows, errors."""

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
    gradient_bound,
    make_case,
    plain,
    plain_vjp,
)
from checks import DTYPES, isa_levels, random_for
from numpy.typing import NDArray

from unitstride import attention, attention_vjp

Array = NDArray[Any]


def gradients(case: Case, cotangent: Array) -> dict[str, Array]:
    """Return all gradients by name."""
    out, lse = attention(*case.arrays, return_lse=True, **case.ours)
    asked = [name for name in ("bias", "sinks") if name in case.ours]
    found = attention_vjp(
        *case.arrays,
        out,
        lse,
        cotangent,
        bias_gradient="bias" in asked,
        sinks_gradient="sinks" in asked,
        **case.ours,
    )
    return dict(zip(("query", "key", "value", *asked), found, strict=True))


@pytest.mark.parametrize("number", range(72))
def test_central_differences(number: int) -> None:
    """72 combinations: each option alone, then sets of growing size, in all shapes."""
    random = random_for("differences", number)
    size = 1 if number < len(OPTIONS) else 2 + number // 12
    options = set(random.permutation(OPTIONS)[:size])
    if number < len(OPTIONS):
        options = {OPTIONS[number]}
    case = make_case(
        random,
        BATCHES[number % 5],
        HEADS[number % 6],
        (int(random.integers(1, 7)), int(random.integers(1, 9))),
        (int(random.integers(1, 6)), int(random.integers(1, 6))),
        "float64",
        options,
    )
    case = Case(tuple(np.array(x) for x in case.arrays), dict(case.ours))  # type: ignore[arg-type]
    for name in ("bias", "sinks"):
        if name in case.ours:
            case.ours[name] = np.array(case.ours[name], np.float64)
    cotangent = random.standard_normal(attention(*case.arrays, **case.ours).shape)
    for name, gradient in gradients(case, cotangent).items():
        position = ("query", "key", "value").index(name) if name not in case.ours else -1
        array = case.arrays[position] if position >= 0 else case.ours[name]
        assert gradient.shape == array.shape and gradient.dtype == array.dtype
        direction = random.standard_normal(array.shape)

        def at(step: float, array: Array = array, direction: Array = direction) -> float:
            before = array.copy()
            array += step * direction
            result = float((attention(*case.arrays, **case.ours) * cotangent).sum())
            array[...] = before
            return result

        # The fifth derivative times h^4 and a rounding over h are both about 1e-12.
        h = 1e-3
        slope = (8.0 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12.0 * h)
        terms = np.abs(gradient * direction).sum() + np.abs(cotangent).sum()
        assert abs((gradient * direction).sum() - slope) <= 1e-8 * terms


def _check(case: Case, name: str, random: np.random.Generator) -> None:
    expected = plain(*case.arrays, **case.theirs)
    cotangent = random.standard_normal(expected.out.shape).astype(case.arrays[0].dtype)
    rows = expected.out.shape[-2] * 6
    bound = gradient_bound(expected, name, rows)
    found = gradients(case, cotangent)
    for key, (exact, size) in plain_vjp(*case.arrays, cotangent, case.theirs).items():
        got = found[key].astype(np.float64)
        assert got.shape == exact.shape
        least = 2.0**-24 if name == "float16" else 1e-35
        if name == "float16" and key == "sinks":
            # Results below 2^-14 are rounded to multiples of 2^-24, and each meets its cotangent.
            least += 2.0**-25 * float(np.abs(cotangent.astype(np.float64)).sum())
        given = case.ours.get(key, case.arrays[0]).dtype
        digits = {"bfloat16": 8, "float16": 11, "float32": 24}.get(given.name, 53)
        own = 2.0**-digits * np.abs(exact)
        wrong = ~(np.abs(got - exact) <= bound * size + own + least)
        assert not wrong.any(), (key, got[wrong][0], exact[wrong][0], (bound * size)[wrong][0])


def test_all_options_mixed(isa: str) -> None:
    """300 cases in all, as many at each level, against the plain formula."""
    pytest.importorskip("hypothesis")
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st

    @settings(
        derandomize=True,
        max_examples=300 // len(isa_levels()),
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


@pytest.mark.parametrize("given", ["none", "causal", "mask", "bias"])
@pytest.mark.parametrize("heads", [(4, 4), (4, 2)])
def test_agrees_with_pytorch(given: str, heads: tuple[int, int]) -> None:
    torch = pytest.importorskip("torch")
    random = random_for("torch", given, heads)
    shapes = ((2, heads[0], 7, 5), (2, heads[1], 11, 5), (2, heads[1], 11, 3))
    arrays = [random.standard_normal(shape) for shape in shapes]
    extra: Any = {"mask": random.random((7, 11)) < 0.6, "bias": random.standard_normal((4, 7, 11))}
    theirs = [torch.from_numpy(x).requires_grad_() for x in arrays]
    bias = torch.from_numpy(extra["bias"]).requires_grad_()
    mask = {"mask": torch.from_numpy(extra["mask"]), "bias": bias}.get(given)
    result = torch.nn.functional.scaled_dot_product_attention(
        *theirs, attn_mask=mask, is_causal=given == "causal", enable_gqa=True
    )
    cotangent = random.standard_normal(result.shape)
    result.backward(torch.from_numpy(cotangent))
    ours = {given: extra[given]} if given in extra else {}
    if given == "causal":
        ours["causal"] = "top_left"
    q, k, v = arrays
    found = gradients(Case((q, k, v), ours), cotangent)
    wanted = {"query": theirs[0], "key": theirs[1], "value": theirs[2], "bias": bias}
    for name, gradient in found.items():
        # Sums of some tens of terms of magnitude 1, in another order.
        np.testing.assert_allclose(gradient, wanted[name].grad.numpy(), rtol=0, atol=1e-13)


def test_empty_rows_and_excluded_nan_have_gradient_zero_and_change_nothing() -> None:
    random = random_for("nan")
    q, k, v = (random.standard_normal((2, 2, 6, 4)) for _ in range(3))
    mask = random.random((6, 6)) < 0.7
    mask[:, 2] = mask[4] = False
    cotangent = random.standard_normal(q.shape)
    options: dict[str, Any] = {"mask": mask, "bias": np.zeros((2, 6, 6)), "sinks": [0.5, -0.5]}
    clean = gradients(Case((q, k, v), options), cotangent)
    q[:, :, 4] = k[:, :, 2] = v[:, :, 2] = cotangent[:, :, 4] = np.nan
    options["bias"][:, 4] = options["bias"][:, :, 2] = np.nan
    found = gradients(Case((q, k, v), options), cotangent)
    for name, gradient in found.items():
        # What a NaN stands beside is summed without it, in another order: a few roundings.
        np.testing.assert_allclose(gradient, clean[name], 1e-13, 1e-15, err_msg=name)
    assert (found["query"][:, :, 4] == 0).all()
    assert (found["key"][:, :, 2] == 0).all() and (found["value"][:, :, 2] == 0).all()
    assert (found["bias"][:, 4] == 0).all() and (found["bias"][..., 2] == 0).all()


def test_an_attended_nan_shows() -> None:
    q, k, v = (random_for("shows", n).standard_normal((1, 5, 4)) for n in range(3))
    k[:, 3] = np.nan
    found = gradients(Case((q, k, v), {"causal": True}), np.ones_like(q))
    assert np.isnan(found["query"][:, 3:]).all() and np.isfinite(found["query"][:, :3]).all()


def test_a_wider_cotangent_is_not_rounded_before_it_is_used() -> None:
    q = np.ones((1, 1, 2), np.float16)
    cotangent = np.full((1, 1, 2), 1.0 + 2.0**-20)
    out, lse = attention(q, q, q, return_lse=True)
    got = attention_vjp(q, q, np.tile(q, (2, 1, 1, 1)), np.tile(out, (2, 1, 1, 1)),
                        np.tile(lse, (2, 1, 1)), np.tile(cotangent, (2, 1, 1, 1)))  # fmt: skip
    assert [x.dtype for x in got] == [np.float16] * 3
    assert [x.shape for x in got] == [(1, 1, 2), (1, 1, 2), (2, 1, 1, 2)]


def test_errors_name_the_argument() -> None:
    q = np.ones((2, 3, 4))
    out, lse = attention(q, q, q, return_lse=True)
    cases: list[tuple[tuple[Any, ...], dict[str, Any], type[Exception], str]] = [
        ((out[:1], lse, out), {}, ValueError, r"`out` must have shape \(2, 3, 4\)"),
        ((out, out, out), {}, ValueError, r"`lse` must have shape \(2, 3\)"),
        ((out, lse, lse), {}, ValueError, r"`cotangent` must have shape \(2, 3, 4\)"),
        ((out, lse, out), {"bias_gradient": True}, ValueError, "`bias` must be given for its"),
        ((out, lse, out), {"dropout": 0.1}, TypeError, "options must be among those of"),
        ((out, lse, out), {"softcap": -1}, ValueError, "`softcap` must be a positive"),
    ]
    for arrays, options, error, message in cases:
        with pytest.raises(error, match=rf"^attention_vjp: {message}"):
            attention_vjp(q, q, q, *arrays, **options)
