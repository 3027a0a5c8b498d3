"""Errors: type and text word for word, the same from the core and from the NumPy twin."""

import re

import numpy as np
import pytest
from checks import core, fallback, needs_core, run_python

from unitstride import LogSumExp, log_softmax, logsumexp, logsumexp_vjp, softmax
from unitstride._records import KERNELS, ErrorInput

CASES = [
    pytest.param(spec, error, id=f"{spec.name}-{number}")
    for spec in KERNELS
    for number, error in enumerate(spec.error_inputs())
]


@pytest.mark.parametrize(("spec", "error"), CASES)
def test_error_text(spec: object, error: ErrorInput) -> None:
    with pytest.raises(error.error) as caught:
        spec.function(*error.arrays, **error.keywords)
    assert type(caught.value) is error.error
    assert str(caught.value) == error.message


@needs_core
@pytest.mark.parametrize(("spec", "error"), CASES)
def test_error_text_of_the_fallback(spec: object, error: ErrorInput) -> None:
    with fallback(), pytest.raises(error.error) as caught:
        spec.function(*error.arrays, **error.keywords)
    assert type(caught.value) is error.error
    assert str(caught.value) == error.message


def test_every_kernel_has_enough_error_inputs() -> None:
    for spec in KERNELS:
        assert len(spec.error_inputs()) >= 15
        for error in spec.error_inputs():
            assert error.message.startswith(f"{spec.name}: ")


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (
            {"b": np.ones(5)},
            ValueError,
            "logsumexp: `b` must be broadcastable to shape (3, 4), got shape (5,)",
        ),
        (
            {"b": np.ones(4, complex)},
            TypeError,
            "logsumexp: `b` must be real floating point, integer or boolean, got complex128",
        ),
        (
            {"keepdims": True, "out": np.zeros(3)},
            ValueError,
            "logsumexp: `out` must have shape (3, 1), got (3,)",
        ),
        (
            {"axis": None, "out": np.zeros(1)},
            ValueError,
            "logsumexp: `out` must have shape (), got (1,)",
        ),
    ],
)
def test_logsumexp_errors(arguments: dict, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=f"^{re.escape(text)}$"):
        logsumexp(np.zeros((3, 4)), **arguments)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"dy": np.ones(3), "keepdims": True}, "`dy` must have shape (3, 1), got (3,)"),
        ({"dy": np.ones((3, 1))}, "`dy` must have shape (3,), got (3, 1)"),
        ({"dy": np.ones(3), "lse": np.ones(4)}, "`lse` must have shape (3,), got (4,)"),
        (
            {"dy": np.ones(3), "lse": (np.ones(3), np.ones(2))},
            "`sign` must have shape (3,), got (2,)",
        ),
        (
            {"dy": np.ones(3), "b": np.ones(5)},
            "`b` must be broadcastable to shape (3, 4), got shape (5,)",
        ),
    ],
)
def test_logsumexp_vjp_errors(arguments: dict, text: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape('logsumexp_vjp: ' + text)}$"):
        logsumexp_vjp(np.zeros((3, 4)), **arguments)


@pytest.mark.skipif(np.dtype(np.longdouble).itemsize == 8, reason="longdouble is float64 here")
@pytest.mark.parametrize("function", [softmax, log_softmax, logsumexp])
def test_longdouble_needs_a_dtype(function: object) -> None:
    x = np.zeros(3, np.longdouble)
    name = np.dtype(np.longdouble).name
    text = f"got {name} (longdouble has no kernel: pass `dtype=`)"
    with pytest.raises(TypeError, match=re.escape(text)):
        function(x)
    assert np.asarray(function(x, dtype=np.float64)).dtype == np.float64


def test_arguments_after_axis_are_keyword_only() -> None:
    for function in (softmax, log_softmax, logsumexp):
        with pytest.raises(TypeError, match="positional argument"):
            function(np.zeros(3), -1, None)


class Hostile:
    """An object whose conversion to an array fails, or gives something odd."""

    def __init__(self, result: object) -> None:
        self.result = result

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


