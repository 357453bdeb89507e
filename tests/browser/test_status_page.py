"""The status page in a browser: it shows the truth, follows it, and works by keyboard, small and without a script."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.browser.conftest import exporting, look
from tests.support.processes import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Locator, Page

    from tests.browser.conftest import Watched
    from tests.support.processes import Served, Simulated

    Visit = Callable[..., Page]

pytestmark = pytest.mark.e2e

FIRST = "+918011223344"
BROKEN = "+918011223350"
SERIOUS = {"serious", "critical"}
LIVE = re.compile(r"Live, checked \d\d:\d\d:\d\d UTC")
HEALING = {
    "VOICELINK_HEAL_MODE": "enforce",
    "VOICELINK_HEAL_CONFIRM_FOR": "0s",
    "VOICELINK_HEAL_CONFIRM_POLLS": "1",
    "VOICELINK_HEAL_HOLD_OFF_POLLS": "1",
}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Simulated, Served]]:
    """Return 130 numbers on two connections, one of them mended; tests mend what else they break."""
    folder = tmp_path_factory.mktemp("store")
    with exporting(folder, "--dids=130", "--connections=2", **HEALING) as (simulator, exporter):
        simulator.set_did(BROKEN, issues=["NO_BOT", "ROUTING_MISSING"])
        until(lambda: 'outcome="succeeded"} 1' in exporter.scrape(), "it is mended")
        yield simulator, exporter


@pytest.fixture
def simulator(fleet: tuple[Simulated, Served]) -> Iterator[Simulated]:
    yield fleet[0]
    for number, truth in fleet[0].control("GET", "fleet")["dids"].items():
        if truth["issues"]:
            fleet[0].set_did(number, issues=None)
    until(lambda: "voicelink_did_issue{" not in fleet[1].scrape(), "the exporter sees that all is well")


@pytest.fixture
def exporter(fleet: tuple[Simulated, Served]) -> Served:
    return fleet[1]


def numbers(page: Page) -> Locator:
    """Return the numbers that a page lists; what is read of them without `expect` may be of the page before."""
    return page.locator(".rows tbody th")


def break_one(simulator: Simulated, exporter: Served, number: str = FIRST, issue: str = "NO_VOCOBASE_AGENT") -> None:
    simulator.set_did(number, issues=[issue])
    until(lambda: f'code="{issue}"' in exporter.scrape(), "the exporter sees it")


def test_the_page_shows_what_is_so(visit: Visit, simulator: Simulated, exporter: Served) -> None:
    break_one(simulator, exporter)
    truth = simulator.control("GET", "fleet")["dids"]
    page = visit(exporter)
    expect(page.locator("#ready")).to_have_text("129 of 130 ready")
    expect(numbers(page).first).to_have_text(FIRST)
    expect(page.locator(".rows tbody tr").first).to_contain_text("NO_VOCOBASE_AGENT Assign a Vocobase agent")
    page.get_by_role("link", name="Next").click()
    expect(numbers(page)).to_have_count(30)
    assert set(numbers(page).all_inner_texts()) <= set(truth)
    page.get_by_role("searchbox").fill(BROKEN)
    page.keyboard.press("Enter")
    page.get_by_role("link", name=BROKEN, exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text(BROKEN)
    expect(page.locator(".facts").first).to_be_visible()
    expect(page.get_by_text(truth[BROKEN]["agent_id"])).to_be_visible()
    expect(page.locator(".heals summary").first).to_contain_text("succeeded")
    expect(page.locator("svg.timeline rect.bad").first).to_be_attached()


def test_the_page_follows_a_change_without_reloading(visit: Visit, simulator: Simulated, exporter: Served) -> None:
    page = visit(exporter)
    expect(page.locator("#live-text")).to_have_text(LIVE)
    expect(page.locator("#ready")).to_have_text("130 of 130 ready")
    expect(page.locator(".sentence")).to_contain_text("Every number is ready for calls.")
    page.evaluate("window.mark = 'not reloaded'")
    page.get_by_text("Last heals").click()
    page.locator("#q").fill("typed, not sent")
    link = page.get_by_role("link", name="+918011223360")
    link.focus()
    page.evaluate("window.scrollTo(0, 700)")
    before = page.evaluate("window.scrollY")
    break_one(simulator, exporter, "+918011223361")
    expect(page.locator("#ready")).to_have_text("129 of 130 ready")
    expect(page.locator("#news")).to_have_text("1 number is not ready for calls.")
    expect(page).to_have_title("129/130 ready · voicelink-exporter")
    expect(numbers(page).first).to_have_text("+918011223361")
    assert page.evaluate("window.mark") == "not reloaded"
    expect(link).to_be_focused()
    expect(page.locator("#q")).to_have_value("typed, not sent")
    expect(page.locator("details").first).to_have_attribute("open", "")
    assert abs(page.evaluate("window.scrollY") - before) < 200
    simulator.set_did("+918011223361", issues=None)
    expect(page.locator("#news")).to_have_text("Every number is ready for calls.")
    expect(page.locator("#ready")).to_have_text("130 of 130 ready")


def test_the_page_of_a_number_follows_it(visit: Visit, simulator: Simulated, exporter: Served) -> None:
    page = visit(exporter, f"/dids/%2B{FIRST[1:]}")
    expect(page.locator(".state")).to_have_text("✓ READY")
    break_one(simulator, exporter)
    look(page)
    expect(page.locator(".state")).to_have_text("✕ NO_VOCOBASE_AGENT")
    expect(page.locator("#news")).to_have_text(f"{FIRST} is NO_VOCOBASE_AGENT")
    expect(page.locator("svg.timeline rect.bad").first).to_be_attached()


def test_filters_sorting_and_paging_lead_where_they_say(visit: Visit, simulator: Simulated, exporter: Served) -> None:
    break_one(simulator, exporter)
    page = visit(exporter)
    page.locator(".counts").get_by_role("link", name="NO_VOCOBASE_AGENT").click()
    expect(numbers(page)).to_have_text([FIRST])
    page.get_by_role("link", name="issue NO_VOCOBASE_AGENT").click()
    expect(numbers(page)).to_have_count(100)
    page.get_by_label("Connection", exact=True).select_option("VoiceLink account 2")
    page.get_by_role("button", name="Apply").click()
    expect(page.locator(".paging")).to_contain_text("1 to 65 of 65")
    assert "state=" not in page.url  # what is left empty isn't sent
    page.locator("thead").get_by_role("link", name="Number").click()
    expect(page.locator("th[aria-sort=ascending]")).to_contain_text("Number")
    page.locator("thead").get_by_role("link", name="Number").click()
    expect(page.locator("th[aria-sort=descending]")).to_contain_text("Number")
    expect(numbers(page)).to_have_count(65)
    shown = numbers(page).all_inner_texts()
    assert shown == sorted(shown, reverse=True)
    expect(page.locator(".chips")).to_contain_text("connection")
    page.get_by_role("link", name="Remove all").click()
    expect(page.locator(".chips")).to_have_count(0)


def test_everything_is_reached_by_keyboard(visit: Visit, simulator: Simulated, exporter: Served) -> None:
    break_one(simulator, exporter)
    page = visit(exporter)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    expect(page.get_by_role("link", name="Skip to the content")).to_be_in_viewport()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    page.keyboard.press("/")
    expect(page.get_by_role("searchbox")).to_be_focused()
    page.keyboard.type("3344")
    page.keyboard.press("Enter")
    expect(page.locator(".rows tbody tr")).to_have_count(1)
    page.get_by_role("link", name=FIRST).focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text(FIRST)


@pytest.mark.parametrize(("scheme", "width"), [("light", 360), ("dark", 1280)])
def test_nothing_serious_stands_between_the_page_and_anybody(
    visit: Visit, simulator: Simulated, exporter: Served, scheme: str, width: int
) -> None:
    break_one(simulator, exporter)
    for path in ("/?per_page=10&account=default", f"/dids/%2B{BROKEN[1:]}"):
        page = visit(exporter, path, color_scheme=scheme, viewport={"width": width, "height": 800})
        for details in page.locator("main details:not([open]) > summary").all():
            details.click()
        found = Axe().run(page).response["violations"]
        serious = [
            (each["id"], [node["html"] for node in each["nodes"]]) for each in found if each["impact"] in SERIOUS
        ]
        assert serious == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.close()


def test_the_page_works_without_a_script(visit: Visit, simulator: Simulated, exporter: Served) -> None:
    break_one(simulator, exporter)
    page = visit(exporter, java_script_enabled=False)
    expect(page.locator("#live-text")).to_have_text(re.compile(r"^As of 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC$"))
    page.get_by_label("State", exact=True).select_option("NO_VOCOBASE_AGENT")
    page.get_by_role("button", name="Apply").click()
    expect(numbers(page)).to_have_text([FIRST])
    expect(page.locator(".chip")).to_have_count(1)
    page.get_by_role("link", name=FIRST).click()
    page.get_by_role("link", name="7 days").click()
    expect(page.locator("svg.timeline")).to_be_visible()
    page.get_by_text("As a table").click()
    expect(page.locator("#content")).to_contain_text("READY")


def test_a_page_whose_exporter_is_gone_says_so(visit: Visit, watched: Watched, tmp_path: object) -> None:
    with exporting(tmp_path, "--dids=3") as (simulator, exporter):
        page = visit(exporter)
        look(page)
        expect(page.locator("#live-text")).to_have_text(LIVE)
        simulator.add_fault("status:sync:status=500")
        expect(page.get_by_text("failed: server error")).to_be_visible()
        exporter.process.end()
        look(page)
        expect(page.get_by_role("alert")).to_contain_text("The exporter can't be reached. What you see is from ")
        expect(page.locator("#live-text")).to_have_text(re.compile("Not live since "))
        expect(page.locator("#ready")).to_have_text("3 of 3 ready")
        age = page.locator(".age time").first
        first = age.inner_text()
        expect(age).not_to_have_text(first)  # it goes on ageing
        assert all("ERR_" in error for error in watched.wrong), watched.wrong
        watched.wrong.clear()


def test_a_number_that_is_gone_is_said_to_be(
    visit: Visit, watched: Watched, simulator: Simulated, exporter: Served
) -> None:
    number = "+918011223399"
    page = visit(exporter, f"/dids/%2B{number[1:]}")
    expect(page.locator(".state")).to_have_text("✓ READY")
    simulator.set_did(number, removed=True)
    expect(page.get_by_role("alert")).to_contain_text("The exporter knows no such number any more.")
    simulator.set_did(number, removed=False)
    until(lambda: number in exporter.scrape(), "the exporter sees that it is back")
    look(page)
    expect(page.get_by_role("alert")).to_have_text("")
    assert all("404" in error for error in watched.wrong), watched.wrong
    watched.wrong.clear()
