"""Fixtures and options that all tests share.

``UNITSTRIDE_TEST_ISA`` (or ``--isa``) chooses the instruction-set levels: by default the tests that
ask for the fixture `isa` run at every level of this CPU and the others at the best one; a name runs
everything at that level.
"""

import os
from collections.abc import Iterator

import numpy as np
import pytest

pytest.register_assert_rewrite("checks", "layouts")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--isa", help="instruction-set level to test: a name, or all (the default)")


def pytest_configure(config: pytest.Config) -> None:
    chosen = config.getoption("--isa")
    if chosen:
        os.environ["UNITSTRIDE_TEST_ISA"] = chosen


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "isa" in metafunc.fixturenames:
        from checks import isa_levels

        metafunc.parametrize("isa", isa_levels(), indirect=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "isa" in getattr(item, "fixturenames", ()):
            item.add_marker("every_level")


def pytest_report_header() -> str:
    from checks import core, isa_levels

    from unitstride._backend import backend_name

    used = "" if core is None else f", best level {core.isa_in_use()}"
    return f"unitstride: backend {backend_name()}, levels {', '.join(isa_levels())}{used}"


@pytest.fixture(scope="session", autouse=True)
def _session_level() -> None:
    """Run everything at the level that is asked for."""
    from checks import core, isa_levels

    levels = isa_levels()
    if core is not None and len(levels) == 1:
        core.use_isa(levels[0])


@pytest.fixture
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """The instruction-set level in use during the test."""
    from checks import core

    if core is None:
        yield request.param
        return
    before = core.isa_in_use()
    core.use_isa(request.param)
    yield request.param
    core.use_isa(before)


@pytest.fixture(autouse=True)
def _clean_state() -> Iterator[None]:
    """Fail a test that leaves the process changed for the next one."""
    from checks import core

    import unitstride

    state = np.geterr(), np.geterrcall(), unitstride.get_num_threads()
    level = core.isa_in_use() if core else None
    control = core.float_control() if core else None
    yield
    assert (np.geterr(), np.geterrcall(), unitstride.get_num_threads()) == state
    if core:
        core.fail_allocation(0)
        assert core.isa_in_use() == level
        # Bits 0 to 5 are sticky flags, which any arithmetic may set.
        assert core.float_control() & ~0x3F == control & ~0x3F
