"""What is known, as it is shown: every field, nothing that is nobody's business, and the fleet in one sentence."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from exporter.config import Config
from exporter.errors import Reason
from exporter.model import Connection, Guard, Outcome
from exporter.snapshots import Healing, expire, labeller, poll_failed
from exporter.store.records import Attempt, Status, Transition
from exporter.web.glance import Share, glance
from exporter.web.links import chips, did_url, fleet_url, turned
from exporter.web.models import GuardHeld
from exporter.web.query import DidQuery
from exporter.web.rows import Rows
from exporter.web.views import Names, detail_of, did_of, heal_of, targets_of, transition_of
from tests.support.fleet import NOW, ONE, TWO, A, B, entry, fleet_of, polled, watch

if TYPE_CHECKING:
    from exporter.snapshots import Fleet

HASHED = Names(labeller(b"k" * 16), hashed=True)
PLAIN = Names()
ATTEMPT = Attempt(
    7,
    ONE,
    "default",
    A.connection,
    Status.ENDED,
    "token-of-the-claim",
    "host-1234",
    ("NO_BOT",),
    {"did_number": ONE, "websocket_url": "wss://me:pass@bot.example/x?key=hidden"},
    NOW,
    outcome=Outcome.FAILED,
    http_status=200,
    readiness={"phone_number": ONE, "note": "of-readiness"},
    reason=f"+91 80 1122-3344 is not mended, nor is {TWO}, within 10m",
    steps=(
        {"step": "resolve_did", "status": "done", "detail": "DID 918011223344 found", "data": {"did_id": 7}},
        {"step": ["odd"], "status": None, "detail": {"a": 1}},
        {},
        {"step": "s", "status": "t", "detail": "x" * 600},
    ),
)


def test_a_number_is_shown_with_all_that_is_known() -> None:
    known = entry(
        *(ONE, "NO_BOT", "NO_BOT", "<odd>"),
        did_id=812,
        client_id=415,
        did_status="ACTIVE",
        friendly_name="Sales",
        agent_id="a",
        agent_name="Asha",
        bot_id="9",
        bot_name="Bot",
        routing_id="7",
        actions=(("NO_BOT", "Create a bot"), ("", "Look")),
    )
    fleet = polled(fleet_of(A), A, known, by=watch(ONE, team="sales"))
    fleet = replace(fleet, connections={A: Connection(A.connection, "Main", "ACTIVE", is_default=True)})
    did = fleet.targets[A].memory[ONE]
    config = Config.model_validate(
        {
            "accounts": [
                {
                    "api_key_env": "KEY",
                    "dids": [
                        {
                            "did_number": ONE,
                            "client_id": 415,
                            "websocket_url": "wss://me:pass@bot.example/x?key=hidden",
                            "labels": {"team": "sales"},
                            "heal": False,
                        }
                    ],
                }
            ]
        }
    )
    shown = detail_of(A, did, fleet, PLAIN, config=config, why="not healable").model_dump(mode="json")
    assert shown == {
        "phone_number": ONE,
        "account": "default",
        "connection": A.connection,
        "connection_name": "Main",
        "state": "NO_BOT",
        "ready": False,
        "issues": ["NO_BOT", "OTHER"],
        "actions": [{"code": "NO_BOT", "label": "Create a bot"}, {"code": "", "label": "Look"}],
        "since": "2027-01-15T08:00:00Z",
        "changes": 0,
        "expired": False,
        "did_id": 812,
        "client_id": 415,
        "did_status": "ACTIVE",
        "friendly_name": "Sales",
        "agent_id": "a",
        "agent_name": "Asha",
        "bot_id": "9",
        "bot_name": "Bot",
        "routing_id": "7",
        "labels": {"team": "sales"},
        "heal": "idle",
        "current": True,
        "seen": "2027-01-15T08:00:00Z",
        "api_state": "NO_BOT",
        "api_issues": ["NO_BOT", "<odd>"],
        "heal_reason": "not healable",
        "configuration": {
            "client_id": 415,
            "agent_id": None,
            "bot_name": None,
            "websocket_url": "wss://<secret>@bot.example/x?<secret>",
            "heal": False,
            "labels": {"team": "sales"},
        },
    }
    listed = did_of(A, did, fleet, PLAIN).model_dump(mode="json")
    assert listed.items() <= shown.items()


def test_a_number_that_was_known_before_is_shown_as_old() -> None:
    fleet = polled(fleet_of(A), A, entry(ONE))
    old = fleet.with_target(expire(fleet.targets[A], NOW + 999, 300))
    shown = detail_of(A, old.targets[A].memory[ONE], old, PLAIN, config=Config(), why="")
    assert (shown.current, shown.state, shown.configuration) == (False, "READY", None)


def test_a_heal_is_shown_without_its_token_its_request_and_the_objects_of_the_api() -> None:
    shown = heal_of(ATTEMPT, PLAIN).model_dump(mode="json")
    assert shown["steps"] == [
        {"step": "resolve_did", "status": "done", "detail": "DID 918011223344 found"},
        {"step": '["odd"]', "status": "", "detail": '{"a": 1}'},
        {"step": "", "status": "", "detail": ""},
        {"step": "s", "status": "t", "detail": "x" * 499 + "…"},
    ]
    assert (shown["id"], shown["outcome"], shown["sent_at"]) == (7, "failed", None)
    assert not any(secret in str(shown) for secret in ("token", "pass", "hidden", "of-readiness", "body"))


def test_a_hashed_heal_holds_no_number() -> None:
    shown = heal_of(replace(ATTEMPT, issues=("N918011223344",)), HASHED)
    label = HASHED.label(ONE)
    assert shown.phone_number == label
    assert shown.reason == f"{label} is not mended, nor is (hidden), within 10m"
    assert [step.detail for step in shown.steps] == ["", "", "", ""]
    assert shown.issues == (f"N{label}",)


@pytest.mark.parametrize(
    ("text", "veiled"),
    [
        ("call 080-1122-3344 now", "call (hidden) now"),
        ("+91 (80) 1122.3344", "L"),
        ("918011223344", "L"),
        ("3 of 40 DIDs in 10m, for 120 s", "3 of 40 DIDs in 10m, for 120 s"),
        ("since 12:34:56 UTC", "since 12:34:56 UTC"),
        ("", ""),
    ],
)
def test_free_text_is_veiled(text: str, veiled: str) -> None:
    assert HASHED.veil(text, ONE) == veiled.replace("L", HASHED.label(ONE))
    assert PLAIN.veil(text, ONE) == text


def test_a_change_of_state_is_shown() -> None:
    shown = transition_of(Transition("default", "default", ONE, NOW, None, "NO_BOT", ("NO_BOT",)))
    assert shown.model_dump(mode="json") == {
        "account": "default",
        "connection": "default",
        "at": "2027-01-15T08:00:00Z",
        "old": None,
        "new": "NO_BOT",
        "issues": ["NO_BOT"],
    }


def test_a_target_is_shown_with_its_polls_and_what_holds_its_heals() -> None:
    fleet = polled(fleet_of(A, B), A, entry(ONE), entry(TWO, "NO_BOT"), drift=2)
    state = replace(poll_failed(fleet.targets[A], Reason.TIMEOUT, 30.0), healing=Healing("enforce", in_flight=1))
    fleet = fleet.with_target(state)
    held = {A: ((Guard.HOLD_OFF, "1 of 3 polls; call +918011223344"),)}
    one, two = targets_of(fleet, held, {A: NOW + 60}, HASHED)
    assert (one.up, one.failure, one.current, one.dids, one.ready) == (False, "timeout", True, 2, 1)
    assert (one.states, one.issues, one.failures) == ({"READY": 1, "NO_BOT": 1}, {"NO_BOT": 1}, {"timeout": 1})
    assert (one.poll_duration_seconds, one.drift_items, one.interval_seconds, one.polls) == (30.0, 2, 60.0, 2)
    assert one.healing.guards == (GuardHeld(guard="hold_off", reason="1 of 3 polls; call (hidden)"),)
    assert (one.healing.mode, one.healing.in_flight) == ("enforce", 1)
    assert one.next_poll is not None
    assert (two.up, two.failure, two.current, two.last_success, two.next_poll) == (None, None, False, None, None)
    again = polled(fleet, A, entry(ONE))
    assert targets_of(again, {}, {}, PLAIN)[0].failure is None


def looks(fleet: Fleet, *, tried: bool = True) -> tuple[str, str]:
    found = glance(Rows(fleet), targets_of(fleet, {}, {}, PLAIN), tried=tried)
    return found.level, found.sentence


def test_the_fleet_in_one_sentence() -> None:
    none, new = fleet_of(), fleet_of(A, B)
    fine = polled(new, A, entry(ONE))
    both = polled(fine, B, entry(TWO))
    failed = new.with_target(poll_failed(new.targets[A], Reason.AUTH, 1))
    empty = polled(fleet_of(A), A)
    assert looks(none, tried=False) == ("unknown", "The connections are being looked up. Nothing is known yet.")
    assert looks(none)[1] == "The API lists no active VoiceLink connection, so there is nothing to watch."
    assert looks(new) == ("unknown", "The first poll has not ended yet. Nothing is known yet.")
    assert looks(failed) == ("unknown", "Nothing current is known of any number: the polls fail.")
    assert looks(fine) == ("unknown", "Nothing current is known of 1 target of 2. Every other number is ready.")
    assert looks(both) == ("ok", "Every number is ready for calls.")
    assert looks(polled(both, B, entry(TWO, "NO_BOT"))) == ("bad", "1 number is not ready for calls.")
    assert looks(polled(fine, A, entry(ONE, "NO_BOT"), entry(TWO, "NO_BOT"))) == (
        "bad",
        "2 numbers are not ready for calls. Nothing current is known of 1 target of 2.",
    )
    assert looks(empty) == ("unknown", "The API lists no number that is to be watched.")


def test_the_bar_and_the_guards_at_a_glance() -> None:
    fleet = polled(polled(fleet_of(A, B), A, entry(ONE), entry(TWO, "NO_BOT")), B, entry("+918011223349", "NO_BOT"))
    held = dict.fromkeys((A, B), ((Guard.PAUSED, "paused: x"),))
    found = glance(Rows(fleet), targets_of(fleet, held, {}, PLAIN), tried=True)
    assert found.bar == (Share("READY", "ok", 1, 0, 33.333), Share("NO_BOT", "bad", 2, 33.333, 66.667))
    assert [(each.guard, each.reason, each.targets) for each in found.guards] == [("paused", "paused: x", 2)]
    assert (found.missing, found.issues, found.mode) == (2, (("NO_BOT", 2),), "off")


def test_addresses_keep_what_is_asked_for() -> None:
    query = DidQuery(q="a b&", state="NO_BOT", label=["a=b", "c=d"], sort="-since", page=3)
    base = "q=a+b%26&state=NO_BOT&label=a%3Db&label=c%3Dd&sort=-since"
    assert fleet_url(query) == f"/?{base}"
    assert fleet_url(query, page=4) == f"/?{base}&page=4"
    assert fleet_url(DidQuery()) == "/"
    assert fleet_url(DidQuery(), state="READY") == "/?state=READY"
    assert list(chips(DidQuery(label=["a=b", "c=d"], ready="true"))) == [
        ("ready", "true", "/?label=a%3Db&label=c%3Dd"),
        ("label", "a=b", "/?ready=true&label=c%3Dd"),
        ("label", "c=d", "/?ready=true&label=a%3Db"),
    ]
    assert turned(DidQuery(), "state") == ("/?sort=-state", "ascending")
    assert turned(DidQuery(sort="-state"), "state") == ("/", "descending")
    assert turned(DidQuery(sort="since"), "since") == ("/?sort=-since", "ascending")
    assert turned(DidQuery(sort="since"), "number") == ("/?sort=number", "none")
    assert did_url("+91") == "/dids/%2B91"
    assert did_url("did:812", "7d") == "/dids/did%3A812?span=7d"
