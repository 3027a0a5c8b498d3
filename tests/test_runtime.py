"""What runs, and how it is told: backends, configuration, the command line."""

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checks import core, needs_core, output_of, run_python

import unitstride
from unitstride import _backend, _runtime

BACKEND = "import unitstride; print(unitstride.show_runtime('dicts')['backend']['name'])"


@pytest.mark.parametrize("choice", ["numpy", "auto", ""])
def test_the_environment_chooses_the_backend(choice: str) -> None:
    expected = "numpy" if choice == "numpy" or core is None else "native"
    if core is None and choice != "numpy":
        pytest.skip("whether the core is installed is not known here")
    assert output_of(BACKEND, {"UNITSTRIDE_BACKEND": choice}) == expected


@needs_core
def test_the_native_backend_can_be_required() -> None:
    assert output_of(BACKEND, {"UNITSTRIDE_BACKEND": "native"}) == "native"


@pytest.mark.parametrize("choice", ["cuda", "NumPy", "numpy,native"])
def test_an_unknown_backend_is_an_error(choice: str) -> None:
    done = run_python("import unitstride", {"UNITSTRIDE_BACKEND": choice})
    expected = f"UNITSTRIDE_BACKEND must be native, numpy or auto, got '{choice}'"
    assert expected in done.stderr
    assert done.returncode == 1


# Finders that hide the extension, or let its loading fail.
HIDDEN = """if True:
    import sys
    class Finder:
        def find_spec(self, name, path=None, target=None):
            if name == "unitstride._core":
                raise {error}
    sys.meta_path.insert(0, Finder())
    import unitstride
    print(unitstride.show_runtime("dicts")["backend"]["name"], unitstride.softmax([0.0, 0.0]))
"""


def test_an_absent_extension_means_the_twin() -> None:
    code = HIDDEN.format(error="ModuleNotFoundError('gone', name=name)")
    assert output_of(code, {"UNITSTRIDE_BACKEND": ""}) == "numpy [0.5 0.5]"
    done = run_python(code, {"UNITSTRIDE_BACKEND": "native"})
    assert "ImportError: UNITSTRIDE_BACKEND=native, but unitstride is installed" in done.stderr


def test_a_broken_extension_is_an_error() -> None:
    """To run slowly and silently instead would hide the fault."""
    for error in ("ImportError('undefined symbol')", "ModuleNotFoundError('x', name='other')"):
        done = run_python(HIDDEN.format(error=error), {"UNITSTRIDE_BACKEND": ""})
        assert done.returncode == 1
        assert error.split("(")[0] in done.stderr


def test_importing_is_light() -> None:
    """NumPy and nothing else of weight: no SciPy, no ml_dtypes, no multiprocessing."""
    code = """if True:
        import sys, numpy
        before = set(sys.modules)
        import unitstride
        unitstride.softmax([0.0, 1.0])
        new = {name.split(".")[0] for name in set(sys.modules) - before}
        print(*sorted(new & {"scipy", "ml_dtypes", "multiprocessing", "importlib.metadata"}))
    """
    assert output_of(code) == ""


@pytest.mark.parametrize("options", [("-O",), ("-I",), ("-X", "dev"), ("-W", "error")])
def test_unusual_interpreters(options: tuple[str, ...]) -> None:
    if "-I" in options and "0+unknown" in unitstride.__version__:
        pytest.skip("the package is found through PYTHONPATH, which -I ignores")
    code = "import numpy, unitstride; print(unitstride.softmax(numpy.zeros((2, 2))).tolist())"
    assert output_of(code, options=options) == "[[0.5, 0.5], [0.5, 0.5]]"


