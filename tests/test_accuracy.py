"""The error of each result in ULP, against numbers that mpmath computed with 60 digits.

Stored vectors (tests/data, written by generate.py) are rounded correctly; the steps from there to
the result are counted, so that a budget of n means an error of at most n + 1/2 ULP.
"""

import csv
import functools
import math
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from checks import (
    BY_NAME,
    LEAST_EXPONENT,
    assert_within_budget,
    core,
    dtype_of,
    random_for,
    ulp_error,
    ulp_steps,
)

from unitstride import log_softmax, logsumexp, softmax
from unitstride._records import KERNELS, KernelSpec

OPERATIONS = {"softmax": softmax, "log_softmax": log_softmax, "logsumexp": logsumexp}
BUDGET = {"softmax": 4, "log_softmax": 4, "logsumexp": 2}
STORED = ("float32", "float64")


class Row(NamedTuple):
    family: str
    temperature: float
    x: np.ndarray[Any, Any]
    index: list[int]
    expected: dict[str, np.ndarray[Any, Any]]


def from_hex(text: str, name: str) -> np.ndarray[Any, Any]:
    bits = np.array([int(word, 16) for word in text.split()], f"u{np.dtype(name).itemsize}")
    return bits.view(name)


@functools.cache
def stored_rows(name: str) -> tuple[Row, ...]:
    path = Path(__file__).parent / "data" / f"softmax-{name}.csv"
    with path.open(newline="", encoding="ascii") as file:
        return tuple(
            Row(
                row["family"],
                float.fromhex(row["temperature"]),
                from_hex(row["x"], name),
                [int(word) for word in row["index"].split()],
                {operation: from_hex(row[operation], name) for operation in OPERATIONS},
            )
            for row in csv.DictReader(file)
        )


def batches(name: str) -> list[list[Row]]:
    """Group the rows by length and temperature."""
    groups = defaultdict(list)
    for row in stored_rows(name):
        groups[len(row.x), row.temperature].append(row)
    return list(groups.values())


def results_of_batch(operation: str, rows: list[Row], by_columns: bool) -> list[np.ndarray]:
    x = np.array([row.x for row in rows])
    function = functools.partial(OPERATIONS[operation], temperature=rows[0].temperature)
    with np.errstate(invalid="ignore"):
        result = function(np.ascontiguousarray(x.T), axis=0).T if by_columns else function(x)
    return [
        value[row.index] if value.ndim else value[None]
        for value, row in zip(result, rows, strict=True)
    ]


@pytest.mark.parametrize("by_columns", [False, True], ids=["rows", "columns"])
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("name", STORED)
def test_stored_vectors(name: str, operation: str, by_columns: bool, isa: str) -> None:
    failures, worst = [], defaultdict(float)
    for rows in batches(name):
        for row, got in zip(rows, results_of_batch(operation, rows, by_columns), strict=True):
            expected = row.expected[operation]
            steps = ulp_steps(got, expected)
            least = 2.0 ** LEAST_EXPONENT[name]
            subnormal = np.abs(expected) < least
            budget = np.where(subnormal, subnormal_budget(operation, row), BUDGET[operation])
            good = (steps <= budget) | twin_allows(operation, row, got)
            if not good.all():
                failures.append((float(steps.max()), row.family, row.temperature, row.x))
            worst[row.family] = max(worst[row.family], float(np.max(steps, where=good, initial=0)))
    assert not failures, describe(failures, worst)


def subnormal_budget(operation: str, row: Row) -> float:
    """Allow one step for a subnormal result.

    A subnormal logarithm of 1 + S is S, whose terms are subnormal and rounded one by one.
    """
    return 1.0 if operation == "softmax" else 1.0 + len(row.x) / 2


