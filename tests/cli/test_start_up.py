"""What a command doesn't need it doesn't load: a health check every few seconds, or a look at the ledger, is cheap."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

from tests.support.processes import KEY, PRODUCT, environment, unmeasured

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.e2e

CONFIGURATION = {"pydantic", "phonenumbers", "ruamel"}
STORE = {"sqlalchemy", "alembic"}
API = {"httpx", "prometheus_client", "structlog", "tenacity"}
DAEMON = {"apscheduler", "starlette", "uvicorn", "bcrypt", "fastapi", "jinja2"}
ENVIRONMENT = {"VOCOBASE_API_KEY": KEY, "VOICELINK_API_BASE_URL": "http://127.0.0.1:1/api/v2"}
EVERYTHING = {*CONFIGURATION, *STORE, *API, *DAEMON, "rich", "asyncio"}


def loaded(folder: Path, *words: str) -> set[str]:
    """Run a command; return the packages that it loaded."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *PRODUCT[1:], *words],
        cwd=folder,
        env=unmeasured(environment({**ENVIRONMENT, "STATE_DIRECTORY": str(folder)})),
        capture_output=True,
        check=False,
        text=True,
    )
    names = re.findall(r"^import time: +\d+ \| +\d+ \| *([\w.]+)$", done.stderr, re.MULTILINE)
    assert "exporter.cli.main" in names, done.stderr
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize(
    ("command", "not_needed"),
    [
        ("--version", EVERYTHING),
        ("--help", EVERYTHING),
        ("poll --help", EVERYTHING),
        ("healthcheck --web.listen-address=127.0.0.1:1", EVERYTHING),
        ("check-config", {*STORE, *API, *DAEMON, "phonenumbers", "ruamel", "rich", "asyncio"}),
        ("heal history", {*API, *DAEMON, "phonenumbers", "ruamel"}),
        ("poll", {*STORE, *DAEMON, "phonenumbers", "ruamel"}),
        ("heal plan", DAEMON),
        ("simulate --listen=nowhere", {*CONFIGURATION, *STORE, "httpx", "prometheus_client", "apscheduler", "fastapi"}),
    ],
)
def test_a_command_loads_what_it_needs_and_no_more(command: str, not_needed: set[str], tmp_path: Path) -> None:
    assert loaded(tmp_path, *command.split()) & not_needed == set()


def test_no_name_is_misspelt() -> None:
    assert [name for name in EVERYTHING if find_spec(name) is None] == []
