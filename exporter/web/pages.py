"""The status page and the page of one number: HTML made by the server from what the JSON API shows, too."""

from __future__ import annotations

import gzip
import hashlib
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route, Router

from exporter import __version__
from exporter.errors import StoreError
from exporter.store.records import Wanted
from exporter.web import assets, links, timeline, words
from exporter.web.glance import glance
from exporter.web.metrics import wants_gzip
from exporter.web.query import BadQueryError, DidQuery
from exporter.web.reader import UnknownDidError
from exporter.web.rows import searched, select
from exporter.web.views import did_of, heal_of, targets_of, when

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

    from starlette.requests import Request

    from exporter.store.records import Attempt, Transition
    from exporter.web.models import DidDetail, Target
    from exporter.web.reader import Found, Reader, Scene
    from exporter.web.rows import Rows, Selection
    from exporter.web.site import Site

LAST_HEALS: Final = 10
MOST_TARGETS: Final = 50  # that a page shows; the JSON API has them all
MOST_CHOICES: Final = 300  # of a filter; what is not among them can be written into the address
SPANS: Final[Mapping[str, tuple[str, float]]] = {
    "1h": ("1 hour", 3600.0),
    "24h": ("24 hours", 86_400.0),
    "7d": ("7 days", 7 * 86_400.0),
    "30d": ("30 days", 30 * 86_400.0),
}
COLUMNS: Final = (
    ("number", "Number"),
    ("name", "Name"),
    ("state", "State"),
    ("", "What is wrong"),
    ("", "Heal"),
    ("since", "Since"),
    ("changes", "Changes"),
    ("connection", "Connection"),
)
SYMBOLS: Final[Mapping[str, str]] = {"ok": "✓", "bad": "✕", "gone": "?", "unknown": "·"}
HTML: Final = "text/html; charset=utf-8"
WORTH_ZIPPING: Final = 1024  # bytes


def create_pages(site: Site, reader: Reader) -> Router:
    """Make the ASGI application of the pages."""
    pages = Pages(site, reader)
    return Router([Route("/", pages.fleet), Route("/dids/{number}", pages.did)], redirect_slashes=False)


@dataclass(frozen=True, slots=True)
class Choice:
    """A filter of the form: the values that can be chosen, each with how it is called."""

    name: str
    title: str
    values: tuple[tuple[str, str], ...]
    chosen: str


