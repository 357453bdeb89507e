"""Plugin of pytest that puts a fault back before tests run: `pytest -p tests.simulation.put_back --put-back NAME`."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from tests.simulation.faults import FAULTS, put_back


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that names the fault."""
    parser.addoption("--put-back", choices=sorted(FAULTS), required=True, help="the fault to put back")


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Put the fault back before any test imports the product, until the tests have run."""
    stack = ExitStack()
    stack.enter_context(put_back(FAULTS[early_config.known_args_namespace.put_back]))
    early_config.add_cleanup(stack.close)
