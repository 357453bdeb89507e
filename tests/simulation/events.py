"""What each kind of weather does to the vendor, the network, the store, the replicas and their clocks."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from tests.simulation import wiring
from tests.simulation.database import CommitLost
from tests.simulation.network import Net
from tests.simulation.process import NOWHERE, KilledError, Point, Process, Trap
from tests.simulation.records import Excused, Started, StoreBack, StoreLost
from tests.simulation.scenario import number_of
from tests.simulation.setup import Window
from tests.simulation.vendor import Condition, Credential
from tests.simulation.weather import BROKEN, HOUR, MINUTE

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulation.fleet import Did
    from tests.simulation.run import Replica, Run
    from tests.simulation.setup import AccountRules, HealRules, Setup


class Events:
    """The events of a run: `on_` and its name is what carries one out. Times in seconds."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def _condition(self, condition: Condition, seconds: float) -> None:
        self._run.vendor.conditions.append(condition)
        self._run.excuse(seconds, "vendor")

        def undo() -> None:
            if condition in self._run.vendor.conditions:
                self._run.vendor.conditions.remove(condition)

        self._run.until(seconds, undo)

    def _chosen(self, slot: int) -> list[Replica]:
        return [replica for replica in self._run.replicas if slot in {-1, replica.slot}]

    def _dids(self, numbers: list[int]) -> list[Did]:
        return [self._run.vendor.fleet.dids[number_of(index)] for index in numbers]

    # Numbers

    def on_some_break(self, numbers: list[int], issues: tuple[str, ...]) -> None:
        """Let numbers break."""
        for did in self._dids(numbers):
            self._run.vendor.fleet.change(did, issues)

    def on_many_break(self, numbers: list[int], issues: tuple[str, ...], seconds: float) -> None:
        """Let many break at once, until their cause is over."""
        dids = self._dids(numbers)
        for did in dids:
            self._run.vendor.fleet.change(did, issues)

        def over() -> None:
            for did in dids:
                self._run.vendor.fleet.change(did, ())

        self._run.until(seconds, over)

    def on_some_flap(self, numbers: list[int], period: float, seconds: float) -> None:
        """Let numbers break and come back by themselves."""
        end = self._run.world.now + seconds

        def flap() -> None:
            if self._run.world.now < end and not self._run.calm:
                for did in self._dids(numbers):
                    self._run.vendor.fleet.change(did, () if did.issues else BROKEN[0])
                self._run.world.later(period, flap)

        flap()

    def on_some_relapse(self, numbers: list[int], after: float) -> None:
        """Let numbers break, and again after each heal."""
        for did in self._dids(numbers):
            did.breaks_after = after
            self._run.vendor.fleet.change(did, BROKEN[2])

    def on_some_change(self, numbers: list[int], change: str, seconds: float) -> None:
        """Let numbers be what can't be healed, for a while."""
        fleet = self._run.vendor.fleet
        for did in self._dids(numbers):
            before = did.connection
            match change:
                case "unlisted":
                    did.listed = False
                case "expired":
                    did.expired = True
                case "unmapped":
                    did.client = None
                case "stubborn":
                    did.stubborn = True
                    fleet.change(did, BROKEN[0])
                case "moved":
                    own = next(own for own in self._run.scenario.connections if before in own)
                    fleet.move(did, own[(own.index(before) + 1) % len(own)])
            fleet.touched(did)
            if change != "stubborn":
                self._run.until(seconds, partial(self._put_back, did, before))

    def _put_back(self, did: Did, connection: str) -> None:
        did.listed, did.expired, did.client = True, False, did.client or 415
        if did.connection != connection:
            self._run.vendor.fleet.move(did, connection)
        self._run.vendor.fleet.touched(did)

    def on_connection_changes(self, connection: int, how: str, seconds: float) -> None:
        """Let a connection be inactive, gone, or its polls fail."""
        name = self._run.connections[connection]
        if how == "fails":
            self._condition(Condition("status", "sync", connection=name, status=503), seconds)
            return
        self._run.excuse(seconds, "connection", tail=900)
        key = next(
            key for key, own in zip(self._run.scenario.keys, self._run.scenario.connections, strict=True) if name in own
        )
        credential = self._run.vendor.credentials[key]
        credential.connections[name] = how

        def back() -> None:
            credential.connections[name] = "ACTIVE"
            self._run.active_since[name] = self._run.world.now
            self._run.excuse(0, "connection", tail=900)

        self._run.until(seconds, back, outlasts=len(self._run.connections) > 1)

    # The vendor's answers and the network

    def on_answers_go_wrong(
        self,
        *,
        where: str,
        slot: int,
        works: bool,
        effect: str,
        chance: float,
        seconds: float,
        status: int = 0,
        retry_after: str = "",
        left: int | None = None,
    ) -> None:
        """Let answers be errors, or none."""
        self._run.refused |= status in {401, 403} or 300 <= status < 400
        extra = float(retry_after) if retry_after.isdigit() else MINUTE
        condition = Condition(
            effect, where, slot, chance=chance, left=left, status=status, retry_after=retry_after, works=works
        )
        self._condition(condition, seconds)
        self._run.excuse(seconds + extra, "vendor")

    def on_calls_are_refused(self, *, status: int, differs: bool, seed: int, slot: int, seconds: float) -> None:
        """Let every call-ready be refused, to replicas that may be configured differently."""
        self._run.refused = True
        self._condition(Condition("status", "call", status=status), seconds)
        if differs:
            self.on_reload(slot, "limits", seed, seconds)

    def on_work_is_accepted(self, status: int, left: int, seconds: float) -> None:
        """Let call-ready be answered by another status of success."""
        self._condition(Condition("status", "call", left=left, status=status, works=True), seconds)

    def on_work_is_late(self, late: float, left: int, seconds: float) -> None:
        """Let the gateway give up, and the work be done long after."""
        self._condition(Condition("late work", "call", left=left, seconds=late), seconds)

    def on_answers_are_slow(self, where: str, slot: int, late: float, chance: float, seconds: float) -> None:
        """Let answers come late."""
        self._condition(Condition("slow", where, slot, chance=chance, seconds=late), seconds + late)

    def on_handshakes_go_wrong(self, effect: str, late: float, slot: int, chance: float, seconds: float) -> None:
        """Let connections come late, or not at all."""
        self._condition(Condition(effect, "", slot, chance=chance, seconds=late), seconds)

    def on_used_connections_drop(self, effect: str, late: float, slot: int, seconds: float) -> None:
        """Let the front close, break or forget connections that were used once."""
        self._condition(Condition(effect, "", slot, seconds=late), seconds)

    def on_answers_are_partial(self, share: float, left: int, chance: float) -> None:
        """Let answers to sync leave out numbers."""
        self._condition(Condition("partial", "sync", share=share, left=left, chance=chance), 2 * HOUR)

    def on_answers_lie(self, seconds: float, chance: float) -> None:
        """Let call-ready say the opposite of what it did."""
        self._condition(Condition("lie", "call", chance=chance), seconds)

    def on_readiness_lags(self, polls: int, seconds: float) -> None:
        """Let changes show late."""
        self._run.vendor.fleet.lag = polls

        def over() -> None:
            self._run.vendor.fleet.lag = 0

        self._run.until(seconds, over)

    def on_key_is_refused(self, account: int, seconds: float) -> None:
        """Let a key be invalid."""
        credential = self._run.vendor.credentials[self._run.scenario.keys[account]]
        credential.valid, self._run.refused = False, True
        self._run.excuse(seconds, "vendor")

        def over() -> None:
            credential.valid = True

        self._run.until(seconds, over)

    # Replicas

    def _trap(self, slot: int, act: Callable[[Replica, Process], None], **when: Any) -> None:  # noqa: ANN401
        replica = self._run.replicas[slot]
        if process := replica.process:
            point = Point(when["point"])
            before = when["before"] and point in {Point.COMMIT, Point.HEAL_COMMIT}
            before |= point is Point.POST
            trap = Trap(point, lambda _: act(replica, process), when["skip"], when["steps"], before=before)
            process.traps.append(trap)

    def on_kill(self, slot: int, back: float, **when: Any) -> None:  # noqa: ANN401
        """Kill a daemon where it hurts."""

        def act(replica: Replica, process: Process) -> None:
            self._run.kill(replica, process, back)
            if not when["steps"] and when["point"] != "step":
                raise KilledError

        self._trap(slot, act, **when)

    def on_crash_loop(self, slot: int, every: float, times: int) -> None:
        """Let a daemon die again and again."""
        replica = self._run.replicas[slot]
        self._run.excuse(every * times, "crash loop", slot)

        def again(left: int) -> None:
            if replica.process:
                self._run.kill(replica, replica.process, 0.1)
            if left and not self._run.calm:
                self._run.world.later(every, lambda: again(left - 1))

        again(times)

    def on_restart(self, slot: int, back: float, **when: Any) -> None:  # noqa: ANN401
        """Stop a daemon as an operator does, and start it again."""

        def act(replica: Replica, process: Process) -> None:
            if replica.daemon:
                replica.daemon.stop()
            self._run.world.later(10.0, lambda: self._run.kill(replica, process, back))
            self._run.world.later(10.0 + back, lambda: self._run.start(replica))

        self._trap(slot, act, **when)

    def on_suspend(self, slot: int, seconds: float, stands: str, **when: Any) -> None:  # noqa: ANN401
        """Suspend a machine, with the clocks that stand still meanwhile."""

        def act(replica: Replica, _: Process) -> None:
            self._run.result.suspends += 1
            self._run.excuse(seconds, "suspended", slot)
            self._run.world.suspend(replica.machine, frozenset(stands.split()), seconds)

        self._trap(slot, act, **when)

    def on_clock_is_set(self, slot: int, by: float, seconds: float) -> None:
        """Set wall clocks, and back again."""
        chosen = self._chosen(slot)
        for replica in chosen:
            replica.machine.wall_shift += by
        self._run.tell(Excused(self._run.world.now, self._run.world.now + seconds + HOUR, -2, "clock"))

        def over() -> None:
            for replica in chosen:
                replica.machine.wall_shift = 0.0

        self._run.until(seconds, over)

    def on_reload(self, slot: int, change: str, seed: int, seconds: float) -> None:
        """Give daemons another configuration for a while."""
        rng = random.Random(seed)  # noqa: S311 - the same each time
        for replica in self._chosen(slot):
            self._run.reload(replica, self._changed(replica.setup, change, rng))
            self._run.until(seconds, partial(self._run.reload, replica, self._run.scenario.setup))

    def _changed(self, setup: Setup, change: str, rng: random.Random) -> Setup:
        """Return another configuration: with other rules of healing, another account, or another pace."""
        if change == "interval":
            return replace(setup, interval=rng.choice([30.0, 90.0]))
        if change == "budget":
            return replace(setup, requests_per_minute=max(10, setup.requests_per_minute // 2))
        index = rng.randrange(len(setup.accounts))
        accounts = list(setup.accounts)
        accounts[index] = self._other_account(accounts[index], change)
        return replace(setup, heal=_other_rules(setup.heal, change, rng), accounts=tuple(accounts))

    def _other_account(self, account: AccountRules, change: str) -> AccountRules:
        match change:
            case "rename":
                other = account.name.removesuffix("2") if account.name.endswith("2") else f"{account.name}2"
                return replace(account, name=other)
            case "key":
                return replace(account, key=self._other_key(account.key))
            case "connection":
                own = list(self._run.vendor.credentials[account.key].connections)
                return replace(account, connections=tuple(own[: max(1, len(own) - 1)]))
        return account

    def _other_key(self, key: str) -> str:
        other = key + "x" if not key.endswith("x") else key.removesuffix("x")
        known = self._run.vendor.credentials[key]
        self._run.vendor.credentials.setdefault(other, Credential(other, known.connections, known.limit))
        return other

    # The store

    def on_store_is_slow(self, before: float, after: float, seconds: float) -> None:
        """Let calls to the store take their time."""
        self._run.faults.before, self._run.faults.after = before, after
        self._run.tell(Excused(self._run.world.now, self._run.world.now + seconds + 60, -2, "store"))

        def over() -> None:
            self._run.faults.before = self._run.faults.after = 0.0

        self._run.until(seconds, over)

    def on_store_is_down(self, seconds: float) -> None:
        """Let the store refuse everything."""
        self._run.faults.down = True
        self._run.tell(Excused(self._run.world.now, self._run.world.now + seconds + 60, -2, "store"))

        def over() -> None:
            self._run.faults.down = False

        self._run.until(seconds, over)

    def on_store_is_lost(self, how: str, seconds: float) -> None:
        """Wipe the store, or move it away; after a while a person sees to it."""
        if any("lost" in str(undo) for undo in self._run.undo.values()):
            return
        if how == "moved":
            self._run.tell(StoreLost(self._run.world.now, away=True))
            self._run.place.hide()
            self._run.watch.away()
            self._run.store_is_away = True

            def show_lost() -> None:
                self._run.place.show()
                self._run.watch.back()
                self._run.store_is_away = False
                self._run.tell(StoreBack(self._run.world.now))

            self._run.until(seconds, show_lost)
            return
        self._run.tell(StoreLost(self._run.world.now))
        if how == "replaced":
            make = partial(wiring.make_store, self._run.scenario.setup)
            self._run.as_staff(lambda: self._run.place.replace(make), elsewhere=True)
        else:
            (self._run.place.delete if how == "deleted" else self._run.place.empty)()
        self._run.watch.forget()

        def see_to_lost() -> None:
            if wiring.NEW_STORE and self._run.world.ticket() % 2:
                self._run.insist("resume --new-store", partial(wiring.resume, new_store=True))
            else:
                for replica in self._run.replicas:
                    if replica.process:
                        self._run.kill(replica, replica.process, 1.0)

        self._run.until(seconds, see_to_lost)

    def on_store_fails_at_a_heal(self, slot: int, seconds: float, **when: Any) -> None:  # noqa: ANN401
        """Let the store go down around a heal."""
        self._trap(slot, lambda _, __: self.on_store_is_down(seconds), **when)

    def on_commit_is_lost(self, slot: int, **when: Any) -> None:  # noqa: ANN401
        """Let a commit be reported as lost, whether it was made or not."""
        lose = CommitLost()
        if when["point"] in {"commit", "heal commit"}:
            self._trap(slot, lambda _, process: lose(process), **when)

    # People

    def on_pause(self, seconds: float) -> None:
        """Pause healing for a while."""
        if self._run.command("pause", wiring.pause):
            self._run.until(seconds, lambda: self._run.insist("resume", wiring.resume))

    def on_release(self, number: int, *, open_one: bool) -> None:
        """Release a number, whatever it is in, or one that is under way."""
        name = number_of(number)
        if open_one:
            name = next((row.data["number"] for row in self._run.judge.rows.values() if row.open), name)
        self._run.command("release", partial(wiring.release, number=name), name)

    def on_heal_run(self, numbers: list[int], broken: bool, force: bool) -> None:  # noqa: FBT001
        """Heal by hand, beside the daemons."""
        dids = self._dids(numbers)
        if broken:
            wrong = [did for did in self._run.vendor.fleet.dids.values() if did.shown]
            dids = wrong[: len(numbers)] or dids
        names = tuple(did.number for did in dids)
        process = self._run.process(NOWHERE, self._run.staff)
        process.net = Net(self._run.world, process, self._run.vendor)
        setup = self._run.scenario.setup
        self._run.tell(Started(self._run.world.now, process.number, NOWHERE, setup, manual=names, force=force))
        work = wiring.heal_run(setup, self._run.place.url, names, force=force)
        process.spawn(work, "main").add_done_callback(lambda task: self._command_over(process, task))

    def _command_over(self, process: Process, task: Any) -> None:  # noqa: ANN401 - a task
        if not task.cancelled() and (error := task.exception()):
            self._run.result.faults[f"heal run: {type(error).__name__}"] += 1
        self._run.gone(process, killed=False)


def _other_rules(heal: HealRules, change: str, rng: random.Random) -> HealRules:
    match change:
        case "limits":
            return replace(
                heal,
                max_per_hour=rng.choice([1, 2, 6, 12]),
                max_in_flight=rng.choice([1, 2, 3]),
                max_unhealthy=rng.choice([0.1, 0.4]),
                verify_within=rng.choice([240.0, 480.0]),
            )
        case "issues":
            return replace(
                heal, issues=rng.choice([("NO_BOT",), ("ROUTING_MISSING",), ("NO_VOCOBASE_AGENT", "NO_BOT")])
            )
        case "mode off" | "mode observe":
            return replace(heal, mode=change.removeprefix("mode "))
        case "window":
            return replace(heal, windows=(Window(rng.randrange(24), rng.choice([0, 30]), 5400.0, "UTC"),))
    return heal
