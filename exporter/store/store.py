"""The database with its two views.

SQLAlchemy and Alembic take longer to load than everything else together, so they are loaded when the store is first
used, in the thread that uses it: the first scrape is answered before.
"""

from __future__ import annotations

import socket
from functools import cached_property
from typing import TYPE_CHECKING
from uuid import uuid4

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from exporter.config import Config
    from exporter.store.history import History
    from exporter.store.ledger import Ledger


class Store:
    """What outlives a restart. Nothing is connected before `open`. Everything raises `StoreError`."""

    def __init__(self, config: Config, replica: str | None = None) -> None:
        """`replica` names this process in the ledger; by default its host and something that no other has."""
        self.replica = replica or f"{socket.gethostname()}-{uuid4().hex[:8]}"
        self._url = config.store.url
        self._window = config.heal.attempts_window.total_seconds()
        self.opened = False

    @cached_property
    def ledger(self) -> Ledger:
        """The heals."""
        from exporter.store.ledger import Ledger  # noqa: PLC0415 - see above

        return Ledger(self._engine, self.replica, self._window)

    @cached_property
    def history(self) -> History:
        """The states of DIDs."""
        from exporter.store.history import History  # noqa: PLC0415 - see above

        return History(self._engine)

    @cached_property
    def _engine(self) -> Engine:
        from exporter.store.engine import connect  # noqa: PLC0415 - see above

        return connect(self._url)

    def count_within(self, seconds: float) -> None:
        """Count attempts within another window, as `heal.attempts_window` says. Not while `open` runs."""
        self._window = seconds
        if self.opened:
            self.ledger.window = seconds

    def open(self) -> None:
        """Bring the schema up to date; to be called again after the database was lost."""
        from exporter.store.engine import migrate  # noqa: PLC0415 - see above

        migrate(self._engine)
        _ = self.ledger, self.history
        self.opened = True

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()
