"""From a broken number to a message and back: simulator, exporter, Prometheus, Alertmanager and who is told."""

from __future__ import annotations

import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from ruamel.yaml import YAML

from tests.support.monitoring import ROOT, RULES, read_yaml
from tests.support.monitoring_stack import alertmanager, prometheus
from tests.support.processes import serving, simulating, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.e2e

NUMBER = "+918011223346"
CONFIG = """
global: {{scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms}}
rule_files: ["{folder}/voicelink-*.yml"]
alerting: {{alertmanagers: [{{static_configs: [{{targets: ["127.0.0.1:{alertmanager}"]}}]}}]}}
scrape_configs:
  - job_name: voicelink-exporter
    static_configs: [{{targets: ["127.0.0.1:{exporter}"]}}]
"""


@contextmanager
def webhook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Listen for messages; answer the address, and a list that they come into."""
    messages: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            messages.append({"path": self.path, **message})
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", messages
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def hasten(folder: Path, hook: str, *, unready: str = "2s") -> None:
    """Write the rules and the Alertmanager example as they are, but for short times and for receivers on `hook`.

    `unready` is how long a number is not ready before that is an alert of its own.
    """
    for path in RULES.glob("*.yml"):
        text = re.sub(r"(for|keep_firing_for): \d+[mh]\b", r"\1: 1s", path.read_text(encoding="utf-8"))
        text = text.replace("[15m]", f"[{unready}]").replace("offset 15m", f"offset {unready}")
        (folder / path.name).write_text(text, encoding="utf-8")
    config = read_yaml(ROOT / "config" / "alertmanager" / "alertmanager.yml")
    for receiver in config["receivers"]:
        receiver["webhook_configs"][0]["url"] = f"{hook}/{receiver['name']}"
    for route in (config["route"], *config["route"]["routes"]):
        route |= {"group_wait": "1s", "group_interval": "1s"}
    with (folder / "alertmanager.yml").open("w") as file:
        YAML().dump(config, file)


def test_an_alert_reaches_its_receiver_and_resolves_once_the_number_is_ready(tmp_path: Path) -> None:
    with webhook() as (hook, messages), simulating("--dids=30") as simulator, serving(env=simulator.env) as exporter:
        exporter.until_ready()
        hasten(tmp_path, hook)

        def told(receiver: str, alert: str, status: str) -> dict[str, Any] | None:
            for message in messages:
                for each in message["alerts"]:
                    found = (message["path"], each["labels"]["alertname"], each["status"])
                    if found == (f"/{receiver}", f"VoiceLink{alert}", status):
                        return dict(each)
            return None

        with alertmanager(tmp_path / "alertmanager.yml") as port:
            config = tmp_path / "prometheus.yml"
            config.write_text(CONFIG.format(folder=tmp_path, alertmanager=port, exporter=exporter.port))
            with prometheus(config, tmp_path / "data"):
                until(lambda: told("dead-mans-switch", "Watchdog", "firing"), "the watchdog is heard")
                assert told("chat", "DidNotReady", "firing") is None
                simulator.set_did(NUMBER, issues=["NO_BOT", "ROUTING_MISSING"])
                until(lambda: told("chat", "DidNotReady", "firing"), "the alert fires", within=30)
                simulator.set_did(NUMBER, issues=[])
                until(lambda: told("chat", "DidNotReady", "resolved"), "the alert resolves", within=30)
    fired = told("chat", "DidNotReady", "firing")
    assert fired
    assert fired["labels"]["phone_number"] == NUMBER
    assert "Its state is NO_BOT." in fired["annotations"]["description"]
    assert "var-phone_number=%2B918011223346" in fired["annotations"]["dashboard_url"]
    assert told("pager", "DidNotReady", "firing") is None


def test_a_connection_that_is_down_is_one_message_for_the_pager_and_silences_its_numbers(tmp_path: Path) -> None:
    with webhook() as (hook, messages), simulating("--dids=3") as simulator, serving(env=simulator.env) as exporter:
        for last in (4, 5, 6):
            simulator.set_did(f"+91801122334{last}", issues=["NO_BOT"])
        exporter.until_ready()
        hasten(tmp_path, hook)
        with alertmanager(tmp_path / "alertmanager.yml") as port:
            config = tmp_path / "prometheus.yml"
            config.write_text(CONFIG.format(folder=tmp_path, alertmanager=port, exporter=exporter.port))
            with prometheus(config, tmp_path / "data") as running:
                paged = until(lambda: [each for each in messages if each["path"] == "/pager"], "the pager is called")
                firing = 'ALERTS{alertname="VoiceLinkDidNotReady",alertstate="firing"}'
                until(lambda: not running.get("query", query=firing)["result"], "its numbers are silent")
    names = {alert["labels"]["alertname"] for alert in paged[0]["alerts"]}
    assert names == {"VoiceLinkConnectionDown"}
    assert not [
        each for each in messages for alert in each["alerts"] if alert["labels"]["alertname"] == "VoiceLinkDidNotReady"
    ]
    assert "None of the 3 numbers" in paged[0]["alerts"][0]["annotations"]["description"]
