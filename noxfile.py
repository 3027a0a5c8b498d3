"""Everything that is run on this project: ``nox -s <session>``; ``nox --list`` shows the sessions.

Each session makes its own environment. ``.ci/run`` runs them in one it has made, with
``--no-venv --no-install``.
"""

import os
import sys
import tempfile
from pathlib import Path

import nox

nox.needs_version = ">=2025.2"
nox.options.default_venv_backend = "venv"
nox.options.sessions = ["tests", "lint", "typing"]
nox.options.error_on_missing_interpreters = True

SANITIZERS = (
    "-O1 -g1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all"
)


def install(session: nox.Session, *extras: str) -> None:
    """Install the package, with the extension or not at all."""
    session.install(f".[{','.join(extras)}]", env={"UNITSTRIDE_PURE": "0"})


def run_python(session: nox.Session, *words: str, **environment: str) -> None:
    """Run the session's Python with additional environment variables."""
    session.run("python", *words, env=environment)


@nox.session
def tests(session: nox.Session) -> None:
    """Run all tests; arguments after -- go to pytest."""
    install(session, "test")
    run_python(session, "-m", "pytest", *session.posargs, UNITSTRIDE_BACKEND="native")


@nox.session
def isa(session: nox.Session) -> None:
    """Run the fast tests at each lower instruction-set level of this CPU, forced by its name.

    Those that go through all levels by themselves are part of `tests`, as is the best level.
    """
    install(session, "test")
    code = "from unitstride import show_runtime; print(*show_runtime('dicts')['isa']['detected'])"
    levels = session.run("python", "-c", code, silent=True)
    for level in str(levels).split()[:-1]:
        run_python(
            session,
            *("-m", "pytest", "-m", "not slow and not every_level", "-q", *session.posargs),
            UNITSTRIDE_BACKEND="native",
            UNITSTRIDE_ISA=level,
            UNITSTRIDE_TEST_ISA=level,
        )


@nox.session
def fallback(session: nox.Session) -> None:
    """Run all tests on NumPy alone."""
    install(session, "test")
    run_python(session, "-m", "pytest", "-q", *session.posargs, UNITSTRIDE_BACKEND="numpy")


@nox.session(venv_backend="none")
def pure(session: nox.Session) -> None:
    """Install without the extension, in an environment of its own, and use that."""
    with tempfile.TemporaryDirectory() as folder:
        session.run(sys.executable, "-m", "venv", folder, external=True)
        python = str(Path(folder, "Scripts" if os.name == "nt" else "bin", "python"))
        command = (python, "-m", "pip", "install", "--quiet", ".")
        session.run(*command, env={"UNITSTRIDE_PURE": "1"}, external=True)
        code = (
            "import unitstride; from importlib.metadata import files;"
            "assert unitstride.show_runtime('dicts')['backend']['name'] == 'numpy';"
            "assert not [f for f in files('unitstride') if f.suffix in ('.so', '.pyd')];"
            "assert unitstride.softmax([[0.0, 0.0]]).tolist() == [[0.5, 0.5]]"
        )
        session.run(python, "-I", "-c", code, external=True)
        session.run(python, "-I", "examples/quickstart.py", silent=True, external=True)


@nox.session
def lint(session: nox.Session) -> None:
    """Check the layout of the code, its style and its spelling."""
    session.install("clang-format==23.1.*", "codespell>=2.4", "ruff==0.17.*")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    sources = sorted(str(path) for path in Path("cpp").rglob("*.[ch]pp"))
    session.run("clang-format", "--dry-run", "-Werror", *sources)
    session.run("codespell")


@nox.session
def typing(session: nox.Session) -> None:
    """Check the types, and the stub of the extension against the extension."""
    install(session, "test")
    session.install("nox")  # for the types of this file
    session.run("mypy")
    session.run("stubtest", "unitstride._core")


@nox.session
def sanitize(session: nox.Session) -> None:
    """Build the engine's own test with AddressSanitizer and UBSan, and run it."""
    session.install("cmake>=3.24", "ninja>=1.11")
    with tempfile.TemporaryDirectory() as folder:
        session.run(
            "cmake",
            "-G",
            "Ninja",
            "-S",
            ".",
            "-B",
            folder,
            "-DUNITSTRIDE_BUILD_MODULE=OFF",
            "-DUNITSTRIDE_BUILD_TESTS=ON",
            "-DUNITSTRIDE_WERROR=ON",
            "-DCMAKE_BUILD_TYPE=Debug",
            f"-DCMAKE_CXX_FLAGS_DEBUG={SANITIZERS}",
        )
        session.run("cmake", "--build", folder)
        tests = os.path.join(folder, "cpp", "tests")
        session.run("ctest", "--test-dir", tests, "--output-on-failure", "--verbose")


@nox.session
def bench(session: nox.Session) -> None:
    """Run the benchmarks; arguments after -- go to pytest."""
    install(session, "test", "peers", "bf16")
    words = ("-m", "pytest", "bench", "--benchmark-enable", *session.posargs)
    run_python(session, *words, UNITSTRIDE_BACKEND="native")