def twin_allows(operation: str, row: Row, got: np.ndarray[Any, Any]) -> Any:
    """Say whether a logsumexp near zero may be missed by that much.

    Plain NumPy has no more than float64: where m and log1p(S) cancel, three roundings of numbers
    as large as m remain. The core sums such lines in pairs of doubles, whose 106 bits of a sum
    that is one are off by 2^-104 at the most for each of the four operations on it.
    """
    if operation != "logsumexp" or not np.isfinite(got).all():
        return False
    if core is not None:
        return np.abs(got.astype(np.float64) - row.expected["logsumexp"]) <= 2.0**-102
    largest = float(np.max(np.abs(row.x.astype(np.float64)), initial=1.0)) / row.temperature
    missed = np.abs(got.astype(np.float64) - row.expected["logsumexp"])
    return missed <= 3 * np.finfo(np.float64).eps * largest


def describe(failures: list[Any], worst: dict[str, float]) -> str:
    failures.sort(key=lambda failure: -failure[0])
    lines = [f"{len(failures)} rows beyond the budget; worst steps by family: {dict(worst)}"]
    for steps, family, temperature, x in failures[:3]:
        words = " ".join(float(value).hex() for value in x)
        lines.append(f"{steps} steps, {family}, temperature {temperature}: {words}")
    return "\n".join(lines)


@pytest.mark.parametrize("name", STORED)
def test_there_are_enough_vectors(name: str) -> None:
    rows = stored_rows(name)
    assert len(rows) >= 1500
    assert {"normal x 1", "normal x 10", "normal x 30", "one dominant", "all equal"} <= {
        row.family for row in rows
    }


