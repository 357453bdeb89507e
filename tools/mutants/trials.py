"""Runs the tests of mutants in copies of the tree, several at a time. The tree itself is never changed."""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

ROOT: Final = Path(__file__).parents[2]
FIRST_WITHIN: Final = 3600.0  # seconds for all tests without a mutant
AT_LEAST: Final = 20.0  # seconds of a processor that the tests of a mutant get, and so many times what they take
TIMES: Final = 5.0
PASSED: Final = 0  # pytest's exit codes
FAILED: Final = frozenset({1, 2, 3})  # by a test, by a file that can't be read, by pytest itself
NOT_BEGUN: Final = 4
UNREADABLE: Final = "Error while loading conftest"  # what pytest says where a conftest.py can't be imported
SAID: Final = 2000  # characters of an output that are shown


class UnusableError(Exception):
    """The tests can't judge mutants: they fail without one, or run on other code than the copy's."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """Change of one file, and the tests that are to notice it: one of them, or with `all_of_them` each."""

    name: str
    file: str  # from the tree's root
    text: str  # of the whole file, changed
    diff: str
    tests: tuple[str, ...]
    all_of_them: bool = False
    within: str = ""  # the function it is in
    before: str = ""  # the lines that are changed
    after: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a mutant: killed, by what, or survived."""

    mutant: Mutant
    killed: bool
    by: str


class Trials:
    """Tries mutants of the tree `root`, `jobs` at a time, each in a copy of its own."""

    def __init__(self, root: Path, package: str, jobs: int) -> None:
        self._root = root
        self._package = package
        self._jobs = jobs
        self._workers: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._loaded: Sequence[str] = ()  # libraries that the tests load
        self._seconds: Mapping[str, float] = {}  # that tests take
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Make the copies."""
        for _ in range(self._jobs):
            copy = Path(self._stack.enter_context(TemporaryDirectory(prefix="mutants-")))
            copy_tree(self._root, copy)
            worker = _Worker(copy, self._package)
            self._stack.callback(worker.stop)
            self._workers.put(worker)
        return self

    def __exit__(self, *_: object) -> None:
        """Remove them."""
        self._stack.close()

    def run(self, mutants: Iterable[Mutant], done: Callable[[Verdict], None]) -> None:
        """Try each mutant; `done` is called with what became of it, from several threads, one after the other."""
        mutants = list(mutants)
        self._run_without_mutant(tuple(dict.fromkeys(test for mutant in mutants for test in mutant.tests)))
        with ThreadPoolExecutor(self._jobs) as pool:
            try:
                for future in [pool.submit(self._try, mutant, done) for mutant in mutants]:
                    future.result()
            except BaseException:  # as Ctrl-C, or a fault: nothing else is begun
                pool.shutdown(wait=False, cancel_futures=True)
                self._stack.close()
                raise

    def _run_without_mutant(self, tests: tuple[str, ...]) -> None:
        """Show that tests pass without a mutant, and learn how long they take and which libraries they load."""
        worker = self._workers.get()
        worker.ask(tests, load=(), within=FIRST_WITHIN, learning=True)
        first = again = worker.answer()
        if first["failed"]:  # a test that waits for something real may fail once on a machine with much else to do
            worker.ask(tuple(first["failed"]), load=first["loaded"], within=FIRST_WITHIN, learning=True)
            again = worker.answer()
        self._workers.put(worker)
        if again["code"] != PASSED:
            raise UnusableError(f"tests fail without a mutant:\n{again['output'][-SAID:]}")
        if not first["module"].startswith(str(worker.tree)):
            raise UnusableError(f"the tests import {first['module'] or 'nothing'}, which is not the copy's")
        self._loaded, self._seconds = first["loaded"], first["seconds"] | again["seconds"]

    def _limit(self, tests: tuple[str, ...]) -> float:
        took = sum(seconds for each, seconds in self._seconds.items() if any(_is_of(each, test) for test in tests))
        return AT_LEAST + TIMES * took

    def _try(self, mutant: Mutant, done: Callable[[Verdict], None]) -> None:
        worker = self._workers.get()
        try:
            worker.ask(mutant.tests, load=self._loaded, within=self._limit(mutant.tests), mutant=mutant)
            answer = worker.answer()
        finally:
            self._workers.put(worker)
        verdict = judge(mutant, answer)
        with self._lock:
            done(verdict)


def judge(mutant: Mutant, answer: dict[str, Any]) -> Verdict:
    """Say what an answer of a worker means for a mutant."""
    code, failed = answer["code"], answer["failed"]
    if code is None:
        return Verdict(mutant, killed=True, by="the tests did not end in time")
    if code == NOT_BEGUN and UNREADABLE in answer["output"]:  # which can be read without the mutant
        return Verdict(mutant, killed=True, by="a conftest.py that can't be imported")
    if code != PASSED and code not in FAILED:
        raise UnusableError(f"pytest can't run {' '.join(mutant.tests)}:\n{answer['output'][-SAID:]}")
    if mutant.all_of_them:
        missed = [test for test in mutant.tests if not any(_is_of(each, test) for each in failed)]
        by = f"not noticed by {', '.join(missed)}" if missed else _said(failed)
        return Verdict(mutant, killed=not missed, by=by)
    return Verdict(mutant, killed=code != PASSED, by=_said(failed))


def _said(failed: Mapping[str, str]) -> str:
    return "; ".join(f"{test} ({why})" for test, why in failed.items())


def _is_of(failed: str, test: str) -> bool:
    """Whether a test that failed is one of those that a name stands for: a file, a test, or its parameters."""
    return failed == test or failed.startswith((f"{test}::", f"{test}["))


class _Worker:
    """Process that tries one mutant after the other in one copy of the tree."""

    def __init__(self, tree: Path, package: str) -> None:
        self.tree = tree
        self._package = package
        environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(tree)}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        self._process = subprocess.Popen(  # noqa: S603
            [sys.executable, str(Path(__file__).with_name("worker.py"))],
            cwd=tree,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(
        self,
        tests: tuple[str, ...],
        *,
        load: Sequence[str],
        within: float,
        mutant: Mutant | None = None,
        learning: bool = False,
    ) -> None:
        """Send a request."""
        request = {
            "tests": tests,
            "load": load,
            "within": within,
            "file": mutant.file if mutant else "",
            "text": mutant.text if mutant else "",
            "stop": not learning and not (mutant and mutant.all_of_them),
            "package": self._package,
            "ask": learning,
        }
        assert self._process.stdin  # noqa: S101 - it is a pipe
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """Wait for the answer to the last request."""
        assert self._process.stdout  # noqa: S101 - it is a pipe
        line = self._process.stdout.readline()
        if not line:
            raise UnusableError("a worker ended")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def stop(self) -> None:
        """End the process."""
        with self._process:
            self._process.kill()


def copy_tree(root: Path, copy: Path) -> None:
    """Copy the files that are in Git, or would be: all where there is no Git."""
    if not (root / ".git").exists():
        shutil.copytree(root, copy, dirs_exist_ok=True)
        return
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=root, capture_output=True, text=True, check=True).stdout  # noqa: S603
    for name in filter(None, names.split("\0")):
        if (root / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, copy / name)
