"""Instruction-set levels: forcing one, agreement between them, and an untouched FPU."""

import sys

import numpy as np
import pytest
from checks import (
    DTYPES,
    assert_within_budget,
    core,
    dtype_of,
    needs_core,
    output_of,
    random_for,
    run_python,
    ulp_steps,
)

import unitstride
from unitstride._records import KERNELS, KernelSpec

pytestmark = needs_core

DETECTED = list(core.isa_detected()) if core else []
COMPILED = list(core.isa_compiled()) if core else []


@pytest.mark.parametrize("level", DETECTED)
def test_the_environment_forces_a_level(level: str) -> None:
    code = """if True:
        import numpy, unitstride
        print(unitstride.show_runtime("dicts")["isa"]["in_use"])
        x = numpy.linspace(-5, 5, 999).reshape(9, 111)
        y = unitstride.softmax(x)
        exact = numpy.exp(x) / numpy.exp(x).sum(-1, keepdims=True)
        assert numpy.allclose(y, exact, rtol=1e-14)
        assert (unitstride.softmax(numpy.ascontiguousarray(x.T), 0).T == y).all()
    """
    assert output_of(code, {"UNITSTRIDE_ISA": level}) == level


def test_the_best_level_is_the_default() -> None:
    code = "import unitstride; print(unitstride.show_runtime('dicts')['isa']['in_use'])"
    assert output_of(code, {"UNITSTRIDE_ISA": ""}) == DETECTED[-1]


@pytest.mark.parametrize("name", ["avx3", "AVX2", "all", " avx2", "baseline,avx2", "x" * 2000])
def test_a_bad_level_is_an_error_that_lists_the_choices(name: str) -> None:
    done = run_python("import unitstride", {"UNITSTRIDE_ISA": name})
    assert done.returncode == 1
    choices = ", ".join(DETECTED)
    assert f"UNITSTRIDE_ISA: must be one of {choices} on this machine, got '{name}'" in done.stderr


def test_a_bad_level_at_run_time() -> None:
    before = core.isa_in_use()
    with pytest.raises(ValueError, match=r"UNITSTRIDE_ISA: must be one of .* got 'sse9'"):
        core.use_isa("sse9")
    assert core.isa_in_use() == before


def test_levels_are_listed_from_the_least_to_the_best() -> None:
    assert COMPILED[0] == "baseline"
    assert [level for level in COMPILED if level in DETECTED] == DETECTED
    shown = unitstride.show_runtime("dicts")["isa"]
    assert (shown["compiled"], shown["detected"]) == (COMPILED, DETECTED)
    assert unitstride.show_config("dicts")["isa_compiled"] == COMPILED


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("spec", KERNELS, ids=lambda spec: spec.name)
def test_levels_agree_within_the_budget(spec: KernelSpec, name: str, isa: str) -> None:
    for sample in spec.sample_inputs(random_for(spec.name), dtype_of(name), (9, 333), -1):
        assert_within_budget(spec, sample, spec.function(*sample.arrays, **sample.keywords), name)


def test_16_bit_results_are_the_same_at_every_level() -> None:
    """Rounding to 16 bits hides all but the rare difference of the last float32 bit."""
    results = []
    for level in DETECTED:
        before = core.isa_in_use()
        core.use_isa(level)
        x = random_for("16").standard_normal((50, 400)).astype(np.float16)
        results.append(unitstride.softmax(x))
        core.use_isa(before)
    for result in results[1:]:
        steps = ulp_steps(result, results[0])
        assert steps.max() <= 1
        assert np.count_nonzero(steps) <= 20  # of 20,000


# The floating-point environment.


@pytest.mark.parametrize("spec", KERNELS, ids=lambda spec: spec.name)
def test_the_control_word_stays(spec: KernelSpec, isa: str) -> None:
    """Rounding mode, traps and the treatment of subnormals; sticky flags are NumPy's to set too."""
    for shape in ((3, 5), (64, 1000), (2, 100_003)):
        for name in DTYPES:
            for sample in spec.sample_inputs(random_for("mxcsr"), dtype_of(name), shape, -1):
                before = core.float_control()
                spec.function(*sample.arrays, **sample.keywords)
                assert core.float_control() & ~0x3F == before & ~0x3F


SET_CONTROL = """if True:
    import ctypes, numpy, unitstride
    from unitstride._backend import core
    libm = ctypes.CDLL("libm.so.6")
    x = numpy.linspace(-100, 0, 4000, dtype=numpy.float32).reshape(4, 1000)
    x = numpy.tile(x, (16, 1))
    def results():
        with unitstride.threads({threads}):
            return [f(x).tobytes() for f in (unitstride.softmax, unitstride.log_softmax)]
    expected = results()
    {change}
    control = core.float_control()
    same = results() == expected
    kept = core.float_control() & ~0x3F == control & ~0x3F
    print(same, kept)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="uses libm.so.6")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("mode", ["FE_DOWNWARD", "FE_UPWARD", "FE_TOWARDZERO"])
def test_the_callers_rounding_mode_does_not_matter(mode: str, threads: int) -> None:
    if not unitstride.show_runtime("dicts")["machine"].endswith("x86_64"):
        pytest.skip("the numbers of the modes are those of x86-64")
    number = {"FE_DOWNWARD": 0x400, "FE_UPWARD": 0x800, "FE_TOWARDZERO": 0xC00}[mode]
    change = f"assert libm.fesetround({number}) == 0"
    assert output_of(SET_CONTROL.format(threads=threads, change=change)) == "True True"


FLUSH = """if True:
    # glibc's fenv_t ends with MXCSR: turn flush-to-zero and denormals-are-zero on.
    environment = (ctypes.c_uint32 * 8)()
    libm.fegetenv(environment)
    environment[7] |= 0x8040
    libm.fesetenv(environment)
    assert core.flush_to_zero()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="uses libm.so.6")
@pytest.mark.parametrize("threads", [1, 2])
def test_a_caller_that_flushes_subnormals_does_not_matter(threads: int) -> None:
    if not unitstride.show_runtime("dicts")["machine"].endswith("x86_64"):
        pytest.skip("sets the control register of x86-64")
    change = FLUSH.replace("\n", "\n    ").strip().removesuffix("\n    ")
    code = SET_CONTROL.format(threads=threads, change=change)
    assert output_of(code) == "True True"


def test_import_leaves_subnormals_alone() -> None:
    """A library linked with -ffast-math sets flush-to-zero for the whole process."""
    code = """if True:
        import sys, numpy, unitstride
        unitstride.softmax(numpy.zeros((512, 1024), numpy.float32))
        tiny = numpy.array([sys.float_info.min])
        print((tiny / 2)[0] != 0, unitstride.show_runtime("dicts")["flush_to_zero"])
    """
    assert output_of(code) == "True False"


def test_no_fast_math_in_the_flags() -> None:
    flags = core.build_info()["flags"].split()
    forbidden = ("-ffast-math", "-Ofast", "-ffinite-math-only", "-funsafe-math", "-march=native")
    assert not [flag for flag in flags if flag.startswith(forbidden)]
    assert "-ffp-contract=off" in flags