def test_hostile_array_likes() -> None:
    with pytest.raises(RuntimeError, match=r"^no$"):
        softmax(Hostile(RuntimeError("no")))
    np.testing.assert_array_equal(softmax(Hostile(np.zeros(2))), [0.5, 0.5])
    with pytest.raises(TypeError, match="got object"):
        softmax(Hostile(np.array([None, 1])))
    with pytest.raises(TypeError, match="got complex64"):
        softmax(Hostile(np.zeros(2, np.complex64)))
    with pytest.raises(ValueError, match="nested sequences of equal lengths"):
        softmax([[1.0, 2.0], [3.0]])


def test_a_failed_call_leaves_no_trace() -> None:
    x = np.linspace(-1, 1, 12).reshape(3, 4)
    before = softmax(x)
    for spec in KERNELS:
        for error in spec.error_inputs():
            with pytest.raises(error.error):
                spec.function(*error.arrays, **error.keywords)
    np.testing.assert_array_equal(softmax(x), before)


def test_the_state_checks_its_axis_when_it_sees_data() -> None:
    state = LogSumExp(axis=3)
    with pytest.raises(
        np.exceptions.AxisError, match=r"LogSumExp\.update: axis 3 is out of bounds"
    ):
        state.update(np.zeros((2, 2)))


@needs_core
@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((np.zeros(4), np.zeros(4, "f4"), (0,), None, 1.0, None), TypeError),
        ((np.zeros(4), np.zeros(5), (0,), None, 1.0, None), ValueError),
        ((np.zeros(4), np.zeros((2, 2)), (0,), None, 1.0, None), ValueError),
        ((np.zeros(4), np.zeros(4), (1,), None, 1.0, None), ValueError),
        ((np.zeros(4), np.zeros(4), (-1,), None, 1.0, None), ValueError),
        ((np.zeros(4), np.zeros(4), (0, 0), None, 1.0, None), ValueError),
        ((np.zeros(4), np.zeros(4), (0,), np.ones(3, bool), 1.0, None), ValueError),
        ((np.zeros(4), np.zeros(4), (0,), np.ones(4), 1.0, None), TypeError),
        ((np.zeros(4), np.zeros(4), (0,), None, 1.0, np.zeros(2)), ValueError),
        ((np.zeros(4), np.zeros(4), (0,), None, 1.0, np.zeros((), "f4")), TypeError),
        ((np.zeros(4, "i4"), np.zeros(4, "i4"), (0,), None, 1.0, None), TypeError),
        ((np.zeros(4, ">f8"), np.zeros(4, ">f8"), (0,), None, 1.0, None), TypeError),
        ((np.zeros(4), np.broadcast_to(0.0, 4), (0,), None, 1.0, None), ValueError),
        (([0.0], np.zeros(1), (0,), None, 1.0, None), TypeError),
        ((np.zeros(4), None, (0,), None, 1.0, None), TypeError),
    ],
)
def test_the_core_refuses_what_would_corrupt_memory(
    arguments: tuple, error: type[Exception]
) -> None:
    """Python checks all this first; the core checks it again."""
    with pytest.raises(error):
        core.softmax(*arguments)


@needs_core
@pytest.mark.parametrize("function", ["softmax_fast", "log_softmax_fast", "logsumexp_fast"])
def test_the_fast_way_declines_what_it_does_not_know(function: str) -> None:
    fast = getattr(core, function)
    x = np.zeros((3, 4))
    assert fast(x, -1) is not None
    for declined in (
        x.astype("f2"),
        x.astype(">f8"),
        x.astype("i8"),
        [0.0],
        None,
        np.ma.MaskedArray(x),
    ):
        assert fast(declined, -1) is None
    for axis in (2, -3, 10**30, -(10**30), True, None, (0,), 1.0, "x"):
        assert fast(x, axis) is None


def test_errors_survive_python_without_asserts() -> None:
    """Checks are not assertions: `python -O` keeps them."""
    code = "import numpy, unitstride\nunitstride.softmax(numpy.zeros(3), out=numpy.zeros(4))"
    done = run_python(code, options=("-O",))
    assert "ValueError: softmax: `out` must have shape (3,), got (4,)" in done.stderr
