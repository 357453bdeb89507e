"""A database that fails says so in a sentence, and is used again as soon as it answers, without a restart."""

from __future__ import annotations

import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy import event

from exporter.errors import StoreError
from exporter.store.engine import BUSY, Database, connect, migrate, transaction
from exporter.store.ledger import Ledger
from exporter.store.records import Transition
from tests.support.ledgers import (
    ACCOUNT,
    CONNECTION,
    HOUR,
    NOT_SENT,
    NOW,
    NUMBER,
    allow,
    claimed,
    open_store,
    row,
    sent,
    verifying,
    wish,
)
from tests.support.postgres import PASSWORD, cluster

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from exporter.store import Store
    from exporter.store.records import Attempt
    from tests.support.postgres import Cluster

    Operation = Callable[[Store], object]

OTHER = "+918011223345"
OPERATIONS: dict[str, Operation] = {
    "open": lambda store: store.open(),
    "account": lambda store: store.ledger.account(ACCOUNT, NOW),
    "records": lambda store: store.ledger.records(NOW),
    "history": lambda store: store.ledger.history(),
    "claim": lambda store: store.ledger.claim(wish(OTHER), allow, NOW),
    "alive": lambda store: store.ledger.heartbeat(NOW),
    "pause": lambda store: store.ledger.pause("reason", NOW),
    "resume": lambda store: store.ledger.resume(NOW),
    "unlatch": lambda store: store.ledger.unlatch(ACCOUNT, "print"),
    "pause_key": lambda store: store.ledger.pause_key(ACCOUNT, 60.0, NOW),
    "release": lambda store: store.ledger.release(NUMBER, "reason", NOW),
    "prune": lambda store: store.ledger.prune(NOW),
    "actions": lambda store: store.actions(),
    "load": lambda store: store.history.load(ACCOUNT, CONNECTION),
    "write": lambda store: store.history.write(
        ACCOUNT, CONNECTION, [Transition(ACCOUNT, CONNECTION, NUMBER, NOW, None, "READY")]
    ),
    "of": lambda store: store.history.of(NUMBER),
    "prune changes": lambda store: store.history.prune(NOW),
}


def refusals(store: Store) -> set[str]:
    """Return what every operation says; fail where one does not fail."""
    said = set()
    for name, operation in OPERATIONS.items():
        with pytest.raises(StoreError) as refused:
            operation(store)
        assert PASSWORD not in str(refused.value), name
        assert "\n" not in str(refused.value), name
        said.add(str(refused.value))
    return said


def works(store: Store) -> None:
    for operation in OPERATIONS.values():
        operation(store)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "folder").mkdir()
    return tmp_path / "folder" / "store.db"


@pytest.fixture
def kept(file: Path) -> Iterator[Store]:
    """Return a store in a file that a test may do anything to."""
    store = open_store(f"sqlite:///{file}")
    yield store
    store.close()


# Both databases


@contextmanager
def another_holds_the_lock(url: str) -> Iterator[None]:
    engine = connect(url)
    with transaction(engine) as connection:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("LOCK TABLE heal_credentials")
        yield
    engine.dispose()


def test_a_lock_that_somebody_holds_for_too_long_is_given_up_on(store: Store, url: str) -> None:
    started = time.monotonic()
    with another_holds_the_lock(url), pytest.raises(StoreError, match=r"does not answer: .*lock"):
        store.ledger.claim(wish(), allow, NOW)
    assert BUSY - 1 < time.monotonic() - started < 2 * BUSY + 2
    claimed(store)


def test_a_lock_that_somebody_holds_for_a_moment_is_waited_for(store: Store, url: str) -> None:
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with another_holds_the_lock(url):
            held.set()
            done.wait(0.5)

    with ThreadPoolExecutor(1) as thread:
        holding = thread.submit(hold)
        assert held.wait(BUSY)
        claimed(store)
        holding.result()


def test_what_fails_in_the_middle_leaves_nothing(store: Store) -> None:
    attempt = verifying(store)

    def broken(*_: object) -> Any:  # noqa: ANN401 - never returns
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.ledger.answered(sent(store, OTHER), NOT_SENT, broken, NOW)
    assert row(store, attempt).open
    assert [each.open for each in store.ledger.history(OTHER)] == [True]
    with pytest.raises(ZeroDivisionError):
        store.ledger.claim(wish("+918011223346"), broken, NOW)
    works(store)


def test_a_text_that_is_no_unicode_is_refused(store: Store) -> None:
    with pytest.raises(StoreError, match=r"^the store at .+ refuses: a text that is no Unicode$"):
        store.ledger.pause("half a letter: \udcc3", NOW)
    works(store)


# SQLite


def test_a_file_that_was_removed_fails_until_it_is_back(kept: Store, file: Path) -> None:
    works(kept)
    file.rename(file.with_name("moved.db"))
    (said,) = refusals(kept)
    assert said.startswith(f"the store at {file} is gone; put back the one that was there, or, ")
    assert not file.exists()
    file.with_name("moved.db").rename(file)
    works(kept)


def test_a_folder_that_is_gone_fails_until_it_is_back(kept: Store, file: Path) -> None:
    file.parent.rename(file.parent.with_name("moved"))
    (said,) = refusals(kept)
    assert said.startswith(f"the store at {file} is gone; ")
    file.parent.with_name("moved").rename(file.parent)
    works(kept)


def test_a_file_that_is_no_database_fails(kept: Store, file: Path) -> None:
    file.write_bytes(b"what is this? " * 1000)
    assert refusals(kept) == {f"the store at {file} does not answer: file is not a database"}


