"""The judge: sees what reached the vendor, what it answered, and the ledger; says which promise was broken.

It knows nothing of how the product works: only the promises, the configuration of each daemon, and what people did.
"""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from tests.simulation.records import (
    Answered,
    Arrived,
    Commanded,
    Ended,
    Excused,
    LedgerRead,
    Opened,
    Reconfigured,
    Started,
    StoreBack,
    StoreLost,
)
from tests.simulation.windows import is_open

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from tests.simulation.fleet import Shown, View
    from tests.simulation.records import Record
    from tests.simulation.setup import AccountRules, Setup

MINUTE: Final = 60.0
HOUR: Final = 3600.0
SEND_WITHIN: Final = 5.0  # seconds from the claim to the first byte
TICKS: Final = 0.002  # seconds by which two moments of the grid may differ and be the same
LEAST_UNHEALTHY: Final = 3
AGREEING: Final = 3
LONGEST_PAUSE: Final = 3600.0
PROMPT: Final = 3.0  # seconds in which a daemon takes in what has changed, while its store is quick
SLUGGISH: Final = 120.0  # the same while its store is slow
OPEN: Final = frozenset({"claimed", "sent", "ambiguous", "verifying"})
DEFINITE: Final = frozenset({400, 401, 403, 404, 409, 422, 429})
UNKNOWN: Final = frozenset({0, 408, 425, 499})
CALL: Final = "/call-ready"
SYNC: Final = "/sync"


class Rule(StrEnum):
    """Promise that the judge can see broken."""

    TWO_AT_ONCE = "never two unresolved requests for a DID"
    NO_ROW = "each request has its row, committed before it leaves"
    BODY = "the body is what the row says and what the configuration allows"
    LATE = "the first byte leaves within 5 s of the claim"
    ALONE = "a heal goes alone on a fresh connection"
    NOT_SENT = "a row says not_sent only if nothing reached the vendor"
    REASON = "each row has a true reason"
    OUTCOME = "an answer is recorded as what it was"
    EVIDENCE = "only an observation ends a row that may have been sent"
    API_BUDGET = "api.requests_per_minute"
    HEAL_BUDGET = "heal.requests_per_minute"
    PER_HOUR = "heal.max_per_hour"
    IN_FLIGHT = "heal.max_in_flight"
    RAMP = "the first heal is verified before a second is sent"
    BREAKER = "heal.breaker"
    BACKOFF = "heal.backoff"
    ATTEMPTS = "heal.max_attempts"
    PAUSED = "nothing is healed while healing is paused"
    WINDOW = "nothing is healed inside of a window"
    LATCHED = "a refused credential heals nothing"
    UNHEALTHY = "heal.max_unhealthy"
    SUSPECT = "a poll that lost many DIDs is not believed at once"
    HOLD_OFF = "heal.hold_off_polls"
    STALE = "nothing is healed on stale data"
    MODE = "heal.mode"
    UNCONFIRMED = "a DID is healed when the polls confirm that it is to be"
    RATE_LIMITED = "nothing is sent while the vendor's limit asks to wait"
    WIPED = "nothing is healed by a store that came back empty"
    READ_ONLY = "a poll writes nothing"
    BLIND = "monitoring never stops"
    UNHEALED = "in calm weather every healable DID is healed"
    STUCK = "no row stays open that an observation could end"


@dataclass(frozen=True)
class Wrong:
    """One promise broken, in a sentence. `at` is true time in seconds."""

    at: float
    rule: Rule
    sentence: str

    def __str__(self) -> str:
        """Return it with its time as days and hours."""
        return f"{clock(self.at)}: {self.rule}: {self.sentence}"


def clock(at: float) -> str:
    """Return true time as day and time of day."""
    minutes, seconds = divmod(at, 60)
    hours, minutes = divmod(int(minutes), 60)
    days, hours = divmod(hours, 24)
    return f"day {days} {hours:02d}:{minutes:02d}:{seconds:06.3f}"


@dataclass(slots=True)
class Poll:
    """One complete poll as a daemon heard it: when its request left and its answer was there."""

    left: float
    at: float
    view: View


@dataclass
class Daemon:
    """What the judge knows of one process."""

    number: int
    slot: int
    setups: list[Setup]
    started: float
    since: float  # the start, or the last change of its configuration
    enabled: float  # since when it heals
    alive: bool = True
    barred: bool = False  # its store came back empty
    manual: frozenset[str] | None = None  # the numbers of a command; `None` for a daemon
    force: bool = False
    misled: bool = False  # when it started, a clock was wrong: it can't know how old what it found is
    polls: dict[str, deque[Poll]] = field(default_factory=lambda: defaultdict(lambda: deque(maxlen=60)))
    clean: dict[tuple[str, str], float] = field(default_factory=dict)  # by connection and number, since when it is
    complete: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    paused: dict[str, tuple[float, float]] = field(default_factory=dict)  # by key, from when until when

    @property
    def setup(self) -> Setup:
        """The configuration that it has, or is about to have."""
        return self.setups[-1]


