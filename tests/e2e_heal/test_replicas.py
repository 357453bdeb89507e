"""Several daemons on one PostgreSQL, whose server restarts under them: each broken DID is healed once.

`RESTARTS` is how often the server restarts, every second time without a word.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from exporter.model import Outcome
from tests.support.healers import audit, environment_of, ledger_of, write_config
from tests.support.http import sample
from tests.support.postgres import PASSWORD, Cluster, cluster
from tests.support.processes import serving, simulating, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.e2e

RESTARTS = int(os.environ.get("RESTARTS", "2"))
DAEMONS = 3
DIDS = 24


@pytest.fixture
def server() -> Iterator[Cluster]:
    with cluster() as server:
        yield server


@pytest.mark.timeout(180 + 30 * RESTARTS)
def test_each_broken_did_is_healed_once_through_restarts_of_the_database(server: Cluster, tmp_path: Path) -> None:
    url = server.url(server.create())
    with simulating(f"--dids={DIDS}", "--fault=latency:call_ready:seconds=0.1") as simulated, ExitStack() as stack:
        flag, env = (
            write_config(tmp_path, simulated, url, probation="10m", verify_within="5m"),
            environment_of(simulated),
        )
        daemons = [stack.enter_context(serving(flag, env=env)) for _ in range(DAEMONS)]
        numbers = sorted(simulated.control("GET", "fleet")["dids"])
        done = 0
        for turn in range(RESTARTS + 1):
            wanted = numbers[done : done + DIDS // (RESTARTS + 1)]
            for number in wanted:
                simulated.set_did(number, issues=["NO_BOT"])
            if turn < RESTARTS:
                until(lambda done=done: len(simulated.requests("call_ready")) > done, "a DID is healed", 100)  # type: ignore[misc]
                server.stop(crash=turn % 2 == 1)
                time.sleep(0.5)
                server.start()
            done += len(wanted)
            until(lambda done=done: len(simulated.requests("call_ready")) >= done, "all are healed", 100)  # type: ignore[misc]
        until(lambda: not any(row.open for row in ledger_of(url)), "every attempt has ended", 100)
        for daemon in daemons:
            assert daemon.process.alive
            until(lambda daemon=daemon: sample(daemon.scrape(), "voicelink_store_up") == 1, "it says the store answers")  # type: ignore[misc]
            assert PASSWORD not in daemon.process.err
        requests, rows, healed = simulated.requests("call_ready"), ledger_of(url), simulated.healed()
        figures = audit(rows, requests)
    print(f"{RESTARTS} restarts: {dict(figures)}, by {len({row.replica for row in rows})} replicas")  # noqa: T201
    assert sorted(healed) == numbers[:done]
    assert {row.outcome for row in rows} <= {Outcome.SUCCEEDED, Outcome.NOT_SENT}
    assert figures["succeeded"] == done


def test_while_the_database_is_down_it_monitors_and_heals_nothing(server: Cluster, tmp_path: Path) -> None:
    url = server.url(server.create())
    with simulating("--dids=5") as simulated:
        flag, env = write_config(tmp_path, simulated, url), environment_of(simulated)
        number = min(simulated.control("GET", "fleet")["dids"])
        with serving(flag, env=env) as exporter:
            until(lambda: sample(exporter.scrape(), "voicelink_store_up") == 1, "the store answers")
            server.stop()
            until(lambda: sample(exporter.scrape(), "voicelink_store_up") == 0, "the store is down")
            until(lambda: sample(exporter.scrape(), "voicelink_heal_blocked", guard="store") == 1, "the guard shows")
            simulated.set_did(number, issues=["NO_BOT"])
            until(lambda: sample(exporter.scrape(), "voicelink_did_ready", phone_number=number) == 0, "it is seen")
            polls = len(simulated.requests("sync"))
            until(lambda: len(simulated.requests("sync")) > polls + 8, "polls go on")
            assert simulated.requests("call_ready") == []
            assert sample(exporter.scrape(), "voicelink_up") == 1
            server.start()
            until(
                lambda: sample(exporter.scrape(), "voicelink_did_ready", phone_number=number) == 1, "it is healed", 40
            )
            assert sample(exporter.scrape(), "voicelink_store_up") == 1
            assert sample(exporter.scrape(), "voicelink_heal_blocked", guard="store") == 0
            assert sample(exporter.scrape(), "voicelink_did_state_changes_total", phone_number=number) == 2
        assert len(simulated.requests("call_ready")) == 1
        assert audit(ledger_of(url), simulated.requests("call_ready"))["rows"] == 1
