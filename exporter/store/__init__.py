"""What outlives a restart: states of DIDs and the ledger of heals. The one place that knows SQLAlchemy."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING
from uuid import uuid4

from exporter.store.engine import connect, migrate
from exporter.store.history import History
from exporter.store.ledger import Ledger

if TYPE_CHECKING:
    from exporter.config import Config


class Store:
    """A database with its two views. Nothing is connected before `open`. Raises `StoreError` for a URL it can't use."""

    def __init__(self, config: Config, replica: str | None = None) -> None:
        """`replica` names this process in the ledger; by default its host and something that no other has."""
        self.replica = replica or f"{socket.gethostname()}-{uuid4().hex[:8]}"
        self._engine = connect(config.store.url)
        self.ledger = Ledger(self._engine, self.replica, config.heal.attempts_window.total_seconds())
        self.history = History(self._engine)

    def open(self) -> None:
        """Bring the schema up to date; to be called again after the database was lost. Raises `StoreError`."""
        migrate(self._engine)

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()
