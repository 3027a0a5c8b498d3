"""Failures to allocate, and leaks."""

import gc
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from checks import (
    DTYPES,
    assert_same_bits,
    call,
    core,
    dtype_of,
    needs_core,
    output_of,
    random_for,
)

import unitstride
from unitstride._records import KERNELS, KernelSpec, Sample

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc or sets a Linux limit")

# One for each way a kernel takes: rows, columns, packed rows, pieces, several axes.
SHAPES = (
    ((7, 40), -1),
    ((40, 7), 0),
    ((3, 200_003), -1),
    ((4, 5, 6), (0, 2)),
    ((300, 1200), -1),
    ((300, 1200), 0),
)


def strided(sample: Sample) -> Sample:
    """Return the sample with inputs that have to be packed."""
    arrays = []
    for array in sample.arrays:
        host = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
        host[..., ::2] = array
        arrays.append(host[..., ::2])
    return Sample(f"{sample.label}, strided", tuple(arrays), sample.keywords)


@needs_core
@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("spec", KERNELS, ids=lambda spec: spec.name)
def test_failure_at_every_allocation(spec: KernelSpec, name: str) -> None:
    """MemoryError at the first, second ... allocation; `out` is untouched, the next call right."""
    points = 0
    for shape, axis in SHAPES:
        random = random_for("allocation", spec.name, name, shape)
        for plain in spec.sample_inputs(random, dtype_of(name), shape, axis)[:2]:
            for sample in (plain, strided(plain)):
                expected = np.asarray(call(spec, sample))
                for out in (None, np.full_like(expected, 77)):
                    points += fail_everywhere(spec, sample, expected, out)
    assert points >= 20


