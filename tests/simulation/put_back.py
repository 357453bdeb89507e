"""Plugin of pytest that puts a fault back before tests run: `pytest -p tests.simulation.put_back --put-back NAME`."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from tests.simulation.faults import FAULTS, put_back

if TYPE_CHECKING:
    import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that names the fault."""
    parser.addoption("--put-back", choices=sorted(FAULTS), required=True, help="the fault to put back")


def pytest_configure(config: pytest.Config) -> None:
    """Put the fault back until the tests have run."""
    stack = ExitStack()
    stack.enter_context(put_back(FAULTS[config.getoption("put_back")]))
    config.add_cleanup(stack.close)
