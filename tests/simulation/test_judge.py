"""The judge can fail: for each promise a forged log in which it is broken, and one in which it is kept."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.simulation.fleet import Shown, View
from tests.simulation.judge import Judge, Rule
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
from tests.simulation.setup import AccountRules, DidRules, HealRules, Setup, Window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

KEY: Final = "rg_live_k"
PLACE: Final = "c0ffee00-0000-4000-8000-000000000000"
ELSEWHERE: Final = "c0ffee00-0000-4000-8000-000000000001"
BROKEN: Final = frozenset({"NO_BOT"})
WELL: Final[frozenset[str]] = frozenset()
EPOCH: Final = 1_800_000_000.0  # Unix time; a full hour
HEAL: Final = HealRules(confirm_polls=2, confirm_for=60.0, hold_off_polls=2, verify_within=300.0)


def number(index: int) -> str:
    return f"+9180112{index:05d}"


class Story:
    """Records for the judge. Times in seconds; numbers by their index."""

    def __init__(self, heal: HealRules = HEAL, account: AccountRules | None = None, **setup: Any) -> None:  # noqa: ANN401
        self.setup = Setup((account or AccountRules("main", KEY),), heal, **setup)
        self.judge = Judge({"main": KEY, "main2": KEY})
        self._request = 0
        self._rows: dict[int, dict[str, Any]] = {}
        self._links = 0
        self.start(0.0)

    @property
    def broken(self) -> set[Rule]:
        return {wrong.rule for wrong in self.judge.wrong}

    def start(self, at: float, process: int = 1, slot: int = 0, **more: Any) -> None:  # noqa: ANN401
        self.judge.take(Started(at, process, slot, self.setup, **more))

    def arrive(self, at: float, path: str, body: dict[str, Any], **more: Any) -> int:  # noqa: ANN401
        self._request += 1
        values: dict[str, Any] = {"process": 1, "slot": 0, "left": at, "wall": EPOCH + at, "nth": 1, "key": KEY} | more
        link = values.pop("link", None)
        if link is None:
            self._links += 1
            link = self._links
            self.judge.take(Opened(at, link, values["process"]))
        self.judge.take(Arrived(at, self._request, path=f"/api/v2/voicelink{path}", body=body, link=link, **values))
        return self._request

    def poll(
        self,
        at: float,
        broken: Iterable[int] = (0,),
        total: int = 10,
        process: int = 1,
        place: str = PLACE,
        **more: Any,  # noqa: ANN401
    ) -> int:
        """Let a daemon hear a complete poll that left a second before."""
        request = self.arrive(at - 1, "/sync", {"import_dids": False, "connection_id": place}, process=process, **more)
        bad = set(broken)
        dids = {
            number(index): Shown(
                800 + index, "NO_BOT" if index in bad else "READY", BROKEN if index in bad else WELL, 415, expired=False
            )
            for index in range(total)
        }
        self.judge.take(Answered(at, request, process, 200, usable=True, shows=View(dids), connection=place))
        return request

    def polls(self, first: float, last: float, broken: Iterable[int] = (0,), **more: Any) -> None:  # noqa: ANN401
        bad = tuple(broken)
        for at in range(round(first), round(last) + 1, 60):
            self.poll(at, bad, **more)

    def row(self, at: float, row: int, process: int = 1, wall: float | None = None, **values: Any) -> None:  # noqa: ANN401
        """Let a row of the ledger be changed, or be there for the first time."""
        known = self._rows.get(row) or {
            "id": row,
            "number": number(0),
            "account": "main",
            "connection": PLACE,
            "status": "claimed",
            "issues": ["NO_BOT"],
            "body": {"did_id": 800, "connection_id": PLACE},
            "manual": False,
            "outcome": None,
            "http_status": None,
            "reason": "",
        }
        self._rows[row] = known | values
        read = LedgerRead(at, process, EPOCH + at if wall is None else wall, (self._rows[row],))
        self.judge.take(read)

    def claim(self, at: float, row: int = 1, index: int = 0, **more: Any) -> None:  # noqa: ANN401
        body = {"did_id": 800 + index, "connection_id": PLACE}
        self.row(at, row, number=number(index), body=body, **more)

    def send(self, at: float, row: int = 1, *, late: float = 0.05, process: int = 1, **more: Any) -> int:  # noqa: ANN401
        """Let a row say sent and its request leave."""
        self.row(at, row, process=process, status="sent")
        return self.arrive(at + late, "/call-ready", dict(self._rows[row]["body"]), process=process, **more)

    def heal(self, at: float, row: int = 1, index: int = 0, **more: Any) -> int:  # noqa: ANN401
        """Let a number be claimed and its request be sent."""
        self.claim(at, row, index, **more)
        return self.send(at, row, **more)

    def answer(self, at: float, request: int, status: int = 200, process: int = 1, **more: Any) -> None:  # noqa: ANN401
        self.judge.take(Answered(at, request, process, status, **({"usable": status == 200} | more)))

    def end(self, at: float, row: int = 1, outcome: str = "succeeded", **more: Any) -> None:  # noqa: ANN401
        self.row(at, row, **({"status": "ended", "outcome": outcome, "reason": "the polls saw it"} | more))

    def healed(self, at: float, row: int = 1, index: int = 0, others: Iterable[int] = ()) -> None:
        """Let a number be healed, and verified by two polls; the next may begin 200 s later."""
        request = self.heal(at, row, index)
        self.answer(at + 2, request)
        self.row(at + 2, row, status="verifying", http_status=200)
        self.polls(at + 60, at + 120, others)
        self.end(at + 121, row)


def confirmed(*indexes: int, **more: Any) -> Story:  # noqa: ANN401
    """Return a story in which numbers are confirmed to be broken by 240 s."""
    story = Story(**more)
    story.polls(60, 240, indexes or (0,))
    return story


def test_a_heal_as_it_should_be() -> None:
    story = confirmed()
    story.healed(241)
    assert not story.judge.wrong
    assert (story.judge.calls, story.judge.heals) == (1, 1)


def unresolved() -> Story:
    story = confirmed()
    story.heal(241)
    story.polls(300, 420)
    story.heal(421, row=2)
    return story


def no_row() -> Story:
    story = confirmed()
    story.claim(241)
    story.arrive(242, "/call-ready", {"did_id": 800, "connection_id": PLACE})
    return story


def another_body() -> Story:
    story = confirmed()
    story.claim(241)
    story.row(241, 1, status="sent")
    story.arrive(241.1, "/call-ready", {"did_id": 800, "connection_id": PLACE, "bot_name": "x"})
    return story


def number_instead_of_id() -> Story:
    story = confirmed()
    body = {"did_number": number(0)[1:], "connection_id": PLACE}
    story.row(241, 1, body=body)
    story.send(241)
    return story


def wrong_client() -> Story:
    account = AccountRules("main", KEY, dids=tuple(DidRules(number(index), 9) for index in range(10)))
    story = confirmed(account=account)
    story.row(241, 1, body={"did_id": 800, "connection_id": PLACE, "client_id": 8})
    story.send(241)
    return story


def late() -> Story:
    story = confirmed()
    story.claim(241)
    story.send(246.5)
    return story


def late_behind_a_handshake() -> Story:
    story = confirmed()
    story.claim(241)
    story.send(242, late=9.0)
    return story


def used_connection() -> Story:
    story = confirmed()
    story.claim(241)
    story.send(241, link=1, nth=2)
    return story


def connection_used_again() -> Story:
    story = confirmed()
    story.claim(241)
    story.send(241, link=99)
    story.poll(300, link=99, nth=2)
    return story


def not_sent_but_arrived() -> Story:
    story = confirmed()
    story.heal(241)
    story.end(243, outcome="not_sent", reason="no connection")
    return story


def no_reason() -> Story:
    story = confirmed()
    story.claim(241)
    story.end(243, outcome="not_sent", reason="something held it back")
    return story


def began_at_its_end() -> Story:
    story = confirmed()
    story.end(241, outcome="failed", reason="not healed")
    return story


def ended_twice() -> Story:
    story = confirmed()
    story.healed(241)
    story.end(400, outcome="failed")
    return story


def another_status() -> Story:
    story = confirmed()
    request = story.heal(241)
    story.answer(243, request, 500)
    story.row(243, 1, status="ambiguous", http_status=502)
    return story


def refused_but_ambiguous() -> Story:
    story = confirmed()
    request = story.heal(241)
    story.answer(243, request, 409)
    story.row(243, 1, status="ambiguous")
    return story


def accepted_but_ambiguous() -> Story:
    story = confirmed()
    request = story.heal(241)
    story.answer(243, request, 202, usable=True)
    story.row(243, 1, status="ambiguous")
    return story


def unanswered_but_verifying() -> Story:
    story = confirmed()
    story.heal(241)
    story.row(243, 1, status="verifying", http_status=200)
    return story


def given_up_at_a_gateway() -> Story:
    story = confirmed()
    request = story.heal(241)
    story.answer(243, request, 408)
    story.end(243, outcome="rejected", reason="the API refuses (408)", http_status=408)
    return story


def succeeded_unseen() -> Story:
    story = confirmed()
    request = story.heal(241)
    story.answer(243, request)
    story.row(243, 1, status="verifying", http_status=200)
    story.poll(300, ())
    story.end(301)
    return story


def succeeded_by_other_issues() -> Story:
    story = confirmed()
    request = story.heal(241)
    story.answer(243, request)
    story.row(243, 1, status="verifying", http_status=200)
    story.polls(300, 420)
    story.end(421)
    return story


def freed_by_time() -> Story:
    story = confirmed()
    story.heal(241)
    story.row(300, 1, status="ambiguous")
    story.end(900, outcome="ambiguous", reason="too long ago")
    return story


def failed_too_soon() -> Story:
    story = confirmed()
    request = story.heal(241)
    story.answer(243, request)
    story.row(243, 1, status="verifying", http_status=200)
    story.polls(300, 360)
    story.end(361, outcome="failed", reason="not healed")
    return story


def too_many_requests() -> Story:
    story = Story(requests_per_minute=10)
    for process in range(2, 4):  # each new process has its own count
        story.start(process * 10.0, process=process)
        for step in range(6):
            story.poll(process * 10.0 + 2 + step, process=process)
    return story


def too_many_in_a_minute() -> Story:
    story = confirmed(0, 1, 2, heal=replace(HEAL, requests_per_minute=2, confirm_for=0.0))
    story.healed(241, others=(1, 2))
    for row, index in ((2, 1), (3, 2)):
        story.heal(400 + row, row=row, index=index)
    assert not story.judge.wrong
    story = confirmed(0, 1, 2, heal=replace(HEAL, requests_per_minute=1, confirm_for=0.0))
    story.healed(241, others=(1, 2))
    story.polls(361, 421, (1, 2))
    for row, index in ((2, 1), (3, 2)):
        story.heal(423 + row, row=row, index=index)
    return story


def too_many_in_an_hour() -> Story:
    story = Story(replace(HEAL, max_per_hour=3))
    for row in range(1, 5):
        story.polls(row * 600, row * 600 + 120, (row,))
        story.healed(row * 600 + 121, row=row, index=row)
    return story


def too_many_in_flight() -> Story:
    story = confirmed(0, 1, 2, heal=replace(HEAL, max_in_flight=1))
    story.healed(241, others=(1, 2))
    story.polls(421, 481, (1, 2))
    story.heal(482, row=2, index=1)
    story.heal(484, row=3, index=2)
    return story


def no_ramp() -> Story:
    story = confirmed(0, 1)
    story.heal(241)
    story.heal(243, row=2, index=1)
    return story


def breaker_passed() -> Story:
    story = Story(replace(HEAL, breaker_failures=2))
    story.polls(60, 300, (0, 1, 2))
    at = 301.0
    for row in range(1, 4):
        request = story.heal(at, row=row, index=row - 1)
        story.answer(at + 1, request)
        story.row(at + 1, row, status="verifying", http_status=200)
        story.polls(at + 60, at + 360, (0, 1, 2))
        story.end(at + 361, row, outcome="failed", reason="not healed")
        at += 420
    return story


def no_backoff() -> Story:
    story = confirmed()
    request = story.heal(241)
    story.answer(242, request, 409)
    story.end(242, outcome="rejected", reason="the API refuses (409)", http_status=409)
    story.polls(300, 480)
    story.heal(481, row=2)
    return story


def refused_as_invalid_and_sent_again() -> Story:
    story = confirmed()
    request = story.heal(241)
    story.answer(242, request, 422)
    story.end(242, outcome="rejected", reason="the API refuses (422)", http_status=422)
    story.polls(300, 2400)
    story.heal(2401, row=2)
    return story


def too_many_attempts() -> Story:
    story = confirmed()
    for row in range(1, 5):
        at = 241 + 1200 * (row - 1)
        request = story.heal(at, row=row)
        story.answer(at + 1, request, 409)
        story.end(at + 1, row, outcome="rejected", reason="the API refuses (409)", http_status=409)
        story.polls(at + 60, at + 1199)
    return story


def healed_while_paused() -> Story:
    story = confirmed()
    story.judge.take(Commanded(240.5, "pause"))
    story.heal(241)
    return story


def healed_inside_a_window() -> Story:
    hour = round(EPOCH) // 3600 % 24
    story = confirmed(heal=replace(HEAL, windows=(Window(hour, 0, 1800.0, "UTC"),)))
    story.heal(241)
    return story


def healed_though_refused() -> Story:
    story = confirmed(0, 1)
    request = story.heal(241)
    story.answer(242, request, 401)
    story.end(242, outcome="rejected", reason="the API refuses (401)", http_status=401)
    story.polls(300, 420, (0, 1))
    story.heal(421, row=2, index=1)
    return story


def unlatched_by_one_that_was_refused() -> Story:
    """Two replicas differ; both configurations were refused, and each lifts the latch of the other."""
    story = confirmed(0, 1, 2)
    other = replace(story.setup, heal=replace(HEAL, max_per_hour=5))
    for process, at in ((1, 241.0), (2, 601.0)):
        if process == 2:
            story.judge.take(Started(300, 2, 1, other))
            story.polls(310, 600, (0, 1, 2), process=2, slot=1)
        request = story.heal(
            at, row=process, index=process - 1, process=process, **({"slot": 1} if process == 2 else {})
        )
        story.answer(at + 1, request, 401, process=process)
        story.end(at + 1, process, outcome="rejected", reason="refused (401)", http_status=401, process=process)
    assert not story.judge.wrong
    story.polls(660, 780, (0, 1, 2))
    story.heal(781, row=3, index=2)
    return story


def too_many_unhealthy() -> Story:
    story = confirmed(0, 1, 2, 3)
    story.heal(245)
    return story


def unhealthy_two_polls_ago() -> Story:
    story = Story()
    story.polls(60, 120, (0, 1, 2, 3))
    story.polls(180, 240, (0,))
    story.heal(245)
    return story


def healed_after_a_loss() -> Story:
    story = Story()
    story.polls(60, 120, (0,), total=20)
    story.polls(180, 180, (0,), total=10)
    story.heal(185)
    return story


def no_hold_off() -> Story:
    story = Story(replace(HEAL, confirm_polls=1, confirm_for=0.0))
    story.poll(60)
    story.heal(65)
    return story


def healed_on_stale_data() -> Story:
    story = confirmed()
    story.heal(500)
    return story


def healed_in_observe_mode() -> Story:
    story = confirmed(heal=replace(HEAL, mode="observe"))
    story.heal(241)
    return story


def healed_after_a_reload_to_off() -> Story:
    story = confirmed()
    off = replace(story.setup, heal=replace(HEAL, mode="off"))
    story.judge.take(Reconfigured(240.2, 1, off, done=False))
    story.judge.take(Reconfigured(240.4, 1, off, done=True))
    story.heal(241)
    return story


def healed_unconfirmed() -> Story:
    story = Story()
    story.polls(60, 180, ())
    story.poll(240)
    story.heal(245)
    return story


def healed_though_well() -> Story:
    story = confirmed()
    story.polls(300, 300, ())
    story.heal(305)
    return story


def healed_though_opted_out() -> Story:
    account = AccountRules("main", KEY, dids=tuple(DidRules(number(index), heal=bool(index)) for index in range(10)))
    story = confirmed(account=account)
    story.heal(241)
    return story


def by_hand_though_well() -> Story:
    story = confirmed()
    story.start(241, process=2, slot=-1, manual=(number(0),))
    story.poll(242, process=2, slot=-1)
    story.polls(250, 310, (), process=2, slot=-1)
    story.heal(311, process=2, slot=-1)
    return story


def by_hand_though_nobody_asked() -> Story:
    story = confirmed(0, 1)
    story.start(241, process=2, slot=-1, manual=(number(0),))
    story.poll(242, (0, 1), process=2, slot=-1)
    story.heal(243, index=1, process=2, slot=-1)
    return story


def by_hand_on_stale_data() -> Story:
    story = confirmed()
    story.start(241, process=2, slot=-1, manual=(number(0),), force=True)
    story.poll(242, process=2, slot=-1)
    story.heal(500, process=2, slot=-1)
    return story


def asked_too_soon() -> Story:
    story = confirmed()
    request = story.arrive(250, "/sync", {"import_dids": False, "connection_id": PLACE})
    story.answer(251, request, 429, usable=False, retry_after=90.0)
    story.poll(252.2)  # whose connection was being opened
    assert not story.judge.wrong
    story.poll(300)
    return story


def claimed_too_soon() -> Story:
    story = confirmed()
    request = story.arrive(230, "/sync", {"import_dids": False, "connection_id": PLACE})
    story.answer(231, request, 429, usable=False)
    story.claim(245)
    return story


def healed_by_a_wiped_store() -> Story:
    story = confirmed()
    story.judge.take(StoreLost(240.5))
    story.heal(241)
    return story


def healed_by_another_store() -> Story:
    story = confirmed()
    story.judge.take(StoreLost(240.5, away=True))
    story.claim(241)
    story.judge.take(StoreBack(250))
    return story


def wrote_by_a_poll() -> Story:
    story = Story()
    story.arrive(60, "/sync", {"connection_id": PLACE})
    return story


def blind() -> Story:
    story = confirmed()
    story.judge.look(700, lambda _: [(KEY, PLACE)])
    return story


def unhealed() -> Story:
    story = confirmed()
    story.judge.unhealed(9000, {number(0): "the ledger knows nothing of it"}, 7200)
    return story


def stuck() -> Story:
    story = confirmed()
    story.heal(241)
    story.polls(300, 9000)
    story.judge.stuck(9001, 7200)
    return story


CASES: Final[dict[Callable[[], Story], Rule]] = {
    unresolved: Rule.TWO_AT_ONCE,
    no_row: Rule.NO_ROW,
    another_body: Rule.BODY,
    number_instead_of_id: Rule.BODY,
    wrong_client: Rule.BODY,
    late: Rule.LATE,
    late_behind_a_handshake: Rule.LATE,
    used_connection: Rule.ALONE,
    connection_used_again: Rule.ALONE,
    not_sent_but_arrived: Rule.NOT_SENT,
    no_reason: Rule.REASON,
    began_at_its_end: Rule.REASON,
    ended_twice: Rule.REASON,
    another_status: Rule.OUTCOME,
    refused_but_ambiguous: Rule.OUTCOME,
    accepted_but_ambiguous: Rule.OUTCOME,
    unanswered_but_verifying: Rule.OUTCOME,
    given_up_at_a_gateway: Rule.OUTCOME,
    succeeded_unseen: Rule.EVIDENCE,
    succeeded_by_other_issues: Rule.EVIDENCE,
    freed_by_time: Rule.EVIDENCE,
    failed_too_soon: Rule.EVIDENCE,
    too_many_requests: Rule.API_BUDGET,
    too_many_in_a_minute: Rule.HEAL_BUDGET,
    too_many_in_an_hour: Rule.PER_HOUR,
    too_many_in_flight: Rule.IN_FLIGHT,
    no_ramp: Rule.RAMP,
    breaker_passed: Rule.BREAKER,
    no_backoff: Rule.BACKOFF,
    refused_as_invalid_and_sent_again: Rule.ATTEMPTS,
    too_many_attempts: Rule.ATTEMPTS,
    healed_while_paused: Rule.PAUSED,
    healed_inside_a_window: Rule.WINDOW,
    healed_though_refused: Rule.LATCHED,
    unlatched_by_one_that_was_refused: Rule.LATCHED,
    too_many_unhealthy: Rule.UNHEALTHY,
    unhealthy_two_polls_ago: Rule.UNHEALTHY,
    healed_after_a_loss: Rule.SUSPECT,
    no_hold_off: Rule.HOLD_OFF,
    healed_on_stale_data: Rule.STALE,
    by_hand_on_stale_data: Rule.STALE,
    healed_in_observe_mode: Rule.MODE,
    healed_after_a_reload_to_off: Rule.MODE,
    healed_unconfirmed: Rule.UNCONFIRMED,
    healed_though_well: Rule.UNCONFIRMED,
    healed_though_opted_out: Rule.UNCONFIRMED,
    by_hand_though_well: Rule.UNCONFIRMED,
    by_hand_though_nobody_asked: Rule.UNCONFIRMED,
    asked_too_soon: Rule.RATE_LIMITED,
    claimed_too_soon: Rule.RATE_LIMITED,
    healed_by_a_wiped_store: Rule.WIPED,
    healed_by_another_store: Rule.WIPED,
    wrote_by_a_poll: Rule.READ_ONLY,
    blind: Rule.BLIND,
    unhealed: Rule.UNHEALED,
    stuck: Rule.STUCK,
}


@pytest.mark.parametrize("tell", list(CASES), ids=lambda tell: tell.__name__)
def test_a_broken_promise_is_seen(tell: Callable[[], Story]) -> None:
    story = tell()
    assert CASES[tell] in story.broken, [str(wrong) for wrong in story.judge.wrong]


def test_every_promise_can_be_seen_broken() -> None:
    assert set(CASES.values()) == set(Rule)


def test_what_is_not_looked_at() -> None:
    judge = Judge({}, frozenset({Rule.READ_ONLY}))
    judge.take(Arrived(1.0, 1, 1, 0, 1.0, 0.0, 1, 1, KEY, "/api/v2/voicelink/sync", {}))
    assert not judge.wrong


@pytest.mark.parametrize(
    "between",
    [
        pytest.param([Commanded(240.5, "pause"), Commanded(240.6, "resume")], id="paused and resumed"),
        pytest.param([Excused(240.5, 300.0, -2, "store")], id="the store is slow"),
        pytest.param([Ended(240.5, 9, killed=True)], id="somebody else died"),
    ],
)
def test_what_breaks_no_promise(between: list[Any]) -> None:
    story = confirmed()
    for record in between:
        story.judge.take(record)
    story.healed(241)
    assert not story.judge.wrong


def test_no_connection_is_a_row_that_is_over_at_once() -> None:
    story = confirmed()
    story.end(241, outcome="not_sent", reason="no connection to the API: refused")
    story.judge.stuck(9000, 3600)
    assert not story.judge.wrong


def test_a_person_may_release_a_number() -> None:
    story = confirmed()
    request = story.heal(241)
    story.answer(242, request, 422)
    story.end(242, outcome="rejected", reason="the API refuses (422)", http_status=422)
    story.judge.take(Commanded(250, "release", number(0)))
    story.polls(300, 480)
    story.heal(481, row=2)
    assert not story.judge.wrong


def test_forced_heals_pass_the_budgets_and_count() -> None:
    story = confirmed(0, 1, heal=replace(HEAL, max_per_hour=1))
    story.healed(241, others=(1,))
    story.start(400, process=2, slot=-1, manual=(number(1),), force=True)
    story.poll(401, (1,), process=2, slot=-1)
    story.heal(402, row=2, index=1, process=2, slot=-1)
    assert not story.judge.wrong


@pytest.mark.parametrize(("clean_until", "broken"), [(5600, {Rule.ATTEMPTS}), (6600, set())])
def test_attempts_are_forgotten_once_a_number_was_clean_however_many_polls_ago(
    clean_until: int, broken: set[Rule]
) -> None:
    story = confirmed(heal=replace(HEAL, probation=3600.0, max_attempts=1))
    request = story.heal(241)
    story.answer(242, request, 409)
    story.end(242, outcome="rejected", reason="the API refuses (409)", http_status=409)
    story.polls(2400, clean_until, ())
    story.polls(clean_until + 60, 12000)
    story.heal(12001, row=2)
    assert story.broken == broken


@pytest.mark.parametrize(("observed_until", "broken"), [(960, {Rule.IN_FLIGHT}), (300, set())])
def test_what_no_daemon_observes_holds_back_no_heal_by_hand(observed_until: int, broken: set[Rule]) -> None:
    story = confirmed(0, 1, heal=replace(HEAL, max_in_flight=1))
    request = story.heal(241)
    story.answer(242, request)
    story.row(242, 1, status="verifying", http_status=200)
    story.polls(300, observed_until, (0, 1))
    story.start(1000, process=2, slot=-1, manual=(number(1),))
    story.poll(1001, (0, 1), process=2, slot=-1)
    story.heal(1002, row=2, index=1, process=2, slot=-1)
    assert story.broken == broken


def test_a_number_may_be_verified_on_another_connection_than_it_was_healed_on() -> None:
    story = confirmed()
    story.answer(242, story.heal(241))
    story.row(242, 1, status="verifying", http_status=200)
    story.poll(300, (), place=ELSEWHERE)
    story.poll(330, (), total=0)  # where it was
    story.poll(360, (), place=ELSEWHERE)
    story.end(361)
    assert not story.judge.wrong


def test_what_is_not_monitored_any_more_holds_back_no_other_number() -> None:
    account = AccountRules("main", KEY, dids=tuple(DidRules(number(index)) for index in range(1, 10)))
    story = Story(account=account, heal=replace(HEAL, max_in_flight=1))
    old = {
        "id": 7,
        "number": number(0),
        "account": "main",
        "connection": PLACE,
        "status": "ambiguous",
        "issues": ["NO_BOT"],
    }
    story.judge.adopt([old | {"body": {"did_id": 800}, "outcome": None, "http_status": None, "reason": ""}])
    story.polls(60, 240, (0, 1))
    story.heal(241, row=8, index=1)
    assert not story.judge.wrong
    story.judge.stuck(280, 0)
    assert [wrong.rule for wrong in story.judge.wrong] == [Rule.STUCK]
    assert "row 8" in str(story.judge.wrong[0])


def test_a_resume_forgets_what_was_refused() -> None:
    story = confirmed(0, 1, 2)
    setup, other = story.setup, replace(story.setup, heal=replace(HEAL, max_per_hour=5))
    request = story.heal(241)
    story.answer(242, request, 401)
    story.end(242, outcome="rejected", reason="refused (401)", http_status=401)
    story.judge.take(Commanded(250, "resume", ""))
    story.judge.take(Reconfigured(251, 1, other, done=True))
    story.polls(300, 420, (0, 1, 2))
    request = story.heal(421, row=2, index=1)
    story.answer(422, request, 401)
    story.end(422, 2, outcome="rejected", reason="refused (401)", http_status=401)
    story.judge.take(Reconfigured(430, 1, setup, done=True))
    story.polls(480, 660, (0, 1, 2))
    story.heal(661, row=3, index=2)
    assert not story.judge.wrong


@pytest.mark.parametrize(("wrong", "broken"), [(True, set()), (False, {Rule.PER_HOUR})])
def test_a_process_that_starts_while_a_clock_is_wrong_cannot_know_how_old_a_heal_is(
    *, wrong: bool, broken: set[Rule]
) -> None:
    story = confirmed(0, 1, heal=replace(HEAL, max_per_hour=1))
    story.healed(241, others=(1,))
    if wrong:
        story.judge.take(Excused(300, 400, -2, "clock"))
    story.start(400, process=2)
    for at in range(460, 1500, 60):
        story.poll(at, (1,), process=2)
    story.heal(1501, row=2, index=1, process=2)
    assert story.broken == broken


def test_what_a_store_held_before_counts() -> None:
    story = Story()
    body = {"did_id": 800, "connection_id": PLACE}
    old = {"id": 1, "number": number(0), "account": "main", "connection": PLACE, "status": "sent", "body": body}
    story.judge.adopt([old | {"outcome": None, "http_status": None, "reason": "", "issues": ["NO_BOT"]}])
    story.polls(60, 240)
    story.heal(241, row=2)
    assert Rule.TWO_AT_ONCE in story.broken


def test_a_latch_is_lifted_by_what_was_never_refused() -> None:
    story = confirmed(0, 1)
    request = story.heal(241)
    story.answer(242, request, 401)
    story.end(242, outcome="rejected", reason="refused (401)", http_status=401)
    other = replace(story.setup, heal=replace(HEAL, max_per_hour=5))
    story.judge.take(Reconfigured(250, 1, other, done=False))
    story.judge.take(Reconfigured(251, 1, other, done=True))
    story.polls(300, 420, (0, 1))
    story.heal(421, row=2, index=1)
    assert not story.judge.wrong
