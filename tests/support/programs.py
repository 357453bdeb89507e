"""System programs that tests start."""

from __future__ import annotations

import os
import shutil

import pytest


def require(program: str) -> str:
    """Return where a program is. Where it is missing, CI fails and anybody else's test is skipped, saying so."""
    path = shutil.which(program)
    if path is None:
        missing = f"{program} is not installed (tools/install-system-programs installs it on Debian)"
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail(missing)
        pytest.skip(missing)
    return path
