"""Properties that hold for any input, searched with hypothesis.

Every run draws the same examples (derandomized), so that a failure is found again; the arrays come
in one of the layouts of layouts.py.
"""

from typing import Any

import numpy as np
import pytest
from checks import (
    BY_NAME,
    SIGNIFICAND_BITS,
    assert_same_bits,
    assert_within_budget,
    dtype_of,
    native_bits,
    ulp_error,
    ulp_steps,
)
from layouts import LAYOUTS

from unitstride import LogSumExp, log_softmax, logsumexp, softmax, softmax_vjp
from unitstride._records import Sample

pytest.importorskip("hypothesis")

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

PLAIN_LAYOUTS = [layout for layout in LAYOUTS if layout.shape((2, 3, 4)) == (2, 3, 4)]

few = settings(
    derandomize=True,
    max_examples=60,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@st.composite
def arrays(draw: Any, width: int | None = None, special: bool = False) -> Any:
    """Draw a float array of 1 to 3 axes in any layout, and an axis of it."""
    dtype = np.dtype(f"f{width // 8}" if width else draw(st.sampled_from(["f4", "f8"])))
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=21))
    bits = 8 * dtype.itemsize
    largest = float(np.float32(1e30)) if bits == 32 else 1e30
    elements = (
        st.floats(width=bits)
        if special
        else st.one_of(
            st.floats(-20, 20, width=bits),
            st.floats(-largest, largest, width=bits),
            st.just(-np.inf),
            st.integers(-5, 5).map(float),
        )
    )
    x = draw(hnp.arrays(dtype, shape, elements=elements, fill=st.nothing()))
    layout = draw(st.sampled_from(PLAIN_LAYOUTS))
    return layout(x), draw(st.integers(-len(shape), len(shape) - 1))


def defined(x: Any, axis: int) -> Any:
    """Say for each line whether it has a finite maximum; +inf and NaN are tested elsewhere."""
    return np.isfinite(np.max(x, axis=axis, keepdims=True))


def epsilon_of(x: Any) -> float:
    return 2.0 ** -SIGNIFICAND_BITS[x.dtype.newbyteorder("=").name]


@given(arrays())
@few
def test_within_the_budget(drawn: Any) -> None:
    x, axis = drawn
    with np.errstate(invalid="ignore", over="ignore"):
        for name in ("softmax", "logsumexp"):
            result = BY_NAME[name].function(x, axis)
            native = x.astype(x.dtype.newbyteorder("="))
            sample = Sample("drawn", (native,), {"axis": axis})
            assert_within_budget(BY_NAME[name], sample, result, native.dtype.name)


@given(arrays())
@few
def test_a_distribution(drawn: Any) -> None:
    """Between 0 and 1, adding up to 1, in the order of the input."""
    x, axis = drawn
    with np.errstate(invalid="ignore"):
        y = softmax(x, axis)
    good = np.broadcast_to(defined(x, axis), x.shape)
    assert (np.isfinite(y) == good).all()
    assert (y[good] >= 0).all() and (y[good] <= 1).all()
    total = np.sum(y.astype(np.float64), axis=axis, keepdims=True)
    tolerance = 2 * epsilon_of(x) * np.sqrt(x.shape[axis]) + epsilon_of(x)
    assert (np.abs(total[defined(x, axis)] - 1) <= tolerance).all()
    order = np.argsort(x, axis=axis, kind="stable")
    sorted_y = np.take_along_axis(np.where(good, y, 0), order, axis)
    assert (np.diff(sorted_y, axis=axis) >= 0).all()


@given(arrays())
@few
def test_equal_elements_have_equal_results(drawn: Any) -> None:
    x, axis = drawn
    x = np.moveaxis(x, axis, -1)
    with np.errstate(invalid="ignore"):
        y, logs = softmax(x), log_softmax(x)
    same = x[..., :, None] == x[..., None, :]
    for result in (y, logs):
        left = np.broadcast_to(result[..., :, None], same.shape)[same]
        right = np.broadcast_to(result[..., None, :], same.shape)[same]
        assert_same_bits(left, right)


@given(arrays(), st.integers(-40, 40))
@few
def test_exact_shifts_change_next_to_nothing(drawn: Any, shift: int) -> None:
    """With integers x + shift is exact: two results for one truth, each within its budget."""
    x, axis = drawn
    x = np.where(np.isfinite(x), np.round(np.clip(x, -1000, 1000)), x)
    x = x.astype(x.dtype.newbyteorder("="))
    moved = x + x.dtype.type(shift)
    with np.errstate(invalid="ignore"):
        for function in (softmax, log_softmax):
            steps = ulp_steps(function(moved, axis), function(x, axis))
            assert np.max(steps, initial=0) <= 8


@given(arrays(), st.randoms(use_true_random=False))
@few
def test_lines_do_not_know_their_place(drawn: Any, random: Any) -> None:
    """A permutation of the lines permutes the results, bit by bit."""
    x, axis = drawn
    assume(x.ndim > 1)
    other = (axis + 1) % x.ndim
    order = list(range(x.shape[other]))
    random.shuffle(order)
    with np.errstate(invalid="ignore"):
        got = softmax(np.take(x, order, other), axis)
        assert_same_bits(got, np.take(softmax(x, axis), order, other))


