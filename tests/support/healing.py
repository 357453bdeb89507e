"""Healing in a world of its own: replicas of the real controller on one real store, and a vendor who knows the truth.

Nothing of the product is replaced but time, threads and the network: the controllers, the store, the API client and the
polls' way into a fleet are the real ones. Database calls run at once instead of in a thread, so that a replica can be
stopped before or after any of them, and requests end at a vendor who may answer anything, late or never.

What must never happen is judged here from the vendor's side, in true time, and not by the code under test.
"""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
from concurrent.futures import Executor, Future
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise, takewhile
from typing import TYPE_CHECKING, Any, NoReturn

import httpx
from pydantic import SecretStr

from exporter.accounts import AccountRuntime, account_runtimes, fingerprint
from exporter.config import Config, Settings
from exporter.errors import Reason, StoreError
from exporter.heal.controller import Controller
from exporter.model import Answer, Entry, HealState, Outcome, Target
from exporter.snapshots import Fleet, Healing, TargetState, Watch, poll_failed, poll_succeeded, reviewed
from exporter.store import Store
from exporter.store.records import Attempt, DidRecord, Refused, Status
from exporter.vocobase import RequestBudget, VocobaseClient
from tests.support.api import KEY, Requests

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence
    from pathlib import Path

    from exporter.heal.guards import TargetHealth
    from exporter.store.records import Result

EPOCH = 1_800_000_000.0  # a full hour
INTERVAL = 50.0  # seconds; every replica gives a sign of life within one
ACCOUNT = "main"
TARGET = Target(ACCOUNT)
NUMBERS = tuple(f"+91801122334{digit}" for digit in range(6))
HEALABLE = ("NO_BOT", "ROUTING_MISSING")
MINUTE, HOUR = 60.0, 3600.0
SEND_WITHIN = 5.0  # seconds after its claim a request may come at the latest
FAST = 60_000  # requests a minute: turns in the pace are a millisecond apart
MOMENT = 0.01  # seconds that pass where something waits for no longer than that, as for a place in the budget
FIRST_ID = 800  # the did_id of the first number

BASE: dict[str, Any] = {
    "mode": "enforce",
    "confirm_polls": 2,
    "confirm_for": "50s",
    "verify_within": "150s",
    "probation": "5m",
    "backoff": {"initial": "2m", "max": "4m"},
    "max_attempts": 2,
    "attempts_window": "1h",
    "max_unhealthy": "50%",
    "max_in_flight": 2,
    "max_per_hour": 5,
    "requests_per_minute": 2,
    "breaker": {"failures": 2, "open_for": "5m"},
    "hold_off_polls": 1,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "wide": {"max_in_flight": 5, "requests_per_minute": 5, "max_per_hour": 20, "breaker": {"failures": 9}},
    "one at a time": {"max_in_flight": 1, "max_per_hour": 2, "requests_per_minute": 1},
    "picky": {"max_unhealthy": 0, "max_attempts": 3, "hold_off_polls": 3},
    "windows": {"windows": [{"cron": "0 * * * *", "duration": "20m", "timezone": "UTC"}]},
    "observing": {"mode": "observe"},
    "off": {"mode": "off"},
    "opted out": {"max_unhealthy": "100%"},
}
OPTED_OUT = frozenset(NUMBERS[:2])
WITH_CLIENT = NUMBERS[2]


def config_of(name: str, url: str) -> Config:
    """Return one of the configurations; in `opted out` every DID is named, two of them with `heal: false`."""
    account: dict[str, Any] = {"name": ACCOUNT, "api_key_env": "KEY"}
    if name == "opted out":
        account["dids"] = [
            {"did_number": number, "heal": number not in OPTED_OUT}
            | ({"client_id": 77} if number == WITH_CLIENT else {})
            for number in NUMBERS
        ]
    heal = {**BASE, **CONFIGS[name]}
    return Config.model_validate(
        {
            "api": {"base_url": "http://vendor/api/v2"},
            "accounts": [account],
            "heal": heal,
            "store": {"url": url, "retention": "1h"},
        }
    )


@dataclass
class Fact:
    """How a DID is."""

    issues: tuple[str, ...] = ()
    client_id: int | None = 415
    expired: bool = False
    present: bool = True
    flapping: bool = False
    unnamed: bool = False  # the vendor names no did_id for it

    @property
    def healable(self) -> bool:
        return bool(self.present and set(self.issues) & set(HEALABLE) and self.client_id and not self.expired)


@dataclass
class Post:
    """A request that reached the vendor."""

    attempt: Attempt
    number: str
    at: float
    over: float | None = None  # when its sender knew what came of it
    rejected: bool = False  # the vendor said no, so that nothing can come of it
    ended: bool = False  # its row ended, and rightly so


