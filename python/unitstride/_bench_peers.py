"""The same operations in other libraries, as calls without arguments, ready to be timed.

Each function takes the name of an operation, its arrays, the axis and an output (None for a fresh
one). It raises `Unavailable` where the library has no such operation, layout or output.
"""

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

import unitstride

Array = NDArray[Any]
Call = Callable[[], Any]


class Unavailable(Exception):
    """The library has no such operation, layout or output."""


def _softmax(xp: Any, axis: int, x: Any) -> Any:
    e = xp.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def _log_softmax(xp: Any, axis: int, x: Any) -> Any:
    d = x - x.max(axis, keepdims=True)
    return d - xp.log(xp.exp(d).sum(axis, keepdims=True))


def _logsumexp(xp: Any, axis: int, x: Any) -> Any:
    m = x.max(axis, keepdims=True)
    return (m + xp.log(xp.exp(x - m).sum(axis, keepdims=True))).squeeze(axis)


def _softmax_vjp(xp: Any, axis: int, y: Any, dy: Any) -> Any:
    return y * (dy - (dy * y).sum(axis, keepdims=True))


def _log_softmax_vjp(xp: Any, axis: int, y: Any, dy: Any) -> Any:
    return dy - xp.exp(y) * dy.sum(axis, keepdims=True)


def _logsumexp_vjp(xp: Any, axis: int, x: Any, dy: Any, lse: Any) -> Any:
    return xp.expand_dims(dy, axis) * xp.exp(x - xp.expand_dims(lse, axis))


# In plain NumPy, and for JAX where it has no function of its own.
_FORMULAS: dict[str, Callable[..., Any]] = {
    "softmax": _softmax,
    "log_softmax": _log_softmax,
    "logsumexp": _logsumexp,
    "softmax_vjp": _softmax_vjp,
    "log_softmax_vjp": _log_softmax_vjp,
    "logsumexp_vjp": _logsumexp_vjp,
}


def ours(function: str, arrays: tuple[Array, ...], axis: int, out: Array | None) -> Call:
    """Return the call of this library."""
    operation: Callable[..., Any] = getattr(unitstride, function)
    keywords: dict[str, Any] = {} if out is None else {"out": out}
    if function == "logsumexp_vjp":
        keywords["lse"] = arrays[2]
        arrays = arrays[:2]
    if axis not in (-1, arrays[0].ndim - 1):
        keywords["axis"] = axis
    return partial(operation, *arrays, **keywords)


def _softmax_into(axis: int, x: Array, out: Array) -> Array:
    np.subtract(x, x.max(axis, keepdims=True), out=out)
    np.exp(out, out=out)
    np.divide(out, out.sum(axis, keepdims=True), out=out)
    return out


def numpy_call(function: str, arrays: tuple[Array, ...], axis: int, out: Array | None) -> Call:
    """Return the formula in plain NumPy."""
    if out is None:
        return partial(_FORMULAS[function], np, axis, *arrays)
    if function == "softmax":
        return partial(_softmax_into, axis, arrays[0], out)
    raise Unavailable


def scipy_call(function: str, arrays: tuple[Array, ...], axis: int, out: Array | None) -> Call:
    """Return the call of ``scipy.special``."""
    special = importlib.import_module("scipy.special")
    if out is not None or not hasattr(special, function):
        raise Unavailable
    return partial(getattr(special, function), *arrays, axis=axis)


def to_torch(torch: Any, array: Array) -> Any:
    """Return the same memory as a tensor."""
    if any(stride < 0 for stride in array.strides):
        raise Unavailable
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def torch_call(function: str, arrays: tuple[Array, ...], axis: int, out: Array | None) -> Call:
    """Return the call of PyTorch on the same memory and with our number of threads."""
    torch = importlib.import_module("torch")
    torch.set_num_threads(unitstride.get_num_threads())
    first, *others = (to_torch(torch, array) for array in arrays)
    if function in ("softmax", "log_softmax", "logsumexp"):
        keywords = {} if out is None else {"out": to_torch(torch, out)}
        return partial(getattr(torch, function), first, axis, **keywords)
    if out is not None:
        raise Unavailable
    if function == "logsumexp_vjp":
        dy, lse = (other.unsqueeze(axis) for other in others)
        return lambda: dy * (first - lse).exp()
    gradient = getattr(torch.ops.aten, f"_{function.removesuffix('_vjp')}_backward_data")
    return partial(gradient, others[0], first, axis, first.dtype)


def jax_call(function: str, arrays: tuple[Array, ...], axis: int, out: Array | None) -> Call:
    """Return the compiled call of JAX, which keeps copies of the arrays in its own layout."""
    if out is not None:
        raise Unavailable
    jax = importlib.import_module("jax")
    if arrays[0].dtype == np.float64:
        jax.config.update("jax_enable_x64", True)
    operations = {
        "softmax": lambda x: jax.nn.softmax(x, axis),
        "log_softmax": lambda x: jax.nn.log_softmax(x, axis),
        "logsumexp": lambda x: jax.nn.logsumexp(x, axis),
    }
    compiled = jax.jit(operations.get(function, partial(_FORMULAS[function], jax.numpy, axis)))
    copies = [jax.numpy.asarray(array) for array in arrays]
    return lambda: compiled(*copies).block_until_ready()


PEERS: dict[str, Callable[[str, tuple[Array, ...], int, Array | None], Call]] = {
    "NumPy": numpy_call,
    "SciPy": scipy_call,
    "PyTorch": torch_call,
    "JAX": jax_call,
}


def versions(names: tuple[str, ...]) -> dict[str, str]:
    """Return the version of each library, "not installed" where it is missing."""
    found = {}
    for name in names:
        module = {"PyTorch": "torch"}.get(name, name.lower())
        try:
            found[name] = str(importlib.import_module(module).__version__)
        except ImportError:
            found[name] = "not installed"
    return found
