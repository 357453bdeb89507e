"""The thread that calls the store: what hangs is given up, and counts as down."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from exporter.errors import StoreError
from exporter.store import worker as module
from exporter.store.worker import StoreWorker
from tests.support.clock import ManualClock

if TYPE_CHECKING:
    from exporter.store import Store


async def test_a_store_that_hangs_is_given_up_and_is_down_until_it_answers(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, hangs = StoreWorker(store, ManualClock()), threading.Event()
    await worker.open()
    monkeypatch.setattr(module, "ANSWER_WITHIN", 0.05)
    with pytest.raises(StoreError, match="the store does not answer"):
        await worker.call(hangs.wait, 60)
    assert (worker.up, worker.failed_just_now) == (False, True)

    hangs.set()
    monkeypatch.setattr(module, "ANSWER_WITHIN", 60.0)
    await worker.open()
    assert worker.up
    worker.close()
