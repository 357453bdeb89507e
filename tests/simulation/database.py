"""What may go wrong between the product and its database: hooks beneath SQLAlchemy, where a driver would fail."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from sqlalchemy.engine.default import DefaultDialect

from tests.simulation.clocks import ACTIVE

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator

    from tests.simulation.process import Process

LEDGER: Final = "heal_attempts"


def lost(dialect: Any) -> Exception:  # noqa: ANN401 - SQLAlchemy's
    """Return the error of a driver whose connection broke."""
    error: Exception = dialect.loaded_dbapi.OperationalError("the connection to the database was lost")
    return error


class CommitLost:
    """What a trap does to a commit: its caller gets an error."""

    def __call__(self, process: Process) -> None:
        """Raise what a driver would."""
        raise CommitLostError(process.number)


class CommitLostError(Exception):
    """A commit is to be reported as lost."""


class Parked:
    """SQLite connections that are kept open between two transactions, since opening a file takes longer than using it.

    One is used again only for the very same file. `clear` closes them, as before the file is touched.
    """

    def __init__(self) -> None:
        self._free: dict[str, list[tuple[tuple[int, int], sqlite3.Connection]]] = {}
        self._used: dict[int, tuple[str, tuple[int, int]]] = {}

    def take(self, path: str) -> sqlite3.Connection | None:
        """Return a connection to a file, if there is one."""
        free = self._free.get(path)
        if not free or _identity(path) != free[-1][0]:
            return None
        identity, connection = free.pop()
        self._used[id(connection)] = (path, identity)
        return connection

    def took(self, path: str, connection: sqlite3.Connection) -> None:
        """Note a connection that was opened."""
        if identity := _identity(path):
            self._used[id(connection)] = (path, identity)

    def give_back(self, connection: Any) -> bool:  # noqa: ANN401 - the driver's
        """Keep a connection for later; return whether that can be."""
        known = self._used.pop(id(connection), None)
        if known is None or connection.in_transaction:
            return False
        self._free.setdefault(known[0], []).append((known[1], connection))
        return True

    def clear(self) -> None:
        """Close all that are not in use."""
        for free in self._free.values():
            for _, connection in free:
                connection.close()
        self._free.clear()
        self._used.clear()


def _identity(path: str) -> tuple[int, int] | None:
    if path.startswith("file:"):
        path = unquote(path.removeprefix("file:").partition("?")[0])
    try:
        found = os.stat(path)  # noqa: PTH116 - called for every transaction
    except OSError:
        return None
    return found.st_dev, found.st_ino


PARKED: Final = Parked()


def _check(dialect: Any, statement: str) -> None:  # noqa: ANN401 - SQLAlchemy's
    process = ACTIVE.process
    if process is None:
        return
    if process.store.down:
        raise lost(dialect)
    if statement.startswith(("INSERT", "UPDATE", "DELETE")) and LEDGER in statement:
        process.writes = True
    elif statement.startswith("BEGIN"):
        process.writes = False


class _Hooks:
    """What takes the place of a dialect's own methods, which it calls."""

    def __init__(self, dialect: type[DefaultDialect]) -> None:
        names = ("connect", "do_close", "do_execute", "do_execute_no_params", "do_commit")
        self.before: dict[str, Any] = {name: dialect.__dict__[name] for name in names}

    def connect(self, dialect: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        if ACTIVE.process and ACTIVE.process.store.down:
            raise lost(dialect)
        connection = PARKED.take(args[0]) if dialect.name == "sqlite" else None
        if connection is None:
            connection = self.before["connect"](dialect, *args, **kwargs)
            if dialect.name == "sqlite":
                PARKED.took(args[0], connection)
        return connection

    def do_close(self, dialect: Any, connection: Any) -> None:  # noqa: ANN401
        if dialect.name != "sqlite" or not PARKED.give_back(connection):
            self.before["do_close"](dialect, connection)

    def do_execute(self, dialect: Any, cursor: Any, statement: str, *more: Any) -> None:  # noqa: ANN401
        _check(dialect, statement)
        self.before["do_execute"](dialect, cursor, statement, *more)

    def do_execute_no_params(self, dialect: Any, cursor: Any, statement: str, *more: Any) -> None:  # noqa: ANN401
        _check(dialect, statement)
        self.before["do_execute_no_params"](dialect, cursor, statement, *more)

    def do_commit(self, dialect: Any, connection: Any) -> None:  # noqa: ANN401
        process, commit = ACTIVE.process, self.before["do_commit"]
        if process is None:
            commit(dialect, connection)
            return
        try:
            process.commit(lambda: commit(dialect, connection))
        except CommitLostError:
            raise lost(dialect) from None
        finally:
            process.writes = False


@contextmanager
def hooked() -> Iterator[None]:
    """Let every commit and statement of a process pass its traps while the context lasts."""
    hooks = _Hooks(DefaultDialect)
    for name in hooks.before:
        method = getattr(hooks, name)
        setattr(DefaultDialect, name, _unbound(method))
    try:
        yield
    finally:
        for name, function in hooks.before.items():
            setattr(DefaultDialect, name, function)
        PARKED.clear()


def _unbound(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that a class can hold as a method: its first argument is the instance."""

    def call(instance: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        return method(instance, *args, **kwargs)

    return call
