"""What the compiled objects define: code of one instruction set must not leak into another.

The linker keeps one copy of a weak function; if that is the copy compiled for AVX-512, the library
dies on an older CPU. So an object of a level defines nothing outside the namespace of the level.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from checks import core, needs_core

ROOT = Path(__file__).resolve().parents[1]
NM = shutil.which("nm")

pytestmark = [
    needs_core,
    pytest.mark.skipif(NM is None, reason="nm is not installed"),
]

# The compiler's pointer to the exception personality routine: data, the same at every level.
HARMLESS_WEAK = re.compile(r"^DW\.ref\.")
# What kernels may ask of the outside: memory functions that the compiler itself inserts.
ALLOWED_UNDEFINED = re.compile(r"^(mem(cpy|set|move)|_GLOBAL_OFFSET_TABLE_|__gxx_personality_v0)$")


def build_directory() -> Path:
    """Return the directory of a CMake build, or skip the test."""
    named = os.environ.get("UNITSTRIDE_BUILD_DIR")
    if named and not Path(named).is_dir():
        pytest.fail(f"UNITSTRIDE_BUILD_DIR={named} is not a directory")
    candidates = [Path(named)] if named else [ROOT / "build", *sorted(ROOT.glob("build/*"))]
    for candidate in candidates:
        if any(candidate.glob("**/kernels_baseline.dir/**/*.o")):
            return candidate
    pytest.skip("no CMake build here; UNITSTRIDE_BUILD_DIR names one")


def objects_of(level: str) -> list[Path]:
    return sorted(build_directory().glob(f"**/kernels_{level}.dir/**/*.o"))


def symbols(path: Path, *options: str) -> list[tuple[str, str]]:
    """Return (type, demangled name) of each symbol."""
    done = subprocess.run(
        [NM, "-C", *options, str(path)], capture_output=True, text=True, check=True
    )
    found = (re.match(r"^[0-9a-f ]{16} (\S) (.*)$", line) for line in done.stdout.splitlines())
    return [(match[1], match[2]) for match in found if match]


@pytest.mark.parametrize("level", list(core.isa_compiled()) if core else [])
def test_objects_define_only_their_own_namespace(level: str) -> None:
    objects = objects_of(level)
    assert objects, f"no objects of {level}"
    for path in objects:
        defined = symbols(path, "--defined-only", "--extern-only")
        wrong = [
            (kind, name)
            for kind, name in defined
            if not name.startswith(f"unitstride::{level}::") and not HARMLESS_WEAK.match(name)
        ]
        assert not wrong, f"{path.name} of {level} defines {wrong}"


@pytest.mark.parametrize("level", list(core.isa_compiled()) if core else [])
def test_objects_have_no_weak_code(level: str) -> None:
    for path in objects_of(level):
        weak = [
            name
            for kind, name in symbols(path, "--defined-only")
            if kind in "WwVvuiC" and not HARMLESS_WEAK.match(name)
        ]
        assert not weak, f"{path.name} of {level}: {weak}"


@pytest.mark.parametrize("level", list(core.isa_compiled()) if core else [])
def test_objects_use_nothing_from_outside(level: str) -> None:
    """No allocation, no exceptions, no threads, no mathematical library."""
    for path in objects_of(level):
        wanted = [name for kind, name in symbols(path, "--undefined-only") if kind in "Uwv"]
        foreign = [
            name
            for name in wanted
            if not name.startswith(f"unitstride::{level}::") and not ALLOWED_UNDEFINED.match(name)
        ]
        assert not foreign, f"{path.name} of {level} uses {foreign}"


@pytest.mark.parametrize("level", list(core.isa_compiled()) if core else [])
def test_objects_have_no_static_initialisers(level: str) -> None:
    """Code that runs on load would run on every CPU."""
    objdump = shutil.which("objdump")
    if objdump is None:
        pytest.skip("objdump is not installed")
    for path in objects_of(level):
        done = subprocess.run(
            [objdump, "-h", str(path)], capture_output=True, text=True, check=True
        )
        assert not re.search(r"\.(init_array|ctors)", done.stdout), f"{path.name} of {level}"


def test_all_levels_have_the_same_objects() -> None:
    levels = [level for level in core.isa_compiled() if level != "amx"]  # avx512 and some more
    names = {level: [path.name for path in objects_of(level)] for level in levels}
    assert len({tuple(value) for value in names.values()}) == 1, names


def test_the_module_exports_its_initialiser_and_nothing_else() -> None:
    """Anything else could be replaced by, or replace, a symbol of another library."""
    exported = [name for _, name in symbols(Path(core.__file__), "-D", "--defined-only")]
    assert exported == ["PyInit__core"]


def test_the_module_does_not_ask_for_fast_math() -> None:
    everything = Path(core.__file__).read_bytes()
    assert b"set_fast_math" not in everything
    assert not [n for _, n in symbols(Path(core.__file__), "-D") if "fast_math" in n]


def test_compile_commands_have_no_forbidden_flags() -> None:
    path = build_directory() / "compile_commands.json"
    if not path.exists():
        pytest.skip("the build has no compile_commands.json")
    forbidden = re.compile(
        r"-ffast-math|-Ofast|-ffinite-math-only|-funsafe-math|-march=native|-flto"
    )
    for entry in json.loads(path.read_text()):
        command = entry.get("command") or " ".join(entry["arguments"])
        assert not forbidden.search(command), entry["file"]
        assert "-ffp-contract=off" in command, entry["file"]
