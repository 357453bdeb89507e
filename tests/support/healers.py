"""Daemons that heal in a hurry, and what their ledger has to agree with: the requests that the API got."""

from __future__ import annotations

import json
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from sqlalchemy import create_engine, update

from exporter.config import Config
from exporter.model import Outcome
from exporter.store import Store
from exporter.store.ledger import GONE_AFTER
from exporter.store.records import Status
from exporter.store.tables import heal_attempts, replicas

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from pathlib import Path

    from exporter.store.records import Attempt
    from tests.support.processes import Simulated

HASTE: dict[str, Any] = {
    "mode": "enforce",
    "confirm_polls": 2,
    "confirm_for": "0s",
    "verify_within": "2s",
    "probation": "1s",
    "backoff": {"initial": "1s", "max": "1s"},
    "max_attempts": 1000,
    "max_unhealthy": "100%",
    "max_per_hour": 100_000,
    "requests_per_minute": 10_000,
    "breaker": {"failures": 20, "open_for": "1s"},
    "hold_off_polls": 1,
}
GONE = GONE_AFTER + 1.0
CLOSE = 0.005  # seconds by which the clocks of two processes on one machine may seem to differ


def write_config(folder: Path, simulated: Simulated, url: str, interval: str = "250ms", **heal: object) -> str:
    """Write a configuration that heals in a hurry and return the flag that names it."""
    config = {
        "api": {
            "base_url": f"http://127.0.0.1:{simulated.port}/api/v2",
            "requests_per_minute": 100_000,
            "timeout": "2s",
        },
        "poll": {"interval": interval, "jitter": "0s", "stale_after": "5m"},
        "heal": HASTE | heal,
        "store": {"url": url},
        "web": {"listen_address": "127.0.0.1:0"},
    }
    file = folder / "voicelink-exporter.yml"
    file.write_text(json.dumps(config))  # which is YAML
    return f"--config.file={file}"


def environment_of(simulated: Simulated) -> dict[str, str]:
    """Return what a daemon with a configuration file needs besides."""
    return {"VOCOBASE_API_KEY": simulated.env["VOCOBASE_API_KEY"]}


def store_of(url: str) -> Store:
    """Return the store of a daemon, to look into it."""
    return Store(Config.model_validate({"store": {"url": url}}), "the test")


def let_a_minute_pass(url: str) -> None:
    """Do to a ledger what a minute without any daemon does, and be the replica that then takes over.

    Only what tells how long a replica is gone is made older. What was sent when stays as it is.
    """
    left = [row.id for row in ledger_of(url) if row.status in {Status.CLAIMED, Status.SENT}]
    _shift(url, left, -GONE)
    store = store_of(url)
    store.ledger.heartbeat(time.time())
    store.close()
    _shift(url, left, GONE)


def _shift(url: str, attempts: Collection[int], seconds: float) -> None:
    engine, these = create_engine(url), heal_attempts.c.id.in_(attempts)
    with engine.begin() as connection:
        connection.execute(update(replicas).values(seen_at=replicas.c.seen_at + seconds))
        connection.execute(update(heal_attempts).where(these).values(claimed_at=heal_attempts.c.claimed_at + seconds))
    engine.dispose()


def ledger_of(url: str) -> list[Attempt]:
    """Return all rows of a ledger, oldest first."""
    store = store_of(url)
    try:
        return store.ledger.history(limit=1_000_000)[::-1]
    finally:
        store.close()


def audit(rows: Sequence[Attempt], requests: Sequence[Mapping[str, Any]]) -> Counter[str]:
    """Hold the ledger against the call-ready requests that the API got; return what there was of each kind.

    Each request has one row that was `sent` before it and was not over, and no row has two requests. So no request was
    made while an earlier one for the same DID was unresolved.
    """
    figures: Counter[str] = Counter(requests=len(requests), rows=len(rows))
    used: Counter[int] = Counter()
    for request in requests:
        did = request["body"]["did_id"]
        of_it = [row for row in rows if row.body["did_id"] == did]
        assert len({row.number for row in of_it}) == 1, f"not one number for {request}"
        before = [row for row in of_it if row.sent_at is not None and row.sent_at <= request["time"] + CLOSE]
        assert before, f"no row for {request}"
        row = max(before, key=lambda each: each.sent_at or 0.0)
        assert row.ended_at is None or row.ended_at >= request["time"] - CLOSE, f"{row} was over before {request}"
        assert row.body == request["body"]
        used[row.id] += 1
    assert set(used.values()) <= {1}, f"more than one request on a row: {used.most_common(3)}"
    for row in rows:
        assert not (used[row.id] and row.outcome is Outcome.NOT_SENT), f"{row} was sent, and says it was not"
    for number in {row.number for row in rows}:
        _audit_did([row for row in rows if row.number == number])
    figures.update(str(row.outcome or row.status) for row in rows)
    figures["sent, and no request arrived"] = sum(row.sent_at is not None and not used[row.id] for row in rows)
    return figures


def _audit_did(rows: Iterable[Attempt]) -> None:
    """See that a DID's rows follow one another, and that only the last may be open."""
    previous = None
    for row in rows:
        if previous:
            assert not previous.open, f"{previous} is open, and yet there is {row}"
            assert (previous.ended_at or 0.0) <= row.claimed_at + CLOSE, f"{row} was claimed before {previous} was over"
        assert row.open == (row.ended_at is None)
        assert row.open == (row.outcome is None)
        previous = row
