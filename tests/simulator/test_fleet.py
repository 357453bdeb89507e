"""How the fleet lives: by the seed, by the time, by what is done to it."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

import pytest

from exporter.simulator.codes import BREAKS, action, in_order, pick_break
from exporter.simulator.schedule import Schedule
from exporter.simulator.seeded import exponential, unit, uuid_of

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

    from exporter.simulator import Simulator

    Start = Callable[..., tuple[httpx.AsyncClient, Simulator]]

FIRST = "+918011223344"
READ = {"import_dids": False}


def states(simulator: Simulator) -> list[str]:
    return [truth.state for truth in simulator.truth().values()]


async def test_the_same_seed_gives_the_same_bytes(start: Start, now: list[float]) -> None:
    answers = []
    for seed in (3, 3, 4):
        client, _ = start(dids=50, broken=0.3, churn=1, seed=seed)
        now[0] += 5000
        answers.append((await client.post("/voicelink/sync", json=READ)).content)
        now[0] -= 5000
    assert answers[0] == answers[1] != answers[2]


async def test_the_state_depends_on_the_time_and_not_on_the_way_there(start: Start, now: list[float]) -> None:
    _, often = start(dids=100, churn=2)
    _, once = start(dids=100, churn=2)
    for _ in range(40):
        now[0] += 250
        often.truth()
    assert often.truth() == once.truth()
    assert len(set(states(often))) > 1


async def test_without_churn_nothing_changes(start: Start, now: list[float]) -> None:
    _, simulator = start(dids=30, broken=0.2)
    before = simulator.truth()
    now[0] += 10**7
    assert simulator.truth() == before


@pytest.mark.parametrize(("fraction", "count"), [(0, 0), (0.25, 10), (1, 40)])
async def test_broken_is_a_fraction_of_the_fleet(start: Start, fraction: float, count: int) -> None:
    _, simulator = start(dids=40, broken=fraction)
    assert sum(not truth.ready for truth in simulator.truth().values()) == count


async def test_a_living_fleet_breaks_and_recovers(start: Start, now: list[float]) -> None:
    _, simulator = start(dids=400, churn=0.5, outage=1800)
    assert set(states(simulator)) == {"READY"}
    broken = []
    for _ in range(20):
        now[0] += 3600
        broken.append(sum(state != "READY" for state in states(simulator)))
    assert 40 < statistics.mean(broken) < 120  # half an hour of every two and a half: 20 %
    assert len(set(broken)) > 1


async def test_a_clock_that_steps_back_changes_nothing(start: Start, now: list[float]) -> None:
    _, simulator = start(dids=100, churn=2)
    now[0] += 9000
    before = simulator.truth()
    now[0] -= 8000
    assert simulator.truth() == before


async def test_an_answer_follows_the_schedule(start: Start, now: list[float]) -> None:
    client, simulator = start(dids=60, churn=3)
    for _ in range(5):
        now[0] += 1000
        data = (await client.post("/voicelink/sync", json=READ)).json()["data"]
        assert [entry["state"] for entry in data["readiness"]] == states(simulator)


async def broken_by_schedule(simulator: Simulator, now: list[float]) -> str:
    """Let time pass until the schedule has broken a bot or a routing."""
    while True:
        now[0] += 60
        for truth in simulator.truth().values():
            if truth.issues and set(truth.issues) <= {"NO_BOT", "ROUTING_MISSING"}:
                return truth.number


async def test_a_heal_lasts_until_the_next_break(start: Start, now: list[float]) -> None:
    client, simulator = start(dids=20, churn=1, outage=10**6)
    number = await broken_by_schedule(simulator, now)
    answer = await client.post("/voicelink/call-ready", json={"did_number": number})
    assert answer.json()["data"]["ready"] is True
    now[0] += 60
    assert simulator.truth()[number].ready


async def test_what_is_set_is_off_the_schedule_until_it_is_put_back(start: Start, now: list[float]) -> None:
    _, simulator = start(dids=20, churn=1, outage=10**9)
    number = await broken_by_schedule(simulator, now)
    issues = simulator.truth()[number].issues
    assert simulator.set_did(number, issues=[]).ready
    now[0] += 3600
    assert simulator.truth()[number].ready
    assert simulator.set_did(number, issues=None).issues == issues


async def test_a_pinned_did_does_not_turn(start: Start, now: list[float]) -> None:
    _, simulator = start(dids=10, churn=10, outage=60)
    simulator.set_did(FIRST, issues=["ODD_CODE", "NO_BOT"])
    seen = set()
    for _ in range(50):
        now[0] += 120
        seen.add(simulator.truth()[FIRST].issues)
    assert seen == {("NO_BOT", "ODD_CODE")}


async def test_put_back_between_breaks_it_is_ready(start: Start) -> None:
    _, simulator = start(dids=1, churn=0.001)
    simulator.set_did(FIRST, issues=["NO_BOT"])
    assert simulator.set_did(FIRST, issues=None).ready


async def test_a_removed_did_is_in_no_answer(start: Start) -> None:
    client, simulator = start(dids=3)
    simulator.set_did(FIRST, removed=True)
    data = (await client.post("/voicelink/sync", json=READ)).json()["data"]
    assert (
        [entry["phone_number"] for entry in data["readiness"]]
        == simulator.numbers
        == ["+918011223345", "+918011223346"]
    )
    assert (await client.post("/voicelink/call-ready", json={"did_id": 800})).status_code == 404
    simulator.set_did(FIRST, removed=False)
    assert FIRST in simulator.numbers


async def test_a_did_moves_to_another_connection(start: Start) -> None:
    client, simulator = start(dids=4, connections=2)
    second = simulator.connection_ids[1]
    assert simulator.set_did(FIRST, connection_id=second).connection_id == second
    simulator.set_did(FIRST, connection_id=second)
    data = (await client.post("/voicelink/sync", json={**READ, "connection_id": second})).json()["data"]
    assert [entry["key"][-2:] for entry in data["readiness"]] == ["46", "47", "44"]


async def test_facts_can_be_set(start: Start) -> None:
    client, simulator = start(dids=1)
    truth = simulator.set_did("918011223344", expired=True, client_id=9000, friendly_name="Front desk")
    assert (truth.expired, truth.client_id, truth.issues) == (True, 9000, ("DID_EXPIRED",))
    data = (await client.post("/voicelink/sync", json=READ)).json()["data"]
    assert data["readiness"][0]["local_phone_number"]["friendly_name"] == "Front desk"
    assert {"id": 9000, "name": "Client 9000"} in data["clients"]
    assert data["available_dids"] == []
    simulator.set_did(FIRST, client_id=None)
    data = (await client.post("/voicelink/sync", json=READ)).json()["data"]
    assert data["available_dids"] == [data["readiness"][0]["remote_did"]]


async def test_unknown_numbers_and_connections_are_key_errors(start: Start) -> None:
    _, simulator = start()
    with pytest.raises(KeyError):
        simulator.set_did("+911", expired=True)
    with pytest.raises(KeyError):
        simulator.set_did(FIRST, expired=True, connection_id="x")
    assert not simulator.truth()[FIRST].expired
    with pytest.raises(KeyError):
        simulator.set_connection("x", status="ACTIVE")


async def test_an_empty_fleet_is_fine(start: Start) -> None:
    client, _ = start(dids=0, churn=1, broken=1)
    assert (await client.post("/voicelink/sync", json=READ)).json()["data"]["readiness"] == []
    assert (await client.get("/voicelink/dids/purchased")).json()["data"]["data"] == []


def test_draws_are_even_and_of_the_mean_asked_for() -> None:
    draws = [unit("x", number) for number in range(4000)]
    assert 0 <= min(draws) < max(draws) < 1
    assert statistics.mean(draws) == pytest.approx(0.5, abs=0.02)
    assert statistics.mean(exponential(50, "y", number) for number in range(4000)) == pytest.approx(50, rel=0.05)
    assert uuid_of("a", 1) == uuid_of("a", 1) != uuid_of("a", 2)


def test_breaks_are_picked_by_weight() -> None:
    assert sum(weight for weight, _ in BREAKS) == pytest.approx(1)
    assert pick_break(0) == BREAKS[0][1]
    assert pick_break(0.31) == BREAKS[1][1]
    assert pick_break(1.0) == BREAKS[-1][1]


def test_codes_are_ordered_and_explained() -> None:
    assert in_order(["ODD", "NO_BOT", "DID_EXPIRED", "ODD"]) == ("DID_EXPIRED", "NO_BOT", "ODD")
    assert action("ODD") == "Look into ODD."


def test_episodes_follow_each_other() -> None:
    schedule = Schedule(seed=1, churn=1, outage=10)
    episode = schedule.first(5)
    for _ in range(20):
        following = schedule.following(5, episode)
        assert episode.start < episode.end < following.start
        episode = following
