"""Every test of the store runs on both databases, each test on an empty one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support.ledgers import open_store
from tests.support.postgres import cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from exporter.store import Store
    from tests.support.postgres import Cluster

    Open = Callable[..., Store]


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    with cluster() as server:
        yield server


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.e2e)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/store.db"
    server: Cluster = request.getfixturevalue("postgres")
    return server.url(server.create())


@pytest.fixture
def another(url: str) -> Iterator[Open]:
    """Return a way to open one more store on the test's database, as another replica does."""
    stores: list[Store] = []

    def open_another(replica: str = "two", **heal: Any) -> Store:  # noqa: ANN401 - any key of `heal`
        stores.append(open_store(url, replica, **heal))
        return stores[-1]

    yield open_another
    for store in stores:
        store.close()


@pytest.fixture
def store(another: Open) -> Store:
    return another("one")
