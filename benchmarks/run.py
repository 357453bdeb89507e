"""Measures speed and size, beside the exporter that a user would write instead. `make bench` runs it.

Prints a Markdown table; `--write FILE` puts it between the marks of a page as well. Takes a few minutes; the flags make
it smaller. Everything runs on this machine, over loopback.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import shutil
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.healing import claims_a_second, controller_cost, decision_seconds, postgres_url, sqlite_url
from benchmarks.inside import Changer, lag_of_polls, steps_of_poll, work_after_poll
from benchmarks.looking import looks, scrapes_beside
from benchmarks.running import Running, answers, base_url, exporter, free_port, listens, simulator, started, wait_for
from benchmarks.scraping import Scraper, rate, value
from benchmarks.starting import first_answer, import_times
from benchmarks.table import Row, at_most, markdown, put_into, ratio, with_unit
from exporter.logs import set_up_logging

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_HERE: Final = Path(__file__).resolve().parent
FASTER: Final = 1000  # times, than the baseline
SLOWEST: Final = 250.0  # milliseconds a scrape may take while polls go on
MOST_MEMORY: Final = 250.0  # MiB
SLACK: Final = 0.2  # seconds, beside interval and duration, from a change to /metrics
DECISION: Final = 50.0  # milliseconds
FIRST: Final = 1.5  # seconds from the start to the first answer
CHURN, OUTAGE = 18.0, 200.0  # half of the fleet broken in the end, 0.5 % of it changing each second
INTERVAL: Final = 2.0  # seconds between polls while scrapes are watched: 1 % changes from one to the next
FLEETS_INTERVAL: Final = 20.0  # the same for many targets, which take turns
WATCH: Final = 20.0  # seconds that scrapes are watched
SHOWN: Final = 6  # packages whose import time is listed


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything. The flags, in the same order."""

    dids: int = 10_000
    targets: int = 100
    dids_each: int = 1000
    scrapes: int = 60
    rounds: int = 5
    watched: int = 200
    changes: int = 12
    polls: int = 15
    rate_seconds: float = 4.0
    starts: int = 5
    claims: int = 300
    looks: int = 40


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _ms(seconds: float) -> str:
    return with_unit(seconds * 1000, "ms")


@contextlib.contextmanager
def baseline(api: Running) -> Iterator[Running]:
    """Run the exporter that a user would write."""
    port = free_port()
    with started(port, [str(_HERE / "baseline.py"), str(port), base_url(api)]) as running:
        wait_for(running, lambda: listens(port))
        yield running


@contextlib.contextmanager
def constant(source: Running) -> Iterator[Running]:
    """Run uvicorn with what `source` answers now as its only answer."""
    port = free_port()
    with started(port, [str(_HERE / "constant.py"), str(port), str(source.port)]) as running:
        wait_for(running, lambda: listens(port))
        yield running


@contextlib.contextmanager
def polled(api: Running, interval: float, dids: int) -> Iterator[tuple[Running, Scraper, float]]:
    """Run the exporter and wait until it shows so many DIDs; also returns the seconds until then."""
    begun = time.perf_counter()
    with exporter(api, f"{round(interval * 1000)}ms") as running:
        wait_for(running, lambda: answers(running.port, "/metrics"))
        with contextlib.closing(Scraper(running)) as scraper:
            wait_for(running, lambda: value(scraper.scrape().text, "voicelink_dids{") == dids)
            yield running, scraper, time.perf_counter() - begun