@given(arrays(), st.randoms(use_true_random=False))
@few
def test_permuted_elements_give_permuted_results(drawn: Any, random: Any) -> None:
    """Within a line the sum is formed in another order: a few ULP."""
    x, axis = drawn
    order = list(range(x.shape[axis]))
    random.shuffle(order)
    with np.errstate(invalid="ignore"):
        got = softmax(np.take(x, order, axis), axis)
        expected = np.take(softmax(x, axis), order, axis)
    name = got.dtype.name
    # Each result is within 4 ULP of the truth.
    assert np.max(ulp_error(got, expected, expected, name), initial=0) <= 8


@given(arrays(), st.data())
@few
def test_a_mask_is_minus_infinity(drawn: Any, data: Any) -> None:
    x, axis = drawn
    where = data.draw(hnp.arrays(bool, x.shape))
    hidden = np.where(where, x, x.dtype.type(-np.inf))
    with np.errstate(invalid="ignore"):
        something = np.broadcast_to(where.any(axis=axis, keepdims=True), x.shape)
        masked, plain = softmax(x, axis, where=where), softmax(hidden, axis)
        # A line of nothing but -inf is NaN where selected, and 0 or NaN otherwise.
        usable = something & np.broadcast_to(defined(hidden, axis), x.shape)
        assert_same_bits(masked[usable], plain[usable])
        assert (masked[~where] == 0).all()
        assert_same_bits(logsumexp(x, axis, where=where), logsumexp(hidden, axis))


@given(arrays(special=True))
@few
def test_any_float_at_all(drawn: Any) -> None:
    """NaN payloads, both zeros, infinities, subnormals: the documented value for each line."""
    x, axis = drawn
    with np.errstate(all="ignore"):
        y, level = softmax(x, axis), np.expand_dims(logsumexp(x, axis), axis)
        highest = np.max(x, axis=axis, keepdims=True)
    undefined = ~np.isfinite(highest)
    assert_nan = np.broadcast_to(undefined, x.shape)
    assert (np.isnan(y) == assert_nan).all()
    np.testing.assert_array_equal(level[undefined], highest[undefined])


@given(arrays())
@few
def test_logsumexp_is_between_its_bounds(drawn: Any) -> None:
    """max <= logsumexp <= max + log(n), with an ULP or two of room above."""
    x, axis = drawn
    level = np.expand_dims(logsumexp(x, axis), axis).astype(np.float64)
    highest = np.max(x, axis=axis, keepdims=True).astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        slack = 2 * epsilon_of(x) * (np.abs(highest) + np.log(x.shape[axis]))
        assert (level >= highest - slack)[np.isfinite(highest)].all()
        above = level <= highest + np.log(x.shape[axis]) + slack
    assert above[np.isfinite(highest)].all()


@given(arrays())
@few
def test_log_softmax_is_the_logarithm_of_softmax(drawn: Any) -> None:
    x, axis = drawn
    with np.errstate(all="ignore"):
        logs, y = log_softmax(x, axis).astype(float), softmax(x, axis).astype(float)
        assert not (logs > 0).any()
        normal = y > 1e-30
        # exp multiplies the relative error of its argument by the argument.
        tolerance = (8 + 4 * np.abs(logs[normal])) * epsilon_of(x)
        assert (np.abs(np.exp(logs[normal]) - y[normal]) <= tolerance * y[normal]).all()


@given(arrays(width=64), st.integers(0, 20))
@few
def test_pieces_merge_to_the_whole(drawn: Any, cut: int) -> None:
    x, axis = drawn
    cut = min(cut, x.shape[axis])
    first, second = np.split(x, [cut], axis)
    state, rest = LogSumExp(axis), LogSumExp(axis)
    state.update(first)
    rest.update(second)
    state.merge(rest)
    expected = logsumexp(x, axis)
    # Terms as large as the maximum are rounded a few times; they may cancel in the result.
    scale = np.maximum(np.abs(np.max(x, axis=axis)), 1.0)
    with np.errstate(invalid="ignore"):
        close = np.abs(state.value - expected) <= 8 * np.finfo(float).eps * scale
    assert (close | (state.value == expected)).all()


@given(arrays())
@few
def test_the_gradient_is_orthogonal_to_constants(drawn: Any) -> None:
    """The rows of the Jacobian add up to 0: softmax does not see a shift."""
    x, axis = drawn
    with np.errstate(invalid="ignore"):
        y = softmax(x, axis)
    y = np.where(np.isfinite(y), y, 0)
    dy = np.cos(np.arange(y.size)).reshape(y.shape).astype(y.dtype)
    total = np.sum(softmax_vjp(y, dy, axis).astype(float), axis=axis)
    assert (np.abs(total) <= 8 * epsilon_of(x) * np.sqrt(x.shape[axis])).all()


@given(arrays())
@few
def test_out_and_the_input_as_out(drawn: Any) -> None:
    x, axis = drawn
    with np.errstate(invalid="ignore"):
        expected = softmax(x, axis)
        out = np.empty_like(expected)
        assert softmax(x, axis, out=out) is out
        assert_same_bits(out, expected)
        inside = x.astype(expected.dtype)
        assert softmax(inside, axis, out=inside) is inside
        assert_same_bits(inside, expected)
    assert native_bits(x).shape == x.shape


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_16_bit_types_round_once(name: str) -> None:
    """The float32 result, rounded: computing in float32 is all that a 16-bit type changes."""

    @given(hnp.arrays(np.float32, st.integers(1, 70), elements=st.floats(-30, 30, width=32)))
    @few
    def check(values: Any) -> None:
        x = values.astype(dtype_of(name))
        exact = BY_NAME["softmax"].reference(x.astype(np.float64))
        assert ulp_error(softmax(x), exact, exact, name).max() <= 0.51

    check()
