"""Every query of every panel, variable and annotation, asked of a real Prometheus that holds the product's own data."""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.backfill import all_and_one_absent, record, troubles, write_blocks
from tests.support.monitoring import Asked, asked, load_dashboards
from tests.support.monitoring_stack import Prometheus, prometheus
from tests.support.programs import require

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.e2e

POLLS, DIDS, HOURS = 60, 18, 1
IN_TROUBLE, WELL = "+918011223345", "+918011223344"
QUERIES = [each for dashboard in load_dashboards() for each in asked(dashboard)]


@pytest.fixture(scope="module")
def end() -> float:
    return float(int(time.time()) - 60)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, end: float) -> Iterator[Prometheus]:
    """Run a Prometheus that knows a fleet with every trouble as job `broken`, and one without as job `healthy`."""
    folder = tmp_path_factory.mktemp("history")
    asyncio.run(_write_history(folder, end))
    write_blocks(require("promtool"), folder / "history.txt", folder / "data")
    (folder / "prometheus.yml").write_text("{}")
    with prometheus(folder / "prometheus.yml", folder / "data") as running:
        yield running


async def _write_history(folder: Path, end: float) -> None:
    for name in ("broken", "healthy"):
        (folder / name).mkdir()
    with (folder / "history.txt").open("w") as into:
        fleet: dict[str, Any] = {"dids": DIDS, "connections": 2, "latency": 0.2, "into": into, "end": end}
        account = all_and_one_absent(DIDS)
        await record(folder / "broken", job="broken", polls=POLLS, scenario=troubles, account=account, **fleet)
        await record(folder / "healthy", job="healthy", polls=20, **fleet)
        into.write("# EOF\n")


def answer(server: Prometheus, each: Asked, *, job: str, number: str, end: float) -> list[Any]:
    """Ask as Grafana does, with its variables filled in."""
    filled = {
        "$job": job,
        "$account": ".+",
        "$connection": ".+",
        "$phone_number": number,
        "$__rate_interval": "4m",
        "$__range": f"{int(HOURS * 60)}m",
    }
    expr = each.expr
    for name in sorted(filled, key=len, reverse=True):
        expr = expr.replace(name, filled[name])
    assert not re.search(r"\$[a-z_]{2}", expr), expr
    if values := re.fullmatch(r"label_values\((.+), (\w+)\)", expr):
        found = server.get(f"label/{values[2]}/values", **{"match[]": values[1], "start": end - 3600, "end": end})
        return list(found)
    return server.results(expr, end=end, hours=0 if each.instant else HOURS)


@pytest.mark.parametrize("each", QUERIES, ids=lambda each: each.where)
def test_a_query_has_results_where_its_panel_promises_some(server: Prometheus, end: float, each: Asked) -> None:
    assert answer(server, each, job="broken", number=IN_TROUBLE, end=end), (
        "with every trouble there is something to show"
    )
    healthy = answer(server, each, job="healthy", number=WELL, end=end)
    assert healthy or not each.promised
    answer(server, each, job="nobody", number=WELL, end=end)  # is no error


def test_the_backfill_is_what_the_panels_are_about(server: Prometheus, end: float) -> None:
    def value(expr: str) -> float:
        (result,) = server.results(expr, end=end)
        return float(result["value"][1])

    assert value('count(voicelink_did_ready{job="healthy"} == 1)') == DIDS
    assert value('count(voicelink_did_state{job="broken",state="MISSING"} == 1)') == 1
    assert value('sum(voicelink_heal_attempts_total{job="broken",outcome="succeeded"})') > 0
    assert value('sum(voicelink_heal_quarantined{job="broken"})') > 0


def by_title(title: str) -> Asked:
    return next(each for each in QUERIES if each.where == f"voicelink-fleet, {title}, A")


def test_what_stands_in_the_first_row_of_the_fleet_is_right(server: Prometheus, end: float) -> None:
    def value(title: str, job: str) -> float:
        (result,) = answer(server, by_title(title), job=job, number=WELL, end=end)
        return float(result["value"][1])

    (ready,) = server.results('sum(voicelink_did_ready{job="broken"})', end=end)
    count = float(ready["value"][1])
    assert value("Numbers in all", "broken") == DIDS + 1
    assert value("Not ready", "broken") == DIDS + 1 - count
    assert value("Ready", "broken") == pytest.approx(count / (DIDS + 1))
    assert value("Ready", "healthy") == 1
    assert value("Not ready", "healthy") == 0
    assert value("Firing alerts", "healthy") == 0
    assert value("Firing alerts", "broken") > 0


def test_a_query_that_is_wrong_is_found(server: Prometheus, end: float) -> None:
    wrong = Asked("here", 'voicelink_did_ready{job=~"$job",phone_number=~"$phone_number"}', instant=True, promised=True)
    with pytest.raises(AssertionError, match="invalid parameter"):
        answer(server, wrong, job="broken", number=WELL, end=end)
