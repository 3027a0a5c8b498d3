"""Collect ``bench_*.py``, and keep OpenBLAS from spinning: read when NumPy is imported."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    if file_path.name.startswith("bench_") and file_path.suffix == ".py":
        module: pytest.Module = pytest.Module.from_parent(parent, path=file_path)
        return module
    return None
