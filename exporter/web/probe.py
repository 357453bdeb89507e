"""`/probe`: one DID alone, on data not older than the poll interval."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from starlette.responses import PlainTextResponse, Response

from exporter.numbers import MAX_LENGTH, to_e164

if TYPE_CHECKING:
    from collections.abc import Sequence

    from exporter.exposition import Family
    from exporter.model import Target
    from exporter.snapshots import Fleet
    from exporter.web.site import Site

CLOCKS_DIFFER: Final = 1.0  # seconds; what lies further in the future was said before the clock was set
TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"


async def probe(site: Site, text: str) -> Response:
    """Answer for the number that was asked for."""
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
