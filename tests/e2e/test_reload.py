"""Another configuration for a daemon that runs: by SIGHUP and over HTTP, whole or not at all.

`RELOADS` is how often the long test reloads.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.support.healers import HASTE, audit, ledger_of
from tests.support.http import ask, sample
from tests.support.processes import Served, Simulated, serving, simulating, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.e2e

RELOADS = int(os.environ.get("RELOADS", "200"))
SUCCESSFUL = "voicelink_exporter_config_last_reload_successful"
RELOADED_AT = "voicelink_exporter_config_last_reload_success_timestamp_seconds"


class File:
    """A configuration file that tests write anew."""

    def __init__(self, folder: Path, simulated: Simulated) -> None:
        self.path = folder / "voicelink-exporter.yml"
        self.url = f"sqlite:///{folder}/store.db"
        self._base = {
            "api": {
                "base_url": f"http://127.0.0.1:{simulated.port}/api/v2",
                "requests_per_minute": 100_000,
                "timeout": "2s",
            },
            "accounts": [{"name": "main", "api_key_env": "ONE"}],
            "poll": {"interval": "250ms", "jitter": "0s", "stale_after": "5m"},
            "store": {"url": self.url},
            "web": {"listen_address": "127.0.0.1:0"},
        }
        self.write()

    def write(self, **sections: object) -> None:
        """Replace it at once, as a configuration management does."""
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps(self._base | sections))  # which is YAML
        new.rename(self.path)


@pytest.fixture(scope="module")
def simulated() -> Iterator[Simulated]:
    with simulating("--dids=6", "--connections=2") as simulator:
        yield simulator


@pytest.fixture
def file(simulated: Simulated, tmp_path: Path) -> File:
    return File(tmp_path, simulated)


@contextmanager
def served(file: File, *flags: str) -> Iterator[Served]:
    env = {"ONE": "rg_live_MadeUpKeyOne", "TWO": "rg_live_MadeUpKeyTwo"}
    with serving(f"--config.file={file.path}", *flags, env=env) as exporter:
        exporter.until_ready()
        yield exporter


def hang_up(exporter: Served, said: str = 'msg="configuration reloaded"') -> None:
    """Send SIGHUP and wait until what it did is said."""
    before = exporter.process.err.count(said)
    exporter.process.send(signal.SIGHUP)
    until(lambda: exporter.process.err.count(said) > before, f"it says {said}")


def accounts(exporter: Served) -> set[str]:
    text = exporter.scrape()
    return {
        line.partition('account="')[2].partition('"')[0]
        for line in text.splitlines()
        if line.startswith("voicelink_up{")
    }


def test_a_hang_up_brings_accounts_and_takes_them_away(file: File) -> None:
    with served(file) as exporter:
        changed = sample(exporter.scrape(), RELOADED_AT)
        both = [{"name": "main", "api_key_env": "ONE"}, {"name": "second", "api_key_env": "TWO"}]
        file.write(accounts=both)
        hang_up(exporter)
        assert ask(exporter.port, "/-/ready").status == 200
        until(lambda: accounts(exporter) == {"main", "second"}, "both are polled")
        assert (sample(exporter.scrape(), RELOADED_AT) or 0) > (changed or 0)
        file.write(accounts=both[1:])
        hang_up(exporter)
        assert accounts(exporter) == {"second"}
        assert 'account="main"' not in ask(exporter.port, "/metrics").text.partition("voicelink_api_request")[0]
        file.write()
        hang_up(exporter)
        until(lambda: accounts(exporter) == {"main"}, "the first is back")
        assert "msg=stopping" not in exporter.process.err


def test_what_is_polled_and_how_often_follows(file: File, simulated: Simulated) -> None:
    with served(file) as exporter:
        numbers = sorted(simulated.control("GET", "fleet")["dids"])
        file.write(
            accounts=[{"name": "main", "api_key_env": "ONE", "exclude": numbers[:2]}],
            poll={"interval": "1s", "jitter": "0s", "stale_after": "5m"},
        )
        hang_up(exporter)
        text = exporter.scrape()
        assert text.count("\nvoicelink_did_ready{") == 4
        intervals = [line for line in text.splitlines() if line.startswith("voicelink_poll_interval_seconds{")]
        assert [float(line.split()[-1]) for line in intervals] == [1.0, 1.0]
        assert "interval: 1s" in ask(exporter.port, "/config").text


def test_a_new_key_is_used_at_once(file: File, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("rg_live_MadeUpKeyThree\n")
    file.write(accounts=[{"name": "main", "api_key_file": str(key)}])
    with served(file) as exporter:
        key.write_text("rg_test_NotAKeyOfTheVendor\n")  # which the API refuses
        hang_up(exporter)
        until(lambda: "voicelink_up" in exporter.scrape() and _ups(exporter) == {0.0}, "polls fail")
        key.write_text("rg_live_MadeUpKeyFour\n")
        hang_up(exporter)
        until(lambda: _ups(exporter) == {1.0}, "polls work")
        assert 'reason="auth"' in exporter.scrape()


def test_a_file_that_is_wrong_changes_nothing_and_shows(file: File) -> None:
    with served(file, "--web.enable-lifecycle") as exporter:
        before = ask(exporter.port, "/config").text
        file.write(poll={"interval": "fast"}, heal={"mode": "maybe"})
        reply = ask(exporter.port, "/-/reload", "POST")
        assert reply.status == 500
        assert reply.text.splitlines() == [
            "poll.interval: 'fast' is not a duration; write one as 30s, 5m or 1h30m",
            "heal.mode: has to be 'off', 'observe' or 'enforce'",
        ]
        until(lambda: sample(exporter.scrape(), SUCCESSFUL) == 0, "it shows")
        assert ask(exporter.port, "/config").text == before
        hang_up(exporter, 'level=warn msg="the configuration was not reloaded, the one before stays" problems=')
        file.write()
        assert ask(exporter.port, "/-/reload", "POST").text == "Reloaded.\n"
        until(lambda: sample(exporter.scrape(), SUCCESSFUL) == 1, "it shows")


def test_what_needs_a_restart_is_refused(file: File, tmp_path: Path) -> None:
    with served(file, "--web.enable-lifecycle") as exporter:
        file.write(store={"url": f"sqlite:///{tmp_path}/other.db"}, web={"listen_address": "127.0.0.1:1"})
        reply = ask(exporter.port, "/-/reload", "POST")
        assert (reply.status, reply.text.splitlines()) == (
            500,
            [
                "store.url: can't be changed while the exporter runs; restart it",
                "web.listen_address: can't be changed while the exporter runs; restart it",
            ],
        )


def test_nobody_reloads_over_http_unless_that_is_allowed(file: File) -> None:
    with served(file) as exporter:
        assert ask(exporter.port, "/-/reload", "POST").status == 404
    with served(file, "--web.enable-lifecycle") as exporter:
        reply = ask(exporter.port, "/-/reload")
        assert (reply.status, reply.headers["allow"]) == (405, "POST")


def test_the_demo_has_nothing_to_reload() -> None:
    with serving("--web.listen-address=127.0.0.1:0", "--dids=2", env={}, command="demo") as exporter:
        exporter.until_ready()
        hang_up(exporter, 'level=warn msg="SIGHUP does nothing here: there is no configuration to read anew"')
        assert exporter.process.alive


@pytest.mark.timeout(120 + RELOADS)
def test_many_reloads_lose_no_scrape_and_no_heal(tmp_path: Path) -> None:
    with simulating("--dids=40", "--connections=2", "--fault=latency:call_ready:seconds=0.05") as simulated:
        file = File(tmp_path, simulated)
        main = {"name": "main", "api_key_env": "ONE"}
        more = {"name": "second", "api_key_env": "TWO", "dids": [{"did_number": "+918011229999"}]}
        heal = {**HASTE, "probation": "10m", "verify_within": "5m"}
        file.write(accounts=[main], heal=heal)
        numbers = sorted(simulated.control("GET", "fleet")["dids"])
        memory, broken = [], set()
        with served(file) as exporter, scraping(exporter) as failed:
            for turn in range(RELOADS):
                poll = {"interval": f"{250 + turn % 3}ms", "jitter": "0s", "stale_after": "5m"}
                stricter = {"max_per_hour": 100_000 + turn // 20}  # for which healing begins anew
                file.write(accounts=[main, more] if turn % 2 else [main], heal=heal | stricter, poll=poll)
                if turn % 8 == 0:
                    broken.add(numbers[turn // 8 % len(numbers)])
                    simulated.set_did(numbers[turn // 8 % len(numbers)], issues=["NO_BOT"])
                hang_up(exporter)
                memory.append(psutil.Process(exporter.process.pid).memory_info().rss / 2**20)
            until(lambda: _not_ready(exporter) <= {"+918011229999"}, "everything is mended", 60)
            until(lambda: not any(row.open for row in ledger_of(file.url)), "every attempt has ended", 60)
        assert failed == []
        assert "level=error" not in exporter.process.err
        requests, healed = simulated.requests("call_ready"), simulated.healed()
    figures = audit(ledger_of(file.url), requests)
    third = len(memory) // 3
    print(f"{RELOADS} reloads: {dict(figures)}, RSS {memory[third]:.0f} MiB, at the end {memory[-1]:.0f} MiB")  # noqa: T201
    assert sorted(healed) == sorted(broken)
    assert max(memory[2 * third :]) < max(memory[: 2 * third]) + 4


@contextmanager
def scraping(exporter: Served) -> Iterator[list[str]]:
    """Scrape all the time, and list what was no good answer."""
    failed: list[str] = []
    over = threading.Event()

    def scrape() -> None:
        while not over.wait(0.01):
            try:
                reply = ask(exporter.port, "/metrics")
                if reply.status != 200 or "voicelink_did_ready{" not in reply.text:
                    failed.append(f"{reply.status}: {reply.text[:200]}")
            except (OSError, EOFError) as error:
                failed.append(repr(error))

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield failed
    finally:
        over.set()
        thread.join()


def _ups(exporter: Served) -> set[float]:
    return {float(line.split()[-1]) for line in exporter.scrape().splitlines() if line.startswith("voicelink_up{")}


def _not_ready(exporter: Served) -> set[str]:
    lines = [line for line in exporter.scrape().splitlines() if line.startswith("voicelink_did_ready{")]
    return {line.partition('phone_number="')[2].partition('"')[0] for line in lines if float(line.split()[-1]) == 0}