def in_fresh_thread(function: Callable[[], Any]) -> Any:
    """Run in a thread of its own, which has kept no scratch memory from earlier calls."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


def fail_everywhere(spec: KernelSpec, sample: Sample, expected: Any, out: Any) -> int:
    """Let one allocation after the other fail until the call succeeds; return their number."""
    keywords = {} if out is None else {"out": out}
    for number in range(1, 50):
        core.fail_allocation(number)
        try:
            result = in_fresh_thread(lambda: call(spec, sample, **keywords))
        except MemoryError:
            core.fail_allocation(0)
            if out is not None:
                assert (out == 77).all(), f"{sample.label}: allocation {number}"
        else:
            core.fail_allocation(0)
            assert_same_bits(result, expected, f"{sample.label} after {number - 1} failures")
            return number - 1
    raise AssertionError("the call never succeeds")


@needs_core
@pytest.mark.parametrize("large", [False, True])
def test_failure_to_allocate_the_result(large: bool) -> None:
    """The result itself: from NumPy when small, from the store of large blocks otherwise."""
    x = np.zeros((2, 2**19 if large else 5))
    unitstride.release_memory()
    expected = unitstride.softmax(x)
    for y in (x, x.T, x[:, ::-1]):
        core.fail_allocation(1)
        try:
            unitstride.softmax(y)
        except MemoryError:
            pass
        finally:
            core.fail_allocation(0)
    assert_same_bits(unitstride.softmax(x), expected)


@linux
def test_a_limit_of_the_address_space() -> None:
    """A result that does not fit is a MemoryError, and the process goes on."""
    code = """if True:
        import resource, numpy, unitstride
        x = numpy.zeros((64, 1024), numpy.float32)
        expected = unitstride.softmax(x)
        with open("/proc/self/statm") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        limit = used + (200 << 20)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        for shape in ((1 << 16, 1 << 14), (1 << 14, 1 << 16)):
            big = numpy.broadcast_to(numpy.float32(1), shape)
            for function in (unitstride.softmax, unitstride.log_softmax):
                for axis in (0, 1, None):
                    try:
                        function(big, axis)
                    except MemoryError:
                        continue
                    raise SystemExit("no MemoryError")
        assert (unitstride.softmax(x) == expected).all()
        print("fine")
    """
    assert output_of(code) == "fine"


def resident_bytes() -> int:
    import resource

    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


@linux
@pytest.mark.parametrize("spec", KERNELS, ids=lambda spec: spec.name)
def test_thousands_of_calls_leak_nothing(spec: KernelSpec) -> None:
    samples = [
        sample
        for shape, axis in (((3, 5), -1), ((40, 30), 0))
        for sample in spec.sample_inputs(random_for("leak"), dtype_of("float32"), shape, axis)
    ]
    calls = 10_000 if core else 2_000

    def work(count: int) -> None:
        for number in range(count):
            sample = samples[number % len(samples)]
            spec.function(*sample.arrays, **sample.keywords)

    work(calls // 10)
    gc.collect()
    before = resident_bytes()
    work(calls)
    gc.collect()
    # Growth of the allocator's own pools is a few hundred kilobytes; 100 bytes a call are 1 MB.
    assert resident_bytes() - before < 1 << 20


@linux
def test_failing_calls_leak_nothing() -> None:
    errors = [(spec, error) for spec in KERNELS for error in spec.error_inputs()]

    def work(rounds: int) -> None:
        for _ in range(rounds):
            for spec, error in errors:
                try:
                    spec.function(*error.arrays, **error.keywords)
                except error.error:
                    continue
                raise AssertionError(error.message)

    work(2)
    gc.collect()
    before = resident_bytes()
    work(20)
    gc.collect()
    assert resident_bytes() - before < 1 << 20


@pytest.mark.parametrize("spec", KERNELS, ids=lambda spec: spec.name)
def test_references_are_given_back(spec: KernelSpec) -> None:
    """Inputs, outputs, dtypes and the results themselves end with the references they had."""
    for name in ("float32", "float64"):
        for shape in ((4, 6), (300, 1000)):
            sample = spec.sample_inputs(random_for("refs"), dtype_of(name), shape, -1)[0]
            out = np.asarray(spec.function(*sample.arrays, **sample.keywords)).copy()
            arrays = [*sample.arrays, out]
            before = [sys.getrefcount(array) for array in arrays]
            of_dtype = sys.getrefcount(out.dtype)
            for _ in range(20):
                result = spec.function(*sample.arrays, **sample.keywords)
                spec.function(*sample.arrays, **sample.keywords, out=out)
            assert [sys.getrefcount(array) for array in arrays] == before
            assert sys.getrefcount(result) == 2
            # The results that are alive hold the dtype; a leak would add one for each call.
            assert sys.getrefcount(out.dtype) - of_dtype < 8


@needs_core
@linux
def test_large_results_are_recycled_and_released() -> None:
    x = np.zeros((1024, 2048), np.float32)
    unitstride.release_memory()
    first = unitstride.softmax(x)
    address = first.__array_interface__["data"][0]
    assert address % 64 == 0
    view = first[::2]
    del first
    second = unitstride.softmax(x)
    # The memory of `first` is still seen through the view.
    assert not np.shares_memory(view, second)
    assert (view == np.float32(1 / 2048)).all()
    del view
    third = unitstride.softmax(x)
    assert third.__array_interface__["data"][0] == address
    del second, third
    assert unitstride.release_memory() >= 2 * x.nbytes
    assert unitstride.release_memory() == 0


@needs_core
def test_recycled_blocks_outlive_the_call_in_other_threads() -> None:
    x = np.zeros((1024, 1024), np.float32)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda n: unitstride.softmax(x + n % 3), range(24)))
    for one in results:
        assert (one == np.float32(1 / 1024)).all()
    assert len({result.__array_interface__["data"][0] for result in results}) == len(results)


@linux
def test_recycling_can_be_turned_off() -> None:
    code = """if True:
        import numpy, unitstride
        x = numpy.zeros((1024, 2048), numpy.float32)
        unitstride.softmax(x)
        unitstride.softmax(x)
        print(unitstride.release_memory())
    """
    assert output_of(code, {"UNITSTRIDE_RECYCLE_BYTES": "0"}) == "0"


@needs_core
@linux
def test_scratch_memory_does_not_grow_with_the_problem() -> None:
    """In place on 128 MiB: the call itself takes a few MiB, whatever the layout."""
    code = """if True:
        import resource, numpy, unitstride
        x = numpy.zeros((4096, 8192), numpy.float32)
        unitstride.softmax(x[:64], out=x[:64])
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        unitstride.softmax(x, out=x)
        unitstride.softmax(x, 0, out=x)
        unitstride.softmax(x[:, ::2], out=x[:, ::2])
        unitstride.softmax(x.T, out=x.T)
        unitstride.softmax(x, None, out=x)
        unitstride.softmax(x.reshape(1, -1), out=x.reshape(1, -1))
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
    """
    assert int(output_of(code, {"UNITSTRIDE_NUM_THREADS": "2"})) <= 16
