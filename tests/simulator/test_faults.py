"""Each kind of fault, when it strikes and what it does to an answer."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from exporter.simulator import Fault, parse_fault
from exporter.simulator.faults import CHOICES, PARAMETERS, FaultBook
from exporter.simulator.mutate import MARKUP

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

    from exporter.simulator import Simulator

    Start = Callable[..., tuple[httpx.AsyncClient, Simulator]]

FIRST = "+918011223344"
READ = {"import_dids": False}
CALLS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "sync": ("POST", "/voicelink/sync", {"json": READ}),
    "connections": ("GET", "/telephony/connections", {}),
    "call_ready": ("POST", "/voicelink/call-ready", {"json": {"did_id": 800}}),
    "purchased": ("GET", "/voicelink/dids/purchased", {}),
}


async def ask(client: httpx.AsyncClient, endpoint: str = "sync") -> httpx.Response:
    method, path, how = CALLS[endpoint]
    return await client.request(method, path, **how)


async def readiness(client: httpx.AsyncClient) -> list[Any]:
    entries: list[Any] = (await ask(client)).json()["data"]["readiness"]
    return entries


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "VALIDATION_ERROR"),
        (401, "UNAUTHORIZED"),
        (403, "FORBIDDEN"),
        (404, "NOT_FOUND"),
        (409, "CONFLICT"),
        (429, "LIMIT_REACHED"),
        (500, "INTERNAL_ERROR"),
        (503, "INTERNAL_ERROR"),
        (418, "HTTP_418"),
    ],
)
@pytest.mark.parametrize("endpoint", CALLS)
async def test_status_has_the_envelope(start: Start, endpoint: str, status: int, code: str) -> None:
    client, simulator = start(faults=(Fault(kind="status", endpoint=endpoint, status=status),))
    answer = await ask(client, endpoint)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert simulator.requests()[-1].status == status
    assert simulator.writes.heals == 0


async def test_status_can_redirect_say_nothing_or_tell_when_to_come_back(start: Start) -> None:
    client, simulator = start()
    simulator.add_fault("status:sync:status=302,location=https://elsewhere.example/x,count=1")
    answer = await ask(client)
    assert (answer.status_code, answer.headers["location"], answer.text) == (302, "https://elsewhere.example/x", "")
    simulator.add_fault("status:sync:status=204,count=1")
    assert (await ask(client)).status_code == 204
    simulator.add_fault("status:sync:status=429,retry_after=7,count=1")
    assert (await ask(client)).headers["retry-after"] == "7"
    assert (await ask(client)).status_code == 200


async def test_latency_waits_and_adds_up(start: Start, slept: list[float]) -> None:
    client, simulator = start(latency=0.25)
    await ask(client)
    simulator.add_fault("latency:sync:seconds=2")
    simulator.add_fault("latency")
    await ask(client)
    await ask(client, "connections")
    assert slept == [0.25, 3.25, 1.25]


async def test_hang_answers_nothing_that_can_be_used(start: Start, slept: list[float]) -> None:
    client, simulator = start(faults=(Fault(kind="hang", seconds=12),))
    answer = await ask(client)
    assert (slept, answer.content) == ([12], b"")
    assert simulator.requests()[-1].status is None


async def test_drip_comes_piece_by_piece(start: Start, slept: list[float]) -> None:
    client, simulator = start(dids=1)
    whole = (await ask(client)).content
    simulator.add_fault("drip:seconds=0.5,size=100")
    assert (await ask(client)).content == whole
    assert slept == [0.5] * -(-len(whole) // 100)


async def test_truncate_cuts_the_json(start: Start) -> None:
    client, simulator = start(dids=1)
    whole = (await ask(client)).content
    simulator.add_fault("truncate")
    cut = (await ask(client)).content
    assert whole.startswith(cut)
    assert 0 < len(cut) < len(whole)


async def test_oversize_is_json_of_the_size_asked_for(start: Start) -> None:
    client, simulator = start(dids=1)
    whole = (await ask(client)).json()
    simulator.add_fault("oversize:size=200000,count=1")
    answer = await ask(client)
    assert (len(answer.content), answer.json()) == (200_000, whole)
    assert "content-length" not in answer.headers
    simulator.add_fault("oversize:size=1")
    assert (await ask(client)).json() == whole


async def test_html_and_not_json_are_fine_by_their_status(start: Start) -> None:
    client, simulator = start()
    simulator.add_fault("html:count=1")
    answer = await ask(client)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "<h1>" in answer.text
    simulator.add_fault("not_json")
    answer = await ask(client)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    with pytest.raises(json.JSONDecodeError):
        answer.json()


@pytest.mark.parametrize("endpoint", CALLS)
@pytest.mark.parametrize("level", CHOICES["wrong_types", "level"])
async def test_wrong_types_at_each_level(start: Start, endpoint: str, level: str) -> None:
    client, simulator = start(dids=3)
    good = (await ask(client, endpoint)).json()
    simulator.add_fault(Fault(kind="wrong_types", level=level))
    bad = (await ask(client, endpoint)).json()
    assert bad != good
    assert isinstance(bad, list) == (level == "root")
    if level not in ("root", "data"):
        assert bad["success"] is True


async def test_wrong_types_spare_no_field(start: Start) -> None:
    client, simulator = start(dids=1)
    good = (await readiness(client))[0]
    simulator.add_fault("wrong_types")
    bad = (await readiness(client))[0]
    assert set(bad) == set(good)
    assert all(type(bad[name]) is not type(good[name]) for name in good)
    rows = (await ask(client, "connections")).json()["data"][0]
    assert isinstance(rows["is_default"], str)


async def test_unknown_states_follow_each_other_or_are_named(start: Start) -> None:
    client, simulator = start(dids=3)
    simulator.add_fault("unknown_states:count=1")
    assert [entry["state"] for entry in await readiness(client)] == [
        "PROVIDER_SUSPENDED",
        "KYC_PENDING",
        "not a code!",
    ]
    simulator.add_fault("unknown_states:state=ODD")
    assert [entry["issues"] for entry in await readiness(client)] == [["ODD"]] * 3
    assert all(truth.ready for truth in simulator.truth().values())


async def test_null_fields_of_the_entry_or_of_what_is_in_it(start: Start) -> None:
    client, simulator = start(dids=1)
    simulator.add_fault("null_fields:count=1")
    entry = (await readiness(client))[0]
    assert {name for name, value in entry.items() if value is not None} == {"key", "phone_number"}
    simulator.add_fault("null_fields:level=field")
    entry = (await readiness(client))[0]
    assert entry["state"] == "READY"
    assert set(entry["remote_did"].values()) == set(entry["bot"].values()) == {None}


async def test_extra_fields_are_everywhere(start: Start) -> None:
    client, simulator = start(dids=1)
    simulator.add_fault("extra_fields")
    answer = (await ask(client)).json()
    entry = answer["data"]["readiness"][0]
    assert all("x_new" in where for where in (answer, answer["data"], entry, entry["bot"], entry["remote_did"]))
    assert "x_new" in (await ask(client, "connections")).json()


async def test_markup_is_in_every_string_but_what_identifies(start: Start) -> None:
    client, simulator = start(dids=1)
    simulator.add_fault("markup")
    entry = (await readiness(client))[0]
    assert entry["phone_number"] == FIRST
    assert entry["state"] == "READY" + MARKUP
    assert entry["local_phone_number"]["agent"]["name"] == "Agent 1" + MARKUP
    connection = (await ask(client, "connections")).json()["data"][0]
    assert connection["id"] == simulator.connection_ids[0]
    assert connection["name"].endswith(MARKUP)


async def test_markup_can_be_any_text(start: Start) -> None:
    client, simulator = start(dids=1)
    simulator.add_fault(Fault(kind="markup", endpoint="sync", text="a, b: <c>=\u2028"))
    assert (await readiness(client))[0]["state"] == "READYa, b: <c>=\u2028"
    assert "text=a, b" in simulator.faults()[0].spec()


@pytest.mark.parametrize("dids", [1, 7])
async def test_many_codes_are_all_there(start: Start, dids: int) -> None:
    client, simulator = start(dids=dids)
    simulator.add_fault("many_codes:codes=50")
    entries = await readiness(client)
    assert len({code for entry in entries for code in entry["issues"]}) == 50
    assert all(entry["state"] == entry["issues"][0] for entry in entries)


async def test_fewer_codes_than_dids(start: Start) -> None:
    client, simulator = start(dids=3)
    simulator.add_fault("many_codes:codes=1")
    assert [entry["state"] for entry in await readiness(client)] == ["SIM_CODE_000000", "READY", "READY"]


async def test_duplicates_name_each_did_twice(start: Start) -> None:
    client, simulator = start(dids=2)
    simulator.add_fault("duplicates")
    assert [entry["key"][-1] for entry in await readiness(client)] == ["4", "5", "4", "5"]


@pytest.mark.parametrize(("variant", "bad"), [("both", 2), ("number", 1), ("unnumbered", 1)])
async def test_invalid_entries_stand_before_the_good_ones(start: Start, variant: str, bad: int) -> None:
    client, simulator = start(dids=2)
    good = await readiness(client)
    simulator.add_fault(f"invalid_entry:variant={variant}")
    entries = await readiness(client)
    assert entries[bad:] == good
    assert all(entry == 42 or "key" not in entry for entry in entries[:bad])


async def test_partial_drops_a_share(start: Start) -> None:
    client, simulator = start(dids=20)
    simulator.add_fault("partial:percent=25")
    first = await readiness(client)
    assert len(first) == 15
    assert first == await readiness(client)
    assert len(simulator.numbers) == 20


@pytest.mark.parametrize("shape", CHOICES["envelope", "shape"])
async def test_envelope_moves_the_list_of_connections(start: Start, shape: str) -> None:
    client, simulator = start(connections=2)
    simulator.add_fault(f"envelope:shape={shape}")
    found = (await ask(client, "connections")).json()
    for name in shape.split("."):
        found = found[name]
    assert [one["id"] for one in found] == simulator.connection_ids


async def test_other_faults_find_the_list_wherever_it_is(start: Start) -> None:
    client, simulator = start()
    simulator.add_fault("envelope:shape=data.data")
    simulator.add_fault("duplicates")
    assert len((await ask(client, "connections")).json()["data"]["data"]) == 2
    assert "readiness" in (await ask(client)).json()["data"]


async def test_faults_after_one_that_left_no_object_do_nothing(start: Start) -> None:
    client, simulator = start()
    simulator.add_fault("wrong_types:level=root")
    simulator.add_fault("markup")
    assert (await ask(client)).json()[0]["success"] is True


async def test_content_faults_bear_an_answer_without_data(start: Start) -> None:
    client, simulator = start(dids=2)
    simulator.add_fault("wrong_types:level=data")
    for kind in ("duplicates", "extra_fields", "wrong_types:level=entry", "wrong_types:level=readiness"):
        simulator.add_fault(kind)
    assert (await ask(client)).json()["success"] is True
    assert (await ask(client, "call_ready")).json()["success"] is True


@pytest.mark.parametrize(("spec", "status"), [("act_then_fail:status=502", 502), ("act_then_fail:then=hang", 200)])
async def test_act_then_fail_acts(start: Start, spec: str, status: int) -> None:
    client, simulator = start()
    simulator.set_did(FIRST, issues=["NO_BOT"])
    simulator.add_fault(spec)
    answer = await ask(client, "call_ready")
    assert answer.status_code == status
    assert "readiness" not in answer.text
    assert simulator.truth()[FIRST].ready
    assert simulator.writes.heals == 1


async def test_a_fault_never_changes_the_truth(start: Start) -> None:
    client, simulator = start(dids=6, broken=0.5)
    before, truth = (await ask(client)).content, simulator.truth()
    for kind in PARAMETERS:
        simulator.add_fault(Fault(kind=kind, count=1))
        await ask(client)
        simulator.clear_faults()
    assert simulator.truth() == truth
    assert (await ask(client)).content == before


async def test_count_and_after(start: Start) -> None:
    client, simulator = start()
    simulator.add_fault("status:sync:status=503,after=1,count=2")
    assert [(await ask(client)).status_code for _ in range(5)] == [200, 503, 503, 200, 200]
    assert simulator.faults() == []


async def test_a_fault_of_one_endpoint_or_one_connection(start: Start) -> None:
    client, simulator = start(connections=2)
    first, second = simulator.connection_ids
    simulator.add_fault(f"status:sync:connection={second}")
    assert (await client.post("/voicelink/sync", json={**READ, "connection_id": first})).status_code == 200
    assert (await client.post("/voicelink/sync", json={**READ, "connection_id": second})).status_code == 500
    params = {"connection_id": second}
    assert (await client.get("/voicelink/dids/purchased", params=params)).status_code == 200
    simulator.add_fault(f"status:status=502,connection={second}")
    assert (await client.get("/voicelink/dids/purchased", params=params)).status_code == 502
    assert (await client.get("/telephony/connections")).status_code == 200


async def test_probability_is_a_matter_of_the_seed(start: Start) -> None:
    runs = []
    for seed in (1, 1, 2):
        client, _ = start(rate_limit=0, seed=seed, dids=1, faults=(Fault(kind="status", probability=0.3),))
        runs.append([(await ask(client)).status_code for _ in range(100)])
    assert runs[0] == runs[1] != runs[2]
    assert 15 < runs[0].count(500) < 45


def test_a_book_strikes_in_the_order_of_adding() -> None:
    book = FaultBook(seed=1)
    latency, html = Fault(kind="latency"), Fault(kind="html")
    assert [book.add(latency), book.add(html)] == [1, 2]
    strikes = book.strike("sync", "")
    assert list(strikes.faults) == [latency, html]
    assert strikes.of("html") == [html]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("html", Fault(kind="html")),
        ("html:sync", Fault(kind="html", endpoint="sync")),
        ("html:*:count=2", Fault(kind="html", count=2)),
        ("html::count=2", Fault(kind="html", count=2)),
        ("latency:seconds=0.5", Fault(kind="latency", seconds=0.5)),
        ("status:location=http://x.example/y:z", Fault(kind="status", location="http://x.example/y:z")),
        (
            "partial:sync:percent=10,probability=0.5",
            Fault(kind="partial", endpoint="sync", percent=10, probability=0.5),
        ),
    ],
)
def test_a_spec_is_read_and_written(text: str, fault: Fault) -> None:
    assert parse_fault(text) == fault
    assert parse_fault(fault.spec()) == fault


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "unknown fault ''"),
        ("nonsense", "unknown fault 'nonsense': one of status, latency"),
        ("html:nowhere", "unknown endpoint 'nowhere': one of *, sync"),
        ("html:sync:status=500", "html takes no 'status'"),
        ("status:sync:status", "'status' in fault 'status:sync:status' is not key=value"),
        ("status:status=many", "status must be a number, not 'many'"),
        ("status:status=42", "status must be a number from 200 to 599, not 42"),
        ("status:probability=2", "probability must be a number from 0 to 1, not 2.0"),
        ("status:probability=nan", "probability must be a number from 0 to 1, not nan"),
        ("status:colour=red", "a fault has no 'colour'"),
        ("status:sync:endpoint=sync", "endpoint of fault 'status:sync:endpoint=sync' goes before"),
        ("wrong_types:level=deep", "level of wrong_types must be one of field, root"),
    ],
)
def test_a_wrong_spec_says_what_is_wrong(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(said)}"):
        parse_fault(text)


def test_defaults_of_kinds() -> None:
    assert (Fault(kind="latency").pause, Fault(kind="hang").pause, Fault(kind="hang", seconds=0).pause) == (1, 300, 0)
    assert (Fault(kind="oversize").length, Fault(kind="oversize", size=5).length) == (1 << 20, 5)
