"""Rules of the code base: which layer may include which, namespaces, versions, types."""

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from checks import core, needs_core

import unitstride

ROOT = Path(__file__).resolve().parents[1]
CPP = ROOT / "cpp"

pytestmark = pytest.mark.skipif(not CPP.is_dir(), reason="needs the source tree")

# What each folder may include: itself and what stands below it.
BELOW = {
    "core": {"core"},
    "simd": {"simd", "core"},
    "kernels": {"kernels", "simd", "core"},
    "isa": {"isa", "kernels", "core"},
    "ops": {"ops", "kernels", "isa", "core"},
    "bindings": {"bindings", "ops", "isa", "core"},
}
INCLUDE = re.compile(r'^\s*#\s*include\s*(["<])([^">]+)[">]', re.MULTILINE)


def sources(folder: str) -> list[Path]:
    return sorted((CPP / folder).rglob("*.[ch]pp"))


@pytest.mark.parametrize("folder", BELOW)
def test_includes_point_downward(folder: str) -> None:
    files = sources(folder)
    assert files
    for path in files:
        for quote, name in INCLUDE.findall(path.read_text()):
            if quote == '"':
                target = name.split("/")[0]
                assert (CPP / name).exists(), f"{path.name} includes {name} by another path"
                assert target in BELOW[folder], f"{folder}/{path.name} includes {name}"


@pytest.mark.parametrize("folder", ["kernels", "simd"])
def test_kernels_use_no_library_code(folder: str) -> None:
    """Templates of the standard library would be compiled for one CPU and linked for all."""
    allowed = re.compile(
        r"^(immintrin|arm_neon|cstddef|cstdint|bit|type_traits|limits|concepts|utility)(\.h)?$"
    )
    forbidden = re.compile(
        r"\bstd::(vector|string|function|sort|max|min|copy|fill|thread|atomic|unique_ptr)\b"
        r"|\b(throw|try|catch|new|delete|malloc|free)\b\s*[({]?|#\s*pragma\s+omp"
    )
    for path in sources(folder):
        text = path.read_text()
        for quote, name in INCLUDE.findall(text):
            assert quote == '"' or allowed.match(name), f"{path.name} includes <{name}>"
        code = re.sub(r"//[^\n]*|/\*.*?\*/|\"[^\"]*\"", "", text, flags=re.DOTALL)
        code = re.sub(r"=\s*delete|\bfree\w", "", code)
        found = forbidden.search(code)
        assert not found, f"{path.name}: {found[0]}"


@pytest.mark.parametrize("folder", ["kernels", "simd"])
def test_kernel_code_lives_in_the_namespace_of_its_level(folder: str) -> None:
    for path in sources(folder):
        text = path.read_text()
        namespaces = re.findall(r"^namespace\s+([\w:]*)\s*\{", text, re.MULTILINE)
        if path.suffix == ".cpp":
            assert namespaces[0] == "unitstride::UNITSTRIDE_ISA", path.name
            assert set(namespaces) <= {"unitstride::UNITSTRIDE_ISA", ""}, path.name
        elif folder == "simd":
            # Functions in headers are in an anonymous namespace inside that of the level.
            assert namespaces[:2] == ["unitstride::UNITSTRIDE_ISA", ""], path.name


def test_threads_are_in_one_place() -> None:
    for path in sorted(CPP.rglob("*.[ch]pp")):
        if path.parent.name == "tests" or path.stem == "parallel":
            continue
        text = path.read_text()
        assert not re.search(r"#\s*pragma\s+omp|#\s*include\s*<omp\.h>", text), path.name
        if path.stem not in ("placement", "recycling"):
            assert not re.search(r"\bstd::thread\b|pthread_create", text), path.name


def test_only_one_header_touches_arrays() -> None:
    """Checks of arrays are in bindings/arrays; the others hand arrays on."""
    for path in sources("bindings"):
        if path.stem == "arrays":
            continue
        assert not re.search(r"\.(mutable_)?(unchecked|request)\b", path.read_text()), path.name


@pytest.mark.parametrize("path", sorted(CPP.rglob("*.[ch]pp")), ids=lambda path: path.name)
def test_files_are_short_and_say_what_they_are_for(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 400
    assert path.suffix != ".hpp" or "#pragma once" in text


def test_headers_are_included_once_only() -> None:
    for path in CPP.rglob("*.hpp"):
        assert "#pragma once" in path.read_text(), path.name


@pytest.mark.parametrize(
    "path", sorted((ROOT / "python" / "unitstride").glob("**/*.py")), ids=lambda path: path.name
)
def test_python_files_are_short_and_documented(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 400
    assert text.lstrip().startswith('"""')


def test_every_operation_has_a_file_in_each_layer() -> None:
    for stem in ("softmax", "softmax_vjp"):
        for folder in ("kernels", "ops", "bindings"):
            assert (CPP / folder / f"{stem}.cpp").exists()
    assert (ROOT / "python" / "unitstride" / "_reference" / "softmax.py").exists()


# Versions.


def declared_version() -> str:
    with (ROOT / "pyproject.toml").open("rb") as file:
        return str(tomllib.load(file)["project"]["version"])


def test_versions_agree() -> None:
    version = unitstride.__version__
    assert unitstride.show_config("dicts")["unitstride"] == version
    assert unitstride.show_runtime("dicts")["unitstride"] == version
    if version == "0+unknown":
        pytest.skip("the package is not installed")
    assert version == declared_version()


def test_the_changelog_knows_the_version() -> None:
    changelog = ROOT / "CHANGELOG.md"
    if not changelog.exists():
        pytest.skip("there is no changelog yet")
    assert re.search(rf"^##.*\b{re.escape(declared_version())}\b", changelog.read_text(), re.M)


# Types.


@needs_core
def test_the_stub_of_the_core_is_right() -> None:
    """mypy's stubtest compares the stub with the module as it is at run time."""
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("mypy is not installed")
    done = subprocess.run(
        [sys.executable, "-m", "mypy.stubtest", "unitstride._core"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@needs_core
def test_the_core_has_no_docstrings_but_signatures() -> None:
    """Documentation is in Python; what pybind11 writes by itself is a signature."""
    for name in dir(core):
        text = getattr(core, name).__doc__ or ""
        if callable(getattr(core, name)) and not name.startswith("_"):
            assert text == "" or text.strip().startswith(name), name


def test_the_package_is_marked_as_typed() -> None:
    assert (Path(unitstride.__file__).parent / "py.typed").exists()


def test_public_names() -> None:
    for name in unitstride.__all__:
        assert getattr(unitstride, name).__doc__, name
    assert unitstride.__all__ == sorted(unitstride.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        unitstride.nonsense  # noqa: B018
