"""An event loop without input or output, whose time is given to it and that is run step by step."""

from __future__ import annotations

import asyncio
import heapq
from asyncio import base_events, events
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable

_MANY: Final = 200  # cancelled timers; more are thrown out
_RESOLUTION: Final = 1e-6  # seconds by which a timer may be early


class VirtualLoop(base_events.BaseEventLoop):
    """Event loop whose time is a machine's steady counter, in seconds.

    `execute` runs what is meant for threads and returns a future, `between` is called after each callback: it returns
    whether the loop may go on at once.
    """

    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]
    _timer_cancelled_count: int

    def __init__(
        self,
        clock: Callable[[], float],
        execute: Callable[..., asyncio.Future[Any]],
        between: Callable[[], bool],
    ) -> None:
        super().__init__()
        self.set_debug(False)
        self._clock = clock
        self._execute = execute
        self._between = between
        self.faults: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _, context: self.faults.append(context))

    def __del__(self) -> None:
        """Need no closing: it has nothing open."""

    def time(self) -> float:
        """Return the steady counter."""
        return self._clock()

    def is_running(self) -> bool:
        """Return `True`: it always runs, in steps."""
        return True

    def call_soon_threadsafe(  # type: ignore[override]
        self,
        callback: Any,  # noqa: ANN401 - the loop's
        *args: Any,  # noqa: ANN401
        context: Any = None,  # noqa: ANN401
    ) -> asyncio.Handle:
        """Do what `call_soon` does: there is one thread."""
        return self.call_soon(callback, *args, context=context)

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override] # noqa: ANN401
        """Hand a call over to what executes calls here."""
        return self._execute(executor, func, *args)

    @property
    def busy(self) -> bool:
        """Whether something can run now."""
        return bool(self._ready)

    def next_timer(self) -> float | None:
        """Return when the next timer is due, on this loop's clock; `None` without one."""
        timers = self._scheduled
        if self._timer_cancelled_count > _MANY:
            kept = [timer for timer in timers if not timer._cancelled]  # noqa: SLF001
            timers[:] = kept
            heapq.heapify(timers)
            self._timer_cancelled_count = 0
        while timers and timers[0]._cancelled:  # noqa: SLF001
            self._timer_cancelled_count -= 1
            heapq.heappop(timers)._scheduled = False  # type: ignore[attr-defined] # noqa: SLF001
        return timers[0].when() if timers else None

    def release_due(self) -> None:
        """Make what is due by now ready to run."""
        now, timers = self._clock() + _RESOLUTION, self._scheduled
        while timers and timers[0].when() <= now:
            timer = heapq.heappop(timers)
            timer._scheduled = False  # type: ignore[attr-defined] # noqa: SLF001
            self._ready.append(timer)

    def turn(self) -> None:
        """Run callbacks until none is ready, or until `between` says to stop."""
        ready, between = self._ready, self._between
        events._set_running_loop(self)  # noqa: SLF001
        try:
            while ready:
                handle = ready.popleft()
                if not handle._cancelled:  # noqa: SLF001
                    handle._run()  # noqa: SLF001
                    if not between():
                        return
        finally:
            events._set_running_loop(None)  # noqa: SLF001
