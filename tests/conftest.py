"""What every test gets."""

from __future__ import annotations

import io
import logging
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
import structlog

from exporter.logs import set_up_logging
from tests.support.processes import unmeasured

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

# What takes longest begins first, so that the workers end together. A worker takes the tests of a whole file.
LONGEST: Final = (
    "simulation/test_simulation.py",
    "e2e_heal/test_wiped_store.py",
    "heal/test_stateful.py",
    "e2e_heal",
    "test_scheduler.py",
    "cli/test_heal.py",
    "e2e",
    "cli/test_store.py",
    "web/test_privacy.py",
    "web/test_schema.py",
    "monitoring",
)

# Only the processes of these tests are run with coverage, which takes a third of the time of a process. Those of the
# others run little of the product that these, and what runs in the tests' own process, don't.
MEASURED: Final = "cli"

# In the background of a script SIGINT is ignored, and so it would be in every process that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest first; pytest-xdist would order files by the number of their tests."""
    items.sort(key=lambda item: _place(item.path))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Let coverage into the processes of the tests that are for it, and into no other."""
    with pytest.MonkeyPatch.context() as patch:
        if not _within(item.path, MEASURED):
            for name in os.environ.keys() - unmeasured(os.environ).keys():
                patch.delenv(name)
        return (yield)


def _within(file: Path, name: str) -> bool:
    return file.relative_to(Path(__file__).parent).is_relative_to(name)


def _place(file: Path) -> int:
    return next((place for place, name in enumerate(LONGEST) if _within(file, name)), len(LONGEST))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Make what a test logged fit to be sent from a worker process: halves of characters can't be."""
    report = yield
    report.sections = [(name, text.encode(errors="replace").decode()) for name, text in report.sections]
    return report


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Run what is asynchronous on asyncio, as the product does."""
    return "asyncio"


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Return what is logged as JSON; leave the logging of the process as it was."""
    root, ours = logging.getLogger(), logging.getLogger("exporter")
    handlers, levels = root.handlers[:], (root.level, ours.level)
    stream = io.StringIO()
    set_up_logging("debug", "json", stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    ours.setLevel(levels[1])
    structlog.reset_defaults()
