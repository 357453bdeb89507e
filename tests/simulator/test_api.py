"""The endpoints, as the vendor documents them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import phonenumbers
import pytest

from exporter.simulator.wire import CANARY

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

    from exporter.simulator import Simulator

    Start = Callable[..., tuple[httpx.AsyncClient, Simulator]]

READ = {"import_dids": False}
FIRST = "+918011223344"
UNKNOWN_UUID = "00000000-0000-4000-8000-000000000000"


def without_raw(value: object) -> object:
    if isinstance(value, dict):
        return {name: without_raw(inner) for name, inner in value.items() if name != "raw"}
    return [without_raw(inner) for inner in value] if isinstance(value, list) else value


async def test_lists_the_connections_and_the_first_is_the_default(start: Start) -> None:
    client, simulator = start(dids=6, connections=3)
    answer = (await client.get("/telephony/connections", params={"provider": "voicelink"})).json()
    assert answer["success"] is True
    assert [one["connection_id"] for one in answer["data"]] == simulator.connection_ids
    assert [one["is_default"] for one in answer["data"]] == [True, False, False]
    assert set(answer["data"][0]) == {
        "id", "connection_id", "provider", "provider_key", "name", "status", "is_default", "phone_numbers",
    }  # fmt: skip
    assert [number["phone_number"] for number in answer["data"][0]["phone_numbers"]] == [FIRST, "+918011223345"]


async def test_another_provider_has_no_connections(start: Start) -> None:
    client, _ = start()
    assert (await client.get("/telephony/connections", params={"provider": "twilio"})).json()["data"] == []


async def test_a_ready_entry_has_every_documented_field(start: Start) -> None:
    client, simulator = start(dids=2)
    data = (await client.post("/voicelink/sync", json=READ)).json()["data"]
    assert set(data) == {
        "clients", "dids", "available_dids", "bots", "routing", "local_phone_numbers", "readiness", "drift",
    }  # fmt: skip
    entry = data["readiness"][1]
    truth = simulator.truth()["+918011223345"]
    assert entry["key"] == "918011223345"
    assert (entry["state"], entry["issues"], entry["actions"], entry["action_items"]) == ("READY", [], [], [])
    assert set(entry["remote_did"]) == {
        "id", "status", "did_id", "did_number", "phone_number", "client_id", "is_expired", "raw",
    }  # fmt: skip
    assert entry["remote_did"]["did_id"] == truth.did_id == 801
    assert set(entry["local_phone_number"]) == {
        "id", "phone_number", "friendly_name", "status", "is_default", "inbound_enabled", "agent", "created_at",
        "updated_at",
    }  # fmt: skip
    assert entry["local_phone_number"]["agent"]["id"] == truth.agent_id
    assert entry["local_phone_number"]["updated_at"] == "2027-01-15T08:00:00.000Z"
    assert entry["routing"]["outbound_websocket_bot_id"] == entry["bot"]["id"]
    assert (entry["routing"]["for_inbound_call"], entry["routing"]["for_outbound_call"]) == (3, 3)
    assert (entry["bot"]["name"], entry["bot"]["status"]) == (truth.bot_name, 1)
    assert data["dids"] == [one["remote_did"] for one in data["readiness"]]
    assert data["bots"] == [one["bot"] for one in data["readiness"]]
    assert data["routing"] == [one["routing"] for one in data["readiness"]]
    assert data["local_phone_numbers"] == [one["local_phone_number"] for one in data["readiness"]]
    assert data["clients"] == [{"id": 415, "name": "Client 415"}]


async def test_the_vendors_sample_is_a_number_that_was_never_imported(start: Start) -> None:
    client, _ = start(dids=1, broken=1)
    data = (await client.post("/voicelink/sync", json=READ)).json()["data"]
    entry = data["readiness"][0]
    assert entry["state"] == "NO_BOT"
    assert entry["issues"] == ["NO_BOT", "ROUTING_MISSING", "NO_VOCOBASE_AGENT"]
    assert (entry["local_phone_number"], entry["routing"], entry["bot"]) == (None, None, None)
    assert "id" not in entry["remote_did"]
    assert "status" not in entry["remote_did"]
    assert len(entry["actions"]) == 3
    assert [item["code"] for item in entry["action_items"]] == entry["issues"]
    assert (data["bots"], data["routing"], data["local_phone_numbers"]) == ([], [], [])
    assert [item["key"] for item in data["drift"]] == ["918011223344"]


async def test_raw_objects_carry_the_canary_and_nothing_else_does(start: Start) -> None:
    client, _ = start(dids=4, broken=0.5)
    answer = await client.post("/voicelink/sync", json=READ)
    assert CANARY in answer.text
    assert CANARY not in json.dumps(without_raw(answer.json()))


async def test_numbers_are_valid_and_unique(start: Start) -> None:
    _, simulator = start(dids=500)
    assert simulator.numbers[0] == FIRST
    assert len(set(simulator.numbers)) == 500
    assert all(phonenumbers.is_valid_number(phonenumbers.parse(number)) for number in simulator.numbers)


async def test_a_sync_that_does_not_import_writes_nothing(start: Start) -> None:
    client, simulator = start(dids=8, broken=1)
    before = simulator.truth()
    await client.post("/voicelink/sync", json=READ)
    assert simulator.truth() == before
    assert (simulator.writes.syncs, simulator.writes.imports, simulator.writes.heals) == (0, 0, 0)


async def test_a_sync_imports_unless_told_otherwise(start: Start) -> None:
    client, simulator = start(dids=1, broken=1)
    data = (await client.post("/voicelink/sync")).json()["data"]
    assert data["readiness"][0]["local_phone_number"]["agent"] is None
    assert data["readiness"][0]["issues"] == ["NO_BOT", "ROUTING_MISSING", "NO_VOCOBASE_AGENT"]
    assert data["drift"] == []
    await client.post("/voicelink/sync", json={"import_dids": True})
    assert (simulator.writes.syncs, simulator.writes.imports) == (2, 1)


async def test_every_connection_has_numbers_of_its_own(start: Start) -> None:
    client, simulator = start(dids=5, connections=2)
    seen: list[str] = []
    for connection_id in simulator.connection_ids:
        body = {**READ, "connection_id": connection_id}
        data = (await client.post("/voicelink/sync", json=body)).json()["data"]
        seen += [entry["phone_number"] for entry in data["readiness"]]
    assert seen == simulator.numbers


async def test_without_a_connection_id_the_only_active_one_is_taken(start: Start) -> None:
    client, simulator = start(dids=4, connections=2)
    simulator.set_connection(simulator.connection_ids[0], status="DISCONNECTED")
    data = (await client.post("/voicelink/sync", json=READ)).json()["data"]
    assert [entry["phone_number"] for entry in data["readiness"]] == simulator.numbers[2:]


SYNC, HEAL, BOUGHT = "/voicelink/sync", "/voicelink/call-ready", "/voicelink/dids/purchased"
REFUSED: list[tuple[str, str, dict[str, Any], int, str]] = [
    ("POST", SYNC, {"json": {"connection_id": 7}}, 400, "VALIDATION_ERROR"),
    ("POST", SYNC, {"json": {"connection_id": "seven"}}, 400, "VALIDATION_ERROR"),
    ("POST", SYNC, {"json": {"connection_id": UNKNOWN_UUID}}, 404, "NOT_FOUND"),
    ("POST", SYNC, {"json": {"import_dids": "no"}}, 400, "VALIDATION_ERROR"),
    ("POST", SYNC, {"json": []}, 400, "VALIDATION_ERROR"),
    ("POST", SYNC, {"content": "{not json"}, 400, "VALIDATION_ERROR"),
    ("POST", SYNC, {"content": "[" * 100_000}, 400, "VALIDATION_ERROR"),
    ("POST", SYNC, {"content": b" " * 1_100_000}, 400, "VALIDATION_ERROR"),
    ("POST", SYNC, {"headers": {"Authorization": ""}}, 401, "UNAUTHORIZED"),
    ("POST", SYNC, {"headers": {"Authorization": "Bearer wrong"}}, 401, "UNAUTHORIZED"),
    ("POST", SYNC, {"headers": {"Authorization": "Basic rg_live_test"}}, 401, "UNAUTHORIZED"),
    ("POST", SYNC, {"params": {"api_key": "rg_live_test"}}, 401, "UNAUTHORIZED"),
    ("POST", SYNC, {"json": {"api_key": "rg_live_test"}}, 401, "UNAUTHORIZED"),
    ("GET", SYNC, {}, 404, "NOT_FOUND"),
    ("GET", "/voicelink/nothing", {}, 404, "NOT_FOUND"),
    ("GET", "http://simulator/voicelink/dids/purchased", {}, 404, "NOT_FOUND"),
    ("POST", HEAL, {"json": {}}, 400, "VALIDATION_ERROR"),
    ("POST", HEAL, {"json": {"did_id": 800, "did_number": FIRST}}, 400, "VALIDATION_ERROR"),
    ("POST", HEAL, {"json": {"did_id": "800"}}, 400, "VALIDATION_ERROR"),
    ("POST", HEAL, {"json": {"did_id": True}}, 400, "VALIDATION_ERROR"),
    ("POST", HEAL, {"json": {"did_number": 800}}, 400, "VALIDATION_ERROR"),
    ("POST", HEAL, {"json": {"did_id": 1}}, 404, "NOT_FOUND"),
    ("POST", HEAL, {"json": {"did_number": "+919999999999"}}, 404, "NOT_FOUND"),
    ("POST", HEAL, {"json": {"did_id": 800, "client_id": 0}}, 400, "VALIDATION_ERROR"),
    ("POST", HEAL, {"json": {"did_id": 800, "client_id": "415"}}, 400, "VALIDATION_ERROR"),
    ("POST", HEAL, {"json": {"did_id": 800, "client_id": 9999}}, 404, "NOT_FOUND"),
    ("POST", HEAL, {"json": {"did_id": 800, "client_id": 416}}, 409, "CONFLICT"),
    ("POST", HEAL, {"json": {"did_id": 800, "agent_id": "bob"}}, 400, "VALIDATION_ERROR"),
    ("POST", HEAL, {"json": {"did_id": 800, "bot_name": ""}}, 400, "VALIDATION_ERROR"),
    ("POST", HEAL, {"json": {"did_id": 800, "websocket_url": "nowhere"}}, 400, "VALIDATION_ERROR"),
    ("GET", BOUGHT, {"params": {"page": "0"}}, 400, "VALIDATION_ERROR"),
    ("GET", BOUGHT, {"params": {"page": "9" * 5000}}, 400, "VALIDATION_ERROR"),
    ("GET", BOUGHT, {"params": {"per_page": "many"}}, 400, "VALIDATION_ERROR"),
    ("GET", BOUGHT, {"params": {"connection_id": UNKNOWN_UUID}}, 404, "NOT_FOUND"),
]


@pytest.mark.parametrize(("method", "path", "how", "status", "code"), REFUSED)
async def test_refuses_with_the_error_envelope(  # noqa: PLR0917 - one row of the table
    start: Start, method: str, path: str, how: dict[str, Any], status: int, code: str
) -> None:
    client, simulator = start(dids=20)
    answer = await client.request(method, path, **how)
    assert answer.status_code == status
    assert answer.json()["success"] is False
    assert answer.json()["error"]["code"] == code
    assert answer.json()["error"]["message"]
    assert simulator.requests()[-1].status == status
    assert (simulator.writes.imports, simulator.writes.heals) == (0, 0)


async def test_several_active_connections_need_a_connection_id_where_it_belongs(start: Start) -> None:
    client, simulator = start(connections=2)
    named = {"connection_id": simulator.connection_ids[0]}
    assert (await client.post(SYNC, json=READ)).status_code == 400
    assert (await client.post(SYNC, json=READ, params=named)).status_code == 400
    assert (await client.post(SYNC, json={**READ, **named})).status_code == 200
    assert (await client.get(BOUGHT)).status_code == 400
    assert (await client.get(BOUGHT, params=named)).status_code == 200
    assert (await client.get("/telephony/connections")).status_code == 200


async def test_an_inactive_connection_is_forbidden_and_none_is_not_found(start: Start) -> None:
    client, simulator = start()
    simulator.set_connection(simulator.connection_ids[0], status="SUSPENDED")
    named = {"connection_id": simulator.connection_ids[0]}
    forbidden = await client.post(SYNC, json={**READ, **named})
    assert (forbidden.status_code, forbidden.json()["error"]["code"]) == (403, "FORBIDDEN")
    assert (await client.post(SYNC, json=READ)).status_code == 404


async def test_a_number_of_another_connection_is_not_found(start: Start) -> None:
    client, simulator = start(dids=4, connections=2)
    body = {"connection_id": simulator.connection_ids[1], "did_number": FIRST}
    assert (await client.post(HEAL, json=body)).status_code == 404


async def test_only_the_keys_given_are_valid(start: Start) -> None:
    client, _ = start(api_keys=("one", "two"))
    for key, status in (("one", 200), ("two", 200), ("three", 401), ("rg_live_test", 401)):
        answer = await client.get("/telephony/connections", headers={"Authorization": f"Bearer {key}"})
        assert answer.status_code == status


async def test_the_rate_limit_slides_and_is_a_keys_own(start: Start, now: list[float]) -> None:
    client, _ = start(rate_limit=2)
    path = "/telephony/connections"

    async def status(key: str = "rg_live_a") -> int:
        return (await client.get(path, headers={"Authorization": f"Bearer {key}"})).status_code

    assert await status() == 200
    now[0] += 30
    assert [await status(), await status()] == [200, 429]
    assert await status("rg_live_b") == 200
    now[0] += 30
    assert [await status(), await status()] == [200, 429]


@pytest.mark.parametrize(("told", "expected"), [(True, "48"), (False, None)])
async def test_retry_after_comes_by_option(start: Start, now: list[float], told: bool, expected: str | None) -> None:  # noqa: FBT001
    client, _ = start(rate_limit=1, retry_after=told)
    await client.get("/telephony/connections")
    now[0] += 12.5
    answer = await client.get("/telephony/connections")
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "LIMIT_REACHED")
    assert answer.headers.get("retry-after") == expected


async def test_no_rate_limit(start: Start) -> None:
    client, _ = start(rate_limit=0)
    assert {(await client.get("/telephony/connections")).status_code for _ in range(100)} == {200}


async def test_purchased_dids_come_in_pages(start: Start) -> None:
    client, simulator = start(dids=20)
    first = (await client.get(BOUGHT)).json()["data"]
    assert (len(first["data"]), first["total"], first["last_page"]) == (15, 20, 2)
    assert set(first["data"][0]) == {"id", "did_id", "did_number", "client_id", "status"}
    third = (await client.get(BOUGHT, params={"per_page": 8, "page": 3})).json()["data"]
    assert [f"+{row['did_number']}" for row in third["data"]] == simulator.numbers[16:]


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        ({"client_id": 415}, 10),
        ({"client_id": 1}, 0),
        ({"status": "expired"}, 1),
        ({"status": "ACTIVE"}, 19),
        ({"did_type": "local"}, 20),
        ({"did_type": "mobile"}, 0),
    ],
)
async def test_purchased_dids_are_filtered(start: Start, filters: dict[str, str | int], count: int) -> None:
    client, simulator = start(dids=20)
    simulator.set_did("+918011223363", expired=True)
    data = (await client.get(BOUGHT, params={"per_page": 100, **filters})).json()["data"]
    assert len(data["data"]) == count


async def test_the_journal_tells_what_was_asked_and_never_a_key(start: Start, now: list[float]) -> None:
    client, simulator = start()
    await client.post(SYNC, json=READ)
    now[0] += 1
    await client.get(BOUGHT, params={"page": 2}, headers={"Authorization": "Bearer rg_live_other"})
    await client.get("/nothing", headers={"Authorization": ""})
    sync, bought, nothing = simulator.requests()
    assert (sync.method, sync.path, sync.endpoint, sync.body, sync.status) == (
        "POST", "/api/v2/voicelink/sync", "sync", READ, 200,
    )  # fmt: skip
    assert sync.connection_id == simulator.connection_ids[0]
    assert (bought.query, bought.body, bought.time) == ({"page": "2"}, None, now[0])
    assert [sync.key, bought.key, nothing.key] == [0, 1, -1]
    assert simulator.requests("purchased") == [bought]
    assert "rg_live" not in str(simulator.requests())
    simulator.clear_journal()
    assert simulator.requests() == []


async def test_the_journal_is_bounded(start: Start) -> None:
    client, simulator = start(journal_size=2)
    for page in (1, 2, 3):
        await client.get(BOUGHT, params={"page": page})
    assert [seen.query["page"] for seen in simulator.requests()] == ["2", "3"]
