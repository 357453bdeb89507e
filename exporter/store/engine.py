"""The database behind the store: SQLite by default, PostgreSQL when replicas share it."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from alembic.config import Config as AlembicConfig
from alembic.migration import MigrationContext
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from exporter.errors import StoreError, StoreVersionError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Engine

BUSY: Final = 5  # seconds to wait for another writer, and for PostgreSQL to connect or answer
_MIGRATION_LOCK: Final = 0x766F6963656C  # "voicel": the advisory lock that one migrating replica holds
_MIGRATIONS: Final = Path(__file__).parent / "migrations"


def connect(url: str) -> Engine:
    """Return an engine for an SQLAlchemy URL; nothing is connected yet. Raises `StoreError` for one it can't use."""
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() == "sqlite":
            if parsed.database in (None, "", ":memory:"):
                raise StoreError("store.url: has to name a file, as what is only in memory does not outlive a restart")
            timeout = {"timeout": BUSY}
            return _sqlite(create_engine(parsed, connect_args=timeout, poolclass=NullPool, json_serializer=_json))
        if parsed.get_backend_name() == "postgresql":
            options = (
                f"-c lock_timeout={BUSY * 1000} -c statement_timeout={(BUSY + 1) * 1000}"  # a lock is named as such
            )
            arguments = {
                "connect_timeout": BUSY,
                "tcp_user_timeout": 2 * BUSY * 1000,
                "keepalives_idle": BUSY,
                "keepalives_interval": BUSY,
                "keepalives_count": 2,
                "options": options,
                "application_name": "voicelink-exporter",
            }
            pool = {"pool_pre_ping": True, "pool_size": 2, "max_overflow": 2}
            return create_engine(parsed, connect_args=arguments, json_serializer=_json, **pool)
    except ModuleNotFoundError:
        raise StoreError("store.url: PostgreSQL needs the extra: install voicelink-exporter[postgres]") from None
    except (ArgumentError, NoSuchModuleError, ValueError):
        raise StoreError("store.url: is not a database URL; write sqlite:///FILE or postgresql+psycopg://…") from None
    raise StoreError("store.url: only SQLite and PostgreSQL are supported")


def _sqlite(engine: Engine) -> Engine:
    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _: Any) -> None:  # noqa: ANN401 - the driver's
        connection.isolation_level = None  # transactions are ours to begin
        for pragma in (f"busy_timeout={BUSY * 1000}", "synchronous=FULL"):
            connection.execute(f"PRAGMA {pragma}")
        _write_ahead(connection)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # One writer from the start: no upgrade that could fail half-way. Who only reads keeps nobody from writing.
        reading = connection.get_execution_options().get("reading", False)
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    return engine


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Switch a database to WAL. Where several do that to a new file at once, SQLite fails without waiting."""
    deadline = time.monotonic() + BUSY
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


@contextlib.contextmanager
def transaction(engine: Engine, *, reading: bool = False) -> Iterator[Connection]:
    """Run a transaction: committed at the end, rolled back on any error. Raises `StoreError` for the database's.

    One that is `reading` only doesn't wait for those who write.
    """
    try:
        with engine.connect() as connection:
            connection.execution_options(reading=reading)
            with connection.begin():
                yield connection
    except DBAPIError as error:
        raise StoreError(f"the store does not answer: {_first_line(error.orig)}") from error
    except UnicodeEncodeError:
        raise StoreError("the store refuses: a text that is no Unicode") from None
    except SQLAlchemyError as error:
        raise StoreError(f"the store refuses: {type(error).__name__}") from error


def migrate(engine: Engine) -> None:
    """Bring the schema up to date; replicas that start together wait for each other.

    Raises `StoreVersionError` when the store was written by a newer version, `StoreError` when it can't be written.
    """
    config = AlembicConfig()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    script = ScriptDirectory.from_config(config)
    with transaction(engine) as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
        current = MigrationContext.configure(connection).get_current_revision()
        known = {revision.revision for revision in script.walk_revisions()}
        if current is not None and current not in known:
            raise StoreVersionError(
                f"the store has schema {current}, which a newer version of voicelink-exporter wrote; upgrade this one"
            )
        if current == script.get_current_head():
            # A store that can be read and not written, as on a full disk, is no store to heal by.
            connection.execute(text("UPDATE alembic_version SET version_num = version_num"))
            return
        with EnvironmentContext(config, script, fn=lambda rev, _: script._upgrade_revs("head", rev)) as context:  # noqa: SLF001 - as alembic's own command does
            context.configure(connection=connection, transactional_ddl=True)
            context.run_migrations()


def _json(value: object) -> str:
    """Return JSON that every database takes: what only Python calls JSON, NaN and infinity, becomes null."""
    return json.dumps(json.loads(json.dumps(value), parse_constant=lambda _: None))


def _first_line(error: object) -> str:
    return str(error).strip().partition("\n")[0][:200] or type(error).__name__
