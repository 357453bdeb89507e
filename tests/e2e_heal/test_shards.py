"""Three shards of two replicas on one PostgreSQL: every DID in one shard, no gap at a death, each healed once."""

from __future__ import annotations

import signal
import time
from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from exporter.model import Outcome
from tests.support.healers import audit, environment_of, ledger_of, write_config
from tests.support.http import sample
from tests.support.postgres import cluster
from tests.support.processes import Served, serving, simulating, until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.e2e

SHARDS, REPLICAS = 3, 2
DIDS, CONNECTIONS = 90, 30
WATCHED = 2.0  # seconds


def ready(exporter: Served) -> dict[str, float]:
    """Return what an exporter says of each number."""
    return {
        line.partition('phone_number="')[2].partition('"')[0]: float(line.rpartition(" ")[2])
        for line in exporter.scrape().splitlines()
        if line.startswith("voicelink_did_ready{")
    }


@pytest.mark.timeout(240)
def test_shards_and_replicas_share_the_work_and_no_heal(tmp_path: Path) -> None:
    with (
        cluster() as server,
        simulating(
            f"--dids={DIDS}", f"--connections={CONNECTIONS}", "--fault=latency:call_ready:seconds=0.1"
        ) as simulated,
        ExitStack() as stack,
    ):
        url = server.url(server.create())
        flag = write_config(tmp_path, simulated, url, interval="3s", probation="10m", verify_within="5m")
        env = environment_of(simulated)
        numbers = sorted(simulated.control("GET", "fleet")["dids"])
        pods = [
            stack.enter_context(serving(flag, f"--shard=voicelink-exporter-{pod}", f"--total-shards={SHARDS}", env=env))
            for pod in range(SHARDS * REPLICAS)
        ]
        for pod in pods:
            pod.until_ready()
        seen = [until(lambda pod=pod: ready(pod), "it shows its numbers", 60) for pod in pods]  # type: ignore[misc]
        for shard in range(SHARDS):
            assert seen[shard].keys() == seen[shard + SHARDS].keys()
            assert sample(pods[shard].scrape(), "voicelink_exporter_shard_info", shard=str(shard)) == 1
        holders = Counter(number for each in seen[:SHARDS] for number in each)
        assert sorted(holders) == numbers
        assert set(holders.values()) == {1}

        def heals(numbers: list[str], pods: list[Served]) -> None:
            for number in numbers:
                simulated.set_did(number, issues=["NO_BOT"])
            until(lambda: {number for pod in pods for number, value in ready(pod).items() if not value}, "it shows", 60)
            until(lambda: all(all(ready(pod).values()) for pod in pods), "all are mended", 120)

        heals(numbers[:6], pods)
        pods[0].process.send(signal.SIGKILL)
        other, expected, end = pods[SHARDS], seen[0].keys(), time.monotonic() + WATCHED
        while time.monotonic() < end:
            assert ready(other).keys() == expected
        heals(numbers[6:12], pods[1:])
        until(lambda: not any(row.open for row in ledger_of(url)), "every attempt has ended", 60)
        rows, requests, healed = ledger_of(url), simulated.requests("call_ready"), simulated.healed()
        figures = audit(rows, requests)
        assert "level=error" not in "".join(pod.process.err for pod in pods)
    print(f"{SHARDS} shards of {REPLICAS}: {dict(figures)}, by {len({row.replica for row in rows})} of them")  # noqa: T201
    assert sorted(healed) == numbers[:12]
    assert {row.outcome for row in rows} <= {Outcome.SUCCEEDED, Outcome.NOT_SENT}
