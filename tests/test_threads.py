"""Threads: the same bits at any number, many callers at once, forks, limits, failures, Ctrl-C."""

import hashlib
import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from checks import DTYPES, assert_same_bits, core, dtype_of, needs_core, output_of, random_for

import unitstride
from unitstride import _threads
from unitstride._records import KERNELS, KernelSpec

linux = pytest.mark.skipif(sys.platform != "linux", reason="uses /proc or a Linux limit")

# Enough work for threads: rows, columns, a few long lines in pieces, masks.
PROBLEMS = (((96, 1000), -1), ((300, 257), 0), ((2, 200_003), -1), ((20, 30, 90), (0, 2)))


def digest(spec: KernelSpec, name: str) -> str:
    """Hash the results of all problems."""
    hashed = hashlib.sha256()
    for shape, axis in PROBLEMS:
        random = random_for("threads", spec.name, name, shape)
        for sample in spec.sample_inputs(random, dtype_of(name), shape, axis)[:2]:
            result = np.asarray(spec.function(*sample.arrays, **sample.keywords))
            hashed.update(np.ascontiguousarray(result).tobytes())
    return hashed.hexdigest()


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("spec", KERNELS, ids=lambda spec: spec.name)
def test_same_bits_at_any_number_of_threads(spec: KernelSpec, name: str) -> None:
    with unitstride.threads(1):
        expected = digest(spec, name)
    for count in (2, 3, 8):
        with unitstride.threads(count):
            assert digest(spec, name) == expected, f"{count} threads"


@pytest.mark.parametrize("spec", KERNELS, ids=lambda spec: spec.name)
def test_same_bits_every_time(spec: KernelSpec) -> None:
    with unitstride.threads(4):
        assert len({digest(spec, "float32") for _ in range(8)}) == 1


@pytest.mark.parametrize("spec", KERNELS, ids=lambda spec: spec.name)
def test_64_python_threads_at_once(spec: KernelSpec) -> None:
    """Shared inputs, small and large calls mixed, all starting at a barrier."""
    samples = [
        spec.sample_inputs(random_for("64", spec.name, shape), dtype_of("float32"), shape, -1)[0]
        for shape in ((4, 9), (64, 512))
    ]
    expected = [np.asarray(spec.function(*s.arrays, **s.keywords)) for s in samples]
    barrier = threading.Barrier(64)

    def work(number: int) -> None:
        barrier.wait()
        for turn in range(6):
            which = (number + turn) % 2
            sample = samples[which]
            result = spec.function(*sample.arrays, **sample.keywords)
            assert_same_bits(result, expected[which], f"thread {number}")

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(64) as pool:
            list(pool.map(work, range(64)))
    finally:
        sys.setswitchinterval(before)


# Who says how many.


@pytest.fixture
def default_threads() -> Any:
    before = _threads._default_count, _threads._default_source
    yield before[0]
    _threads._set_default(*before)


def test_threads_holds_inside_the_block_and_nests(default_threads: int) -> None:
    with unitstride.threads(3):
        assert unitstride.get_num_threads() == 3
        with unitstride.threads(1):
            assert unitstride.get_num_threads() == 1
        assert unitstride.get_num_threads() == 3
        with pytest.raises(KeyError), unitstride.threads(5):
            raise KeyError
        assert unitstride.get_num_threads() == 3
    assert unitstride.get_num_threads() == default_threads


def test_threads_is_a_decorator() -> None:
    @unitstride.threads(2)
    def inside() -> int:
        return unitstride.get_num_threads()

    assert inside() == 2
    assert inside() == 2


def test_threads_holds_for_the_calling_thread_only(default_threads: int) -> None:
    with unitstride.threads(7), ThreadPoolExecutor(1) as pool:
        assert pool.submit(unitstride.get_num_threads).result() == default_threads
        assert unitstride.get_num_threads() == 7


def test_set_num_threads_holds_for_all_threads(default_threads: int) -> None:
    unitstride.set_num_threads(5)
    assert unitstride.get_num_threads() == 5
    assert unitstride.show_runtime("dicts")["threads"]["source"] == "set_num_threads"
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(unitstride.get_num_threads).result() == 5
    with unitstride.threads(2):
        assert unitstride.get_num_threads() == 2
        unitstride.set_num_threads(6)
        assert unitstride.get_num_threads() == 2
    assert unitstride.get_num_threads() == 6


