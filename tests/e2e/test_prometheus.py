"""A real Prometheus scrapes the product and answers questions about it."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from tests.support.http import ask
from tests.support.processes import program, serving, simulating, until
from tests.support.programs import require

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.e2e

NUMBER = "+918011223346"
CONFIG = """
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
  - job_name: fleet
    static_configs: [{{targets: ["127.0.0.1:{fleet}"]}}]
  - job_name: demo
    static_configs: [{{targets: ["127.0.0.1:{demo}"]}}]
  - job_name: probe
    metrics_path: /probe
    params: {{target: ["{number}"]}}
    static_configs: [{{targets: ["127.0.0.1:{fleet}"]}}]
"""


def api(port: int, path: str) -> Any:  # noqa: ANN401 - JSON
    """Ask Prometheus; return what is under `data`."""
    reply = ask(port, f"/api/v1/{path}")
    assert reply.status == 200, reply
    return json.loads(reply.text)["data"]


def value(port: int, query: str) -> float | None:
    """Return the value of a query with one result, `None` where there is none."""
    results = api(port, f"query?query={quote(query)}")["result"]
    assert len(results) <= 1, results
    return float(results[0]["value"][1]) if results else None


def until_value(port: int, query: str, expected: float) -> None:
    """Wait until a query has a value."""
    seen: list[float | None] = []

    def has_it() -> bool:
        seen.append(value(port, query))
        return seen[-1] == expected

    try:
        until(has_it, f"{query} is {expected:g}")
    except AssertionError as error:
        raise AssertionError(f"{error}; it was {sorted(set(map(str, seen)))}; {api(port, 'targets')}") from None


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


def test_it_answers_for_a_did_that_broke_and_recovered(tmp_path: Path) -> None:
    prometheus, port = require("prometheus"), free_port()
    config = tmp_path / "prometheus.yml"
    with (
        simulating("--dids=6", "--connections=2") as simulator,
        serving(env=simulator.env) as fleet,
        serving("--web.listen-address=127.0.0.1:0", env={}, command="demo") as demo,
    ):
        fleet.until_ready()
        demo.until_ready()
        config.write_text(CONFIG.format(fleet=fleet.port, demo=demo.port, number=NUMBER))
        with program(
            prometheus,
            f"--config.file={config}",
            f"--web.listen-address=127.0.0.1:{port}",
            f"--storage.tsdb.path={tmp_path}/data",
        ) as process:
            process.until_said("Server is ready to receive web requests")
            ready = f'voicelink_did_ready{{job="fleet",phone_number="{NUMBER}"}}'
            until_value(port, ready, 1)
            simulator.set_did(NUMBER, issues=["NO_BOT", "ROUTING_MISSING"])
            until_value(port, ready, 0)
            issues = f'count(voicelink_did_issue{{job="fleet",phone_number="{NUMBER}"}})'
            state = f'voicelink_did_state{{job="fleet",phone_number="{NUMBER}",state="NO_BOT"}}'
            until_value(port, issues, 2)
            assert value(port, state) == 1
            assert value(port, 'sum(voicelink_dids{job="fleet",state="NO_BOT"})') == 1
            simulator.set_did(NUMBER, issues=[])
            until_value(port, ready, 1)
            assert value(port, issues) is None
            assert value(port, f"min_over_time({ready}[1m])") == 0
            assert value(port, f"changes({ready}[1m])") == 2
            changes = f'voicelink_did_state_changes_total{{job="fleet",phone_number="{NUMBER}"}}'
            until_value(port, changes, 2)
            probe = 'probe_success{job="probe"}'
            until_value(port, probe, 1)

            assert value(port, 'count(voicelink_did_ready{job="fleet"})') == 6
            until_value(port, 'count(voicelink_did_ready{job="demo"})', 40)
            assert value(port, 'min(voicelink_up{job=~"fleet|demo"})') == 1
            assert value(port, "min(min_over_time(up[1m]))") == 1
            for target in api(port, "targets")["activeTargets"]:
                assert (target["health"], target["lastError"]) == ("up", "")
            # Only OpenMetrics names a counter without its _total.
            assert api(port, "metadata?metric=voicelink_polls")["voicelink_polls"][0]["type"] == "counter"
            assert api(port, "metadata?metric=voicelink_polls_total") == {}
            assert "level=error" not in process.err
            assert "Error on ingesting" not in process.err
