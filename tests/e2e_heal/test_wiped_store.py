"""A store that is lost while the daemon runs: nothing is healed, nothing is made anew, and monitoring goes on.

Until the store is back, or a person says that it may go on with another one.
"""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.support.healers import environment_of, ledger_of, store_of, write_config
from tests.support.http import ask, sample
from tests.support.ledgers import open_store
from tests.support.postgres import cluster
from tests.support.processes import run, serving, simulating, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.postgres import Cluster
    from tests.support.processes import Finished, Served, Simulated

pytestmark = pytest.mark.e2e

HOLD_OFF = 6  # polls
GONE = "is gone"
EMPTY = "has no identity: it was emptied, or another one was put there"
ANOTHER = "is another one than this process opened"
WHAT_TO_DO = (
    "; put back the one that was there, or, to go on without its pauses, quarantines and counts, run: "
    "voicelink-exporter heal resume --new-store"
)


@pytest.fixture
def simulated() -> Iterator[Simulated]:
    with simulating("--dids=8") as running:
        yield running


@pytest.fixture(scope="module")
def server() -> Iterator[Cluster]:
    with cluster() as running:
        yield running


class Scene:
    """A daemon on a store, and what a person types beside it."""

    def __init__(self, simulated: Simulated, folder: Path, url: str) -> None:
        self.simulated = simulated
        self.numbers = sorted(simulated.control("GET", "fleet")["dids"])
        self.flag = write_config(folder, simulated, url, hold_off_polls=HOLD_OFF)
        self.env = environment_of(simulated)
        self.url = url

    def heal(self, *words: str) -> Finished:
        return run("heal", *words, self.flag, "--log.level=error", env=self.env)

    def break_some(self, count: int) -> list[str]:
        for number in self.numbers[:count]:
            self.simulated.set_did(number, issues=["NO_BOT"])
        return self.numbers[:count]

    def polls(self) -> int:
        return len(self.simulated.requests("sync"))

    def after_polls(self, count: int) -> None:
        before = self.polls()
        until(lambda: self.polls() > before + count, "polls go on")

    def sent(self) -> list[int]:
        """Return the ids that heals were asked for."""
        return [request["body"]["did_id"] for request in self.simulated.requests("call_ready")]


def is_up(exporter: Served) -> bool:
    return sample(exporter.scrape(), "voicelink_store_up") == 1


def blocked(exporter: Served) -> dict[str, str]:
    """Return why nothing is healed, by guard, as the JSON API shows it."""
    (target,) = json.loads(ask(exporter.port, "/api/v1/targets").text)["data"]
    return {guard["guard"]: guard["reason"] for guard in target["healing"]["guards"]}


def accepted_at(url: str) -> float:
    store = store_of(url)
    (at,) = (action.at for action in store.actions() if action.action == "new_store")
    store.close()
    return at


def is_down_and_harmless(scene: Scene, exporter: Served, sentence: str, untouched: Callable[[], object]) -> None:
    """Hold that a daemon whose store was just lost says so, sends and makes nothing, and monitors on."""
    until(lambda: not is_up(exporter), "the store is down")
    broken = scene.break_some(3)
    until(lambda: sample(exporter.scrape(), "voicelink_did_ready", phone_number=broken[0]) == 0, "it is seen")
    until(lambda: sample(exporter.scrape(), "voicelink_heal_blocked", guard="store") == 1, "the guard shows")
    before = untouched()
    scene.after_polls(HOLD_OFF + 6)
    assert scene.sent() == []
    assert not is_up(exporter)
    assert sample(exporter.scrape(), "voicelink_up") == 1
    assert blocked(exporter) == {"store": sentence}
    assert re.search(r'msg="store failed" reason=StoreReplacedError error=".* --new-store"', exporter.process.err)
    assert untouched() == before


def goes_on_when_told(scene: Scene, exporter: Served, *, made: bool) -> None:
    """Hold that a person's word, and nothing less, lets the daemon go on as after a start."""
    plain = scene.heal("resume")
    assert plain.code == (2 if made else 0), plain
    scene.after_polls(HOLD_OFF + 2)
    assert not is_up(exporter)
    assert scene.sent() == []
    said = scene.heal("resume", "--new-store", "--reason", "the disk was exchanged")
    assert said.code == 0, said
    assert ("a new store was made" if made else "the store that is there now is to be used") in said.out
    assert "what only that other one knew, as pauses, quarantines and counts, is gone" in said.out
    until(lambda: is_up(exporter), "the store is used")
    assert "another store is used from now on, as a person has accepted it" in exporter.process.err
    until(lambda: len(scene.sent()) == 3, "all are healed", 40)
    until(lambda: not any(row.open for row in ledger_of(scene.url)), "all are verified")
    first, second, *_ = ledger_of(scene.url)
    requests = scene.simulated.control("GET", "journal")["requests"]
    sent_at = next(request["time"] for request in requests if request["endpoint"] == "call_ready")
    polls = [request["time"] for request in requests if request["endpoint"] == "sync"]
    held = [at for at in polls if accepted_at(scene.url) < at < sent_at]
    assert len(held) >= HOLD_OFF - 1, "it holds off; one poll may have been under way already"
    assert first.ended_at
    assert first.ended_at <= second.claimed_at, "the first heal is verified before the second is sent"
    history = scene.heal("history")
    assert "new store" in history.out
    assert "the disk was exchanged" in history.out
    assert "maintenance" not in history.out, "of the store that is gone"


