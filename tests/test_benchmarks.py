"""The benchmarks still run, and the baseline they compare with says the same as the exporter."""

from __future__ import annotations

import asyncio
import re
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from prometheus_client import generate_latest

from benchmarks import run
from benchmarks.baseline import FleetCollector, polled
from benchmarks.inside import Steps, lag_of_polls, steps_of_poll, work_after_poll
from benchmarks.looking import LOOKS, looks, scrapes_beside
from benchmarks.running import base_url, simulator
from benchmarks.scraping import Scraper, value
from benchmarks.table import BEGIN, END, Row, at_most, put_into, ratio
from exporter.exposition import Exposition
from exporter.telemetry import Telemetry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.running import Running

pytestmark = pytest.mark.e2e
DIDS = 30


@pytest.fixture(scope="module")
def api() -> Iterator[Running]:
    with simulator(DIDS, 1) as running:
        yield running


def test_the_baseline_has_exactly_the_fleets_series(api: Running) -> None:
    telemetry = Telemetry()
    fleet = asyncio.run(polled(base_url(api), telemetry))
    exposition = Exposition(lambda: (b"", b""))
    exposition.update(fleet)
    registry = Telemetry().registry
    registry.register(FleetCollector(fleet))
    theirs = {line for line in generate_latest(registry).decode().splitlines() if "voicelink_" in line}
    own = {line for line in Telemetry().render()[0].decode().splitlines() if "voicelink_" in line}
    assert theirs - own == set(b"".join(exposition.bodies.text.plain).decode().splitlines())
    assert len(theirs - own) > DIDS * 8


def _ready(server: Running) -> float:
    with closing(Scraper(server)) as scraper:
        return value(scraper.scrape().text, "voicelink_did_ready{")


def test_a_scrape_is_timed_and_read(api: Running) -> None:
    with run.polled(api, 60, DIDS) as (ours, scraper, seconds), run.baseline(api) as theirs:
        with run.constant(ours) as bytes_alone:
            assert _ready(bytes_alone) == DIDS
        assert _ready(theirs) == DIDS
        scrape = scraper.scrape()
        assert value(scrape.text, "voicelink_did_ready{") == DIDS
        assert scrape.seconds > 0
        assert scraper.timed() > 0
        assert seconds > 0
        assert ours.rss > 1
        assert ours.cpu > 0


def test_pages_are_looked_at_and_scrapes_beside_them(api: Running) -> None:
    with run.polled(api, 60, DIDS) as (ours, _, _):
        rows = [*looks(ours, 3), scrapes_beside(ours, 3)]
    assert len(rows) == len(LOOKS) + 2
    assert all(re.match(r"[\d.,]+ ms", row.figure) for row in rows)


async def test_a_poll_is_taken_apart(api: Running) -> None:
    steps = await steps_of_poll(api, 2)
    assert isinstance(steps, Steps)
    assert min(steps.receive, steps.parse, steps.diff) > 0
    assert steps.total > steps.after > 0


async def test_the_event_loop_is_watched_while_it_polls(api: Running) -> None:
    lag = await lag_of_polls(api, 2)
    assert lag.worst >= lag.median > 0


def test_the_work_after_a_poll_is_measured() -> None:
    assert work_after_poll(3, 10, 2) > 0


def test_imports_are_listed_by_package() -> None:
    sizes = run.Sizes(starts=1)
    start, imports = run.starting(sizes)
    assert re.fullmatch(r"[\d.]+ s", start.figure)
    assert re.search(r"\bhttpx\b|\bpydantic\b|\bsqlalchemy\b", imports.figure)


def test_every_size_is_a_flag(tmp_path: Path) -> None:
    sizes, page = run.sizes_from(["--dids=7", "--rate-seconds=0.5", f"--write={tmp_path / 'page.md'}"])
    assert (sizes.dids, sizes.rate_seconds, sizes.targets) == (7, 0.5, run.Sizes().targets)
    assert page == tmp_path / "page.md"


def test_a_missed_target_is_called_missed() -> None:
    assert str(at_most("RSS", 251, 250, "MiB")) == "| RSS | 251 MiB | at most 250 MiB | **missed** |"
    assert str(at_most("RSS", 250, 250, "MiB")) == "| RSS | 250 MiB | at most 250 MiB | met |"
    assert str(ratio("faster", 1.0, 999.0, 1000)) == "| faster | 999x | at least 1,000x | **missed** |"
    assert str(Row("size", "1 MB")) == "| size | 1 MB |  |  |"


def test_the_table_is_put_between_the_marks_of_a_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n", encoding="utf-8")
    put_into(page, "new\n")
    assert page.read_text(encoding="utf-8") == f"before\n{BEGIN}\nnew\n{END}\nafter\n"
    page.write_text("no marks\n", encoding="utf-8")
    with pytest.raises(ValueError, match="lacks the marks"):
        put_into(page, "new\n")
    assert page.read_text(encoding="utf-8") == "no marks\n"
