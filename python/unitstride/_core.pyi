"""The compiled extension. Arguments are checked in Python; see `_arguments.py`.

bfloat16 arrays come as uint16 views. `axes` is sorted and not empty. Operations return status
bits: 1 divide, 2 overflow, 4 underflow, 8 invalid.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

from numpy.typing import NDArray

_Array: TypeAlias = NDArray[Any]
_Axes: TypeAlias = tuple[int, ...]

def softmax(
    x: _Array,
    out: _Array,
    axes: _Axes,
    where: _Array | None,
    temperature: float,
    lse: _Array | None,
) -> int: ...
def log_softmax(
    x: _Array, out: _Array, axes: _Axes, where: _Array | None, temperature: float
) -> int: ...
def logsumexp(
    x: _Array,
    out: _Array,
    axes: _Axes,
    where: _Array | None,
    temperature: float,
) -> int: ...
def softmax_vjp(
    y: _Array, dy: _Array, out: _Array, axes: _Axes, where: _Array | None, temperature: float
) -> int: ...
def log_softmax_vjp(
    y: _Array, dy: _Array, out: _Array, axes: _Axes, where: _Array | None, temperature: float
) -> int: ...
def logsumexp_vjp(
    x: _Array,
    lse: _Array,
    dy: _Array,
    out: _Array,
    axes: _Axes,
    where: _Array | None,
    temperature: float,
) -> int: ...

# Labels are numbers from 0 to 255. `b` is None, with no labels, for one array. All arrays have one
# 16-bit dtype, or real and complex ones of one precision; `out` is complex if an input is.
def contract(
    a: _Array,
    a_labels: tuple[int, ...],
    b: _Array | None,
    b_labels: tuple[int, ...],
    out: _Array,
    out_labels: tuple[int, ...],
    alpha: complex,
    beta: complex,
    /,
) -> int: ...

# The result of a contraction that is remembered, or (result, status); None for any other call.
def contract_fast(
    key: str, operands: tuple[Any, ...], out: _Array | None, alpha: Any, beta: Any, /
) -> Any: ...
def contract_remember(
    key: str,
    operands: tuple[_Array, ...],
    axes: Sequence[Sequence[int]],
    like: int,
    steps: Sequence[tuple[Any, ...]],
    view: Sequence[int],
    loop: Sequence[Sequence[int]],
) -> None: ...

# out[i] = sum over j of k[j] * x[start + i - j]; `boundary` is a place in BOUNDARIES of the twin.
def convolve(x: _Array, k: _Array, out: _Array, axis: int, start: int, boundary: int) -> int: ...

# The same by Fourier transforms: real parts of complex arrays, the imaginary ones next to them in
# memory. -1 where a result is not finite; `out` is then of no use.
def convolve_fft(
    x: _Array,
    k: _Array,
    out: _Array,
    axis: int,
    start: int,
    boundary: int,
    complex_x: bool,
    complex_k: bool,
    spectrum: _Array | None = None,
    logarithm: int = 0,
) -> int: ...

# Writes the spectrum of one kernel at 2^logarithm points.
def convolution_spectrum(k: _Array, complex_k: bool, logarithm: int, spectrum: _Array) -> None: ...

# How long that takes, on one thread.
def convolve_fft_nanoseconds(
    lines: int,
    kernels: int,
    length: int,
    taps: int,
    outputs: int,
    is_complex: bool,
    is_double: bool,
) -> float: ...

# Direct convolution along the last two axes; `bias` has the others.
def convolve_planes(
    x: _Array,
    k: _Array,
    out: _Array,
    start: tuple[int, int],
    boundary: int,
    bias: _Array | None,
    silu: bool,
    step: tuple[int, int] = ...,
    spread: tuple[int, int] = ...,
) -> int: ...

# Convolution with channels on a matrix unit; -1 where nothing is gained by one.
def convolve_channels(
    x: _Array,
    w: _Array,
    bias: _Array | None,
    out: _Array,
    groups: int,
    begin: tuple[int, int],
    step: tuple[int, int],
    spread: tuple[int, int],
) -> int: ...

# The gradients of its taps, written to `out`; -1 as above.
def convolution_channel_products(
    x: _Array,
    slopes: _Array,
    out: _Array,
    groups: int,
    begin: tuple[int, int],
    step: tuple[int, int],
    spread: tuple[int, int],
) -> int: ...

# Gradients of the taps of planes and the sums of slopes, (chunks, planes, taps + 1).
def convolution_products(
    x: _Array,
    slopes: _Array,
    sums: _Array,
    begin: tuple[int, int],
    step: tuple[int, int],
    spread: tuple[int, int],
    taps: tuple[int, int],
) -> int: ...

# The smallest of the outputs' largest terms over the largest, of the worst line.
def convolution_range(x: _Array, k: _Array, axis: int, segment: int) -> float: ...

# None for anything but native float32 or float64 arrays, a kernel of one axis, and a call that is
# surely direct; and for one with floating-point status to report.
def convolve_fast(x: object, k: object, mode: object, axis: object) -> _Array | None: ...
def correlate_fast(x: object, k: object, mode: object, axis: object) -> _Array | None: ...

# None for anything but a native float32 or float64 ndarray and an int axis in range, and for a
# call with floating-point status to report.
def softmax_fast(x: object, axis: object) -> _Array | None: ...
def log_softmax_fast(x: object, axis: object) -> _Array | None: ...
def logsumexp_fast(x: object, axis: object) -> _Array | None: ...

# Whether every result is finite. A softcap of 0 is none.
def attention(
    query: _Array,
    key: _Array,
    value: _Array,
    out: _Array,
    lse: _Array | None,
    mask: _Array | None,
    bias: _Array | None,
    offset: _Array | None,
    query_lengths: _Array | None,
    key_lengths: _Array | None,
    slopes: _Array | None,
    sinks: _Array | None,
    lowest: int,
    highest: int,
    scale: float,
    softcap: float,
) -> bool: ...
def attention_fast(
    query: object,
    key: object,
    value: object,
    mask: object,
    bias: object,
    causal: object,
    window: object,
    scale: object,
    softcap: object,
    alibi_slopes: object,
    sinks: object,
    query_lengths: object,
    key_lengths: object,
    return_lse: object,
    out: object,
    /,
) -> Any: ...
def attention_vjp_fast(
    query: object,
    key: object,
    value: object,
    mask: object,
    bias: object,
    causal: object,
    window: object,
    scale: object,
    softcap: object,
    alibi_slopes: object,
    sinks: object,
    query_lengths: object,
    key_lengths: object,
    out: object,
    lse: object,
    cotangent: object,
    /,
) -> tuple[_Array, _Array, _Array] | None: ...
def attention_vjp(
    query: _Array,
    key: _Array,
    value: _Array,
    out: _Array,
    lse: _Array,
    cotangent: _Array,
    d_query: _Array,
    d_key: _Array,
    d_value: _Array,
    mask: _Array | None,
    bias: _Array | None,
    offset: _Array | None,
    query_lengths: _Array | None,
    key_lengths: _Array | None,
    slopes: _Array | None,
    sinks: _Array | None,
    lowest: int,
    highest: int,
    scale: float,
    softcap: float,
) -> None: ...

# Arrays: seven lists (or arrays) of params, grads, three states, moving averages, copies; None for
# those that are not there. Constants: factor, coupled, decay, ema_keep, ema_take, twelve of the
# rule. None for lists that need a closer look; nothing is written then.
def optim_step(
    rule: int,
    arrays: tuple[Any, ...],
    constants: Sequence[float],
    scale: float,
    clipping: int,
    max_norm: float,
    skips_nonfinite: bool,
    is_checked: bool,
) -> tuple[float, bool] | None: ...
def optim_step_narrow(
    rule: int,
    arrays: tuple[Any, ...],
    constants: Sequence[float],
    scale: float,
    clipping: int,
    max_norm: float,
    skips_nonfinite: bool,
    scales: tuple[Any, ...],
    rests: object,
    keys: object,
) -> tuple[float, bool] | None: ...
def optim_norm(grads: object) -> float | None: ...
def adam_fast(
    params: object,
    grads: object,
    exp_avg: object,
    exp_avg_sq: object,
    step: object,
    lr: object,
    betas: object,
    eps: object,
    weight_decay: object,
    decoupled: object,
) -> tuple[float, bool] | None: ...
def set_bfloat16_number(number: int) -> None: ...
def empty_like(
    like: _Array, same_place: bool = False, shape: Sequence[int] | None = None
) -> _Array: ...
def release_memory() -> int: ...
def set_default_threads(n: int) -> None: ...
def set_context_threads(n: int) -> int: ...
def get_num_threads() -> int: ...
def openmp_limit() -> int: ...
def forked() -> bool: ...
def isa_compiled() -> list[str]: ...
def isa_detected() -> list[str]: ...
def isa_in_use() -> str: ...
def use_isa(name: str) -> None: ...
def build_info() -> dict[str, str]: ...
def flush_to_zero() -> bool: ...
def set_recycled_bytes(bytes: int) -> None: ...
def float_control() -> int: ...
def block_sizes() -> dict[str, int]: ...
def fail_allocation(countdown: int) -> None: ...
def probe_copy(source: _Array, target: _Array) -> None: ...
def probe_read(source: _Array) -> float: ...
def probe_fma(dtype: str, rounds: int) -> float: ...
