"""The pages of the exporter and what they answer."""

from __future__ import annotations

import io
import time
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Final, Protocol

from ruamel.yaml import YAML
from starlette.applications import Starlette
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from exporter import __version__
from exporter.errors import ConfigError
from exporter.numbers import MAX_LENGTH, to_e164
from exporter.web.metrics import HasBodies, Metrics

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from starlette.requests import Request

    from exporter.config import Config
    from exporter.exposition import Family
    from exporter.model import Guard, Target
    from exporter.snapshots import Fleet
    from exporter.store.records import Attempt, Transition

CLOCKS_DIFFER: Final = 1.0  # seconds; what lies further in the future was said before the clock was set
TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
_PAGES: Final = (
    ("/metrics", "metrics of the fleet and of the exporter"),
    ("/config", "the running configuration, secrets masked"),
    ("/-/healthy", "whether the exporter runs"),
    ("/-/ready", "whether every target has been tried once"),
    ("/probe?target=", "one DID alone; add its number"),
)


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
    """Who heals, or says why not."""

    def held(self, target: Target) -> Sequence[tuple[Guard, str]]:
        """Return which guards hold a target's heals back, each with its reason."""

    def why(self, target: Target, number: str) -> str:
        """Return what was decided about a DID last, and why; empty where there was nothing to decide."""


class Past(Protocol):
    """Who remembers. Both raise `StoreError`."""

    async def transitions(self, number: str, limit: int = 1000) -> list[Transition]:
        """Return a DID's changes of state, newest first."""

    async def attempts(self, number: str | None = None, limit: int = 1000) -> list[Attempt]:
        """Return the ledger's rows, of one DID or of all, newest first."""


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


def create_site(site: Site) -> Starlette:
    """Make the ASGI application."""

    async def ready(_: Request) -> Response:
        if site.watcher.tried:
            return PlainTextResponse("Ready: every target has been tried.\n")
        return PlainTextResponse("Not ready: some target has not been tried yet.\n", 503)

    async def config(_: Request) -> Response:
        return Response(_as_yaml(site.config()), media_type="application/yaml")

    async def probe(request: Request) -> Response:
        return await _probe(site, request.query_params.get("target", ""))

    async def reload(_: Request) -> Response:
        try:
            await site.reload()  # type: ignore[misc] # there is no such page without
        except ConfigError as error:
            return PlainTextResponse("".join(f"{problem}\n" for problem in error.problems), 500)
        return PlainTextResponse("Reloaded.\n")

    lifecycle = [Route("/-/reload", reload, methods=["POST"])] if site.reload else []
    app = Starlette(
        routes=[
            Route("/", _landing, methods=["GET"]),
            Route("/metrics", Metrics(site.renderer), methods=["GET", "HEAD"]),
            Route("/-/healthy", _healthy, methods=["GET"]),
            Route("/-/ready", ready, methods=["GET"]),
            Route("/config", config, methods=["GET"]),
            Route("/probe", probe, methods=["GET"]),
            *lifecycle,
        ]
    )
    app.router.redirect_slashes = False  # a path with a slash too many is unknown, like any other
    return app


async def _landing(_: Request) -> Response:
    links = "".join(f'<li><a href="{path}">{escape(path)}</a>: {escape(text)}</li>' for path, text in _PAGES)
    return HTMLResponse(
        "<!doctype html><html lang=en><meta charset=utf-8><title>voicelink-exporter</title>"
        f"<h1>voicelink-exporter {__version__}</h1><ul>{links}</ul></html>\n"
    )


async def _healthy(_: Request) -> Response:
    return PlainTextResponse("Healthy.\n")


def _as_yaml(config: Config) -> str:
    yaml, text = YAML(typ="safe", pure=True), io.StringIO()
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment] # ruamel declares it as None
    yaml.dump(config.model_dump(mode="json"), text)
    return text.getvalue()


async def _probe(site: Site, text: str) -> Response:
    number = to_e164(text) if len(text) <= MAX_LENGTH else None
    if number is None:
        return PlainTextResponse('target has to be a phone number with its country code, as "+918011223344"\n', 400)
    started = time.monotonic()
    fleet = site.watcher.fleet
    targets = _holders(fleet, number) or sorted(fleet.targets)
    await site.watcher.refresh(targets)
    fleet = site.watcher.fleet
    targets = _holders(fleet, number)
    now = time.time()
    fresh = [target for target in targets if _age(fleet, target, now) <= fleet.targets[target].interval]
    if not targets and fleet.targets and all(state.snapshot for state in fleet.targets.values()):
        return PlainTextResponse(f"{number} is not monitored\n", 404)
    lines: dict[Family, bytes] = {}
    for target in fresh:
        for family, text_lines in site.renderer.did_lines(target, number):
            lines[family] = lines.get(family, b"") + text_lines
    parts = [family.header(openmetrics=False) + rendered for family, rendered in lines.items() if rendered]
    parts += [_gauge("probe_success", "Whether the API told of the DID within the poll interval.", float(bool(fresh)))]
    parts += [_gauge("probe_duration_seconds", "How long the probe took.", time.monotonic() - started)]
    return Response(b"".join(parts), media_type=TEXT)


def _holders(fleet: Fleet, number: str) -> Sequence[Target]:
    return [
        target for target, state in sorted(fleet.targets.items()) if state.snapshot and number in state.snapshot.dids
    ]


def _age(fleet: Fleet, target: Target, now: float) -> float:
    last = fleet.targets[target].last_success
    return float("inf") if last is None or last > now + CLOCKS_DIFFER else now - last


def _gauge(name: str, text: str, value: float) -> bytes:
    return f"# HELP {name} {text}\n# TYPE {name} gauge\n{name} {value}\n".encode()
