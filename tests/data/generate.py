"""Write the test vectors of the softmax family: ``python tests/data/generate.py``.

Each row is one line of numbers with its correctly rounded softmax, log_softmax and logsumexp,
computed by mpmath with 60 digits. All numbers are the bits of the dtype in hex; of longer lines a
few elements are stored: the largest, the smallest and one other.
"""

import csv
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import mpmath
import numpy as np

DIGITS = 60
LENGTHS = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33)
LONGER = (63, 64, 65, 100)
# Name: rows, significand bits after the leading one, exponent of the least normal number.
FORMATS = {"float32": (np.uint32, 23, -126), "float64": (np.uint64, 52, -1022)}
COLUMNS = ("family", "temperature", "x", "index", "softmax", "log_softmax", "logsumexp")

Random = np.random.Generator
Line = np.ndarray


def correctly_rounded(value: mpmath.mpf, name: str) -> float:
    """Round to the nearest number of the format, ties to even, subnormals included."""
    if not mpmath.isfinite(value) or value == 0:
        return float(value)
    _, bits, least = FORMATS[name]
    exponent = max(mpmath.frexp(value)[1] - 1, least)
    if mpmath.frexp(value)[1] < least - bits - 2:
        return 0.0
    sign, mantissa, power, _ = value._mpf_
    exact = Fraction(-int(mantissa) if sign else int(mantissa)) * Fraction(2) ** power
    quantum = Fraction(2) ** (exponent - bits)
    return float(round(exact / quantum) * quantum)


def exact_softmax(
    line: list[float], temperature: float, index: list[int]
) -> tuple[list[mpmath.mpf], list[mpmath.mpf], mpmath.mpf]:
    """Return softmax and log_softmax at `index`, and logsumexp."""
    with mpmath.workdps(DIGITS):
        scaled = [mpmath.mpf(x) / mpmath.mpf(temperature) for x in line]
        highest = max(scaled)
        if mpmath.isinf(highest):
            return [mpmath.nan] * len(index), [mpmath.nan] * len(index), highest
        vanishing = -(10**6)  # exponentials below this are beyond any format and any digit
        exponentials = [
            mpmath.exp(x - highest) if x - highest > vanishing else mpmath.mpf(0) for x in scaled
        ]
        leading = scaled.index(highest)
        others = mpmath.fsum(e for i, e in enumerate(exponentials) if i != leading)
        logarithm = mpmath.log1p(others)
        return (
            [exponentials[i] / (1 + others) for i in index],
            [scaled[i] - highest - logarithm for i in index],
            highest + logarithm,
        )


# Families: each takes a random generator, a length and a dtype and gives a line.


def normal(spread: float) -> Callable[[Random, int, np.dtype], Line]:
    return lambda random, n, dtype: random.standard_normal(n) * spread


def dominant(random: Random, n: int, dtype: np.dtype) -> Line:
    """One element above all others by 1 to 120, which is where 1 + S loses S."""
    line = -random.uniform(1, 120) + random.standard_normal(n)
    line[random.integers(n)] = random.standard_normal()
    return line + random.choice([0.0, 5.0, -300.0])


def equal(random: Random, n: int, dtype: np.dtype) -> Line:
    largest = float(np.finfo(dtype).max)
    return np.full(n, random.choice([0.0, random.standard_normal(), 1e4, -largest, largest]))


def infinite(random: Random, n: int, dtype: np.dtype) -> Line:
    line = random.standard_normal(n) * 5
    line[random.random(n) < random.choice([0.2, 0.5, 1.0])] = -np.inf
    if random.random() < 0.2:
        line[random.integers(n)] = np.inf
    return line


def subnormal_input(random: Random, n: int, dtype: np.dtype) -> Line:
    tiny = float(np.finfo(dtype).tiny)
    return random.standard_normal(n) * tiny * 2.0 ** random.integers(-20, 3)


