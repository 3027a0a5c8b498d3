"""The examples and the docstrings run, and what they print is what they say."""

import doctest
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import unitstride

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(unitstride.__path__, "unitstride.")
    if module.name not in ("unitstride._core", "unitstride.__main__")
)


@pytest.mark.skipif(not EXAMPLES, reason="needs the source tree")
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples(path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip()
    assert done.stderr == ""


def test_quickstart_with_a_text_of_ones_own(tmp_path: Path) -> None:
    quickstart = ROOT / "examples" / "quickstart.py"
    if not quickstart.exists():
        pytest.skip("needs the source tree")
    text = tmp_path / "text.txt"
    text.write_text("the quick brown fox jumps over the lazy dog. " * 50)
    done = subprocess.run(
        [sys.executable, str(quickstart), str(text)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"perplexity", done.stdout, re.IGNORECASE)


@pytest.mark.parametrize("name", ["unitstride", *MODULES])
def test_docstrings(name: str) -> None:
    module = importlib.import_module(name)
    if not hasattr(module, "__path__") and not hasattr(module, "__file__"):
        module = sys.modules[name]
    failed, _ = doctest.testmod(sys.modules[name])
    assert failed == 0


def test_the_public_functions_have_examples() -> None:
    for name in unitstride.__all__:
        assert ">>>" in (getattr(unitstride, name).__doc__ or ""), name
