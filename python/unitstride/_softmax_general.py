"""The general path of softmax, log_softmax and logsumexp: every argument checked, any dtype."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from unitstride import _arguments, _backend, _outputs

Array = NDArray[Any]
Axis = int | tuple[int, ...] | None


def normalize(
    name: str,
    x: ArrayLike,
    axis: Axis,
    where: ArrayLike | None,
    temperature: float,
    dtype: DTypeLike | None,
    out: Array | None,
    return_lse: bool = False,
) -> tuple[Array, Array | None]:
    """Run softmax or log_softmax; return the result, and logsumexp where it is asked for."""
    values, axes, scale, mask = _arguments.prepare(
        name, "x", x, axis, where, temperature, _arguments.check_dtype(name, dtype)
    )
    if out is not None:
        _outputs.check_out(name, out, values.shape, values.dtype)
    target = _outputs.output_for(values, out, (values,), (mask,), axes)
    lse: Array | None = None
    if return_lse:
        lse = np.empty(_arguments.reduced_shape(values.shape, axes), values.dtype)
    extra = (lse,) if name == "softmax" else ()
    axes, (source, sink, chosen) = _arguments.with_axis(axes, values, target, mask)
    status = _backend.run(name, source, sink, axes, chosen, scale, *extra)
    result, _ = _outputs.deliver(target, out, values.dtype)
    _arguments.report_float_status(name, status)
    return result, lse


def logsumexp(
    x: ArrayLike,
    axis: Axis,
    b: ArrayLike | None,
    where: ArrayLike | None,
    temperature: float,
    keepdims: bool,
    return_sign: bool,
    dtype: DTypeLike | None,
    out: Array | None,
) -> Any:
    """Run logsumexp; return the reduced array, or the pair with the sign."""
    asked = _arguments.check_dtype("logsumexp", dtype)
    weights: Array | None = None
    if b is not None:
        x, weights, own = _arguments.join_weights("logsumexp", x, b, asked)
    values, axes, scale, mask = _arguments.prepare(
        "logsumexp", "x", x, axis, where, temperature, asked
    )
    if weights is None:
        own = values.dtype
    working = own if weights is None else weights.dtype
    shape = _arguments.reduced_shape(values.shape, axes)
    kept_shape = _arguments.reduced_shape(values.shape, axes, keepdims)
    reduced_out: Array | None = None
    if out is not None:
        _outputs.check_out("logsumexp", out, kept_shape, own)
        reduced_out = out.squeeze(axes) if keepdims else out
    target = reduced_out
    if target is None or not _outputs.can_write_into(target, working, (), (values, mask, weights)):
        target = np.empty(shape, working)
    sign = np.empty(shape, working) if return_sign else None
    axes, (source, chosen, factor) = _arguments.with_axis(
        axes, values.astype(working, copy=False), mask, weights
    )
    status = _backend.run("logsumexp", source, target, axes, chosen, scale, factor, sign)
    result, cast_status = _outputs.deliver(target, reduced_out, own)
    _arguments.report_float_status("logsumexp", status | cast_status)
    answer = result.reshape(kept_shape)[()] if out is None else out
    return answer if sign is None else (answer, sign.astype(own).reshape(kept_shape)[()])
