"""Reads the documentation: headings, tables, code blocks and links of Markdown as GitHub renders it."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).parent.parent.parent
_FENCE: Final = re.compile(r"^( *)(`{3,})([^\n`]*)\n(.*?)^\1\2 *$", re.MULTILINE | re.DOTALL)
_HEADING: Final = re.compile(r"^(#{1,6}) +(.+?) *#*$", re.MULTILINE)
_LINK: Final = re.compile(r"(?<!\\)!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(<?([^)\s>]+)>?(?: \"[^\"]*\")?\)")
_CODE: Final = re.compile(r"(`+)(.+?)\1", re.DOTALL)
_CELL: Final = re.compile(r"(?<!\\)\|")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block. `info` is what stands behind the fence: the language, and our marks."""

    info: str
    text: str


@dataclass(frozen=True, slots=True)
class Section:
    """A heading, and the text up to the next heading of any level."""

    level: int
    title: str
    text: str


def pages() -> list[Path]:
    """Return every Markdown file that users get."""
    folders = ("docs", "config", "grafana", "deploy", "benchmarks")
    return sorted([*ROOT.glob("*.md"), *(page for folder in folders for page in (ROOT / folder).rglob("*.md"))])


def read(page: str) -> str:
    """Return the text of a page, named from the root of the project."""
    return (ROOT / page).read_text(encoding="utf-8")


def prose(text: str) -> str:
    """Return the text without its fenced blocks and comments."""
    return re.sub(r"<!--.*?-->", "", _FENCE.sub("", text), flags=re.DOTALL)


def blocks(text: str) -> list[Block]:
    """Return the fenced blocks, without what they are indented by."""
    return [
        Block(info.strip(), re.sub(f"^{indent}", "", inner, flags=re.MULTILINE))
        for indent, _, info, inner in _FENCE.findall(text)
    ]


def inline_code(text: str) -> list[str]:
    """Return what stands in backticks within a text."""
    return [code.strip() for _, code in _CODE.findall(prose(text))]


def sections(text: str) -> list[Section]:
    """Return the headings, each with what follows it."""
    plain = prose(text)
    found = list(_HEADING.finditer(plain))
    ends = [match.start() for match in found[1:]] + [len(plain)]
    return [Section(len(match[1]), match[2], plain[match.end() : end]) for match, end in zip(found, ends, strict=True)]


def section(text: str, title: str) -> Section:
    """Return the one section of that title."""
    (found,) = [each for each in sections(text) if each.title == title]
    return found


def below(text: str, title: str) -> list[Section]:
    """Return the sections within the one of that title."""
    every = sections(text)
    (start,) = [index for index, each in enumerate(every) if each.title == title]
    within = []
    for each in every[start + 1 :]:
        if each.level <= every[start].level:
            break
        within.append(each)
    return within


def rows(text: str) -> Iterator[dict[str, str]]:
    """Yield the rows of every table, as what stands in each column."""
    names: list[str] | None = None
    for line in prose(text).splitlines():
        if not line.startswith("|"):
            names = None
            continue
        cells = [cell.strip().replace("\\|", "|") for cell in _CELL.split(line.strip())[1:-1]]
        if names is None:
            names = cells
        elif not all(re.fullmatch(r":?-+:?", cell) for cell in cells):
            yield dict(zip(names, cells, strict=True))


def codes(cell: str) -> list[str]:
    """Return what stands in backticks within a table's cell."""
    return [code for _, code in _CODE.findall(cell)]


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub gives the headings."""
    seen: Counter[str] = Counter()
    found = set()
    for each in sections(text):
        title = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", each.title)
        slug = re.sub(r"[^\w\- ]", "", title.lower().replace("`", "")).replace(" ", "-")
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found


def links(text: str) -> list[str]:
    """Return where the links and pictures point to."""
    return _LINK.findall(_CODE.sub("", prose(text)))
