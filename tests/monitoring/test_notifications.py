"""How often a person hears of one cause: fleets of every size, of which one number, half or all break at once.

Which alerts fire, and when, promtool says by the rules as they are shipped. What comes of these alerts after grouping
and inhibition, a real Alertmanager says by its shipped configuration, with shorter waits.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final

import pytest
from ruamel.yaml import YAML

from tests.monitoring.test_delivery import CONFIG, hasten, webhook
from tests.monitoring.test_rules import command
from tests.support.monitoring import ROOT, RULES, read_yaml
from tests.support.monitoring_stack import alertmanager, prometheus
from tests.support.processes import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STEP: Final = 5  # minutes between two evaluations
HEALTHY: Final = 65  # minutes before it breaks, so that an hour was watched
CRITICAL: Final = {"ConnectionDown", "AccountDown", "FleetNotReady", "ReadinessBudgetBurn"}
GROUPS: Final = ("recording", "critical", "exporter", "readiness", "numbers", "healing")


@dataclass(frozen=True, slots=True)
class Case:
    """A fleet that breaks: `broken` of the `numbers` of each of its connections.

    `fires` says from which minute on which alerts fire, and how many: 0 is when it breaks.
    """

    name: str
    numbers: int
    broken: int
    fires: dict[int, dict[str, int]]
    connections: int = 1

    def firing(self, minute: int) -> dict[str, int]:
        """Return the alerts that fire in a minute, and how many."""
        return next((self.fires[each] for each in sorted(self.fires, reverse=True) if each <= minute), {})

    @property
    def minutes(self) -> int:
        return max(self.fires, default=30) + STEP


BURNS: Final = {"ReadinessBudgetBurn": 1}
DOWN: Final = {5: {"ConnectionDown": 1}, 10: {"ConnectionDown": 1} | BURNS}
HALF: Final = {10: {"FleetNotReady": 1}, 20: {"FleetNotReady": 1} | BURNS}
ONE_OF_FEW: Final = {15: {"DidNotReady": 1, "FleetNotReady": 1}}
CASES: Final = [
    Case("the only one", 1, 1, ONE_OF_FEW),
    Case("one of 3", 3, 1, ONE_OF_FEW),
    Case("two of 3", 3, 2, {15: {"DidNotReady": 2, "FleetNotReady": 1}}),
    Case("all of 3", 3, 3, {5: {"ConnectionDown": 1}}),
    Case("one of 20", 20, 1, {15: {"DidNotReady": 1}, 120: {"DidNotReady": 1, "FleetNotReady": 1}}),
    Case(
        "half of 20",
        20,
        10,
        {
            15: {"DidNotReady": 10, "FleetNotReady": 1},
            20: {"DidNotReady": 10, "FleetNotReady": 1} | BURNS,
            25: {"FleetNotReady": 1} | BURNS,
        },
    ),
    Case("all of 20", 20, 20, DOWN),
    Case("one of 1,000", 1000, 1, {15: {"DidNotReady": 1}}),
    Case("half of 1,000", 1000, 500, HALF),
    Case("all of 1,000", 1000, 1000, DOWN),
    Case("half of 60 connections", 4, 2, {10: {"FleetNotReady": 1}}, connections=60),
    Case("all of 60 connections", 4, 4, {5: {"AccountDown": 1, "ConnectionDown": 60}}, connections=60),
]


def number(connection: int, index: int) -> str:
    return f"+91{connection:04}{index:06}"


def series(case: Case) -> dict[str, str]:
    """Return what an exporter shows of the fleet, in the notation of promtool."""
    before, after = HEALTHY // STEP - 1, case.minutes // STEP + 1
    found: dict[str, str] = {}

    def put(metric: str, labels: str, value: int, then: int) -> None:
        found[f'{metric}{{job="voicelink-exporter",instance="a:1"{labels}}}'] = f"{value}x{before} {then}x{after}"

    put("up", "", 1, 1)
    for connection in range(case.connections):
        of = f',account="main",connection="c{connection}"'
        put("voicelink_up", of, 1, 1)
        put("voicelink_dids", f'{of},state="READY"', case.numbers, case.numbers - case.broken)
        put("voicelink_dids", f'{of},state="NO_BOT"', 0, case.broken)
        for index in range(case.numbers):
            did, breaks = f'{of},phone_number="{number(connection, index)}"', index < case.broken
            put("voicelink_did_ready", did, 1, int(not breaks))
            put("voicelink_did_state", f'{did},state="READY"', 1, int(not breaks))
            put("voicelink_did_state", f'{did},state="NO_BOT"', 0, int(breaks))
            put("voicelink_did_info", f'{did},friendly_name="Sales"', 1, 1)
    return found


@pytest.mark.e2e
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_these_alerts_fire(case: Case, tmp_path: Path) -> None:
    moments = sorted({*case.fires, *(at - STEP for at in case.fires), case.minutes})
    test = {
        "interval": f"{STEP}m",
        "input_series": [{"series": name, "values": values} for name, values in series(case).items()],
        "promql_expr_test": [
            {
                "expr": 'count by (alertname) (ALERTS{alertstate="firing", alertname!="VoiceLinkWatchdog"})',
                "eval_time": f"{HEALTHY + at}m",
                "exp_samples": [
                    {"labels": f'{{alertname="VoiceLink{alert}"}}', "value": count}
                    for alert, count in case.firing(at).items()
                ],
            }
            for at in moments
        ],
    }
    path = tmp_path / "case.yml"
    content = {
        "rule_files": [str(each) for each in sorted(RULES.glob("*.yml"))],
        "evaluation_interval": f"{STEP}m",
        "group_eval_order": [f"voicelink-{group}" for group in GROUPS],
        "tests": [test],
    }
    path.write_text(json.dumps(content))  # which is YAML
    command("promtool", "test", "rules", path)


# What a person hears of it


def labels_of(case: Case, alert: str, count: int) -> list[dict[str, str]]:
    """Return the labels of the alerts of one name, as the rules give them."""
    common = {"alertname": f"VoiceLink{alert}", "job": case.name, "severity": "critical"}
    match alert:
        case "FleetNotReady":
            return [common | {"reason": "share" if case.numbers * case.connections > 20 else "few"}]
        case "AccountDown":
            return [common | {"account": "main"}]
        case "DidNotReady":
            common["severity"] = "warning"
            return [common | did_labels(index % case.connections, index) for index in range(count)]
        case "ReadinessBudgetBurn":
            common["window"] = "1h"
    return [common | {"account": "main", "connection": f"c{index}"} for index in range(count)]


def did_labels(connection: int, index: int) -> dict[str, str]:
    return {
        "account": "main",
        "connection": f"c{connection}",
        "phone_number": number(connection, index),
        "state": "NO_BOT",
    }


def post(port: int, alerts: list[dict[str, str]]) -> None:
    body = json.dumps([{"labels": each} for each in alerts])
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/api/v2/alerts", body, {"Content-Type": "application/json"})
    assert connection.getresponse().status == 200
    connection.close()


@pytest.mark.e2e
def test_one_cause_is_at_most_one_page_and_three_messages(tmp_path: Path) -> None:
    config = read_yaml(ROOT / "config" / "alertmanager" / "alertmanager.yml")
    for route in (config["route"], *config["route"]["routes"]):
        route |= {"group_wait": "1s", "group_interval": "1s", "repeat_interval": "1h"}
    with webhook() as (hook, messages):
        for receiver in config["receivers"]:
            receiver["webhook_configs"][0]["url"] = f"{hook}/{receiver['name']}"
        path = tmp_path / "alertmanager.yml"
        with path.open("w") as file:
            YAML().dump(config, file)
        with alertmanager(path) as port:
            for minute in sorted({at for case in CASES for at in case.fires}):
                for case in CASES:
                    firing = case.firing(minute).items()
                    if alerts := [each for alert, count in firing for each in labels_of(case, alert, count)]:
                        post(port, alerts)
                for turn in range(2):  # whoever waited before these two, one after the other, had a turn of its own
                    mark = f"{minute}-{turn}"
                    for severity in ("warning", "critical"):
                        post(
                            port,
                            [{"alertname": "VoiceLinkMark", "job": mark, "account": severity, "severity": severity}],
                        )
                    until(lambda: sum(job_of(each) == mark for each in messages) == 2, "the marks have come through")  # noqa: B023 - it is waited for here
    heard = Counter((job_of(each), each["path"]) for each in messages)
    for case in CASES:
        pages = any(CRITICAL & alerts.keys() for alerts in case.fires.values())
        assert heard[case.name, "/pager"] == int(pages), case.name
        assert heard[case.name, "/chat"] <= 3, case.name


def job_of(message: dict[str, Any]) -> str:
    return str(message["groupLabels"]["job"])


# Ten thousand numbers, by way of a real Prometheus

OTHERS: Final = {"Watchdog", "ExporterAbsent"}  # the latter for the moment before the first scrape


@contextmanager
def showing(pages: list[bytes]) -> Iterator[int]:
    """Serve the last of some pages as metrics; answer the port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(pages[-1])

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def page(numbers: int, broken: int) -> bytes:
    """Return what an exporter shows of a connection of which so many numbers have no bot."""
    of = 'account="main",connection="c0"'
    lines = [
        f"voicelink_up{{{of}}} 1",
        f'voicelink_dids{{{of},state="READY"}} {numbers - broken}',
        f'voicelink_dids{{{of},state="NO_BOT"}} {broken}',
    ]
    for index in range(numbers):
        did, fine = f'{of},phone_number="{number(0, index)}"', int(index >= broken)
        lines += [
            f"voicelink_did_ready{{{did}}} {fine}",
            f'voicelink_did_state{{{did},state="READY"}} {fine}',
            f'voicelink_did_state{{{did},state="NO_BOT"}} {1 - fine}',
            f'voicelink_did_info{{{did},friendly_name="Line {index}",team="sales"}} 1',
        ]
    return ("\n".join(lines) + "\n").encode()


