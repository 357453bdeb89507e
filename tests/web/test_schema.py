"""What the JSON API answers is what its document says: hundreds of requests, good and bad, made from the document."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.web.conftest import Web

    Start = Callable[..., Web]

pytestmark = pytest.mark.e2e

CHECKED = ("--max-examples=25", "--generation-deterministic", "--workers=1")


def test_the_api_keeps_what_its_document_promises(start: Start, tmp_path: Path) -> None:
    web = start({"accounts": [{"api_key_env": "KEY"}], "store": {"url": f"sqlite:///{tmp_path}/store.db"}}, broken=0.3)
    web.simulator.set_did("+918011223344", issues=["NO_BOT"], friendly_name="ä<b>")
    web.poll()
    program = Path(sys.executable).with_name("st")
    url = f"http://127.0.0.1:{web.port}/api/v1/openapi.json"
    done = subprocess.run(
        [program, "--no-color", "run", url, *CHECKED],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 selected / 4 total" in done.stdout
    assert " failed" not in done.stdout