def test_a_file_that_cannot_be_written_can_be_read_and_is_not_open(kept: Store, file: Path) -> None:
    attempt = verifying(kept)
    database = Database(f"sqlite:///file:{file}?mode=ro&uri=true")
    with pytest.raises(StoreError, match="does not answer: attempt to write a readonly database"):
        database.open()
    reader = Ledger(database, "reader", HOUR)
    assert [each.id for each in reader.history()] == [attempt.id]
    assert len(reader.open_attempts()) == 1
    with pytest.raises(StoreError, match="does not answer: attempt to write a readonly database"):
        reader.claim(wish(OTHER), allow, NOW)
    works(kept)


def test_a_new_file_that_cannot_be_written_fails(tmp_path: Path) -> None:
    (tmp_path / "store.db").touch()
    with pytest.raises(StoreError, match="does not answer: attempt to write a readonly database"):
        migrate(connect(f"sqlite:///file:{tmp_path}/store.db?mode=ro&uri=true"))


def test_a_full_disk_fails_and_writing_goes_on_when_there_is_room(kept: Store) -> None:
    attempt = sent(kept)
    room = 0

    def limit(connection: sqlite3.Connection, _: object) -> None:
        connection.execute(f"PRAGMA max_page_count={room or 1_000_000}")  # of a full disk SQLite says the same

    event.listen(kept._database.engine, "connect", limit)  # noqa: SLF001 - there is no disk to fill
    room = 1  # it never makes a file smaller: it is full as it is
    filled: list[Attempt] = []

    def fill() -> None:
        for index in range(1000):
            filled.extend([claimed(kept, f"+9180{index:08}")])

    with pytest.raises(StoreError, match="does not answer: database or disk is full"):
        fill()
    assert kept.ledger.history() == [*reversed(filled), row(kept, attempt)]  # whole rows, and reading goes on
    assert row(kept, attempt).open
    room = 0
    claimed(kept, "+918099999999")
    works(kept)


# PostgreSQL


@pytest.fixture
def server() -> Iterator[Cluster]:
    """Return a server that a test may do anything to."""
    with cluster() as server:
        yield server


@pytest.mark.e2e
def test_a_server_that_restarts_fails_and_is_used_again(server: Cluster) -> None:
    store = open_store(server.url(server.create()))
    attempt = sent(store)
    works(store)
    server.stop()
    (said,) = {text.partition(" port ")[2].partition(" failed: ")[2] for text in refusals(store)}
    assert said == "Connection refused"
    server.start()
    works(store)  # with the connections of before: nobody opened it again
    assert row(store, attempt).open
    server.stop(crash=True)
    server.start()
    works(store)
    assert row(store, attempt).open
    store.close()


@pytest.mark.e2e
def test_a_server_that_is_stopped_in_the_middle_of_a_transaction_keeps_nothing_of_it(server: Cluster) -> None:
    store = open_store(server.url(server.create()))

    def judge(*_: object) -> tuple[str, ...]:
        server.stop(crash=True)
        return ()

    with pytest.raises(StoreError, match=r"^the store at postgresql.* does not answer: "):
        store.ledger.claim(wish(), judge, NOW)
    server.start()
    assert store.ledger.history() == []
    claimed(store)
    store.close()


@pytest.mark.e2e
def test_a_database_that_was_dropped_fails_and_is_not_filled_anew(server: Cluster) -> None:
    name = server.create()
    store = open_store(server.url(name))
    works(store)
    with server.connect("postgres") as connection:
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())
        assert all(f'database "{name}" does not exist' in said for said in refusals(store))
        connection.execute(f'CREATE DATABASE "{name}"'.encode())
    (said,) = refusals(store)
    assert "has no identity: it was emptied, or another one was put there; put back the one that was there" in said
    with server.connect(name) as connection:
        assert connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)
    store.close()


@pytest.mark.e2e
def test_a_wrong_password_is_said_without_the_password(server: Cluster) -> None:
    store = open_store(server.url(server.create()))
    wrong = server.url("postgres", password="wrong-canary-Xy1")
    said = r"^the store at postgresql.* does not answer: .*password authentication failed"
    with pytest.raises(StoreError, match=said) as refused:
        open_store(wrong)
    error: BaseException | None = refused.value
    while error:
        assert "canary" not in f"{error} {error!r}"
        error = error.__cause__
    store.close()


@pytest.mark.e2e
def test_a_connection_whose_other_side_vanishes_is_noticed_without_a_word_from_it(server: Cluster) -> None:
    store = open_store(server.url(server.create()))
    with transaction(store._database.engine) as connection:  # noqa: SLF001 - what it tells the driver
        driver = connection.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        told = driver.info.get_parameters()
    assert {name: told[name] for name in told if name.startswith(("keepalives", "tcp_user"))} == {
        "keepalives_idle": "5",
        "keepalives_interval": "5",
        "keepalives_count": "2",
        "tcp_user_timeout": "10000",
    }
    store.close()


@pytest.mark.e2e
def test_a_statement_that_takes_too_long_is_given_up_on(server: Cluster) -> None:
    store = open_store(server.url(server.create()))
    started = time.monotonic()
    with (
        pytest.raises(StoreError, match="canceling statement due to statement timeout"),
        transaction(store._database.engine) as connection,  # noqa: SLF001 - nothing of the product takes as long
    ):
        connection.exec_driver_sql("SELECT pg_sleep(60)")
    assert time.monotonic() - started < 2 * BUSY
    works(store)
    store.close()


@pytest.mark.e2e
def test_a_server_that_hangs_is_used_again_when_it_goes_on(server: Cluster) -> None:
    store = open_store(server.url(server.create()))
    works(store)
    server.send(signal.SIGSTOP)
    threading.Timer(1.0, server.send, (signal.SIGCONT,)).start()
    claimed(store)
    assert len(store.ledger.history(NUMBER)) == 1
    store.close()