@pytest.mark.e2e
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("broken", "first"), [(1, "DidNotReady"), (5000, "FleetNotReady"), (10000, "ConnectionDown")], ids=str
)
def test_of_ten_thousand_numbers(broken: int, first: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pages = [page(10000, 0)]
    with webhook() as (hook, messages), showing(pages) as exporter:
        hasten(tmp_path, hook, unready="20s")  # as long after the alerts of the fleet as it is in truth
        with alertmanager(tmp_path / "alertmanager.yml") as port:
            config = tmp_path / "prometheus.yml"
            text = CONFIG.format(folder=tmp_path, alertmanager=port, exporter=exporter)
            config.write_text(text.replace("500ms", "2s"))
            with prometheus(config, tmp_path / "data") as running:
                until(lambda: running.get("query", query="count(voicelink_up)")["result"], "it is scraped", within=120)
                pages.append(page(10000, broken))

                def heard(path: str = "") -> set[str]:
                    alerts = (each for message in messages if path in message["path"] for each in message["alerts"])
                    return {each["labels"]["alertname"].removeprefix("VoiceLink") for each in alerts} - OTHERS

                until(lambda: first in heard(), f"{first} is heard of", within=240)
                unready = f"count(voicelink:did_unready:state) == {broken}"
                until(lambda: running.get("query", query=unready)["result"], "no number is ready any more", within=120)
                took = {each["name"]: each["evaluationTime"] for each in running.get("rules")["groups"]}
    assert heard() == {first}
    assert heard("/pager") == ({first} if broken > 1 else set())
    with capsys.disabled():
        print(f"\n10,000 numbers, {broken:,} not ready: seconds that the rules took: {took}")  # noqa: T201
