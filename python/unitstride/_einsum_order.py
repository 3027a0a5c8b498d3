"""The order in memory of a new result, which is NumPy's.

NumPy loops over all labels, first those of the result and then the others, sorted. With order "K"
it moves axes with small strides inwards, wherever the operands that have two axes agree about
them, and gives the result the order of that loop. The same in `cpp/bindings/result_order.hpp`.
"""

from collections.abc import Sequence

from unitstride._einsum_parse import Subscripts

Labels = tuple[int, ...]


def loop_of(subscripts: Subscripts, shapes: Sequence[tuple[int, ...]]) -> tuple[Labels, ...] | None:
    """Return the place in the loop of each axis of each operand, -1 for axes of length one.

    None where the result has one order only.
    """
    output = subscripts.output
    if len(output) < 2:
        return None

    def by_name(label: int) -> tuple[int, int, str]:
        name = subscripts.names[label]
        is_number = name.lstrip("-").isdecimal()
        return (1, int(name), "") if is_number else (0, 0, name)

    rest = {label for term in subscripts.terms for label in term} - set(output)
    places = {label: k for k, label in enumerate([*output, *sorted(rest, key=by_name)])}
    return tuple(
        tuple(-1 if n == 1 else places[label] for label, n in zip(term, shape, strict=True))
        for term, shape in zip(subscripts.terms, shapes, strict=True)
    )


def inward_axes(loop: Sequence[Labels], axes: int, strides: Sequence[Sequence[int]]) -> list[int]:
    """Return the axes of the result from the outermost to the innermost in memory."""
    depth = max((place + 1 for term in loop for place in term), default=0)
    steps = [[0] * max(depth, axes) for _ in loop]
    for own, term, given in zip(steps, loop, strides, strict=True):
        for place, stride in zip(term, given, strict=True):
            if place >= 0:
                own[place] += stride
    outward: list[int] = []
    for place in reversed(range(len(steps[0]))):
        position = len(outward)
        for k in reversed(range(len(outward))):
            pairs = [(abs(own[outward[k]]), abs(own[place])) for own in steps]
            pairs = [(inner, outer) for inner, outer in pairs if inner and outer]
            if pairs and all(inner > outer for inner, outer in pairs):
                position = k
            elif pairs:
                break
        outward.insert(position, place)
    return [place for place in reversed(outward) if place < axes]
