"""`/probe`: one DID alone, on data not older than the interval, whoever asks and however often."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.http import sample
from tests.support.processes import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.web.conftest import Web

    Start = Callable[..., Web]

NUMBER = "+918011223344"
ABSENT = "%2B918011229999"


@pytest.mark.parametrize(
    "target",
    [
        "%2B918011223344",
        "+918011223344",
        "918011223344",
        "%2B91%2080%201122%203344",
        "+91+80+1122+3344",
        "%2B91-80-1122-3344",
        "%2B91%20(80)%201122.3344",
        "%20%20918011223344%20",
    ],
)
def test_a_number_in_any_spelling(web: Web, target: str) -> None:
    reply = web.get(f"/probe?target={target}")
    assert reply.status == 200
    assert reply.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert sample(reply.text, "probe_success") == 1
    assert sample(reply.text, "voicelink_did_ready", phone_number=NUMBER) == 1


def test_it_tells_of_that_did_alone_and_parses(start: Start) -> None:
    web = start(dids=5)
    web.simulator.set_did(NUMBER, issues=["NO_BOT", "ROUTING_MISSING"])
    web.poll()
    families = {
        family.name: family for family in text_string_to_metric_families(web.get(f"/probe?target={NUMBER}").text)
    }
    of_dids = [
        each for name, family in families.items() if name.startswith("voicelink_did_") for each in family.samples
    ]
    assert {each.labels["phone_number"] for each in of_dids} == {NUMBER}
    assert {each.labels["code"] for each in families["voicelink_did_issue"].samples} == {"NO_BOT", "ROUTING_MISSING"}
    assert families["voicelink_did_ready"].samples[0].value == 0
    assert {name for name in families if not name.startswith("voicelink_did_")} == {
        "probe_success",
        "probe_duration_seconds",
    }
    assert 0 <= families["probe_duration_seconds"].samples[0].value < 5
    assert all(family.documentation for family in families.values())


def test_an_unknown_number_is_not_found(web: Web) -> None:
    reply = web.get(f"/probe?target={ABSENT}")
    assert (reply.status, reply.text) == (404, "+918011229999 is not monitored\n")


def test_a_configured_number_that_is_not_there_is_found_and_not_ready(start: Start) -> None:
    account = {"api_key_env": "VOCOBASE_API_KEY", "dids": [{"did_number": "+918011229999"}]}
    text = start({"accounts": [account]}).get(f"/probe?target={ABSENT}").text
    assert sample(text, "probe_success") == 1
    assert sample(text, "voicelink_did_ready") == 0
    assert sample(text, "voicelink_did_state", state="MISSING") == 1


@pytest.mark.parametrize(
    "query",
    [
        "",
        "?",
        "?target",
        "?target=",
        "?target=%20",
        "?number=918011223344",
        "?target=http://10.0.0.1:9100/metrics",
        "?target=http://918011223344",
        "?target=127.0.0.1:9100",
        "?target=/etc/passwd",
        "?target=../../etc/passwd",
        "?target=%00",
        "?target=%00918011223344",
        "?target=%0a",
        "?target=12",
        "?target=" + "9" * 4000,
        "?target=" + "%20" * 4000,
        "?target=<script>",
        "?target=%ff%fe",
        "?target=sip:918011223344@example.com",
        "?target=918011223344;ext=5",
    ],
)
def test_what_is_no_number_is_refused_and_asks_nobody(web: Web, query: str) -> None:
    web.simulator.clear_journal()
    reply = web.get(f"/probe{query}")
    assert (reply.status, reply.text) == (
        400,
        'target has to be a phone number with its country code, as "+918011223344"\n',
    )
    assert web.simulator.requests() == []


def test_many_probes_at_once_cost_one_request(start: Start) -> None:
    web = start(polled=False, dids=30, latency=0.2)
    web.discover()
    numbers = web.simulator.numbers
    with ThreadPoolExecutor(30) as pool:
        replies = list(pool.map(lambda number: web.get(f"/probe?target={number}"), numbers))
    assert [sample(reply.text, "probe_success") for reply in replies] == [1] * 30
    assert len(web.simulator.requests("sync")) == 1
    assert web.get(f"/probe?target={ABSENT}").status == 404
    assert len(web.simulator.requests("sync")) == 1


def test_a_known_number_is_asked_of_its_own_connection_only(start: Start) -> None:
    web = start(connections=3, dids=6, interval=0.1)
    web.simulator.clear_journal()
    owner = web.simulator.truth()[NUMBER].connection_id

    def polled() -> bool:
        web.get(f"/probe?target={NUMBER}")
        return bool(web.simulator.requests("sync"))

    until(polled, "a probe polls")
    assert {seen.connection_id for seen in web.simulator.requests("sync")} == {owner}


def test_data_is_never_older_than_the_interval(start: Start) -> None:
    web = start(interval=0.3)
    for issues in (["NO_BOT"], [], ["ROUTING_MISSING"], []):
        web.simulator.set_did(NUMBER, issues=issues)
        expected = partial(_ready, web, float(not issues))
        until(expected, "a probe sees the change", within=3)


def _ready(web: Web, value: float) -> bool:
    return sample(web.get(f"/probe?target={NUMBER}").text, "voicelink_did_ready") == value


def test_nothing_is_told_of_the_did_while_the_api_is_down(start: Start) -> None:
    web = start(interval=0.2)
    web.simulator.add_fault("status:status=403")
    assert sample(web.get("/metrics").text, "voicelink_did_ready", phone_number=NUMBER) == 1
    until(lambda: sample(web.get(f"/probe?target={NUMBER}").text, "probe_success") == 0, "the data is too old")
    reply = web.get(f"/probe?target={NUMBER}")
    assert reply.status == 200
    assert "voicelink_did_" not in reply.text


def test_with_the_api_down_from_the_start_no_number_is_denied(start: Start) -> None:
    web = start(polled=False)
    web.simulator.add_fault("status:status=401")
    web.discover()
    for target in (NUMBER, ABSENT):
        reply = web.get(f"/probe?target={target}")
        assert reply.status == 200
        assert sample(reply.text, "probe_success") == 0
        assert "voicelink_did_" not in reply.text


def test_before_anything_was_found_a_probe_fails_and_does_not_hang(start: Start) -> None:
    reply = start(polled=False).get(f"/probe?target={NUMBER}")
    assert reply.status == 200
    assert sample(reply.text, "probe_success") == 0
