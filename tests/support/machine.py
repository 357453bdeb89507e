"""What only this machine knows, and what nothing that is given away may hold."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final

LOCAL: Final = frozenset({"/", "localhost", "127.0.0.1"})


def of_this_machine() -> set[str]:
    """Return its name, the home folder, and the addresses and paths from which pip gets packages here."""
    values = re.findall(r"='(.*)'$", _pip("config", "list"), re.MULTILINE)
    values += [value for name, value in os.environ.items() if name.startswith("PIP_")]
    words = {word for value in values for word in value.split() if "/" in word}
    hosts = {host for word in words for host in re.findall(r"^https?://(?:[^/@]*@)?([^/:]+)", word)}
    private = {*words, *hosts, socket.gethostname(), str(Path.home())} - LOCAL
    return {word for word in private if word.rstrip("/") not in _everybodys()}


def _everybodys() -> set[str]:
    """Return where pip gets packages from unless it is told otherwise, and the host of that: no secret of anybody's."""
    found = re.search(r"\(default (https?://([^/)]+)[^)]*)\)", " ".join(_pip("help", "download").split()))
    return {found[1].rstrip("/"), found[2]} if found else set()


def _pip(*words: str) -> str:
    return subprocess.run([sys.executable, "-m", "pip", *words], capture_output=True, text=True, check=True).stdout
