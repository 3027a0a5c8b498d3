"""What tests assert with: bits, ULP, untouched inputs, fresh interpreters."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from unitstride import _backend, _einsum_call, convolution
from unitstride._records import KERNELS, KernelSpec, Sample, find_dtype

# `unitstride.softmax` is the function; the module of that name holds its own reference to the core.
_SOFTMAX_MODULE = sys.modules["unitstride.softmax"]

core = _backend.core
BY_NAME = {spec.name: spec for spec in KERNELS}
DTYPES = ("float32", "float64", "float16", "bfloat16")

# Bits of the significand after the leading one, and the exponent of the least normal number.
SIGNIFICAND_BITS = {"float32": 23, "float64": 52, "float16": 10, "bfloat16": 7}
LEAST_EXPONENT = {"float32": -126, "float64": -1022, "float16": -14, "bfloat16": -126}

needs_core = pytest.mark.skipif(core is None, reason="about the compiled core, which is not in use")


def dtype_of(name: str) -> np.dtype[Any]:
    """Return a dtype by name, or skip the test where ml_dtypes is missing."""
    dtype = find_dtype(name)
    if dtype is None:
        pytest.skip("ml_dtypes is not installed")
    return dtype


def isa_levels() -> list[str]:
    """Return the levels at which the generic tests run; one nameless level for the twin."""
    if core is None:
        return ["numpy"]
    wanted = os.environ.get("UNITSTRIDE_TEST_ISA", "all")
    return list(core.isa_detected()) if wanted == "all" else [wanted]


@contextlib.contextmanager
def fallback() -> Iterator[None]:
    """Run public functions on the NumPy twin, as if the core were not installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_backend, "core", None)
        patch.setattr(_backend, "_operations", None)
        patch.setattr(_SOFTMAX_MODULE, "core", None)
        patch.setattr(_einsum_call, "core", None)
        patch.setattr(convolution, "core", None)
        yield


def random_for(*key: object) -> np.random.Generator:
    """Return a generator seeded by `key`, so that no two tests share their data."""
    return np.random.default_rng([ord(letter) for letter in repr(key)])


def native_bits(array: Any) -> np.ndarray[Any, Any]:
    """Return the elements as unsigned integers, in native byte order."""
    plain = np.asarray(array)
    plain = np.array(plain.astype(plain.dtype.newbyteorder("=")), order="C")
    return plain.view(f"u{plain.itemsize}")


def assert_same_bits(got: Any, expected: Any, context: object = "") -> None:
    """Fail unless dtype, shape and every bit agree; a NaN equals any NaN."""
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.dtype == expected.dtype, context
    assert got.shape == expected.shape, context
    same = native_bits(got) == native_bits(expected)
    same |= np.isnan(got) & np.isnan(expected)
    if not same.all():
        place = tuple(int(i) for i in np.argwhere(~same)[0])
        raise AssertionError(
            f"{context}: {np.count_nonzero(~same)} of {same.size} elements differ, "
            f"first at {place}: {got[place]!r} instead of {expected[place]!r}"
        )


def ulp_steps(got: Any, expected: Any) -> np.ndarray[Any, Any]:
    """Count the representable numbers between two arrays of one dtype; 0 for equal NaN or inf."""
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.dtype == expected.dtype and got.shape == expected.shape
    bits = 8 * got.itemsize
    sign = 1 << (bits - 1)

    def ordered(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        raw = native_bits(array).astype(object if bits == 64 else np.int64)
        return np.where(raw < sign, raw, sign - raw)

    steps = np.abs(ordered(got) - ordered(expected)).astype(np.float64)
    both_nan = np.isnan(got) & np.isnan(expected)
    one_nan = np.isnan(got) ^ np.isnan(expected)
    return np.where(both_nan, 0.0, np.where(one_nan, np.inf, steps))


def ulp_error(got: Any, exact: Any, scale: Any, name: str) -> np.ndarray[Any, Any]:
    """Return abs(got - exact) in units of the last place that `scale` has in dtype `name`."""
    with np.errstate(all="ignore"):
        exact, scale = np.asarray(exact, np.longdouble), np.asarray(scale, np.longdouble)
        got = np.asarray(got, np.float64).astype(np.longdouble)
        exponent = np.maximum(np.floor(np.log2(np.abs(scale))), LEAST_EXPONENT[name])
        error = np.abs(got - exact) / np.exp2(exponent - SIGNIFICAND_BITS[name])
        equal = (got == exact) | (np.isnan(got) & np.isnan(exact))
        return np.where(equal, 0.0, np.where(np.isnan(error), np.inf, error)).astype(np.float64)


def widened(sample: Sample) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments of a sample with every floating array in float64."""
    arrays = [array.astype(np.float64) for array in sample.arrays]
    keywords = dict(sample.keywords)
    if "lse" in keywords:
        keywords["lse"] = keywords["lse"].astype(np.float64)
    return arrays, keywords


def assert_within_budget(spec: KernelSpec, sample: Sample, got: Any, name: str) -> None:
    """Compare with the twin in float64, which is exact beside the narrower dtypes."""
    arrays, keywords = widened(sample)
    exact = spec.reference(*arrays, **keywords)
    error = ulp_error(got, exact, spec.error_scale(*arrays, **keywords), name)
    # In float64 the twin is as far from the truth as the core may be.
    budget = spec.error_budget[name] * (2 if name == "float64" else 1)
    worst = np.max(error, initial=0.0)
    assert worst <= budget, f"{spec.name} {name} {sample.label}: {worst} ULP, allowed {budget}"


def array_arguments(sample: Sample) -> list[np.ndarray[Any, Any]]:
    """Return all arrays among the arguments of a sample."""
    values = [*sample.arrays, *sample.keywords.values()]
    return [value for value in values if isinstance(value, np.ndarray)]


def call(spec: KernelSpec, sample: Sample, **more: Any) -> Any:
    """Call the public function and check that it leaves its inputs as they were.

    An input that is `out` itself, or shares memory with it, is not checked.
    """
    out = more.get("out")
    inputs = [a for a in array_arguments(sample) if out is None or not np.shares_memory(a, out)]
    before = [a.tobytes() for a in inputs]
    result = spec.function(*sample.arrays, **{**sample.keywords, **more})
    for array, content in zip(inputs, before, strict=True):
        assert array.tobytes() == content, f"{spec.name} {sample.label}: an input was modified"
    return result


def run_python(
    code: str,
    environment: dict[str, str] | None = None,
    options: tuple[str, ...] = (),
    timeout: float = 60.0,
) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter; `environment` is added to ours."""
    return subprocess.run(
        [sys.executable, *options, "-c", code],
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def output_of(code: str, environment: dict[str, str] | None = None, **more: Any) -> str:
    """Run code in a fresh interpreter that must succeed; return what it prints."""
    done = run_python(code, environment, **more)
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout.strip()
