"""What every test gets."""

from __future__ import annotations

import io
import logging
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
import structlog

from exporter.logs import set_up_logging

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

# In the background of a script SIGINT is ignored, and so it would be in every process that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest first; pytest-xdist would order files by the number of their tests."""
    items.sort(key=lambda item: _place(item.path.relative_to(Path(__file__).parent)))


def _place(file: Path) -> int:
    return next((place for place, name in enumerate(LONGEST) if file.is_relative_to(name)), len(LONGEST))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Make what a test logged fit to be sent from a worker process: halves of characters can't be."""
    report = yield
    report.sections = [(name, text.encode(errors="replace").decode()) for name, text in report.sections]
    return report


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
