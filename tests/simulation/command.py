"""Simulate weeks on fresh seeds, or one seed again, and say which promise was broken."""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import secrets
import subprocess
import sys
import tempfile
import time
import warnings
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.simulation.run import Result
    from tests.simulation.stores import Place

FOLDER: Final = Path("/dev/shm")  # noqa: S108 - memory, where there is such a folder


@dataclass(frozen=True)
class Database:
    """A PostgreSQL server: where it is and how to get in."""

    port: int
    user: str
    password: str

    def url(self, name: str) -> str:
        """Return the product's URL of a database."""
        return f"postgresql+psycopg://{self.user}:{self.password}@127.0.0.1:{self.port}/{name}"

    def connect(self, name: str) -> Any:  # noqa: ANN401 - psycopg's
        """Connect past the product."""
        import psycopg  # noqa: PLC0415 - only where there is such a server

        where: dict[str, Any] = {"host": "127.0.0.1", "port": self.port, "user": self.user, "password": self.password}
        return psycopg.connect(**where, dbname=name, autocommit=True)


@dataclass(frozen=True)
class Job:
    """One seed and how it is to be run."""

    seed: str
    weeks: float | None = None
    database: Database | None = None
    go_on: bool = False
    without: tuple[str, ...] = ()
    only: frozenset[tuple[int, int]] | None = None
    kinds: tuple[str, ...] = ()
    trace: bool = False
    fault: str = ""


@dataclass
class Tally:
    """What all runs came to."""

    seeds: list[str] = field(default_factory=list)
    weeks: float = 0.0
    requests: int = 0
    calls: int = 0
    heals: int = 0
    kills: int = 0
    suspends: int = 0
    violations: int = 0
    seconds: float = 0.0

    def add(self, result: Result) -> None:
        """Count a run."""
        self.seeds.append(result.seed)
        self.weeks += result.weeks
        self.requests += result.requests
        self.calls += result.calls
        self.heals += result.heals
        self.kills += result.kills
        self.suspends += result.suspends
        self.violations += len(result.wrong)


def run(job: Job) -> tuple[str, Result, float]:
    """Run a seed; return what it means in words, the result, and how many seconds of a core it took."""
    from tests.simulation.faults import FAULTS, put_back  # noqa: PLC0415 - in the worker
    from tests.simulation.judge import Rule  # noqa: PLC0415
    from tests.simulation.run import Run  # noqa: PLC0415
    from tests.simulation.scenario import scenario  # noqa: PLC0415

    warnings.simplefilter("ignore")
    started = time.process_time()
    what = replace(scenario(job.seed, postgres=None if job.database else False), kinds=job.kinds)
    fault = FAULTS[job.fault] if job.fault else None
    if fault:
        what = replace(fault.adapt(what), kinds=job.kinds or fault.kinds)
    place = _place(job.database if what.postgres else None)
    only = job.only
    try:
        one = Run(
            what,
            place,
            keep=(lambda storm, event: (storm, event) in only) if only is not None else (lambda _, __: True),
            go_on=job.go_on,
            without=frozenset(Rule[name.upper()] for name in job.without),
            brief=only is not None,
            last=max((storm for storm, _ in only), default=-1) if only is not None else None,
            trace=_trace if job.trace else None,
        )
        with put_back(fault) if fault else nullcontext():
            result = one.go(what.weeks if job.weeks is None else job.weeks)
    finally:
        place.close()
    words = (
        f"{what.slots} replicas, {len(one.connections)} connections, "
        f"{'PostgreSQL' if what.postgres else 'SQLite'}{', upgraded' if what.upgrade else ''}"
        f"{', exact ticks' if what.exact else ''}"
    )
    return words, result, time.process_time() - started


def _trace(record: object) -> None:
    name = type(record).__name__
    if name == "Opened" or (name == "Answered" and getattr(record, "shows", None)):
        return
    if name == "Arrived" and not getattr(record, "path", "").endswith("ready"):
        return
    line = f"    {getattr(record, 'at', 0.0):11.3f} {record!r:.1500}"
    print(line, file=sys.__stdout__, flush=True)


def _place(database: Database | None) -> Place:
    from tests.simulation.stores import File, Schema  # noqa: PLC0415 - in the worker

    if database is None:
        return File(Path(tempfile.mkdtemp(prefix="voicelink-sim-", dir=FOLDER if FOLDER.is_dir() else None)))
    name = f"sim_{secrets.token_hex(6)}"
    with database.connect("postgres") as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    return Schema(database.url(name), lambda: database.connect(name))


