"""Fleets worth rendering."""

from __future__ import annotations

import pytest

from exporter.errors import Reason
from exporter.model import COUNTED, Anomaly, Connection, Guard, HealState, Target
from exporter.snapshots import Fleet, Healing, TargetState, annotate, expire, poll_failed
from tests.support.fleet import IDS, NOW, ONE, THREE, TWO, A, B, entry, fleet_of, polled, watch

NASTY = '<b a="1">\\n\\\\"&\'</b>\n\r\t\0\x7f\u2028 {x="y"} 1.0 # EOF\n# TYPE π 日本 \U0001f4de'


@pytest.fixture
def fleet() -> Fleet:
    """Return a fleet with everything in it that is hard to write."""
    other = Target(f"second {NASTY}")
    down, stale = Target("third", IDS[3]), Target("third", IDS[2])
    fleet = fleet_of(A, B, other, down, stale)
    spoilt = dict.fromkeys(
        ("did_status", "friendly_name", "agent_id", "agent_name", "bot_id", "bot_name", "routing_id"), NASTY
    )
    labelled = watch(ONE, 812, team=NASTY, Area="x", _="", zone="é")
    fleet = polled(
        fleet,
        A,
        entry(ONE, NASTY, NASTY, "NEW_CODE", "NO_BOT", did_id=1, client_id=415, expired=True, **spoilt),
        entry(TWO, did_id=813),
        by=labelled,
        drift=0,
        anomalies={Anomaly.INVALID_ENTRY: 3},
        duration=0.1234567891234,
    )
    fleet = polled(fleet, A, entry(TWO, did_id=812), by=labelled, drift=12, at=NOW + 0.1)
    fleet = polled(fleet, B, entry(THREE, "NEW_STATE"), entry(TWO), entry(TWO), duration=1e-7)
    fleet = polled(fleet, other, entry(ONE, "ROUTING_MISSING", "NO_BOT"), by=watch(hash_key=b"k" * 16))
    fleet = fleet.with_target(poll_failed(fleet.targets[B], Reason.TIMEOUT, 30.0))
    fleet = fleet.with_target(poll_failed(TargetState(down), Reason.AUTH, 0.25))
    fleet = polled(fleet, stale, entry())
    fleet = fleet.with_target(expire(fleet.targets[stale], NOW + 301, 300))
    healing = Healing(
        mode="enforce",
        attempts={outcome: count for count, outcome in enumerate(COUNTED)},
        would=7,
        blocked=frozenset({Guard.PAUSED, Guard.STORE}),
        in_flight=1,
        quarantined=2,
        relapses=3,
    )
    marked = annotate(fleet.targets[A], healing, {ONE: HealState.BACKOFF, TWO: HealState.QUARANTINED})
    fleet = fleet.with_target(marked)
    connections = {
        A: Connection(IDS[0], NASTY, "ACTIVE", is_default=True),
        Target(f"zz {NASTY}", IDS[3]): Connection(IDS[3], "", NASTY),
    }
    return Fleet(fleet.targets, connections, fleet.states, fleet.codes)
