"""A process on a machine: its event loop, what it does in threads, and how it is killed or loses its store."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Protocol

from tests.simulation.clocks import ACTIVE
from tests.simulation.loop import VirtualLoop

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine

    from tests.simulation.clocks import Machine


class KilledError(BaseException):
    """The process was killed inside of a call: nothing of it runs any more."""


class Point(StrEnum):
    """Where in a process something can be made to happen."""

    STEP = "step"  # after a callback of its event loop
    COMMIT = "commit"  # around any commit
    HEAL_COMMIT = "heal commit"  # around a commit that writes a row of the ledger
    POST = "post"  # when a call-ready leaves


@dataclass
class Trap:
    """What happens to a process when it passes a point.

    `skip` passages go by before, then `steps` callbacks run before it happens. `before`: ahead of the commit, else
    after it. `act` gets the process and may raise an error for the caller.
    """

    point: Point
    act: Callable[[Process], None]
    skip: int = 0
    steps: int = 0
    before: bool = False


class StoreFaults(Protocol):
    """How the store is right now."""

    down: bool

    def delays(self) -> tuple[float, float]:
        """Return the seconds that a call takes before it is carried out, and after that until the caller knows."""


class Process:
    """Process of one machine. `run` lets its event loop do what is ready."""

    def __init__(
        self, number: int, slot: int, machine: Machine, store: StoreFaults, thread_lag: Callable[[], float] | None
    ) -> None:
        """`slot` says which replica it is; `thread_lag` draws how many seconds a thread's answer takes to be seen."""
        self.number = number
        self.slot = slot
        self.machine = machine
        self.store = store
        self.alive = True
        self.net: Any = None  # its way to the vendor
        self.traps: list[Trap] = []
        self.closers: list[Callable[[], None]] = []  # called once when it dies
        self.writes = False  # whether the transaction under way writes rows of the ledger
        self.wrote: Callable[[], None] = lambda: None  # called after it is committed
        self._fuses: list[tuple[int, Callable[[Process], None]]] = []
        self._inbox: list[Callable[[], None]] = []
        self._thread_lag = thread_lag
        self._free_at: dict[int, float] = {}  # by thread, when it has done what it was given
        self.loop = VirtualLoop(machine.steady, self._execute, self._between)

    # What the world does

    @property
    def runs(self) -> bool:
        """Whether its code runs now."""
        return self.alive and self.machine.suspended_at is None

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Start a task in it."""
        return self.loop.create_task(work, name=name)

    def run(self) -> None:
        """Do what is ready."""
        ACTIVE.process = self
        try:
            self.loop.turn()
        finally:
            ACTIVE.process = None

    def deliver(self, what: Callable[[], None]) -> None:
        """Let something reach it from outside; while its machine is suspended, that waits."""
        if self.alive:
            if self.machine.suspended_at is None:
                what()
            else:
                self._inbox.append(what)

    def go_on(self) -> None:
        """Take in what came while its machine was suspended."""
        waiting, self._inbox = self._inbox, []
        for what in waiting:
            what()

    def kill(self) -> None:
        """End it as SIGKILL does."""
        if self.alive:
            self.alive = False
            for close in self.closers:
                close()

    # What happens inside

    def passes(self, point: Point, *, before: bool = False) -> None:
        """Note that it passes a point. Raises what a trap raises."""
        for trap in [each for each in self.traps if each.point is point and each.before == before]:
            if trap.skip:
                trap.skip -= 1
                continue
            self.traps.remove(trap)
            if trap.steps:
                self._fuses.append((trap.steps, trap.act))
            else:
                trap.act(self)

    def commit(self, carry_out: Callable[[], None]) -> None:
        """Commit a transaction, with what may happen around it."""
        points = (Point.COMMIT, Point.HEAL_COMMIT) if self.writes else (Point.COMMIT,)
        if not self.alive:
            raise KilledError
        if self.traps:
            for point in points:
                self.passes(point, before=True)
        carry_out()
        if self.writes:
            self.wrote()
        if self.traps:
            for point in points:
                self.passes(point)

    def _between(self) -> bool:
        if self._fuses or self.traps:
            burning, self._fuses = self._fuses, []
            for steps, act in burning:
                if steps > 1:
                    self._fuses.append((steps - 1, act))
                else:
                    act(self)
            self.passes(Point.STEP)
        return self.runs

    def _execute(self, executor: object, func: Callable[..., Any], *args: object) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self.loop.create_future()
        if not self.alive:
            return future
        if not getattr(executor, "is_store", False):
            self._call(future, 0.0, func, args)
            return future
        before, after = self.store.delays()
        if self._thread_lag:
            before, after = before + self._thread_lag(), after + self._thread_lag()
        now = self.loop.time()
        begin = max(now, self._free_at.get(id(executor), 0.0)) + before
        if begin <= now:
            self._call(future, after, func, args)
        else:
            self._free_at[id(executor)] = begin + after
            self.loop.call_at(begin, self._call, future, after, func, args)
        return future

    def _call(
        self, future: asyncio.Future[Any], after: float, func: Callable[..., Any], args: tuple[object, ...]
    ) -> None:
        if not self.alive:
            return
        try:
            settle = _settled(future, func(*args), None)
        except KilledError:
            return
        except Exception as error:  # noqa: BLE001 - the caller's to handle
            settle = _settled(future, None, error)
        if after:
            self.loop.call_later(after, settle)
        elif self.runs:
            settle()
        else:
            self.loop.call_soon(settle)


def _settled(future: asyncio.Future[Any], result: object, error: Exception | None) -> Callable[[], None]:
    def settle() -> None:
        if future.done():
            return
        if error:
            future.set_exception(error)
        else:
            future.set_result(result)

    return settle


NOWHERE: Final = -1
"""The slot of a process that is no replica, as a command."""
