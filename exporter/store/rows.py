"""Rows that are locked, and rows that are written whether or not they are there. For SQLite and PostgreSQL alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite

from exporter.store.tables import heal_accounts

if TYPE_CHECKING:
    from sqlalchemy import Connection

EVERYBODY: Final = ""  # the row of heal_accounts that speaks for all


def dialect(connection: Connection) -> Any:  # noqa: ANN401 - a module
    """Return the module whose `insert` knows conflicts."""
    return sqlite if connection.dialect.name == "sqlite" else postgresql


def lock(connection: Connection, account: str) -> None:
    """Hold the row of all accounts and an account's, in that order, until the transaction ends."""
    blank = {"resumed_at": 0.0, "latch_print": "", "latched_at": 0.0, "key_paused_until": 0.0, "forbidden_at": 0.0}
    for name in dict.fromkeys((EVERYBODY, account)):
        row = dialect(connection).insert(heal_accounts).values(account=name, **blank).on_conflict_do_nothing()
        connection.execute(row)
        connection.execute(select(heal_accounts.c.account).where(account_row(name)).with_for_update())


def account_row(account: str) -> Any:  # noqa: ANN401 - an SQL expression
    """Return the condition for an account's row."""
    return heal_accounts.c.account == account


def upsert(connection: Connection, table: Any, row: dict[str, Any], key: tuple[str, ...]) -> None:  # noqa: ANN401
    """Insert a row, or update the one with the same key."""
    rest = {name: value for name, value in row.items() if name not in key}
    connection.execute(
        dialect(connection).insert(table).values(**row).on_conflict_do_update(index_elements=list(key), set_=rest)
    )
