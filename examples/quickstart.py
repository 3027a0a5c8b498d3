"""A character-bigram language model of a real text, in five steps of the softmax family.

    python examples/quickstart.py [text file]

The text is the documentation that comes with Python (or its sources where that is missing). Each
step is done by unitstride and by plain NumPy, which give the same answers; the time of each stands
beside it.
"""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import unitstride

Array = NDArray[Any]
Answer = tuple[Array, ...]


def read_text(words: list[str]) -> tuple[str, str]:
    """Return a name for the text, and the text."""
    if words:
        return words[0], Path(words[0]).read_text(encoding="utf-8", errors="replace")
    try:
        from pydoc_data.topics import topics

        return "Python's documentation", "\n".join(topics.values())
    except ImportError:
        sources = sorted(Path(os.__file__).parent.glob("*.py"))
        text = "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in sources)
        return "the sources of Python's standard library", text


def timed(function: Callable[[], Answer], rounds: int = 3) -> tuple[Answer, float]:
    """Return what a function returns and its shortest time in milliseconds."""
    best = float("inf")
    for _ in range(rounds):
        begin = time.perf_counter()
        answer = function()
        best = min(best, time.perf_counter() - begin)
    return answer, 1e3 * best


def step(name: str, ours: Callable[[], Answer], numpys: Callable[[], Answer]) -> Answer:
    """Run both, check that they agree, print a line of the table, and return our answer."""
    answer, our_time = timed(ours)
    expected, numpy_time = timed(numpys)
    for a, b in zip(answer, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)
    ratio = numpy_time / our_time
    print(f"{name:42} {our_time:9.3f} ms {numpy_time:9.3f} ms {ratio:8.1f}x")
    return answer


# The same in plain NumPy.


def numpy_logsumexp(x: Array, axis: int = -1) -> Array:
    """log(sum(exp(x))) with the maximum taken off first."""
    highest = x.max(axis, keepdims=True)
    total: Array = highest + np.log(np.exp(x - highest).sum(axis, keepdims=True))
    return total.squeeze(axis)


def numpy_log_softmax(x: Array, axis: int = -1) -> Array:
    """Logarithms of probabilities."""
    answer: Array = x - np.expand_dims(numpy_logsumexp(x, axis), axis)
    return answer


def numpy_softmax(x: Array, axis: int = -1, temperature: float = 1.0) -> Array:
    """Probabilities."""
    scaled = x / temperature
    powers = np.exp(scaled - scaled.max(axis, keepdims=True))
    answer: Array = powers / powers.sum(axis, keepdims=True)
    return answer


def sample(probabilities: Array, start: int, draws: Array) -> Array:
    """Walk from character to character; `probabilities` is (character, next character)."""
    cumulated = probabilities.astype(np.float64).cumsum(axis=-1)
    cumulated[:, -1] = 1.0
    walk = [start]
    for draw in draws:
        walk.append(int(np.searchsorted(cumulated[walk[-1]], draw, side="right")))
    return np.array(walk)


def main(words: list[str]) -> None:
    """Count, normalise, measure and sample."""
    name, text = read_text(words)
    alphabet, numbers = np.unique(np.array(list(text)), return_inverse=True)
    size = len(alphabet)
    train, held_out = np.split(numbers, [len(numbers) * 4 // 5])
    held_out = held_out[:100_000]
    print(f"A bigram model of {name}: {len(text):,} characters, {size} different ones\n")
    print(f"{'':42} {'unitstride':>12} {'NumPy':>12} {'ratio':>9}")

    # Counts of pairs, plus one, are unnormalised probabilities; their logarithms are logits.
    pairs = np.bincount(train[:-1] * size + train[1:], minlength=size * size)
    logits = np.log(pairs.reshape(size, size) + 1.0).astype(np.float32)
    step(
        f"1 log_softmax of the counts {logits.shape}",
        lambda: (unitstride.log_softmax(logits),),
        lambda: (numpy_log_softmax(logits),),
    )

    # A language model gives a row of logits for each position of a text.
    rows = logits[held_out[:-1]]
    chosen = rows[np.arange(len(rows)), held_out[1:]]
    (sums,) = step(
        f"2 logsumexp of a text {rows.shape}",
        lambda: (unitstride.logsumexp(rows),),
        lambda: (numpy_logsumexp(rows),),
    )
    step(
        "3 softmax of the same",
        lambda: (unitstride.softmax(rows),),
        lambda: (numpy_softmax(rows),),
    )
    columns = np.ascontiguousarray(rows.T)
    step(
        f"4 the same by columns {columns.shape}",
        lambda: (unitstride.softmax(columns, axis=0),),
        lambda: (numpy_softmax(columns, axis=0),),
    )
    temperatures = (0.4, 1.0)
    tables = step(
        "5 softmax at temperatures 0.4 and 1",
        lambda: tuple(unitstride.softmax(logits, temperature=t) for t in temperatures),
        lambda: tuple(numpy_softmax(logits, temperature=t) for t in temperatures),
    )

    perplexity = float(np.exp(np.mean((sums - chosen).astype(np.float64))))
    print(f"\nPerplexity of text the model has not seen: {perplexity:.2f} (chance: {size})")
    draws = np.random.default_rng(1).random(72)
    start = int(train[0])
    for temperature, table in zip(temperatures, tables, strict=True):
        walk = sample(table, start, draws)
        same = np.array_equal(walk, sample(numpy_softmax(logits, -1, temperature), start, draws))
        print(f"\nSampled at temperature {temperature} (NumPy samples the same: {same}):")
        print("  " + "".join(alphabet[walk]).replace("\n", " "))


if __name__ == "__main__":
    main(sys.argv[1:])
