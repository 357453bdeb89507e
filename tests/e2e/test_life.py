"""The daemon as a process: how it starts, how it ends, and what it holds on to meanwhile."""

from __future__ import annotations

import contextlib
import signal
import socket
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.support.http import ask, connect, sample
from tests.support.processes import KEY, Served, Simulated, serving, simulating, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.e2e

STOPS_WITHIN = 10.0  # seconds
FIRST = "+918011223344"


@pytest.fixture(scope="module")
def simulated() -> Iterator[Simulated]:
    """Return a simulator that every test leaves without faults."""
    with simulating("--dids=20", "--connections=2") as simulator:
        yield simulator


def stop(exporter: Served, number: signal.Signals = signal.SIGTERM) -> float:
    """Send a signal, see that the end is a good one, and return the seconds it took."""
    started = time.monotonic()
    exporter.process.send(number)
    assert exporter.process.wait(STOPS_WITHIN) == 0
    assert "msg=stopping" in exporter.process.err
    assert exporter.process.err.splitlines()[-1].endswith("msg=stopped")
    return time.monotonic() - started


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_well(simulated: Simulated, number: signal.Signals) -> None:
    with serving(env=simulated.env) as exporter:
        exporter.until_ready()
        assert stop(exporter, number) < 3
        assert exporter.process.out == ""


def test_a_signal_ends_the_simulator_well() -> None:
    with simulating("--dids=1") as simulator:
        simulator.process.send(signal.SIGTERM)
        assert simulator.process.wait(STOPS_WITHIN) == 0


def test_a_signal_ends_the_demo_well() -> None:
    with serving("--web.listen-address=127.0.0.1:0", env={}, command="demo") as exporter:
        exporter.until_ready()
        text = exporter.scrape()
        assert text.count("\nvoicelink_did_ready{") == 40
        assert text.count("\nvoicelink_up{") == 2
        assert stop(exporter) < 5


def test_it_ends_in_time_while_a_poll_hangs(simulated: Simulated) -> None:
    with serving(env=simulated.env) as exporter:
        exporter.until_ready()
        simulated.add_fault("hang:sync")
        before = len(simulated.requests("sync"))
        until(lambda: len(simulated.requests("sync")) > before, "a poll hangs")
        assert sample(exporter.scrape(), "process_start_time_seconds")
        took = stop(exporter)
        simulated.clear_faults()
    assert took < STOPS_WITHIN
    assert exporter.process.err.partition("msg=stopping")[2].count("level=") == 1  # nothing failed: it was ended


def test_it_ends_in_time_with_clients_that_hold_on(simulated: Simulated) -> None:
    with serving(env=simulated.env) as exporter, contextlib.ExitStack() as stack:
        exporter.until_ready()
        for request in (
            b"",
            b"GET /metrics HTTP/1.1\r\nHo",
            b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n",
        ):
            stack.enter_context(connect(exporter.port)).sendall(request)
        assert stop(exporter) < STOPS_WITHIN


def test_it_ends_in_time_with_a_client_that_reads_nothing() -> None:
    with simulating("--dids=10000") as simulator, serving(env=simulator.env) as exporter:
        exporter.until_ready()
        assert len(exporter.scrape()) > 5_000_000  # more than the kernel keeps for a client
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.connect(("127.0.0.1", exporter.port))
            slow.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
            assert slow.recv(10) == b"HTTP/1.1 2"
            assert stop(exporter) < STOPS_WITHIN
        assert "level=error" not in exporter.process.err


def test_a_second_signal_changes_nothing(simulated: Simulated) -> None:
    with serving(env=simulated.env) as exporter:
        exporter.until_ready()
        simulated.add_fault("hang:sync")
        before = len(simulated.requests("sync"))
        until(lambda: len(simulated.requests("sync")) > before, "a poll hangs")
        with connect(exporter.port) as sock:
            sock.sendall(b"GET /metr")
            exporter.process.send(signal.SIGTERM)
            exporter.process.until_said("msg=stopping")
            stop(exporter, signal.SIGINT)
        simulated.clear_faults()


