"""What only this machine knows, and what nothing that is given away may hold."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final

PUBLIC: Final = frozenset(
    {"/", "localhost", "127.0.0.1"}
)


def of_this_machine() -> set[str]:
    """Return its name, the home folder, and the addresses and paths from which pip gets packages here."""
    said = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    values = re.findall(r"='(.*)'$", said.stdout, re.MULTILINE)
    values += [value for name, value in os.environ.items() if name.startswith("PIP_")]
    words = {word for value in values for word in value.split() if "/" in word}
    hosts = {host for word in words for host in re.findall(r"^https?://(?:[^/@]*@)?([^/:]+)", word)}
    return {*words, *hosts, socket.gethostname(), str(Path.home())} - PUBLIC
