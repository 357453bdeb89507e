"""A minute's worth of simulated weeks on fresh seeds, and that a seed decides everything."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import pytest

from tests.support.markdown import ROOT
from tests.support.processes import unmeasured

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.e2e

WEEKS: Final = "0.2"  # about a minute of one core; the number of weeks bounds it, however slow the machine is
DAY: Final = "0.03"  # weeks of each run


def simulate(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the simulation in a process of its own, without measuring its coverage, which would take most of the time."""
    command = [sys.executable, "-m", "tests.simulation", *arguments]
    return subprocess.run(command, cwd=ROOT, env=unmeasured(os.environ), capture_output=True, text=True, check=False)


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Iterator[list[str]]:
    """Print what is put in here past the capture: the seeds are to be seen, whatever comes of them."""
    lines: list[str] = []
    yield lines
    with capsys.disabled():
        print("\n" + "".join(lines))  # noqa: T201


@pytest.mark.timeout(1800)
def test_fresh_seeds_keep_every_promise(said: list[str]) -> None:
    done = simulate("--weeks", WEEKS, "--length", DAY, "--workers", "1", "--shrink", "300")
    said.append(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(600)
def test_a_seed_decides_everything() -> None:
    runs = [simulate("--seed", "twice", "--length", "0.005", "--trace", "--shrink", "0") for _ in range(2)]
    lines = [[line for line in run.stdout.splitlines() if line.startswith("    ")] for run in runs]
    assert lines[0], runs[0].stderr
    assert lines[0] == lines[1]
