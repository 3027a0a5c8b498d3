"""Subscripts: from a string or from lists of labels to one tuple of small numbers per operand.

The grammar is NumPy's: terms separated by commas, an optional "->" with the output, one ellipsis
per term, spaces anywhere. In strings a label is a letter, ASCII or not; in lists it is an integer.
Without an output, that consists of the broadcast axes and, sorted, of the labels seen once.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from operator import index
from typing import Any, NamedTuple

# What stands for "..." in a term, before it is known how many axes it means.
_ELLIPSIS = "..."
# A label before it gets its number: a letter, an integer, or a place of the ellipsis from the
# right. Of one expression all labels but those places have the same type, so that they sort.
Token = Any


class Subscripts(NamedTuple):
    """Numbered labels: those of `terms[k]` belong to the axes of operand k."""

    terms: tuple[tuple[int, ...], ...]
    output: tuple[int, ...]
    names: tuple[str, ...]  # of the labels, for messages and reports


class _Place(NamedTuple):
    """An axis of an ellipsis, counted from the right."""

    place: int


def _tokens_of_term(function: str, text: str, term: str) -> list[Token]:
    """Split one term of a string into letters and at most one ellipsis."""
    tokens: list[Token] = []
    parts = term.split(_ELLIPSIS)
    if len(parts) > 2 or any("." in part for part in parts):
        raise ValueError(
            f"{function}: `subscripts` must have dots only as one '...' in a term, got {text!r}"
        )
    for position, part in enumerate(parts):
        if position:
            tokens.append(_ELLIPSIS)
        for letter in part:
            if letter.isspace() or (letter.isascii() and not letter.isalpha()):
                raise ValueError(
                    f"{function}: `subscripts` must be made of letters, ',', '...' and one '->', "
                    f"got {letter!r} in {text!r}"
                )
            tokens.append(letter)
    return tokens


def _split_text(function: str, text: str) -> tuple[list[list[Token]], list[Token] | None]:
    """Split a string into the terms of the operands and of the output."""
    plain = text.replace(" ", "")
    inputs, arrow, output = plain.partition("->")
    if "," in output:
        raise ValueError(f"{function}: `subscripts` must have one output after '->', got {text!r}")
    terms = [_tokens_of_term(function, text, term) for term in inputs.split(",")]
    return terms, _tokens_of_term(function, text, output) if arrow else None


def _tokens_of_list(function: str, labels: Iterable[Any]) -> list[Token]:
    """Read one list of labels: integers and at most one Ellipsis."""
    try:
        entries = list(labels)
        tokens = [_ELLIPSIS if entry is Ellipsis else index(entry) for entry in entries]
    except TypeError:
        raise TypeError(
            f"{function}: each list of labels must be made of integers and Ellipsis, got {labels!r}"
        ) from None
    if tokens.count(_ELLIPSIS) > 1:
        raise ValueError(
            f"{function}: each list of labels must have at most one Ellipsis, got {labels!r}"
        )
    return tokens


def _expand(
    function: str, position: int, tokens: list[Token], dimensions: int, shown: str
) -> list[Token]:
    """Put the axes that it stands for in the place of the ellipsis of an operand's term."""
    if _ELLIPSIS not in tokens:
        if len(tokens) != dimensions:
            raise ValueError(
                f"{function}: `subscripts` must have a label for each axis of operand {position}, "
                f"got {len(tokens)} for {dimensions} axes in {shown}"
            )
        return tokens
    extra = dimensions - (len(tokens) - 1)
    if extra < 0:
        raise ValueError(
            f"{function}: `subscripts` must have at most a label for each axis of operand "
            f"{position}, got {len(tokens) - 1} for {dimensions} axes in {shown}"
        )
    where = tokens.index(_ELLIPSIS)
    places = [_Place(place) for place in reversed(range(extra))]
    return tokens[:where] + places + tokens[where + 1 :]


def _implicit_output(terms: Sequence[Sequence[Token]], broadcast: list[Token]) -> list[Token]:
    """Return the broadcast axes and then, sorted, the labels that appear once."""
    labels = [token for term in terms for token in term if not isinstance(token, _Place)]
    return broadcast + sorted(token for token in set(labels) if labels.count(token) == 1)