def test_it_answers_scrapes_before_the_api_answers_anything(simulated: Simulated) -> None:
    simulated.add_fault("hang")
    with serving(env=simulated.env) as exporter:
        until(lambda: ask(exporter.port, "/metrics").status == 200, "it answers")
        assert ask(exporter.port, "/-/ready").status == 503
        stop(exporter)
    simulated.clear_faults()


def test_a_change_shows_after_an_interval_and_a_poll(simulated: Simulated) -> None:
    def shows(ready: int) -> bool:
        return sample(exporter.scrape(), "voicelink_did_ready", phone_number=FIRST) == ready

    with serving(env=simulated.env) as exporter:
        until(lambda: shows(1), "the first poll shows")
        for ready, issues in ((0, ["NO_BOT"]), (1, []), (0, ["ROUTING_MISSING", "NO_VOCOBASE_AGENT"]), (1, [])):
            started = time.monotonic()
            simulated.set_did(FIRST, issues=issues)
            until(lambda: shows(ready), "the change shows")  # noqa: B023 - called at once
            assert time.monotonic() - started < 0.2 + 0.2 + 1  # interval, and room for a poll on a busy machine
        text = exporter.scrape()
        assert sample(text, "voicelink_did_state_changes_total", phone_number=FIRST) == 4
    changes = [line for line in exporter.process.err.splitlines() if 'msg="state changed"' in line]
    assert [line.partition("phone_number=")[2] for line in changes] == [
        f"{FIRST} old=READY new=NO_BOT issues=NO_BOT",
        f"{FIRST} old=NO_BOT new=READY issues=none",
        f"{FIRST} old=READY new=ROUTING_MISSING issues=ROUTING_MISSING,NO_VOCOBASE_AGENT",
        f"{FIRST} old=ROUTING_MISSING new=READY issues=none",
    ]


def test_open_files_do_not_grow_whatever_happens(simulated: Simulated) -> None:
    faults = ("status:status=500", "truncate", "html", "drip:seconds=0.001,size=2000", "hang:seconds=0.1", "oversize")
    env = {**simulated.env, "VOICELINK_POLL_INTERVAL": "100ms", "VOICELINK_API_MAX_RESPONSE_BYTES": "200000"}
    with serving(env=env) as exporter:
        exporter.until_ready()
        process = psutil.Process(exporter.process.pid)

        def round_of_everything() -> int:
            for fault in faults:
                polls = _polls(exporter)
                simulated.add_fault(f"{fault},count=2" if ":" in fault else f"{fault}:count=2")
                for _ in range(10):
                    exporter.scrape()
                    ask(exporter.port, "/nothing")
                    connect(exporter.port).close()
                until(lambda polls=polls: _polls(exporter) >= polls + 2, "polls go on")  # type: ignore[misc]
            simulated.clear_faults()
            until(lambda: "voicelink_up" in exporter.scrape() and _all_up(exporter), "the API works again")
            return process.num_fds()

        first = round_of_everything()
        later = [round_of_everything() for _ in range(3)]
        assert max(later) <= first + 3, f"{first} files at first, then {later}"
        assert process.num_threads() < 20
        assert sample(exporter.scrape(), "process_open_fds")
        assert sample(exporter.scrape(), "voicelink_exporter_scheduler_missed_runs_total") is not None


def test_the_key_goes_to_the_api_and_nowhere_else(simulated: Simulated, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(KEY + "\n")
    config = tmp_path / "config.yml"
    config.write_text(f"accounts: [{{name: a, api_key_file: {file}}}]\n")
    env = {name: value for name, value in simulated.env.items() if name != "VOCOBASE_API_KEY"}
    with serving(f"--config.file={config}", "--log.level=debug", env=env) as exporter:
        exporter.until_ready()
        for path in ("/metrics", "/config", "/", f"/probe?target={FIRST}"):
            reply = ask(exporter.port, path)
            assert reply.status == 200
            assert KEY not in reply.text
        command = psutil.Process(exporter.process.pid).cmdline()
    assert KEY not in " ".join(command)


def _polls(exporter: Served) -> float:
    text = exporter.scrape()
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith("voicelink_polls_total{"))


def _all_up(exporter: Served) -> bool:
    up = [line for line in exporter.scrape().splitlines() if line.startswith("voicelink_up{")]
    return bool(up) and all(line.endswith(" 1.0") for line in up)
