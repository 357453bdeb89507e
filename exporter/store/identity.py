"""By what a store is known: the one row of its table `store_identity`, which the migrations make."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from sqlalchemy import insert, update
from sqlalchemy.exc import DBAPIError

from exporter.store.tables import store_identity

if TYPE_CHECKING:
    from sqlalchemy import Connection

_QUERY: Final = "SELECT id, accepted_at FROM store_identity"
_NO_TABLE: Final = "42P01"  # PostgreSQL's code


@dataclass(frozen=True, slots=True)
class Identity:
    """Which store it is, and when a person said last that it is to be used; `None` where nobody did."""

    id: str
    accepted_at: float | None


def read_identity(connection: Connection) -> Identity | None:
    """Return the identity of the store; `None` where there is none, as in an empty database."""
    try:
        row = connection.exec_driver_sql(_QUERY).first()
    except DBAPIError as error:
        missing = getattr(error.orig, "sqlstate", None) == _NO_TABLE or "no such table" in str(error.orig)
        if not missing:
            raise
        return None
    return Identity(row[0], row[1]) if row else None


def make_identity(connection: Connection, at: float) -> Identity:
    """Return the identity of a store whose tables are there; one that has none, as a copy of parts of one, gets one."""
    found = read_identity(connection)
    if found is None:
        found = Identity(str(uuid4()), None)
        connection.execute(insert(store_identity).values(id=found.id, created_at=at))
    return found


def accept(connection: Connection, at: float) -> None:
    """Note that a person wants this store to be used from now on, by processes that opened another one."""
    connection.execute(update(store_identity).values(accepted_at=at))
