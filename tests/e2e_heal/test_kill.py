"""A daemon that is killed at any moment while it heals: no DID is ever asked for twice, and the ledger stays true.

`KILL_ROUNDS` is how often it is killed, `KILL_SEED` chooses the moments. With `KILL_WAIT` the minute after which what a
daemon left behind is taken over is waited for, instead of made to have passed.
"""

from __future__ import annotations

import os
import random
import signal
import time
from typing import TYPE_CHECKING

import pytest

from exporter.model import Outcome
from exporter.store.ledger import GONE_AFTER
from exporter.store.records import Status
from tests.support.healers import audit, environment_of, ledger_of, let_a_minute_pass, write_config
from tests.support.processes import Served, Simulated, serving, simulating, until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.e2e

ROUNDS = int(os.environ.get("KILL_ROUNDS", "8"))
SEED = int(os.environ.get("KILL_SEED", "7"))
DIDS = 20
BREAK = 6  # a round
REALLY_WAIT = "KILL_WAIT" in os.environ
FAULTS = (
    "--fault=latency:call_ready:seconds=0.15,probability=0.5",
    "--fault=act_then_fail:call_ready:probability=0.15",
    "--fault=status:call_ready:status=503,probability=0.1",
)


def broken(simulated: Simulated) -> set[str]:
    dids = simulated.control("GET", "fleet")["dids"]
    return {number for number, did in dids.items() if did["issues"]}


def wait_for_the_moment(simulated: Simulated, exporter: Served, rng: random.Random) -> None:
    """Wait for a random time, or until just after something is claimed or sent."""
    kind = rng.choice(("any", "claimed", "sent"))
    patience = time.monotonic() + 5.0
    arrived = len(simulated.requests("call_ready"))
    if kind == "any":
        time.sleep(rng.uniform(0.0, 3.0))
    elif kind == "claimed":
        while "msg=healing" not in exporter.process.err and time.monotonic() < patience:
            time.sleep(0.001)
        time.sleep(rng.uniform(0.0, 0.02))
    else:
        while len(simulated.requests("call_ready")) == arrived and time.monotonic() < patience:
            time.sleep(0.002)
        time.sleep(rng.uniform(0.0, 0.2))


@pytest.mark.timeout(60 + 20 * ROUNDS)
def test_no_kill_makes_it_ask_twice(tmp_path: Path) -> None:
    rng = random.Random(SEED)  # noqa: S311 - chooses moments
    url = f"sqlite:///{tmp_path}/store.db"
    killed_with: dict[str, int] = {}
    with simulating(f"--dids={DIDS}", *FAULTS) as simulated:
        flag, env = write_config(tmp_path, simulated, url), environment_of(simulated)
        numbers = sorted(simulated.control("GET", "fleet")["dids"])
        for _ in range(ROUNDS):
            for number in rng.sample(numbers, BREAK):
                simulated.set_did(number, issues=[rng.choice(["NO_BOT", "ROUTING_MISSING"])])
            with serving(flag, env=env) as exporter:
                wait_for_the_moment(simulated, exporter, rng)
                exporter.process.send(signal.SIGKILL)
                exporter.process.wait()
            rows = ledger_of(url)
            for row in rows:
                if row.open:
                    killed_with[row.status] = killed_with.get(row.status, 0) + 1
            audit(rows, simulated.requests("call_ready"))
            let_a_minute_pass(url)
        simulated.clear_faults()
        with serving(flag, env=env) as exporter:
            until(lambda: not broken(simulated), "everything is mended", 30)
            until(lambda: not any(row.open for row in ledger_of(url)), "every attempt has ended", 30)
            assert exporter.process.alive
        figures = audit(ledger_of(url), simulated.requests("call_ready"))
    print(f"{ROUNDS} kills, open then: {killed_with}; {dict(figures)}")  # noqa: T201 - the figures are the point
    assert figures["succeeded"] >= BREAK


def test_what_was_sent_before_a_kill_is_judged_by_the_polls_alone(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    with simulating("--dids=5", "--fault=hang:call_ready") as simulated:
        flag, env = write_config(tmp_path, simulated, url), environment_of(simulated)
        number = min(simulated.control("GET", "fleet")["dids"])
        simulated.set_did(number, issues=["NO_BOT"])
        with serving(flag, env=env) as exporter:
            until(lambda: simulated.requests("call_ready"), "the request arrives")
            exporter.process.send(signal.SIGKILL)
            exporter.process.wait()
        killed = time.monotonic()
        simulated.clear_faults()
        if not REALLY_WAIT:
            let_a_minute_pass(url)
        with serving(flag, env=env):
            taken_over = until(
                lambda: ledger_of(url)[0].status == Status.AMBIGUOUS, "it is taken over", GONE_AFTER + 20
            )
            assert taken_over
            if REALLY_WAIT:
                assert time.monotonic() - killed > GONE_AFTER - 1
            simulated.set_did(number, issues=[])
            until(lambda: not ledger_of(url)[0].open, "the attempt has ended")
        (row,) = ledger_of(url)
        assert row.outcome is Outcome.SUCCEEDED
        assert audit([row], simulated.requests("call_ready"))["requests"] == 1
