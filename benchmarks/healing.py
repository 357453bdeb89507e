"""What healing costs: deciding, claiming, and being switched off."""

from __future__ import annotations

import asyncio
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from pydantic import SecretStr

from benchmarks.parts import ACCOUNT
from benchmarks.running import KEY, free_port
from exporter.accounts import account_runtimes
from exporter.clients import Clients
from exporter.clock import SystemClock
from exporter.config import Account, Config, Settings
from exporter.heal.assess import Assessment, assess
from exporter.heal.controller import Controller
from exporter.model import Did, Entry, Snapshot, Target
from exporter.snapshots import TargetState, Watch
from exporter.store import Store
from exporter.store.engine import Database
from exporter.store.ledger import Ledger
from exporter.store.records import Attempt, Wish
from exporter.telemetry import Telemetry

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from exporter.model import HealState
    from exporter.snapshots import Healing

NOW: Final = 1_800_000_000.0
BROKEN: Final = 0.1  # of the DIDs
ISSUES: Final = ("NO_BOT", "ROUTING_MISSING")
TARGET: Final = Target(ACCOUNT, "00000000-0000-4000-8000-000000000001")


def decision_seconds(dids: int, rounds: int) -> float:
    """Return the median seconds to decide about a fleet of which a tenth is broken, poll after poll."""
    heal, watch = Config().heal, Watch.of(Account(name=ACCOUNT, api_key_env="BENCH_KEY"))
    followed: Assessment | None = None
    spent = []
    for index in range(rounds):
        snapshot = _snapshot(dids, NOW + 60 * index)
        begun = time.perf_counter()
        known = followed.followed if followed else {}
        at = snapshot.at
        followed = assess(snapshot, watch, known, {}, {}, config=heal, asked_at=at, passed=60.0, now=at)
        spent.append(time.perf_counter() - begun)
    return statistics.median(spent)


def _snapshot(dids: int, at: float) -> Snapshot:
    every = {}
    for index in range(dids):
        number, broken = f"+9180{index:08d}", index % round(1 / BROKEN) == 0
        state, issues = ("NO_BOT", ISSUES) if broken else ("READY", ())
        every[number] = Did(
            Entry(number, state, issues, did_id=800 + index, client_id=415), state, issues, label=number
        )
    return Snapshot(TARGET, at, MappingProxyType(every))


def claims_a_second(url: str, count: int) -> float:
    """Return how many heals a second one replica claims and marks as sent, each in its two transactions."""
    database = Database(url)
    database.open()
    ledger = Ledger(database, "bench", 86_400.0)
    begun = time.perf_counter()
    for index in range(count):
        now = NOW + index
        account, body = f"{ACCOUNT} {index}", {"did_id": 800 + index}
        wish = Wish(f"+9180{index:08d}", account, TARGET.connection, ISSUES, body, credential=account)
        claimed = ledger.claim(wish, lambda *_: (), now)
        if not isinstance(claimed, Attempt) or ledger.begin_send(claimed, lambda *_: (), now):
            raise AssertionError("nothing speaks against a claim here")
    seconds = time.perf_counter() - begun
    database.close()
    return count / seconds


@contextmanager
def sqlite_url() -> Iterator[str]:
    """Return the URL of a new SQLite file."""
    with tempfile.TemporaryDirectory() as folder:
        yield f"sqlite:///{folder}/bench.db"


@contextmanager
def postgres_url() -> Iterator[str | None]:
    """Run a PostgreSQL of our own and return its URL; `None` where it isn't installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    programs = found[-1].parent if found else Path(shutil.which("pg_ctl") or "missing").parent
    if not (programs / "initdb").exists():
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        user = "nobody" if os.geteuid() == 0 else None  # PostgreSQL refuses to run as root
        if user:
            shutil.chown(folder, user)
        data, port = f"{folder}/data", free_port()
        _call([programs / "initdb", "-D", data, "-A", "trust", "-U", "bench", "--no-sync"], user)
        options = f"-p {port} -h 127.0.0.1 -k ''"
        _call([programs / "pg_ctl", "-D", data, "-l", f"{folder}/log", "-w", "-o", options, "start"], user)
        try:
            yield f"postgresql+psycopg://bench@127.0.0.1:{port}/postgres"
        finally:
            _call([programs / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop"], user)


def _call(command: list[str | Path], user: str | None) -> None:
    subprocess.run(command, check=True, user=user, stdout=subprocess.DEVNULL, cwd="/")


class _Silent:
    """Shows and counts nothing."""

    async def annotate(self, target: Target, healing: Healing, states: Mapping[str, HealState] | None) -> None:
        """Show nothing."""

    def healed(self, target: Target, seconds: float) -> None:
        """Count nothing."""

    def store_answers(self, *, up: bool) -> None:
        """Count nothing."""

    def unobserved(self, attempts: Mapping[str, int]) -> None:
        """Count nothing."""


def controller_cost(dids: int, rounds: int) -> tuple[float, float]:
    """Return the median CPU seconds after a poll: of nothing at all, and of a controller whose mode is off.

    Nothing changes from poll to poll, as in a fleet that is fine; changes are written to the store in any mode.
    """
    return asyncio.run(_controller_cost(dids, rounds))


async def _controller_cost(dids: int, rounds: int) -> tuple[float, float]:
    with sqlite_url() as url:
        config = Config.model_validate(
            {"store": {"url": url}, "accounts": [{"name": ACCOUNT, "api_key_env": "BENCH_KEY"}]}
        )
        silent, clock, settings = _Silent(), SystemClock(), Settings(config, {ACCOUNT: SecretStr(KEY)})
        clients = Clients(Telemetry(), clock)
        clients.use(settings, clients.prepare(settings))
        accounts = account_runtimes(settings, clients.of_account, {ACCOUNT: Watch.of(config.accounts[0])})
        store = Store(config, clock=clock)
        controller = Controller(config, store, accounts, annotator=silent, observer=silent, clock=clock)
        await controller.recall(TARGET)
        running = asyncio.create_task(controller.run())
        state, first = TargetState(TARGET), _snapshot(dids, NOW)
        nothing, off = [], []
        for index in range(rounds + 1):
            snapshot = replace(first, at=NOW + 60 * index)
            after = replace(state, snapshot=snapshot, memory=state.memory or snapshot.dids, polls=index + 1)
            begun = time.process_time()
            await asyncio.sleep(0)
            nothing.append(time.process_time() - begun)
            begun = time.process_time()
            controller.polled(state, after)
            await controller.settle()
            off.append(time.process_time() - begun)
            state = after
        running.cancel()
        await controller.stop()
        await clients.close()
    return statistics.median(nothing[1:]), statistics.median(off[1:])
