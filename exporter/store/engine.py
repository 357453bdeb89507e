"""The database behind the store: SQLite by default, PostgreSQL when replicas share it."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, quote, urlencode

from sqlalchemy import create_engine, event, inspect, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from exporter.clock import SystemClock
from exporter.config.places import NAME_ONE, store_name
from exporter.config.schema import masked_store_url
from exporter.errors import NoStoreError, StoreError, StorePlaceError, StoreReplacedError, StoreVersionError
from exporter.store.identity import make_identity, read_identity, revise
from exporter.store.records import Opened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection, Engine

    from exporter.clock import Clock
    from exporter.store.identity import Identity

BUSY: Final = 5  # seconds to wait for another writer, and for PostgreSQL to connect or answer
_MIGRATION_LOCK: Final = 0x766F6963656C  # "voicel": the advisory lock that one migrating replica holds
HEAD: Final = "0002"  # the newest schema, the last of those in migrations/versions


def connect(url: str, may_create: Callable[[], bool] = lambda: True) -> Engine:
    """Return an engine for an SQLAlchemy URL; nothing is connected yet. Raises `StoreError` for one it can't use.

    `may_create` says at each connection whether SQLite may make a file that isn't there.
    """
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() == "sqlite":
            if parsed.database in (None, "", ":memory:"):
                raise StoreError("store.url: has to name a file, as what is only in memory does not outlive a restart")
            timeout = {"timeout": BUSY}
            engine = create_engine(parsed, connect_args=timeout, poolclass=NullPool, json_serializer=_json)
            return _sqlite(engine, may_create)
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


def _sqlite(engine: Engine, may_create: Callable[[], bool]) -> Engine:
    @event.listens_for(engine, "do_connect")
    def address(_: Any, __: Any, arguments: list[Any], options: dict[str, Any]) -> None:  # noqa: ANN401 - the driver's
        path, _, query = (arguments[0] if options.get("uri") else f"file:{quote(arguments[0])}").partition("?")
        given = dict(parse_qsl(query))
        if given.get("mode", "rwc") == "rwc":
            given["mode"] = "rwc" if may_create() else "rw"
        arguments[0], options["uri"] = f"{path}?{urlencode(given)}", True

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _: Any) -> None:  # noqa: ANN401 - the driver's
        connection.isolation_level = None  # transactions are ours to begin
        for pragma in (f"busy_timeout={BUSY * 1000}", "synchronous=FULL"):
            connection.execute(f"PRAGMA {pragma}")
        if may_create():  # the file remembers it
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
            if not _is_busy(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


class Database:
    """Database behind the store. Nothing is connected when it is made; raises `StoreError` for a URL it can't use.

    From the first successful `open` or `attach` on it knows the store by its identity and uses no other: every
    transaction begins by asking for it, and no file or table is made any more.
    """

    def __init__(self, url: str, clock: Clock | None = None) -> None:
        self.engine = connect(url, lambda: self._creating)
        self.name = store_name(masked_store_url(url))
        self._file = Path(store_name(url)) if self.engine.dialect.name == "sqlite" else None
        self._clock = clock or SystemClock()
        self._creating = False
        self.revision: str | None = None  # of the transaction under way, or of the last one
        self._identity: str | None = None
        self._contact = 0.0  # when the store was last seen to be that one, on the monotonic clock

    @contextlib.contextmanager
    def transaction(self, *, reading: bool = False) -> Iterator[Connection]:
        """Run a transaction: committed at the end, rolled back on any error. Raises `StoreError`.

        One that is `reading` only does not wait for writers. Raises `StoreReplacedError` when it is another store.
        """
        with self._noticing_loss(), transaction(self.engine, reading=reading) as connection:
            if self._identity is not None:
                self._recognise(connection)
            yield connection

    @contextlib.contextmanager
    def change(self) -> Iterator[Connection]:
        """Run a transaction as `transaction` does, which gives the store another revision."""
        with self.transaction() as connection:
            yield connection
            revise(connection)

    def open(self) -> Opened:
        """Make the store where there is none, and bring its schema up to date; later look whether it is the same.

        Another one than before is used only if a person has accepted it since that one was last there.
        Raises `StoreReplacedError` where nobody did, `StoreVersionError` when a newer version wrote it.
        """
        before = self._identity
        if before is None:
            with self._creation(), transaction(self.engine) as connection:
                made = upgrade(connection)
                found = make_identity(connection, self._clock.time())
        else:
            with self._noticing_loss(), transaction(self.engine) as connection:
                found = self._recognise(connection, accepting=True)
                made = upgrade(connection)
        self._know(found)
        if before not in (None, found.id):
            return Opened.ANOTHER
        return Opened.MADE if made else Opened.FOUND

    def attach(self) -> None:
        """Use the store that is there; make, change and migrate nothing.

        Raises `NoStoreError` where there is none, `StoreVersionError` where another version wrote it.
        """
        found = None
        if not self._is_gone():
            with transaction(self.engine, reading=True) as connection:
                current = schema_of(connection)
                if current not in (None, HEAD):
                    from exporter.store.migrate import check_known  # noqa: PLC0415 - takes long to import

                    check_known(current)
                    raise StoreVersionError(
                        f"the store at {self.name} has schema {current}, which an older version of voicelink-exporter "
                        "wrote; the daemon of this version brings it up to date when it starts"
                    )
                found = read_identity(connection) if current else None
        if found is None:
            raise NoStoreError(f"there is no store at {self.name}")
        self._know(found)

    def close(self) -> None:
        """Close the connections."""
        self.engine.dispose()

    def _know(self, found: Identity) -> None:
        self._identity, self._contact = found.id, self._clock.monotonic()

    def _recognise(self, connection: Connection, *, accepting: bool = False) -> Identity:
        """Return the store's identity. Raises `StoreReplacedError` when it is not the one that this process knows.

        `accepting`: or one that a person has accepted since that one was last there.
        """
        found = read_identity(connection)
        if found is None:
            raise self._lost("has no identity: it was emptied, or another one was put there")
        self.revision = found.revision
        if found.id == self._identity:
            self._contact = self._clock.monotonic()
        elif not accepting or not self._accepted_since(found):
            raise self._lost("is another one than this process opened")
        return found

    def _accepted_since(self, found: Identity) -> bool:
        """Whether it was accepted since the last contact. A stamp in the future is a clock's fault: it is as of now."""
        if found.accepted_at is None:
            return False
        return max(0.0, self._clock.time() - found.accepted_at) < self._clock.monotonic() - self._contact

    @contextlib.contextmanager
    def _creation(self) -> Iterator[None]:
        """Allow that a file is made, and its folder."""
        if self._file:
            try:
                self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                what = f"the folder of the store, {self._file.parent}, can't be made: {error.strerror}"
                raise StorePlaceError(f"{what}; {NAME_ONE}") from None
        self._creating = True
        try:
            yield
        except StoreError as error:
            if self._is_gone():
                raise StorePlaceError(f"{error}; {NAME_ONE}") from error
            raise
        finally:
            self._creating = False

    @contextlib.contextmanager
    def _noticing_loss(self) -> Iterator[None]:
        """Say of a file that was there and is not there any more that it is gone, whatever failed by that."""
        try:
            yield
        except StoreReplacedError:
            raise
        except StoreError as error:
            if self._identity is not None and self._is_gone():
                raise self._lost("is gone") from error
            raise

    def _lost(self, what: str) -> StoreReplacedError:
        return StoreReplacedError(
            f"the store at {self.name} {what}; put back the one that was there, or, to go on without its pauses, "
            "quarantines and counts, run: voicelink-exporter heal resume --new-store"
        )

    def _is_gone(self) -> bool:
        try:
            if self._file:
                self._file.stat()
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:
            return False
        return False


