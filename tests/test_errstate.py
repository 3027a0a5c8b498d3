"""Floating-point events follow `np.errstate`, the same at every number of threads.

"invalid" is a NaN out of no NaN, "divide" the logarithm of a sum that is exactly zero, "over" an
infinity out of finite numbers. Underflow is ordinary here and never reported.
"""

import functools
import io
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from checks import DTYPES, LEAST_EXPONENT, dtype_of, fallback, random_for

import unitstride
from unitstride import (
    log_softmax,
    log_softmax_vjp,
    logsumexp,
    logsumexp_vjp,
    softmax,
    softmax_vjp,
)
from unitstride._records import KERNELS, KernelSpec, find_dtype

INF = np.inf
SHAPE = (64, 1000)  # enough work for several threads
MESSAGES = {
    "invalid": "invalid value encountered in",
    "divide": "divide by zero encountered in",
    "over": "overflow encountered in",
}


def rows_with(line: Any, dtype: Any = np.float32) -> Any:
    """Return ordinary rows, one of which is `line` in its first elements and -inf after."""
    x = random_for("errstate").standard_normal(SHAPE).astype(dtype)
    x[40] = -INF
    x[40, : len(line)] = line
    return x


def finite_rows(value: float, dtype: Any) -> Any:
    x = random_for("finite").standard_normal(SHAPE).astype(dtype)
    x[40, 0] = value
    return x


