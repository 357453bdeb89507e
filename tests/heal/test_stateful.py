"""Three replicas that crash, hang and lose answers heal a fleet at a vendor who does what vendors do.

Every story opens with plots: the road is clear, a DID breaks, and something comes between at the worst moment. Then
anything follows in any order. `HEAL_EXAMPLES` sets how many stories are told; see `tests/support/healing.py` for what
must never happen.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn

import pytest
import structlog
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from exporter.model import HealState
from exporter.store.engine import connect, migrate
from tests.support.api import CREDENTIAL
from tests.support.healing import CONFIGS, EPOCH, HEALABLE, HOUR, INTERVAL, NUMBERS, Fact, Replica, World

EXAMPLES = int(os.environ.get("HEAL_EXAMPLES", "20"))
STEPS = 8  # after the opening
SHARED = Path("/dev/shm")  # noqa: S108 - the kernel's, and what is made in it is private
NAMES = ("a", "b", "c")
ANSWERS = (
    "mends",
    "mends, says not ready",
    "says ready",
    "says not ready",
    "mends, 500",
    "mends, garbage",
    "mends, reset",
    "late, timeout",
    "late, 500",
    "timeout",
    "garbage",
    "500",
    "unreachable",
    "400",
    "422",
    "404",
    "409",
    "401",
    "403",
    "429",
    "302",
    "waits",
)
FINAL = tuple(answer for answer in ANSWERS if answer not in {"unreachable", "waits"})
STOPS = [
    (name, when)
    for name in ("claim", "begin_send", "answered", "not_sent", "resolve", "move", "would_send", "alive", "observed")
    for when in ("before", "after")
] + 4 * [("post", "before"), ("post", "after"), ("begin_send", "after")]  # where it hurts, more often
HANGS = [(name, "hang") for name in ("claim", "begin_send", "begin_send", "answered", "resolve")]
ISSUES = [(), HEALABLE, HEALABLE[:1], HEALABLE[1:], ("NO_VOCOBASE_AGENT",), (*HEALABLE, "NO_VOCOBASE_AGENT")]

ENFORCING = ["plain", "wide", "one at a time", "windows", "opted out", "picky"]
BOUNDARIES = [
    ("claim", "hang"),
    ("claim", "after"),
    ("begin_send", "stall"),
    ("begin_send", "hang"),
    ("begin_send", "after"),
    ("post", "before"),
    ("post", "after"),
    ("post", "waits"),
    ("answered", "stall"),
    ("answered", "hang"),
    ("answered", "before"),
    ("answered", "after"),
]
AGES = 2 * HOUR + 120  # seconds after which everything that ended is forgotten


@dataclass(frozen=True)
class Obstacle:
    """Something that has to hold back the request that is due `polls` polls after a DID broke, or a bit later."""

    kind: str  # or an answer of the vendor
    polls: int
    count: int  # DIDs that break


@dataclass(frozen=True)
class Boundary:
    """One replica stops there on its way to a request; something happens, time passes, and the other polls."""

    where: tuple[str, str]
    answer: str
    meanwhile: str
    seconds: float
    polls: int  # by the other replica, before the first goes on


@dataclass(frozen=True)
class Ages:
    """One replica stops with an answer in its hands, for so long that its row is forgotten, and its id used again."""

    answer: str
    where: tuple[str, str]  # where the other is by then


ANY_ANSWER = st.sampled_from(["mends", "mends, 500", "mends, reset", "401", "says ready", "late, timeout", "422"])
PLOTS = st.one_of(
    st.builds(Obstacle, st.just("paused"), st.integers(1, 2), st.integers(1, 2)),
    st.builds(Obstacle, st.just("401"), st.integers(1, 2), st.integers(1, 2)),
    st.builds(
        Obstacle,
        st.sampled_from(["302", "403", "429", "422", "500", "lost", "unhealthy", "failed polls"]),
        st.integers(1, 2),
        st.integers(1, 2),
    ),
    st.builds(  # what was allowed when it was claimed is not any more
        Boundary,
        st.just(("claim", "hang")),
        ANY_ANSWER,
        st.sampled_from(["paused", "paused", "limited", "reloaded", "reloaded"]),
        st.sampled_from([0.0, 3.0]),
        st.just(0),
    ),
    st.builds(  # the time to send is over
        Boundary,
        st.sampled_from([("begin_send", "hang"), ("begin_send", "stall"), ("claim", "hang")]),
        ANY_ANSWER,
        st.sampled_from(["", "mended", "released"]),
        st.sampled_from([6.0, 30.0, 70.0, 130.0]),
        st.integers(0, 4),
    ),
    st.builds(  # nobody knows what came of it
        Boundary,
        st.sampled_from([("begin_send", "after"), ("post", "before"), ("post", "after"), ("answered", "before")]),
        ANY_ANSWER,
        st.sampled_from(["", "mended", "gone"]),
        st.sampled_from([70.0, 130.0]),
        st.integers(0, 4),
    ),
    st.builds(
        Boundary,
        st.sampled_from(BOUNDARIES),
        ANY_ANSWER,
        st.sampled_from(["", "paused", "limited", "mended", "released", "gone", "reloaded"]),
        st.sampled_from([0.0, 3.0, 6.0, 30.0, 70.0, 130.0, 300.0]),
        st.sampled_from([0, 1, 4]),
    ),
)
AGED = st.builds(
    Ages, st.sampled_from(["401", "422", "mends"]), st.sampled_from([("post", "waits"), ("begin_send", "hang")])
)
THEN = st.sampled_from(["", "polls", "breaks", "breaks"])


class Healing(RuleBasedStateMachine):
    """Every rule is something that happens; whatever order they come in, no promise is broken."""

    def __init__(self) -> None:
        super().__init__()
        structlog.configure(processors=[_silence])
        self._folder = TemporaryDirectory(dir=SHARED if SHARED.is_dir() else None)
        folder = Path(self._folder.name)
        template = folder / "template.db"
        engine = connect(f"sqlite:///{template}")
        migrate(engine)
        engine.dispose()
        self.world = World(folder, template)
        self.aged = False

    @initialize(
        config=st.sampled_from(list(CONFIGS)),
        third=st.booleans(),
        broken=st.integers(0, 3),
        plots=st.lists(PLOTS, min_size=2, max_size=4),
    )
    def begin(self, config: str, third: bool, broken: int, plots: list[Obstacle | Boundary]) -> None:  # noqa: FBT001
        for name in NAMES if third else NAMES[:2]:
            self.world.start(name, config)
        if config in ENFORCING:
            for plot in plots:
                self._play(plot, config)
        else:
            for number in NUMBERS[2 : 2 + broken]:
                self.world.facts[number].issues = HEALABLE
            self.rounds(4, NAMES)

    def live(self, name: str) -> Replica | None:
        """Return a replica that can act; one that has crashed is started again with the same configuration."""
        for replica in list(self.world.replicas):
            if replica.dead:
                self.world.end(replica)
        return next((each for each in self.world.replicas if each.name == name and not each.hung), None)

    def rounds(self, count: int, names: tuple[str, ...]) -> None:
        for _ in range(count):
            self.world.advance(INTERVAL)
            for name in names:
                if replica := self.live(name):
                    self.world.poll(replica)

    def after(self, then: str) -> None:
        """Let what has just happened be followed by nothing, by some polls, or by DIDs that break and some polls."""
        if then == "breaks":
            for number in self.world.random.sample(NUMBERS, 3):
                self.world.facts[number] = Fact(HEALABLE)
        if then:
            self.rounds(4, ("a", "b") if then == "breaks" else ("a",))
            self.world.check()

    # Plots

    @rule(plot=PLOTS, config=st.sampled_from(ENFORCING))
    def a_plot(self, plot: Obstacle | Boundary, config: str) -> None:
        self._play(plot, config)

    @precondition(lambda self: not self.aged)
    @rule(plot=AGED, draw=st.integers(0, 2))
    def a_row_is_forgotten(self, plot: Ages, draw: int) -> None:
        if not draw:
            self.aged = True
            self._age(plot)

    def _play(self, plot: Obstacle | Boundary, config: str) -> None:
        if not self.clear_the_road(config):
            return
        if isinstance(plot, Obstacle):
            self._obstruct(plot)
        else:
            self._stop_at(plot)
        self.world.check()

    def _obstruct(self, plot: Obstacle) -> None:
        world, numbers = self.world, NUMBERS[2 : 2 + plot.count]
        for number in numbers:
            world.facts[number].issues = HEALABLE
        self.rounds(plot.polls, ("a",))
        if plot.kind == "paused":
            self._pause()
        elif plot.kind == "lost":
            world.poll(world.replicas[0], drop=frozenset(NUMBERS[-3:]))
        elif plot.kind == "unhealthy":
            for number in NUMBERS[2:]:
                world.facts[number].issues = HEALABLE
        elif plot.kind == "failed polls":
            world.advance(2 * INTERVAL + 10)
        else:
            world.answers = [plot.kind] * 2
        self.rounds(4, ("a", "b"))

    def _stop_at(self, plot: Boundary) -> None:
        world, number = self.world, NUMBERS[2]
        if not self._reach("a", plot.where, plot.answer):
            return
        if plot.meanwhile == "paused":
            self._pause()
        elif plot.meanwhile == "limited":
            world.key_paused_until = world.now + 60
            world.person.pause_key(CREDENTIAL, 60.0, EPOCH + world.now)
        elif plot.meanwhile == "mended":
            world.mend(number)
        elif plot.meanwhile == "released":
            world.released(number)
        elif plot.meanwhile == "gone":
            world.facts[number].present = False
        elif plot.meanwhile == "reloaded":
            replica = next(each for each in world.replicas if each.name == "a")
            if not replica.dead:
                world.do(replica.reload(world.random.choice(["off", "observing", "opted out", "plain"])))
        world.advance(plot.seconds)
        self.rounds(plot.polls, ("b",))
        self.goes_on()
        if world.waiting:
            self.an_answer_comes(plot.answer)
        self.rounds(2, ("a", "b"))

    def _age(self, plot: Ages) -> None:
        world = self.world
        if not self.clear_the_road("plain"):
            return
        if world.query("SELECT id FROM heal_attempts"):
            world.advance(AGES)
            self.rounds(2, ("a", "b"))
        if not self._reach("a", ("answered", "stall"), plot.answer):
            return
        world.mend(NUMBERS[2])
        self.rounds(6, ("b",))
        world.advance(AGES)
        self.rounds(2, ("b",))
        if self._reach("b", plot.where, "mends"):
            hung, b = (next(each for each in world.replicas if each.name == name) for name in ("a", "b"))
            hung.go_on()
            world.do(_nothing())
            b.go_on()
            world.do(_nothing())
        self.world.check()

    def clear_the_road(self, config: str) -> bool:
        """Let people and time put everything right, so that the next request is held back by nothing."""
        world = self.world
        self._end_faults()
        for number in NUMBERS:
            world.facts[number] = Fact()
        lately = sum(at > world.now - HOUR for at in world.grants.values())
        for name in ("a", "b"):
            replica = self.live(name)
            if replica is None or replica.mode != "enforce" or lately >= replica.config.heal.max_per_hour:
                for old in [each for each in world.replicas if each.name == name]:
                    world.end(old)
                replica = world.start(name, config if not lately else "wide")
            replica.stop_at = None
        if world.paused or world.latched or world.refused:
            self._resume()
        for _ in range(24):
            replicas = [each for name in ("a", "b") if (each := self.live(name))]
            if all(each.polls and not each.shown.healing.blocked for each in replicas) and not world.open_rows():
                break
            self.rounds(1, ("a", "b"))
        else:
            return False
        for (number,) in world.query("SELECT number FROM heal_dids WHERE state <> 'idle'"):
            world.released(number)
        return not world.wrong

    def _end_faults(self) -> None:
        """Let the store work, what hangs go on, and whoever waits for the vendor be answered."""
        self.world.store_down, self.world.answers = False, []
        for replica, _, answered in self.world.waiting:
            if not answered.done() and not replica.dead:
                answered.set_result("mends")
        self.world.waiting.clear()
        self.goes_on()

    def _reach(self, name: str, where: tuple[str, str], answer: str) -> bool:
        """Break a DID and let one replica poll until it is there; return whether it is."""
        world = self.world
        replica = self.live(name)
        if replica is None:
            return False
        world.facts[NUMBERS[2]].issues = HEALABLE
        world.answers = ["waits" if where == ("post", "waits") else answer]
        replica.stop_at = where
        for _ in range(4):
            world.advance(INTERVAL)
            world.poll(replica)
            if replica.hung or replica.dead or world.waiting:
                return True
        return False

    # Time and polls

    @rule(count=st.integers(1, 6), who=st.sampled_from([("a",), ("b",), ("c",), NAMES]))
    def time_and_polls(self, count: int, who: tuple[str, ...]) -> None:
        self.rounds(count, who)

    @rule(numbers=st.sets(st.sampled_from(NUMBERS), min_size=1, max_size=3), count=st.integers(3, 6))
    def dids_break_and_polls_go_on(self, numbers: set[str], count: int) -> None:
        for number in numbers:
            self.world.facts[number].issues = HEALABLE
        self.rounds(count, ("a", "b"))

    @rule(seconds=st.sampled_from([1.0, 5.0, 30.0, 90.0, 300.0]))
    def time(self, seconds: float) -> None:
        self.world.advance(seconds)

    @rule(name=st.sampled_from(NAMES))
    def a_poll_fails(self, name: str) -> None:
        if replica := self.live(name):
            self.world.fail(replica)

    @rule(name=st.sampled_from(NAMES), dropped=st.sets(st.sampled_from(NUMBERS), min_size=1, max_size=6), then=THEN)
    def a_poll_is_partial(self, name: str, dropped: set[str], then: str) -> None:
        if replica := self.live(name):
            self.world.advance(INTERVAL)
            if not replica.dead and not replica.hung:
                self.world.poll(replica, drop=frozenset(dropped))
        self.after(then)

    @rule(name=st.sampled_from(NAMES), seconds=st.sampled_from([1.0, 30.0, 200.0]))
    def a_poll_is_slow(self, name: str, seconds: float) -> None:
        if replica := self.live(name):
            self.world.ask(replica)
            self.world.advance(seconds)
            if not replica.dead and not replica.hung:
                self.world.hear(replica)

    @rule(
        name=st.sampled_from(NAMES),
        seconds=st.sampled_from([-20.0, -5.0, 5.0, 20.0]),
        draw=st.integers(0, 3),
        then=THEN,
    )
    def a_clock_is_set(self, name: str, seconds: float, draw: int, then: str) -> None:
        replica = self.live(name)
        if replica and not draw and abs(replica.clock.off + seconds) <= 20.0:
            replica.clock.off += seconds
            self.world.skewed()
        self.after(then)

    # Replicas

    @rule(name=st.sampled_from(("a", "b")), where=st.sampled_from(STOPS), then=st.just("breaks"))
    def will_crash(self, name: str, where: tuple[str, str], then: str) -> None:
        if replica := self.live(name):
            replica.stop_at = where
        self.after(then)

    @rule(name=st.sampled_from(("a", "b")), where=st.sampled_from(HANGS), then=st.just("breaks"))
    def will_hang(self, name: str, where: tuple[str, str], then: str) -> None:
        if replica := self.live(name):
            replica.stop_at = where
        self.after(then)

    @rule()
    def goes_on(self) -> None:
        for replica in self.world.replicas:
            if replica.hung:
                replica.go_on()
        self.world.do(_nothing())

    @rule(name=st.sampled_from(NAMES), config=st.sampled_from(list(CONFIGS)), then=THEN)
    def restarts(self, name: str, config: str, then: str) -> None:
        for replica in [each for each in self.world.replicas if each.name == name]:
            self.world.end(replica)
        if not self.world.store_down:
            self.world.start(name, config)
        self.after(then)

    @rule(name=st.sampled_from(NAMES), config=st.sampled_from(list(CONFIGS)), then=THEN)
    def reloads(self, name: str, config: str, then: str) -> None:
        for replica in self.world.replicas:
            if replica.name == name and not replica.dead:
                self.world.do(replica.reload(config))
        self.after(then)

    @rule(then=THEN)
    def the_store_fails(self, then: str) -> None:
        self.world.store_down = not self.world.store_down
        self.after(then)

    # The vendor

    @rule(answers=st.lists(st.sampled_from(ANSWERS), min_size=1, max_size=4), then=THEN)
    def will_answer(self, answers: list[str], then: str) -> None:
        self.world.answers = answers
        self.after(then)

    @precondition(lambda self: self.world.waiting)
    @rule(answer=st.sampled_from(FINAL))
    def an_answer_comes(self, answer: str) -> None:
        replica, _, answered = self.world.waiting[0]
        if not replica.hung and not replica.dead:
            self.world.waiting.pop(0)
            if not answered.done():
                answered.set_result(answer)
            self.world.do(_nothing())
        elif replica.dead:
            self.world.waiting.pop(0)

    @precondition(lambda self: self.world.late)
    @rule()
    def a_request_is_carried_out_late(self) -> None:
        self.world.mend(self.world.late.pop(0))

    @rule(numbers=st.sets(st.sampled_from(NUMBERS), min_size=1, max_size=4), issues=st.sampled_from(ISSUES))
    def dids_change(self, numbers: set[str], issues: tuple[str, ...]) -> None:
        for number in numbers:
            self.world.facts[number].issues = issues

    @rule(number=st.sampled_from(NUMBERS))
    def a_did_goes_by_another_name(self, number: str) -> None:
        self.world.facts[number].unnamed ^= True

    @rule(number=st.sampled_from(NUMBERS))
    def a_did_flaps(self, number: str) -> None:
        self.world.facts[number].flapping ^= True

    @rule(number=st.sampled_from(NUMBERS), what=st.sampled_from(["expired", "unmapped", "gone"]), then=THEN)
    def a_did_is_not_healable(self, number: str, what: str, then: str) -> None:
        fact = self.world.facts[number]
        if what == "expired":
            fact.expired ^= True
        elif what == "unmapped":
            fact.client_id = None if fact.client_id else 415
        else:
            fact.present ^= True
        self.after(then)

    # People

    @rule(then=THEN)
    def pause(self, then: str) -> None:
        self._pause()
        self.after(then)

    def _pause(self) -> None:
        self.world.person.pause("maintenance", EPOCH + self.world.now)
        self.world.paused = True

    @rule(then=THEN)
    def resume(self, then: str) -> None:
        self._resume()
        self.after(then)

    def _resume(self) -> None:
        self.world.person.resume(EPOCH + self.world.now)
        self.world.paused, self.world.latched, self.world.resumed_at = False, False, self.world.now
        self.world.refused.clear()

    @rule(number=st.sampled_from(NUMBERS), then=THEN)
    def release(self, number: str, then: str) -> None:
        self.world.released(number)
        self.after(then)

    @invariant()
    def no_promise_is_broken(self) -> None:
        self.world.check()

    def teardown(self) -> None:
        try:
            self._nothing_waits_for_ever()
        finally:
            self.world.close()
            self._folder.cleanup()

    def _nothing_waits_for_ever(self) -> None:
        """Without faults, everything healable is healed or quarantined, and every row ends."""
        world = self.world
        if world.wrong:
            return
        self._end_faults()
        self._resume()
        for replica in list(world.replicas):
            world.end(replica)
        for fact in world.facts.values():
            fact.present = True
        replica = world.start("a", "plain")
        for _ in range(400):
            if self._settled():
                break
            world.advance(INTERVAL)
            world.poll(replica)
        world.check()
        states = world.query("SELECT number, state, until FROM heal_dids")
        assert self._settled(), f"{world.open_rows()} {states} {world.facts} {replica.shown.healing} {replica.health}"

    def _settled(self) -> bool:
        world = self.world
        quarantined = {
            number
            for number, state in world.query("SELECT number, state FROM heal_dids")
            if state == HealState.QUARANTINED
        }
        waiting = [
            number
            for number, fact in world.facts.items()
            if (fact.healable and not fact.flapping) and number not in quarantined
        ]
        replica = world.replicas[-1]
        health = replica.health
        held = health is not None and health.held_since_over  # too many that nothing can mend
        return not world.open_rows() and (not waiting or held)


def _silence(_: object, __: str, ___: object) -> NoReturn:
    raise structlog.DropEvent


async def _nothing() -> None:
    """Let what can move."""


pytestmark = pytest.mark.timeout(360 + 10 * EXAMPLES)  # with the time that a failure takes to be made short

TestHealing = Healing.TestCase
TestHealing.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
