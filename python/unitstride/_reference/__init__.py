"""The plain NumPy twin of every operation: fallback, oracle and baseline.

The functions take the same checked arguments in the same order as those of the compiled core,
write into the outputs they are given, and return floating-point status bits.
"""

from unitstride._reference.attention import attention, attention_status
from unitstride._reference.attention_vjp import attention_vjp, attention_vjp_status
from unitstride._reference.contract import contract
from unitstride._reference.convolution import convolve, convolve_fft
from unitstride._reference.planes import convolution_products, convolve_planes
from unitstride._reference.softmax import (
    log_softmax,
    log_softmax_vjp,
    logsumexp,
    logsumexp_vjp,
    softmax,
    softmax_vjp,
)

__all__ = [
    "attention",
    "attention_status",
    "attention_vjp",
    "attention_vjp_status",
    "contract",
    "convolution_products",
    "convolve",
    "convolve_fft",
    "convolve_planes",
    "log_softmax",
    "log_softmax_vjp",
    "logsumexp",
    "logsumexp_vjp",
    "softmax",
    "softmax_vjp",
]
