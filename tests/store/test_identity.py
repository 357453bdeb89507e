"""A process uses the store that it opened and no other, until a person says so; nothing is made anew by itself."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import create_engine, inspect, text

from exporter.errors import NoStoreError, StoreError, StorePlaceError, StoreReplacedError, StoreVersionError
from exporter.store.engine import Database
from exporter.store.identity import accept, read_identity
from exporter.store.operator import Action, actions, forget_actions, record_action
from exporter.store.records import Opened
from tests.support.clock import ManualClock
from tests.support.ledgers import NUMBER, open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.postgres import Cluster

    Opening = Callable[[], Database]

NOW = 1_800_000_000.0
WHAT_TO_DO = (
    "; put back the one that was there, or, to go on without its pauses, quarantines and counts, run: "
    "voicelink-exporter heal resume --new-store"
)


class Hands(ManualClock):
    """A clock whose wall time can be set without time going on, and which moves without anybody waiting."""

    def __init__(self) -> None:
        super().__init__(NOW)

    def set(self, seconds: float) -> None:
        self._start += seconds

    def pass_by(self, seconds: float) -> None:
        self._elapsed += seconds


@pytest.fixture
def clock() -> Hands:
    return Hands()


@pytest.fixture
def opening(url: str, clock: Hands) -> Iterator[Opening]:
    """Return a way to have one more process, which has opened nothing yet."""
    databases: list[Database] = []

    def another() -> Database:
        databases.append(Database(url, clock))
        return databases[-1]

    yield another
    for each in databases:
        each.close()


@pytest.fixture
def database(opening: Opening) -> Database:
    database = opening()
    assert database.open() is Opened.MADE
    return database


def identity_of(database: Database) -> str:
    with database.transaction(reading=True) as connection:
        found = read_identity(connection)
    assert found
    return found.id


def wipe(url: str) -> None:
    """Do what empties a store while processes use it: drop its tables, or begin its file anew."""
    if url.startswith("sqlite"):
        os.truncate(url.removeprefix("sqlite:///"), 0)
        return
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()


def tables(url: str) -> list[str]:
    engine = create_engine(url)
    names = inspect(engine).get_table_names()
    engine.dispose()
    return names


def accepted(database: Database, at: float) -> None:
    """Say that a store is to be used, as `heal resume --new-store` does."""
    database.open()
    with database.transaction() as connection:
        accept(connection, at)


class TestTheSameStore:
    def test_each_process_knows_it_by_the_same_identity(self, database: Database, opening: Opening) -> None:
        other = opening()
        assert other.open() is Opened.FOUND
        assert identity_of(other) == identity_of(database)

    def test_two_stores_have_two(self, database: Database, tmp_path: Path) -> None:
        other = Database(f"sqlite:///{tmp_path}/other.db")
        other.open()
        assert identity_of(other) != identity_of(database)

    def test_opening_it_again_changes_nothing(self, database: Database) -> None:
        before = identity_of(database)
        assert database.open() is Opened.FOUND
        assert identity_of(database) == before

    def test_one_that_lost_its_identity_gets_one_at_the_next_start(self, database: Database, opening: Opening) -> None:
        with database.transaction() as connection:
            connection.execute(text("DELETE FROM store_identity"))
        with pytest.raises(StoreReplacedError, match="has no identity"), database.transaction():
            pass
        opening().open()
        with pytest.raises(StoreReplacedError, match="is another one"), database.transaction():
            pass

    def test_one_that_fails_in_another_way_is_not_said_to_be_lost(self, database: Database) -> None:
        with database.transaction() as connection:
            connection.execute(text("ALTER TABLE store_identity RENAME COLUMN accepted_at TO agreed_at"))
        with pytest.raises(StoreError, match=r"^the store at .+ does not answer: .*accepted_at") as failed:
            database.open()
        assert type(failed.value) is StoreError


class TestAStoreThatWasEmptied:
    @pytest.mark.parametrize("reading", [False, True])
    def test_is_down_and_stays_empty(self, database: Database, url: str, *, reading: bool) -> None:
        wipe(url)
        for _ in range(2):
            with pytest.raises(StoreReplacedError) as lost, database.transaction(reading=reading):
                pytest.fail("a transaction on it")
            what = "has no identity: it was emptied, or another one was put there"
            assert str(lost.value) == f"the store at {database.name} {what}{WHAT_TO_DO}"
            with pytest.raises(StoreReplacedError, match="has no identity"):
                database.open()
        assert tables(url) == []
        if url.startswith("sqlite"):
            assert os.stat(url.removeprefix("sqlite:///")).st_size == 0  # noqa: PTH116

    def test_is_a_first_start_for_a_process_that_starts_then(
        self, database: Database, opening: Opening, url: str
    ) -> None:
        wipe(url)
        fresh = opening()
        assert fresh.open() is Opened.MADE
        assert identity_of(fresh)
        with pytest.raises(StoreReplacedError, match="is another one than this process opened"):
            database.open()

    def test_what_a_transaction_would_have_written_is_not_there(self, database: Database, url: str) -> None:
        wipe(url)
        with pytest.raises(StoreReplacedError), database.transaction() as connection:
            record_action(connection, NOW, "pause", None, "")
        assert tables(url) == []


class TestAnotherStore:
    def test_is_down_and_is_not_written(self, database: Database, opening: Opening, url: str) -> None:
        wipe(url)
        other = opening()
        other.open()
        with pytest.raises(StoreReplacedError) as lost, database.transaction() as connection:
            record_action(connection, NOW, "pause", None, "")
        assert str(lost.value) == f"the store at {database.name} is another one than this process opened{WHAT_TO_DO}"
        assert actions(other) == []

    def test_is_used_once_a_person_has_accepted_it(
        self, database: Database, opening: Opening, url: str, clock: Hands
    ) -> None:
        before = identity_of(database)
        wipe(url)
        clock.pass_by(10)
        other = opening()
        accepted(other, clock.time())
        with pytest.raises(StoreReplacedError), database.transaction():
            pytest.fail("a transaction before it was opened anew")
        clock.pass_by(60)
        assert database.open() is Opened.ANOTHER
        assert identity_of(database) == identity_of(other) != before
        assert database.open() is Opened.FOUND

    def test_is_not_used_where_the_person_meant_an_earlier_loss(
        self, database: Database, opening: Opening, url: str, clock: Hands
    ) -> None:
        other = opening()
        wipe(url)
        accepted(other, clock.time() - 1)
        clock.pass_by(3600)
        with pytest.raises(StoreReplacedError):
            database.open()

    def test_is_not_used_where_it_was_accepted_while_the_own_one_was_there(
        self, database: Database, opening: Opening, url: str, clock: Hands
    ) -> None:
        at = clock.time() + 10
        clock.pass_by(20)
        with database.transaction(reading=True):
            pass
        wipe(url)
        accepted(opening(), at)
        clock.pass_by(20)
        with pytest.raises(StoreReplacedError):
            database.open()

    @pytest.mark.parametrize("hours", [-6, 6])
    def test_a_clock_that_is_set_meanwhile_takes_the_word_from_nobody_who_gives_it_anew(
        self, database: Database, opening: Opening, url: str, clock: Hands, hours: int
    ) -> None:
        wipe(url)
        clock.pass_by(10)
        other = opening()
        accepted(other, clock.time())
        clock.set(hours * 3600)
        clock.pass_by(10)
        if hours > 0:  # as old as six hours: it is not believed, since nobody knows which clock is right
            with pytest.raises(StoreReplacedError):
                database.open()
            accepted(other, clock.time())
        assert database.open() is Opened.ANOTHER


class TestAFile:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        (tmp_path / "folder").mkdir()
        return tmp_path / "folder" / "store.db"

    @pytest.fixture
    def url(self, file: Path) -> str:
        return f"sqlite:///{file}"

    def test_that_comes_back_is_simply_used(self, file: Path, database: Database) -> None:
        before = identity_of(database)
        kept = file.read_bytes()
        os.truncate(file, 0)
        with pytest.raises(StoreReplacedError):
            database.open()
        file.write_bytes(kept)
        assert database.open() is Opened.FOUND
        assert identity_of(database) == before

    def test_that_is_empty_is_no_store_to_attach_to(self, file: Path, opening: Opening) -> None:
        file.touch()
        with pytest.raises(NoStoreError):
            opening().attach()
        assert file.stat().st_size == 0

    def test_that_is_gone_is_down_and_not_made_anew(self, file: Path, database: Database) -> None:
        file.unlink()
        for operation in (database.open, lambda: actions(database)):
            with pytest.raises(StoreReplacedError) as lost:
                operation()
            assert str(lost.value) == f"the store at {file} is gone{WHAT_TO_DO}"
        assert list(file.parent.iterdir()) == []

    def test_that_is_gone_with_its_folder_is_down(self, file: Path, database: Database) -> None:
        shutil.rmtree(file.parent)
        with pytest.raises(StoreReplacedError, match="is gone"):
            database.open()
        assert not file.parent.exists()

    def test_that_another_took_the_place_of_is_down(self, file: Path, database: Database, tmp_path: Path) -> None:
        other = Database(f"sqlite:///{tmp_path}/other.db")
        other.open()
        other.close()
        (tmp_path / "other.db").replace(file)
        with pytest.raises(StoreReplacedError, match="is another one than this process opened"):
            database.open()

    def test_of_the_first_version_is_down_and_not_migrated(self, file: Path, database: Database) -> None:
        file.unlink()
        with closing(sqlite3.connect(file)) as old:
            old.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
            old.execute("INSERT INTO alembic_version VALUES ('0001')")
            old.commit()
        content = file.read_bytes()
        with pytest.raises(StoreReplacedError, match="has no identity"):
            database.open()
        assert file.read_bytes() == content

    def test_that_holds_something_else_says_so(self, file: Path, database: Database) -> None:
        file.write_bytes(b"what is this? " * 1000)
        with pytest.raises(StoreError) as refused:
            database.open()
        assert str(refused.value) == f"the store at {file} does not answer: file is not a database"

    def test_is_made_with_its_folder_for_the_user_alone(self, tmp_path: Path) -> None:
        folder = tmp_path / "state" / "voicelink-exporter"
        database = Database(f"sqlite:///{folder}/store.db")
        assert not folder.exists()
        database.open()
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700

    def test_that_cannot_be_made_says_what_to_set(self, tmp_path: Path) -> None:
        (tmp_path / "state").touch()
        with pytest.raises(StorePlaceError) as refused:
            Database(f"sqlite:///{tmp_path}/state/store.db").open()
        assert str(refused.value) == (
            f"the folder of the store, {tmp_path}/state, can't be made: File exists; "
            "name one with store.url in the configuration, or with VOICELINK_STORE_URL"
        )

    def test_in_a_folder_that_cannot_be_written_says_what_to_set(self) -> None:
        with pytest.raises(StorePlaceError) as refused:
            Database("sqlite:////proc/self/store.db").open()
        assert str(refused.value) == (
            "the store at /proc/self/store.db does not answer: unable to open database file; "
            "name one with store.url in the configuration, or with VOICELINK_STORE_URL"
        )

    def test_of_an_odd_name_is_the_same_one_each_time(self, tmp_path: Path) -> None:
        odd = tmp_path / "100% of #1 & more"
        database = Database(f"sqlite:///{odd}/ä store.db")
        database.open()
        assert database.open() is Opened.FOUND
        assert (odd / "ä store.db").exists()


class TestAttaching:
    def test_to_a_store_that_is_there(self, database: Database, opening: Opening) -> None:
        other = opening()
        other.attach()
        assert identity_of(other) == identity_of(database)

    @pytest.mark.usefixtures("database")
    def test_knows_the_store_from_then_on(self, opening: Opening, url: str) -> None:
        other = opening()
        other.attach()
        wipe(url)
        with pytest.raises(StoreReplacedError):
            identity_of(other)

    def test_to_nothing_makes_nothing(self, opening: Opening, url: str, tmp_path: Path) -> None:
        other = opening()
        with pytest.raises(NoStoreError) as refused:
            other.attach()
        assert str(refused.value) == f"there is no store at {other.name}"
        assert list(tmp_path.iterdir()) == []
        assert url.startswith("sqlite") or tables(url) == []

    @pytest.mark.parametrize(
        ("schema", "sentence"),
        [
            (
                "0001",
                (
                    "has schema 0001, which an older version of voicelink-exporter wrote; the daemon of this version "
                    "brings it up to date when it starts"
                ),
            ),
            ("9999", "has schema 9999, which a newer version of voicelink-exporter wrote; upgrade this one"),
        ],
    )
    def test_to_the_store_of_another_version_changes_nothing(
        self, database: Database, opening: Opening, schema: str, sentence: str
    ) -> None:
        with database.transaction() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = :schema"), {"schema": schema})
        with pytest.raises(StoreVersionError, match=f"{sentence}$"):
            opening().attach()
        with database.transaction() as connection:
            assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one() == schema

    @pytest.mark.e2e
    def test_names_a_url_without_its_password(self, postgres: Cluster) -> None:
        url = postgres.url(postgres.create())
        database = Database(url)
        with pytest.raises(NoStoreError) as refused:
            database.attach()
        database.close()
        assert str(refused.value) == "there is no store at " + url.replace("pg-canary-Zq7", "<secret>")


class TestWhatPeopleDid:
    def test_is_kept_newest_first(self, database: Database) -> None:
        with database.transaction() as connection:
            record_action(connection, NOW, "pause", None, "maintenance")
            record_action(connection, NOW + 1, "release", "+918011223344", "client mapped")
            record_action(connection, NOW + 2, "release", "+918011223345", "")
        pause = Action(NOW, "pause", None, "maintenance")
        first, second = (
            Action(NOW + 1, "release", "+918011223344", "client mapped"),
            Action(NOW + 2, "release", "+918011223345", ""),
        )
        assert actions(database) == [second, first, pause]
        assert actions(database, limit=1) == [second]
        assert actions(database, number="+918011223344") == [first, pause]
        assert actions(database, since=NOW + 1) == [second, first]
        with database.transaction() as connection:
            forget_actions(connection, NOW + 1)
        assert actions(database) == [second, first]

    def test_is_written_with_what_it_did_and_forgotten_with_the_heals(self, url: str) -> None:
        store = open_store(url)
        store.ledger.pause("maintenance", NOW)
        store.ledger.resume(NOW + 1, "over")
        assert store.ledger.release(NUMBER, "never healed", NOW + 2) == []
        pause, resume = Action(NOW, "pause", None, "maintenance"), Action(NOW + 1, "resume", None, "over")
        assert store.actions() == [resume, pause]
        store.ledger.prune(NOW + 1)
        assert store.actions() == [resume]
        store.close()