def scrapes(sizes: Sizes, dids: int, targets: int) -> Iterator[Row]:
    """Compare scrapes of a fleet at rest, in turns, so that all have the same weather."""
    with simulator(dids, targets) as api, polled(api, 600, dids) as (ours, scraper, seconds), baseline(api) as theirs:
        own: list[float] = []
        ceiling: list[float] = []
        other: list[float] = []
        with (
            constant(ours) as bytes_alone,
            contextlib.closing(Scraper(theirs)) as them,
            contextlib.closing(Scraper(bytes_alone)) as alone,
        ):
            for _ in range(sizes.rounds):
                own += [scraper.timed() for _ in range(sizes.scrapes)]
                ceiling += [alone.timed() for _ in range(sizes.scrapes)]
                other.append(them.timed())
            rates = [rate(server, sizes.rate_seconds) for server in (ours, bytes_alone)]
        found = scraper.scrape()
        mine, median = statistics.median(own), statistics.median(other)
        size = f"{len(found.body) / 1e6:.2f} MB gzipped, {len(found.text) / 1e6:.1f} MB of text"
        yield Row("size of a scrape", size)
        yield Row(f"gzip scrape, median of {len(own)}", _ms(mine))
        yield Row(f"the same from the baseline, median of {len(other)}", _ms(median))
        yield ratio("how many times faster", mine, median, FASTER)
        yield Row("the same from uvicorn with these bytes as a constant", _ms(statistics.median(ceiling)))
        asked = "4 connections of wrk" if shutil.which("wrk") else "one connection"
        yield Row(f"gzip scrapes a second, {asked}", f"{rates[0]:,.0f}")
        yield Row("the same from uvicorn with a constant", f"{rates[1]:,.0f} (ours: {rates[0] / rates[1]:.0%})")
        yield Row("from start to all DIDs shown", with_unit(seconds, "s"))
        yield Row("RSS after one poll, baseline's", f"{ours.rss:.0f} MiB, {theirs.rss:.0f} MiB")


def scrapes_while_polling(sizes: Sizes, dids: int, targets: int, interval: float) -> Iterator[Row]:
    """Scrape at random moments while each target is polled and 1 % of it changes from poll to poll."""
    rng = random.Random(1)  # noqa: S311 - spreads scrapes, guards nothing
    with (
        simulator(dids, targets, churn=CHURN * INTERVAL / interval, outage=OUTAGE * interval / INTERVAL) as api,
        polled(api, interval, dids) as (ours, scraper, _),
    ):
        before, cpu = scraper.scrape().text, ours.cpu
        found = []
        for _ in range(sizes.watched):
            time.sleep(rng.uniform(0, 2 * WATCH / sizes.watched))
            found.append(scraper.timed() * 1000)
        used, after = ours.cpu - cpu, scraper.scrape().text
        polls = value(after, "voicelink_polls_total{") - value(before, "voicelink_polls_total{")
        name = "voicelink_did_state_changes_total{"
        changed = (value(after, name) - value(before, name)) / max(1, polls) * targets / dids
        found.sort()
        yield Row("polls meanwhile, and what changed from one to the next", f"{polls:.0f}, {changed:.2%}")
        yield Row("gzip scrape, median and 99th percentile", f"{found[len(found) // 2]:.3g} ms, {found[-3]:.3g} ms")
        what = f"slowest of {len(found)} scrapes"
        if targets == 1:
            yield at_most(what, found[-1], SLOWEST, "ms")
            yield Row("CPU of the process for each poll, all told", _ms(used / max(1, polls)))
            yield change_to_metrics(sizes, api, ours, scraper)
            yield at_most("RSS after all of this", ours.rss, MOST_MEMORY, "MiB")
        else:
            yield Row(what, with_unit(found[-1], "ms"))
            yield Row("CPU of the process for each poll, all told", _ms(used / max(1, polls)))
            yield Row("RSS after all of this", with_unit(ours.rss, "MiB"))