@dataclass
class Seen:
    """One poll as a replica judged it, in true time: of what is true when it is asked for, whenever that is heard."""

    at: float
    listed: int = 0  # by the vendor
    total: int = 0  # as the target shows it
    unhealthy: int = 0  # or under treatment
    clean: frozenset[str] = frozenset()
    healable: frozenset[str] = frozenset()
    unnamed: frozenset[str] = frozenset()  # of those that were listed
    complete: bool = True


class Inline(Executor):
    """Runs what a replica asks of the database, at once."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:  # noqa: ANN401
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        self._replica.call(function, args, kwargs, future)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002
        """Nothing runs on."""


class Gone:
    """The store of a replica that is no more."""

    def __getattr__(self, _: str) -> NoReturn:
        raise StoreError("this replica is no more")


class Hands:
    """A replica's clock: true time, and how far it is off."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.off = 0.0

    def time(self) -> float:
        return EPOCH + self._world.now + self.off

    def monotonic(self) -> float:
        return self._world.now

    async def sleep(self, seconds: float) -> None:
        waker: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._world.sleepers.append((self._world.now + seconds, waker))
        await waker


class Shown:
    """What a controller shows and counts."""

    def __init__(self) -> None:
        self.healing = Healing()
        self.up: bool | None = None

    async def annotate(self, _: Target, healing: Healing, __: Mapping[str, HealState] | None) -> None:
        self.healing = healing

    def healed(self, target: Target, seconds: float) -> None:
        """Nothing is counted here."""

    def store_answers(self, *, up: bool) -> None:
        self.up = up

    def unobserved(self, attempts: Mapping[str, int]) -> None:
        """Nothing is counted here."""