def _say(job: Job, words: str, result: Result, seconds: float) -> None:
    print(  # noqa: T201
        f"seed {result.seed}: {words}: {result.weeks:.3f} weeks in {seconds:.0f} s, {result.requests} requests, "
        f"{result.calls} heals sent, {result.heals} verified, {result.kills} kills, {result.suspends} suspends, "
        f"{len(result.wrong)} violations",
        flush=True,
    )
    for fault, count in result.faults.most_common(5):
        print(f"    {count} times {fault}")  # noqa: T201
    for wrong in result.wrong[:20]:
        print(f"    {wrong}")  # noqa: T201
    if result.wrong and job.only is None:
        print(f'    again: make prove ARGS="--seed {result.seed}{_kinds(job)}"', flush=True)  # noqa: T201


def _shrink(job: Job, result: Result, seconds: float) -> None:
    """Print the short story of a seed that failed."""
    from tests.simulation.shrink import shrink  # noqa: PLC0415 - where it is needed

    events = [(storm, event) for storm, event, _ in result.story]

    def attempt(kept: frozenset[tuple[int, int]]) -> Result:
        return run(_with(job, only=kept, go_on=False, trace=False))[1]

    kept, best = shrink(events, attempt, seconds)
    if best is None:
        print("    with the calm between storms left out it does not fail; the whole story:")  # noqa: T201
        best = result
    print(f"    the short story of seed {job.seed}:")  # noqa: T201
    for _, _, line in best.story:
        print(f"      {line}")  # noqa: T201
    print(f"      {best.wrong[0]}")  # noqa: T201
    only = ",".join(f"{storm}.{event}" for storm, event in sorted(kept))
    print(f'    again: make prove ARGS="--seed {job.seed}{_kinds(job)} --only {only}"', flush=True)  # noqa: T201


def _kinds(job: Job) -> str:
    kinds = f" --kinds {','.join(job.kinds)}" if job.kinds else ""
    return kinds + (f" --fault {job.fault}" if job.fault else "")


def _with(job: Job, **changes: Any) -> Job:  # noqa: ANN401 - fields
    return Job(**{**{name: getattr(job, name) for name in job.__dataclass_fields__}, **changes})


def _seeds(start: str | None) -> Iterator[str]:
    base = start or secrets.token_hex(3)
    return (f"{base}-{number}" for number in itertools.count())


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make prove", description=__doc__)
    parser.add_argument("--seed", action="append", help="run this seed again; may be given several times")
    parser.add_argument("--only", help="of that seed, only these events: storm.event,…")
    parser.add_argument("--weeks", type=float, default=1.0, help="fleet-weeks to simulate in all (1)")
    parser.add_argument("--length", type=float, help="weeks that each run lasts; drawn from the seed without it")
    parser.add_argument("--begin", help="what fresh seeds begin with; drawn without it")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (one per core)")
    parser.add_argument("--minutes", type=float, help="begin no run after so many minutes")
    parser.add_argument("--postgres", action="store_true", help="run a share of the seeds on a PostgreSQL of its own")
    parser.add_argument("--tally", type=Path, help="file that a line with the sums is added to")
    parser.add_argument("--go-on", action="store_true", help="go on with a run after a promise was broken")
    parser.add_argument("--without", action="append", default=[], help="a rule that is not looked at")
    parser.add_argument("--shrink", type=float, default=120.0, help="seconds to spend on each short story (120)")
    parser.add_argument("--kinds", help="the kinds of weather that there may be: kind,…; all without it")
    parser.add_argument("--fault", help="put back a fault that the product once had")
    parser.add_argument("--faults", action="store_true", help="put back each: run its test, and look for it")
    parser.add_argument("--trace", action="store_true", help="print the records that the judge gets, without polls")
    return parser.parse_args()


