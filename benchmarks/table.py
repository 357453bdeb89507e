"""The figures as a Markdown table, with what each was to be."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

BEGIN: Final = "<!-- figures: written by the benchmark -->"
END: Final = "<!-- end of figures -->"


@dataclass(frozen=True, slots=True)
class Row:
    """A figure as it is printed; `met` is `None` where there is no target."""

    what: str
    figure: str
    target: str = ""
    met: bool | None = None

    def __str__(self) -> str:
        verdict = {None: "", True: "met", False: "**missed**"}[self.met]
        return f"| {self.what} | {self.figure} | {self.target} | {verdict} |"


def ratio(what: str, ours: float, theirs: float, least: float) -> Row:
    """Return how many times faster we are."""
    return Row(what, f"{theirs / ours:,.0f}x", f"at least {least:,.0f}x", theirs / ours >= least)


def at_most(what: str, value: float, limit: float, unit: str) -> Row:
    """Return a figure that is not to be more than a limit."""
    return Row(what, with_unit(value, unit), f"at most {limit:g} {unit}", value <= limit)


def with_unit(value: float, unit: str) -> str:
    """Write a figure with three digits that mean something."""
    return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"


def machine() -> str:
    """Say what it ran on, without naming it."""
    memory = round(psutil.virtual_memory().total / (1 << 30))
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{os.cpu_count()} cores ({platform.machine()}), {memory} GiB, {platform.system()}, {python}"


def markdown(sections: Iterable[tuple[str, Iterable[Row]]]) -> str:
    """Write one table, a line in bold before each section."""
    lines = [f"Measured on {machine()}.", "", "| | measured | target | |", "|---|---|---|---|"]
    for title, rows in sections:
        lines += [f"| **{title}** | | | |", *map(str, rows)]
    return "\n".join(lines) + "\n"


def put_into(page: Path, figures: str) -> None:
    """Replace the figures of a page, between its two marks."""
    head, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not end:
        raise ValueError(f"{page} lacks the marks between which figures stand")
    page.write_text(f"{head}{BEGIN}\n{figures}{END}{tail}", encoding="utf-8")
