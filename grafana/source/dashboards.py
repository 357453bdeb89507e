"""All dashboards, and the files they are written to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

from grafana.source import did, fleet, heal, own

if TYPE_CHECKING:
    from grafana.source.model import Dashboard

FOLDER: Final = Path(__file__).parent.parent / "dashboards"


def dashboards() -> tuple[Dashboard, ...]:
    """Return every dashboard."""
    return fleet.dashboard(), did.dashboard(), heal.dashboard(), own.dashboard()


def files() -> dict[Path, str]:
    """Return every dashboard's file with its content."""
    return {
        FOLDER / f"{each.uid}.json": json.dumps(each.as_json(), indent=2, ensure_ascii=False) + "\n"
        for each in dashboards()
    }
