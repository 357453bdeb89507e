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
import exporter.heal.windows
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
from exporter.vocobase.parse import error_code
from tests.simulation.judge import Rule
from tests.simulation.setup import Window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import httpx

    from tests.simulation.scenario import Scenario

    Put = Callable[[Any, str, Any], None]  # as setattr, until the end of the context


@dataclass(frozen=True)
class Fault:
    """A fault: what it does, its regression test, the promises it breaks, and the weather and scenarios to look in."""

    what: str
    test: str  # in tests/: the name by which pytest finds it
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
    put(exporter.heal.windows, "open_window", open_window)


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
    async def code(response: httpx.Response) -> str | None:
        return error_code(await response.aread())

    put(exporter.vocobase.client, "_code", code)


def _own_issues(put: Put) -> None:
    wish = HealRequest.wish.fget  # type: ignore[attr-defined]
    put(HealRequest, "wish", property(lambda self: replace(wish(self), heal_issues=())))
    put(exporter.heal.assess, "judged_by", lambda _record, _attempt, config: config.issues)


def _by_name(put: Put) -> None:
    account_runtimes = exporter.accounts.account_runtimes

    def runtimes(*args: Any) -> Any:  # noqa: ANN401
        made = account_runtimes(*args)
        return {name: replace(runtime, credential=name) for name, runtime in made.items()}

    put(exporter.accounts, "account_runtimes", runtimes)
    put(exporter.parts, "account_runtimes", runtimes)


def _night_windows(scenario: Scenario) -> Scenario:
    windows = (Window(2, 30, 3600.0, "Europe/Berlin"), Window(1, 45, 21600.0, "America/New_York"))
    heal = replace(scenario.setup.heal, windows=windows, max_per_hour=12, confirm_for=0.0, confirm_polls=1)
    return replace(scenario, setup=replace(scenario.setup, heal=heal))


BREAKS: Final = ("some_break", "some_relapse", "some_flap")

