"""The operations on the compiled core, with the arguments of the NumPy twin.

What the core has no kernel for goes to the twin: weighted sums (`b`), temperatures so far from one
that float32 arithmetic would overflow, and contractions of integers, booleans and longdouble.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from unitstride import _native_convolution, _reference
from unitstride._arguments import storage_view
from unitstride._attention_options import Inputs

Array = NDArray[Any]
Axes = tuple[int, ...]

# Beyond these, products of the temperature with exponents of float32 leave its range.
_SMALLEST_TEMPERATURE = 1e-30
_LARGEST_TEMPERATURE = 1e30


# A window of attention without limit: beyond every position, and no sum of it overflows.
_FAR = 1 << 43

# The dtypes of contractions; bfloat16 is known by its name.
_CONTRACTED = frozenset(map(np.dtype, ("float32", "float64", "complex64", "complex128", "float16")))


def _attention_options(inputs: Inputs) -> tuple[Any, ...]:
    """Return the options of attention in the order in which the core takes them."""
    bias, wide = inputs.bias, inputs.query.dtype == np.float64
    if bias is not None and (bias.dtype == np.float64) != wide:
        bias = bias.astype(np.float64 if wide else np.float32)
    lengths = (inputs.offset, inputs.query_lengths, inputs.key_lengths)
    return (
        inputs.mask,
        storage_view(bias),
        *map(np.ascontiguousarray, lengths),
        _numbers(inputs.slopes),
        _numbers(inputs.sinks),
        -_FAR if inputs.lowest is None else inputs.lowest,
        _FAR if inputs.highest is None else inputs.highest,
        inputs.scale,
        inputs.softcap or 0.0,
    )


def _numbers(array: Array | None) -> Array | None:
    """Return numbers of heads as the core takes them."""
    return None if array is None else np.ascontiguousarray(array, np.float64)


class Native:
    """The core behind the signatures of the twin."""

    def __init__(self, core: Any) -> None:
        self._core = core

    @staticmethod
    def has_kernel(temperature: float, weights: Array | None = None) -> bool:
        """Tell whether the core can run an operation; the twin runs it otherwise."""
        return weights is None and _SMALLEST_TEMPERATURE <= temperature <= _LARGEST_TEMPERATURE

    def softmax(
        self,
        x: Array,
        out: Array,
        axes: Axes,
        where: Array | None,
        temperature: float,
        lse: Array | None,
    ) -> int:
        """Run the softmax kernel."""
        if not self.has_kernel(temperature):
            return _reference.softmax(x, out, axes, where, temperature, lse)
        status: int = self._core.softmax(
            storage_view(x), storage_view(out), axes, where, temperature, storage_view(lse)
        )
        return status

    def log_softmax(
        self, x: Array, out: Array, axes: Axes, where: Array | None, temperature: float
    ) -> int:
        """Run the log-softmax kernel."""
        if not self.has_kernel(temperature):
            return _reference.log_softmax(x, out, axes, where, temperature)
        status: int = self._core.log_softmax(
            storage_view(x), storage_view(out), axes, where, temperature
        )
        return status

    def logsumexp(
        self,
        x: Array,
        out: Array,
        axes: Axes,
        where: Array | None,
        temperature: float,
        b: Array | None,
        sign: Array | None,
    ) -> int:
        """Run the logsumexp kernel; weighted sums run on NumPy."""
        if not self.has_kernel(temperature, b):
            return _reference.logsumexp(x, out, axes, where, temperature, b, sign)
        status: int = self._core.logsumexp(
            storage_view(x), storage_view(out), axes, where, temperature
        )
        if sign is not None:  # an unweighted sum is positive; that of nothing is zero
            sign[...] = np.where(np.isnan(out), np.nan, np.where(np.isneginf(out), 0, 1))
        return status

    def attention(self, inputs: Inputs, out: Array, lse: Array | None) -> int:
        """Run the attention kernel; the status of special results is the twin's to tell."""
        arrays: tuple[Array, ...] = (inputs.query, inputs.key, inputs.value, out)
        if out.dtype.kind == "V":
            self._core.set_bfloat16_number(out.dtype.num)
            arrays = tuple(array.view(np.uint16) for array in arrays)
        finite: bool = self._core.attention(*arrays, lse, *_attention_options(inputs))
        return 0 if finite else _reference.attention_status(inputs, out)

    def attention_vjp(
        self,
        inputs: Inputs,
        out: Array,
        lse: Array,
        cotangent: Array,
        d_query: Array,
        d_key: Array,
        d_value: Array,
        d_bias: Array | None,
        d_sinks: Array | None,
    ) -> int:
        """Run the gradients of attention; those of bias and sinks run on NumPy."""
        results = (d_query, d_key, d_value)
        if d_bias is not None or d_sinks is not None:
            return _reference.attention_vjp(inputs, out, lse, cotangent, *results, d_bias, d_sinks)
        arrays = (inputs.query, inputs.key, inputs.value, out)
        self._core.attention_vjp(
            *map(storage_view, arrays),
            lse,
            *map(storage_view, (cotangent, *results)),
            *_attention_options(inputs),
        )
        return _reference.attention_vjp_status(inputs, (out, lse, cotangent), list(results))

    def softmax_vjp(
        self,
        y: Array,
        dy: Array,
        out: Array,
        axes: Axes,
        where: Array | None,
        temperature: float,
    ) -> int:
        """Run the gradient of softmax."""
        if not self.has_kernel(temperature):
            return _reference.softmax_vjp(y, dy, out, axes, where, temperature)
        status: int = self._core.softmax_vjp(
            storage_view(y), storage_view(dy), storage_view(out), axes, where, temperature
        )
        return status

    def log_softmax_vjp(
        self,
        y: Array,
        dy: Array,
        out: Array,
        axes: Axes,
        where: Array | None,
        temperature: float,
    ) -> int:
        """Run the gradient of log-softmax."""
        if not self.has_kernel(temperature):
            return _reference.log_softmax_vjp(y, dy, out, axes, where, temperature)
        status: int = self._core.log_softmax_vjp(
            storage_view(y), storage_view(dy), storage_view(out), axes, where, temperature
        )
        return status

    def logsumexp_vjp(
        self,
        x: Array,
        lse: Array,
        dy: Array,
        out: Array,
        axes: Axes,
        where: Array | None,
        temperature: float,
        b: Array | None,
        db: Array | None,
    ) -> int:
        """Run the gradient of logsumexp; weighted sums run on NumPy."""
        if not self.has_kernel(temperature, b):
            return _reference.logsumexp_vjp(x, lse, dy, out, axes, where, temperature, b, db)
        status: int = self._core.logsumexp_vjp(
            storage_view(x),
            storage_view(lse),
            storage_view(dy),
            storage_view(out),
            axes,
            where,
            temperature,
        )
        return status

    def contract(
        self,
        a: Array,
        a_labels: Axes,
        b: Array | None,
        b_labels: Axes,
        out: Array,
        out_labels: Axes,
        alpha: Any,
        beta: Any,
    ) -> int:
        """Run a contraction of one or two arrays; other dtypes than the core's run on NumPy."""
        if out.dtype in _CONTRACTED:
            status: int = self._core.contract(
                a, a_labels, b, b_labels, out, out_labels, alpha, beta
            )
            return status
        if out.dtype.name != "bfloat16":
            return _reference.contract(a, a_labels, b, b_labels, out, out_labels, alpha, beta)
        status = self._core.contract(
            storage_view(a),
            a_labels,
            storage_view(b),
            b_labels,
            storage_view(out),
            out_labels,
            alpha,
            beta,
        )
        return status

    def convolve(self, x: Array, k: Array, out: Array, axis: int, start: int, boundary: int) -> int:
        """Run the direct convolution."""
        return _native_convolution.convolve(self._core, x, k, out, axis, start, boundary)

    def convolve_fft(self, x: Array, k: Array, out: Array, *place: Any) -> int:
        """Run the convolution by Fourier transforms."""
        return _native_convolution.convolve_fft(self._core, x, k, out, *place)

    def convolve_planes(self, x: Array, k: Array, out: Array, *options: Any) -> int:
        """Run the direct convolution along the last two axes."""
        return _native_convolution.convolve_planes(self._core, x, k, out, *options)

    def convolution_products(self, x: Array, slopes: Array, sums: Array, *options: Any) -> int:
        """Run the gradients of the taps of planes."""
        return _native_convolution.convolution_products(self._core, x, slopes, sums, *options)
