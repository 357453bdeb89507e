"""Sinks that fail or wait when a test wants them to, and one for tests that look at nothing that is shown."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from tests.support.patience import PATIENCE

if TYPE_CHECKING:
    from exporter.model import Target
    from exporter.poller import Sink
    from exporter.snapshots import Fleet

CANARY = "sink-canary"


class Silent:
    """Sink that shows nothing."""

    def update(self, fleet: object, target: object = None) -> None:
        """Render nothing."""

    def refresh_own(self) -> None:
        """Render nothing."""


class Broken:
    """Shows a fleet through another sink, except for so many times."""

    def __init__(self, inner: Sink, times: int = 0) -> None:
        self._inner = inner
        self.times = times

    def update(self, fleet: Fleet, target: Target | None = None) -> None:
        if self.times:
            self.times -= 1
            raise RuntimeError(CANARY)
        self._inner.update(fleet, target)

    def refresh_own(self) -> None:
        self._inner.refresh_own()


class Slow:
    """Shows a fleet through another sink, after waiting until it may where `hold` was called."""

    def __init__(self, inner: Sink) -> None:
        self._inner = inner
        self._may = threading.Event()
        self._may.set()
        self.busy = threading.Event()
        self.threads: set[str] = set()

    def hold(self) -> None:
        self._may.clear()
        self.busy.clear()

    def release(self) -> None:
        self._may.set()

    def update(self, fleet: Fleet, target: Target | None = None) -> None:
        self.threads.add(threading.current_thread().name)
        self.busy.set()
        assert self._may.wait(PATIENCE)
        self._inner.update(fleet, target)

    def refresh_own(self) -> None:
        self.threads.add(threading.current_thread().name)
        self._inner.refresh_own()
