"""The routes, and what they need of the other parts."""

from __future__ import annotations

import io
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from ruamel.yaml import YAML
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from exporter.errors import ConfigError
from exporter.web import assets
from exporter.web.lazily import Lazily, Once
from exporter.web.metrics import HasBodies, Metrics
from exporter.web.probe import probe

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from starlette.requests import Request
    from starlette.types import ASGIApp

    from exporter.config import Config
    from exporter.exposition import Family
    from exporter.model import Guard, Target
    from exporter.snapshots import Fleet
    from exporter.store.records import Attempt, Transition, Wanted
    from exporter.web.reader import Reader


class Renderer(HasBodies, Protocol):
    """Who renders the fleet."""

    def did_lines(self, target: Target, number: str) -> list[tuple[Family, bytes]]:
        """Return one DID's lines by family."""


class Watcher(Protocol):
    """Who polls."""

    @property
    def fleet(self) -> Fleet:
        """What is known."""

    @property
    def tried(self) -> bool:
        """Whether every target has been polled once."""

    def label(self, number: str) -> str:
        """Return how a number is shown: as it is, or as its keyed hash."""

    async def refresh(self, targets: Iterable[Target]) -> None:
        """Poll those of the targets whose last poll is longer ago than their interval."""


class Planner(Protocol):
    """Who decides when to poll."""

    def next_poll(self, target: Target) -> float | None:
        """Return the Unix time at which a target's next poll is due; `None` where none is planned."""


class Healer(Protocol):
    """State of healing."""

    @property
    def unobserved(self) -> Sequence[Attempt]:
        """The open attempts whose targets no poll observes: they wait for a person."""

    def active_guards(self, target: Target) -> Sequence[tuple[Guard, str]]:
        """Return which guards hold a target's heals back, each with its reason."""

    def last_decision(self, target: Target, number: str) -> str:
        """Return what was decided about a DID last, and why; empty where there was nothing to decide."""


class Past(Protocol):
    """Who remembers. All raise `StoreError`."""

    async def transitions(self, number: str, limit: int = 1000) -> list[Transition]:
        """Return a DID's changes of state, newest first."""

    async def attempts(self, number: str | None = None, limit: int = 1000) -> list[Attempt]:
        """Return the ledger's rows, of one DID or of all, newest first."""

    async def page(self, wanted: Wanted, offset: int, limit: int) -> tuple[int, list[Attempt]]:
        """Return how many of the ledger's rows are wanted, and some of them, newest first."""


@dataclass(frozen=True, slots=True)
class Health:
    """How the exporter itself is.

    `budgets` has for each account the requests left and the most a minute; `shard` is which part of the targets it
    has, and of how many, where they are divided.
    """

    budgets: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    shard: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Site:
    """What the pages are about.

    `config` returns the running configuration, which a reload replaces. `reload` makes one, raising `ConfigError`;
    `None` where that isn't to be asked for over HTTP.
    """

    config: Callable[[], Config]
    watcher: Watcher
    renderer: Renderer
    planner: Planner
    healer: Healer
    past: Past
    reload: Callable[[], Awaitable[None]] | None = None
    health: Callable[[], Health] = Health
    now: Callable[[], float] = time.time


def create_site(site: Site) -> Starlette:
    """Make the ASGI application."""

    def read() -> Reader:
        from exporter.web.reader import Reader  # noqa: PLC0415 - start-up doesn't pay for its models

        return Reader(site)

    async def ready(_: Request) -> Response:
        if site.watcher.tried:
            return PlainTextResponse("Ready: every target has been tried.\n")
        return PlainTextResponse("Not ready: some target has not been tried yet.\n", 503)

    async def config(_: Request) -> Response:
        return Response(_as_yaml(site.config()), media_type="application/yaml")

    async def probed(request: Request) -> Response:
        return await probe(site, request.query_params.get("target", ""))

    async def reload(_: Request) -> Response:
        try:
            await site.reload()  # type: ignore[misc] # there is no such page without
        except ConfigError as error:
            return PlainTextResponse("".join(f"{problem}\n" for problem in error.problems), 500)
        return PlainTextResponse("Reloaded.\n")

    lifecycle = [Route("/-/reload", reload, methods=["POST"])] if site.reload else []

    def pages() -> ASGIApp:
        from exporter.web.pages import create_pages  # noqa: PLC0415 - start-up doesn't pay for templates

        return create_pages(site, reader())

    def api() -> ASGIApp:
        from exporter.web.api import create_api  # noqa: PLC0415 - start-up doesn't pay for FastAPI

        return create_api(reader())

    reader = Once(read)
    html = Lazily(pages)
    app = Starlette(
        routes=[
            Route("/", html, methods=["GET", "HEAD"]),
            Route("/dids/{number}", html, methods=["GET", "HEAD"]),
            Mount("/api/v1", Lazily(api)),
            Route("/static/{name}", assets.serve, methods=["GET"]),
            Route("/metrics", Metrics(site.renderer), methods=["GET", "HEAD"]),
            Route("/-/healthy", _healthy, methods=["GET"]),
            Route("/-/ready", ready, methods=["GET"]),
            Route("/config", config, methods=["GET"]),
            Route("/probe", probed, methods=["GET"]),
            *lifecycle,
        ]
    )
    app.router.redirect_slashes = False  # a path with a slash too many is unknown, like any other
    return app


async def _healthy(_: Request) -> Response:
    return PlainTextResponse("Healthy.\n")


def _as_yaml(config: Config) -> str:
    yaml, text = YAML(typ="safe", pure=True), io.StringIO()
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment] # ruamel declares it as None
    yaml.dump(config.model_dump(mode="json"), text)
    return text.getvalue()
