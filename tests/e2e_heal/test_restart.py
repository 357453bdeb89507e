"""What a restart must not lose: since when a DID is in its state, and how often that changed."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tests.support.healers import environment_of, write_config
from tests.support.http import sample
from tests.support.postgres import cluster
from tests.support.processes import Served, serving, simulating, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.e2e


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/store.db"
    else:
        with cluster() as server:
            yield server.url(server.create())


def told(exporter: Served) -> dict[str, tuple[float | None, float | None]]:
    """Return by number since when it is in its state, and how often that changed."""
    text = exporter.scrape()
    numbers = {line.split('phone_number="')[1].split('"')[0] for line in text.splitlines() if "_did_ready{" in line}
    return {
        number: (
            sample(text, "voicelink_did_state_changed_timestamp_seconds", phone_number=number),
            sample(text, "voicelink_did_state_changes_total", phone_number=number),
        )
        for number in sorted(numbers)
    }


@pytest.mark.parametrize(("mode", "number"), [("off", signal.SIGKILL), ("enforce", signal.SIGTERM)])
def test_a_restart_loses_no_state_and_no_change(url: str, tmp_path: Path, mode: str, number: signal.Signals) -> None:
    with simulating("--dids=3") as simulated:
        flag, env = write_config(tmp_path, simulated, url, mode=mode), environment_of(simulated)
        first, second, _ = sorted(simulated.control("GET", "fleet")["dids"])

        def changed(exporter: Served, did: str, times: int) -> bool:
            return told(exporter)[did][1] == times

        with serving(flag, env=env) as exporter:
            exporter.until_ready()
            simulated.set_did(first, issues=["CANNOT_BE_HEALED"])
            until(lambda: changed(exporter, first, 1), "the first change is seen")
            simulated.set_did(first, issues=[])
            simulated.set_did(second, issues=["CANNOT_BE_HEALED"])
            until(lambda: changed(exporter, first, 2) and changed(exporter, second, 1), "the others are seen")
            polls = len(simulated.requests("sync"))
            until(lambda: len(simulated.requests("sync")) > polls + 2, "they are written")
            before = told(exporter)
            exporter.process.send(number)
            exporter.process.wait()
        with serving(flag, env=env) as exporter:
            until(lambda: told(exporter), "it has polled")
            assert told(exporter) == before
            simulated.set_did(first, issues=["CANNOT_BE_HEALED"])
            until(lambda: changed(exporter, first, 3), "changes are counted on")
            assert (told(exporter)[first][0] or 0.0) > (before[first][0] or 0.0)


def test_what_changed_while_nobody_looked_is_one_change(url: str, tmp_path: Path) -> None:
    with simulating("--dids=3") as simulated:
        flag, env = write_config(tmp_path, simulated, url, mode="off"), environment_of(simulated)
        number = min(simulated.control("GET", "fleet")["dids"])
        with serving(flag, env=env) as exporter:
            until(lambda: told(exporter), "it has polled")
            polls = len(simulated.requests("sync"))
            until(lambda: len(simulated.requests("sync")) > polls + 2, "it is written")
            before = told(exporter)
        simulated.set_did(number, issues=["NO_BOT"])
        with serving(flag, env=env) as exporter:
            until(lambda: told(exporter), "it has polled")
            after = told(exporter)
        assert after[number][1] == 1
        assert (after[number][0] or 0.0) > (before[number][0] or 0.0)
        assert {**after, number: before[number]} == before
