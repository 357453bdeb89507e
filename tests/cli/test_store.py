"""Which store a command speaks to: the daemon's, by whatever folder it is started from, and never one that it made."""

from __future__ import annotations

import json
import re
import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from exporter.model import Outcome
from tests.support.http import ask
from tests.support.ledgers import NUMBER, ended, open_store
from tests.support.postgres import cluster
from tests.support.processes import KEY, PRODUCT, program, run, serving, simulating, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from exporter.store.operator import Action
    from tests.support.processes import Finished, Running

pytestmark = pytest.mark.e2e

FILE = "voicelink-exporter.db"
COMMANDS = [
    ("plan",),
    ("run", NUMBER, "--yes"),
    ("history",),
    ("release", NUMBER, "--reason=why"),
    ("pause", "--reason=why"),
    ("resume",),
]
HOW_TO_NAME_ANOTHER = (
    "; a daemon makes it when it starts. If the daemon's is elsewhere, name it: with --config.file, with store.url "
    "in the configuration, or with VOICELINK_STORE_URL. If it was here and a daemon runs, it is lost, with every pause "
    "and quarantine in it: bring it back, or say heal resume --new-store\n"
)


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """Return the URL of a PostgreSQL database in which there is nothing."""
    with cluster() as server:
        yield server.url(server.create())


def heal(*words: str, **env: str) -> Finished:
    """Run a command in an empty folder."""
    return run("heal", *words, "--log.level=error", env={"VOCOBASE_API_KEY": KEY, **env})


def actions(url: str) -> list[Action]:
    store = open_store(url)
    found = store.actions()
    store.close()
    return found


class TestNoStore:
    @pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
    def test_no_command_makes_the_file(self, words: tuple[str, ...], tmp_path: Path) -> None:
        state = tmp_path / "state"
        done = heal(*words, STATE_DIRECTORY=str(state))
        assert (done.code, done.out) == (2, "")
        assert done.err == f"voicelink-exporter: there is no store at {state}/{FILE}{HOW_TO_NAME_ANOTHER}"
        assert not state.exists()

    @pytest.mark.parametrize("words", [COMMANDS[0], COMMANDS[4]], ids=lambda words: words[0])
    def test_no_command_fills_an_empty_file(self, words: tuple[str, ...], tmp_path: Path) -> None:
        (tmp_path / FILE).touch()
        done = heal(*words, STATE_DIRECTORY=str(tmp_path))
        assert (done.code, done.out) == (2, "")
        assert f"there is no store at {tmp_path}/{FILE}; " in done.err
        assert [(each.name, each.stat().st_size) for each in tmp_path.iterdir()] == [(FILE, 0)]

    @pytest.mark.parametrize("words", [COMMANDS[0], COMMANDS[4]], ids=lambda words: words[0])
    def test_no_command_makes_the_tables(self, words: tuple[str, ...], database: str) -> None:
        done = heal(*words, VOICELINK_STORE_URL=database)
        shown = database.replace("pg-canary-Zq7", "<secret>")
        assert (done.code, done.out) == (2, "")
        assert done.err == f"voicelink-exporter: there is no store at {shown}{HOW_TO_NAME_ANOTHER}"


class TestAnotherFolder:
    def test_a_command_speaks_to_the_store_of_the_daemon(self, tmp_path: Path) -> None:
        """As 0.1.0 did not: a pause from another folder went into a store that nobody else used."""
        home = {"HOME": str(tmp_path), "STATE_DIRECTORY": "", "XDG_STATE_HOME": ""}
        file = tmp_path / ".local/state/voicelink-exporter" / FILE
        with simulating("--dids=2") as simulator, serving(env={**simulator.env, **home}) as daemon:
            until(lambda: "a new store was made" in daemon.process.err, "the daemon has its store")
            paused = heal("pause", "--reason=lunch", **home)
        assert (paused.code, paused.err) == (0, f"store: {file}\n")
        assert f"store={file}" in daemon.process.err
        assert [(each.action, each.reason) for each in actions(f"sqlite:///{file}")] == [("pause", "lunch")]

    def test_a_path_in_a_file_is_relative_to_the_file(self, tmp_path: Path) -> None:
        (tmp_path / "etc").mkdir()
        file = tmp_path / "etc" / "config.yml"
        file.write_text("store: {url: 'sqlite:///ours.db'}\n")
        open_store(f"sqlite:///{tmp_path}/etc/ours.db").close()
        assert heal("history", f"--config.file={file}").err == f"store: {tmp_path}/etc/ours.db\n"

    def test_check_config_shows_where_the_store_is(self, tmp_path: Path) -> None:
        env = {"VOCOBASE_API_KEY": KEY, "STATE_DIRECTORY": str(tmp_path)}
        done = run("check-config", env=env)
        assert (done.code, done.out) == (0, f"the configuration is valid\nstore: {tmp_path}/{FILE}\n")


