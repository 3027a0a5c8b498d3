"""Which core runs: the compiled extension or the plain NumPy twin.

``core`` is the extension module ``unitstride._core``, or None. It is None when the package is
installed without the extension, or when ``UNITSTRIDE_BACKEND=numpy`` asks for the twin.
"""

import importlib
import logging
import os
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

logger = logging.getLogger("unitstride")
logger.addHandler(logging.NullHandler())

_EXTENSION = "unitstride._core"
_CHOICES = ("native", "numpy", "auto")


def _requested_backend() -> str:
    """Read ``UNITSTRIDE_BACKEND``; unset and empty mean "auto"."""
    choice = os.environ.get("UNITSTRIDE_BACKEND") or "auto"
    if choice not in _CHOICES:
        raise ValueError(f"UNITSTRIDE_BACKEND must be native, numpy or auto, got {choice!r}")
    return choice


def _load_core(choice: str) -> tuple[ModuleType | None, str]:
    """Return the extension (or None) and the reason for the choice.

    Only an absent extension leads to the twin. An extension which is there and fails to load
    raises its own error: to run slowly and silently instead would hide the fault.
    """
    if choice == "numpy":
        return None, "UNITSTRIDE_BACKEND=numpy"
    try:
        extension = importlib.import_module(_EXTENSION)
    except ModuleNotFoundError as error:
        if error.name != _EXTENSION:
            raise
        if choice == "native":
            raise ImportError(
                "UNITSTRIDE_BACKEND=native, but unitstride is installed without its compiled "
                "extension: reinstall it where a C++20 compiler is present and UNITSTRIDE_PURE "
                "is not set, or unset UNITSTRIDE_BACKEND to run on NumPy"
            ) from error
        return None, "the compiled extension is not installed"
    return extension, "the compiled extension is installed"


core, reason = _load_core(_requested_backend())
logger.debug("backend %s: %s", "numpy" if core is None else "native", reason)


def backend_name() -> str:
    """Return "native" when the compiled extension runs, "numpy" when the NumPy twin does."""
    return "numpy" if core is None else "native"


def _recycled_bytes() -> int | None:
    """Read UNITSTRIDE_RECYCLE_BYTES: the most bytes of freed results to keep, None when unset."""
    text = os.environ.get("UNITSTRIDE_RECYCLE_BYTES", "").strip()
    if not text:
        return None
    if not text.isdecimal():
        raise ValueError(
            f"UNITSTRIDE_RECYCLE_BYTES must be a number of bytes, 0 or more, got {text!r}"
        )
    return int(text)


if core is not None and (_bytes := _recycled_bytes()) is not None:
    core.set_recycled_bytes(_bytes)

# The kernels, by name: the core's, or the twin's.
_operations: Any = None


def run(operation: str, *arguments: Any) -> int:
    """Run one kernel on checked arguments and return its floating-point status bits.

    The core and the twin take the same arguments in the same order.
    """
    global _operations
    if _operations is None:
        from unitstride import _native, _reference

        _operations = _reference if core is None else _native.Native(core)
    status: int = getattr(_operations, operation)(*arguments)
    if logger.isEnabledFor(logging.DEBUG):
        first = arguments[0] if isinstance(arguments[0], np.ndarray) else arguments[1]
        logger.debug(
            "%s: %s %s on %s (%s)", operation, first.dtype, first.shape, backend_name(), reason
        )
    return status


def empty_like(array: NDArray[Any], axes: tuple[int, ...] | None = None) -> NDArray[Any]:
    """Return a fresh array with the shape, dtype and memory order of `array`.

    The core recycles large blocks, which saves the page faults of fresh memory. A kernel along
    `axes` that walks rows across its lines finds both arrays at the same place in a cache line.
    """
    if core is None:
        return np.empty_like(array)
    same_place = False
    if axes is not None:
        steps = [(abs(step), axis) for axis, step in enumerate(array.strides)]
        same_place = bool(steps) and min(steps)[1] not in axes
    like = array.view(np.uint16) if array.dtype.kind == "V" else array
    fresh: NDArray[Any] = core.empty_like(like, same_place)
    return fresh if fresh.dtype == array.dtype else fresh.view(array.dtype)
