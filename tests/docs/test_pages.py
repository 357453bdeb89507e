"""Links lead somewhere, targets of make exist, and what is shown to Prometheus is valid."""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pytest

from tests.support.markdown import ROOT, anchors, blocks, inline_code, links, pages, read
from tests.support.programs import require

if TYPE_CHECKING:
    from pathlib import Path

PAGES = [page.relative_to(ROOT).as_posix() for page in pages()]
ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)


def broken_links(text: str, page: Path) -> list[str]:
    """Return the links of a page that lead nowhere."""
    broken = []
    for link in links(text):
        if ELSEWHERE.match(link):
            continue
        path, _, anchor = unquote(link).partition("#")
        target = (page.parent / path).resolve() if path else page
        inside = target.is_relative_to(ROOT) and target.exists()
        there = (
            text if target == page else target.read_text(encoding="utf-8") if target.suffix == ".md" and inside else ""
        )
        if not inside or (anchor and anchor not in anchors(there)):
            broken.append(link)
    return broken


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):(?!=)", read("Makefile"), re.MULTILINE))


def named_targets(text: str) -> set[str]:
    """Return the targets of make that a page names in code."""
    shell = [line for block in blocks(text) for line in block.text.splitlines()]
    lines = [re.sub(r"^(?:[A-Z_]+=\S+ +)+", "", line.strip()) for line in [*shell, *inline_code(text)]]
    return {found[1] for line in lines if (found := re.match(r"make ([a-z][a-z-]*)", line))}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    assert broken_links(read(page), ROOT / page) == []


def test_a_link_that_leads_nowhere_is_noticed() -> None:
    text = (
        "# One\n## One\n## `two_three`: four!\n[a](#one) [b](#one-1) [c](#two_three-four) [d](#five)\n"
        "[e](docs/none.md) ![f](docs/architecture.md#layers) [g](docs/architecture.md#none) [h](https://example.com/x)\n"
        "[i](../outside.md) `[j](none)`\n```\n[k](none)\n```\n"
    )
    assert broken_links(text, ROOT / "README.md") == [
        *("#five", "docs/none.md", "docs/architecture.md#none", "../outside.md")
    ]


@pytest.mark.parametrize("page", PAGES)
def test_targets_of_make_exist(page: str) -> None:
    assert named_targets(read(page)) - make_targets() == set()


def test_a_target_of_make_that_does_not_exist_is_noticed() -> None:
    text = "`make demo`\n```sh\nA=b make fly ARGS=x\nmake run\n```\nmake something of it"
    assert named_targets(text) == {"demo", "fly", "run"}
    assert named_targets(text) - make_targets() == {"fly"}


@pytest.mark.e2e
@pytest.mark.parametrize(("mark", "check"), [("prometheus", "config"), ("prometheus-rules", "rules")])
def test_what_is_shown_to_prometheus_is_valid(mark: str, check: str, tmp_path: Path) -> None:
    promtool = require("promtool")
    shown = [block.text for page in PAGES for block in blocks(read(page)) if block.info == f"yaml {mark}"]
    assert shown
    for index, text in enumerate([*shown, "groups: [{name: 1, rules: [{expr: )}]}]"]):
        path = tmp_path / f"{index}.yml"
        path.write_text(text, encoding="utf-8")
        syntax = ["--syntax-only"] if check == "config" else []  # the files of secrets are not here
        words = [promtool, "check", check, *syntax, str(path)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
        assert (done.returncode == 0) == (index < len(shown)), done.stderr + text


@pytest.mark.e2e
def test_queries_that_are_shown_are_valid(tmp_path: Path) -> None:
    promtool = require("promtool")
    shown = [block.text.splitlines() for page in PAGES for block in blocks(read(page)) if block.info == "promql"]
    queries = [line for lines in shown for line in lines if line]
    assert queries
    for index, query in enumerate([*queries, "sum by voicelink_up"]):
        path = tmp_path / f"{index}.yml"
        path.write_text(json.dumps({"groups": [{"name": "a", "rules": [{"record": "a", "expr": query}]}]}))
        done = subprocess.run(
            [promtool, "check", "rules", path], capture_output=True, text=True, timeout=30, check=False
        )
        assert (done.returncode == 0) == (index < len(queries)), done.stderr + query
