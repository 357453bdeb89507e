"""A store as version 0.1.0 left it: its schema and rows in raw SQL, as if it had been killed at work."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.simulation.fleet import Did, Fleet
    from tests.simulation.scenario import Scenario
    from tests.simulation.stores import Place

_TABLES: Final = (
    "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)",
    "INSERT INTO alembic_version VALUES ('0001')",
    (
        'CREATE TABLE did_states (account VARCHAR(200) NOT NULL, "connection" VARCHAR(64) NOT NULL, '
        "number VARCHAR(64) NOT NULL, state VARCHAR(64) NOT NULL, since {float} NOT NULL, changes INTEGER NOT NULL, "
        'PRIMARY KEY (account, "connection", number))'
    ),
    (
        "CREATE TABLE did_transitions (id {serial}, account VARCHAR(200) NOT NULL, "
        '"connection" VARCHAR(64) NOT NULL, number VARCHAR(64) NOT NULL, at {float} NOT NULL, old VARCHAR(64), '
        "new VARCHAR(64) NOT NULL, issues JSON NOT NULL)"
    ),
    "CREATE INDEX did_transitions_number ON did_transitions (number, at)",
    "CREATE INDEX did_transitions_at ON did_transitions (at)",
    (
        "CREATE TABLE heal_attempts (id {serial}, number VARCHAR(64) NOT NULL, account VARCHAR(200) NOT NULL, "
        '"connection" VARCHAR(64) NOT NULL, status VARCHAR(16) NOT NULL, token VARCHAR(36) NOT NULL, '
        "replica VARCHAR(200) NOT NULL, issues JSON NOT NULL, body JSON NOT NULL, manual BOOLEAN NOT NULL, "
        "charged BOOLEAN NOT NULL, feeds BOOLEAN NOT NULL, outcome VARCHAR(16), claimed_at {float} NOT NULL, "
        "sent_at {float}, answered_at {float}, ended_at {float}, http_status INTEGER, steps JSON NOT NULL, "
        "readiness_before JSON, readiness JSON, reason TEXT NOT NULL, broken_since {float})"
    ),
    "CREATE UNIQUE INDEX heal_attempts_one_open ON heal_attempts (number) WHERE status <> 'ended'",
    "CREATE INDEX heal_attempts_account ON heal_attempts (account, claimed_at)",
    "CREATE INDEX heal_attempts_number ON heal_attempts (number, claimed_at)",
    (
        "CREATE TABLE heal_dids (number VARCHAR(64) NOT NULL PRIMARY KEY, account VARCHAR(200) NOT NULL, "
        '"connection" VARCHAR(64) NOT NULL, state VARCHAR(16) NOT NULL, since {float} NOT NULL, '
        "until {float} NOT NULL, "
        "failures INTEGER NOT NULL, forgotten_at {float} NOT NULL, broken_since {float}, reason TEXT NOT NULL, "
        "version INTEGER NOT NULL)"
    ),
    "CREATE INDEX heal_dids_account ON heal_dids (account)",
    (
        "CREATE TABLE heal_accounts (account VARCHAR(200) NOT NULL PRIMARY KEY, paused TEXT, "
        "resumed_at {float} NOT NULL, "
        "latched TEXT, latch_print VARCHAR(64) NOT NULL, latched_at {float} NOT NULL, "
        "key_paused_until {float} NOT NULL, "
        "forbidden_at {float} NOT NULL)"
    ),
    "CREATE TABLE replicas (replica VARCHAR(200) NOT NULL PRIMARY KEY, seen_at {float} NOT NULL)",
)
_BROKEN: Final = ("NO_BOT",)


def fill(place: Place, scenario: Scenario, fleet: Fleet) -> list[dict[str, Any]]:
    """Make the store, with attempts in every state; return its rows of attempts. Numbers under way are broken."""
    lite = place.url.startswith("sqlite")
    serial = "INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT" if lite else "SERIAL NOT NULL PRIMARY KEY"
    types = {"float": "FLOAT" if lite else "DOUBLE PRECISION", "serial": serial}
    rng = random.Random(f"{scenario.seed}/upgrade")  # noqa: S311 - the same each time
    rows = list(_attempts(scenario, fleet, rng))
    statements = [table.format(**types) for table in _TABLES]
    statements += [_insert("heal_attempts", row) for row in rows]
    statements += [_insert("heal_dids", _did(row, scenario.epoch)) for row in rows if row["status"] == "ended"]
    statements += [
        _insert(
            "heal_accounts",
            {
                "account": name,
                "paused": "before the upgrade" if not name and rng.random() < 0.2 else None,
                "resumed_at": 0.0,
                "latched": None,
                "latch_print": "",
                "latched_at": 0.0,
                "key_paused_until": 0.0,
                "forbidden_at": 0.0,
            },
        )
        for name in ("", *(account.name for account in scenario.setup.accounts))
    ]
    statements.append(_insert("replicas", {"replica": "before", "seen_at": scenario.epoch - rng.choice([5, 3600])}))
    place.execute(statements)
    return rows


def _attempts(scenario: Scenario, fleet: Fleet, rng: random.Random) -> Iterator[dict[str, Any]]:
    accounts = {
        connection: account.name
        for account, own in zip(scenario.setup.accounts, scenario.connections, strict=True)
        for connection in own
    }
    kinds = ["claimed", "sent", "ambiguous", "verifying", "succeeded", "failed", "rejected", "not_sent"]
    dids = rng.sample(sorted(fleet.dids.values(), key=lambda did: did.number), rng.randint(1, 6))
    for index, did in enumerate(dids, 1):
        kind = rng.choice(kinds)
        at = scenario.epoch - rng.choice([2.0, 30.0, 600.0, 3000.0, 40000.0]) - index
        yield _attempt(index, did, accounts[did.connection], kind=kind, at=at, rng=rng)
        if kind not in {"succeeded", "not_sent"}:
            fleet.change(did, _BROKEN)


def _attempt(index: int, did: Did, account: str, *, kind: str, at: float, rng: random.Random) -> dict[str, Any]:
    is_open = kind in {"claimed", "sent", "ambiguous", "verifying"}
    was_sent = kind not in {"claimed", "not_sent"}
    answered = at + 1 if kind not in {"claimed", "sent", "not_sent"} else None
    return {
        "id": index,
        "number": did.number,
        "account": account,
        "connection": did.connection,
        "status": kind if is_open else "ended",
        "token": str(UUID(int=rng.getrandbits(128), version=4)),
        "replica": "before",
        "issues": list(_BROKEN),
        "body": {"did_number": did.number.removeprefix("+"), "connection_id": did.connection},
        "manual": False,
        "charged": was_sent and kind != "sent",
        "feeds": was_sent and kind != "sent",
        "outcome": None if is_open else kind,
        "claimed_at": at,
        "sent_at": at + 0.5 if was_sent else None,
        "answered_at": answered,
        "ended_at": None if is_open else at + 700,
        "http_status": {"verifying": 200, "rejected": 409, "succeeded": 200, "failed": 200}.get(kind),
        "steps": [],
        "readiness_before": None,
        "readiness": None,
        "reason": "" if is_open else "as version 0.1.0 said",
        "broken_since": at - 200,
    }


def _did(row: dict[str, Any], epoch: float) -> dict[str, Any]:
    state = {"succeeded": "probation", "not_sent": "idle"}.get(row["outcome"], "backoff")
    return {
        "number": row["number"],
        "account": row["account"],
        "connection": row["connection"],
        "state": state,
        "since": min(row["ended_at"], epoch),
        "until": row["ended_at"] + 600 if state == "backoff" else 0.0,
        "failures": int(state == "backoff"),
        "forgotten_at": 0.0,
        "broken_since": row["broken_since"],
        "reason": row["reason"],
        "version": 1,
    }


def _insert(table: str, row: dict[str, Any]) -> str:
    names = ", ".join(f'"{name}"' for name in row)
    return f"INSERT INTO {table} ({names}) VALUES ({', '.join(_literal(value) for value in row.values())})"  # noqa: S608 - ours


def _literal(value: Any) -> str:  # noqa: ANN401 - what a column holds
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, list | dict):
        value = json.dumps(value)
    return f"'{value}'" if isinstance(value, str) else repr(value)
