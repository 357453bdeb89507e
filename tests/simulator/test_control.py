"""The control endpoint does over HTTP what the handle does in Python."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from starlette.applications import Starlette

from exporter.simulator import create_app, simulator_of

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

    from exporter.simulator import Simulator

    Start = Callable[..., tuple[httpx.AsyncClient, Simulator]]

HOST = "http://simulator"
FIRST = "+918011223344"


async def test_the_journal_can_be_read_and_cleared(start: Start) -> None:
    client, simulator = start()
    await client.post("/voicelink/sync", json={})
    journal = (await client.get(f"{HOST}/control/journal")).json()
    assert journal["writes"] == {"syncs": 1, "imports": 0, "heals": 0}
    assert journal["requests"] == [
        {
            "time": 1_800_000_000.0,
            "method": "POST",
            "path": "/api/v2/voicelink/sync",
            "query": {},
            "key": 0,
            "body": {},
            "endpoint": "sync",
            "connection_id": simulator.connection_ids[0],
            "status": 200,
        }
    ]
    assert (await client.delete(f"{HOST}/control/journal")).status_code == 204
    assert (await client.get(f"{HOST}/control/journal")).json()["requests"] == []


async def test_the_fleet_is_told_as_it_is(start: Start, now: list[float]) -> None:
    client, simulator = start(dids=2)
    simulator.set_did(FIRST, issues=["NO_BOT"])
    now[0] += 5
    fleet = (await client.get(f"{HOST}/control/fleet")).json()
    assert fleet["elapsed"] == 5
    assert fleet["connections"] == [
        {
            "connection_id": simulator.connection_ids[0],
            "name": "VoiceLink account 1",
            "status": "ACTIVE",
            "is_default": True,
        }
    ]
    assert list(fleet["dids"]) == simulator.numbers
    assert fleet["dids"][FIRST] == {
        "number": FIRST,
        "did_id": 800,
        "connection_id": simulator.connection_ids[0],
        "client_id": 415,
        "state": "NO_BOT",
        "issues": ["NO_BOT"],
        "expired": False,
        "imported": True,
        "removed": False,
        "agent_id": simulator.truth()[FIRST].agent_id,
        "bot_name": "Bot 1",
    }


async def test_a_did_is_changed(start: Start) -> None:
    client, simulator = start()
    change = {"issues": ["NO_BOT"], "client_id": None, "removed": True}
    answer = await client.put(f"{HOST}/control/dids/{FIRST}", json=change)
    assert answer.status_code == 200
    assert answer.json() == simulator.truth()[FIRST].as_json()
    assert (answer.json()["removed"], answer.json()["client_id"]) == (True, None)


@pytest.mark.parametrize(
    ("number", "content", "status"),
    [
        (FIRST, "{", 400),
        (FIRST, "[]", 400),
        (FIRST, '{"colour": 1}', 400),
        (FIRST, '{"expired": 1}', 400),
        (FIRST, '{"client_id": true}', 400),
        (FIRST, '{"issues": [1]}', 400),
        (FIRST, '{"connection_id": "x"}', 404),
        ("+911", "{}", 404),
    ],
)
async def test_a_wrong_change_is_refused(start: Start, number: str, content: str, status: int) -> None:
    client, simulator = start()
    before = simulator.truth()
    answer = await client.put(f"{HOST}/control/dids/{number}", content=content)
    assert (answer.status_code, answer.json()["success"]) == (status, False)
    assert simulator.truth() == before


async def test_a_connection_is_changed(start: Start) -> None:
    client, simulator = start()
    path = f"{HOST}/control/connections/{simulator.connection_ids[0]}"
    assert (await client.put(path, json={"status": "GONE"})).json()["status"] == "GONE"
    assert (await client.get("/telephony/connections")).json()["data"][0]["status"] == "GONE"
    assert (await client.put(path, json={"status": 1})).status_code == 400
    assert (await client.put(f"{HOST}/control/connections/x", json={"status": "GONE"})).status_code == 404


async def test_faults_come_and_go(start: Start) -> None:
    client, simulator = start()
    path = f"{HOST}/control/faults"
    added = await client.post(path, json={"kind": "status", "endpoint": "sync", "status": 503, "count": 1})
    assert (added.status_code, added.json()) == (201, {"id": 1})
    assert (await client.post(path, json={"fault": "latency:seconds=2"})).json() == {"id": 2}
    assert (await client.get(path)).json() == {"faults": ["status:sync:count=1,status=503", "latency:*:seconds=2.0"]}
    assert (await client.post("/voicelink/sync", json={})).status_code == 503
    assert (await client.delete(path)).status_code == 204
    assert simulator.faults() == []


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "a fault needs a kind"),
        ({"kind": 1}, "kind must be a string, not 1"),
        ({"kind": "status", "status": "500"}, "status must be an integer, not '500'"),
        ({"kind": "status", "status": True}, "status must be a number from 200 to 599, not True"),
        ({"kind": "status", "probability": "1"}, "probability must be a number from 0 to 1, not '1'"),
        ({"fault": "nonsense"}, "unknown fault 'nonsense'"),
    ],
)
async def test_a_wrong_fault_is_refused(start: Start, body: dict[str, object], said: str) -> None:
    client, simulator = start()
    answer = await client.post(f"{HOST}/control/faults", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith(said)
    assert simulator.faults() == []


async def test_control_is_neither_journalled_nor_limited(start: Start) -> None:
    client, simulator = start(rate_limit=1)
    for _ in range(3):
        assert (await client.get(f"{HOST}/control/fleet", headers={"Authorization": ""})).status_code == 200
    assert simulator.requests() == []


def test_the_handle_belongs_to_the_app() -> None:
    app = create_app()
    assert simulator_of(app) is app.state.simulator
    other = Starlette()
    other.state.simulator = None
    with pytest.raises(TypeError, match="no simulator"):
        simulator_of(other)


async def test_control_takes_json_objects_only(start: Start) -> None:
    client, _ = start()
    for content in ("{", "7"):
        answer = await client.post(f"{HOST}/control/faults", content=content)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "VALIDATION_ERROR")
