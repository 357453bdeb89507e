"""Takes the pictures of the status page for the documentation: a day of the simulator, lived through in a minute.

Needs Chromium: `python tools/screenshots.py [--chromium PROGRAM]`. Writes docs/images/status-*.png.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from playwright.async_api import async_playwright

ROOT: Final = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # the tests' clock and fleet
from exporter.addresses import parse_address  # noqa: E402
from exporter.app import end, site_of  # noqa: E402 - found by the line above
from exporter.parts import Exporter  # noqa: E402
from exporter.simulator import Simulator, SimulatorOptions, create_app, simulator_of  # noqa: E402
from exporter.web.listening import open_sockets  # noqa: E402
from exporter.web.server import Server  # noqa: E402
from exporter.web.site import create_site  # noqa: E402
from tests.support.api import served  # noqa: E402
from tests.support.backfill import SkippingClock, settings_of, troubles  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Browser

    from exporter.clock import Clock
    from exporter.config import Settings

EVERY: Final = 240.0  # seconds between two polls
POLLS: Final = 361  # a day
HEALED: Final = 6  # the number that is looked at: it broke and was mended, time and again
NAMES: Final = ("Sales", "Support", "Reminders", "Collections", "Surveys", "Bookings")
SHOTS: Final[tuple[tuple[str, str, tuple[int, int], Literal["light", "dark"]], ...]] = (
    ("status-fleet", "/", (1280, 1000), "light"),
    ("status-dark", "/", (1280, 1000), "dark"),
    ("status-did", "/dids/{number}?span=24h", (1280, 1000), "light"),
    ("status-phone", "/", (390, 844), "light"),
)


async def live(exporter: Exporter, clock: SkippingClock, start: float, simulator: Simulator) -> None:
    """Poll for hours, on a clock that skips."""
    await exporter.poller.discover("main")
    await exporter.poller.plan(dict.fromkeys(exporter.poller.fleet.targets, EVERY))
    for number in range(POLLS):
        clock.skip_to(start + number * EVERY)
        troubles(simulator, number)
        for target in sorted(exporter.poller.fleet.targets):
            await exporter.poller.poll(target)
        await exporter.controller.settle()
        await exporter.controller.tick()


async def shoot(browser: Browser, url: str, number: str, folder: Path) -> None:
    """Take the pictures."""
    for name, path, size, scheme in SHOTS:
        width, height = size
        page = await browser.new_page(
            viewport={"width": width, "height": height}, color_scheme=scheme, reduced_motion="reduce"
        )
        await page.goto(url + path.format(number=f"%2B{number[1:]}"))
        await page.get_by_text("Live, checked").wait_for()
        await page.wait_for_timeout(2500)
        await page.screenshot(path=folder / f"{name}.png")
        await page.close()


@contextlib.asynccontextmanager
async def running(settings: Settings, clock: Clock | None = None) -> AsyncIterator[Exporter]:
    """Run an exporter that heals what it is made to poll."""
    exporter = Exporter(settings, clock)
    healing = asyncio.create_task(exporter.controller.run())
    try:
        yield exporter
    finally:
        healing.cancel()
        await end(exporter)
        exporter.poller.close()


async def main(program: str, folder: Path) -> None:
    """Live through it; then start anew on what the store remembers, and look at that."""
    start = time.time() - POLLS * EVERY
    clock = SkippingClock(start)
    app = create_app(
        SimulatorOptions(dids=36, connections=2, rate_limit=0, latency=0.4, seed=3), clock=clock.time, sleep=clock.sleep
    )
    simulator = simulator_of(app)
    for index, number in enumerate(simulator.numbers):
        simulator.set_did(number, friendly_name=f"{NAMES[index % len(NAMES)]} {index // len(NAMES) + 1}")
    with tempfile.TemporaryDirectory() as store:
        async with served(app) as address, async_playwright() as playwright:
            settings = settings_of(address, Path(store), {})
            async with running(settings, clock) as exporter:
                await live(exporter, clock, start, simulator)
            async with running(settings) as exporter:
                exporter.scheduler.start()
                sockets = open_sockets(parse_address("127.0.0.1:0"))
                server = Server(create_site(site_of(exporter)))
                serving = asyncio.create_task(server.serve(list(sockets)))
                flags = ["--no-sandbox", "--disable-gpu"]
                browser = await playwright.chromium.launch(executable_path=program, args=flags)
                url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
                await shoot(browser, url, simulator.numbers[HEALED], folder)
                await browser.close()
                server.should_exit = True
                await serving


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chromium", default=shutil.which("chromium") or "chromium", help="the browser to look with")
    parser.add_argument("--into", type=Path, default=ROOT / "docs" / "images", help="where the pictures go")
    chosen = parser.parse_args()
    asyncio.run(main(chosen.chromium, chosen.into))
