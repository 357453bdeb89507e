"""Builds the sdist and the wheel, as `make dist` does."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.support.markdown import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def build(folder: Path, source: Path = ROOT, env: Mapping[str, str] | None = None) -> tuple[Path, Path]:
    """Build from a folder of sources; return the sdist and the wheel."""
    command = [sys.executable, "-m", "hatchling", "build", "--directory", str(folder)]
    given = {**os.environ, **(env or {})}
    done = subprocess.run(command, cwd=source, env=given, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return sdist, wheel
