"""The store that the replicas share, and what happens to it: slow, gone, wiped, replaced by another."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any, Protocol

from tests.simulation.database import PARKED
from tests.simulation.ledger import SqliteReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from tests.simulation.ledger import Reader


class Faults:
    """How the store is for every process. `before` and `after` are seconds that a call takes, around what it does."""

    def __init__(self) -> None:
        self.down = False
        self.before = 0.0
        self.after = 0.0

    def delays(self) -> tuple[float, float]:
        """Return the seconds before a call is carried out, and after that until the caller knows."""
        return self.before, self.after


class Place(Protocol):
    """Where a store is."""

    url: str
    reader: Reader

    def execute(self, statements: Iterable[str]) -> None:
        """Carry out statements in one transaction."""

    def delete(self) -> None:
        """Take everything away."""

    def empty(self) -> None:
        """Leave the place, and nothing in it."""

    def replace(self, make: Callable[[str], None]) -> None:
        """Put another store there, which `make` makes at a URL."""

    def hide(self) -> None:
        """Move the store away."""

    def show(self) -> None:
        """Put it back, instead of what is there now."""

    def close(self) -> None:
        """Take everything away for good."""


class File:
    """SQLite file in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / "store.db"
        self._away = folder / "away"
        self.url = f"sqlite:///{self._path}"
        self.reader: Reader = SqliteReader(str(self._path))

    def execute(self, statements: Iterable[str]) -> None:
        """Carry out statements in one transaction."""
        with closing(sqlite3.connect(self._path)) as connection:
            for statement in statements:
                connection.execute(statement)
            connection.commit()

    def _files(self, path: Path) -> list[Path]:
        return [path.with_name(path.name + suffix) for suffix in ("", "-wal", "-shm")]

    def delete(self) -> None:
        """Delete the file."""
        PARKED.clear()
        for path in self._files(self._path):
            path.unlink(missing_ok=True)

    def empty(self) -> None:
        """Leave an empty file."""
        self.delete()
        self._path.touch()

    def replace(self, make: Callable[[str], None]) -> None:
        """Put another store's file there."""
        self.delete()
        make(self.url)

    def hide(self) -> None:
        """Move the file away."""
        PARKED.clear()
        self._away.mkdir()
        for path in self._files(self._path):
            if path.exists():
                path.rename(self._away / path.name)

    def show(self) -> None:
        """Move it back."""
        self.delete()
        for path in self._away.iterdir():
            path.rename(self._folder / path.name)
        self._away.rmdir()

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self._folder, ignore_errors=True)


class Schema:
    """PostgreSQL database. `connect` opens a connection past the product, which commits by itself."""

    def __init__(self, url: str, connect: Callable[[], Any]) -> None:
        self.url = url
        self._connection = connect()
        self.reader: Reader = self

    def query(self, sql: str) -> list[dict[str, Any]]:
        """Return rows by name of column; none where there is no such table."""
        import psycopg  # noqa: PLC0415 - only where there is such a database

        with contextlib.suppress(psycopg.errors.UndefinedTable):
            cursor = self._connection.execute(sql)
            names = [column.name for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        return []

    def execute(self, statements: Iterable[str]) -> None:
        """Carry out statements in one transaction."""
        with self._connection.transaction():
            for statement in statements:
                self._connection.execute(statement)

    def delete(self) -> None:
        """Drop the schema."""
        self.execute(["DROP SCHEMA public CASCADE", "CREATE SCHEMA public"])

    def empty(self) -> None:
        """Do the same: there is nothing between."""
        self.delete()

    def replace(self, make: Callable[[str], None]) -> None:
        """Put another store there."""
        self.delete()
        make(self.url)

    def hide(self) -> None:
        """Rename the schema."""
        self.execute(["ALTER SCHEMA public RENAME TO away", "CREATE SCHEMA public"])

    def show(self) -> None:
        """Rename it back."""
        self.execute(["DROP SCHEMA public CASCADE", "ALTER SCHEMA away RENAME TO public"])

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
