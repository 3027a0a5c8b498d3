"""The NumPy twin against SciPy, and the core against the twin."""

from typing import Any

import numpy as np
import pytest
from checks import DTYPES, assert_same_bits, dtype_of, fallback, random_for, ulp_error, widened

from unitstride import log_softmax, logsumexp, softmax
from unitstride._records import KERNELS, KernelSpec

special = pytest.importorskip("scipy.special")

AXES = (0, 1, -1, (0, 2), None)


def lines() -> Any:
    """Ordinary lines, and one for each special value."""
    x = random_for("scipy").standard_normal((4, 6, 9)) * 4
    x[0, 1, 2] = -np.inf
    x[1, 2, 3] = np.nan
    x[2, :, :] = -np.inf
    return x


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("function", [softmax, log_softmax, logsumexp])
def test_the_twin_agrees_with_scipy(function: Any, axis: Any) -> None:
    x = lines()
    with np.errstate(all="ignore"):
        expected = getattr(special, function.__name__)(x, axis=axis)
        with fallback():
            got = function(x, axis)
    # SciPy does not compensate: it is up to 50 ULP away from the truth on this data.
    np.testing.assert_allclose(got, expected, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", AXES)
def test_weighted_sums_agree_with_scipy(axis: Any, keepdims: bool) -> None:
    random = random_for("weights of scipy")
    x, b = random.standard_normal((4, 6, 9)), random.standard_normal((6, 9))
    b[0, 0] = 0
    keywords = {"axis": axis, "b": b, "return_sign": True, "keepdims": keepdims}
    expected, expected_sign = special.logsumexp(x, **keywords)
    got, sign = logsumexp(x, **keywords)
    assert got.shape == expected.shape
    # Sums of both signs cancel by up to 10^2 in this data.
    np.testing.assert_allclose(got, expected, rtol=1e-13, atol=1e-13)
    np.testing.assert_array_equal(sign, expected_sign)


def test_dtypes_agree_with_scipy() -> None:
    """Small integers differ: SciPy computes the softmax of int8 in float16."""
    for dtype in ("float32", "float64", "uint32", "int64"):
        x = np.ones((2, 3), dtype)
        assert softmax(x).dtype == special.softmax(x).dtype
        assert logsumexp(x).dtype == special.logsumexp(x).dtype


def test_known_differences_from_scipy() -> None:
    """A row with +inf: SciPy's log_softmax keeps -inf for the finite elements, ours is NaN."""
    with np.errstate(invalid="ignore"):
        ours, theirs = log_softmax([np.inf, 1.0]), special.log_softmax([np.inf, 1.0])
    assert np.isnan(ours).all()
    assert np.isnan(theirs[0]) and theirs[1] == -np.inf


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("spec", KERNELS, ids=lambda spec: spec.name)
def test_the_twin_itself_is_within_the_budget(spec: KernelSpec, name: str) -> None:
    """Narrow dtypes through the public function on the twin, against the twin in float64."""
    for shape, axis in (((7, 33), -1), ((33, 7), 0), ((3, 4, 5), (0, 2))):
        random = random_for("twin", spec.name, name, shape)
        for sample in spec.sample_inputs(random, dtype_of(name), shape, axis):
            with fallback():
                got = spec.function(*sample.arrays, **sample.keywords)
            arrays, keywords = widened(sample)
            exact = spec.reference(*arrays, **keywords)
            error = ulp_error(got, exact, spec.error_scale(*arrays, **keywords), name)
            assert error.max() <= spec.error_budget[name]


@pytest.mark.parametrize("spec", KERNELS, ids=lambda spec: spec.name)
def test_the_record_and_the_public_function_agree_on_the_twin(spec: KernelSpec) -> None:
    for sample in spec.sample_inputs(random_for("record"), dtype_of("float64"), (5, 21), -1):
        with fallback():
            got = spec.function(*sample.arrays, **sample.keywords)
        assert_same_bits(got, spec.reference(*sample.arrays, **sample.keywords))
