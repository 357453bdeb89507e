"""curl, as people call it."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.support.programs import require

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Got:
    """What came back: status 0 where there was no answer, and then what curl says about it."""

    status: int
    headers: Mapping[str, str]
    text: str
    error: str


def curl(url: str, *flags: str | Path) -> Got:
    """Ask for something."""
    command = [require("curl"), "--silent", "--show-error", "--include", "--max-time", "15", *map(str, flags), url]
    done = subprocess.run(command, capture_output=True, timeout=30, check=False)
    head, _, body = done.stdout.decode().partition("\r\n\r\n")
    found = re.match(r"HTTP/1\.1 (\d+)", head)
    lines = [line.partition(":") for line in head.splitlines()[1:]]
    headers = {name.lower(): value.strip() for name, _, value in lines}
    return Got(int(found[1]) if found else 0, headers, body, done.stderr.decode().strip())