@pytest.mark.parametrize("function", [unitstride.threads, unitstride.set_num_threads])
def test_a_number_of_threads_is_a_positive_integer(function: Any) -> None:
    name = function.__name__
    for wrong in (0, -1, 2**31):
        with pytest.raises(ValueError, match=f"^{name}: `n` must be an integer >= 1, got {wrong}$"):
            function(wrong)
    for wrong in (1.0, "2", None, True, [1]):
        with pytest.raises(TypeError, match=f"^{name}: `n` must be an integer, got "):
            function(wrong)
    with unitstride.threads(np.int64(2)):
        assert unitstride.get_num_threads() == 2


@pytest.mark.parametrize(
    ("own", "shared", "expected"),
    [
        ("3", "5", (3, "UNITSTRIDE_NUM_THREADS")),
        (" 4 ", None, (4, "UNITSTRIDE_NUM_THREADS")),
        (None, "5", (5, "OMP_NUM_THREADS")),
        ("", "4,2", (4, "OMP_NUM_THREADS")),
        (None, "0", None),
        (None, "many", None),
        (None, "-3", None),
        (None, "", None),
        (None, None, None),
    ],
)
def test_environment_variables(
    monkeypatch: pytest.MonkeyPatch, own: str | None, shared: str | None, expected: Any
) -> None:
    for name, value in (("UNITSTRIDE_NUM_THREADS", own), ("OMP_NUM_THREADS", shared)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    assert _threads._from_environment() == expected


@pytest.mark.parametrize("value", ["0", "-3", "abc", "1.5", "2,3", "10000000000", "٣"])
def test_a_bad_environment_variable_is_an_error(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("UNITSTRIDE_NUM_THREADS", value)
    with pytest.raises(ValueError, match="UNITSTRIDE_NUM_THREADS must be an integer >= 1, got "):
        _threads._from_environment()


def test_environment_variables_at_import() -> None:
    code = "import unitstride; print(unitstride.get_num_threads())"
    assert output_of(code, {"UNITSTRIDE_NUM_THREADS": "3", "OMP_NUM_THREADS": "2"}) == "3"
    assert output_of(code, {"UNITSTRIDE_NUM_THREADS": "", "OMP_NUM_THREADS": "4,2"}) == "4"


@linux
def test_affinity_counts() -> None:
    code = """if True:
        import os
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        import unitstride
        print(unitstride.get_num_threads(), unitstride.show_runtime("dicts")["threads"]["source"])
    """
    assert output_of(code, {"UNITSTRIDE_NUM_THREADS": "", "OMP_NUM_THREADS": ""}) == "1 affinity"


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "150000 100000\n"}, 1.5),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "50000 100000\n"}, 0.5),
        ({"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/cpu.max": "max 100000\n"}, np.inf),
        ({"proc/self/cgroup": "0::/../..\n", "sys/fs/cgroup/cpu.max": "20 10\n"}, 2.0),
        ({"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/cpu.max": "nonsense\n"}, np.inf),
        (
            {
                "proc/self/cgroup": "3:cpu,cpuacct:/job\n1:memory:/x\n",
                "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us": "300000\n",
                "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us": "100000\n",
            },
            3.0,
        ),
        (
            {
                "proc/self/cgroup": "3:cpu:/job\n",
                "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/job/cpu.cfs_period_us": "100000\n",
            },
            np.inf,
        ),
        ({}, np.inf),
    ],
)
def test_cgroup_quota(tmp_path: Any, files: dict[str, str], quota: float) -> None:
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert _threads.cpu_quota(str(tmp_path)) == quota


