"""Rows that are locked, and rows that are written whether or not they are there. For SQLite and PostgreSQL alike."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite

from exporter.store.tables import heal_credentials

if TYPE_CHECKING:
    from sqlalchemy import Connection, Table

EVERYBODY: Final = ""  # the row of heal_credentials that speaks for all


def dialect(connection: Connection) -> Any:  # noqa: ANN401 - a module
    """Return the module whose `insert` knows conflicts."""
    return sqlite if connection.dialect.name == "sqlite" else postgresql


def lock(connection: Connection, credential: str) -> None:
    """Hold the row of all credentials and a credential's, in that order, until the transaction ends."""
    times = ("resumed_at", "latched_at", "key_paused_at", "key_paused_for", "forbidden_at")
    for mark in dict.fromkeys((EVERYBODY, credential)):
        row = {"credential": mark, **dict.fromkeys(times, 0.0)}
        connection.execute(dialect(connection).insert(heal_credentials).values(**row).on_conflict_do_nothing())
        connection.execute(select(heal_credentials.c.credential).where(credential_row(mark)).with_for_update())


def credential_row(credential: str) -> Any:  # noqa: ANN401 - an SQL expression
    """Return the condition for a credential's row."""
    return heal_credentials.c.credential == credential


def upsert(connection: Connection, table: Table, row: dict[str, Any], key: tuple[str, ...]) -> None:
    """Insert a row, or update the one with the same key."""
    connection.execute(_upsert(dialect(connection), table, tuple(row), key), row)


@cache
def _upsert(of: Any, table: Table, columns: tuple[str, ...], key: tuple[str, ...]) -> Any:  # noqa: ANN401 - SQLAlchemy's
    query = of.insert(table)
    rest = {name: query.excluded[name] for name in columns if name not in key}
    return query.on_conflict_do_update(index_elements=list(key), set_=rest)
