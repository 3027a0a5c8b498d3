"""Plans: what a contraction does, found once for its subscripts, shapes and dtypes.

A plan brings each operand to its labels (an axis of length one that meets a longer one is dropped:
it is broadcast), sums labels that no other array has, and then joins two arrays at a time along a
tree (`_einsum_steps`). Where intermediates would pass the limit in bytes, some labels are taken one
value at a time, with a smaller plan for what is left.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from unitstride._einsum_dtypes import Dtypes, is_narrow
from unitstride._einsum_network import Network, Tree, bits, labels_of_tree, peak_elements
from unitstride._einsum_order import loop_of
from unitstride._einsum_parse import Subscripts
from unitstride._einsum_paths import Choice, choose_tree, path_of_tree
from unitstride._einsum_steps import Labels, Shape, Step, StepList, network_of

DType = np.dtype[Any]

_LOOPS = ("einsum", "ContractExpression")
_FLOAT32 = np.dtype(np.float32)


@dataclass(frozen=True, slots=True)
class Slice:
    """A label that is taken one value at a time, and where it is."""

    size: int
    axes: tuple[Labels, ...]  # of each operand
    out_axis: int | None


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that does not depend on the arrays themselves."""

    shape: Shape
    dtype: DType
    operand_dtypes: tuple[DType, ...]
    # For each operand what selects the axes that have labels; None for all of them.
    selections: tuple[tuple[Any, ...] | None, ...]
    steps: tuple[Step, ...]
    is_empty: bool  # a label has no elements: the sum is zero
    is_view: bool  # one operand, nothing to sum
    # The operand that has all labels of the result, and for each of these its axes there.
    follows: tuple[int, tuple[Labels, ...]] | None
    # For results in NumPy's order in memory (`_einsum_order`): the axes of each operand by their
    # places in the loop over all labels; None for functions whose results are in C order.
    loop: tuple[Labels, ...] | None = None
    # Labels to be taken one value at a time, and the plan for what is left of the operands then.
    slices: tuple[Slice, ...] = ()
    inner: "Plan | None" = None


def label_sizes(function: str, subscripts: Subscripts, shapes: tuple[Shape, ...]) -> list[int]:
    """Return the size of each label; 1 gives way to any other size between operands."""
    sizes = [1] * len(subscripts.names)
    origin = [0] * len(sizes)
    for position, (term, shape) in enumerate(zip(subscripts.terms, shapes, strict=True)):
        seen: dict[int, int] = {}
        for label, size in zip(term, shape, strict=True):
            if seen.setdefault(label, size) != size:
                raise ValueError(
                    f"{function}: operand {position} must have one size for label "
                    f"{subscripts.names[label]!r}, got {seen[label]} and {size} in shape {shape}"
                )
            if size == 1 or size == sizes[label]:
                continue
            if sizes[label] != 1:
                raise ValueError(
                    f"{function}: operand {position} must have size {sizes[label]} for label "
                    f"{subscripts.names[label]!r} as operand {origin[label]} has, got {size}"
                )
            sizes[label], origin[label] = size, position
    return sizes


def _check_size(function: str, shape: Shape, itemsize: int) -> None:
    """Raise before anything is computed if no array can have the shape of the result."""
    if math.prod(shape) * itemsize > np.iinfo(np.intp).max:
        raise ValueError(f"{function}: the result of shape {shape} is too large for an array")


def _selection(
    term: Labels, shape: Shape, sizes: list[int]
) -> tuple[Labels, tuple[Any, ...] | None]:
    """Drop the axes of length one that are broadcast; return the other labels and an index."""
    broadcast = [n == 1 and sizes[x] != 1 for x, n in zip(term, shape, strict=True)]
    if not any(broadcast):
        return term, None
    left = tuple(x for x, dropped in zip(term, broadcast, strict=True) if not dropped)
    return left, (*(0 if dropped else slice(None) for dropped in broadcast), ...)


def _follows(output: Labels, terms: list[Labels]) -> tuple[int, tuple[Labels, ...]] | None:
    """Find the operand that has all labels of the result; -1 stands for axes without any."""
    if len(output) < 2:
        return None
    for number, term in enumerate(terms):
        if set(output) <= set(term):
            places = tuple(
                tuple(axis for axis, label in enumerate(term) if label == x) for x in output
            )
            return number, places
    return None