def main() -> int:
    """Run what was asked for. Returns 1 when a promise was broken."""
    options = _arguments()
    with ExitStack() as stack:
        database = None
        if options.postgres:
            from tests.support import postgres  # noqa: PLC0415 - only where there is to be such a server

            server = stack.enter_context(postgres.cluster())
            database = Database(server.port, "owner", postgres.PASSWORD)
        template = Job(
            "",
            options.length,
            database,
            options.go_on,
            tuple(options.without),
            kinds=tuple(options.kinds.split(",")) if options.kinds else (),
            trace=options.trace,
            fault=options.fault or "",
        )
        if options.only:
            pairs = (each.split(".") for each in options.only.split(","))
            template = _with(template, only=frozenset((int(storm), int(event)) for storm, event in pairs))
        if options.faults:
            return _find_faults(template, options)
        tally, failed = Tally(), []
        started = time.monotonic()

        def done(job: Job, outcome: tuple[str, Result, float]) -> None:
            _say(job, *outcome)
            tally.add(outcome[1])
            if outcome[1].wrong:
                failed.append((job, outcome[1]))

        if options.seed:
            for seed in options.seed:
                job = _with(template, seed=seed)
                done(job, run(job))
        else:
            with suppress(KeyboardInterrupt):  # what was run counts
                _many(template, options, done)
        tally.seconds = round(time.monotonic() - started, 1)
        _sum_up(tally, options.tally)
        for job, result in failed[:3]:
            if options.shrink and job.only is None and not options.go_on:
                _shrink(job, result, options.shrink)
    return 1 if failed else 0


def _find_faults(template: Job, options: argparse.Namespace) -> int:
    """Put each fault back, and show what finds it: its regression test, and a simulation of at most so many weeks.

    Returns 1 when the test of one stays green.
    """
    from tests.simulation.faults import FAULTS  # noqa: PLC0415 - where it is needed
    from tests.simulation.scenario import scenario  # noqa: PLC0415

    unseen = 0
    base = options.begin or secrets.token_hex(3)
    for name, fault in FAULTS.items():
        if options.fault and name != options.fault:
            continue
        red = _turns_red(name, fault.test)
        unseen += not red
        seeds = (seed for seed in _seeds(f"{base}-{name}") if fault.fits(scenario(seed, postgres=False)))
        weeks, tries, found, result = 0.0, 0, None, None
        while weeks < options.weeks and found is None:
            _, result, _ = run(_with(template, seed=next(seeds), fault=name))
            weeks, tries = weeks + result.weeks, tries + 1
            found = next((wrong for wrong in result.wrong if wrong.rule in fault.breaks), None)
        what = f"not in {weeks:.2f} weeks"
        if found and result:
            what = f"{result.seed}, run {tries}, after {weeks:.3f} weeks: {found}"
        print(f"{name}: {fault.what}", flush=True)  # noqa: T201
        print(f"    {'red' if red else 'STAYS GREEN'}: tests/{fault.test}", flush=True)  # noqa: T201
        print(f"    simulation: {what}", flush=True)  # noqa: T201
    return 1 if unseen else 0


def _turns_red(name: str, test: str) -> bool:
    """Return whether a test passes, and fails with a fault put back."""
    pytest = [sys.executable, "-m", "pytest", "-q", "--no-cov", "-p", "no:cacheprovider", f"tests/{test}"]
    fault = ["-p", "tests.simulation.put_back", "--put-back", name, "--maxfail", "1", "--timeout", "20"]
    codes = [subprocess.run(each, capture_output=True, check=False).returncode for each in (pytest, pytest + fault)]
    return codes == [0, 1]


def _many(template: Job, options: argparse.Namespace, done: Callable[[Job, tuple[str, Result, float]], None]) -> None:
    """Run fresh seeds until there are enough weeks, or no time is left."""
    end = time.monotonic() + options.minutes * 60 if options.minutes else float("inf")
    seeds = _seeds(options.begin)
    weeks = 0.0
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.workers, mp_context=context) as pool:
        running: dict[Any, Job] = {}
        while running or (weeks < options.weeks and time.monotonic() < end):
            while len(running) < options.workers and weeks < options.weeks and time.monotonic() < end:
                job = _with(template, seed=next(seeds))
                running[pool.submit(run, job)] = job
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for each in finished:
                job = running.pop(each)
                outcome = each.result()
                weeks += outcome[1].weeks
                done(job, outcome)


def _sum_up(tally: Tally, where: Path | None) -> None:
    speed = tally.weeks / max(tally.seconds, 1e-9) * 3600
    print(  # noqa: T201
        f"{len(tally.seeds)} seeds, {tally.weeks:.2f} fleet-weeks in {tally.seconds:.0f} s ({speed:.0f} an hour), "
        f"{tally.requests} requests, {tally.calls} heals sent, {tally.heals} verified, {tally.kills} kills, "
        f"{tally.suspends} suspends, {tally.violations} violations",
        flush=True,
    )
    if where:
        commit = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=False)
        line = {"commit": commit.stdout.strip() or "unknown"} | asdict(tally)
        with where.open("a") as file:
            file.write(json.dumps(line) + "\n")
