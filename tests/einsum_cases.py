"""Random contractions, and what their results are compared with."""

import string
from typing import Any

import numpy as np
from checks import dtype_of
from layouts import LAYOUTS, Layout

Array = np.ndarray[Any, Any]

# Layouts that do not ask for another shape.
PLACES = tuple(layout for layout in LAYOUTS if layout.shape is Layout.shape)

# Beside each dtype one in which a sum is as good as exact, and the unit roundoff.
WIDER = {
    "float16": ("float64", 2.0**-11),
    "bfloat16": ("float64", 2.0**-8),
    "float32": ("float64", 2.0**-24),
    "float64": ("longdouble", 2.0**-53),
    "complex64": ("complex128", 2.0**-24),
    "complex128": ("clongdouble", 2.0**-53),
}
# Results below the normal numbers are rounded to multiples of these.
LEAST = {"float16": 2.0**-24, "bfloat16": 2.0**-133}


def random_subscripts(random: np.random.Generator) -> tuple[str, list[tuple[int, ...]]]:
    """Return subscripts with all features mixed, and shapes for them of at most 20,000 terms."""
    labels = random.choice(list(string.ascii_letters), random.integers(1, 7), replace=False)
    pool = [1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 33] + [0] * bool(random.random() < 0.04)
    sizes = {label: int(random.choice(pool)) for label in labels}
    extra = [int(random.choice([1, 2, 3])) for _ in range(random.integers(0, 3))]
    while np.prod([max(n, 1) for n in (*sizes.values(), *extra)]) > 20_000:
        largest = max(sizes, key=lambda label: sizes[label])
        sizes[largest] = sizes[largest] // 2 or 1
    count = int(random.choice([1, 2, 2, 2, 2, 3, 4, 5]))
    terms, shapes = [], []
    for _ in range(count):
        term = list(random.choice(labels, min(int(random.integers(0, 5)), 4)))
        if random.random() < 0.75:  # otherwise labels may repeat
            term = list(dict.fromkeys(term))
        ones = {label for label in term if random.random() < 0.08}
        shape = [1 if label in ones else sizes[label] for label in term]
        if random.random() < 0.25:
            where = int(random.integers(0, len(term) + 1))
            places = extra[len(extra) - int(random.integers(0, len(extra) + 1)) :]
            shape[where:where] = [1 if random.random() < 0.1 else n for n in places]
            term.insert(where, "...")
        terms.append(term)
        shapes.append(tuple(shape))
    text = ",".join("".join(term) for term in terms)
    if random.random() < 0.8:
        used = sorted({label for term in terms for label in term} - {"..."})
        output = [label for label in used if random.random() < 0.5]
        random.shuffle(output)
        if "..." in text or random.random() < 0.05:
            output.insert(int(random.integers(0, len(output) + 1)), "...")
        text += "->" + "".join(output)
    if random.random() < 0.2:
        where = int(random.integers(0, len(text) + 1))
        if "." not in text[max(where - 1, 0) : where + 1] and text[where - 1 : where + 1] != "->":
            text = text[:where] + " " + text[where:]
    return text, shapes


def random_array(random: np.random.Generator, shape: tuple[int, ...], name: str) -> Array:
    """Return normal numbers of a dtype, in a memory layout of any kind."""
    values = random.standard_normal(shape)
    if name.startswith("complex"):
        values = values + 1j * random.standard_normal(shape)
    if np.dtype(dtype_of(name)).kind in "iu":
        values = random.integers(0 if name.startswith("u") else -9, 10, shape)
    if name == "bool":
        values = random.random(shape) < 0.5
    layout = PLACES[int(random.integers(len(PLACES)))]
    return layout(np.asarray(values).astype(dtype_of(name)))


def exact(subscripts: str, arrays: Any, dtype: str) -> tuple[Array, Array]:
    """Return the sum in a wider dtype, and the sum of the magnitudes of its terms."""
    wide = np.dtype(WIDER[dtype][0])
    operands = [np.asarray(array).astype(wide) for array in arrays]
    value = np.einsum(subscripts, *operands)
    scale = np.einsum(subscripts, *[np.abs(array) for array in operands])
    return np.asarray(value), np.asarray(scale)


def assert_close(got: Any, subscripts: str, arrays: Any, factor: float = 16.0) -> None:
    """Fail unless each element is within 16 units of roundoff of the sum of magnitudes.

    A tree of n products and sums of blocks costs a few units; 16 leave room for long sums in one
    accumulator, whose error grows like a random walk.
    """
    got = np.asarray(got)
    value, scale = exact(subscripts, arrays, got.dtype.name)
    assert got.shape == value.shape, subscripts
    unit = WIDER[got.dtype.name][1]
    error = np.abs(got.astype(value.dtype) - value)
    allowed = factor * unit * scale + LEAST.get(got.dtype.name, 0.0)
    if (error > allowed).any():
        place = np.unravel_index(np.argmax(error - allowed), error.shape)
        shapes = [array.shape for array in arrays]
        raise AssertionError(
            f"{subscripts!r} {got.dtype} {shapes}: error {error[place]} at {place}, "
            f"allowed {allowed[place]}"
        )
