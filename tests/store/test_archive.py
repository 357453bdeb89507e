"""Reads for people: they wait for nobody, and nobody waits for them."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from exporter.config import Config
from exporter.errors import StoreError
from exporter.store import Archive, Store
from exporter.store.archive import MOST_WAITING
from exporter.store.records import Transition

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NUMBER = "+918011223344"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(Config.model_validate({"store": {"url": f"sqlite:///{tmp_path}/store.db"}}), "the test")
    yield store
    store.close()


async def test_a_store_that_is_not_open_is_not_opened(store: Store) -> None:
    archive = Archive(store)
    with pytest.raises(StoreError, match="the store is not open yet"):
        await archive.attempts()
    assert not store.opened
    archive.close()


async def test_a_store_that_hangs_is_given_up_on(store: Store) -> None:
    store.open()
    archive, released = Archive(store, within=0.05), threading.Event()
    archive._thread.submit(released.wait, 20)  # noqa: SLF001 - as a database that hangs
    with pytest.raises(StoreError, match=r"the store does not answer within 0\.05 s"):
        await archive.attempts()
    released.set()
    archive.close()


async def test_it_tells_what_was_written(store: Store) -> None:
    store.open()
    store.history.write("a", "c", [Transition("a", "c", NUMBER, 1.0, None, "READY")])
    archive = Archive(store)
    assert [each.new for each in await archive.transitions(NUMBER)] == ["READY"]
    assert await archive.attempts(NUMBER) == []
    archive.close()


async def test_what_the_store_says_is_said(store: Store, tmp_path: Path) -> None:
    store.open()
    (tmp_path / "store.db").write_bytes(b"no database" * 100)
    archive = Archive(store)
    with pytest.raises(StoreError, match=r"store\.db does not answer: file is not a database"):
        await archive.attempts()
    archive.close()


async def test_many_that_look_at_once_are_refused_and_one_that_gave_up_harms_nobody(store: Store) -> None:
    store.open()
    archive, released = Archive(store), threading.Event()
    archive._thread.submit(released.wait, 20)  # noqa: SLF001 - as a database that hangs
    looks = [asyncio.create_task(archive.attempts()) for _ in range(MOST_WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(StoreError, match="too many look at the store at once"):
        await archive.attempts()
    looks[0].cancel()
    released.set()
    done = await asyncio.gather(*looks, return_exceptions=True)
    assert done[1:] == [[]] * (MOST_WAITING - 1)
    assert await archive.attempts() == []
    archive.close()
