"""The options that all functions of attention take, as keywords that are handed on."""

from typing import Any, TypedDict

import numpy as np
from numpy.typing import ArrayLike

from unitstride import _attention_options
from unitstride._attention_options import Causal, Inputs, Window

NAMES = (
    "mask",
    "bias",
    "causal",
    "window",
    "scale",
    "softcap",
    "alibi_slopes",
    "sinks",
    "query_lengths",
    "key_lengths",
)


SCORE_NAMES = tuple(
    name for name in NAMES if name not in ("causal", "query_lengths", "key_lengths")
)


class ScoreOptions(TypedDict, total=False):
    """The options of `attention` that do not speak of lengths or the diagonal."""

    mask: ArrayLike | None
    bias: ArrayLike | None
    window: Window | None
    scale: float | None
    softcap: float | None
    alibi_slopes: ArrayLike | None
    sinks: ArrayLike | None


class Options(ScoreOptions, total=False):
    """The options of `attention` that say what is computed."""

    causal: Causal
    query_lengths: ArrayLike | None
    key_lengths: ArrayLike | None


def check_names(function: str, options: Any, names: tuple[str, ...] = NAMES) -> None:
    """Raise TypeError for an option that is not among `names`."""
    for name in options:
        if name not in names:
            raise TypeError(
                f"{function}: options must be among those of `attention` "
                f"({', '.join(names)}), got {name!r}"
            )


_DEFAULTS: dict[str, Any] = dict.fromkeys(NAMES) | {"causal": False}


def in_order(function: str, options: Options) -> tuple[Any, ...]:
    """Return the options in the order of `NAMES`, None for what is not given."""
    check_names(function, options)
    return tuple((_DEFAULTS | options).values())


def prepare(
    function: str, query: ArrayLike, key: ArrayLike, value: ArrayLike, options: Options
) -> tuple[Inputs, np.dtype[Any]]:
    """Check arrays and options; return them, and the dtype of the result."""
    check_names(function, options)
    given: Any = _DEFAULTS | options
    return _attention_options.prepare(function, query, key, value, **given)
