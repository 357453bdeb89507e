"""A thread that never keeps the process."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from exporter.threads import DaemonThread


def test_calls_run_one_after_the_other_in_one_thread() -> None:
    thread = DaemonThread("one")
    names = [thread.submit(lambda: threading.current_thread().name) for _ in range(3)]
    assert [name.result(10) for name in names] == ["one"] * 3
    assert thread.submit(int, "12", base=3).result(10) == 5


def test_in_several_threads_as_many_calls_run_at_once() -> None:
    threads, met, gate = DaemonThread("some", 2), threading.Barrier(3), threading.Event()
    calls = [threads.submit(lambda: met.wait(10) + gate.wait(10)) for _ in range(2)]
    third = threads.submit(int, "1")
    met.wait(10)
    assert not third.done()
    gate.set()
    assert [call.exception(10) for call in calls] == [None, None]
    assert third.result(10) == 1
    threads.shutdown()


def test_an_error_is_the_callers() -> None:
    thread = DaemonThread("one")
    with pytest.raises(ZeroDivisionError):
        thread.submit(lambda: 1 // 0).result(10)
    assert thread.submit(lambda: 7).result(10) == 7


def test_a_call_that_was_cancelled_while_it_waited_is_not_made() -> None:
    thread, gate = DaemonThread("one"), threading.Event()
    made: list[int] = []
    first = thread.submit(gate.wait, 10)
    second = thread.submit(made.append, 1)
    assert second.cancel()
    gate.set()
    assert first.result(10)
    assert thread.submit(lambda: 1).result(10) == 1
    assert made == []


def test_shutting_down_ends_the_thread_after_what_it_was_given() -> None:
    thread = DaemonThread("ends-here")
    last = thread.submit(lambda: 1)
    thread.shutdown()
    assert last.result(10) == 1
    for running in threading.enumerate():
        if running.name == "ends-here":
            running.join(10)
            assert not running.is_alive()


@pytest.mark.e2e
def test_a_call_that_hangs_does_not_keep_the_process() -> None:
    program = "import time; from exporter.threads import DaemonThread; DaemonThread('x').submit(time.sleep, 3600)"
    assert subprocess.run([sys.executable, "-c", program], timeout=20, check=False).returncode == 0
