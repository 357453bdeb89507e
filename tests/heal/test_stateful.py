"""Three replicas that crash, hang and lose answers heal a fleet at a vendor who does what vendors do.

`HEAL_EXAMPLES` sets how many stories are told; see `tests/support/healing.py` for what must never happen.
"""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn

import structlog
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from exporter.model import HealState
from exporter.store.engine import connect, migrate
from tests.support.healing import CONFIGS, EPOCH, HEALABLE, NUMBERS, Fact, Replica, World

EXAMPLES = int(os.environ.get("HEAL_EXAMPLES", "15"))
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
    for name in ("claim", "begin_send", "answered", "resolve", "move", "would_send", "alive")
    for when in ("before", "after")
] + 4 * [("post", "before"), ("post", "after"), ("begin_send", "after")]  # where it hurts, more often
HANGS = [(name, "hang") for name in ("claim", "begin_send", "begin_send", "answered", "resolve")]
ISSUES = [(), HEALABLE, HEALABLE[:1], HEALABLE[1:], ("NO_VOCOBASE_AGENT",), (*HEALABLE, "NO_VOCOBASE_AGENT")]

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

    @initialize(
        config=st.sampled_from(list(CONFIGS)),
        broken=st.integers(0, 4),
    )
    def begin(self, config: str, broken: int) -> None:
        for name in NAMES:
            self.world.start(name, config)
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
            self.world.advance(60.0)
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
            self.world.advance(60.0)
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
        self.world.person.pause("maintenance")
        self.world.paused = True
        self.after(then)

    @rule(then=THEN)
    def resume(self, then: str) -> None:
        self._resume()
        self.after(then)

    def _resume(self) -> None:
        self.world.person.resume(EPOCH + self.world.now)
        self.world.paused, self.world.latched, self.world.resumed_at = False, None, self.world.now

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
        world.store_down, world.answers = False, []
        for replica, _, answered in world.waiting:
            if not answered.done() and not replica.dead:
                answered.set_result("mends")
        self.goes_on()
        self._resume()
        for replica in list(world.replicas):
            world.end(replica)
        for fact in world.facts.values():
            fact.present = True
        replica = world.start("a", "plain")
        for _ in range(400):
            if self._settled():
                break
            world.advance(60.0)
            world.poll(replica)
        world.check()
        states = world.query("SELECT number, state, until FROM heal_dids")
        assert self._settled(), f"{world.open_rows()} {states} {world.facts} {replica.shown.healing} {replica.view}"

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
        view = replica.view
        held = view is not None and view.held_since_over  # too many that nothing can mend
        return not world.open_rows() and (not waiting or held)


def _silence(_: object, __: str, ___: object) -> NoReturn:
    raise structlog.DropEvent


async def _nothing() -> None:
    """Let what can move."""


TestHealing = Healing.TestCase
TestHealing.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
