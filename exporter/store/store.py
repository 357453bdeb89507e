"""The database with its two views.

SQLAlchemy and Alembic take longer to load than everything else together, so they are loaded when the store is first
used, in the thread that uses it: the first scrape is answered before.
"""

from __future__ import annotations

import socket
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from exporter.clock import SystemClock
from exporter.config.places import NO_PLACE, store_name
from exporter.config.schema import masked_store_url
from exporter.errors import StorePlaceError
from exporter.store.records import Opened
from exporter.store.stamps import StampReader

if TYPE_CHECKING:
    from exporter.clock import Clock
    from exporter.config import Config
    from exporter.store.engine import Database
    from exporter.store.history import History
    from exporter.store.ledger import Ledger
    from exporter.store.operator import Action


class Store:
    """What outlives a restart. Nothing is connected before `open` or `attach`. Everything raises `StoreError`."""

    def __init__(
        self, config: Config, replica: str | None = None, clock: Clock | None = None, *, problem: str = ""
    ) -> None:
        """`replica` names this process in the ledger; by default its host and something that no other has.

        Who decides by the ledger gives its `clock`: then times in it are not believed where they can't be true.
        `problem` says why the store must not be used, where that is known already.
        """
        self.replica = replica or f"{socket.gethostname()}-{uuid4().hex[:8]}"
        self._url = config.store.url or ""
        self._problem = problem or ("" if self._url else NO_PLACE)
        self._window = config.heal.attempts_window.total_seconds()
        self._clock = clock or SystemClock()
        self.stamps = StampReader(clock) if clock else None
        self.opened = False

    @property
    def name(self) -> str:
        """The file, or the URL without its secrets; empty where there is no place for a store."""
        return store_name(masked_store_url(self._url))

    @property
    def is_missing(self) -> bool:
        """Whether it is known without a connection that there is none: no place, or a place without a file."""
        return bool(self._problem) or (self._url.startswith("sqlite") and not Path(store_name(self._url)).exists())

    @cached_property
    def ledger(self) -> Ledger:
        """The heals."""
        from exporter.store.ledger import Ledger  # noqa: PLC0415 - see above

        return Ledger(self._database, self.replica, self._window, self.stamps)

    @cached_property
    def history(self) -> History:
        """The states of DIDs."""
        from exporter.store.history import History  # noqa: PLC0415 - see above

        return History(self._database)

    @cached_property
    def _database(self) -> Database:
        from exporter.store.engine import Database  # noqa: PLC0415 - see above

        if self._problem:
            raise StorePlaceError(self._problem)
        return Database(self._url, self._clock)

    def count_within(self, seconds: float) -> None:
        """Count attempts within another window, as `heal.attempts_window` says. Not while `open` runs."""
        self._window = seconds
        if self.opened:
            self.ledger.window = seconds

    def open(self) -> Opened:
        """Make the store where there is none, and bring its schema up to date; to be called again after it was lost.

        Once it was open, another store is used only if a person has accepted it meanwhile.
        """
        opened = self._database.open()
        if opened is Opened.ANOTHER and self.stamps:
            self.stamps.begin_anew()
        _ = self.ledger, self.history
        self.opened = True
        return opened

    def attach(self) -> None:
        """Use the store that is there, and never make or migrate one. Raises `NoStoreError` where there is none."""
        self._database.attach()
        self.opened = True

    def begin_anew(self, reason: str) -> bool:
        """Have processes that opened another store at this place use this one; make it where there is none.

        Returns whether it was made.
        """
        from exporter.store.identity import accept  # noqa: PLC0415 - see above
        from exporter.store.operator import record_action  # noqa: PLC0415 - see above

        opened, now = self.open(), self._clock.time()
        with self._database.transaction() as connection:
            accept(connection, now)
            record_action(connection, now, "new_store", None, reason)
        return opened is Opened.MADE

    def actions(self, number: str | None = None, since: float = 0.0, limit: int = 1000) -> list[Action]:
        """Return what people did by hand, newest first: with a `number` what concerns that one, too."""
        from exporter.store.operator import actions  # noqa: PLC0415 - see above

        return actions(self._database, limit, number=number, since=since)

    def close(self) -> None:
        """Close the connections."""
        if "_database" in self.__dict__:
            self._database.close()
