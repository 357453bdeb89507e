"""Ten thousand numbers: the browser holds a hundred of them, and an update gives it no more to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import exporting, look
from tests.support.processes import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Page

    from tests.support.processes import Served, Simulated

    Visit = Callable[..., Page]

pytestmark = pytest.mark.e2e

WATCH = """
window.most = 0;
new MutationObserver((records) => {
  let made = 0;
  for (const record of records) for (const node of record.addedNodes)
    made += 1 + (node.querySelectorAll ? node.querySelectorAll("*").length : 0);
  window.most = Math.max(window.most, made);
}).observe(document, { childList: true, subtree: true });
"""
MOST_NODES = 3000  # that a page is made of, or that one update makes anew: text counts, too


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Simulated, Served]]:
    folder = tmp_path_factory.mktemp("store")
    flags = ("--dids=10000", "--connections=4")
    with exporting(folder, *flags, VOICELINK_POLL_INTERVAL="1s") as (simulator, exporter):
        yield simulator, exporter


def test_ten_thousand_numbers_do_not_make_the_browser_stutter(visit: Visit, large: tuple[Simulated, Served]) -> None:
    simulator, exporter = large
    page = visit(exporter)
    page.context.add_init_script(WATCH)
    page.reload()
    expect(page.locator("#ready")).to_have_text("10,000 of 10,000 ready")
    expect(page.locator(".rows tbody tr")).to_have_count(100)
    assert page.locator("*").count() < MOST_NODES
    page.evaluate("window.most = 0")  # the parser's own steps are not of interest
    for index in range(50):
        simulator.set_did(f"+{918011223344 + 37 * index}", issues=["NO_VOCOBASE_AGENT"])
    expect(page.locator("#ready")).to_have_text("9,950 of 10,000 ready")
    expect(page.locator(".rows tbody tr")).to_have_count(100)
    assert 0 < page.evaluate("window.most") < MOST_NODES
    page.get_by_role("searchbox").fill("+91 8011225150")
    page.keyboard.press("Enter")
    expect(page.locator(".paging")).to_contain_text("1 to 1 of 1")


def test_who_looks_does_not_keep_who_scrapes_waiting(visit: Visit, large: tuple[Simulated, Served]) -> None:
    _, exporter = large
    pages = [visit(exporter, path) for path in ("/", "/?sort=-since", "/?q=9")]
    for page in pages:
        look(page)
    until(lambda: all("Live" in page.locator("#live-text").inner_text() for page in pages), "all follow")
    assert "voicelink_dids" in exporter.scrape()
