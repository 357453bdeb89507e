"""Faults that the product once had, put back one at a time: the simulation has to find each."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

from cronsim import CronSim
from sqlalchemy import delete

import exporter.accounts
import exporter.clients
import exporter.heal.assess
import exporter.heal.controller
import exporter.heal.decide
import exporter.heal.guards
import exporter.heal.manual
import exporter.heal.results
import exporter.parts
import exporter.store.engine
import exporter.store.ledger
import exporter.store.store
import exporter.store.tables
import exporter.vocobase.client
from exporter.clock import Lease
from exporter.heal.sender import HealRequest
from exporter.store.identity import Identity, read_identity
from exporter.vocobase.budget import RequestBudget
from exporter.vocobase.client import Reservation, VocobaseClient
from tests.simulation.judge import Rule
from tests.simulation.setup import Window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.simulation.scenario import Scenario

    Put = Callable[[Any, str, Any], None]  # as setattr, until the end of the context


@dataclass(frozen=True)
class Fault:
    """A fault: what it does, which promises it breaks, and the weather and scenarios in which it is looked for."""

    what: str
    breaks: frozenset[Rule]
    put: Callable[[Put], None]
    kinds: tuple[str, ...] = ()
    fits: Callable[[Scenario], bool] = lambda _: True
    adapt: Callable[[Scenario], Scenario] = lambda scenario: scenario


@contextmanager
def put_back(fault: Fault) -> Iterator[None]:
    """Have the product this fault while the context lasts."""
    with ExitStack() as stack:

        def put(where: Any, name: str, value: Any) -> None:  # noqa: ANN401 - any part of the product
            stack.callback(setattr, where, name, where.__dict__[name])
            setattr(where, name, value)

        fault.put(put)
        yield


def _one_clock(put: Put) -> None:
    def expired(self: Lease) -> str:
        late = self.clock.monotonic() - self.monotonic >= self.seconds
        return "too late by the one clock that is asked" if late else ""

    put(Lease, "expired", property(expired))


def _no_clock_at_the_end(put: Put) -> None:
    async def open_nothing(self: Reservation, within: float) -> None:  # noqa: ARG001
        return None

    put(Reservation, "open", open_nothing)
    put(Lease, "expired", property(lambda _: ""))


def _shared_pool(put: Put) -> None:
    made = VocobaseClient.__init__

    def make(self: VocobaseClient, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        made(self, *args, **kwargs)
        self._writes = self._http

    put(VocobaseClient, "__init__", make)


def _unobserved_holds(put: Put) -> None:
    put(exporter.heal.guards, "is_unobserved", lambda *_: False)


def _times_are_believed(put: Put) -> None:
    put(exporter.store.store, "StampReader", lambda _: None)


def _decided_once(put: Put) -> None:
    put(exporter.heal.manual.Manual, "_decide_anew", lambda _self, _state, candidate: candidate.send)


def _last_refusal(put: Put) -> None:
    refuse = exporter.store.ledger._refuse  # noqa: SLF001
    table = exporter.store.tables.heal_refusals

    def forget_others(connection: Any, credential: str, fingerprint: str, now: float) -> None:  # noqa: ANN401
        connection.execute(delete(table).where(table.c.credential == credential))
        refuse(connection, credential, fingerprint, now)

    put(exporter.store.ledger, "_refuse", forget_others)


def _no_reason(put: Put) -> None:
    not_sent = exporter.heal.results.not_sent
    put(exporter.heal.results, "not_sent", lambda _: not_sent("something speaks against it"))


def _local_windows(put: Put) -> None:
    def open_window(windows: Any, now: float) -> str:  # noqa: ANN401
        for window in windows:
            local = datetime.fromtimestamp(now, UTC).astimezone(ZoneInfo(window.timezone))
            starts = CronSim(window.cron, local + timedelta(minutes=1), reverse=True)
            begun = next((start for start in starts if start.timestamp() <= now), None)
            if begun is not None and now < begun.timestamp() + window.duration.total_seconds():
                return "inside of it"
        return ""

    put(exporter.heal.guards, "open_window", open_window)


def _made_anew(put: Put) -> None:
    connect = exporter.store.engine.connect

    def recognise(self: Any, connection: Any, *, accepting: bool = False) -> Identity:  # noqa: ANN401, ARG001
        return read_identity(connection) or Identity(self._identity, None, "")

    put(exporter.store.engine, "connect", lambda url, _: connect(url, lambda: True))
    put(exporter.store.engine.Database, "_recognise", recognise)


def _by_number(put: Put) -> None:
    request_body = exporter.heal.decide.request_body

    def body(did: Any, *args: Any) -> dict[str, Any]:  # noqa: ANN401
        said = request_body(did, *args)
        said.pop("did_id", None)
        return {"did_number": did.number.removeprefix("+"), **said}

    put(exporter.heal.decide, "request_body", body)


def _no_pace(put: Put) -> None:
    put(RequestBudget, "gap", property(lambda _: 0.0))


def _polls_first(put: Put) -> None:
    put(exporter.clients, "share_for_heals", lambda *_: 0)
    put(exporter.heal.controller, "LEAST_PATIENCE", 5.0)


def _gateway_is_final(put: Put) -> None:
    put(exporter.heal.results, "MAY_HAVE_ACTED", frozenset())


def _only_200(put: Put) -> None:
    put(exporter.vocobase.client, "ACCEPTED", frozenset({200}))


def _endless_body(put: Put) -> None:
    before, ambiguous = exporter.heal.results.failed, exporter.heal.results.ambiguous

    def failed(error: Any, **more: Any) -> Any:  # noqa: ANN401
        return before(error, **more) if getattr(error, "code", None) else ambiguous(str(error))

    put(exporter.heal.results, "failed", failed)


def _own_issues(put: Put) -> None:
    wish = HealRequest.wish.fget  # type: ignore[attr-defined]
    put(HealRequest, "wish", property(lambda self: replace(wish(self), heal_issues=())))
    put(exporter.heal.assess, "judged_by", lambda _record, _attempt, config: config.issues)


def _by_name(put: Put) -> None:
    account_runtimes = exporter.accounts.account_runtimes

    def runtimes(*args: Any) -> Any:  # noqa: ANN401
        made = account_runtimes(*args)
        return {name: replace(runtime, credential=name) for name, runtime in made.items()}

    put(exporter.parts, "account_runtimes", runtimes)


def _night_windows(scenario: Scenario) -> Scenario:
    windows = (Window(2, 30, 3600.0, "Europe/Berlin"), Window(1, 45, 21600.0, "America/New_York"))
    heal = replace(scenario.setup.heal, windows=windows, max_per_hour=12, confirm_for=0.0, confirm_polls=1)
    return replace(scenario, setup=replace(scenario.setup, heal=heal))


BREAKS: Final = ("some_break", "some_relapse", "some_flap")

FAULTS: Final[dict[str, Fault]] = {
    "one-clock": Fault(
        "the 5 s from the claim are asked of one clock",
        frozenset({Rule.LATE, Rule.TWO_AT_ONCE, Rule.NO_ROW}),
        _one_clock,
        ("suspend", "some_break"),
    ),
    "late-handshake": Fault(
        "the deadline is checked before the connection is opened",
        frozenset({Rule.LATE}),
        _no_clock_at_the_end,
        ("handshakes_go_wrong", "some_break"),
    ),
    "used-connection": Fault(
        "heals share the connections of the polls",
        frozenset({Rule.ALONE}),
        _shared_pool,
        ("used_connections_drop", "some_break"),
    ),
    "unobserved-holds": Fault(
        "an open row whose target nobody polls holds the ramp of the account",
        frozenset({Rule.UNHEALED}),
        _unobserved_holds,
        ("connection_changes", "connection_changes", "answers_go_wrong", "kill"),
        lambda scenario: len(scenario.keys) == 1 and 1 < len(scenario.connections[0]) < 20,
    ),
    "future-times": Fault(
        "times of the ledger that lie in the future are believed",
        frozenset({Rule.UNHEALED, Rule.BLIND, Rule.PER_HOUR, Rule.HEAL_BUDGET, Rule.STUCK}),
        _times_are_believed,
        ("clock_is_set", "answers_go_wrong", "some_break"),
    ),
    "decided-once": Fault(
        "heal run sends what it decided before the prompt",
        frozenset({Rule.UNCONFIRMED}),
        _decided_once,
        ("heal_run", "some_flap", "answers_are_slow"),
    ),
    "last-refusal": Fault(
        "any other configuration lifts a latch",
        frozenset({Rule.LATCHED}),
        _last_refusal,
        ("calls_are_refused", "some_break"),
        lambda scenario: scenario.slots > 1,
    ),
    "no-reason": Fault(
        "a claim that is not sent does not say why",
        frozenset({Rule.REASON}),
        _no_reason,
        ("pause", "store_is_slow", "reload", "suspend", "restart"),
    ),
    "local-windows": Fault(
        "windows go by local time when clocks go back",
        frozenset({Rule.WINDOW}),
        _local_windows,
        BREAKS,
        lambda scenario: datetime.fromtimestamp(scenario.epoch, UTC).month in {10, 11},
        _night_windows,
    ),
    "made-anew": Fault(
        "a store that is wiped is silently made anew",
        frozenset({Rule.WIPED}),
        _made_anew,
        ("store_is_lost", "some_break"),
    ),
    "by-number": Fault("the body names did_number", frozenset({Rule.BODY}), _by_number, BREAKS),
    "no-pace": Fault(
        "a crash loop forgets the request budget",
        frozenset({Rule.API_BUDGET}),
        _no_pace,
        ("crash_loop", "some_break"),
    ),
    "polls-first": Fault(
        "polls starve heals",
        frozenset({Rule.UNHEALED}),
        _polls_first,
        BREAKS,
        lambda scenario: len(scenario.connections[0]) >= 20,
    ),
    "gateway-is-final": Fault(
        "408, 425 and 499 end the row",
        frozenset({Rule.OUTCOME}),
        _gateway_is_final,
        ("answers_go_wrong", "some_break"),
    ),
    "only-200": Fault(
        "201 and 202 are no success", frozenset({Rule.OUTCOME}), _only_200, ("work_is_accepted", "some_break")
    ),
    "endless-body": Fault(
        "an error whose body never ends does not count by its status",
        frozenset({Rule.OUTCOME}),
        _endless_body,
        ("answers_go_wrong", "some_break"),
    ),
    "own-issues": Fault(
        "a daemon ends the heals of others by its own heal.issues",
        frozenset({Rule.EVIDENCE}),
        _own_issues,
        ("reload", "readiness_lags", "some_break"),
        lambda scenario: scenario.slots > 1,
    ),
    "by-name": Fault(
        "budgets and latches go by the account's name",
        frozenset({Rule.PER_HOUR, Rule.HEAL_BUDGET, Rule.IN_FLIGHT, Rule.RAMP, Rule.LATCHED, Rule.BREAKER}),
        _by_name,
        ("reload", "some_break"),
    ),
}
