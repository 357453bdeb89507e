"""What the commands print: tables that fit a terminal, and whole where there is none."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from rich.console import Console

if TYPE_CHECKING:
    from rich.table import Table

FILE_WIDTH: Final = 10_000  # characters; without a terminal nothing is cut or wrapped
COULD_NOT_TELL: Final = 2


def print_table(table: Table) -> None:
    """Print a table. Not by rich itself, which ends the process with exit code 1 when the reader goes away."""
    console = Console(width=None if sys.stdout.isatty() else FILE_WIDTH)
    with console.capture() as captured:
        console.print(table)
    print(captured.get(), end="")  # noqa: T201


def plain(value: object) -> str:
    """Return a text that no terminal acts on: what can't be printed is replaced."""
    return "".join(char if char.isprintable() else "\ufffd" for char in str(value))
