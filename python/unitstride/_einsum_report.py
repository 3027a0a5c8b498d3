"""The path of a contraction as NumPy writes it, and the report that goes with it."""

import math
from collections.abc import Sequence

from unitstride._einsum_parse import Subscripts, letters_of

Path = Sequence[tuple[int, ...]]
Labels = tuple[int, ...]


def _operations(labels: set[int], sums: bool, count: int, sizes: Sequence[int]) -> float:
    """Count multiplications and additions of a nested loop over the labels."""
    loop = math.prod(sizes[label] for label in labels)
    return loop * float(max(1, count - 1) + sums)


def report(subscripts: Subscripts, sizes: Sequence[int], path: Path) -> str:
    """Return the table of a path: costs before and after, and each step."""
    letters = letters_of(subscripts)

    def text(terms: Sequence[Labels], output: Labels) -> str:
        return ",".join("".join(letters[x] for x in t) for t in terms) + "->" + _joined(output)

    def _joined(labels: Labels) -> str:
        return "".join(letters[x] for x in labels)

    output = subscripts.output
    left = list(subscripts.terms)
    everything = {x for term in left for x in term}
    repeated = sum(len(set(term)) for term in left) > len(everything)
    naive = _operations(everything, repeated, len(left), sizes)
    rows: list[tuple[int, str, str]] = []
    spent, largest = 1.0, 1.0
    for number, entry in enumerate(path):
        taken = [left.pop(position) for position in sorted(entry, reverse=True)]
        labels = {x for term in taken for x in term}
        needed = {x for term in (*left, output) for x in term}
        result = tuple(x for x in dict.fromkeys(x for t in taken for x in t) if x in needed)
        if number == len(path) - 1:
            result = output
        left.append(result)
        spent += _operations(labels, len(labels) > len(result), len(taken), sizes)
        largest = max(largest, math.prod(sizes[x] for x in result))
        rows.append((len(labels), text(taken, result), text(left, output)))
    head = {
        "Complete contraction": text(subscripts.terms, output),
        "Naive scaling": str(len(everything)),
        "Optimized scaling": str(max((row[0] for row in rows), default=0)),
        "Naive FLOP count": f"{naive:.3e}",
        "Optimized FLOP count": f"{spent:.3e}",
        "Theoretical speedup": f"{naive / spent:.3f}",
        "Largest intermediate": f"{largest:.3e} elements",
    }
    rule = "-" * 74
    lines = [f"{name:>22}:  {value}" for name, value in head.items()]
    lines += [rule, f"{'scaling':>6} {'current':>24} {'remaining':>40}", rule]
    lines += [f"{scaling:>4}    {now:>24} {rest:>40}" for scaling, now, rest in rows]
    return "\n".join(lines)