def change_to_metrics(sizes: Sizes, api: Running, ours: Running, scraper: Scraper) -> Row:
    """Change DIDs at moments spread over the interval, and see when /metrics says so."""
    text = scraper.scrape().text
    numbers = sorted({line.split('phone_number="')[1].partition('"')[0] for line in _ready(text)})[: sizes.changes]
    found: list[tuple[float, float, float]] = []  # beyond what is allowed, seconds, duration of the poll
    for turn, number in enumerate(numbers):
        _next_poll(ours, scraper)
        time.sleep(turn / sizes.changes * INTERVAL)
        with contextlib.closing(Changer(api, [number])) as changer:
            changer.change()
        begun = time.perf_counter()
        seconds, text = _until_not_ready(scraper, number, begun)
        duration = value(text, "voicelink_poll_duration_seconds{")
        found.append((seconds - (INTERVAL + duration + SLACK), seconds, duration))
    beyond, seconds, duration = max(found)
    limit = f"{INTERVAL:g} s interval + {duration:.2g} s poll + {SLACK:g} s"
    return Row(f"from a change to /metrics, worst of {len(found)}", f"{seconds:.2f} s", limit, beyond <= 0)


def _next_poll(ours: Running, scraper: Scraper) -> None:
    """Wait until another poll shows."""
    polls = value(scraper.scrape().text, "voicelink_polls_total{")
    wait_for(ours, lambda: value(scraper.scrape().text, "voicelink_polls_total{") > polls)


def _ready(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("voicelink_did_ready{") and line.endswith(" 1.0")]


def _until_not_ready(scraper: Scraper, number: str, begun: float) -> tuple[float, str]:
    last = b""
    while time.perf_counter() - begun < INTERVAL * 10:
        scrape = scraper.scrape()
        seconds = time.perf_counter() - begun
        if scrape.body != last:
            last, text = scrape.body, scrape.text
            at = text.index(f'phone_number="{number}"', text.index("\nvoicelink_did_ready{"))
            if text[at:].partition("\n")[0].endswith(" 0.0"):
                return seconds, text
        time.sleep(0.005)
    raise RuntimeError("the change never came")


def poll_by_step(sizes: Sizes) -> Iterator[Row]:
    """Take one poll apart."""
    with simulator(sizes.dids, 1) as api:
        steps = asyncio.run(steps_of_poll(api, sizes.polls))
        lag = asyncio.run(lag_of_polls(api, sizes.polls))
    yield Row("receive", _ms(steps.receive))
    yield Row("parse", _ms(steps.parse))
    yield Row("diff", _ms(steps.diff))
    yield Row("render and join", _ms(steps.render))
    yield Row("compress", _ms(steps.compress))
    yield Row("together", _ms(steps.total))
    yield Row("longest delay of the event loop within a poll, median and worst", f"{_ms(lag.median)}, {_ms(lag.worst)}")
    yield Row("the same at rest", _ms(lag.at_rest))