@dataclass
class Row:
    """One row of the ledger, with the true times of its steps."""

    id: int
    data: Mapping[str, Any]
    key: str
    claimed: float
    claimer: int
    wanted: frozenset[str] = frozenset()  # the issues that its claimer heals
    sent: float | None = None
    ended: float | None = None
    call: Call | None = None

    @property
    def open(self) -> bool:
        """Whether it may still act."""
        return self.ended is None

    @property
    def connection(self) -> str:
        """The connection that its polls name; empty where they name none."""
        name: str = self.data["connection"]
        return "" if name == "default" else name


@dataclass
class Call:
    """One call-ready that reached the vendor."""

    arrived: Arrived
    number: str
    row: Row | None = None
    answer: Answered | None = None
    forgotten: bool = False  # the store that knew of it was wiped


class Judge:
    """Takes records in the order of their true time. `wrong` is what was broken so far."""

    def __init__(self, key_of: Mapping[str, str], without: frozenset[Rule] = frozenset()) -> None:
        """`key_of` maps accounts' names to their keys, of all configurations that there may be.

        Rules that the judge is to be `without` are not looked at.
        """
        self._without = without
        self.wrong: list[Wrong] = []
        self.daemons: dict[int, Daemon] = {}
        self.rows: dict[int, Row] = {}
        self.calls = 0
        self.requests = 0
        self.heals = 0
        self.now = 0.0
        self._key_of = dict(key_of)
        self._of_number: dict[str, list[Call]] = defaultdict(list)
        self._of_key: dict[str, deque[tuple[float, bool]]] = defaultdict(deque)  # when calls left, and if forced
        self._budget: dict[tuple[int, str], deque[float]] = defaultdict(deque)
        self._asked: dict[int, Arrived] = {}
        self._called: dict[int, Call] = {}
        self._healed_on: set[int] = set()
        self._opened: dict[int, Opened] = {}
        self._number_of: dict[int, str] = {}
        self._paused_at: float | None = None
        self._resumed = -1.0
        self._forgotten: dict[tuple[str, str], float] = {}  # by connection and number, when it had been clean for long
        self._released: dict[str, float] = {}  # by number
        self._latched: dict[str, float] = {}  # by key, when it was refused
        self._refused_marks: dict[str, set[object]] = defaultdict(set)
        self._forbidden: dict[str, list[float]] = defaultdict(list)
        self._away = False
        self._sluggish_until = -1.0
        self._suspended: dict[int, float] = defaultdict(lambda: -1.0)  # by slot, the end of the last suspension
        self._excused: dict[int, float] = defaultdict(lambda: -1.0)
        self._unsteady_until = -1.0  # a clock was set
        self._takers: dict[type, Callable[[Any], None]] = {
            Started: self._started,
            Reconfigured: self._reconfigured,
            Ended: self._ended,
            Arrived: self._arrived,
            Answered: self._answered,
            Opened: self._on_opened,
            LedgerRead: self._read,
            Commanded: self._commanded,
            Excused: self._on_excused,
            StoreLost: self._store_lost,
            StoreBack: self._store_back,
        }

    def take(self, record: Record) -> None:
        """Take in what happened."""
        self.now = record.at
        self._takers[type(record)](record)

    def _say(self, rule: Rule, sentence: str) -> None:
        if rule not in self._without:
            self.wrong.append(Wrong(self.now, rule, sentence))

    # Daemons and people

    def _started(self, record: Started) -> None:
        self.daemons[record.process] = Daemon(
            record.process,
            record.slot,
            [record.setup],
            started=record.at,
            since=record.at,
            enabled=record.at,
            manual=None if record.manual is None else frozenset(record.manual),
            force=record.force,
            misled=record.at <= self._unsteady_until,
        )

    def _reconfigured(self, record: Reconfigured) -> None:
        daemon = self.daemons[record.process]
        if record.setup.heal.mode == "enforce" and daemon.setup.heal.mode != "enforce":
            daemon.enabled = record.at
        daemon.setups = [record.setup] if record.done else [*daemon.setups, record.setup]
        daemon.since = record.at

    def _ended(self, record: Ended) -> None:
        if daemon := self.daemons.get(record.process):
            daemon.alive = False

    def _commanded(self, record: Commanded) -> None:
        match record.command:
            case "pause":
                self._paused_at = record.at
            case "release":
                self._released[record.number] = record.at
            case "resume" | "resume --new-store":
                self._paused_at, self._resumed = None, record.at
                self._refused_marks.clear()
                if record.command.endswith("store"):
                    for daemon in self.daemons.values():
                        daemon.barred = False

    def _on_excused(self, record: Excused) -> None:
        if record.why == "store":
            self._sluggish_until = max(self._sluggish_until, record.until)
        if record.why == "clock":
            self._unsteady_until = max(self._unsteady_until, record.until)
        if record.why == "suspended":
            self._suspended[record.slot] = max(self._suspended[record.slot], record.until)
        self._excused[record.slot] = max(self._excused[record.slot], record.until)

    def _store_back(self, _: StoreBack) -> None:
        self._away = False

    def _store_lost(self, record: StoreLost) -> None:
        if record.away:
            self._away = True
            return
        self.rows.clear()
        self._of_key.clear()
        for calls in self._of_number.values():
            for call in calls:
                call.forgotten = True
        for daemon in self.daemons.values():
            daemon.barred = daemon.alive
        self._paused_at = None
        self._latched.clear()
        self._refused_marks.clear()
        self._forbidden.clear()

    # Polls, and every request

    def _on_opened(self, record: Opened) -> None:
        self._opened[record.link] = record

    def _arrived(self, record: Arrived) -> None:
        self.requests += 1
        daemon = self.daemons.get(record.process)
        self._asked[record.request] = record
        if record.link in self._healed_on:
            self._say(Rule.ALONE, f"request {record.request} came on the connection that a heal had used")
        if daemon:
            if daemon.slot >= 0:
                self._count(daemon, record)
            since, until = daemon.paused.get(record.key, (0.0, 0.0))
            link = self._opened.get(record.link)
            opened = link.at if link and record.nth == 1 else record.left
            under_way = since + TICKS + (daemon.setup.timeout / 2 if record.nth == 1 else 0.0)  # when it was to wait
            if under_way < opened and record.left < until - TICKS:
                self._say(
                    Rule.RATE_LIMITED,
                    f"replica {record.slot} asked {record.path} {until - record.left:.1f} s before the vendor's limit "
                    f"was to be over",
                )
        if record.path.endswith(CALL):
            self._call(record, daemon)
        elif record.path.endswith(SYNC) and record.body.get("import_dids") is not False:
            self._say(Rule.READ_ONLY, f"sync with {dict(record.body)}")

    def _count(self, daemon: Daemon, record: Arrived) -> None:
        recent = self._budget[record.slot, record.key]
        recent.append(record.at)
        while recent[0] <= record.at - MINUTE:
            recent.popleft()
        most = max(setup.requests_per_minute for setup in daemon.setups)
        if len(recent) > most and self._reduced(daemon, record.at):
            self._say(
                Rule.API_BUDGET,
                f"replica {daemon.slot} sent {len(recent)} requests within a minute, {most} are allowed",
            )

    @staticmethod
    def _reduced(daemon: Daemon, at: float) -> bool:
        """Whether the configuration is old enough for its budget to count."""
        return daemon.since == daemon.started or at - daemon.since > MINUTE

    def _answered(self, record: Answered) -> None:
        asked = self._asked.pop(record.request, None)
        if asked is None:
            return
        daemon = self.daemons.get(record.process)
        if record.status == 429 and daemon:
            seconds = MINUTE if record.retry_after is None else min(record.retry_after, LONGEST_PAUSE)
            _, before = daemon.paused.get(asked.key, (0.0, 0.0))
            daemon.paused[asked.key] = (record.at, max(before, record.at + seconds))
            self._excused[daemon.slot] = max(self._excused[daemon.slot], record.at + seconds)
        if call := self._called.get(record.request):
            call.answer = record
        if record.shows and daemon and record.usable:
            self._heard(daemon, asked, record, record.shows)

    def _heard(self, daemon: Daemon, asked: Arrived, record: Answered, view: View) -> None:
        daemon.polls[record.connection].append(Poll(asked.left, record.at, view))
        daemon.complete[record.connection] += 1
        for number, shown in view.dids.items():
            if shown.did_id not in self._number_of:
                self._number_of[shown.did_id] = number
        self._note_clean(daemon, record, view)
        refused, latched = self._refused_marks[asked.key], self._latched.get(asked.key)
        new = any(self._mark(setup, asked.key) not in refused for setup in daemon.setups)
        if latched is not None and record.at > latched and new:
            del self._latched[asked.key]

    def _note_clean(self, daemon: Daemon, record: Answered, view: View) -> None:
        """Note which numbers one process's polls have seen clean for as long as probation lasts."""
        heal = daemon.setup.heal
        clean = {
            (record.connection, number) for number, shown in view.dids.items() if not shown.issues & set(heal.issues)
        }
        for which in [which for which in daemon.clean if which[0] == record.connection and which not in clean]:
            del daemon.clean[which]
        for which in clean:
            if record.at - daemon.clean.setdefault(which, record.at) >= heal.probation - MINUTE:
                self._forgotten[which] = record.at

    @staticmethod
    def _mark(setup: Setup, key: str) -> object:
        accounts = tuple(account for account in setup.accounts if account.key == key)
        return (key, accounts, setup.heal, setup.requests_per_minute, setup.timeout)

    # Heals

    def _call(self, record: Arrived, daemon: Daemon | None) -> None:
        self.calls += 1
        number = self._named(record)
        call = Call(record, number)
        self._called[record.request] = call
        where = f"the request for {number or dict(record.body)} by process {record.process} at {clock(record.left)}"
        if record.nth != 1:
            self._say(Rule.ALONE, f"{where} was number {record.nth} on its connection")
        self._healed_on.add(record.link)
        before = [each for each in self._of_number[number] if not each.forgotten]
        self._of_number[number].append(call)
        row = self._row_of(number, record)
        if row is None:
            self._say(Rule.NO_ROW, f"{where} has no row that says sent")
        unresolved = [each for each in before if each.row is None or each.row.open]
        if unresolved:
            other = unresolved[-1]
            self._say(
                Rule.TWO_AT_ONCE,
                f"{where} came while the one of process {other.arrived.process} at {clock(other.arrived.left)} "
                "was unresolved",
            )
        if row is None:
            return
        call.row, row.call = row, call
        late = record.left - row.claimed
        if late > SEND_WITHIN + TICKS:
            self._say(Rule.LATE, f"{where} left {late:.1f} s after its claim")
        if dict(row.data["body"]) != dict(record.body):
            self._say(Rule.BODY, f"{where} said {dict(record.body)}, its row {dict(row.data['body'])}")
        self._check_budgets(call, daemon, where)
        if daemon:
            self._check_body(record, number, daemon, where)

    def _named(self, record: Arrived) -> str:
        if "did_id" in record.body:
            return self._number_of.get(record.body["did_id"], "")
        return f"+{str(record.body.get('did_number', '')).removeprefix('+')}"

    def _row_of(self, number: str, record: Arrived) -> Row | None:
        return next(
            (
                row
                for row in self.rows.values()
                if row.open
                and row.data["number"] == number
                and row.data["status"] == "sent"
                and row.sent is not None
                and row.sent <= record.left + TICKS
                and row.claimer == record.process
                and row.call is None
            ),
            None,
        )

    def _check_body(self, record: Arrived, number: str, daemon: Daemon, where: str) -> None:
        body = record.body
        account = daemon.setup.account_for(record.key, str(body.get("connection_id", "")))
        allowed = {"did_id", "did_number", "connection_id"}
        configured = next((did for did in account.dids if did.number == number), None) if account else None
        if configured and configured.client:
            allowed.add("client_id")
            if body.get("client_id") != configured.client and len(daemon.setups) == 1:
                self._say(Rule.BODY, f"{where} names client {body.get('client_id')}, configured is {configured.client}")
        more = body.keys() - allowed
        if more and len(daemon.setups) == 1:
            self._say(Rule.BODY, f"{where} holds {sorted(more)}, which the configuration doesn't name for it")
        shown = self._newest(daemon, str(body.get("connection_id", "")), number)
        if shown and ("did_number" in body or body.get("did_id") != shown.did_id):
            self._say(Rule.BODY, f"{where} says {dict(body)}, though the last poll named did_id {shown.did_id}")

    @staticmethod
    def _newest(daemon: Daemon, connection: str, number: str) -> Shown | None:
        polls = daemon.polls.get(connection)
        return polls[-1].view.dids.get(number) if polls else None

    def _check_budgets(self, call: Call, daemon: Daemon | None, where: str) -> None:
        record = call.arrived
        forced = bool(daemon and daemon.force)
        sent = self._of_key[record.key]
        sent.append((record.left, forced))
        while sent[0][0] <= record.left - HOUR:
            sent.popleft()
        if forced:
            return
        setup = daemon.setup if daemon else None
        heal = setup.heal if setup else None
        if heal is None or daemon is None or (daemon.misled and record.left - daemon.started < HOUR):
            return
        within = sum(left > record.left - MINUTE for left, _ in sent)
        most = max(each.heal.requests_per_minute for each in daemon.setups)
        if within > most:
            self._say(Rule.HEAL_BUDGET, f"{where} was the {within}th within a minute, {most} are allowed")
        most = max(each.heal.max_per_hour for each in daemon.setups)
        if len(sent) > most:
            self._say(Rule.PER_HOUR, f"{where} was the {len(sent)}th within an hour, {most} are allowed")

    # The ledger

    def _read(self, record: LedgerRead) -> None:
        if self._away:
            for data in record.attempts:
                self._say(
                    Rule.WIPED,
                    f"process {record.process} claimed {data['number']} in a store that is not the one it had",
                )
            return
        for data in record.attempts:
            row = self.rows.get(data["id"])
            if row is None:
                self._appeared(record, data)
            elif row.data != data:
                self._changed(record, row, data)

    def _appeared(self, record: LedgerRead, data: Mapping[str, Any]) -> None:
        daemon = self.daemons.get(record.process)
        account = (
            next((each for each in daemon.setup.accounts if each.name == data["account"]), None) if daemon else None
        )
        key = account.key if account else self._key_of.get(data["account"], "")
        wanted = frozenset(daemon.setup.heal.issues) if daemon else frozenset()
        row = Row(data["id"], data, key, record.at, record.process, wanted)
        self.rows[row.id] = row
        if data["status"] == "ended":
            row.ended = record.at
            if data["outcome"] == "not_sent":  # there was no connection, so nothing was claimed
                self._check_end(record, row, "", f"row {row.id} of {data['number']}")
            elif data["outcome"] != "would_send":
                self._say(Rule.REASON, f"row {row.id} of {data['number']} began as {data['outcome']}")
            return
        if data["status"] != "claimed":
            row.sent = record.at
        self._check_claim(record, row, daemon)

    def adopt(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Take in what a store held before the beginning: rows that were made by nobody who is watched."""
        for data in rows:
            row = Row(data["id"], data, self._key_of.get(data["account"], ""), -1e9, -1)
            if data["status"] != "claimed":
                row.sent = -1e9
            if data["status"] == "ended":
                row.ended = -1e9
            elif data["status"] != "claimed":
                sent = Arrived(-1e9, 0, -1, -1, -1e9, 0.0, 0, 1, row.key, CALL, data["body"])
                row.call = Call(sent, data["number"], row)
                self._of_number[data["number"]].append(row.call)
            self.rows[row.id] = row

    def _changed(self, record: LedgerRead, row: Row, data: Mapping[str, Any]) -> None:
        before, row.data = row.data, data
        was, status = before["status"], data["status"]
        what = f"row {row.id} of {data['number']}"
        if not row.open:
            if status != "ended" or data["outcome"] != before["outcome"]:
                self._say(Rule.REASON, f"{what} was ended and changed to {status} {data['outcome']}")
            return
        if status == "sent" and was == "claimed":
            row.sent = record.at
        elif status == "claimed" and was != "claimed":
            self._say(Rule.REASON, f"{what} went from {was} back to claimed")
        self._check_status(before, row, what)
        if was == "sent" and status in {"verifying", "ambiguous"}:
            self._check_result(record, row, what)
        if status == "ended":
            row.ended = record.at
            self._check_end(record, row, was, what)

    def _check_status(self, before: Mapping[str, Any], row: Row, what: str) -> None:
        said, answer = row.data["http_status"], row.call.answer if row.call else None
        if said is not None and before["http_status"] is None and answer and said != answer.status:
            self._say(Rule.OUTCOME, f"{what} says HTTP {said}, the vendor answered {answer.status}")

    def _check_result(self, record: LedgerRead, row: Row, what: str) -> None:
        answer = row.call.answer if row.call else None
        status = row.data["status"]
        if status == "verifying" and not (answer and answer.usable and answer.status in {200, 201, 202}):
            said = f"HTTP {answer.status}" if answer else "nothing"
            self._say(Rule.OUTCOME, f"{what} is verifying, though the vendor answered {said}")
        slot = self.daemons[row.claimer].slot if row.claimer in self.daemons else -1
        own = record.process == row.claimer and self._suspended[slot] < (row.sent or 0.0)
        if status == "ambiguous" and own and answer and self.now > self._sluggish_until:
            definite = answer.status in DEFINITE or 300 <= answer.status < 400
            if definite or (answer.usable and answer.status in {200, 201, 202}):
                self._say(Rule.OUTCOME, f"{what} is ambiguous, though the vendor answered HTTP {answer.status}")

    def _check_end(self, record: LedgerRead, row: Row, was: str, what: str) -> None:
        data, answer = row.data, row.call.answer if row.call else None
        outcome, reason = data["outcome"], str(data["reason"])
        if not reason.strip() or "something" in reason:
            self._say(Rule.REASON, f"{what} ended {outcome} for the reason {reason!r}")
        by_hand = "by hand" in reason
        if outcome == "not_sent" and row.call:
            self._say(Rule.NOT_SENT, f"{what} says not_sent ({reason}), though its request reached the vendor")
        elif outcome == "rejected":
            status = answer.status if answer else None
            self._refused(row, status)
            if status is None or not (status in DEFINITE or 300 <= status < 500) or status in UNKNOWN:
                self._say(Rule.OUTCOME, f"{what} ended rejected, though the vendor answered {status}")
        elif outcome in {"succeeded", "failed", "ambiguous"} and not by_hand and row.sent is not None:
            self._check_evidence(record, row, outcome, what)
        elif outcome in {"succeeded", "failed", "ambiguous"} and was == "claimed":
            self._say(Rule.REASON, f"{what} ended {outcome}, and was never sent")
        if outcome == "succeeded":
            self.heals += 1

    def _check_evidence(self, record: LedgerRead, row: Row, outcome: str, what: str) -> None:
        daemon = self.daemons.get(record.process)
        if daemon is None or row.call is None:
            return  # ended by a command that looked itself, or from before the beginning
        left = row.call.arrived.left
        issues = set(row.data["issues"])
        if outcome == "succeeded":
            # It may be on another connection by now: two polls in a row are two of the same connection.
            clean = [
                [self._is_clean(poll, row, issues) for poll in polls if poll.left > left]
                for polls in daemon.polls.values()
            ]
            if not any(first and second for polls in clean for first, second in pairwise(polls)):
                self._say(
                    Rule.EVIDENCE, f"{what} ended succeeded, though no two polls in a row saw {sorted(issues)} gone"
                )
            return
        polls = [poll for poll in self._polls_on(daemon, row) if poll.left > left]
        wanted = issues.union(*(setup.heal.issues for setup in daemon.setups), row.wanted)
        if all(self._is_clean(poll, row, wanted) for poll in polls):
            self._say(Rule.EVIDENCE, f"{what} ended {outcome}, though no poll after it saw the issue")
        within = min(setup.heal.verify_within for setup in daemon.setups)
        if self.now - left < within - 1:
            self._say(
                Rule.EVIDENCE, f"{what} ended {outcome} {self.now - left:.0f} s after it was sent, not {within:.0f}"
            )

    @staticmethod
    def _is_clean(poll: Poll, row: Row, issues: set[str]) -> bool:
        shown = poll.view.dids.get(row.data["number"])
        return shown is not None and not shown.issues & issues

    @staticmethod
    def _polls_on(daemon: Daemon, row: Row) -> list[Poll]:
        """Return what a daemon heard of the number's connection, wherever that is now."""
        own = daemon.polls.get(row.connection)
        found = [poll for polls in daemon.polls.values() for poll in polls if row.data["number"] in poll.view.dids]
        last = max((poll.at for poll in found), default=0.0)
        if own and own[-1].at >= last and any(row.data["number"] in poll.view.dids for poll in own):
            return list(own)
        rest = [poll for poll in own or () if row.data["number"] not in poll.view.dids]
        return sorted([*found, *rest], key=lambda poll: poll.at)

    def _refused(self, row: Row, status: int | None) -> None:
        """Note a credential that was refused, when its row says so: then everybody can know."""
        daemon = self.daemons.get(row.claimer)
        latching = status is not None and (status == 401 or 300 <= status < 400)
        if status == 403:
            times = self._forbidden[row.key]
            latching = bool(times) and self.now - times[-1] < 590 and self.now > self._unsteady_until
            times.append(self.now)
        if latching:
            self._latched[row.key] = self.now
            self._refused_marks[row.key] |= {self._mark(setup, row.key) for setup in daemon.setups} if daemon else set()

    # Claims

    def _check_claim(self, record: LedgerRead, row: Row, daemon: Daemon | None) -> None:
        what = f"process {record.process} claimed {row.data['number']}"
        if daemon is None:
            self._say(Rule.UNCONFIRMED, f"{what}, and is no daemon")
            return
        if daemon.manual is not None:
            self._check_manual(row, daemon, what)
            return
        setups = daemon.setups
        if daemon.barred:
            self._say(Rule.WIPED, f"{what}, though the store that it had used was wiped")
        if all(setup.heal.mode != "enforce" for setup in setups):
            self._say(Rule.MODE, f"{what} in mode {daemon.setup.heal.mode}")
        if all(is_open(setup.heal.windows, record.wall) for setup in setups):
            self._say(Rule.WINDOW, f"{what} inside of a window")
        since, until = daemon.paused.get(row.key, (0.0, 0.0))
        if since + PROMPT < self.now < until - TICKS:
            self._say(Rule.RATE_LIMITED, f"{what} {until - self.now:.1f} s before the vendor's limit was to be over")
        self._check_account(row, what)
        self._check_flights(row, daemon, what)
        self._check_target(row, daemon, what)
        self._check_past(row, daemon, what)

    def _check_account(self, row: Row, what: str) -> None:
        if self._paused_at is not None and self.now > self._paused_at + TICKS:
            self._say(Rule.PAUSED, f"{what} {self.now - self._paused_at:.0f} s after heal pause")
        latched = self._latched.get(row.key)
        if latched is not None and self._resumed < latched:
            self._say(Rule.LATCHED, f"{what} {self.now - latched:.0f} s after its credential was refused")

    def _check_manual(self, row: Row, daemon: Daemon, what: str) -> None:
        """Check a claim by hand: what the command's own newest poll says, and the guards that it is not forced past."""
        number = row.data["number"]
        if number not in (daemon.manual or ()):
            self._say(Rule.UNCONFIRMED, f"{what}, which nobody asked for")
        polls = [poll for poll in daemon.polls.get(row.connection, ()) if poll.at <= self.now]
        if not polls:
            self._say(Rule.STALE, f"{what} by hand, without a poll")
            return
        shown = polls[-1].view.dids.get(number)
        if shown is None or not self._healable(shown, daemon.setup, daemon.setup.account(row.data["account"]), row):
            self._say(Rule.UNCONFIRMED, f"{what} by hand, though its newest poll saw nothing to heal")
        if self.now - polls[-1].at > 2 * self.interval_of(daemon) + 1 + PROMPT:
            self._say(Rule.STALE, f"{what} by hand on data {self.now - polls[-1].at:.0f} s old")
        if not daemon.force:
            self._check_account(row, what)
            self._check_in_flight(row, daemon, what)

    def _check_in_flight(self, row: Row, daemon: Daemon, what: str) -> int:
        """Return how many others of its credential are unverified."""
        others = sum(
            each.open and each is not row and each.key == row.key and self._is_observed(each, daemon)
            for each in self.rows.values()
        )
        most = max(setup.heal.max_in_flight for setup in daemon.setups)
        if others >= most:
            self._say(Rule.IN_FLIGHT, f"{what} while {others} heals were unverified, {most} are allowed")
        return others

    def _check_flights(self, row: Row, daemon: Daemon, what: str) -> None:
        others = self._check_in_flight(row, daemon, what)
        since = max(daemon.enabled, self._resumed)
        verified = any(
            each.data["outcome"] == "succeeded" and (each.ended or 0.0) > since
            for each in self.rows.values()
            if each.key == row.key
        )
        if others and not verified:
            self._say(Rule.RAMP, f"{what} while {others} heals were unverified, and none had been verified yet")
        self._check_breaker(row, daemon, what)

    def _check_breaker(self, row: Row, daemon: Daemon, what: str) -> None:
        count = max(setup.heal.breaker_failures for setup in daemon.setups)
        ended = sorted(
            (each for each in self.rows.values() if each.key == row.key and each.ended and each.ended > 0),
            key=lambda each: each.ended or 0.0,
        )
        last = ended[-count:]
        counted = [each for each in last if each.data["outcome"] in {"failed", "ambiguous"} and each.call]
        if len(last) < count or len(counted) < count or any("by hand" in each.data["reason"] for each in last):
            return
        open_for = min(setup.heal.breaker_open_for for setup in daemon.setups)
        passed = self.now - (last[-1].ended or 0.0)
        if passed < open_for - 1 and self.now > self._unsteady_until and self._resumed < (last[-1].ended or 0.0):
            self._say(Rule.BREAKER, f"{what} {passed:.0f} s after {count} heals in a row did not help")

    def _check_past(self, row: Row, daemon: Daemon, what: str) -> None:
        """Check what the number's earlier attempts ask for: to be left alone for a while, or until somebody helps."""
        number, heal = row.data["number"], daemon.setup.heal
        past = sorted(
            (each for each in self.rows.values() if each.data["number"] == number and each.ended and each.ended > 0),
            key=lambda each: each.ended or 0.0,
        )
        since = max(
            (each.ended or 0.0 for each in past if each.data["outcome"] == "succeeded"),
            default=self._released.get(number, 0.0),
        )
        since = max(since, self._released.get(number, 0.0), self._forgotten.get((row.connection, number), 0.0))
        bad = [each for each in past if (each.ended or 0.0) > since and each.call and not _is_excused(each)]
        if not bad or self.now <= self._unsteady_until or len(daemon.setups) > 1:
            return
        passed = self.now - (bad[-1].ended or 0.0)
        if bad[-1].data["http_status"] in {400, 422} and bad[-1].data["outcome"] == "rejected":
            self._say(Rule.ATTEMPTS, f"{what} {passed:.0f} s after its request was refused as invalid")
        elif passed < heal.backoff_initial - 1:
            self._say(Rule.BACKOFF, f"{what} {passed:.0f} s after an attempt ended {bad[-1].data['outcome']}")
        counted = [each for each in bad if each.claimed > self.now - heal.attempts_window + MINUTE]
        if len(counted) >= heal.max_attempts:
            self._say(Rule.ATTEMPTS, f"{what} after {len(counted)} attempts that did not help")

    def _is_observed(self, row: Row, daemon: Daemon) -> bool:
        """Whether polls list a row's number, so that it holds back others: those of a daemon, for a command of any."""
        daemons = [daemon] if daemon.manual is None else [each for each in self.daemons.values() if each.manual is None]
        within = min(setup.heal.verify_within for setup in daemon.setups)
        listed = [
            poll.left
            for each in daemons
            for poll in each.polls.get(row.connection, ())
            if row.data["number"] in poll.view.dids and each.setup.selects(row.data["account"], row.data["number"])
        ]
        return bool(listed) and self.now - max(listed) < 0.95 * within

    def _check_target(self, row: Row, daemon: Daemon, what: str) -> None:
        connection, number = row.connection, row.data["number"]
        polls = list(daemon.polls.get(connection, ()))
        fewest = min(setup.heal.hold_off_polls for setup in daemon.setups)
        if daemon.complete[connection] < fewest:
            self._say(Rule.HOLD_OFF, f"{what} after {daemon.complete[connection]} polls since the start, not {fewest}")
        if not polls:
            self._say(Rule.UNCONFIRMED, f"{what} without a poll")
            return
        age = self.now - polls[-1].at
        slack = self.interval_of(daemon) * 2 + 1 + PROMPT
        if age > slack:
            self._say(Rule.STALE, f"{what} on data {age:.0f} s old")
        grace = SLUGGISH if self.now <= self._sluggish_until else PROMPT
        judged = [poll for poll in polls if poll.at <= self.now - grace] or polls[:0]
        ends = [polls[:end] for end in range(max(len(judged), 1), len(polls) + 1)]  # what it may have judged by
        shares = [self._share(row, daemon, end, what) for end in ends]
        if all(shares):
            self._say(Rule.UNHEALTHY, shares[-1])
        losses = [self._loss(end, what) for end in ends]
        if all(losses):
            self._say(Rule.SUSPECT, losses[-1])
        self._check_confirmed(row, daemon, ends, what)
        account = daemon.setup.account(row.data["account"])
        configured = next((did for did in account.dids if did.number == number), None) if account else None
        if len(daemon.setups) == 1 and account:
            if configured and not configured.heal:
                self._say(Rule.UNCONFIRMED, f"{what}, which the configuration says never to heal")
            if not account.selects(number):
                self._say(Rule.UNCONFIRMED, f"{what}, which is not monitored")

    def _share(self, row: Row, daemon: Daemon, polls: list[Poll], what: str) -> str:
        """Say which of the last polls saw too many that are not ready; nothing where none did."""
        account = daemon.setup.account(row.data["account"])
        if account is None or len(daemon.setups) > 1:
            return ""
        watched = {did.number for did in account.dids}
        for poll in polls[-AGREEING:]:
            if poll.at < daemon.since:
                continue
            dids, unready = set(poll.view.dids) - set(account.exclude), poll.view.unready - set(account.exclude)
            if watched:
                if not watched <= dids:
                    continue  # on which of the connections a number is missing, only the product knows
                dids, unready = watched, unready & watched
            limit = max(LEAST_UNHEALTHY, daemon.setup.heal.max_unhealthy * len(dids))
            if len(unready) > limit:
                ago = self.now - poll.at
                return (
                    f"{what} {ago:.0f} s after a poll with {len(unready)} of {len(dids)} DIDs not ready, "
                    f"{limit:g} are allowed"
                )
        return ""

    def _check_confirmed(self, row: Row, daemon: Daemon, ends: list[list[Poll]], what: str) -> None:
        """Ask for one run of polls that confirms it."""
        setup = daemon.setups[0] if len(daemon.setups) == 1 else None
        if setup and not any(self._confirms(row, daemon, setup, polls) for polls in ends):
            last = ends[-1][-5:]
            shown = [sorted(s.issues) if (s := p.view.dids.get(row.data["number"])) else "gone" for p in last]
            self._say(Rule.UNCONFIRMED, f"{what}, whose last polls said {shown}")

    def _confirms(self, row: Row, daemon: Daemon, setup: Setup, polls: list[Poll]) -> bool:
        account = setup.account(row.data["account"])
        first: Poll | None = None
        count = 0
        for poll in reversed(polls):
            shown = poll.view.dids.get(row.data["number"])
            if poll.at < daemon.started or shown is None or not self._healable(shown, setup, account, row):
                break
            first, count = poll, count + 1
        long = polls[-1].at - first.at if first else -1.0
        return count >= setup.heal.confirm_polls and long >= setup.heal.confirm_for - 2

    @staticmethod
    def _healable(shown: Shown, setup: Setup, account: AccountRules | None, row: Row) -> bool:
        dids = {did.number: did for did in account.dids} if account else {}
        configured = dids.get(row.data["number"])
        client = shown.client is not None or bool(configured and configured.client)
        return bool(shown.issues & set(setup.heal.issues)) and client and not shown.expired and not shown.ready

    def _loss(self, polls: list[Poll], what: str) -> str:
        """Say which of the last polls lost many DIDs that are not back; nothing where none did."""
        for older, newer in zip(polls[-3:], polls[-2:], strict=False):
            lost = len(older.view.dids) - len(newer.view.dids)
            if (
                newer.at > self._resumed
                and lost >= 3
                and lost > len(older.view.dids) / 10
                and len(polls[-1].view.dids) <= len(newer.view.dids)
            ):
                return f"{what} {self.now - newer.at:.0f} s after a poll that lost {lost} DIDs"
        return ""

    @staticmethod
    def interval_of(daemon: Daemon) -> float:
        """Return the seconds between two polls of a target, as far as the budget lets them be."""
        setup = daemon.setup
        targets = max(1, len(daemon.polls))
        return max(setup.interval, 1.4 * targets * 65 / setup.requests_per_minute)

    # Time that passes

    def look(self, now: float, expected: Callable[[Setup], Iterable[tuple[str, str]]]) -> None:
        """See whether every live daemon is heard of; `expected` names the connections that it has to poll, by key."""
        self.now = now
        for daemon in self.daemons.values():
            if not daemon.alive or daemon.manual is not None:
                continue
            grace = max(self._excused[daemon.slot], self._excused[-1], daemon.since)
            targets = list(expected(daemon.setup))
            setup = daemon.setup
            interval = max(setup.interval, 1.4 * len(targets) * 65 / setup.requests_per_minute)
            most = 2 * interval + setup.timeout + 30
            for _, connection in targets:
                polls = daemon.polls.get(connection)
                last = max(polls[-1].at if polls else daemon.started, grace)
                if now - last > most:
                    self._say(
                        Rule.BLIND,
                        f"replica {daemon.slot} has no poll of {connection[:8]} for {now - last:.0f} s in calm weather",
                    )
                    self._excused[daemon.slot] = now + 600
                    break

    def unhealed(self, at: float, numbers: Mapping[str, str], patience: float) -> None:
        """Say which numbers are not healed after so many seconds of calm, each with what is known of it."""
        self.now = at
        for number, state in numbers.items():
            self._say(Rule.UNHEALED, f"{number} is not healed after {patience / HOUR:.1f} h of calm: {state}")

    def stuck(self, at: float, seconds: float) -> None:
        """Say which rows have been open for longer than so many seconds of calm, though their target is polled."""
        self.now = at
        for row in self.rows.values():
            if not row.open or at - row.claimed < seconds:
                continue
            live = [daemon for daemon in self.daemons.values() if daemon.alive]
            if any(self._is_observed(row, daemon) for daemon in live):
                self._say(
                    Rule.STUCK,
                    f"row {row.id} of {row.data['number']} is {row.data['status']} for {at - row.claimed:.0f} s",
                )


def _is_excused(row: Row) -> bool:
    """Whether an attempt is none that counts: nothing was sent, or the key was refused or limited."""
    outcome, status = row.data["outcome"], row.data["http_status"] or 0
    return (
        outcome in {"not_sent", "succeeded", "would_send"}
        or "by hand" in row.data["reason"]
        or (outcome == "rejected" and (status in {401, 429} or 300 <= status < 400))
    )
