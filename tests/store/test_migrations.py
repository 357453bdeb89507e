"""The schema: made once however many start at once, whole or not at all, and never touched by an older program."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TYPE_CHECKING

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, create_engine, event, inspect, text

from exporter.errors import StoreError, StoreVersionError
from exporter.store.engine import HEAD, Database, connect, migrate
from exporter.store.migrate import scripts
from exporter.store.tables import metadata
from tests.support.ledgers import NOW, open_store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TABLES = {*metadata.tables, "alembic_version"}
AT_ONCE = 8


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    engine = connect(url)
    yield engine
    engine.dispose()


@pytest.fixture
def plain(url: str) -> Iterator[Engine]:
    """Return an engine that is none of the product's."""
    engine = create_engine(url)
    yield engine
    engine.dispose()


def tables(engine: Engine) -> set[str]:
    return set(inspect(engine).get_table_names())


@pytest.mark.e2e
def test_an_empty_database_gets_the_tables_that_the_program_uses(engine: Engine, plain: Engine) -> None:
    migrate(engine)
    assert tables(plain) == TABLES
    with plain.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []
    # What the comparison does not look at: the condition that makes the lock, and the primary keys.
    with plain.connect() as connection:
        found = inspect(connection)
        (lock,) = (each for each in found.get_indexes("heal_attempts") if each["name"] == "heal_attempts_one_open")
        assert lock["unique"]
        assert lock["column_names"] == ["number"]
        condition = str(lock["dialect_options"][f"{connection.dialect.name}_where"])
        assert "status" in condition
        assert "<> 'ended'" in condition
        for name, table in metadata.tables.items():
            assert found.get_pk_constraint(name)["constrained_columns"] == [key.name for key in table.primary_key]


@pytest.mark.e2e
def test_again_changes_nothing(engine: Engine, plain: Engine) -> None:
    statements: list[str] = []
    migrate(engine)
    event.listen(engine, "before_cursor_execute", lambda *seen: statements.append(seen[2]))
    migrate(engine)
    written = [each for each in statements if each.split()[0] not in {"BEGIN", "SELECT", "PRAGMA"}]
    assert written == ["UPDATE alembic_version SET version_num = version_num"]  # only to see that it can be written
    assert tables(plain) == TABLES


@pytest.mark.e2e
@pytest.mark.parametrize("attempt", range(3))
def test_threads_that_start_at_once_make_it_once(url: str, plain: Engine, attempt: int) -> None:
    barrier = Barrier(AT_ONCE, timeout=30)

    def start(number: int) -> None:
        engine = connect(url)
        barrier.wait()
        migrate(engine)
        with engine.begin() as connection:
            row = {"replica": f"{attempt}-{number}", "seen_at": NOW}
            connection.execute(metadata.tables["replicas"].insert(), row)
        engine.dispose()

    with ThreadPoolExecutor(AT_ONCE) as threads:
        list(threads.map(start, range(AT_ONCE)))
    with plain.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM replicas")).scalar_one() == AT_ONCE
        assert connection.execute(text("SELECT count(*) FROM alembic_version")).scalar_one() == 1


@pytest.mark.e2e
def test_processes_that_start_at_once_make_it_once(url: str, plain: Engine) -> None:
    program = (
        "import sys; from exporter.store.engine import connect, migrate; engine = connect(sys.argv[1]); "
        "print('here', flush=True); sys.stdin.read(1); migrate(engine)"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(AT_ONCE)
    ]
    for process in started:
        assert process.stdout
        assert process.stdout.readline() == "here\n"
    for process in started:
        assert process.stdin
        process.stdin.write("x")
        process.stdin.flush()
    ends = [(process.communicate(timeout=60), process.returncode) for process in started]
    assert ends == [(("", ""), 0)] * AT_ONCE
    assert tables(plain) == TABLES


@pytest.mark.e2e
def test_a_schema_of_a_newer_version_is_refused_and_left_alone(engine: Engine, plain: Engine) -> None:
    migrate(engine)
    with plain.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        connection.execute(text("ALTER TABLE heal_dids ADD COLUMN novelty VARCHAR(10)"))
    with pytest.raises(StoreVersionError) as refused:
        migrate(engine)
    assert str(refused.value) == (
        "the store has schema 9999, which a newer version of voicelink-exporter wrote; upgrade this one"
    )
    with plain.connect() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all() == ["9999"]


@pytest.mark.e2e
def test_a_migration_that_fails_half_way_leaves_nothing(engine: Engine, plain: Engine) -> None:
    with plain.begin() as connection:
        connection.execute(text("CREATE TABLE heal_dids (somebody_elses INTEGER)"))  # the fourth table to be made
    with pytest.raises(StoreError, match=r"^the store at .+ does not answer: .*heal_dids.* already exists"):
        migrate(engine)
    assert tables(plain) <= {"heal_dids"}
    with plain.begin() as connection:
        connection.execute(text("DROP TABLE heal_dids"))
    migrate(engine)
    assert tables(plain) == TABLES


@pytest.mark.e2e
def test_a_process_that_dies_half_way_leaves_nothing(url: str, plain: Engine) -> None:
    program = (
        "import os, sys; from sqlalchemy import event; from exporter.store.engine import connect, migrate; "
        "engine = connect(sys.argv[1]); "
        "event.listen(engine, 'before_cursor_execute', lambda c, u, s, *_: 'heal_accounts' in s and os._exit(7)); "
        "migrate(engine)"
    )
    done = subprocess.run([sys.executable, "-c", program, url], check=False, timeout=60)
    assert done.returncode == 7
    assert tables(plain) == set()
    open_store(url).close()
    assert tables(plain) == TABLES


def test_the_newest_schema_is_known_without_alembic() -> None:
    _, script = scripts()
    assert script.get_current_head() == HEAD


@pytest.mark.e2e
def test_a_command_finds_the_schema_without_alembic(tmp_path: Path) -> None:
    program = (
        "import sys; from exporter.store.engine import Database; database = Database(sys.argv[1]); "
        "database.attach(); print([name for name in sys.modules if name.startswith(('alembic', 'mako'))])"
    )
    url = f"sqlite:///{tmp_path}/store.db"
    Database(url).open()
    done = subprocess.run([sys.executable, "-c", program, url], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