def work_of_one_target(sizes: Sizes) -> Iterator[Row]:
    """See what the other targets cost the one that was polled."""
    for targets in sorted({1, max(1, sizes.targets // 10), sizes.targets}):
        seconds = work_after_poll(targets, sizes.dids_each, sizes.polls)
        yield Row(f"{targets:,} target{'s' * (targets > 1)} in the fleet", _ms(seconds))


def sizing(sizes: Sizes) -> Iterator[Row]:
    """See what a fleet of a certain size asks for."""
    for targets in sorted({1, max(1, sizes.targets // 10), max(1, sizes.targets // 2), sizes.targets}):
        dids = targets * sizes.dids_each
        with simulator(dids, targets) as api, polled(api, 600, dids) as (ours, scraper, seconds):
            found = scraper.scrape()
            series = sum(not line.startswith("#") for line in found.text.splitlines())
            yield Row(
                f"{dids:,} DIDs in {targets:,} target{'s' * (targets > 1)}",
                f"{series:,} series, {len(found.body) / 1e6:.2f} MB gzipped, RSS {ours.rss:,.0f} MiB, "
                f"all shown after {seconds:.1f} s",
            )


def looked_at(sizes: Sizes, dids: int) -> Iterator[Row]:
    """Look at a fleet at rest, as people and scripts do."""
    with simulator(dids, 1) as api, polled(api, 600, dids) as (ours, _, _):
        yield from looks(ours, sizes.looks)
        yield scrapes_beside(ours, sizes.scrapes)


def starting(sizes: Sizes) -> Iterator[Row]:
    """Start it again and again."""
    with simulator(20, 1) as api:
        found = [first_answer(api) for _ in range(sizes.starts)]
    yield at_most(f"to the first /metrics, median of {len(found)}", statistics.median(found), FIRST, "s")
    seconds, packages = import_times()
    slowest = ", ".join(f"{package} {spent * 1000:.0f}" for package, spent in packages[:SHOWN])
    yield Row("of it imports (timed by Python, which slows them), ms", f"{seconds * 1000:.0f}: {slowest}")


def healing(sizes: Sizes) -> Iterator[Row]:
    """Decide, claim, and see what the controller costs when nothing is healed."""
    spent = decision_seconds(sizes.dids, sizes.polls)
    yield at_most(f"to decide about {sizes.dids:,} DIDs, a tenth broken", spent * 1000, DECISION, "ms")
    with sqlite_url() as url:
        yield Row("claims a second, two transactions each, SQLite", f"{claims_a_second(url, sizes.claims):,.0f}")
    with postgres_url() as found:
        rate_there = f"{claims_a_second(found, sizes.claims):,.0f}" if found else "not installed here"
        yield Row("the same, PostgreSQL", rate_there)
    without, off = controller_cost(sizes.dids, sizes.polls)
    yield Row(
        "CPU of a poll's follow-up without a controller, and with one when healing is off",
        f"{_ms(without)}, {_ms(off)}",
    )


def measure(sizes: Sizes) -> str:
    """Measure everything and return the table."""
    many = f"{sizes.targets:,} targets of {sizes.dids_each:,} DIDs"
    fleet = sizes.targets * sizes.dids_each
    one = f"CPU to render and compress after a poll of one target of {sizes.dids_each:,} DIDs, 1 % changed"
    parts: tuple[tuple[str, Callable[[], Iterator[Row]]], ...] = (
        (f"{sizes.dids:,} DIDs in one target, at rest", lambda: scrapes(sizes, sizes.dids, 1)),
        (
            f"{sizes.dids:,} DIDs, polled every {INTERVAL:g} s",
            lambda: scrapes_while_polling(sizes, sizes.dids, 1, INTERVAL),
        ),
        (f"{sizes.dids:,} DIDs, looked at", lambda: looked_at(sizes, sizes.dids)),
        (f"CPU of one poll of {sizes.dids:,} DIDs, 1 % changed", lambda: poll_by_step(sizes)),
        (f"{many}, at rest", lambda: scrapes(sizes, fleet, sizes.targets)),
        (
            f"{many}, each polled every {FLEETS_INTERVAL:g} s",
            lambda: scrapes_while_polling(sizes, fleet, sizes.targets, FLEETS_INTERVAL),
        ),
        (one, lambda: work_of_one_target(sizes)),
        ("What a fleet asks for, polled once", lambda: sizing(sizes)),
        ("Healing", lambda: healing(sizes)),
        ("Start", lambda: starting(sizes)),
    )
    sections: list[tuple[str, list[Row]]] = []
    for title, rows in parts:
        _note(title)
        sections.append((title, []))
        for row in rows():
            _note(f"  {row.what}: {row.figure}")
            sections[-1][1].append(row)
    return markdown(sections)


def sizes_from(argv: Sequence[str]) -> tuple[Sizes, Path | None]:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the table into this page, too")
    for name, default in ((name, getattr(Sizes(), name)) for name in Sizes.__dataclass_fields__):
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default, metavar="N")
    values = vars(parser.parse_args(argv))
    page = values.pop("write")
    return Sizes(**values), page


def main(argv: Sequence[str]) -> None:
    """Measure, print and perhaps write."""
    sizes, page = sizes_from(argv)
    set_up_logging("error", "logfmt")
    busy = os.getloadavg()[0]
    if busy > 0.5 * (os.cpu_count() or 1):
        _note(f"the machine is busy (load {busy:.1f}): figures will be worse than they are")
    figures = measure(sizes)
    if page:
        put_into(page, figures)
    print(figures, end="")


if __name__ == "__main__":
    main(sys.argv[1:])