def subnormal_output(random: Random, n: int, dtype: np.dtype) -> Line:
    """Most results are subnormal or about to vanish."""
    lowest = -np.log(float(np.finfo(dtype).tiny))
    line = -random.uniform(lowest - 2, lowest + np.finfo(dtype).nmant * 0.7 + 2, n)
    line[random.integers(n)] = 0.0
    return line


def cancelling(random: Random, n: int, dtype: np.dtype) -> Line:
    """The exponentials add up to nearly one, so that logsumexp is nearly zero."""
    shares = random.dirichlet(np.ones(n))
    return np.log(np.maximum(shares, 1e-30)) * (1 + random.choice([0, 1e-6, -1e-4]))


def close_and_large(random: Random, n: int, dtype: np.dtype) -> Line:
    """Neighbouring numbers of a large magnitude."""
    level = 10.0 ** random.uniform(2, 6) * random.choice([-1, 1])
    steps = random.integers(-40, 40, n) * np.spacing(np.asarray(level, dtype)).astype(float)
    return level + steps


def any_magnitude(random: Random, n: int, dtype: np.dtype) -> Line:
    return random.standard_normal(n) * 10.0 ** random.uniform(-12, 3, n)


def huge(random: Random, n: int, dtype: np.dtype) -> Line:
    """Differences beyond the range of any integer in an argument reduction, below overflow."""
    largest = float(np.finfo(dtype).max) / 4
    line = random.standard_normal(n) * 10.0 ** random.uniform(3, np.log10(largest), n)
    return np.clip(line, -largest, largest)


FAMILIES: dict[str, tuple[int, Callable[[Random, int, np.dtype], Line]]] = {
    "normal x 1": (250, normal(1.0)),
    "normal x 10": (250, normal(10.0)),
    "normal x 30": (250, normal(30.0)),
    "one dominant": (200, dominant),
    "all equal": (80, equal),
    "mixed infinities": (120, infinite),
    "subnormal input": (80, subnormal_input),
    "subnormal output": (120, subnormal_output),
    "cancelling": (200, cancelling),
    "close and large": (80, close_and_large),
    "any magnitude": (80, any_magnitude),
    "huge": (80, huge),
    "temperature": (150, normal(5.0)),
}


def stored_elements(random: Random, line: Line) -> list[int]:
    """Choose the largest element, the smallest finite one and another."""
    finite = np.where(np.isfinite(line), line, np.inf)
    chosen = {int(np.argmax(line)), int(np.argmin(finite)), int(random.integers(len(line)))}
    return sorted(chosen)


def as_hex(values: object, name: str) -> str:
    bits = FORMATS[name][0]
    digits = 2 * np.dtype(name).itemsize
    numbers = np.atleast_1d(np.asarray(values, dtype=name)).view(bits)
    return " ".join(f"{int(number):0{digits}x}" for number in numbers)


def rows(name: str) -> Iterator[dict[str, str]]:
    random = np.random.default_rng([2024, np.dtype(name).itemsize])
    for family, (count, make) in FAMILIES.items():
        for number in range(count):
            lengths = LONGER if number % 25 == 24 else LENGTHS
            with np.errstate(over="ignore", under="ignore"):
                line = make(random, int(random.choice(lengths)), np.dtype(name)).astype(name)
            temperature = float(random.uniform(0.05, 8)) if family == "temperature" else 1.0
            index = stored_elements(random, line)
            results = exact_softmax([float(x) for x in line], temperature, index)
            softmax, log_softmax, (logsumexp,) = (
                [correctly_rounded(value, name) for value in values]
                for values in (results[0], results[1], [results[2]])
            )
            yield {
                "family": family,
                "temperature": temperature.hex(),
                "x": as_hex(line, name),
                "index": " ".join(map(str, index)),
                "softmax": as_hex(softmax, name),
                "log_softmax": as_hex(log_softmax, name),
                "logsumexp": as_hex(logsumexp, name),
            }


def main() -> None:
    for name in FORMATS:
        path = Path(__file__).with_name(f"softmax-{name}.csv")
        with path.open("w", newline="", encoding="ascii") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows(name))


if __name__ == "__main__":
    main()
