"""Hours of history for Prometheus: the product runs on the simulator, on a clock that skips from poll to poll."""

from __future__ import annotations

import asyncio
import random
import re
import subprocess
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from pydantic import SecretStr

from exporter.config import Config, Settings
from exporter.parts import Exporter
from exporter.simulator import Simulator, SimulatorOptions, create_app, simulator_of
from tests.support.api import KEY, served

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import TextIO


INTERVAL: Final = 60  # seconds between two polls
HEALING: Final[dict[str, Any]] = {
    "mode": "enforce",
    "confirm_polls": 2,
    "confirm_for": "1m",
    "probation": "10m",
    "backoff": {"initial": "2m", "max": "4m"},
    "verify_within": "3m",
    "max_attempts": 2,
    "max_unhealthy": "60%",
}


class SkippingClock:
    """The machine's clock, but whoever waits, waits by moving it on."""

    def __init__(self, start: float) -> None:
        self._ahead = start - time.monotonic()

    def time(self) -> float:
        return time.monotonic() + self._ahead

    def monotonic(self) -> float:
        return self.time()

    async def sleep(self, seconds: float) -> None:
        self._ahead += max(0.0, seconds)
        await asyncio.sleep(0)

    def skip_to(self, when: float) -> None:
        self._ahead += max(0.0, when - self.time())


def settings_of(url: str, folder: Path, account: dict[str, Any]) -> Settings:
    """Return what the product is started with."""
    config = Config.model_validate(
        {
            "api": {"base_url": f"{url}/api/v2", "requests_per_minute": 600},
            "accounts": [{"name": "main", "api_key_env": "KEY", **account}],
            "poll": {"interval": "60s", "jitter": "0s"},
            "heal": HEALING,
            "store": {"url": f"sqlite:///{folder}/store.db"},
        }
    )
    return Settings(config, {"main": SecretStr(KEY)})


async def record(
    folder: Path,
    *,
    job: str,
    end: float,
    polls: int,
    scenario: Callable[[Simulator, int], None] = lambda _simulator, _polls: None,
    account: dict[str, Any] | None = None,
    into: TextIO,
    **options: Any,  # noqa: ANN401 - any option of the simulator
) -> None:
    """Write the samples of so many polls up to a moment as lines of OpenMetrics, alerts included.

    `scenario` is called before each poll with the number of polls so far.
    """
    start = end - polls * INTERVAL
    clock, draw = SkippingClock(start), random.Random(1)  # noqa: S311 - spreads latencies

    async def answer_late(seconds: float) -> None:
        await clock.sleep(seconds * draw.uniform(0.4, 2.5))

    app = create_app(SimulatorOptions(rate_limit=0, **options), clock=clock.time, sleep=answer_late)
    async with served(app) as url:
        exporter = Exporter(settings_of(url, folder, account or {}), clock)
        healing = asyncio.create_task(exporter.controller.run())
        try:
            await exporter.poller.discover("main")
            await exporter.poller.plan(dict.fromkeys(exporter.poller.fleet.targets, float(INTERVAL)))
            alerts = _Alerts(job)
            for number in range(polls):
                clock.skip_to(start + number * INTERVAL)
                scenario(simulator_of(app), number)
                await _one_round(exporter)
                at = int(clock.time())
                found = _labelled(b"".join(exporter.exposition.bodies.openmetrics.plain).decode(), job, at)
                into.writelines(f"{line}\n" for line in (*found, *alerts.after(found, at)))
        finally:
            healing.cancel()
            with suppress(asyncio.CancelledError):
                await healing
            await exporter.controller.stop()
            await exporter.poller.stop()
            exporter.poller.close()
            await exporter.clients.close()


async def _one_round(exporter: Exporter) -> None:
    for target in sorted(exporter.poller.fleet.targets):
        await exporter.poller.poll(target)
    await exporter.controller.settle()
    await exporter.controller.tick()
    await exporter.poller.tick()
    exporter.exposition.refresh_own()