def _number(
    function: str,
    terms: list[list[Token]],
    output: list[Token] | None,
    dimensions: tuple[int, ...],
    shown: str,
) -> Subscripts:
    """Expand ellipses, find the output and number the labels in the order they appear."""
    if len(terms) != len(dimensions):
        raise ValueError(
            f"{function}: `subscripts` must have one term for each operand, "
            f"got {len(terms)} for {len(dimensions)} operands in {shown}"
        )
    expanded = [
        _expand(function, position, tokens, count, shown)
        for position, (tokens, count) in enumerate(zip(terms, dimensions, strict=True))
    ]
    places = {token for term in expanded for token in term if isinstance(token, _Place)}
    broadcast: list[Token] = sorted(places, reverse=True)
    if output is None:
        result = _implicit_output(expanded, broadcast)
    elif _ELLIPSIS in output:
        where = output.index(_ELLIPSIS)
        result = output[:where] + broadcast + output[where + 1 :]
    else:
        result = output
    numbers: dict[Token, int] = {}
    for term in expanded:
        for token in term:
            numbers.setdefault(token, len(numbers))
    for token in result:
        if token not in numbers:
            raise ValueError(
                f"{function}: `subscripts` must have each label of the output in an input, "
                f"got {token!r} only in the output of {shown}"
            )
    if len(set(result)) != len(result):
        raise ValueError(
            f"{function}: `subscripts` must not repeat a label in the output, got {shown}"
        )
    names = [f"...{-1 - t.place}" if isinstance(t, _Place) else str(t) for t in numbers]
    return Subscripts(
        tuple(tuple(numbers[token] for token in term) for term in expanded),
        tuple(numbers[token] for token in result),
        tuple(names),
    )


@lru_cache(maxsize=1024)
def parse_text(function: str, text: str, dimensions: tuple[int, ...]) -> Subscripts:
    """Read subscripts like "ij,jk->ik" for operands with these numbers of axes."""
    terms, output = _split_text(function, text)
    return _number(function, terms, output, dimensions, repr(text))


def parse_lists(
    function: str,
    lists: Sequence[Iterable[Any]],
    output: Iterable[Any] | None,
    dimensions: tuple[int, ...],
) -> Subscripts:
    """Read one list of integer labels per operand, and perhaps that of the output."""
    terms = [_tokens_of_list(function, labels) for labels in lists]
    result = None if output is None else _tokens_of_list(function, output)
    shown = ", ".join(str(["..." if t == _ELLIPSIS else t for t in term]) for term in terms)
    if result is not None:
        shown += f" -> {['...' if t == _ELLIPSIS else t for t in result]}"
    return _number(function, terms, result, dimensions, shown)


def split_interleaved(
    function: str, arguments: Sequence[Any]
) -> tuple[list[Any], list[Any], Any | None]:
    """Split (operand, labels, operand, labels, ..., output labels) into its parts."""
    if len(arguments) < 2:
        raise ValueError(
            f"{function}: `subscripts` must be a string, or each operand must be followed by the "
            "list of its labels"
        )
    pairs = len(arguments) // 2
    operands = [arguments[2 * k] for k in range(pairs)]
    lists = [arguments[2 * k + 1] for k in range(pairs)]
    for labels in lists:
        if isinstance(labels, str) or not hasattr(labels, "__iter__"):
            raise TypeError(
                f"{function}: each operand must be followed by the list of its labels, "
                f"got {labels!r}"
            )
    output = arguments[-1] if len(arguments) % 2 else None
    if output is not None and not hasattr(output, "__iter__"):
        raise TypeError(f"{function}: the output must be a list of labels, got {output!r}")
    return operands, lists, output


def letters_of(subscripts: Subscripts) -> list[str]:
    """Return a letter for each label, its own one where it has one, for reports.

    The integers from 0 to 51 stand for the letters from A to Z and from a to z, as in NumPy.
    """
    pool = [chr(code) for start in (65, 97) for code in range(start, start + 26)]
    own = {name: name for name in subscripts.names if len(name) == 1 and name.isalpha()}
    own |= {str(n): x for n, x in enumerate(pool) if str(n) in subscripts.names}
    taken = set(own.values())
    spare = (letter for letter in [*pool, *map(chr, range(192, 0x2000))] if letter not in taken)
    return [own.get(name) or next(spare) for name in subscripts.names]
