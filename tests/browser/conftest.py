"""A real browser before a real exporter. Whatever a page does is watched: requests, errors, dialogs."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect, sync_playwright

from tests.support.processes import serving, simulating
from tests.support.programs import require

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser, Page

    from tests.support.processes import Served, Simulated

PATIENCE = 60_000  # milliseconds that a page has for what is expected of it: generous, as machines are shared
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--no-first-run", "--no-default-browser-check"),
)


@dataclass(slots=True)
class Watched:
    """What pages did that a test may ask for, or that none may do."""

    urls: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def watch(self, page: Page) -> None:
        page.on("request", lambda request: self.urls.append(request.url))
        page.on("dialog", lambda dialog: self.wrong.append(f"dialog: {dialog.message}"))
        page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        page.on("console", lambda said: self.wrong.append(said.text) if said.type in {"error", "warning"} else None)


def look(page: Page) -> None:
    """Let a page look at what is new now, as when somebody comes back to it, rather than at its own pace."""
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


@pytest.fixture(scope="module")  # as long as it runs, no other event loop can in this process
def chromium() -> Iterator[Browser]:
    program = require("chromium")
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def watched() -> Watched:
    """Return what is collected; a test that expects an error takes it out of `wrong`."""
    return Watched()


@pytest.fixture
def visit(chromium: Browser, watched: Watched) -> Iterator[Callable[..., Page]]:
    """Return what opens an address in a browser of its own; at the end nothing may have gone wrong on any page."""
    contexts = []

    def open_page(exporter: Served, path: str = "/", **options: Any) -> Page:  # noqa: ANN401 - the browser's
        context = chromium.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        page = context.new_page()
        watched.watch(page)
        page.goto(f"http://127.0.0.1:{exporter.port}{path}")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert watched.wrong == []
    assert {urlsplit(url).hostname for url in watched.urls} <= {"127.0.0.1"}


@contextmanager
def exporting(folder: Any, *flags: str, config: str = "", **more: str) -> Iterator[tuple[Simulated, Served]]:  # noqa: ANN401 - a path
    """Run a simulator and an exporter of it, with a store in a folder."""
    with simulating(*flags) as simulator:
        env = {**simulator.env, "VOICELINK_STORE_URL": f"sqlite:///{folder}/store.db", **more}
        arguments = []
        if config:
            file = folder / "config.yml"
            file.write_text(config, encoding="utf-8")
            arguments = [f"--config.file={file}"]
        with serving(*arguments, env=env) as exporter:
            exporter.until_ready()
            yield simulator, exporter
