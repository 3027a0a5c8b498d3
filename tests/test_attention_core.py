"""What compiled attention promises beside right results: bits, memory, interrupts, failures."""

import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from checks import assert_same_bits, needs_core, output_of, random_for
from numpy.typing import NDArray

import unitstride
from unitstride import attention, attention_vjp
from unitstride._backend import core

Array = NDArray[Any]

# (query heads, key heads, queries, keys): strips and chunks, grouped heads, few rows.
SIZES = ((3, 3, 300, 530), (4, 2, 100, 2100), (4, 1, 1, 5000), (2, 2, 3, 1500))
OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"causal": "bottom_right"},
    {"causal": "bottom_right", "window": (100, 0), "softcap": 5.0},
)


def draw(name: object, batch: int, sizes: tuple[int, int, int, int]) -> tuple[Array, Array, Array]:
    random = random_for("attention core", name)
    heads, groups, queries, keys = sizes
    shapes = ((batch, heads, queries, 40), (batch, groups, keys, 40), (batch, groups, keys, 24))
    query, key, value = (random.standard_normal(shape, np.float32) for shape in shapes)
    return query, key, value


def results(arrays: tuple[Array, Array, Array], options: dict[str, Any]) -> list[Array]:
    out, lse = attention(*arrays, **options, return_lse=True)
    return [out, lse, *attention_vjp(*arrays, out, lse, np.cos(out), **options)]


@needs_core
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("options", OPTIONS)
def test_bits_do_not_depend_on_threads_or_batch(
    sizes: tuple[int, int, int, int], options: dict[str, Any], isa: str
) -> None:
    arrays = draw(sizes, 9, sizes)
    with unitstride.threads(2):
        together = results(arrays, options)
    with unitstride.threads(1):
        for name, got, expected in zip("oldkv", results(arrays, options), together, strict=True):
            assert_same_bits(got, expected, name)
    alone = results(tuple(x[4:5].copy() for x in arrays), options)  # type: ignore[arg-type]
    for name, got, expected in zip("oldkv", alone, together, strict=True):
        assert_same_bits(got, expected[4:5], name)


@needs_core
@pytest.mark.skipif(sys.platform == "win32", reason="needs the module resource")
def test_memory_does_not_grow_with_the_lengths() -> None:
    """16,384 x 16,384 scores: a forward call within 16 MB, a gradient within 3 times its inputs."""
    code = """if True:
        import resource, numpy, unitstride
        q = numpy.ones((1, 16384, 64), numpy.float32)
        out, lse = unitstride.attention(q, q, q, causal=True, window=(64, 0), return_lse=True)
        unitstride.attention_vjp(q[:, :64], q[:, :64], q[:, :64], out[:, :64], lse[:, :64],
                                 q[:, :64])
        def used():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        before = used()
        unitstride.attention(q, q, q, causal=True, out=out)
        forward = used() - before
        gradients = unitstride.attention_vjp(q, q, q, out, lse, q, causal=True, window=(64, 0))
        print(f"{forward:.0f} {used() - before - 3 * q.nbytes / 2**20:.0f}")
    """
    found = output_of(code, {"UNITSTRIDE_NUM_THREADS": "2", "UNITSTRIDE_RECYCLE_BYTES": "0"})
    forward, backward = map(int, found.split())
    assert forward <= 2 * 16
    assert backward <= 3 * 3 * 4 + 16  # in MB: queries, keys and values are 4 MB each


@needs_core
def test_failures_to_allocate_leave_out_untouched() -> None:
    arrays = draw("failures", 1, SIZES[0])
    expected = attention(*arrays)
    out = np.full(expected.shape, 77, np.float32)
    failed = 0
    for number in range(1, 20):
        core.fail_allocation(number)
        try:
            with ThreadPoolExecutor(1) as pool:  # whose thread has kept no scratch memory
                pool.submit(lambda: attention(*arrays, out=out)).result()
        except MemoryError:
            failed += 1
            assert (out == 77).all()
        else:
            break
        finally:
            core.fail_allocation(0)
    assert failed >= 1
    assert_same_bits(out, expected)


@needs_core
@pytest.mark.parametrize("backward", [False, True])
def test_ctrl_c_ends_a_long_call(backward: bool) -> None:
    """KeyboardInterrupt within 200 ms of the signal, and the next call is right."""
    length = 40_000
    x = np.broadcast_to(np.float32(1), (2, length, 128))
    lse = np.zeros((2, length), np.float32)
    sent = []

    def interrupt() -> None:
        sent.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)

    # A process started in the background ignores SIGINT, and Python then leaves it so.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.3, interrupt)
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            if backward:
                attention_vjp(x, x, x, x, lse, x)
            else:
                attention(x, x, x)
        late = time.perf_counter() - sent[0]
    finally:
        timer.join()
        signal.signal(signal.SIGINT, before)
    assert late < 0.2, f"{late * 1000:.0f} ms"
    np.testing.assert_array_equal(attention(*(np.ones((1, 2, 2)),) * 3), np.ones((1, 2, 2)))


@needs_core
def test_warnings_come_from_results_alone() -> None:
    """Excluded NaN and inf stay silent; overflowing scores are told of, at any thread count."""
    arrays = draw("warnings", 1, SIZES[0])
    arrays[1][:, :, 500:] = np.inf
    arrays[2][:, :, 500:] = np.nan
    with np.errstate(all="raise"):
        attention(*arrays, key_lengths=500)
    wide = tuple(x * np.float32(1e30) for x in draw("overflow", 1, SIZES[0]))
    for count in (1, 2):
        with unitstride.threads(count), np.errstate(all="warn"), pytest.warns(RuntimeWarning):
            attention(*wide)
