"""Drives work in virtual time: time goes on only when nothing else can, however slow the machine is."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, TypeVar
from weakref import WeakKeyDictionary

from tests.support.patience import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.support.clock import ManualClock

T = TypeVar("T")
SOON: Final = 0.5  # seconds: a timer of the machine's clock that is due by then is waited for

_calls: WeakKeyDictionary[asyncio.AbstractEventLoop, set[asyncio.Future[Any]]] = WeakKeyDictionary()


async def drive(what: Awaitable[T], clock: ManualClock) -> T:
    """Let time pass, to when the next sleeper wakes, as long as something isn't done and nothing else goes on."""
    work, calls = asyncio.ensure_future(what), _calls_in_threads()
    async with asyncio.timeout(PATIENCE):
        while not work.done():
            await idle()
            if work.done():
                break
            if pending := {call for call in calls if not call.done()}:
                await asyncio.wait({work, *pending}, return_when=asyncio.FIRST_COMPLETED)
            elif _timer_is_due_soon() or not clock.awaited:
                await asyncio.wait({work}, timeout=0.01)
            else:
                await clock.go_on()
    return work.result()


async def idle() -> None:
    """Return when nothing can run any more until time goes on, or a thread answers."""
    ready: Any = asyncio.get_running_loop()._ready  # type: ignore[attr-defined] # noqa: SLF001 - no other way to know
    quiet = 0
    while quiet < 3:
        await asyncio.sleep(0)
        quiet = 0 if ready else quiet + 1


def _timer_is_due_soon() -> bool:
    loop: Any = asyncio.get_running_loop()
    return any(not timer.cancelled() and timer.when() - loop.time() < SOON for timer in loop._scheduled)  # noqa: SLF001


def _calls_in_threads() -> set[asyncio.Future[Any]]:
    """Return the calls that the running loop has under way in threads, from the first time on that this is asked."""
    loop = asyncio.get_running_loop()
    if loop not in _calls:
        calls = _calls[loop] = set()
        call_in_thread: Callable[..., asyncio.Future[Any]] = loop.run_in_executor

        def counting(*args: Any) -> asyncio.Future[Any]:  # noqa: ANN401
            future = call_in_thread(*args)
            calls.add(future)
            future.add_done_callback(calls.discard)
            return future

        loop.run_in_executor = counting  # type: ignore[assignment, method-assign]
    return _calls[loop]