def _labelled(text: str, job: str, at: int) -> list[str]:
    """Do what a scrape does: name the target on each sample, note the time, and tell of the scrape itself."""
    owner = f'instance="exporter:10880",job="{job}"'
    samples = [line for line in text.splitlines() if line and not line.startswith("#")]
    made = [
        re.sub(
            r"^(\w+)(?:\{(.*)\})? (\S+)$", lambda m: f"{m[1]}{{{owner}{',' + m[2] if m[2] else ''}}} {m[3]} {at}", each
        )
        for each in samples
    ]
    about = {"up": 1.0, "scrape_duration_seconds": 0.012, "scrape_samples_scraped": float(len(samples))}
    return made + [f"{name}{{{owner}}} {value} {at}" for name, value in about.items()]


class _Alerts:
    """Stands in for the rule that numbers which are not ready for a while are told: the series ALERTS."""

    def __init__(self, job: str) -> None:
        self._job = job
        self._bad: dict[str, int] = {}

    def after(self, lines: list[str], at: int) -> list[str]:
        made = []
        for line in lines:
            found = re.match(r"voicelink_did_ready\{instance=[^,]+,job=[^,]+,(.*)\} (\S+) ", line)
            if not found:
                continue
            self._bad[found[1]] = self._bad.get(found[1], 0) + 1 if float(found[2]) == 0 else 0
            if self._bad[found[1]]:
                state = "firing" if self._bad[found[1]] > 15 else "pending"
                made.append(
                    f'ALERTS{{alertname="VoiceLinkDidNotReady",alertstate="{state}",job="{self._job}",'
                    f'severity="warning",{found[1]}}} 1 {at}'
                )
        return made


def write_blocks(promtool: str, text: Path, data: Path) -> None:
    """Turn what was recorded, and ended with `# EOF`, into a folder that Prometheus can be started on."""
    subprocess.run(
        [promtool, "tsdb", "create-blocks-from", "openmetrics", str(text), str(data)], check=True, capture_output=True
    )


CHANGES: Final[dict[int, tuple[int, dict[str, Any]]]] = {  # at which poll, which number, what becomes of it
    3: (1, {"issues": ["NO_VOCOBASE_AGENT"]}),
    4: (2, {"issues": ["AGENT_PAUSED"]}),
    8: (3, {"expired": True, "issues": ["DID_EXPIRED"]}),
    9: (4, {"issues": ["NO_BOT", "ROUTING_MISSING"], "client_id": None}),
    **dict.fromkeys((5, 17, 29), (5, {"issues": ["NO_BOT"]})),
    **dict.fromkeys((10, 22, 120), (9, {"issues": ["NO_BOT", "ROUTING_MISSING"]})),
    **dict.fromkeys((57, 94, 131, 168, 205, 242, 279, 316), (6, {"issues": ["ROUTING_MISSING"]})),
    **dict.fromkeys((83, 136, 189, 247, 295, 348), (14, {"issues": ["NO_BOT", "ROUTING_MISSING"]})),
    200: (9, {"issues": ["ROUTING_MISSING"]}),
    206: (9, {"issues": ["NO_VOCOBASE_AGENT"]}),
    250: (9, {"issues": None}),
    330: (9, {"issues": ["NO_VOCOBASE_AGENT"]}),
}
FAULTS: Final = {40: "status:sync:status=503,count=9", 75: "status:call_ready:status=404,count=2"}
ABSENT: Final = "+918011229999"


def troubles(simulator: Simulator, polls: int) -> None:
    """Let a fleet have every kind of trouble that the dashboards show."""
    if polls in CHANGES:
        index, change = CHANGES[polls]
        simulator.set_did(simulator.numbers[index], **change)
    if polls in FAULTS:
        simulator.add_fault(FAULTS[polls])


def all_and_one_absent(dids: int) -> dict[str, Any]:
    """Configure every number of a simulated fleet by name, and one that it does not have."""
    numbers = [f"+{918011223344 + index}" for index in range(dids)]
    return {"dids": [{"did_number": number} for number in (*numbers, ABSENT)]}