@contextlib.contextmanager
def transaction(engine: Engine, *, reading: bool = False) -> Iterator[Connection]:
    """Run a transaction on an engine, as `Database.transaction` does."""
    try:
        with engine.connect() as connection:
            connection.execution_options(reading=reading)
            with connection.begin():
                yield connection
    except DBAPIError as error:
        raise StoreError(f"the store at {_name(engine)} does not answer: {_why(error.orig)}") from error
    except UnicodeEncodeError:
        raise StoreError(f"the store at {_name(engine)} refuses: a text that is no Unicode") from None
    except SQLAlchemyError as error:
        raise StoreError(f"the store at {_name(engine)} refuses: {type(error).__name__}") from error


def _name(engine: Engine) -> str:
    return store_name(masked_store_url(engine.url.render_as_string(hide_password=False)))


def migrate(engine: Engine) -> None:
    """Bring the schema up to date in a transaction of its own. Raises as `upgrade`, and `StoreError`."""
    with transaction(engine) as connection:
        upgrade(connection)


def upgrade(connection: Connection) -> bool:
    """Bring the schema up to date; replicas that start together wait for each other. Return whether there was none.

    Raises `StoreVersionError` when the store was written by a newer version, SQLAlchemy's errors when it can't be
    written.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
    current = schema_of(connection)
    if current == HEAD:
        # A store that can be read and not written, as on a full disk, is no store to heal by.
        connection.execute(text("UPDATE alembic_version SET version_num = version_num"))
        return False
    from exporter.store.migrate import migrate_to_head  # noqa: PLC0415 - takes long to import, and is seldom needed

    migrate_to_head(connection, current)
    return current is None


def schema_of(connection: Connection) -> str | None:
    """Return which schema the store has, `None` where it has none."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()


def _json(value: object) -> str:
    """Return JSON that every database takes: what only Python calls JSON, NaN and infinity, becomes null."""
    return json.dumps(json.loads(json.dumps(value), parse_constant=lambda _: None))


def _is_busy(error: object) -> bool:
    """Whether SQLite says that somebody else holds its lock. An error that it did not raise itself has no code."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY


def _why(error: object) -> str:
    """Return what the database said, and of a lock who may hold it."""
    said = _first_line(error)
    if _is_busy(error):
        said += (
            f" for {BUSY} s by another process that has the file open: a daemon, a heal command or a backup, which may "
            "be stopped or hang"
        )
    return said


def _first_line(error: object) -> str:
    return str(error).strip().partition("\n")[0][:200] or type(error).__name__
