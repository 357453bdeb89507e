"""By what a store is known: the one row of its table `store_identity`, which the migrations make."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from sqlalchemy import bindparam, insert, update
from sqlalchemy.exc import DBAPIError

from exporter.store.tables import store_identity

if TYPE_CHECKING:
    from sqlalchemy import Connection

_QUERY: Final = "SELECT id, accepted_at, revision FROM store_identity"
_REVISED: Final = update(store_identity).values(revision=bindparam("new"))
_NO_TABLE: Final = "42P01"  # PostgreSQL's code


@dataclass(frozen=True, slots=True)
class Identity:
    """Which store it is, and when a person said last that it is to be used; `None` where nobody did.

    `revision` is another one after each change to what healing is decided by.
    """

    id: str
    accepted_at: float | None
    revision: str


def read_identity(connection: Connection) -> Identity | None:
    """Return the identity of the store; `None` where there is none, as in an empty database."""
    try:
        row = connection.exec_driver_sql(_QUERY).first()
    except DBAPIError as error:
        missing = getattr(error.orig, "sqlstate", None) == _NO_TABLE or "no such table" in str(error.orig)
        if not missing:
            raise
        return None
    return Identity(*row) if row else None


def make_identity(connection: Connection, at: float) -> Identity:
    """Return the identity of a store whose tables are there; one that has none, as a copy of parts of one, gets one."""
    found = read_identity(connection)
    if found is None:
        found = Identity(str(uuid4()), None, str(uuid4()))
        row = {"id": found.id, "created_at": at, "revision": found.revision}
        connection.execute(insert(store_identity).values(**row))
    return found


def accept(connection: Connection, at: float) -> None:
    """Note that a person wants this store to be used from now on, by processes that opened another one."""
    connection.execute(update(store_identity).values(accepted_at=at))


def revise(connection: Connection) -> None:
    """Note that this transaction changes what healing is decided by. The new revision is drawn, never counted.

    So a backup that was put back and written to has none that a process remembers.
    """
    connection.execute(_REVISED, {"new": str(uuid4())})
