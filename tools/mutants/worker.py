"""Tries mutants in a copy of the tree, each in a fresh fork of this process, which has every library loaded.

One JSON request a line on standard input, one answer a line on standard output. What this process imports is never
part of the tree, so that a fork loads the tree's modules as they are changed at that moment.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from itertools import count
from pathlib import Path
from typing import Any, Final

import pytest

PLUGINS: Final = ("anyio", "hypothesispytest", "timeout", "xdist")  # those that the tests need; others load slowly
MEMORY: Final = 4 << 30  # bytes; a mutant may never end and collect things meanwhile
WALL: Final = 20  # seconds for each second of a processor that tests may take: others may want it as well
SAID: Final = 100  # characters of what went wrong
_PARENT_DIES: Final = 1  # prctl's PR_SET_PDEATHSIG
OPTIONS: Final = (
    "--quiet",
    "--no-header",
    "-Wignore::pytest.PytestAssertRewriteWarning",  # of libraries, which are loaded already
    "-pno:cacheprovider",
    "--hypothesis-seed=0",
    "--timeout=600",  # for each test; the processor's time ends what never does
)


class Recorder:
    """Pytest plugin that notes which tests failed, and how long each took."""

    def __init__(self) -> None:
        self.failed: dict[str, str] = {}  # why, by name
        self.seconds: dict[str, float] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a part of a test: its fixtures, or itself."""
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration
        if report.failed:
            self.failed[report.nodeid] = _why(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a file that can't be read."""
        if report.failed:
            self.failed[report.nodeid] = _why(report)


def _why(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Return the first line of what went wrong."""
    crash = getattr(report.longrepr, "reprcrash", None)
    return str(getattr(crash, "message", "")).partition("\n")[0][:SAID]


def main() -> int:
    """Answer requests until there are no more."""
    tree = Path.cwd()
    stamps = count(int(time.time()) - 10_000_000)
    for line in sys.stdin:
        request = json.loads(line)
        _load(request["load"])
        file, original = tree / request["file"] if request["file"] else None, ""
        if file:
            original = file.read_text(encoding="utf-8")
            _write(file, request["text"], next(stamps))
        try:
            answer = _try(tree, request)
        finally:
            if file:
                _write(file, original, next(stamps))
            shutil.rmtree(tree / ".hypothesis", ignore_errors=True)  # what one mutant taught is not for the next
        print(json.dumps(answer), flush=True)  # noqa: T201
    return 0


def _write(file: Path, text: str, stamp: int) -> None:
    """Write a file with a time of its own: Python keeps what it compiled by time, in seconds, and size."""
    file.write_text(text, encoding="utf-8")
    os.utime(file, (stamp, stamp))


def _load(names: list[str]) -> None:
    for name in names:
        with contextlib.suppress(Exception):
            importlib.import_module(name)


def _try(tree: Path, request: dict[str, Any]) -> dict[str, Any]:
    """Run tests in a fork; return their exit code, or none where it had to be ended, and which tests failed."""
    deadline = time.monotonic() + WALL * request["within"]
    with tempfile.NamedTemporaryFile() as result, tempfile.TemporaryFile() as output:
        pid = os.fork()
        if pid == 0:
            _child(tree, request, result.name, output.fileno())
        status = _wait(pid, deadline)
        text = Path(result.name).read_text(encoding="utf-8")
        answer: dict[str, Any] = {"code": None, "failed": {}, "seconds": {}, "loaded": [], "module": ""}
        if text and status is not None:
            answer = json.loads(text)
        output.seek(0)
        answer["output"] = output.read().decode(errors="replace")[-4000:]
    return answer


def _wait(pid: int, deadline: float) -> int | None:
    """Return the status of a child that ends by then; otherwise end it, with what it started."""
    status: int | None = None
    try:
        while time.monotonic() < deadline:
            done, code = os.waitpid(pid, os.WNOHANG)
            if done:
                status = code
                return status
            time.sleep(0.01)
        return None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        if status is None:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def _child(tree: Path, request: dict[str, Any], result: str, output: int) -> None:
    """Run pytest, write what it found, and end without what an interpreter does at its end."""
    try:
        os.setsid()
        with contextlib.suppress(OSError, AttributeError):  # only Linux has it
            ctypes.CDLL(None).prctl(_PARENT_DIES, signal.SIGKILL)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        seconds = int(request["within"]) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        nothing = os.open(os.devnull, os.O_RDONLY)
        for ours, theirs in ((nothing, 0), (output, 1), (output, 2)):
            os.dup2(ours, theirs)
        recorder = Recorder()
        stop = ("--exitfirst",) if request["stop"] else ()
        plugins = [f"-p{name}" for name in PLUGINS]
        code = int(pytest.main([*OPTIONS, *plugins, *stop, *request["tests"]], plugins=[recorder]))
        product = sys.modules.get(request["package"])
        answer = {
            "code": code,
            "failed": recorder.failed,
            "seconds": recorder.seconds,
            "loaded": _foreign(tree) if request["ask"] else [],
            "module": getattr(product, "__file__", None) or "",
        }
        Path(result).write_text(json.dumps(answer), encoding="utf-8")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def _foreign(tree: Path) -> list[str]:
    """Return the loaded modules that are no part of the tree, in the order in which they were loaded."""
    return [
        name
        for name, module in list(sys.modules.items())
        if (file := getattr(module, "__file__", None)) and not Path(file).is_relative_to(tree)
    ]


if __name__ == "__main__":
    sys.exit(main())
