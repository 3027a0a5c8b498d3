"""The benchmark of convolution: along an axis, with channels, Toeplitz: ``bench convolution``."""

import importlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

import unitstride
from unitstride import _bench_problems
from unitstride._bench_peers import Call, Unavailable
from unitstride._bench_problems import OWN, PLAIN, ROUNDS, Problem

Array = NDArray[Any]
Builders = dict[str, Callable[[], Call]]

__all__ = ["PEERS", "QUICK_PEERS", "ROUNDS", "cases", "run"]

PEERS = ("NumPy", "SciPy", "PyTorch")
QUICK_PEERS = ("NumPy", "SciPy")

_LINES = 64  # of the case along axis 0


def _draw(*shape: int, dtype: str = "float32") -> Array:
    return np.random.default_rng(7).standard_normal(shape).astype(dtype)


def _torch() -> Any:
    torch = importlib.import_module("torch")
    torch.set_num_threads(unitstride.get_num_threads())
    return torch


def _quiet(torch: Any, call: Callable[[], Any]) -> Call:
    def run() -> Any:
        with torch.no_grad():
            return call()

    return run


# Along an axis.


def _signal(n: int, layout: str) -> tuple[Array, int]:
    if layout == "step 2":
        return _draw(2 * n)[::2], -1
    if layout == "reversed":
        return _draw(n)[::-1], -1
    if layout == "axis 0":
        return _draw(n // _LINES, _LINES), 0
    return _draw(n), -1


def _line(n: int, m: int, layout: str = "", dtype: str = "float32") -> Problem:
    kernel = _draw(m, dtype=dtype)

    def ours(layout: str) -> Call:
        x, axis = _signal(n, layout)
        return partial(unitstride.convolve, x.astype(dtype, copy=False), kernel, axis=axis)

    def numpy_call() -> Call:
        if layout == "axis 0" or n * m > 1 << 29:
            raise Unavailable
        return partial(np.convolve, _signal(n, layout)[0].astype(dtype, copy=False), kernel)

    def scipy_call() -> Call:
        signal = importlib.import_module("scipy.signal")
        x, axis = _signal(n, layout)
        x = x.astype(dtype, copy=False)
        if axis == 0:
            return partial(signal.oaconvolve, x, kernel[:, None], axes=0)
        if n * m < 1 << 20:
            return partial(signal.convolve, x, kernel)
        return partial(signal.oaconvolve, x, kernel)

    def torch_call() -> Call:
        torch = _torch()
        if layout == "axis 0" or n * m > 1 << 29:
            raise Unavailable
        x = torch.from_numpy(_signal(n, layout)[0].astype(dtype).copy())[None, None]
        k = torch.from_numpy(kernel[::-1].copy())[None, None]
        function = torch.nn.functional.conv1d
        return _quiet(torch, partial(function, x, k, padding=m - 1))

    calls: Builders = {OWN: partial(ours, layout), "NumPy": numpy_call, "SciPy": scipy_call}
    calls["PyTorch"] = torch_call
    if layout:
        calls[PLAIN] = partial(ours, "")
    by_definition = m <= 64  # others go by FFT, whose operations are others
    item = 8 if dtype == "float64" else 4
    title = f"convolve {n} * {m} {dtype}" + (f" {layout}" if layout else "")
    return Problem(
        "along an axis",
        title,
        calls,
        operations=2.0 * n * m if by_definition else 0.0,
        bytes_read=n * item if by_definition else 0,
        bytes_written=n * item if by_definition else 0,
        dtype=dtype,
    )


# Planes, and kernels as long as the signal.


def _plane(n: int, m: int) -> Problem:
    x, k = _draw(n, n), _draw(m, m)

    def scipy_call() -> Call:
        signal = importlib.import_module("scipy.signal")
        return partial(signal.convolve2d if m < 5 else signal.fftconvolve, x, k, "same")

    def torch_call() -> Call:
        torch = _torch()
        if m > 31:
            raise Unavailable  # it takes seconds
        images = torch.from_numpy(x)[None, None], torch.from_numpy(k[::-1, ::-1].copy())[None, None]
        return _quiet(torch, partial(torch.nn.functional.conv2d, *images, padding=m // 2))

    return Problem(
        "planes",
        f"convolve2d {n} x {n} * {m} x {m}",
        {
            OWN: lambda: partial(unitstride.convolve2d, x, k, "same"),
            "SciPy": scipy_call,
            "PyTorch": torch_call,
        },
        bytes_read=x.nbytes if m < 5 else 0,
        bytes_written=x.nbytes if m < 5 else 0,
    )


def _long(batch: int, channels: int, length: int) -> Problem:
    x, k = _draw(batch, channels, length), _draw(channels, length)

    def scipy_call() -> Call:
        signal = importlib.import_module("scipy.signal")
        return lambda: signal.fftconvolve(x, k[None], axes=-1)[..., :length]

    def torch_call() -> Call:
        torch = _torch()
        a, b = torch.from_numpy(x), torch.from_numpy(k)
        forward, backward = torch.fft.rfft, torch.fft.irfft

        def call() -> Any:
            product = forward(a, 2 * length) * forward(b, 2 * length)
            return backward(product, 2 * length)[..., :length]

        return _quiet(torch, call)

    return Problem(
        "kernels as long as the signal",
        f"long_convolve ({batch}, {channels}, {length})",
        {
            OWN: lambda: partial(unitstride.long_convolve, x, k),
            "SciPy": scipy_call,
            "PyTorch": torch_call,
        },
    )


# With channels.


def _image(
    x_shape: tuple[int, ...],
    w_shape: tuple[int, ...],
    stride: int,
    padding: int,
    groups: int = 1,
    backward: bool = False,
) -> Problem:
    options: dict[str, Any] = {"stride": stride, "padding": padding, "groups": groups}

    def arrays() -> tuple[Array, Array]:
        return _draw(*x_shape), _draw(*w_shape)

    places = [
        (n + 2 * padding - k) // stride + 1 for n, k in zip(x_shape[2:], w_shape[2:], strict=True)
    ]
    out_shape = (x_shape[0], w_shape[0], *places)

    def ours() -> Call:
        if backward:
            return partial(unitstride.conv2d_vjp, *arrays(), _draw(*out_shape), **options)
        return partial(unitstride.conv2d, *arrays(), **options)

    def torch_call() -> Call:
        torch = _torch()
        x, w = (torch.from_numpy(array) for array in arrays())
        function = partial(torch.nn.functional.conv2d, **options)
        if not backward:
            return _quiet(torch, partial(function, x, w))
        out = function(x.requires_grad_(True), w.requires_grad_(True))
        cotangent = torch.from_numpy(_draw(*out_shape))
        return lambda: torch.autograd.grad(out, (x, w), cotangent, retain_graph=True)

    work = 2.0 * float(np.prod(out_shape)) * float(np.prod(w_shape[1:]))
    return Problem(
        "with channels, gradients" if backward else "with channels",
        f"{x_shape} * {w_shape}, stride {stride}, padding {padding}"
        + (f", {groups} groups" if groups > 1 else ""),
        {OWN: ours, "PyTorch": torch_call},
        operations=2 * work if backward else work,
        bytes_read=4 * int(np.prod(x_shape)),
        bytes_written=4 * int(np.prod(out_shape)),
    )


def _causal(batch: int, channels: int, length: int) -> Problem:
    x, w, b = _draw(batch, channels, length), _draw(channels, 4), _draw(channels)

    def torch_call() -> Call:
        torch = _torch()
        signal, kernel, bias = (torch.from_numpy(a) for a in (x, w[:, None], b))
        functional = torch.nn.functional

        def call() -> Any:
            out = functional.conv1d(signal, kernel, bias, padding=3, groups=channels)
            return functional.silu(out[..., :length])

        return _quiet(torch, call)

    return Problem(
        "with channels",
        f"causal_conv1d ({batch}, {channels}, {length}), 4 taps, SiLU",
        {
            OWN: lambda: partial(unitstride.causal_conv1d, x, w, b, activation="silu"),
            "PyTorch": torch_call,
        },
        bytes_read=x.nbytes,
        bytes_written=x.nbytes,
    )


def _toeplitz(n: int, columns: int) -> Problem:
    c, r, x = (_draw(*shape, dtype="float64") for shape in ((n,), (n,), (n, columns)))

    def scipy_call() -> Call:
        linalg = importlib.import_module("scipy.linalg")
        return partial(linalg.matmul_toeplitz, (c, r), x)

    return Problem(
        "Toeplitz",
        f"toeplitz_matmul {n} x {columns} float64",
        {OWN: lambda: partial(unitstride.toeplitz_matmul, (c, r), x), "SciPy": scipy_call},
    )


def cases(quick: bool = False) -> Sequence[Problem]:
    """Return the cases: lines in several layouts, images, gradients, Toeplitz products."""
    n, batch = (1 << 16, 1) if quick else (1_000_000, 8)
    lines = [_line(n, 31), _line(n, 255)]
    lines += [_line(n, 31, layout) for layout in ("step 2", "reversed", "axis 0")]
    lines += [_line(n, 4096)]
    if not quick:
        lines += [_line(65536, 32768), _line(65536, 32768, dtype="float64")]
    lines.append(_line(1000, 10))
    lines += [_plane(256 if quick else 1024, m) for m in (3, 15, 63)]
    lines += [_long(4, 64, 1024 if quick else 8192)]
    if not quick:
        lines.append(_long(1, 16, 1 << 20))
    images = (
        ((batch, 64, 56, 56), (64, 64, 3, 3), 1, 1),
        ((batch, 256, 14, 14), (256, 256, 3, 3), 1, 1),
        ((batch, 3, 224, 224), (64, 3, 7, 7), 2, 3),
        ((batch, 64, 56, 56), (256, 64, 1, 1), 1, 0),
    )
    return [
        *lines,
        *(_image(*image) for image in images),
        _image((batch, 128, 56, 56), (128, 1, 3, 3), 1, 1, 128),
        _causal(batch, 768, 2048),
        *(_image(*image, backward=True) for image in images),
        _toeplitz(1024 if quick else 4096, 64),
    ]


def run(
    chosen: Sequence[Problem], rounds: int, peers: Sequence[str], show: bool = True
) -> dict[str, Any]:
    """Measure cases, print their tables as they come, and return everything as a dictionary."""
    return _bench_problems.run(
        chosen, rounds, peers, show, "our time over that of a contiguous line"
    )