FAULTS: Final[dict[str, Fault]] = {
    "one-clock": Fault(
        "the 5 s from the claim are asked of one clock",
        "heal/test_sender.py::test_a_request_that_would_leave_too_late_by_any_clock_does_not",
        frozenset({Rule.LATE, Rule.TWO_AT_ONCE, Rule.NO_ROW}),
        _one_clock,
        ("suspend", "some_break"),
    ),
    "late-handshake": Fault(
        "the deadline is checked before the connection is opened",
        "heal/test_sender.py::test_a_late_handshake_delays_the_claim_and_not_the_request",
        frozenset({Rule.LATE}),
        _no_clock_at_the_end,
        ("handshakes_go_wrong", "some_break"),
    ),
    "used-connection": Fault(
        "heals share the connections of the polls",
        "heal/test_sender.py::test_a_front_that_drops_every_used_connection_loses_no_heal",
        frozenset({Rule.ALONE}),
        _shared_pool,
        ("used_connections_drop", "some_break"),
    ),
    "unobserved-holds": Fault(
        "an open row whose target nobody polls holds the ramp of the account",
        "heal/test_unobserved.py::test_what_no_poll_observes_locks_its_did_and_nothing_else",
        frozenset({Rule.UNHEALED}),
        _unobserved_holds,
        ("connection_changes", "connection_changes", "answers_go_wrong", "kill"),
        lambda scenario: len(scenario.keys) == 1 and 1 < len(scenario.connections[0]) < 20,
    ),
    "future-times": Fault(
        "times of the ledger that lie in the future are believed",
        "heal/test_clocks.py::test_a_pause_that_was_noted_while_the_clock_was_ahead_lasts_no_longer_than_asked_for",
        frozenset({Rule.UNHEALED, Rule.BLIND, Rule.PER_HOUR, Rule.HEAL_BUDGET, Rule.STUCK}),
        _times_are_believed,
        ("clock_is_set", "answers_go_wrong", "some_break"),
    ),
    "decided-once": Fault(
        "heal run sends what it decided before the prompt",
        "heal/test_manual.py::test_a_did_that_was_repaired_since_the_prompt_is_not_sent",
        frozenset({Rule.UNCONFIRMED}),
        _decided_once,
        ("heal_run", "some_flap", "answers_are_slow"),
    ),
    "last-refusal": Fault(
        "any other configuration lifts a latch",
        "store/test_ledger.py::test_all_who_were_refused_are_remembered_and_none_of_them_lifts_a_latch",
        frozenset({Rule.LATCHED}),
        _last_refusal,
        ("calls_are_refused", "some_break"),
        lambda scenario: scenario.slots > 1,
    ),
    "no-reason": Fault(
        "a claim that is not sent does not say why",
        "heal/test_sender.py::test_a_request_that_would_leave_too_late_by_any_clock_does_not",
        frozenset({Rule.REASON}),
        _no_reason,
        ("pause", "store_is_slow", "reload", "suspend", "restart"),
    ),
    "local-windows": Fault(
        "windows go by local time when clocks go back",
        "heal/test_windows.py::test_a_window_is_open_exactly_from_its_start_for_its_duration",
        frozenset({Rule.WINDOW}),
        _local_windows,
        BREAKS,
        lambda scenario: datetime.fromtimestamp(scenario.epoch, UTC).month in {10, 11},
        _night_windows,
    ),
    "made-anew": Fault(
        "a store that is wiped is silently made anew",
        "store/test_identity.py::TestAStoreThatWasEmptied::test_is_down_and_stays_empty",
        frozenset({Rule.WIPED}),
        _made_anew,
        ("store_is_lost", "some_break"),
    ),
    "by-number": Fault(
        "the body names did_number",
        "heal/test_decide.py::test_a_request_says_only_what_the_configuration_of_that_did_names",
        frozenset({Rule.BODY}),
        _by_number,
        BREAKS,
    ),
    "no-pace": Fault(
        "a crash loop forgets the request budget",
        "vocobase/test_budget.py::test_a_crash_loop_of_forty_targets_keeps_to_the_limit_and_gets_on",
        frozenset({Rule.API_BUDGET}),
        _no_pace,
        ("crash_loop", "some_break"),
    ),
    "polls-first": Fault(
        "polls starve heals",
        "test_parts.py::test_a_share_of_a_budget_is_kept_for_heals_where_any_are_sent",
        frozenset({Rule.UNHEALED}),
        _polls_first,
        BREAKS,
        lambda scenario: len(scenario.connections[0]) >= 20,
    ),
    "gateway-is-final": Fault(
        "408, 425 and 499 end the row",
        "heal/test_results.py::test_each_answer_is_treated_as_the_table_says_and_sent_once",
        frozenset({Rule.OUTCOME}),
        _gateway_is_final,
        ("answers_go_wrong", "some_break"),
    ),
    "only-200": Fault(
        "201 and 202 are no success",
        "heal/test_results.py::test_each_answer_is_treated_as_the_table_says_and_sent_once",
        frozenset({Rule.OUTCOME}),
        _only_200,
        ("work_is_accepted", "some_break"),
    ),
    "endless-body": Fault(
        "an error whose body never ends does not count by its status",
        "vocobase/test_network.py::test_an_error_counts_by_its_status_whatever_becomes_of_its_body",
        frozenset({Rule.OUTCOME}),
        _endless_body,
        ("answers_go_wrong", "some_break"),
    ),
    "own-issues": Fault(
        "a daemon ends the heals of others by its own heal.issues",
        "heal/test_replicas.py::test_a_replica_that_heals_other_issues_does_not_end_an_attempt",
        frozenset({Rule.EVIDENCE}),
        _own_issues,
        ("reload", "readiness_lags", "some_break"),
        lambda scenario: scenario.slots > 1,
    ),
    "by-name": Fault(
        "budgets and latches go by the account's name",
        "heal/test_replicas.py::test_two_accounts_with_one_key_send_one_heal_until_it_is_verified",
        frozenset({Rule.PER_HOUR, Rule.HEAL_BUDGET, Rule.IN_FLIGHT, Rule.RAMP, Rule.LATCHED, Rule.BREAKER}),
        _by_name,
        ("reload", "some_break"),
    ),
}