def cancelling_weights() -> Any:
    b = np.ones(SHAPE, np.float32)
    b[40] = [1.0, -1.0] * (SHAPE[1] // 2)
    return b


def equal_row() -> Any:
    x = random_for("equal").standard_normal(SHAPE).astype(np.float32)
    x[40] = 1.0
    return x


def halves(value: float) -> Any:
    return np.full(SHAPE, value, np.float16)


# Kind of event, function, arguments.
Event = tuple[str, Callable[..., Any], tuple[Any, ...], dict[str, Any]]
EVENTS: dict[str, Event] = {
    "softmax of +inf": ("invalid", softmax, (rows_with([INF, 0]),), {}),
    "softmax of -inf": ("invalid", softmax, (rows_with([]),), {}),
    "softmax of columns": ("invalid", softmax, (rows_with([]).T,), {"axis": 0}),
    "softmax of float64": ("invalid", softmax, (rows_with([INF], np.float64),), {}),
    "softmax of float16": ("invalid", softmax, (rows_with([INF], np.float16),), {}),
    "softmax of a long line": ("invalid", softmax, (rows_with([INF] * 9),), {"axis": None}),
    "masked softmax": (
        "invalid",
        softmax,
        (rows_with([INF, 1]),),
        {"where": np.arange(SHAPE[1]) < 5},
    ),
    "log_softmax of +inf": ("invalid", log_softmax, (rows_with([INF]),), {}),
    "log_softmax of -inf": ("invalid", log_softmax, (rows_with([]),), {}),
    "negative weighted sum": ("invalid", logsumexp, (equal_row(),), {"b": -np.ones(SHAPE[1])}),
    "weighted inf - inf": (
        "invalid",
        logsumexp,
        (rows_with([INF, INF]),),
        {"b": np.array([1, -1] * 500)},
    ),
    "weights that cancel": ("divide", logsumexp, (equal_row(),), {"b": cancelling_weights()}),
    "log_softmax beyond float32": (
        "over",
        log_softmax,
        (np.array([[3e38, -3e38]] * 8, np.float32),),
        {},
    ),
    "logsumexp beyond float16": (
        "over",
        logsumexp,
        (finite_rows(60000, np.float16),),
        {"temperature": 0.5},
    ),
    "softmax_vjp beyond float16": (
        "over",
        softmax_vjp,
        (halves(0.5), finite_rows(60000, np.float16)),
        {"temperature": 0.01},
    ),
    "log_softmax_vjp beyond float16": (
        "over",
        log_softmax_vjp,
        (halves(-1), finite_rows(60000, np.float16)),
        {"temperature": 0.01},
    ),
    "logsumexp_vjp beyond float16": (
        "over",
        logsumexp_vjp,
        (halves(0), np.full(SHAPE[0], 60000, np.float16)),
        {"temperature": 1e-4},
    ),
}


BFLOAT16 = find_dtype("bfloat16")
if BFLOAT16 is not None:
    # Finite in float32, where it is computed, and infinite when it is rounded to 16 bits.
    LARGEST = 3.3895e38
    EVENTS["log_softmax beyond bfloat16"] = (
        "over",
        log_softmax,
        (np.array([[0.75 * LARGEST, -0.2528 * LARGEST]] * 8).astype(BFLOAT16),),
        {},
    )
    EVENTS["log_softmax_vjp beyond bfloat16"] = (
        "over",
        log_softmax_vjp,
        (np.full((2, 3), -INF).astype(BFLOAT16), np.diag([LARGEST] * 3)[:2].astype(BFLOAT16)),
        {"temperature": 0.997},
    )


@pytest.fixture(params=[1, 2, 8])
def threads(request: pytest.FixtureRequest) -> Any:
    with unitstride.threads(request.param):
        yield request.param


@pytest.mark.parametrize("event", EVENTS)
def test_every_mode(event: str, threads: int) -> None:
    kind, function, arguments, keywords = EVENTS[event]
    call = functools.partial(function, *arguments, **keywords)
    others = {other: "raise" for other in MESSAGES if other != kind}
    message = f"{MESSAGES[kind]} {function.__name__}"
    with np.errstate(**others, **{kind: "ignore"}), warnings.catch_warnings():
        warnings.simplefilter("error")
        quiet = call()
    with np.errstate(**others, **{kind: "warn"}), pytest.warns(RuntimeWarning) as caught:
        warned = call()
    assert [str(warning.message) for warning in caught] == [message]
    assert caught[0].filename == __file__
    np.testing.assert_array_equal(warned, quiet)
    with np.errstate(**others, **{kind: "raise"}), pytest.raises(FloatingPointError) as raised:
        call()
    assert str(raised.value) == message


@pytest.mark.parametrize("event", EVENTS)
def test_calls_and_logs(event: str, capfd: pytest.CaptureFixture[str]) -> None:
    kind, function, arguments, keywords = EVENTS[event]
    call = functools.partial(function, *arguments, **keywords)
    seen: list[Any] = []
    with np.errstate(**{kind: "call"}, call=lambda text, flag: seen.append((text, flag))):
        call()
    text = MESSAGES[kind].removesuffix(" encountered in")
    assert [entry[0] for entry in seen] == [text]
    assert seen[0][1] & {"divide": 1, "over": 2, "invalid": 8}[kind]
    log = io.StringIO()
    with np.errstate(**{kind: "log"}, call=log):
        call()
    assert log.getvalue() == f"Warning: {MESSAGES[kind]} {function.__name__}\n"
    with np.errstate(**{kind: "print"}):
        call()
    printed = capfd.readouterr()
    assert f"Warning: {MESSAGES[kind]} {function.__name__}" in printed.out + printed.err


@pytest.mark.parametrize("event", EVENTS)
def test_the_fallback_reports_the_same(event: str) -> None:
    kind, function, arguments, keywords = EVENTS[event]
    call = functools.partial(function, *arguments, **keywords)
    with fallback(), np.errstate(all="raise"), pytest.raises(FloatingPointError) as raised:
        call()
    assert str(raised.value) == f"{MESSAGES[kind]} {function.__name__}"


@pytest.mark.parametrize("event", EVENTS)
def test_every_level_reports_the_same(event: str, isa: str) -> None:
    kind, function, arguments, keywords = EVENTS[event]
    with np.errstate(all="raise"), pytest.raises(FloatingPointError) as raised:
        function(*arguments, **keywords)
    assert str(raised.value) == f"{MESSAGES[kind]} {function.__name__}"


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("spec", KERNELS, ids=lambda spec: spec.name)
def test_clean_data_never_warns(spec: KernelSpec, name: str, isa: str) -> None:
    """Tails, padding, masks and underflow raise nothing: not even with everything set to raise."""
    for shape in ((5, 3), (3, 37), (40, 65), (2, 100_003)):
        for axis in (0, -1):
            random = random_for("clean", spec.name, name, shape, axis)
            for sample in spec.sample_inputs(random, dtype_of(name), shape, axis):
                with np.errstate(all="raise"):
                    spec.function(*sample.arrays, **sample.keywords)


WIDE = np.array([[0.0, -80.0, -100.0, -1e30]] * 40, np.float32)
NARROW = np.array([[0.0, -8.0, -17.0, -60000]] * 40, np.float16)
NOTHING = np.zeros(SHAPE, bool)
AFTER = np.arange(SHAPE[1]) > 3
WITH_NAN = rows_with([np.nan, INF])
Quiet = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]
QUIET: dict[str, Quiet] = {
    "underflow": (softmax, (WIDE,), {}),
    "underflow of float16": (softmax, (NARROW,), {}),
    "NaN": (softmax, (WITH_NAN,), {}),
    "NaN in log_softmax": (log_softmax, (WITH_NAN,), {}),
    "NaN in logsumexp": (logsumexp, (WITH_NAN,), {}),
    "some -inf": (softmax, (rows_with([1.0]),), {}),
    "logsumexp of -inf": (logsumexp, (rows_with([]),), {}),
    "logsumexp of +inf": (logsumexp, (rows_with([INF]),), {}),
    "nothing selected": (softmax, (rows_with([]),), {"where": NOTHING}),
    "nothing selected in log_softmax": (log_softmax, (rows_with([]),), {"where": NOTHING}),
    "nothing selected in logsumexp": (logsumexp, (rows_with([]),), {"where": NOTHING}),
    "masked-out infinities": (
        softmax,
        (np.where(AFTER, 1.0, rows_with([INF, -INF, np.nan, 1.0])),),
        {"where": AFTER},
    ),
    "masked-out NaN by columns": (
        softmax,
        (np.where(AFTER, np.float32(1), WITH_NAN).T.copy(),),
        {"where": AFTER[:, None], "axis": 0},
    ),
    "weights of zero": (logsumexp, (rows_with([INF]),), {"b": 0.0}),
    "weighted -inf": (logsumexp, (rows_with([]),), {"b": -1.0, "return_sign": True}),
    "NaN in a vjp": (softmax_vjp, (WITH_NAN, WITH_NAN), {}),
    "vjp of a dominated row": (softmax_vjp, (softmax(WIDE), WIDE), {}),
    "vjp with -inf": (log_softmax_vjp, (np.full((2, 3), -INF), np.ones((2, 3))), {}),
}


