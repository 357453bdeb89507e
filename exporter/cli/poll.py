"""`poll`: asks once about everything and prints what there is."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from rich.table import Column, Table
from rich.text import Text

from exporter.cli.output import COULD_NOT_TELL, plain, print_table
from exporter.cli.session import Session

if TYPE_CHECKING:
    from collections.abc import Iterator

    from exporter.config import Settings
    from exporter.model import Did, Target
    from exporter.snapshots import Fleet

ALL_READY, SOME_NOT = 0, 1


async def poll_once(settings: Settings, output: str) -> int:
    """Poll every target once and print the DIDs; return 0 all ready, 1 some not, 2 could not tell."""
    async with Session(settings) as session:
        fleet, unknown = session.poller.fleet, session.unknown
    rows = list(_rows(fleet))
    if output == "json":
        print(json.dumps([_as_json(target, did) for target, did in rows], ensure_ascii=False, indent=2))  # noqa: T201
    elif rows or not unknown:
        print_table(_table(rows))
    if unknown:
        for each in unknown:
            print(f"voicelink-exporter: {each}", file=sys.stderr)  # noqa: T201
        return COULD_NOT_TELL
    return ALL_READY if all(did.ready for _, did in rows) else SOME_NOT


def _rows(fleet: Fleet) -> Iterator[tuple[Target, Did]]:
    for target, state in sorted(fleet.targets.items()):
        for did in state.snapshot.dids.values() if state.snapshot else ():
            yield target, did


def _table(rows: list[tuple[Target, Did]]) -> Table:
    table = Table("account", "connection", Column("number", no_wrap=True), "state", "issues", "agent", "name")
    for target, did in rows:
        cells = (
            *(target.account, target.connection, did.label),
            *(did.state, " ".join(did.codes), did.entry.agent_name, did.entry.friendly_name),
        )
        table.add_row(*(Text(plain(cell)) for cell in cells), style=None if did.ready else "red")
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
