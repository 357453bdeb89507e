"""The world: true time, everything that is to happen in it, and the processes that live in it, one step at a time."""

from __future__ import annotations

import heapq
import math
from itertools import count
from typing import TYPE_CHECKING

from tests.simulation.clocks import EPOCH, Machine, on_grid

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulation.process import Process


class World:
    """True time in seconds since its beginning, and what happens when. One thread, one order, whatever the machine."""

    def __init__(self, epoch: float = EPOCH) -> None:
        self.now = 0.0
        self.epoch = epoch
        self.processes: list[Process] = []
        self._plans: list[tuple[float, int, Callable[[], None]]] = []
        self._tickets = count()

    def ticket(self) -> int:
        """Return a number that nothing else has."""
        return next(self._tickets)

    def machine(self) -> Machine:
        """Return a new machine."""
        return Machine(lambda: self.now, self.epoch)

    def at(self, moment: float, what: Callable[[], None]) -> None:
        """Let something happen at a true time."""
        heapq.heappush(self._plans, (on_grid(max(moment, self.now)), next(self._tickets), what))

    def later(self, seconds: float, what: Callable[[], None]) -> None:
        """Let something happen after so many seconds."""
        self.at(self.now + seconds, what)

    def suspend(self, machine: Machine, stands: frozenset[str], seconds: float) -> None:
        """Suspend a machine for so many seconds of true time."""
        if machine.suspended_at is None:
            machine.suspend(stands)
            self.later(seconds, lambda: self.wake(machine))

    def wake(self, machine: Machine) -> None:
        """Let a machine go on, with what reached it meanwhile."""
        if machine.suspended_at is not None:
            machine.go_on()
            for process in self.processes:
                if process.machine is machine and process.alive:
                    process.go_on()

    def end(self) -> None:
        """Forget all that lives here and all that was to happen."""
        self.processes.clear()
        self._plans.clear()

    def run(self, until: float, stop: Callable[[], bool] = lambda: False) -> None:
        """Let time pass up to a moment, or until `stop` says so."""
        plans = self._plans
        while not stop():
            when, which = plans[0][0] if plans else math.inf, None
            for process in self.processes:
                if not process.runs:
                    continue
                if process.loop.busy:
                    when, which = self.now, process
                    break
                timer = process.loop.next_timer()
                if timer is not None:
                    moment = timer - process.machine.steady_shift
                    if moment < when:
                        when, which = moment, process
            when = on_grid(when) if when < math.inf else when
            if when > until:
                self.now = max(self.now, until)
                return
            self.now = max(self.now, when)
            if which is None:
                heapq.heappop(plans)[2]()
            else:
                which.loop.release_due()
                which.run()