@pytest.mark.parametrize("case", QUIET)
def test_special_values_that_are_quiet(case: str, threads: int) -> None:
    function, arguments, keywords = QUIET[case]
    with np.errstate(all="raise"):
        function(*arguments, **keywords)
    with fallback(), np.errstate(all="raise"):
        function(*arguments, **keywords)


def test_stale_flags_are_not_reported() -> None:
    """What other code did to the floating-point flags before is not ours to report."""
    x = np.zeros((3, 4), np.float32)
    for _ in range(3):
        with np.errstate(all="ignore"):
            np.array([1.0, INF]) - np.array([0.0, INF])
            np.divide(1.0, np.zeros(9))
        with np.errstate(all="raise"):
            softmax(x)
            logsumexp(x, axis=0)


def test_out_is_complete_when_an_event_raises() -> None:
    x = rows_with([INF])
    out = np.zeros_like(x)
    with np.errstate(invalid="raise"), pytest.raises(FloatingPointError):
        softmax(x, out=out)
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(out, softmax(x))


def test_a_callback_that_is_missing_is_an_error() -> None:
    with (
        np.errstate(invalid="call", call=None),
        pytest.raises(NameError, match="no function found"),
    ):
        softmax([INF, 0.0])


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_lies_past_a_lines_end_raises_no_event(dtype: Any) -> None:
    # Whole vectors are computed: of zeros past the end, these results would be infinite.
    real = dtype_of(dtype)
    largest = 65504.0 if dtype == "float16" else 2.0 ** (1 - LEAST_EXPONENT[dtype])
    for length in range(1, 70):
        x = np.full((3, length), 0.9 * largest).astype(real)
        with np.errstate(all="raise"):
            y = log_softmax(x, temperature=0.05)
        assert np.isfinite(y.astype(np.float64)).all()
        y = np.full((3, length), -20.0).astype(real)
        dy = np.full((3, length), 0.9 * largest / max(length, 2)).astype(real)
        with np.errstate(all="raise"):
            dx = log_softmax_vjp(y, dy, temperature=0.5)
        assert np.isfinite(dx.astype(np.float64)).all()