class TestStoreOfAnotherVersion:
    def test_an_older_one_is_left_to_the_daemon(self, tmp_path: Path) -> None:
        url = f"sqlite:///{tmp_path}/{FILE}"
        open_store(url).close()
        with closing(sqlite3.connect(tmp_path / FILE)) as old:
            old.execute("UPDATE alembic_version SET version_num = '0001'")
            old.commit()
        done = heal("pause", "--reason=why", STATE_DIRECTORY=str(tmp_path))
        assert (done.code, done.out) == (2, "")
        assert f"the store at {tmp_path}/{FILE} has schema 0001, which an older version" in done.err

    @staticmethod
    def beside_an_old_one(home: Path, *words: str, **env: str) -> AbstractContextManager[Running]:
        """Run a command in a folder in which 0.1.0 left its store."""
        given = {"HOME": str(home), "STATE_DIRECTORY": "", "XDG_STATE_HOME": "", "VOCOBASE_API_KEY": KEY, **env}
        script = f'touch {FILE}; exec "$@"'
        return program("env", *(f"{name}={value}" for name, value in given.items()), "sh", "-c", script, "sh", *words)

    def test_one_in_the_working_directory_is_not_forgotten(self, tmp_path: Path) -> None:
        with (
            simulating("--dids=2") as simulator,
            self.beside_an_old_one(
                tmp_path, *PRODUCT, "serve", **simulator.env, VOICELINK_HEAL_MODE="enforce"
            ) as daemon,
        ):
            port = int(daemon.until_said(r"msg=started .*addresses=\"?127\.0\.0\.1:(\d+)")[1])
            daemon.until_said(
                r'msg="store failed" reason=StorePlaceError error="/\S+ is a store of version 0\.1\.0, and'
            )
            until(lambda: "\nvoicelink_did_ready{" in ask(port, "/metrics").text, "it monitors")
            targets = json.loads(ask(port, "/api/v1/targets").text)["data"]
        ((guard,),) = (target["healing"]["guards"] for target in targets)
        assert guard["guard"] == "store"
        assert "to keep it, with its pauses and quarantines, put store: {url: sqlite:///" in guard["reason"]
        assert list(tmp_path.iterdir()) == []

    def test_nor_by_a_command(self, tmp_path: Path) -> None:
        with self.beside_an_old_one(tmp_path, *PRODUCT, "heal", "pause", "--reason=why") as command:
            assert command.wait() == 2
            assert "is a store of version 0.1.0, and this version looks for it at " in command.err


class TestNoPlace:
    def test_a_daemon_that_can_keep_nothing_monitors_and_says_what_to_set(self) -> None:
        with simulating("--dids=2") as simulator:
            env = {**simulator.env, "STATE_DIRECTORY": "/proc/none", "VOICELINK_HEAL_MODE": "enforce"}
            with serving(env=env) as daemon:
                daemon.until_ready()
                daemon.process.until_said(
                    r'msg="store failed" reason=StorePlaceError error="the folder of the store, /proc/none, '
                    r"can't be made: No such file or directory; name one with store\.url in the configuration, or with "
                    r"VOICELINK_STORE_URL"
                )
                text = daemon.scrape()
        assert "\nvoicelink_store_up 0.0\n" in text
        assert text.count("\nvoicelink_did_ready{") == 2