def test_no_subinterpreter_crash() -> None:
    """The core may refuse a second interpreter, with an ImportError; it must not crash."""
    code = """if True:
        import sys
        try:
            import _interpreters as interpreters
        except ImportError:
            try:
                import _xxsubinterpreters as interpreters
            except ImportError:
                sys.exit(0)
        import unitstride
        number = interpreters.create()
        try:
            interpreters.run_string(number, "import unitstride")
        except Exception:
            pass
        interpreters.destroy(number)
        print(unitstride.softmax([0.0, 0.0]))
    """
    assert output_of(code, options=("-W", "ignore")) in ("", "[0.5 0.5]")


def test_debug_logging_says_which_path_ran(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="unitstride"):
        unitstride.softmax(np.zeros((2, 3), np.float16))
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith("softmax: float16 (2, 3) on ")
    assert _backend.backend_name() in message and _backend.reason in message


def test_logging_is_silent_by_default() -> None:
    done = run_python("import unitstride; unitstride.softmax([1.0, 2.0])")
    assert (done.stdout, done.stderr) == ("", "")


def test_show_runtime_has_the_facts(capsys: pytest.CaptureFixture[str]) -> None:
    facts = unitstride.show_runtime("dicts")
    assert facts["numpy"] == np.__version__
    assert facts["backend"]["name"] in ("native", "numpy")
    assert facts["threads"]["number"] == unitstride.get_num_threads()
    assert facts["threads"]["cpus"] >= 1
    assert facts["flush_to_zero"] is False
    assert facts["forked"] is False
    assert unitstride.show_runtime() is None
    printed = capsys.readouterr().out
    for word in ("backend:", "isa:", "threads:", "openmp runtimes:", "flush to zero: False"):
        assert word in printed


def test_show_config_has_the_facts(capsys: pytest.CaptureFixture[str]) -> None:
    facts = unitstride.show_config("dicts")
    assert facts["extension"] == (core is not None)
    assert bool(facts["isa_compiled"]) == facts["extension"]
    assert unitstride.show_config() is None
    assert "unitstride:" in capsys.readouterr().out


@pytest.mark.parametrize("function", [unitstride.show_config, unitstride.show_runtime])
def test_a_wrong_mode_is_an_error(function: Any) -> None:
    text = f"^{function.__name__}: `mode` must be 'stdout' or 'dicts', got 'yaml'$"
    with pytest.raises(ValueError, match=text):
        function("yaml")


@needs_core
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_openmp_runtime_is_seen() -> None:
    if core.build_info()["threading"] == "OpenMP":
        assert unitstride.show_runtime("dicts")["openmp_runtimes"]


def test_openmp_runtimes_are_found_in_a_list_of_mappings(tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    maps.write_text(
        "7f00-7f01 r-xp 0 08:01 1 /usr/lib/libgomp.so.1.0.0\n"
        "7f01-7f02 r-xp 0 08:01 1 /usr/lib/libgomp.so.1.0.0\n"
        "7f02-7f03 r-xp 0 08:01 2 /site/torch/lib/libgomp-a34b3233.so.1\n"
        "7f03-7f04 r-xp 0 08:01 3 /opt/intel/libiomp5.so\n"
        "7f04-7f05 r-xp 0 08:01 4 /usr/lib/libm.so.6\n"
    )
    assert _runtime.openmp_runtimes(str(maps)) == [
        "/opt/intel/libiomp5.so",
        "/site/torch/lib/libgomp-a34b3233.so.1",
        "/usr/lib/libgomp.so.1.0.0",
    ]
    assert _runtime.openmp_runtimes(str(tmp_path / "none")) == []


# The command line.


def command(*words: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "unitstride", *words],
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def test_info() -> None:
    done = command("info")
    assert done.returncode == 0, done.stderr
    assert "backend:" in done.stdout
    facts = json.loads(command("info", "--json").stdout)
    assert facts["runtime"]["numpy"] == np.__version__
    assert facts["config"]["extension"] == (core is not None)


def test_selftest() -> None:
    done = command("selftest", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert not json.loads(done.stdout)["failures"]


def test_an_unknown_command_is_an_error() -> None:
    done = command("nonsense")
    assert done.returncode == 2
    assert "selftest" in done.stderr