@needs_core
def test_threadpoolctl_is_obeyed() -> None:
    threadpoolctl = pytest.importorskip("threadpoolctl")
    if core.build_info()["threading"] != "OpenMP":
        pytest.skip("built without OpenMP")
    before = unitstride.get_num_threads()
    with threadpoolctl.threadpool_limits(before + 3, user_api="openmp"):
        assert unitstride.get_num_threads() == before + 3
        assert unitstride.show_runtime("dicts")["threads"]["source"] == "threadpoolctl"
        with unitstride.threads(2):
            assert unitstride.get_num_threads() == 2
    assert unitstride.get_num_threads() == before


# What the operating system sees.

COUNT_TASKS = """if True:
    import os, numpy, unitstride
    x = numpy.random.default_rng(0).standard_normal((512, 1024), numpy.float32)
    def tasks():
        return len(os.listdir("/proc/self/task"))
    unitstride.softmax(x[:1])
    before = tasks()
    counts = []
    for n in (1, 2, 4):
        with unitstride.threads(n):
            for _ in range(3):
                unitstride.softmax(x)
            counts.append(tasks() - before)
    print(*counts)
"""


@needs_core
@linux
def test_no_more_threads_than_asked_for() -> None:
    one, two, four = map(int, output_of(COUNT_TASKS).split())
    assert one == 0
    assert two <= 1
    assert four <= 3
    if core.build_info()["threading"] == "OpenMP":
        assert (two, four) == (1, 3)


@needs_core
@linux
def test_small_problems_start_no_thread() -> None:
    code = COUNT_TASKS.replace("(512, 1024)", "(8, 100)")
    assert output_of(code) == "0 0 0"


@needs_core
@linux
def test_a_thread_that_cannot_start_means_fewer_threads() -> None:
    """Under a limit of processes the call gives the same bits instead of ending the process."""
    code = """if True:
        import os, resource, numpy, unitstride
        x = numpy.random.default_rng(0).standard_normal((512, 1024), numpy.float32)
        with unitstride.threads(1):
            expected = unitstride.softmax(x)
        if os.getuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
        import threading
        try:
            threading.Thread(target=print).start()
            print("unlimited")
        except RuntimeError:
            for n in (2, 4, 4, 3, 1, 8):
                with unitstride.threads(n):
                    assert (unitstride.softmax(x) == expected).all()
            print("fine")
    """
    result = output_of(code)
    if result.endswith("unlimited"):
        pytest.skip("the limit of processes has no effect here")
    assert result == "fine"


# Fork and its relatives.


@linux
@pytest.mark.parametrize("in_thread", [False, True])
def test_a_forked_child_runs(in_thread: bool) -> None:
    """libgomp hangs in the child of a process that has used threads; the core must not."""
    code = f"""if True:
        import os, threading, numpy, unitstride
        x = numpy.random.default_rng(0).standard_normal((512, 1024), numpy.float32)
        def same():
            rows = unitstride.softmax(x)
            columns = unitstride.softmax(numpy.ascontiguousarray(x.T), axis=0)
            return (rows == expected).all() and (columns.T == expected).all()
        def fork():
            child = os.fork()
            if child == 0:
                os._exit(0 if same() else 7)
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), same())
        with unitstride.threads(2):
            expected = unitstride.softmax(x)
        if {in_thread}:
            thread = threading.Thread(target=fork)
            thread.start()
            thread.join()
        else:
            fork()
    """
    environment = {"UNITSTRIDE_NUM_THREADS": "2"}
    assert output_of(code, environment, options=("-W", "ignore"), timeout=20) == "0 True"


@linux
def test_a_child_forked_while_threads_compute() -> None:
    code = """if True:
        import os, threading, numpy, unitstride
        x = numpy.random.default_rng(0).standard_normal((256, 1024), numpy.float32)
        expected = unitstride.softmax(x)
        stop = threading.Event()
        def work():
            while not stop.is_set():
                unitstride.softmax(x)
        workers = [threading.Thread(target=work) for _ in range(3)]
        for worker in workers:
            worker.start()
        children = []
        for _ in range(5):
            child = os.fork()
            if child == 0:
                os._exit(0 if (unitstride.softmax(x) == expected).all() else 7)
            children.append(child)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        stop.set()
        for worker in workers:
            worker.join()
        print(codes)
    """
    assert output_of(code, options=("-W", "ignore"), timeout=30) == "[0, 0, 0, 0, 0]"