@pytest.mark.parametrize("name", STORED)
def test_stored_vectors_are_what_mpmath_says(name: str) -> None:
    mpmath = pytest.importorskip("mpmath")
    rows = [row for row in stored_rows(name) if np.isfinite(row.x).all()]
    for row in rows[:: len(rows) // 40]:
        # Enough digits for 1 + the least subnormal number.
        with mpmath.workdps(350):
            scaled = [mpmath.mpf(float(x)) / mpmath.mpf(row.temperature) for x in row.x]
            level = mpmath.log(mpmath.fsum(mpmath.exp(x) for x in scaled))
            logs = [scaled[i] - level for i in row.index]
            for exact, operation in (
                ([level], "logsumexp"),
                (logs, "log_softmax"),
                (list(map(mpmath.exp, logs)), "softmax"),
            ):
                wide = np.array(list(map(as_longdouble, exact)))
                error = ulp_error(row.expected[operation], wide, wide, name)
                # Half an ULP, and what the way through longdouble adds.
                assert error.max() <= 0.501, (row.family, operation)


# Long lines: few distinct values, so that the exact sum costs one exponential for each of them.

DISTINCT = 1021  # a prime: the values come in an order without a period of vectors or pieces


def long_line(name: str, length: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return the distinct values and the line's index into them."""
    number = np.arange(DISTINCT)
    values = (number * 0.0137 - 7.3 + (number * number % 97) * 1e-3).astype(name)
    return values, np.arange(length) * 7919 % DISTINCT


@pytest.mark.parametrize("length", [1000, 4099, 20_011, 81_921, 163_841, 200_003, 1_000_003])
@pytest.mark.parametrize("name", STORED)
def test_long_lines(name: str, length: int, isa: str) -> None:
    mpmath = pytest.importorskip("mpmath")
    values, index = long_line(name, length)
    counts = np.bincount(index, minlength=DISTINCT)
    with mpmath.workdps(40):
        exact_values = [mpmath.mpf(float(value)) for value in values]
        terms = [mpmath.exp(value) * int(n) for value, n in zip(exact_values, counts, strict=True)]
        level = mpmath.log(mpmath.fsum(terms))
        expected_log = [as_longdouble(value - level) for value in exact_values]
        expected = [as_longdouble(mpmath.exp(value - level)) for value in exact_values]
    x = values[index]
    for operation, exact in (("softmax", expected), ("log_softmax", expected_log)):
        result = OPERATIONS[operation](x)
        exact_line = np.array(exact, np.longdouble)[index]
        assert ulp_error(result, exact_line, exact_line, name).max() <= BUDGET[operation] + 0.5
    error = ulp_error(logsumexp(x), as_longdouble(level), as_longdouble(level), name)
    assert error <= BUDGET["logsumexp"] + 0.5


def as_longdouble(value: Any) -> np.longdouble:
    """Convert through two float64, which together hold more than a longdouble does."""
    high = float(value)
    return np.longdouble(high) + np.longdouble(float(value - high))


# 16-bit types: every value there is.


@pytest.mark.parametrize("length", [2, 40])
@pytest.mark.parametrize("companion", [-3.0, 0.0, 1.5])
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_every_16_bit_value(
    name: str, operation: str, companion: float, length: int, isa: str
) -> None:
    """Each of the 65,536 values beside a constant, in lines for columns and lines for rows.

    Arithmetic is float32, rounded once: the error is half an ULP and 2^-13 of the kernel's own.
    """
    dtype = dtype_of(name)
    x = np.full((65536, length), companion, dtype)
    x[:, 0] = np.arange(65536, dtype=np.uint16).view(dtype)
    with np.errstate(all="ignore"):
        result = OPERATIONS[operation](x)
        wide = x.astype(np.float64)
        exact = BY_NAME[operation].reference(wide)
    if operation != "logsumexp":
        result, exact = result[:, :2], exact[:, :2]
    largest = float(np.max(x[np.isfinite(wide)].astype(np.float64)))
    exact = np.where(np.abs(exact) > largest, exact.astype(dtype).astype(np.float64), exact)
    error = ulp_error(result, exact, exact, name)
    worst = np.unravel_index(np.argmax(error), error.shape)
    assert error[worst] <= 0.51, f"{error[worst]} ULP for {wide[worst[0], 0]!r}"


# The gradients, and every kernel at every length, against the twin in float64.


@pytest.mark.parametrize("name", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("spec", KERNELS, ids=lambda spec: spec.name)
def test_error_budget_of_every_kernel(spec: KernelSpec, name: str, isa: str) -> None:
    for shape in ((40, 5), (30, 33), (7, 1000), (2, 20_001)):
        for axis in (-1, 0):
            random = random_for("budget", spec.name, name, shape, axis)
            for sample in spec.sample_inputs(random, dtype_of(name), shape, axis):
                result = spec.function(*sample.arrays, **sample.keywords)
                assert_within_budget(spec, sample, result, name)


@pytest.mark.parametrize("name", STORED)
def test_sums_to_one(name: str, isa: str) -> None:
    """Errors of n elements of either sign add up like a random walk at the most."""
    for length in (2, 17, 333, 4099):
        y = softmax(random_for("one", name, length).standard_normal((50, length)).astype(name))
        deviation = np.abs(np.array([math.fsum(line) for line in y.astype(float)]) - 1.0)
        epsilon = float(np.finfo(name).eps)
        assert deviation.max() <= 2 * epsilon * math.sqrt(length) + epsilon


@pytest.mark.parametrize("name", STORED)
def test_extreme_temperatures(name: str) -> None:
    """Temperatures at which a scaled element or its difference overflows or vanishes."""
    x = random_for("hot", name).standard_normal((6, 9)).astype(name)
    for temperature in (5e-324, 1e-300, 1e-40, 1e-30, 1e-10, 1e10, 1e30, 1e40, 1e300, 1.7e308):
        y = softmax(x, temperature=temperature)
        if temperature < 1e-9:
            expected = np.zeros_like(x)
            expected[np.arange(6), x.argmax(axis=1)] = 1
        else:
            # The differences are far below 1: exp(d) is 1 + d, and 1 + 0 from some point on.
            d = (x - x.mean(axis=1, keepdims=True)).astype(np.longdouble) / temperature
            expected = ((1 + d) / 9).astype(name)
        tolerance = 4 * np.finfo(name).eps if temperature != 1e10 else 1e-15 + np.finfo(name).eps
        np.testing.assert_allclose(y, expected, rtol=tolerance, atol=0, err_msg=str(temperature))
