"""Plugin of pytest for `make test-fast`: runs the tests that start no process, and lets none of them start one."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

STARTS: Final = {"os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "subprocess.Popen"}
_running: Final[set[str]] = set()  # the test that runs, by its name


def pytest_configure() -> None:
    """Watch for processes."""
    sys.addaudithook(_refuse)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests that start processes."""
    left_out = [item for item in items if item.get_closest_marker("e2e")]
    items[:] = [item for item in items if not item.get_closest_marker("e2e")]
    config.hook.pytest_deselected(items=left_out)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Say that a test runs."""
    _running.add(item.nodeid)
    try:
        return (yield)
    finally:
        _running.clear()


def _refuse(event: str, _: object) -> None:
    if event in STARTS and _running:
        message = f"{event} in a test without the marker e2e, by which make test-fast leaves out what starts processes"
        raise RuntimeError(message)
