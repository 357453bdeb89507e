"""One poll of a target: what is asked, what is kept of the answer, and what is said about it."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import pytest

from exporter.errors import Reason
from exporter.model import HealState, Target
from exporter.snapshots import Healing
from tests.poller.conftest import KEY
from tests.support.clock import settle
from tests.support.driving import drive
from tests.support.fleet import IDS
from tests.support.sinks import CANARY, Broken, Slow

if TYPE_CHECKING:
    from collections.abc import Callable

    from exporter.poller import Sink
    from exporter.snapshots import TargetState
    from tests.poller.conftest import Parts

    Start = Callable[..., Parts]

FIRST, SECOND, THIRD = "+918011223344", "+918011223345", "+918011223346"


def failures(parts: Parts) -> dict[str, float]:
    """Return the failures that /metrics counts, by reason."""
    counted = {reason.value: parts.value("voicelink_poll_failures_total", reason=reason.value) for reason in Reason}
    return {reason: count for reason, count in counted.items() if count}


async def ready(parts: Parts) -> Target:
    """Look up the one connection and poll it once."""
    await parts.discover()
    await parts.poll()
    (target,) = parts.targets
    return target


# What is asked


async def test_a_poll_is_one_request_that_writes_nothing(start: Start) -> None:
    parts = start(connections=2, dids=50, broken=0.5)
    await parts.discover()
    for _ in range(3):
        await parts.poll()
        await parts.clock.advance(60)
    asked = [(seen.method, seen.body) for seen in parts.simulator.requests("sync")]
    wanted = [("POST", {"import_dids": False, "connection_id": target.connection_id}) for target in parts.targets]
    assert asked == wanted * 3
    assert len(parts.simulator.requests()) == 7
    writes = parts.simulator.writes
    assert (writes.syncs, writes.imports, writes.heals) == (0, 0, 0)


async def test_what_the_api_says_is_what_is_shown(start: Start) -> None:
    parts = start(connections=2, dids=30, broken=0.5)
    await parts.discover()
    await parts.poll()
    for number, truth in parts.simulator.truth().items():
        labels = {"account": "main", "connection": truth.connection_id, "phone_number": number}
        assert parts.value("voicelink_did_ready", **labels) == float(truth.ready)
        assert parts.value("voicelink_did_state", state=truth.state, **labels) == 1
        assert parts.value("voicelink_did_issues", **labels) == len(truth.issues)
        assert all(parts.value("voicelink_did_issue", code=code, **labels) == 1 for code in truth.issues)


async def test_polls_of_one_target_at_once_are_one(start: Start) -> None:
    parts = start(latency=1.0)
    await parts.discover()
    (target,) = parts.targets
    await drive(asyncio.gather(*(parts.poller.poll(target) for _ in range(5))), parts.clock)
    assert len(parts.simulator.requests("sync")) == 1
    await parts.poll()
    assert len(parts.simulator.requests("sync")) == 2


async def test_who_stops_waiting_for_a_poll_does_not_stop_it(start: Start) -> None:
    parts = start()
    await parts.discover()
    parts.simulator.add_fault("latency:sync:seconds=1")
    impatient = asyncio.create_task(parts.poller.poll(parts.targets[0]))
    patient = asyncio.create_task(parts.poller.poll(parts.targets[0]))
    await settle()
    impatient.cancel()
    await drive(patient, parts.clock)
    assert impatient.cancelled()
    assert parts.value("voicelink_up") == 1
    assert len(parts.simulator.requests("sync")) == 1


async def test_different_targets_are_polled_at_once(start: Start) -> None:
    parts = start(connections=2, latency=1.0)
    await parts.discover()
    before = parts.clock.monotonic()
    await drive(asyncio.gather(*map(parts.poller.poll, parts.targets)), parts.clock)
    assert parts.clock.monotonic() - before == pytest.approx(1.0)
    assert [state.up for state in parts.poller.fleet.targets.values()] == [True, True]


async def test_a_target_that_is_none_is_not_polled(start: Start) -> None:
    parts = start()
    await parts.discover()
    await parts.poll(Target("main", IDS[0]))
    assert parts.simulator.requests("sync") == []


async def test_an_account_is_asked_with_its_own_client(start: Start) -> None:
    parts = start(accounts={"one": {}, "two": {}})
    await parts.discover("one")
    await parts.discover("two")
    await parts.poll(Target("two", parts.simulators["two"].connection_ids[0]))
    assert [len(simulator.requests("sync")) for simulator in parts.simulators.values()] == [0, 1]


async def test_an_answer_that_a_suspended_machine_slept_on_is_as_old_as_its_request(start: Start) -> None:
    parts = start(latency=1.0)
    await parts.discover()
    (target,) = parts.targets
    asked = parts.clock.time()
    poll = asyncio.ensure_future(parts.poller.poll(target))
    await settle()
    parts.clock.set_by(290.0)
    await drive(poll, parts.clock)
    assert parts.value("voicelink_poll_last_success_timestamp_seconds") == asked
    snapshot = parts.poller.fleet.targets[target].snapshot
    assert snapshot is not None
    assert snapshot.at == asked


async def test_an_answer_that_waited_to_be_read_is_as_old_as_its_request(start: Start) -> None:
    parts = start(latency=25.0)
    await parts.discover()
    (target,) = parts.targets
    asked = parts.clock.time(), parts.clock.monotonic()
    await drive(asyncio.ensure_future(parts.poller.poll(target)), parts.clock)
    snapshot = parts.poller.fleet.targets[target].snapshot
    assert snapshot is not None
    assert (snapshot.at, snapshot.asked) == asked
    assert (parts.clock.time(), parts.clock.monotonic()) >= (asked[0] + 25.0, asked[1] + 25.0)


async def test_an_answer_after_which_the_clock_was_set_back_is_not_of_a_time_to_come(start: Start) -> None:
    parts = start(latency=1.0)
    await parts.discover()
    (target,) = parts.targets
    poll = asyncio.ensure_future(parts.poller.poll(target))
    await settle()
    parts.clock.set_by(-290.0)
    await drive(poll, parts.clock)
    assert parts.value("voicelink_poll_last_success_timestamp_seconds") == parts.clock.time() - 1.0


async def test_duration_and_last_success(start: Start) -> None:
    parts = start(latency=2.5)
    await ready(parts)
    assert parts.value("voicelink_poll_duration_seconds") == pytest.approx(2.5)
    success = parts.clock.time() - 2.5  # when its request left
    assert parts.value("voicelink_poll_last_success_timestamp_seconds") == success
    parts.simulator.add_fault("status:sync:status=403")
    parts.simulator.add_fault("latency:sync:seconds=1")
    await parts.poll()
    assert parts.value("voicelink_poll_duration_seconds") == pytest.approx(3.5)
    assert parts.value("voicelink_poll_last_success_timestamp_seconds") == success


async def test_the_planned_interval_is_told(start: Start) -> None:
    parts = start()
    await parts.discover()
    await parts.poller.plan({parts.targets[0]: 90.0, Target("main", IDS[0]): 5.0})
    assert parts.value("voicelink_poll_interval_seconds") == 90
    fleet = parts.poller.fleet
    await parts.poller.plan({parts.targets[0]: 90.0})
    assert parts.poller.fleet.targets == fleet.targets
    assert len(parts.targets) == 1


# What fails

FAULTS = [
    *(
        (f"status:sync:status={status}", reason)
        for status, reason in [
            (400, "validation"),
            (422, "validation"),
            (401, "auth"),
            (403, "forbidden"),
            (404, "not_found"),
            (409, "conflict"),
            (429, "rate_limited"),
            (500, "server_error"),
            (503, "server_error"),
            (302, "bad_response"),
            (418, "other"),
            (204, "other"),
        ]
    ),
    *((fault, "bad_response") for fault in ("html:sync", "not_json:sync", "truncate:sync", "hang:sync")),
    *((f"wrong_types:sync:level={level}", "bad_response") for level in ("root", "data", "readiness")),
    ("oversize:sync:size=300000", "too_large"),
]


@pytest.mark.parametrize(("fault", "reason"), FAULTS)
async def test_a_failed_poll_has_a_reason_and_leaves_the_dids_alone(start: Start, fault: str, reason: str) -> None:
    parts = start(api={"max_response_bytes": 200_000})
    target = await ready(parts)
    before = parts.poller.fleet.targets[target]
    parts.simulator.add_fault(fault)
    await parts.clock.advance(60)
    await parts.poll()
    after = parts.poller.fleet.targets[target]
    assert failures(parts) == {reason: 1}
    assert (parts.value("voicelink_up"), parts.value("voicelink_polls_total")) == (0, 2)
    assert after.snapshot is before.snapshot
    assert after.memory is before.memory
    assert parts.value("voicelink_did_ready", phone_number=FIRST) == 1
    (line,) = parts.said("poll failed")
    assert (line["level"], line["reason"], line["account"]) == ("warn", reason, "main")
    assert len(line["error"]) > 10


async def test_an_answer_that_never_comes_is_a_timeout(start: Start) -> None:
    parts = start(api={"timeout": "50ms"}, stuck=True)
    await parts.discover()
    parts.simulator.add_fault("hang:sync")
    await parts.poll()
    assert failures(parts) == {"timeout": 1}


async def test_an_api_that_is_not_there_is_a_connect_failure(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    parts = start(api={"base_url": f"http://127.0.0.1:{port}/api/v2"}, online=False)
    assert await parts.discover() is False
    await parts.poll()
    assert parts.targets == [Target("main")]
    assert failures(parts) == {"connect": 1}


async def test_a_failure_that_passes_within_the_poll_is_none(start: Start) -> None:
    parts = start()
    await parts.discover()
    parts.simulator.add_fault("status:sync:status=503,count=2")
    await parts.poll()
    assert failures(parts) == {}
    assert [seen.status for seen in parts.simulator.requests("sync")] == [503, 503, 200]
    assert parts.value("voicelink_polls_total") == 1


async def test_failures_add_up_and_are_said_once_and_when_they_are_over(start: Start) -> None:
    parts = start(rate_limit=0)
    await parts.discover()
    parts.simulator.add_fault("status:sync:status=403,count=12")
    for _ in range(12):
        await parts.poll()
        await parts.clock.advance(60)
    await parts.poll()
    assert failures(parts) == {"forbidden": 12}
    assert parts.value("voicelink_up") == 1
    said = [line["msg"] for line in parts.said() if line["msg"].startswith("poll")]
    assert said == ["poll failed", "poll keeps failing", "poll works again", "polled"]


async def test_oddities_of_a_complete_poll_are_counted(start: Start) -> None:
    parts = start(dids=4)
    for fault in ("duplicates:sync", "invalid_entry:sync"):
        parts.simulator.add_fault(fault)
    await ready(parts)
    parts.simulator.clear_faults()
    parts.simulator.add_fault("unknown_states:sync")
    await parts.poll()
    counted = {
        kind: parts.value("voicelink_poll_anomalies_total", kind=kind)
        for kind in ("duplicate_did", "invalid_entry", "unknown_code")
    }
    assert counted == {"duplicate_did": 4, "invalid_entry": 2, "unknown_code": 4}
    assert [(line.get("duplicate_did"), line.get("unknown_code")) for line in parts.said("polled")] == [
        (4, None),
        (None, 4),
    ]


# Staleness


async def test_data_that_is_too_old_goes_away_and_nothing_else_does(start: Start) -> None:
    parts = start(dids=3)
    target = await ready(parts)
    parts.simulator.add_fault("status:sync:status=403")
    await parts.clock.advance(300)
    await parts.poll()
    await parts.poller.tick()
    assert parts.value("voicelink_did_ready", phone_number=FIRST) == 1
    await parts.clock.advance(1)
    await parts.poller.tick()
    await parts.poller.tick()
    assert "voicelink_did_ready{" not in parts.text
    assert parts.value("voicelink_dids") is None
    assert (parts.value("voicelink_up"), parts.value("voicelink_polls_total")) == (0, 2)
    (line,) = parts.said("data is stale, its DID series go away")
    assert (line["level"], line["connection"], line["stale_after_seconds"]) == ("warn", target.connection, 300)


async def test_after_stale_data_the_changes_go_on(start: Start) -> None:
    parts = start(dids=3)
    await ready(parts)
    first_seen = parts.clock.time()
    parts.simulator.set_did(FIRST, issues=["NO_BOT"])
    await parts.clock.advance(60)
    await parts.poll()
    changed = parts.clock.time()
    await parts.clock.advance(1000)
    await parts.poller.tick()
    assert parts.value("voicelink_did_state_changes_total", phone_number=FIRST) is None
    await parts.poll()
    name = "voicelink_did_state_changed_timestamp_seconds"
    assert parts.value("voicelink_did_state_changes_total", phone_number=FIRST) == 1
    assert (parts.value(name, phone_number=FIRST), parts.value(name, phone_number=SECOND)) == (changed, first_seen)
    assert [line["came"] for line in parts.said("polled")] == [3, 0, 0]


async def test_each_target_grows_stale_on_its_own(start: Start) -> None:
    parts = start(connections=2, dids=4)
    await parts.discover()
    await parts.poll()
    await parts.clock.advance(200)
    await parts.poll(parts.targets[0])
    await parts.clock.advance(150)
    await parts.poller.tick()
    assert [bool(state.snapshot) for state in parts.poller.fleet.of_account("main")] == [True, False]


async def test_data_that_was_renewed_meanwhile_is_not_called_stale(start: Start) -> None:
    slow: list[Slow] = []

    def wrap(inner: Sink) -> Sink:
        slow.append(Slow(inner))
        return slow[0]

    parts = start(wrap=wrap)
    target = await ready(parts)
    await parts.clock.advance(400)
    slow[0].hold()
    polling = asyncio.create_task(parts.poller.poll(target))
    assert await asyncio.to_thread(slow[0].busy.wait, 20)
    ticking = asyncio.create_task(parts.poller.tick())
    await settle()
    slow[0].release()
    await asyncio.gather(polling, ticking)
    assert parts.value("voicelink_did_ready", phone_number=FIRST) == 1
    assert parts.said("data is stale, its DID series go away") == []
    assert {name.rpartition("_")[0] for name in slow[0].threads} == {"fleet"}


async def test_a_tick_shows_what_changes_on_its_own(start: Start) -> None:
    parts = start()
    await ready(parts)
    parts.telemetry.missed_runs.inc()
    assert "voicelink_exporter_scheduler_missed_runs_total 0.0" in parts.text
    await parts.poller.tick()
    assert "voicelink_exporter_scheduler_missed_runs_total 1.0" in parts.text


# Refreshing


async def test_a_refresh_polls_what_was_not_polled_within_its_interval(start: Start) -> None:
    parts = start(connections=2)
    await parts.discover()

    async def refreshed(after: float) -> int:
        await parts.clock.advance(after)
        await drive(parts.poller.refresh(parts.targets), parts.clock)
        return len(parts.simulator.requests("sync"))

    assert await refreshed(0) == 2
    assert [await refreshed(0), await refreshed(60)] == [2, 2]
    assert await refreshed(0.1) == 4
    await parts.clock.advance(59)
    await parts.poll(parts.targets[0])
    assert await refreshed(2) == 6


@pytest.mark.parametrize("fault", ["status:sync:status=403", "status:sync:status=429", "html:sync"])
async def test_a_refresh_that_fails_is_not_tried_again_within_the_interval(start: Start, fault: str) -> None:
    parts = start()
    await parts.discover()
    parts.simulator.add_fault(fault)
    for _ in range(5):
        await drive(parts.poller.refresh(parts.targets), parts.clock)
        await parts.clock.advance(10)
    assert len(parts.simulator.requests("sync")) == 1


async def test_a_refresh_waits_for_a_poll_that_runs(start: Start) -> None:
    parts = start()
    await parts.discover()
    parts.simulator.add_fault("latency:sync:seconds=1")
    polling = asyncio.create_task(parts.poller.poll(parts.targets[0]))
    await settle()
    await drive(parts.poller.refresh(parts.targets), parts.clock)
    assert parts.value("voicelink_up") == 1
    assert len(parts.simulator.requests("sync")) == 1
    await polling


# Targets that leave, and the end


@pytest.mark.parametrize("fault", ["", "status:sync:status=403", "not_json:sync"])
async def test_a_target_that_leaves_while_it_is_polled_is_gone(start: Start, fault: str) -> None:
    parts = start(connections=2, dids=4)
    await parts.discover()
    await parts.poll()
    before = parts.targets
    for each in filter(None, ("latency:sync:seconds=5", "partial:connections:percent=50", fault)):
        parts.simulator.add_fault(each)
    polling = asyncio.gather(*map(parts.poller.poll, before))
    await settle()
    await parts.poller.discover("main")
    assert not polling.done()
    await drive(polling, parts.clock)
    (stays,) = parts.targets
    (gone,) = set(before) - {stays}
    assert gone.connection not in parts.text
    assert parts.value("voicelink_up", connection=stays.connection) == (0 if fault else 1)
    assert parts.value("voicelink_polls_total", connection=stays.connection) == 2
    assert parts.said("poll failed by a fault of the exporter") == []
    assert [line["connection"] for line in parts.said("polled")].count(gone.connection) == 1


async def test_stopping_abandons_what_runs(start: Start) -> None:
    parts = start()
    await parts.discover()
    parts.simulator.add_fault("latency:sync:seconds=1000")
    polling = asyncio.create_task(parts.poller.poll(parts.targets[0]))
    await settle()
    await parts.poller.stop()
    await polling
    assert failures(parts) == {}
    await parts.poller.stop()
    asked = len(parts.simulator.requests("sync"))
    await parts.poller.poll(parts.targets[0])  # as a job that was due in that moment
    assert len(parts.simulator.requests("sync")) == asked


# Faults of our own


@pytest.mark.parametrize("times", [1, 2])
async def test_rendering_that_breaks_once_does_not_stop_the_polls(start: Start, times: int) -> None:
    sinks: list[Broken] = []

    def wrap(inner: Sink) -> Sink:
        sinks.append(Broken(inner))
        return sinks[0]

    parts = start(wrap=wrap)
    target = await ready(parts)
    before = parts.poller.fleet.targets[target]
    sinks[0].times = times
    await parts.poll()
    after = parts.poller.fleet.targets[target]
    assert (after.up, after.polls, after.failures[Reason.OTHER], after.snapshot) == (False, 2, 1, before.snapshot)
    assert parts.value("voicelink_up") == (0 if times == 1 else 1)
    (broken,) = parts.said("poll failed by a fault of the exporter")
    assert (broken["level"], broken["error"]) == ("error", "RuntimeError")
    assert broken["at"].startswith("tests.support.sinks:")
    assert len(parts.said("a failed poll can't be shown by a fault of the exporter")) == times - 1
    await parts.poll()
    assert (parts.value("voicelink_up"), parts.value("voicelink_polls_total"), failures(parts)) == (1, 3, {"other": 1})
    assert len(parts.said("poll works again")) == 1
    assert CANARY not in parts.log.getvalue()


async def test_rendering_that_breaks_at_a_tick_does_not_stop_the_next(start: Start) -> None:
    sinks: list[Broken] = []

    def wrap(inner: Sink) -> Sink:
        sinks.append(Broken(inner))
        return sinks[0]

    parts = start(wrap=wrap)
    await ready(parts)
    await parts.clock.advance(301)
    sinks[0].times = 1
    with pytest.raises(RuntimeError):
        await parts.poller.tick()
    assert parts.said("data is stale, its DID series go away") == []
    await parts.poller.tick()
    assert "voicelink_did_ready{" not in parts.text
    await parts.poll()
    assert parts.value("voicelink_did_ready", phone_number=FIRST) == 1


# What is said


async def test_a_poll_is_a_line_with_what_came_of_it(start: Start) -> None:
    parts = start(dids=4, latency=0.25)
    target = await ready(parts)
    parts.simulator.set_did(FIRST, issues=["NO_BOT", "ROUTING_MISSING"])
    parts.simulator.set_did(SECOND, removed=True)
    await parts.poll()
    parts.simulator.set_did(SECOND, removed=False)
    await parts.poll()
    fields = ("dids", "ready", "changed", "came", "left")
    assert [tuple(line[field] for field in fields) for line in parts.said("polled")] == [
        (4, 4, 0, 4, 0),
        (3, 2, 1, 0, 1),
        (4, 3, 0, 1, 0),
    ]
    line = parts.said("polled")[0]
    assert (line["level"], line["account"], line["connection"]) == ("info", "main", target.connection)
    assert line["seconds"] == 0.25
    assert set(line) == {"ts", "level", "msg", "account", "connection", "seconds", *fields}


async def test_a_change_of_state_is_a_line_with_both_states(start: Start) -> None:
    parts = start(dids=2)
    target = await ready(parts)
    parts.simulator.set_did(FIRST, issues=["NO_BOT", "ROUTING_MISSING"])
    await parts.poll()
    parts.simulator.set_did(FIRST, issues=["NO_BOT"])  # the same state with other issues
    await parts.poll()
    parts.simulator.set_did(FIRST, issues=[])
    await parts.poll()
    said = [{key: value for key, value in line.items() if key != "ts"} for line in parts.said("state changed")]
    common = {"level": "info", "msg": "state changed", "account": "main", "connection": target.connection}
    assert said == [
        {**common, "phone_number": FIRST, "old": "READY", "new": "NO_BOT", "issues": "NO_BOT,ROUTING_MISSING"},
        {**common, "phone_number": FIRST, "old": "NO_BOT", "new": "READY", "issues": "none"},
    ]


@pytest.mark.parametrize(("changed", "lines", "more"), [(20, 20, []), (23, 20, [3])])
async def test_many_changes_of_state_are_summed_up(start: Start, changed: int, lines: int, more: list[int]) -> None:
    parts = start(dids=25)
    await ready(parts)
    for number in parts.simulator.numbers[:changed]:
        parts.simulator.set_did(number, issues=["NO_BOT"])
    await parts.poll()
    assert len(parts.said("state changed")) == lines
    assert [line["count"] for line in parts.said("more states changed")] == more


async def test_configured_dids_go_missing_and_come_back(start: Start) -> None:
    dids = [{"did_number": FIRST, "labels": {"team": "sales"}}, {"did_id": 801}, {"did_id": 812_000}]
    parts = start(dids=5, account={"dids": dids})
    await ready(parts)
    assert parts.value("voicelink_dids", state="READY") == 2
    assert parts.value("voicelink_did_state", state="MISSING", phone_number="did:812000") == 1
    assert parts.value("voicelink_did_info", team="sales", phone_number=FIRST) == 1
    for number in (FIRST, SECOND):
        parts.simulator.set_did(number, removed=True)
    await parts.poll()
    for number in (FIRST, SECOND):
        assert parts.value("voicelink_did_state", state="MISSING", phone_number=number) == 1
        assert parts.value("voicelink_did_ready", phone_number=number) == 0
        assert parts.value("voicelink_did_expired", phone_number=number) is None
    parts.simulator.set_did(SECOND, removed=False)
    await parts.poll()
    assert parts.value("voicelink_did_state_changes_total", phone_number=SECOND) == 2
    assert parts.value("voicelink_did_ready", phone_number=THIRD) is None


async def test_hashed_numbers_are_nowhere_to_be_read(start: Start) -> None:
    parts = start(dids=3, hash_key=b"0123456789abcdef")
    await ready(parts)
    for number in parts.simulator.numbers:
        parts.simulator.set_did(number, issues=["NO_BOT"])
    await parts.poll()
    everything = parts.text + parts.log.getvalue()
    assert len(parts.said("state changed")) == 3
    for number in parts.simulator.numbers:
        labels = [line for line in parts.text.split("\n") if f'phone_number="{number}' in line]
        assert labels == []
        assert number not in parts.log.getvalue()
    assert 'phone_number="' in everything


async def test_neither_key_nor_raw_data_leaves(start: Start) -> None:
    parts = start(dids=4, broken=0.5, rate_limit=0, api={"max_response_bytes": 200_000, "requests_per_minute": 1000})
    await ready(parts)
    for fault in [*(fault for fault, _ in FAULTS), "markup:sync", "extra_fields:sync", "null_fields:sync"]:
        parts.simulator.clear_faults()
        parts.simulator.add_fault(fault)
        await parts.clock.advance(120)
        await parts.discover()
        await parts.poll()
    assert len(parts.simulator.requests("sync")) > len(FAULTS)
    bodies = parts.exposition.bodies
    for text in (parts.log.getvalue(), parts.text, b"".join(bodies.openmetrics.plain).decode()):
        assert KEY not in text
        assert KEY.removeprefix("rg_live_") not in text
        assert "Bearer" not in text
        assert "raw" not in text


# Who listens


class Listening:
    """Remembers one DID from before the start, and writes down the complete polls."""

    def __init__(self) -> None:
        self.heard: list[tuple[int, int]] = []

    async def prepare(self, account: str) -> None:
        assert account == "main"

    async def rate_limited(self, account: str) -> None:
        assert account == "main"

    async def recall(self, target: Target) -> dict[str, tuple[str, float, int]]:
        assert target.account == "main"
        return {FIRST: ("NO_BOT", 1_700_000_000.0, 7)}

    def polled(self, before: TargetState, after: TargetState) -> None:
        self.heard.append((before.polls, after.polls))


async def test_states_from_before_the_start_are_gone_on_with_and_complete_polls_are_heard(start: Start) -> None:
    parts, listening = start(dids=2), Listening()
    parts.poller.listener = listening
    await ready(parts)
    assert parts.value("voicelink_did_state_changes_total", phone_number=FIRST) == 8
    assert [line["old"] for line in parts.said("state changed")] == ["NO_BOT"]
    parts.simulator.add_fault("status:sync:status=403,count=1")
    await parts.poll()
    await parts.poll()
    assert listening.heard == [(0, 1), (2, 3)]


async def test_what_is_known_of_healing_is_shown_at_once(start: Start) -> None:
    parts = start(dids=2)
    target = await ready(parts)
    await parts.poller.annotate(target, Healing(mode="enforce"), {FIRST: HealState.VERIFYING})
    assert parts.value("voicelink_did_heal_state", state="verifying", phone_number=FIRST) == 1
    assert parts.value("voicelink_heal_mode", mode="enforce") == 1
    bodies = parts.exposition.bodies
    await parts.poller.annotate(target, Healing(mode="enforce"), {FIRST: HealState.VERIFYING})
    await parts.poller.annotate(Target("main", IDS[0]), Healing(), {})
    assert parts.exposition.bodies is bodies
