"""`poll`: asks once about everything and prints what there is."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.progress import Progress
from rich.table import Column, Table
from rich.text import Text

from exporter.app import build_clients, build_poller
from exporter.clock import SystemClock
from exporter.exposition import Exposition
from exporter.telemetry import Telemetry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from exporter.config import Settings
    from exporter.model import Did, Target
    from exporter.poller import Poller
    from exporter.snapshots import Fleet

FILE_WIDTH: Final = 10_000  # characters; without a terminal nothing is cut or wrapped
ALL_READY, SOME_NOT, COULD_NOT_TELL = 0, 1, 2


async def poll_once(settings: Settings, output: str) -> int:
    """Poll every target once and print the DIDs; return 0 all ready, 1 some not, 2 could not tell."""
    clock, telemetry = SystemClock(), Telemetry()
    clients = build_clients(settings, telemetry, clock)
    poller = build_poller(settings, clients, Exposition(telemetry.render), clock)
    try:
        for account in clients:
            await poller.discover(account)
        targets = sorted(poller.fleet.targets)
        seconds = max(settings.config.poll.interval.total_seconds(), settings.config.api.timeout.total_seconds())
        await poller.plan(dict.fromkeys(targets, seconds))
        await _poll_all(poller, targets)
    finally:
        poller.close()
        for client in clients.values():
            await client.aclose()
    rows = list(_rows(poller.fleet))
    if output == "json":
        print(json.dumps([_as_json(target, did) for target, did in rows], ensure_ascii=False, indent=2))  # noqa: T201
    else:
        print(_text(_table(rows)), end="")  # noqa: T201
    if not all(state.up for state in poller.fleet.targets.values()):
        return COULD_NOT_TELL
    return ALL_READY if all(did.ready for _, did in rows) else SOME_NOT


async def _poll_all(poller: Poller, targets: list[Target]) -> None:
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal or len(targets) == 1) as progress:
        task = progress.add_task("polling", total=len(targets))
        for done in asyncio.as_completed([poller.poll(target) for target in targets]):
            await done
            progress.advance(task)


def _rows(fleet: Fleet) -> Iterator[tuple[Target, Did]]:
    for target, state in sorted(fleet.targets.items()):
        for did in state.snapshot.dids.values() if state.snapshot else ():
            yield target, did


def _text(table: Table) -> str:
    """Return what rich would print: it ends the process itself, and with exit code 1, when the reader goes away."""
    console = Console(width=None if sys.stdout.isatty() else FILE_WIDTH)
    with console.capture() as captured:
        console.print(table)
    return captured.get()


def _table(rows: list[tuple[Target, Did]]) -> Table:
    table = Table("account", "connection", Column("number", no_wrap=True), "state", "issues", "agent", "name")
    for target, did in rows:
        cells = (
            *(target.account, target.connection, did.label),
            *(did.state, " ".join(did.codes), did.entry.agent_name, did.entry.friendly_name),
        )
        printable = ("".join(char if char.isprintable() else "\ufffd" for char in cell) for cell in cells)
        table.add_row(*map(Text, printable), style=None if did.ready else "red")
    return table


def _as_json(target: Target, did: Did) -> dict[str, Any]:
    return {
        "account": target.account,
        "connection": target.connection,
        "phone_number": did.label,
        "state": did.state,
        "ready": did.ready,
        "issues": list(did.codes),
        "did_id": did.entry.did_id,
        "client_id": did.entry.client_id,
        "friendly_name": did.entry.friendly_name,
        "agent_name": did.entry.agent_name,
        "expired": did.entry.expired,
    }
