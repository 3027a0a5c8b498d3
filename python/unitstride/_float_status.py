"""Floating-point status bits, and how they are reported: as NumPy's error state asks for."""

import sys
import warnings

import numpy as np

# The same numbers as NumPy's NPY_FPE_*.
DIVIDE, OVERFLOW, UNDERFLOW, INVALID = 1, 2, 4, 8

_STATUS_TEXTS = (
    (DIVIDE, "divide", "divide by zero"),
    (OVERFLOW, "over", "overflow"),
    (INVALID, "invalid", "invalid value"),
)


def report_float_status(name: str, status: int) -> None:
    """Report floating-point status bits the way NumPy's error state asks for.

    Underflow is never reported. The text is NumPy's: "invalid value encountered in softmax".
    """
    if not status & (DIVIDE | OVERFLOW | INVALID):
        return
    modes: dict[str, str] = np.geterr()  # type: ignore[assignment]
    for bit, kind, text in _STATUS_TEXTS:
        if status & bit:
            _report(modes[kind], text, name, status)


def _report(mode: str, text: str, name: str, status: int) -> None:
    """Act on one kind of floating-point event as ``numpy.seterr`` describes."""
    message = f"{text} encountered in {name}"
    if mode == "warn":
        warnings.warn(message, RuntimeWarning, stacklevel=_caller_level())
    elif mode == "raise":
        raise FloatingPointError(message)
    elif mode == "print":
        print(f"Warning: {message}", file=sys.stderr)
    elif mode == "call":
        callback = np.geterrcall()
        if not callable(callback):
            raise NameError(
                f"python callback specified for {text} (in {name}) but no function found."
            )
        callback(text, status)
    elif mode == "log":
        writer = getattr(np.geterrcall(), "write", None)
        if writer is None:
            raise NameError(
                f"log specified for {text} (in {name}) but no object with write method found."
            )
        writer(f"Warning: {message}\n")


def _caller_level() -> int:
    """Return the stack level, seen from `_report`, of the first frame outside this package."""
    level = 1
    frame = sys._getframe(1)
    while frame.f_back is not None and _is_own(frame.f_globals.get("__name__", "")):
        frame = frame.f_back
        level += 1
    return level


def _is_own(module: str) -> bool:
    return module == "unitstride" or module.startswith("unitstride.")
