"""The daemon heals what breaks, and a real Prometheus sees it; a fleet that breaks as one is left alone."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.e2e.test_prometheus import free_port, until_value, value
from tests.support.http import sample
from tests.support.processes import program, run, serving, simulating, until
from tests.support.programs import require

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.processes import Served, Simulated

pytestmark = pytest.mark.e2e

NUMBER = "+918011223346"
BROKEN = ["NO_BOT", "ROUTING_MISSING"]
CONFIG = """
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
  - job_name: fleet
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""


def healing(simulator: Simulated, folder: Path, **more: str) -> dict[str, str]:
    return {
        **simulator.env,
        "VOICELINK_STORE_URL": f"sqlite:///{folder}/store.db",
        "VOICELINK_HEAL_MODE": "enforce",
        "VOICELINK_HEAL_CONFIRM_FOR": "1s",
        "VOICELINK_HEAL_VERIFY_WITHIN": "10s",
        **more,
    }


def polled(fleet: Served) -> float:
    return sample(fleet.scrape(), "voicelink_polls_total") or 0.0


def test_prometheus_sees_a_did_break_and_heal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prometheus, port, config = require("prometheus"), free_port(), tmp_path / "prometheus.yml"
    with simulating("--dids=10") as simulator, serving(env=healing(simulator, tmp_path)) as fleet:
        fleet.until_ready()
        config.write_text(CONFIG.format(port=fleet.port))
        storage = f"--storage.tsdb.path={tmp_path}/data"
        with program(
            prometheus, f"--config.file={config}", f"--web.listen-address=127.0.0.1:{port}", storage
        ) as process:
            process.until_said("Server is ready to receive web requests")
            until_value(port, "sum(voicelink_did_ready)", 10)
            begun = time.monotonic()
            simulator.set_did(NUMBER, issues=BROKEN)
            until_value(port, f'voicelink_did_heal_state{{phone_number="{NUMBER}",state="pending"}}', 1)
            until_value(port, f'voicelink_did_ready{{phone_number="{NUMBER}"}}', 1)
            seconds = time.monotonic() - begun
            until_value(port, 'voicelink_heal_attempts_total{outcome="succeeded"}', 1)
            until_value(port, f'voicelink_did_heal_state{{phone_number="{NUMBER}",state="probation"}}', 1)
            assert value(port, "voicelink_heal_duration_seconds_count") == 1
            assert value(port, "sum(voicelink_heal_attempts_total)") == 1
        assert simulator.healed() == [NUMBER]
        with capsys.disabled():
            print(f"\nbroken to ready, as Prometheus saw it: {seconds:.1f} s")  # noqa: T201 - a figure for the reader


def test_a_fleet_that_breaks_as_one_is_left_alone(tmp_path: Path) -> None:
    with simulating("--dids=200") as simulator, serving(env=healing(simulator, tmp_path)) as fleet:
        fleet.until_ready()
        until(lambda: sample(fleet.scrape(), "voicelink_heal_blocked", guard="hold_off") == 0, "hold-off is over")
        for number in sorted(simulator.control("GET", "fleet")["dids"])[:160]:
            simulator.set_did(number, issues=BROKEN)
        blocked = "voicelink_heal_blocked"
        until(lambda: sample(fleet.scrape(), blocked, guard="max_unhealthy") == 1, "the guard holds")
        plan = run("heal", "plan", env=healing(simulator, tmp_path))
        assert plan.code == 1
        assert "guard max_unhealthy: 160 of 200 DIDs are unhealthy" in plan.out
        assert "find the common cause first" in plan.out
        assert plan.out.count("blocked: max_unhealthy") == 160
        assert simulator.requests("call_ready") == []
        fleet.process.until_said('msg="healing is blocked"')
        (said,) = (line for line in fleet.process.err.splitlines() if 'msg="healing is blocked"' in line)
        assert "guards=max_unhealthy" in said