class Pages:
    """Answers for the pages. What a page would say again is answered 304."""

    def __init__(self, site: Site, reader: Reader) -> None:
        self._site = site
        self._reader = reader
        self._run = secrets.token_hex(4)  # what an earlier process said is not what this one says
        self._templates = _templates()

    async def fleet(self, request: Request) -> Response:
        """Answer for the whole fleet."""
        scene = self._reader.scene()
        try:
            query = DidQuery.read(request.query_params.multi_items())
        except BadQueryError as error:
            return await self._refuse(400, "This address can't be used", str(error))
        try:
            _, attempts = await self._reader.recent.page(Wanted(), 0, LAST_HEALS)
            past = True
        except StoreError:
            attempts, past = [], False

        def context() -> dict[str, Any]:
            return self._fleet_context(scene, query, attempts, past=past)

        return await self._answer(request, "fleet.html", self._key(scene, attempts, past), context)

    async def did(self, request: Request) -> Response:
        """Answer for one number."""
        scene, key = self._reader.scene(), request.path_params["number"]
        chosen = request.query_params.get("span", "24h")
        if chosen not in SPANS:
            return await self._refuse(400, "This address can't be used", f"span is one of {', '.join(SPANS)}")
        try:
            found = await self._reader.find(scene, key)
        except UnknownDidError:
            return await self._refuse(
                404, "No such number", "No number like this is monitored, or the API has not listed it yet."
            )
        label = scene.names.label(found.number)
        if label != key:
            return RedirectResponse(links.did_url(label, request.query_params.get("span", "")), 302)
        try:
            changes = await self._reader.recent.transitions(found.number)
            attempts = await self._reader.recent.attempts(found.number)
            past = True
        except StoreError:
            changes, attempts, past = [], [], False

        def context() -> dict[str, Any]:
            return self._did_context(scene, found, changes, attempts, past=past, chosen=chosen)

        key = self._key(scene, attempts, past, len(changes), changes[:1], tuple(found.whys.values()))
        return await self._answer(request, "did.html", key, context)

    # What the templates get

    def _fleet_context(
        self, scene: Scene, query: DidQuery, attempts: Sequence[Attempt], *, past: bool
    ) -> dict[str, Any]:
        fleet, names, rows = scene.fleet, scene.names, self._reader.rows(scene.fleet)
        if query.q is not None:
            query = query.model_copy(update={"q": searched(query.q, names.label)})
        found = select(rows, query.model_copy(update={"sort": query.sort or links.SORTED}), names.label)
        targets = targets_of(fleet, scene.held, scene.next_polls, names)
        return {
            "title": "Fleet",
            "glance": glance(rows, targets, tried=scene.tried),
            "targets": sorted(targets, key=_trouble)[:MOST_TARGETS],
            "targets_left": max(0, len(targets) - MOST_TARGETS),
            "dids": [did_of(row.target, row.did, fleet, names) for row in found.rows],
            "found": found,
            "query": query,
            "chips": list(links.chips(query)),
            "choices": _choices(scene, query, rows),
            "columns": [(title, *(links.turned(query, key) if key else ("", ""))) for key, title in COLUMNS],
            "paging": _paging(query, found),
            "unobserved": [heal_of(attempt, names) for attempt in scene.unobserved],
            "heals": [heal_of(attempt, names) for attempt in attempts],
            "past": past,
            "health": scene.health,
            "stale_after": scene.config.poll.stale_after.total_seconds(),
        }

    def _did_context(
        self,
        scene: Scene,
        found: Found,
        changes: Sequence[Transition],
        attempts: Sequence[Attempt],
        *,
        past: bool,
        chosen: str,
    ) -> dict[str, Any]:
        one, now = self._reader.one(scene, found, changes, attempts), self._site.now()
        label = one.data[0].phone_number
        return {
            "title": label,
            "one": one,
            "lines": [_line(scene, did, changes, now - SPANS[chosen][1], now) for did in one.data],
            "spans": [(name, text, links.did_url(label, name)) for name, (text, _) in SPANS.items()],
            "chosen": chosen,
            "ticks": _ticks(now - SPANS[chosen][1], now, chosen),
            "past": past,
            "stale_after": scene.config.poll.stale_after.total_seconds(),
        }

    # How it is sent

    def _key(self, scene: Scene, attempts: Sequence[Attempt], *more: Hashable | list[Any]) -> object:
        """Return all that a page depends on beside its address and the time."""
        heals = [(each.id, each.status, each.outcome, each.reason) for each in attempts]
        unobserved = [each.id for each in scene.unobserved]
        return scene.number, scene.tried, scene.held, unobserved, scene.next_polls, scene.health, heals, more

    async def _answer(
        self, request: Request, template: str, key: object, context: Callable[[], dict[str, Any]]
    ) -> Response:
        zipped = wants_gzip(request.headers.get("accept-encoding", ""))
        said = f"{self._run} {request.url.path}?{request.url.query} {zipped} {key}"
        tag = hashlib.blake2b(said.encode(errors="replace"), digest_size=12).hexdigest()
        headers = {"ETag": f'"{tag}"', "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)

        def build() -> bytes:
            return self._rendered(template, version=tag, **context())

        return await self._sent(build, headers, zipped=zipped)

    async def _refuse(self, status: int, title: str, sentence: str) -> Response:
        def build() -> bytes:
            return self._rendered("refused.html", title=title, sentence=sentence, version="")

        return await self._sent(build, {"Cache-Control": "no-cache"}, status=status)

    async def _sent(
        self, build: Callable[[], bytes], headers: dict[str, str], *, zipped: bool = False, status: int = 200
    ) -> Response:
        def body() -> tuple[bytes, bool]:
            plain = build()
            if zipped and len(plain) > WORTH_ZIPPING:
                return gzip.compress(plain, 3), True
            return plain, False

        content, small = await self._reader.built(body)
        coding = {"Content-Encoding": "gzip"} if small else {}
        return Response(content, status, {**headers, **coding}, media_type=HTML)

    def _rendered(self, template: str, **context: Any) -> bytes:  # noqa: ANN401 - what the template wants
        now = when(self._site.now())
        return self._templates.get_template(template).render(now=now, **context).encode(errors="replace")


def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("exporter.web"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.globals.update(
        asset=assets.url,
        app_version=__version__,
        did_url=links.did_url,
        fleet_url=links.fleet_url,
        kind=timeline.kind,
        symbols=SYMBOLS,
    )
    environment.filters.update(
        span=words.span, due=words.due, when=when, utc=words.utc, iso=words.iso, count=words.count, kind=timeline.kind
    )
    return environment


def _trouble(target: Target) -> tuple[object, ...]:
    """Order targets by how much they need somebody to look."""
    return target.up is True, target.current, target.ready - target.dids, target.account, target.connection


def _choices(scene: Scene, query: DidQuery, rows: Rows) -> list[Choice]:
    """Return the filters that can be chosen in the form: those with something to choose."""
    fleet, targets = scene.fleet, sorted(scene.fleet.targets, key=lambda target: (target.account, target.connection))
    names = {target.connection: fleet.connections[target].name for target in targets if target in fleet.connections}
    accounts = sorted({target.account for target in targets})
    options: list[tuple[str, str, Sequence[tuple[str, str]], str | None]] = [
        ("state", "State", _counted(rows.states), query.state),
        ("issue", "Issue", _counted(rows.issues), query.issue),
        ("heal", "Heal", _counted(rows.heals), query.heal),
        (
            *("connection", "Connection"),
            [(each, names.get(each) or each) for each in dict.fromkeys(target.connection for target in targets)],
            query.connection,
        ),
        ("account", "Account", [(name, name) for name in accounts] if len(accounts) > 1 else [], query.account),
        ("label", "Label", [(label, label) for label in rows.labels], query.label[0] if query.label else None),
    ]
    return [
        Choice(name, title, _with(tuple(values[:MOST_CHOICES]), chosen), chosen or "")
        for name, title, values, chosen in options
        if values or chosen
    ]


def _counted(counts: Mapping[str, int]) -> list[tuple[str, str]]:
    return [(name, f"{name} ({number:,})") for name, number in sorted(counts.items())]


def _with(values: tuple[tuple[str, str], ...], chosen: str | None) -> tuple[tuple[str, str], ...]:
    """Return the values with the chosen one, which may have gone meanwhile."""
    known = chosen is None or chosen in {value for value, _ in values}
    return values if known else (*values, (str(chosen), str(chosen)))


def _paging(query: DidQuery, found: Selection) -> dict[str, Any]:
    first = (found.page - 1) * found.per_page
    return {
        "first": first + 1,
        "last": first + len(found.rows),
        "before": links.fleet_url(query, page=found.page - 1 if found.page > 2 else None) if found.page > 1 else "",  # noqa: PLR2004
        "after": links.fleet_url(query, page=found.page + 1) if found.page < found.pages else "",
    }


def _line(
    scene: Scene, did: DidDetail, changes: Sequence[Transition], start: float, end: float
) -> tuple[timeline.Piece, ...]:
    """Return the pieces of a number's line under one target, up to when the next poll is overdue."""
    target = next(
        target for target in scene.fleet.targets if (target.account, target.connection) == (did.account, did.connection)
    )
    state = scene.fleet.targets[target]
    mine = [change for change in changes if (change.account, change.connection) == (did.account, did.connection)]
    until = min(end, (state.last_success or did.since.timestamp()) + 2 * state.interval)
    return timeline.pieces(mine, (did.state, did.since.timestamp()), until=until, start=start, end=end)


def _ticks(start: float, end: float, chosen: str) -> list[tuple[float, str, str]]:
    """Return marks along the line: where in percent, how its text is anchored, and when."""
    text = "%H:%M" if chosen in {"1h", "24h"} else "%d %b"
    marks = ((0, "start"), (25, "middle"), (50, "middle"), (75, "middle"), (100, "end"))
    return [(at, anchor, when(start + at / 100 * (end - start)).strftime(text)) for at, anchor in marks]