class Wire(httpx.AsyncBaseTransport):
    """A replica's way to the vendor. Whether there is a connection shows before the request may leave."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        replica, world = self._replica, self._replica.world
        kind: str | None = world.answers.pop(0) if world.answers else "mends"
        try:
            if kind == "unreachable":
                kind = None
                raise httpx.ConnectError("refused")
            await request.extensions["trace"]("http11.send_request_headers.started", {"request": request})
            body, answer, kind = json.loads(await request.aread()), kind or "", None
        finally:
            if kind:  # nothing was sent: the next request gets this answer
                world.answers.insert(0, kind)
        return await world.receive(replica, body, answer)


class Replica:
    """One process: what it has is lost when it ends."""

    def __init__(self, world: World, name: str, config_name: str, off: float) -> None:
        self.world = world
        self.name = name
        self.config = config_of(config_name, world.url)
        self.clock = Hands(world)
        self.clock.off = off
        self.born = world.now
        self.polls: list[Seen] = []
        # `before` and `after` are crashes, `stall` and `hang` the same without the end.
        self.stop_at: tuple[str, str] | None = None  # a database call or `post`, and where in it
        self.dead = False
        self.held: list[Callable[[], None]] = []  # what it does next when it hangs no more
        self.under_way: tuple[float, float, float, list[Entry]] | None = None  # a poll without an answer yet
        self.granted: dict[str, Attempt] = {}
        self.shown = Shown()
        self.fleet = Fleet({TARGET: TargetState(TARGET, interval=INTERVAL)})
        self._know(self.config)
        self.client = VocobaseClient(
            self.config,
            ACCOUNT,
            SecretStr(KEY),
            budget=RequestBudget(FAST, self.clock),
            observer=Requests(),
            clock=self.clock,
            transport=lambda _: Wire(self),
        )
        self.controller = Controller(
            self.config,
            Store(self.config, f"{name}-{world.started}", self.clock),
            self.accounts(),
            annotator=self.shown,
            observer=self.shown,
            clock=self.clock,
            rng=random.Random(1),  # noqa: S311 - the same each time
        )
        worker = self.controller._worker  # noqa: SLF001 - no threads here
        worker.executor.shutdown()
        worker.executor = Inline(self)  # type: ignore[assignment] # what runs calls, as the thread does
        self.runner = world.loop.create_task(self.controller.run())

    def _know(self, config: Config) -> None:
        self.config = config
        self.watch = Watch.of(config.accounts[0])
        self.print = fingerprint(KEY, config)

    def accounts(self) -> dict[str, AccountRuntime]:
        """Return what the account is run with, as it is configured now."""
        settings = Settings(self.config, {ACCOUNT: SecretStr(KEY)})
        return account_runtimes(settings, {ACCOUNT: self.client}, {ACCOUNT: self.watch})

    async def reload(self, config_name: str) -> None:
        """Go by another configuration, as of now: what was seen before counts no more, as after a restart."""
        config = config_of(config_name, self.world.url)
        if config == self.config:
            return
        self._know(config)
        self.born, self.polls, self.under_way = self.world.now, [], None
        self.fleet = self.fleet.with_target(reviewed(self.fleet.targets[TARGET], self.watch, self.mode))
        await self.controller.reconfigure(config, self.accounts())

    @property
    def hung(self) -> bool:
        return bool(self.held)

    @property
    def mode(self) -> str:
        return self.config.heal.mode

    def call(
        self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], future: Future[Any]
    ) -> None:
        name = function.__name__
        if self.hung and not self.dead:  # all of the process hangs
            self.held.append(lambda: self.call(function, args, kwargs, future))
            return
        if self.dead or self.stops(name, "before"):
            return
        if self.stop_at == (name, "stall"):
            self.stop_at = None
            self.held.append(lambda: self.call(function, args, kwargs, future))
            return
        if self.world.store_down:
            future.set_exception(StoreError("the store is down"))
            return
        try:
            result = function(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - as an executor does
            future.set_exception(error)
            return
        self.world.noted(self, name, args, result)
        if self.stops(name, "after"):
            return
        if self.stop_at == (name, "hang"):
            self.stop_at = None
            self.held.append(lambda: future.set_result(result))
            return
        future.set_result(result)

    def stops(self, name: str, when: str) -> bool:
        """Whether the process ends here."""
        if self.stop_at == (name, when):
            self.crash()
        return self.dead

    def crash(self) -> None:
        self.dead, self.stop_at = True, None
        gone: Any = Gone()  # nothing is written any more
        self.controller._store = self.controller._worker.store = gone  # noqa: SLF001 - the same

    def go_on(self) -> None:
        """Continue after having hung."""
        held, self.held = self.held, []
        for go_on in held:
            go_on()

    def complete(self) -> list[Seen]:
        return [seen for seen in self.polls if seen.complete]

    @property
    def health(self) -> TargetHealth | None:
        known = self.controller._targets.get(TARGET)  # noqa: SLF001 - looked at, to tell what holds a DID
        return known.health if known else None


class World:
    """True time, the vendor, the replicas, and what was seen to go wrong."""

    def __init__(self, folder: Path, template: Path) -> None:
        self.file = folder / "ledger.db"
        self.file.write_bytes(template.read_bytes())
        self.url = f"sqlite:///{self.file}"
        self.loop = asyncio.new_event_loop()
        self.now = 0.0
        self.random = random.Random(7)  # noqa: S311 - which DIDs break
        self.started = 0
        self.skew = 0.0
        self.sleepers: list[tuple[float, asyncio.Future[None]]] = []
        self.facts = {number: Fact() for number in NUMBERS}
        self.posts: list[Post] = []
        self.claims: dict[str, float] = {}  # when what a token stands for was claimed
        self.prints: dict[str, str] = {}  # by token, the fingerprint of what was sent with
        self.grants: dict[str, float] = {}  # by token, when a request was allowed to leave
        self.would: list[tuple[float, str]] = []
        self.answers: list[str] = []
        self.late: list[str] = []
        self.waiting: list[tuple[Replica, Post, asyncio.Future[str]]] = []
        self.store_down = False
        self.paused = False
        self.resumed_at = 0.0
        self.latched = False
        self.latched_at = 0.0
        self.refused: set[str] = set()  # the fingerprints of all who were, since a person last said resume
        self.observed_at: dict[str, float] = {}  # by number, the last poll that listed it and that a replica judged
        self.forbidden: list[float] = []
        self.key_paused_until = 0.0
        self.ends: list[tuple[float, str, bool, bool]] = []  # when, number, whether it was verified, whether it feeds
        self.charged: dict[str, list[float]] = {number: [] for number in NUMBERS}
        self.left_alone: dict[str, float] = {}  # until when a DID is in backoff at least
        self.just_ended: set[str] = set()
        self.rows: dict[str, str] = {}
        self.wrong: list[str] = []
        self.person = Store(config_of("plain", self.url), "person").ledger
        self.replicas: list[Replica] = []
        self.kept: list[object] = []  # what never ends is ended in `close`, and not by whoever collects garbage

    # Doing

    def do(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run something until nothing moves without time."""

        async def run() -> None:
            task = asyncio.ensure_future(work)
            ready = self.loop._ready  # type: ignore[attr-defined] # noqa: SLF001 - the only way to know
            idle = 0
            while idle < 3:
                await asyncio.sleep(0)
                idle = 0 if ready or (idle == 2 and self._pass_a_moment()) else idle + 1
            if task.done():
                task.result()
            else:
                self.kept.append(task)

        self.loop.run_until_complete(run())

    def start(self, name: str, config: str, off: float = 0.0) -> Replica:
        self.started += 1

        async def begin() -> Replica:
            return Replica(self, name, config, off)

        replica = self.loop.run_until_complete(begin())
        self.replicas.append(replica)
        self.skewed()
        self.do(replica.controller.recall(TARGET))
        return replica

    def end(self, replica: Replica) -> None:
        """Let a process be gone, as by SIGKILL."""
        replica.crash()
        self.replicas.remove(replica)
        self.kept.append(replica)

    def skewed(self) -> None:
        offs = [replica.clock.off for replica in self.replicas]
        self.skew = max(self.skew, max(offs, default=0.0) - min(offs, default=0.0))

    def _pass_a_moment(self) -> bool:
        """Let as little time pass as somebody waits for who doesn't wait for long; return whether somebody did."""
        soon = min((when for when, waker in self.sleepers if not waker.done()), default=float("inf"))
        if soon > self.now + MOMENT:
            return False
        self.now = max(self.now, soon)
        self._wake()
        return True

    def _wake(self) -> None:
        due = [waker for when, waker in self.sleepers if when <= self.now]
        self.sleepers = [(when, waker) for when, waker in self.sleepers if when > self.now]
        for waker in due:
            if not waker.done():
                waker.set_result(None)

    def advance(self, seconds: float) -> None:
        """Let time pass; every replica gives its signs of life."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + INTERVAL)
            self._wake()
            for replica in list(self.replicas):
                if not replica.hung and not replica.dead:
                    self.do(replica.controller.tick())

    def entries(self, drop: frozenset[str] = frozenset()) -> list[Entry]:
        """Return what the vendor says of the fleet now."""
        found = []
        for index, (number, fact) in enumerate(self.facts.items()):
            if fact.flapping:
                fact.issues = () if fact.issues else HEALABLE[:1]
            if fact.present and number not in drop:
                state = fact.issues[0] if fact.issues else "READY"
                found.append(
                    Entry(
                        number,
                        state,
                        fact.issues,
                        expired=fact.expired,
                        did_id=None if fact.unnamed else FIRST_ID + index,
                        did_number=number.removeprefix("+") if fact.unnamed else "",
                        client_id=fact.client_id,
                    )
                )
        return found

    def poll(self, replica: Replica, *, drop: frozenset[str] = frozenset()) -> None:
        """Let a replica poll, all in one moment."""
        self.ask(replica, drop=drop)
        self.hear(replica)

    def ask(self, replica: Replica, *, drop: frozenset[str] = frozenset()) -> None:
        replica.under_way = self.now, replica.clock.time(), replica.clock.monotonic(), self.entries(drop)

    def hear(self, replica: Replica) -> None:
        """Let the answer to a poll come in, and be judged."""
        if replica.under_way is None:
            return
        started, asked_at, asked, entries = replica.under_way
        replica.under_way = None
        before = replica.fleet.targets[TARGET]
        replica.fleet = poll_succeeded(
            replica.fleet,
            TARGET,
            Answer(tuple(entries)),
            replica.watch,
            at=asked_at,
            duration=self.now - started,
            asked=asked,
            heard=replica.clock.monotonic(),
        )
        after = replica.fleet.targets[TARGET]
        shown = after.snapshot.dids if after.snapshot else {}
        replica.polls.append(
            Seen(
                started,
                listed=len(entries),
                total=len(shown),
                unhealthy=len({did.number for did in shown.values() if not did.ready} | set(self.open_rows())),
                clean=frozenset(each.number for each in entries if not set(each.issues) & set(HEALABLE)),
                healable=frozenset(each.number for each in entries if set(each.issues) & set(HEALABLE)),
                unnamed=frozenset(each.number for each in entries if each.did_id is None),
            )
        )
        answers = not self.store_down and replica.mode != "off"
        if answers and not replica.hung and not replica.dead and replica.stop_at is None:
            self.observed_at |= {each.number: started for each in entries}
        replica.controller.polled(before, after)
        self.do(asyncio.sleep(0))

    def fail(self, replica: Replica) -> None:
        replica.under_way = None
        state = replica.fleet.targets[TARGET]
        replica.fleet = replica.fleet.with_target(poll_failed(state, Reason.TIMEOUT, 1.0))
        replica.polls.append(Seen(self.now, complete=False))

    # The vendor

    async def receive(self, replica: Replica, body: dict[str, Any], kind: str) -> httpx.Response:
        """Take a request, and treat it as is said."""
        if replica.stops("post", "before"):
            await asyncio.Event().wait()
        number = NUMBERS[body["did_id"] - FIRST_ID] if "did_id" in body else f"+{body['did_number']}"
        attempt = replica.granted.pop(number, None)
        if attempt is None:
            self.wrong.append(f"a request for {number} without a committed `sent` of its own")
            raise httpx.ReadError("no")
        self.check_post(replica, attempt, body)
        post = Post(attempt, number, self.now)
        self.posts.append(post)
        if kind == "waits":
            answered: asyncio.Future[str] = self.loop.create_future()
            self.waiting.append((replica, post, answered))
            kind = await answered
        return await self._reply(replica, post, kind)

    async def _reply(self, replica: Replica, post: Post, kind: str) -> httpx.Response:
        fact = self.facts[post.number]
        if kind in {"mends", "mends, says not ready", "mends, 500", "mends, garbage", "mends, reset"}:
            self.mend(post.number)
        elif kind in {"late, timeout", "late, 500"}:
            self.late.append(post.number)
        if replica.stops("post", "after"):
            await asyncio.Event().wait()
        post.over = self.now
        if kind.endswith("timeout"):
            raise httpx.ReadTimeout("late")
        if kind.endswith("reset"):
            raise httpx.ReadError("reset")
        if kind.endswith("garbage"):
            return httpx.Response(200, text="<html>")
        status = kind.rpartition(" ")[2]
        if status.isdigit():
            post.rejected = int(status) < 500
            headers = {"Location": "http://elsewhere/"} if status == "302" else {}
            return httpx.Response(int(status), headers=headers, json={"success": False})
        ready = not fact.issues if kind == "mends" else "not ready" not in kind
        return httpx.Response(200, json={"success": True, "data": {"ready": ready, "steps": []}})

    def mend(self, number: str) -> None:
        fact = self.facts[number]
        fact.issues = tuple(issue for issue in fact.issues if issue not in HEALABLE)

    # Judging

    def query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:  # noqa: ANN401 - SQL's
        """Read the store past the code under test."""
        with closing(sqlite3.connect(self.file)) as connection:
            return connection.execute(sql, values).fetchall()

    def open_rows(self) -> list[str]:
        """Return the numbers that have an open row."""
        return [number for (number,) in self.query("SELECT number FROM heal_attempts WHERE status <> 'ended'")]

    def released(self, number: str, reason: str = "looked at") -> None:
        """Let a person release a DID."""
        before = {row for (row,) in self.query("SELECT token FROM heal_attempts WHERE status <> 'ended'")}
        if not self.person.release(number, reason, EPOCH + self.now):
            return
        for row, feeds in self.query("SELECT token, feeds FROM heal_attempts WHERE status = 'ended'"):
            if row in before:
                self.just_ended.add(row)
                self.ends.append((self.now, number, False, bool(feeds)))
                for post in self.posts:
                    post.ended |= post.attempt.token == row
        self.forgive(number)

    def noted(self, replica: Replica, name: str, args: Sequence[Any], result: Any) -> None:  # noqa: ANN401 - the call's
        """Take in that a database call was committed."""
        judges: dict[str, Callable[[], None]] = {
            "claim": lambda: self._check_claim(replica, result),
            "would_send": lambda: self._check_would(replica, result),
            "begin_send": lambda: self._check_grant(replica, args[0]),
            "not_sent": lambda: self._note_unsent(replica, args[1], result),
            "answered": lambda: self._note_answer(args[0], args[1]),
            "resolve": lambda: self._check_resolved(replica, args[0], args[1]),
            "unlatch": lambda: self._check_unlatched(replica),
            "move": lambda: self._check_moved(replica, args[0]),
            "alive": lambda: self._check_released(result),
        }
        done = result is None if name == "begin_send" else bool(result) and not isinstance(result, Refused)
        if name in {"begin_send", "answered"} and done:
            self._check_own(name, args[0])
        if name in judges and done:
            judges[name]()

    def _check_own(self, name: str, attempt: Attempt) -> None:
        """Hold that a replica changes no row but its own. Where rows are forgotten, a later one may get their id."""
        if self.query("SELECT token FROM heal_attempts WHERE id = ?", attempt.id) != [(attempt.token,)]:
            self.wrong.append(f"{name} changed a row that another replica claimed")

    def _check_claim(self, replica: Replica, attempt: Attempt) -> None:
        self.claims[attempt.token] = self.now
        if replica.mode != "enforce" or attempt.status is not Status.CLAIMED:
            self.wrong.append(f"a claim in mode {replica.mode}")

    def _check_released(self, attempts: Sequence[Attempt]) -> None:
        for attempt in attempts:
            if attempt.sent_at is not None:
                self.wrong.append("a row that may have been sent was released")
            self.just_ended.add(attempt.token)

    def _note_unsent(self, replica: Replica, result: Result, attempt: Attempt) -> None:
        """Hold that a row that was never claimed says so: it is over, and nothing is held against its DID."""
        if (attempt.outcome, attempt.sent_at, attempt.charged) != (Outcome.NOT_SENT, None, False):
            self.wrong.append(f"without a connection a row says {attempt.outcome}")
        if replica.mode != "enforce":
            self.wrong.append(f"a request was tried in mode {replica.mode}")
        self._note_end(attempt, verified=False, feeds=result.feeds, charged=False)
        self.left_alone[attempt.number] = self.now + 120

    def _note_answer(self, attempt: Attempt, result: Result) -> None:
        post = next((each for each in self.posts if each.attempt.token == attempt.token), None)
        self.resolved_waiting(attempt)
        if result.status.value != "ended":
            return
        if post is None:  # it was allowed to leave, and then it was too late
            self.grants.pop(attempt.token, None)
        elif not post.rejected:
            self.wrong.append(f"a request that the vendor may have carried out ended as {result.outcome}")
        self._note_end(attempt, verified=False, feeds=result.feeds, charged=result.charged)
        if post is None or not post.rejected:
            return
        status = result.http_status
        if status in {401, 302}:
            self._latch(attempt)
        if status == 403:
            if any(self.now - at < 600 for at in self.forbidden):
                self._latch(attempt)
            self.forbidden.append(self.now)
        if status == 429:
            self.key_paused_until = self.now + 60
        if status in {400, 422}:
            self.left_alone[attempt.number] = float("inf")

    def _latch(self, attempt: Attempt) -> None:
        self.latched, self.latched_at = True, self.now
        self.refused.add(self.prints[attempt.token])

    def resolved_waiting(self, attempt: Attempt) -> None:
        for post in self.posts:
            if post.attempt.token == attempt.token and post.over is None:
                post.over = self.now

    def _note_end(self, attempt: Attempt, *, verified: bool, feeds: bool, charged: bool) -> None:
        self.just_ended.add(attempt.token)
        self.ends.append((self.now, attempt.number, verified, feeds))
        for post in self.posts:
            if post.attempt.token == attempt.token:
                post.ended = True
        if charged:
            self.charged[attempt.number].append(self.now)
        if not verified and charged:
            self.left_alone[attempt.number] = self.now + 120

    def _check_resolved(self, replica: Replica, attempt: Attempt, outcome: Any) -> None:  # noqa: ANN401 - an Outcome
        """Hold that an attempt ends by two clean polls, or long enough without: all begun after it was over."""
        post = next((each for each in self.posts if each.attempt.token == attempt.token), None)
        since = -1.0 if post is None else (post.over if post.over is not None else post.at)
        later = [seen for seen in replica.polls if not seen.complete or seen.at >= since - self.skew - 0.001]
        last = [seen for seen in later if seen.complete]
        if outcome.value == "succeeded":
            if len(last) < 2 or not all(attempt.number in seen.clean for seen in last[-2:]):
                self.wrong.append("an attempt was verified without two clean polls after it")
        else:
            pairs = pairwise(later)
            observed = sum(two.at - one.at for one, two in pairs if one.complete and two.complete)
            if observed < replica.config.heal.verify_within.total_seconds() - 0.001:
                self.wrong.append(f"an attempt was given up after {observed:g} s of polls")
            if last and attempt.number in last[-1].clean:
                self.wrong.append("an attempt was given up on a poll that was clean")
        self._note_end(attempt, verified=outcome.value == "succeeded", feeds=True, charged=True)

    def _check_moved(self, replica: Replica, before: DidRecord) -> None:
        """Hold that a DID changes between attempts only by what this replica's polls saw."""
        number, heal = before.number, replica.config.heal
        state = self.query("SELECT state FROM heal_dids WHERE number = ?", number)[0][0]
        polls = replica.complete()
        change = f"{number} went from {before.state} to {state}"
        if (before.state, state) in {("probation", "idle"), ("quarantined", "idle")}:
            if self._clean_for(replica, number) < heal.probation.total_seconds() - 0.001:
                self.wrong.append(f"{change} without having been clean for long enough")
            self.forgive(number)
        elif (before.state, state) == ("backoff", "idle"):
            if self.now < self.left_alone.get(number, 0.0) - self.skew:
                self.wrong.append(f"{change} too early")
        elif (before.state, state) == ("backoff", "probation"):
            if not all(number in seen.clean for seen in polls[-2:]) or len(polls) < 2:
                self.wrong.append(f"{change} without two clean polls")
        elif before.state == "probation" and state in {"backoff", "quarantined"}:
            if number in polls[-1].clean:
                self.wrong.append(f"{change} on a clean poll")
            self.left_alone[number] = max(self.left_alone.get(number, 0.0), self.now + 120)
        else:
            self.wrong.append(change)

    @staticmethod
    def _clean_for(replica: Replica, number: str) -> float:
        """Return for how long a replica's polls saw a DID clean without a gap, up to the last."""
        seconds = 0.0
        complete = [(index, seen) for index, seen in enumerate(replica.polls) if seen.complete]
        for (index, seen), (before, older) in zip(complete[::-1], complete[-2::-1], strict=False):
            if number not in seen.clean or number not in older.clean:
                break
            seconds += seen.at - older.at if index == before + 1 else 0.0
        return seconds

    def _check_unlatched(self, replica: Replica) -> None:
        if not self.latched or replica.print in self.refused:
            self.wrong.append("a latch was lifted by who was refused")
        if not any(seen.at >= self.latched_at - self.skew for seen in replica.complete()):
            self.wrong.append("a latch was lifted though no poll had succeeded since")
        self.latched = False

    def _check_would(self, replica: Replica, attempt: Attempt) -> None:
        if replica.mode != "observe":
            self.wrong.append(f"a would-send in mode {replica.mode}")
        limit = replica.config.heal
        lately = [at for at, _ in self.would if at > self.now - HOUR + self.skew]
        if any(number == attempt.number for at, number in self.would if at > self.now - HOUR + self.skew):
            self.wrong.append("observe mode named a DID twice in an hour")
        if len(lately) >= limit.max_per_hour:
            self.wrong.append("observe mode went over max_per_hour")
        if sum(at > self.now - MINUTE + self.skew for at in lately) >= limit.requests_per_minute:
            self.wrong.append("observe mode went over requests_per_minute")
        self.would.append((self.now, attempt.number))
        self._check_guards(replica, attempt, "a would-send")

    def _check_grant(self, replica: Replica, attempt: Attempt) -> None:
        """Judge a request at the moment that it becomes certain: when `sent` is committed."""
        replica.granted[attempt.number] = attempt
        self.prints[attempt.token] = replica.print
        heal = replica.config.heal
        if replica.mode != "enforce":
            self.wrong.append(f"a request in mode {replica.mode}")
        if sum(at > self.now - HOUR + self.skew for at in self.grants.values()) >= heal.max_per_hour:
            self.wrong.append("more requests than max_per_hour")
        if sum(at > self.now - MINUTE + self.skew for at in self.grants.values()) >= heal.requests_per_minute:
            self.wrong.append("more requests than requests_per_minute")
        self.grants[attempt.token] = self.now
        others = self._observed_rows(attempt, heal.verify_within.total_seconds())
        if others >= heal.max_in_flight:
            self.wrong.append("more requests than max_in_flight")
        if not self.skew:  # else what came first depends on whose clock is asked
            self._check_breaker_and_ramp(replica, others)
        self._check_guards(replica, attempt, "a request")

    def _observed_rows(self, attempt: Attempt, within: float) -> int:
        """Return how many others are open on which a poll may still decide: those hold back the next."""
        query = "SELECT token, number FROM heal_attempts WHERE status <> 'ended' AND id <> ?"
        rows = self.query(query, attempt.id)
        seen_at = [max(self.observed_at.get(number, 0.0), self.claims[token]) for token, number in rows]
        return sum(self.now - at < within - self.skew - 1 for at in seen_at)

    def _check_breaker_and_ramp(self, replica: Replica, others: int) -> None:
        heal = replica.config.heal
        counted = [(at, verified) for at, _, verified, feeds in self.ends if feeds or verified]
        failures = heal.breaker.failures
        lately = [(at, verified) for at, verified in counted if at > self.now - HOUR]  # older rows may be forgotten
        run = [at for at, verified in lately[-failures:] if not verified]
        if len(run) == failures:
            if self.now < run[-1] + heal.breaker.open_for.total_seconds() - self.skew:
                self.wrong.append("a request while the breaker was open")
            if others:
                self.wrong.append("a second request while the breaker tried one")
        closed = 0.0
        for index, (at, verified) in enumerate(counted):
            before = counted[max(0, index - failures) : index]
            if verified and len(before) == failures and not any(good for _, good in before):
                closed = at
        since = max(replica.born, self.resumed_at, closed) - self.skew
        if others and not any(verified and at >= since for at, verified in counted):
            self.wrong.append("a second request before the first was verified")

    def _check_guards(self, replica: Replica, attempt: Attempt, what: str) -> None:
        heal = replica.config.heal
        if self.paused:
            self.wrong.append(f"{what} while paused")
        if self.latched:
            self.wrong.append(f"{what} while latched")
        if replica.print in self.refused:
            self.wrong.append(f"{what} with what was refused")
        if self.now < self.key_paused_until - self.skew:
            self.wrong.append(f"{what} while the API limits the rate")
        if heal.windows and (replica.clock.time() % HOUR) < 1200:
            self.wrong.append(f"{what} inside a window")
        if polls := replica.complete():
            self._check_data(replica, polls, what)
            self._check_did(replica, polls, attempt.number, what)
        else:
            self.wrong.append(f"{what} without data")

    def _check_data(self, replica: Replica, polls: list[Seen], what: str) -> None:
        heal, last = replica.config.heal, polls[-1]
        if self.now - last.at > 2 * INTERVAL + 1 + self.skew:
            self.wrong.append(f"{what} on stale data")
        if len(polls) < heal.hold_off_polls:
            self.wrong.append(f"{what} while holding off")
        if any(seen.unhealthy > max(3.0, heal.max_unhealthy.of(seen.total)) for seen in polls[-3:]):
            self.wrong.append(f"{what} with too many unhealthy")
        if len(polls) > 1 and (lost := polls[-2].listed - last.listed) >= 3 and lost > polls[-2].listed * 0.1:
            self.wrong.append(f"{what} on a poll that lost {lost} DIDs")

    def _check_did(self, replica: Replica, polls: list[Seen], number: str, what: str) -> None:
        heal = replica.config.heal
        if replica.watch.selective and number in OPTED_OUT:
            self.wrong.append(f"{what} for a DID with heal: false")
        broken = list(takewhile(lambda seen: number in seen.healable, reversed(polls)))
        if len(broken) < heal.confirm_polls:
            self.wrong.append(f"{what} for a DID that was broken in {len(broken)} polls")
        elif broken[0].at - broken[-1].at < heal.confirm_for.total_seconds():
            self.wrong.append(f"{what} for a DID that wasn't broken for long enough")
        if self.now < self.left_alone.get(number, 0.0) - self.skew:
            self.wrong.append(f"{what} for a DID that is to be left alone")
        window = heal.attempts_window.total_seconds()
        charged = [at for at in self.charged[number] if at > self.now - window + 900 + self.skew]
        if len(charged) >= heal.max_attempts:
            self.wrong.append(f"{what} for a DID with {len(charged)} attempts")

    def check_post(self, replica: Replica, attempt: Attempt, body: Mapping[str, Any]) -> None:
        """Judge a request as it comes in."""
        row = self.query("SELECT status, token, number FROM heal_attempts WHERE id = ?", attempt.id)
        if row != [("sent", attempt.token, attempt.number)]:
            self.wrong.append(f"a request whose row says {row}")
        if (late := self.now - self.claims[attempt.token]) >= SEND_WITHIN:
            self.wrong.append(f"a request {late:g} s after its claim")
        if any(post.number == attempt.number and not post.ended and not post.rejected for post in self.posts):
            self.wrong.append(f"a second request for {attempt.number}, whose first is unresolved")
        extra = {"client_id"} if attempt.number == WITH_CLIENT else set()
        name = "did_number" if attempt.number in replica.complete()[-1].unnamed else "did_id"
        if not {name} <= set(body) <= {name} | extra or dict(attempt.body) != body:
            self.wrong.append(f"a request that says {sorted(body)}, and whose row says {sorted(attempt.body)}")

    def forgive(self, number: str) -> None:
        """Note that a DID's attempts don't count any more."""
        self.charged[number].clear()
        self.left_alone.pop(number, None)

    def check(self) -> None:
        """Raise what went wrong, and look for rows that ended without a reason."""
        rows = self.query("SELECT token, number, status FROM heal_attempts")
        for row, number, status in rows:
            before = self.rows.get(row)
            if status == "ended" and before in {"sent", "ambiguous", "verifying"} and row not in self.just_ended:
                self.wrong.append(f"the row of {number} ended without a reason from {before}")
            self.rows[row] = status
        open_rows = [number for _, number, status in rows if status != "ended"]
        if len(open_rows) != len(set(open_rows)):
            self.wrong.append("two open rows for one DID")
        self.just_ended.clear()
        assert not self.wrong, "; ".join(self.wrong)

    def close(self) -> None:
        for replica in self.replicas:
            replica.crash()

        async def end() -> None:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self.loop.run_until_complete(end())
        self.loop.close()
