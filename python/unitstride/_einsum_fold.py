"""Contractions some of whose operands are known before: everything among these is done once."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unitstride import _backend
from unitstride._einsum_plan import Plan
from unitstride._einsum_run import fresh, prepare
from unitstride._einsum_steps import Step

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Rest:
    """What is left to do: a plan that takes the given operands and then `arrays`, in `order`."""

    plan: Plan
    arrays: list[Array]
    order: tuple[int, ...] | None = None  # None: as they are

    def operands(self, given: list[Array]) -> list[Array]:
        """Return the operands of the plan."""
        found = [*given, *self.arrays]
        return found if self.order is None else [found[k] for k in self.order]


def _run(step: Step, arrays: dict[int, Array]) -> Array:
    result = fresh(step.shape, step.dtype)
    second = None if step.second is None else arrays[step.second]
    with np.errstate(all="ignore"):
        _backend.run(
            "contract",
            arrays[step.first],
            step.first_labels,
            second,
            step.second_labels,
            result,
            step.labels,
            1.0,
            0.0,
        )
    return result


def fold(plan: Plan, given: tuple[int, ...], constants: dict[int, Array]) -> Rest:
    """Run the steps among constants, except the last step of all; return what is left."""
    places = sorted(constants)
    if plan.slices or not plan.steps:
        position = {place: k for k, place in enumerate((*given, *places))}
        order = tuple(position[k] for k in range(len(position)))
        return Rest(plan, [constants[k] for k in places], order)
    chosen = replace(
        plan,
        operand_dtypes=tuple(plan.operand_dtypes[k] for k in places),
        selections=tuple(plan.selections[k] for k in places),
    )
    ready = prepare(chosen, [constants[k] for k in places])
    known = dict(zip(places, ready, strict=True))
    left: list[tuple[int, Step]] = []
    for number, step in enumerate(plan.steps, len(given) + len(places)):
        inputs = {step.first, step.first if step.second is None else step.second}
        if step is not plan.steps[-1] and inputs <= known.keys():
            known[number] = _run(step, known)
        else:
            left.append((number, step))
    used = [k for _, step in left for k in (step.first, step.second) if k in known]
    renumbered = {place: k for k, place in enumerate((*given, *used, *(n for n, _ in left)))}
    steps = tuple(
        replace(
            step,
            first=renumbered[step.first],
            second=None if step.second is None else renumbered[step.second],
        )
        for _, step in left
    )
    follows = plan.follows
    if follows is not None:
        follows = (renumbered[follows[0]], follows[1]) if follows[0] in given else None
    arrays = [known[k] for k in used if k is not None]
    rest = replace(
        plan,
        operand_dtypes=(
            *(plan.operand_dtypes[k] for k in given),
            *(array.dtype for array in arrays),
        ),
        selections=(*(plan.selections[k] for k in given), *(None for _ in arrays)),
        steps=steps,
        follows=follows,
    )
    return Rest(rest, arrays)