def lose(file: Path, how: str) -> str:
    """Lose an SQLite store; return what is said of it."""
    if how == "deleted":
        for each in file.parent.iterdir():
            each.unlink()
        return GONE
    if how == "emptied":
        os.truncate(file, 0)
        return EMPTY
    if how == "replaced":
        other = file.parent.with_name("other.db")
        open_store(f"sqlite:///{other}").close()
        other.replace(file)
        return ANOTHER
    file.parent.rename(file.parent.with_name("exchanged"))
    file.parent.mkdir()
    return GONE


@pytest.mark.parametrize("how", ["deleted", "emptied", "replaced", "folder exchanged"])
def test_a_file_that_is_lost(simulated: Simulated, tmp_path: Path, how: str) -> None:
    file = tmp_path / "state" / "store.db"
    file.parent.mkdir()
    scene = Scene(simulated, tmp_path, f"sqlite:///{file}")
    with serving(scene.flag, env=scene.env) as exporter:
        until(lambda: is_up(exporter), "the store is used")
        assert f"store={file}" in exporter.process.err
        assert "a new store was made, which knows of no pause, quarantine or heal" in exporter.process.err
        paused = scene.heal("pause", "--reason", "maintenance")
        assert (paused.code, paused.err) == (0, f"store: {file}\n")
        until(lambda: "paused" in blocked(exporter), "it is paused")
        what = lose(file, how)

        def content() -> dict[str, bytes]:
            return {each.name: each.read_bytes() for each in file.parent.iterdir() if each.suffix == ".db"}

        is_down_and_harmless(scene, exporter, f"the store at {file} {what}{WHAT_TO_DO}", content)
        goes_on_when_told(scene, exporter, made=what is not ANOTHER)


def drop_schema(server: Cluster, name: str) -> bool:
    """Try to drop all tables, which may end in a deadlock with who uses them."""
    with server.connect(name) as connection, suppress(psycopg.errors.DeadlockDetected):
        connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        return True
    return False


@pytest.mark.parametrize("how", ["schema dropped", "database made anew", "another's tables"])
def test_a_database_that_is_lost(simulated: Simulated, server: Cluster, tmp_path: Path, how: str) -> None:
    name = server.create()
    scene = Scene(simulated, tmp_path, server.url(name))
    with serving(scene.flag, env=scene.env) as exporter:
        until(lambda: is_up(exporter), "the store is used")
        assert scene.heal("pause", "--reason", "maintenance").code == 0
        until(lambda: "paused" in blocked(exporter), "it is paused")
        if how == "database made anew":
            with server.connect("postgres") as connection:
                connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())
                connection.execute(f'CREATE DATABASE "{name}"'.encode())
        else:
            until(lambda: drop_schema(server, name), "the schema is dropped")
        if how == "another's tables":
            open_store(scene.url).close()

        def content() -> object:
            with server.connect(name) as connection:
                tables = connection.execute("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace")
                written = "SELECT sum(n_tup_ins + n_tup_upd) FROM pg_stat_user_tables"
                return sorted(tables.fetchall()), connection.execute(written).fetchone()

        shown = scene.url.replace("pg-canary-Zq7", "<secret>")
        what = ANOTHER if how == "another's tables" else EMPTY
        is_down_and_harmless(scene, exporter, f"the store at {shown} {what}{WHAT_TO_DO}", content)
        goes_on_when_told(scene, exporter, made=what is EMPTY)


def test_the_store_that_comes_back_is_used_with_its_pause(simulated: Simulated, tmp_path: Path) -> None:
    file = tmp_path / "store.db"
    scene = Scene(simulated, tmp_path, f"sqlite:///{file}")
    with serving(scene.flag, env=scene.env) as exporter:
        until(lambda: is_up(exporter), "the store is used")
        assert scene.heal("pause", "--reason", "maintenance").code == 0
        until(lambda: "paused" in blocked(exporter), "it is paused")
        file.rename(tmp_path / "elsewhere.db")
        until(lambda: not is_up(exporter), "the store is down")
        scene.break_some(1)
        scene.after_polls(4)
        (tmp_path / "elsewhere.db").rename(file)
        until(lambda: is_up(exporter), "the store is used again")
        scene.after_polls(HOLD_OFF + 4)
        assert "maintenance" in blocked(exporter)["paused"]
        assert scene.sent() == []


def test_a_restart_on_an_empty_store_is_a_first_start(simulated: Simulated, tmp_path: Path) -> None:
    file = tmp_path / "store.db"
    scene = Scene(simulated, tmp_path, f"sqlite:///{file}")
    with serving(scene.flag, env=scene.env) as exporter:
        until(lambda: is_up(exporter), "the store is used")
        os.truncate(file, 0)
        until(lambda: not is_up(exporter), "the store is down")
        scene.break_some(1)
        scene.after_polls(4)
        assert scene.sent() == []
    polls = scene.polls()
    with serving(scene.flag, env=scene.env) as exporter:
        until(scene.sent, "it is healed", 40)
        assert scene.polls() >= polls + HOLD_OFF
        assert "a new store was made" in exporter.process.err