class TestNewStore:
    def test_it_makes_one_where_there_is_none(self, tmp_path: Path) -> None:
        state = tmp_path / "state"
        done = heal("resume", "--new-store", "--reason=new disk", STATE_DIRECTORY=str(state))
        assert (done.code, done.err) == (0, f"store: {state}/{FILE}\n")
        assert done.out == (
            "a new store was made: a daemon that had opened another one goes on with it within 10 seconds, as after a "
            "start\nwhat only that other one knew, as pauses, quarantines and counts, is gone\n"
        )
        done_by_hand = [(each.action, each.reason) for each in actions(f"sqlite:///{state}/{FILE}")]
        assert done_by_hand == [("resume", "new disk"), ("new_store", "new disk")]

    def test_it_takes_one_that_is_there_as_it_is(self, tmp_path: Path) -> None:
        url = f"sqlite:///{tmp_path}/{FILE}"
        store = open_store(url)
        ended(store, Outcome.SUCCEEDED)
        store.close()
        done = heal("resume", "--new-store", STATE_DIRECTORY=str(tmp_path))
        assert done.code == 0
        assert done.out.startswith("the store that is there now is to be used: ")
        assert len(json.loads(heal("history", "--output=json", STATE_DIRECTORY=str(tmp_path)).out)) == 1
        assert [each.action for each in actions(url)] == ["resume", "new_store"]


class TestHistory:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> str:
        """Return the folder of a store with three attempts, two days old and new, and with what people did."""
        store = open_store(f"sqlite:///{tmp_path}/{FILE}")
        now = time.time()
        ended(store, Outcome.FAILED, NUMBER, now=now - 2 * 86400)
        ended(store, Outcome.SUCCEEDED, NUMBER, now=now - 60)
        ended(store, Outcome.SUCCEEDED, "+918011223345", now=now - 30)
        store.ledger.pause("carrier maintenance", now - 20)
        store.close()
        return str(tmp_path)

    @pytest.mark.parametrize(
        ("words", "ids"),
        [
            ((), [3, 2, 1]),
            ((NUMBER,), [2, 1]),
            (("--since=24h",), [3, 2]),
            (("--outcome=failed",), [1]),
            (("--outcome=failed", "--since=1d"), []),
            (("--limit=1",), [3]),
            (("--limit=1", NUMBER, "--outcome=succeeded"), [2]),
        ],
    )
    def test_it_can_be_asked_for_some(self, folder: str, words: tuple[str, ...], ids: list[int]) -> None:
        done = heal("history", "--output=json", *words, STATE_DIRECTORY=folder)
        assert (done.code, done.err) == (0, f"store: {folder}/{FILE}\n")
        assert [each["id"] for each in json.loads(done.out)] == ids

    def test_the_table_shows_what_was_done_by_hand(self, folder: str) -> None:
        shown = heal("history", STATE_DIRECTORY=folder).out
        assert re.search(r"at +┃ by hand", shown)
        assert re.search(r"│ pause +│ +│ carrier maintenance", shown)
        assert "by hand" not in heal("history", "--outcome=failed", STATE_DIRECTORY=folder).out

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (("--since=yesterday",), "--since: 'yesterday' is not a duration; write one as 30s, 5m or 1h30m\n"),
            (("--limit=0",), "argument --limit: has to be a whole number from 1\n"),
            (("--limit=many",), "argument --limit: has to be a whole number from 1\n"),
            (("--outcome=fine",), "argument --outcome: invalid choice: 'fine'"),
        ],
    )
    def test_what_cannot_be_asked_for_is_refused(self, folder: str, words: tuple[str, ...], said: str) -> None:
        done = heal("history", *words, STATE_DIRECTORY=folder)
        assert (done.code, done.out) == (2, "")
        assert said in done.err


@pytest.mark.parametrize(
    "command", [("history",), ("release", NUMBER, "--reason=why"), ("pause", "--reason=why"), ("resume",)]
)
def test_commands_that_ask_the_api_nothing_need_no_key(tmp_path: Path, command: tuple[str, ...]) -> None:
    store = open_store(f"sqlite:///{tmp_path / FILE}")
    store.close()
    config = tmp_path / "voicelink-exporter.yml"
    config.write_text(f"accounts: [{{api_key_env: NO_SUCH_KEY}}]\nstore: {{url: 'sqlite:///{FILE}'}}\n")
    done = run("heal", *command, f"--config.file={config}")
    assert done.code == (1 if command[0] == "release" else 0), done
