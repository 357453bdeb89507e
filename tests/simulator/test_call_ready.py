"""What call-ready mends and what it leaves alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

    from exporter.simulator import Simulator

    Start = Callable[..., tuple[httpx.AsyncClient, Simulator]]

FIRST = "+918011223344"
AGENT = "f4df9f8c-df95-46d8-bb0e-6f9f83fd4f55"


async def call(client: httpx.AsyncClient, **body: object) -> dict[str, Any]:
    answer = await client.post("/voicelink/call-ready", json={"did_number": FIRST, **body})
    assert answer.status_code == 200
    data: dict[str, Any] = answer.json()["data"]
    data["by_step"] = {step["step"]: step["status"] for step in data["steps"]}
    return data


async def test_mends_bot_and_routing(start: Start) -> None:
    client, simulator = start()
    simulator.set_did(FIRST, issues=["ROUTING_MISSING", "NO_BOT"])
    data = await call(client, bot_name="Sales line", websocket_url="wss://bots.example/1")
    assert data["ready"] is True
    assert data["key"] == "918011223344"
    assert data["readiness_before"]["issues"] == ["NO_BOT", "ROUTING_MISSING"]
    assert data["readiness"]["issues"] == []
    assert data["readiness"]["bot"]["name"] == "Sales line"
    assert data["readiness"]["routing"]["outbound_websocket_bot_id"] == data["readiness"]["bot"]["id"]
    assert data["by_step"] == {
        "resolve_did": "done",
        "import_did": "skipped",
        "map_client": "skipped",
        "ensure_bot": "done",
        "ensure_routing": "done",
        "assign_agent": "skipped",
    }
    assert simulator.truth()[FIRST].ready
    assert simulator.writes.heals == 1


async def test_the_mended_did_is_ready_in_the_next_sync(start: Start) -> None:
    client, simulator = start(dids=1)
    simulator.set_did(FIRST, issues=["NO_BOT"])
    await client.post("/voicelink/sync", json={"import_dids": False})
    await call(client)
    data = (await client.post("/voicelink/sync", json={"import_dids": False})).json()["data"]
    assert data["readiness"][0]["state"] == "READY"


async def test_takes_a_did_id_too(start: Start) -> None:
    client, _ = start()
    answer = await client.post("/voicelink/call-ready", json={"did_id": 803})
    assert answer.json()["data"]["phone_number"] == "+918011223347"


async def test_a_ready_did_stays_as_it_is(start: Start) -> None:
    client, simulator = start()
    before = simulator.truth()
    data = await call(client, bot_name="Other", client_id=415)
    assert data["readiness"] == data["readiness_before"]
    assert simulator.truth() == before


async def test_an_agent_is_assigned_only_when_named(start: Start) -> None:
    client, simulator = start()
    simulator.set_did(FIRST, issues=["NO_VOCOBASE_AGENT"])
    data = await call(client)
    assert (data["ready"], data["by_step"]["assign_agent"]) == (False, "blocked")
    assert data["readiness"]["local_phone_number"]["agent"] is None
    data = await call(client, agent_id=AGENT)
    assert (data["ready"], data["by_step"]["assign_agent"]) == (True, "done")
    assert data["readiness"]["local_phone_number"]["agent"]["id"] == AGENT
    assert (await call(client, agent_id=AGENT))["by_step"]["assign_agent"] == "skipped"


async def test_the_agent_it_had_can_be_assigned_again(start: Start) -> None:
    client, simulator = start()
    name = simulator.set_did(FIRST, issues=["NO_VOCOBASE_AGENT"])
    data = await call(client, agent_id=name.agent_id)
    assert data["readiness"]["local_phone_number"]["agent"] == {"id": name.agent_id, "name": "Agent 1"}


async def test_imports_what_was_never_imported(start: Start) -> None:
    client, simulator = start()
    simulator.set_did(FIRST, imported=False)
    data = await call(client)
    assert data["by_step"]["import_did"] == "done"
    assert data["readiness_before"]["local_phone_number"] is None
    assert data["readiness"]["local_phone_number"]["phone_number"] == FIRST
    assert data["readiness"]["issues"] == ["NO_VOCOBASE_AGENT"]
    assert simulator.writes.imports == 1


async def test_maps_an_unmapped_did_when_a_client_is_named(start: Start) -> None:
    client, simulator = start()
    simulator.set_did(FIRST, client_id=None)
    data = await call(client)
    assert data["readiness"]["issues"] == ["DID_UNMAPPED", "NO_BOT", "ROUTING_MISSING"]
    assert (data["ready"], data["by_step"]["ensure_bot"], data["by_step"]["map_client"]) == (False, *["blocked"] * 2)
    data = await call(client, client_id=416)
    assert (data["ready"], data["by_step"]["map_client"]) == (True, "done")
    assert simulator.truth()[FIRST].client_id == 416


async def test_never_maps_a_mapped_did_anew(start: Start) -> None:
    client, simulator = start()
    simulator.set_did(FIRST, issues=["NO_BOT"])
    before = simulator.truth()
    answer = await client.post("/voicelink/call-ready", json={"did_number": FIRST, "client_id": 416})
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "CONFLICT")
    assert simulator.truth() == before


@pytest.mark.parametrize(
    ("issues", "left"), [(["DID_EXPIRED", "NO_BOT"], ["DID_EXPIRED"]), (["AGENT_PAUSED"], ["AGENT_PAUSED"])]
)
async def test_leaves_what_it_can_not_mend(start: Start, issues: list[str], left: list[str]) -> None:
    client, simulator = start()
    simulator.set_did(FIRST, issues=issues)
    data = await call(client, agent_id=AGENT)
    assert data["ready"] is False
    assert data["readiness"]["issues"] == left
    assert data["readiness"]["state"] == left[0]


async def test_heals_every_standing_break_it_can(start: Start) -> None:
    client, simulator = start(dids=8, broken=1, rate_limit=0)
    before = simulator.truth()
    assert not any(truth.ready for truth in before.values())
    for truth in before.values():
        await call(client, did_number=truth.number, agent_id=AGENT, client_id=truth.client_id or 415)
    left = sorted(truth.state for truth in simulator.truth().values() if not truth.ready)
    assert left == ["AGENT_PAUSED", "DID_EXPIRED"]