def _sliced_labels(network: Network, tree: Tree, sizes: list[int], largest: float) -> list[int]:
    """Choose labels to be taken one value at a time, until the intermediates fit."""
    sizes = list(sizes)
    chosen: list[int] = []
    while True:
        current = Network(network.terms, network.output, sizes, network.machine)
        peak = peak_elements(current, tree)
        if peak <= largest:
            return chosen
        masks = labels_of_tree(current, tree)[len(network.terms) : -1]
        best = None
        for label in {x for mask in masks for x in bits(mask) if sizes[x] > 1}:
            trial = [1 if x == label else n for x, n in enumerate(sizes)]
            left = peak_elements(
                Network(network.terms, network.output, trial, network.machine), tree
            )
            # Much gained for few slices; among equals the lowest label.
            score = (math.log(left / peak) / math.log(sizes[label]), label)
            best = score if best is None or score < best else best
        if best is None:
            return chosen
        chosen.append(best[1])
        sizes[best[1]] = 1


def build(
    function: str,
    subscripts: Subscripts,
    shapes: tuple[Shape, ...],
    dtypes: Dtypes,
    choice: Choice,
    memory_limit: float = math.inf,
) -> Plan:
    """Return the plan for operands of these shapes."""
    sizes = label_sizes(function, subscripts, shapes)
    output = subscripts.output
    shape = tuple(sizes[x] for x in output)
    _check_size(function, shape, dtypes.result.itemsize)
    selected = [
        _selection(term, own, sizes) for term, own in zip(subscripts.terms, shapes, strict=True)
    ]
    terms = [term for term, _ in selected]
    operand_dtypes = list(dtypes.operands)
    if len(terms) > 2 and is_narrow(dtypes.result):
        operand_dtypes = [_FLOAT32] * len(terms)  # results between are not rounded to 16 bits
    plan = Plan(
        shape=shape,
        dtype=dtypes.result,
        operand_dtypes=tuple(operand_dtypes),
        selections=tuple(selection for _, selection in selected),
        steps=(),
        is_empty=0 in sizes,
        is_view=len(terms) == 1 and set(terms[0]) == set(output),
        follows=_follows(
            output,
            [
                tuple(-1 if n == 1 != sizes[x] else x for x, n in zip(term, own, strict=True))
                for term, own in zip(subscripts.terms, shapes, strict=True)
            ],
        ),
        loop=loop_of(subscripts, shapes) if function in _LOOPS else None,
    )
    if plan.is_empty:
        return plan
    steps = StepList(sizes, terms, operand_dtypes)
    if len(terms) == 1:
        steps.add(0, None, output)
        return replace(plan, steps=tuple(steps.steps))
    network = network_of(sizes, terms, output, dtypes.result)
    largest = memory_limit / dtypes.result.itemsize
    tree = choose_tree(function, choice, network, sizes, largest)
    labels = _sliced_labels(network, tree, sizes, largest)
    if labels:
        path = Choice("path", tuple(path_of_tree(tree, len(terms))))
        return _sliced(plan, function, subscripts, shapes, sizes, dtypes, path, labels)
    steps.add_tree(network, tree, output)
    return replace(plan, steps=tuple(steps.steps))


def _sliced(
    plan: Plan,
    function: str,
    subscripts: Subscripts,
    shapes: tuple[Shape, ...],
    sizes: list[int],
    dtypes: Dtypes,
    path: Choice,
    labels: list[int],
) -> Plan:
    """Return the plan that takes `labels` one value at a time; those of the output come first."""
    labels = sorted(labels, key=lambda label: (label not in subscripts.output, label))
    slices = tuple(
        Slice(
            sizes[label],
            tuple(
                tuple(axis for axis, x in enumerate(term) if x == label)
                for term in subscripts.terms
            ),
            subscripts.output.index(label) if label in subscripts.output else None,
        )
        for label in labels
    )

    def without(term: Labels) -> Labels:
        return tuple(x for x in term if x not in labels)

    left = Subscripts(
        tuple(map(without, subscripts.terms)), without(subscripts.output), subscripts.names
    )
    left_shapes = tuple(
        tuple(n for x, n in zip(term, shape, strict=True) if x not in labels)
        for term, shape in zip(subscripts.terms, shapes, strict=True)
    )
    inner = build(function, left, left_shapes, dtypes, path)
    return replace(plan, slices=slices, inner=inner)