@linux
def test_a_forked_child_says_so() -> None:
    code = """if True:
        import os, unitstride
        read, write = os.pipe()
        if os.fork() == 0:
            os.write(write, b"1" if unitstride.show_runtime("dicts")["forked"] else b"0")
            os._exit(0)
        os.wait()
        print(os.read(read, 1).decode(), unitstride.show_runtime("dicts")["forked"])
    """
    expected = "1 False" if core else "0 False"
    assert output_of(code, options=("-W", "ignore")) == expected


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(method: str) -> None:
    import multiprocessing

    if method not in multiprocessing.get_all_start_methods():
        pytest.skip("not on this system")
    code = f"""if True:
        import multiprocessing, numpy, unitstride
        if __name__ == "__main__":
            x = numpy.random.default_rng(0).standard_normal((256, 1024), numpy.float32)
            expected = unitstride.softmax(x)
            context = multiprocessing.get_context({method!r})
            with context.Pool(2) as pool:
                results = pool.map(unitstride.softmax, [x, x, x])
            print(all((result == expected).all() for result in results))
    """
    assert output_of(code, options=("-W", "ignore"), timeout=40) == "True"


def test_exit_with_threads_alive() -> None:
    code = """if True:
        import threading, numpy, unitstride
        x = numpy.zeros((512, 1024), numpy.float32)
        unitstride.softmax(x)
        def work():
            while True:
                unitstride.softmax(x)
        threading.Thread(target=work, daemon=True).start()
        print("bye")
    """
    for _ in range(3):
        assert output_of(code, timeout=20) == "bye"


# Signals.

ENDLESS = {
    # Each would take many seconds: views of few elements that stand for 2^33 and more.
    "rows": ((2**21, 4096), (0, 4), -1),
    "one line": ((2**33,), (0,), -1),
    "columns": ((2**11, 1000, 4096), (0, 0, 4), 1),
    "packed rows": ((2**20, 2000), (0, 8), -1),
    "long lines": ((2**11, 2**22), (0, 0), -1),
}


@needs_core
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("case", ENDLESS)
def test_ctrl_c_ends_a_long_call(case: str, threads: int) -> None:
    """KeyboardInterrupt within 200 ms of the signal, and the next call is right."""
    shape, strides, axis = ENDLESS[case]
    x = np.lib.stride_tricks.as_strided(np.ones(8192, np.float32), shape, strides)
    sent = []

    def interrupt() -> None:
        sent.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)

    # A process started in the background ignores SIGINT, and Python then leaves it so.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.15, interrupt)
    timer.start()
    try:
        with unitstride.threads(threads), pytest.raises(KeyboardInterrupt):
            unitstride.logsumexp(x, axis)
        late = time.perf_counter() - sent[0]
    finally:
        timer.join()
        signal.signal(signal.SIGINT, before)
    # 50 ms between checks, and as much for the scheduler of a busy machine.
    assert late < 0.2, f"{late * 1000:.0f} ms"
    np.testing.assert_array_equal(unitstride.softmax(np.zeros(4)), [0.25] * 4)


@needs_core
@linux
def test_a_handler_that_raises_ends_the_call() -> None:
    class Alarm(Exception):
        pass

    def handler(*_: object) -> None:
        raise Alarm

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        with pytest.raises(Alarm):
            unitstride.logsumexp(np.broadcast_to(np.float32(1), 2**33))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@needs_core
@linux
def test_a_handler_that_returns_does_not_disturb() -> None:
    calls = []
    before = signal.signal(signal.SIGALRM, lambda *_: calls.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
    x = np.broadcast_to(np.float32(1), 2**28)
    try:
        result = unitstride.logsumexp(x)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert result == np.float32(1 + 28 * np.log(2))
    assert calls


def test_no_signal_handler_is_installed() -> None:
    code = """if True:
        import signal, numpy
        before = [signal.getsignal(s) for s in signal.valid_signals()]
        import unitstride
        unitstride.softmax(numpy.zeros((512, 1024), numpy.float32))
        print(before == [signal.getsignal(s) for s in signal.valid_signals()])
    """
    assert output_of(code) == "True"
