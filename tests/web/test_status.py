"""The status page and a number's page, as they are sent: what they say, and when that is nothing new."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from exporter.errors import StoreError
from exporter.snapshots import labeller
from exporter.web.lazily import Lazily
from exporter.web.pages import SPANS
from exporter.web.recent import MOST_KEPT, Recent
from exporter.web.site import Health
from tests.support.processes import until
from tests.web.conftest import KEY

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from exporter.store.records import Attempt, Transition, Wanted
    from exporter.web.site import Site
    from tests.web.conftest import Web

    Start = Callable[..., Web]

ONE, TWO = "+918011223344", "+918011223345"
PAGE = f"/dids/%2B{ONE[1:]}"
NO_PAST = "The past can't be shown: the store does not answer."
BROKEN = ["NO_BOT", "ROUTING_MISSING"]


def healing(folder: Path, **more: object) -> dict[str, Any]:
    return {
        "accounts": [{"api_key_env": "VOCOBASE_API_KEY"}],
        "store": {"url": f"sqlite:///{folder}/store.db"},
        "heal": {"mode": "enforce", "confirm_polls": 1, "confirm_for": "0s", "hold_off_polls": 1},
        **more,
    }


class Nothing:
    """A past that nobody remembers."""

    async def transitions(self, number: str, limit: int = 1000) -> list[Transition]:
        raise StoreError(f"secret words about {number} and {limit}")

    async def attempts(self, number: str | None = None, limit: int = 1000) -> list[Attempt]:
        raise StoreError(f"secret words about {number} and {limit}")

    async def page(self, wanted: Wanted, offset: int, limit: int) -> tuple[int, list[Attempt]]:
        raise StoreError(f"secret words about {wanted}, {offset} and {limit}")


def forgetful(site: Site) -> Site:
    return replace(site, past=Nothing())


def text_of(html: str) -> str:
    """Return what a page says, roughly as a browser without a script shows it."""
    body = html.partition("<body>")[2]
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", body)).replace("&#39;", "'")


def test_the_fleet_is_shown_as_it_is(start: Start) -> None:
    web = start(dids=5)
    web.simulator.set_did(TWO, issues=BROKEN, friendly_name="Hotline")
    web.poll()
    reply = web.get("/")
    assert reply.status == 200
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    text = text_of(reply.text)
    assert "4 of 5 ready" in text
    assert "1 number is not ready for calls." in text
    assert text.index(TWO) < text.index(ONE)  # what is broken comes first
    assert "NO_BOT Create an active WebSocket bot for the mapped client." in text
    assert "Heals are off in the configuration" in text
    assert KEY not in reply.text


@pytest.mark.parametrize(
    ("polled", "options", "sentence"),
    [
        (False, {}, "The connections are being looked up. Nothing is known yet."),
        (True, {"dids": 3}, "Every number is ready for calls."),
        (True, {"dids": 0}, "The API lists no number that is to be watched."),
    ],
)
def test_a_page_with_little_on_it_says_why(
    start: Start, *, polled: bool, options: dict[str, Any], sentence: str
) -> None:
    assert sentence in text_of(start(polled=polled, **options).get("/").text)


def test_before_the_first_poll_ended_nothing_is_claimed(start: Start) -> None:
    web = start(polled=False)
    web.discover()
    text = text_of(web.get("/").text)
    assert "The first poll has not ended yet. Nothing is known yet." in text
    assert "not yet" in text


def test_failed_polls_are_named(start: Start) -> None:
    web = start(polled=False)
    web.simulator.add_fault("status:sync:status=401")
    web.discover()
    web.poll()
    text = text_of(web.get("/").text)
    assert "Nothing current is known of any number: the polls fail." in text
    assert "failed: auth" in text


def test_a_filter_shows_its_numbers_and_how_to_lift_it(start: Start) -> None:
    web = start(dids=150)
    web.simulator.set_did(TWO, issues=["NO_BOT"])
    web.poll()
    page = web.get("/?state=NO_BOT&q=&issue=").text
    assert page.count('<tr role="row" data-key') == 1
    assert 'href="/#numbers"><span class="quiet">state</span> NO_BOT' in page
    assert '<option value="NO_BOT" selected>NO_BOT (1)</option>' in page
    page = web.get("/?page=2").text
    assert page.count('<tr role="row" data-key') == 50
    assert "101 to 150 of 150" in page
    assert 'rel="prev" href="/#numbers"' in page
    assert "There is no page 9" in web.get("/?page=9").text
    assert "No number matches." in web.get("/?q=nobody").text
    assert "No number matches." in web.get("/?state=GONE").text
    assert '<option value="GONE" selected>GONE</option>' in web.get("/?state=GONE").text
    sorted_page = web.get("/?sort=-number&ready=true").text
    assert 'aria-sort="descending"><a href="/?ready=true&amp;sort=number#numbers">Number' in sorted_page
    assert '<input type="hidden" name="ready" value="true">' in sorted_page


def test_what_the_form_does_not_show_it_keeps(web: Web) -> None:
    page = web.get("/?label=a=1&label=b=2&per_page=7&sort=name&ready=false").text
    for name, value in (("label", "b=2"), ("per_page", "7"), ("sort", "name"), ("ready", "false")):
        assert f'<input type="hidden" name="{name}" value="{value}">' in page
    assert '<option value="a=1" selected>a=1</option>' in page


@pytest.mark.parametrize(
    "query", ["page=0", "color=red", "state=x&state=y", "sort=up", "q=" + "x" * 201, "state=%3Cb%3E"]
)
def test_what_cannot_be_asked_for_is_said_in_a_sentence(web: Web, query: str) -> None:
    reply = web.get(f"/?{query}")
    assert reply.status == 400
    assert f"{query.partition('=')[0]}: " in text_of(reply.text)
    assert web.get(f"{PAGE}?span=1y").status == 400


def test_a_number_in_any_spelling_leads_to_its_page(web: Web) -> None:
    for spelt in ("918011223344", "91%2080%201122-3344", "did:800"):
        reply = web.get(f"/dids/{spelt}")
        assert (reply.status, reply.headers["location"]) == (302, PAGE)
    assert web.get("/dids/918011223344?span=7d").headers["location"] == f"{PAGE}?span=7d"
    assert web.get("/dids/+918011223344").status == 200
    assert ONE in text_of(web.get(PAGE).text)


@pytest.mark.parametrize(
    "key", ["918011229999", "nobody", "did:1", "did:", "%00", "x" * 5000, "<script>alert(1)<|script>"]
)
def test_a_number_that_is_nobodys_is_not_found(web: Web, key: str) -> None:
    reply = web.get(f"/dids/{key}")
    assert reply.status == 404
    assert "No number like this is monitored" in text_of(reply.text)
    assert "alert(1)" not in reply.text


@pytest.mark.parametrize("path", ["/", PAGE])
def test_a_page_that_says_nothing_new_is_not_sent_again(start: Start, path: str) -> None:
    web = start()
    first = web.get(path)
    tag = first.headers["etag"]
    assert first.headers["cache-control"] == "no-cache"
    again = web.get(path, If_None_Match=tag)
    assert (again.status, again.body, again.headers["etag"]) == (304, b"", tag)
    assert web.get(path, If_None_Match=f"W/{tag}").status == 304
    assert web.get(f"{path}?q=1" if path == "/" else f"{path}?span=7d", If_None_Match=tag).status == 200
    web.simulator.set_did(ONE, issues=["NO_BOT"])
    web.poll()
    assert web.get(path, If_None_Match=tag).status == 200


def test_a_page_is_zipped_for_who_takes_it(web: Web) -> None:
    plain, zipped = web.get("/"), web.get("/", Accept_Encoding="gzip")
    assert zipped.headers["content-encoding"] == "gzip"
    assert zipped.headers["vary"] == "Accept-Encoding"
    assert len(zipped.body) < len(plain.body) / 2
    assert "3 of 3 ready" in text_of(zipped.text)
    assert plain.headers["etag"] != zipped.headers["etag"]


def test_what_is_static_is_kept_for_long_under_its_version_alone(web: Web) -> None:
    page = web.get("/").text
    for name, kind in (("status.css", "text/css"), ("status.js", "text/javascript"), ("icon.svg", "image/svg+xml")):
        address = re.search(rf'"(/static/{re.escape(name)}\?v=[0-9a-f]+)"', page)
        assert address
        reply = web.get(address[1])
        assert (reply.status, reply.headers["cache-control"]) == (200, "public, max-age=31536000, immutable")
        assert reply.headers["content-type"].startswith(kind)
        assert web.get(address[1], If_None_Match=reply.headers["etag"]).status == 304
        assert web.get(f"/static/{name}?v=1").headers["cache-control"] == "no-cache"


def test_no_page_holds_what_its_policy_forbids(start: Start, tmp_path: Path) -> None:
    web = start(healing(tmp_path), healing=True, dids=5)
    web.simulator.set_did(TWO, issues=BROKEN)
    web.heal()
    for path in ("/", PAGE, f"/dids/%2B{TWO[1:]}", "/?page=0", "/dids/nobody"):
        page = web.get(path).text
        assert not re.search(
            r"<style|\sstyle=|\son\w+=|javascript:|<script>|<(iframe|object|embed|form[^>]*post)", page
        )
        assert not re.search(r'(?:src|href|action)="(?!/|#)', page)


def test_a_healed_number_is_shown_with_its_steps_and_its_states(start: Start, tmp_path: Path) -> None:
    web = start(healing(tmp_path), healing=True, dids=5)
    web.simulator.set_did(TWO, issues=BROKEN)
    web.heal()
    reply = web.get(f"/dids/%2B{TWO[1:]}")
    text = text_of(reply.text)
    assert "succeeded" in text
    assert "2 complete polls without the issue" in text
    assert "ensure_bot done bot created" in text
    assert "repaired; on probation for 1h" in text
    assert re.search(r'<rect class="bad" x="\d', reply.text)
    assert re.search(r"NO_BOT .*READY", text)
    assert TWO in text_of(web.get("/").text.partition("Last heals")[2].partition("</details>")[0].join(["<body>", ""]))
    for span in SPANS:
        assert web.get(f"/dids/%2B{TWO[1:]}?span={span}").status == 200
    assert "It was never healed." in text_of(web.get(PAGE).text)


def test_what_holds_healing_back_is_said(start: Start, tmp_path: Path) -> None:
    config = healing(tmp_path) | {"heal": {"mode": "observe", "hold_off_polls": 5}}
    web = start(config, healing=True, dids=5)
    web.heal(1)
    text = text_of(web.get("/").text)
    assert "Healing observe" in text
    assert re.search(r"hold_off [12] of 5 complete polls since the start", text)


def test_without_a_past_everything_else_is_shown(start: Start) -> None:
    web = start(change=forgetful)
    for path, rest in (("/", "3 of 3 ready"), (PAGE, "Ready for calls")):
        reply = web.get(path)
        assert reply.status == 200
        assert NO_PAST in text_of(reply.text)
        assert rest in text_of(reply.text)
        assert "secret words" not in reply.text
    assert "does not answer" in text_of(web.get("/").text)


def test_the_exporters_own_health_is_shown(start: Start) -> None:
    def healthy(site: Site) -> Site:
        return replace(site, health=lambda: Health({"one": (7, 60), "two": (0, 60)}, (1, 3)))

    text = text_of(start(change=healthy).get("/").text)
    assert "Requests left (one) 7 of 60 a minute" in text
    assert "Shard 1 of 3" in text
    config = {"api": {"requests_per_minute": 60}, "accounts": [{"api_key_env": "KEY"}]}
    assert re.search(r"Requests left \d+ of 60 a minute", text_of(start(config).get("/").text))


@pytest.mark.parametrize("hash_key", [None, "a key that is long enough"])
def test_data_that_is_too_old_is_called_old(start: Start, tmp_path: Path, hash_key: str | None) -> None:
    poll = {"interval": "100ms", "jitter": "0s", "stale_after": "200ms"}
    privacy = {"hash_numbers": {"key_file": str(tmp_path / "key")} if hash_key else False}
    config = {"accounts": [{"api_key_env": "KEY"}], "poll": poll, "privacy": privacy}
    web = start(config, interval=0.1, hash_key=hash_key)
    path = f"/dids/{labeller(hash_key.encode())(ONE)}" if hash_key else PAGE
    web.simulator.add_fault("status:sync:status=500")

    def seen() -> bool:
        web.poll()
        web.call(web.poller.tick())
        return "This is old: no poll was complete since" in text_of(web.get(path).text)

    until(seen, "the page says that it is old")
    text = text_of(web.get("/").text)
    assert "Nothing current is known of any number: the polls fail." in text
    assert "too old to be shown" in text
    assert "failed: server error" in text


async def test_a_part_that_is_asked_for_by_many_at_once_is_made_once() -> None:
    made, answered = [], []

    async def app(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 - ASGI's
        answered.append((scope, receive, send))

    def make() -> Any:  # noqa: ANN401 - ASGI's
        made.append(1)
        return app

    part = Lazily(make)
    await asyncio.gather(*(part({}, None, None) for _ in range(5)))  # type: ignore[arg-type] # nothing looks at them
    assert (len(made), len(answered)) == (1, 5)


class Counting(Nothing):
    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers = asyncio.Event()

    async def transitions(self, number: str, limit: int = 1000) -> list[Transition]:
        assert limit == 1000
        self.asked.append(number)
        await self.answers.wait()
        return []


async def test_the_store_is_asked_once_for_what_many_look_at() -> None:
    past, now = Counting(), [0.0]
    recent = Recent(past, lambda: now[0])
    looks = [asyncio.create_task(recent.transitions(ONE)) for _ in range(5)]
    await asyncio.sleep(0)
    past.answers.set()
    assert await asyncio.gather(*looks) == [[]] * 5
    now[0] = 1.0
    await recent.transitions(ONE)
    assert past.asked == [ONE]
    now[0] = 1.1
    await recent.transitions(ONE)
    assert past.asked == [ONE, ONE]
    for index in range(MOST_KEPT):
        await recent.transitions(str(index))
    await recent.transitions(ONE)
    assert past.asked[-1] == ONE


async def test_a_page_waits_for_its_past_only_so_long() -> None:
    recent = Recent(Counting(), lambda: 0.0)
    with pytest.raises(StoreError, match=r"within 1\.5 s"):
        await recent.transitions(ONE)


@pytest.mark.e2e
def test_who_only_scrapes_does_not_pay_for_pages() -> None:
    code = "import exporter.app, sys; print(sorted({'fastapi', 'jinja2', 'sqlalchemy'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "[]\n"
