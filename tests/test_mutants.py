"""`make mutants`: a mutant that no test notices is shown and fails the run, and the lists can't rot."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.markdown import ROOT
from tools.mutants.made import explained, modules
from tools.mutants.own import listed
from tools.mutants.trials import Mutant, UnusableError, judge

if TYPE_CHECKING:
    from pathlib import Path

DATA = ROOT / "tests" / "mutants"
CODE = """
LIMIT = 5


def allowed(count: int) -> bool:
    return count < LIMIT
"""
HELD = """
from product import allowed


def test_a_limit():
    assert allowed(4)
    assert not allowed(5)


def test_that_holds_nothing():
    assert allowed(1)
"""
MODULES = """
[[module]]
file = "product.py"
tests = ["test_product.py"]
"""
EXPLAINED = """
[[survivor]]
file = "product.py"
within = "allowed"
before = "return count < LIMIT"
after = "return count <= LIMIT"
why = "only an example"
"""
OWN = """
[[mutant]]
name = "no limit"
breaks = "everything is allowed"
file = "product.py"
text = "count < LIMIT"
becomes = "True"
tests = ["test_product.py::{}"]
"""


def tree(folder: Path, *, held: str = HELD, explained: str = "", own: str = "mutant = []") -> Path:
    """Write a product of one module with its tests and lists."""
    data = folder / "tests" / "mutants"
    data.mkdir(parents=True)
    for file, text in (
        (folder / "product.py", CODE),
        (folder / "test_product.py", held),
        (folder / "pyproject.toml", '[tool.pytest.ini_options]\npythonpath = ["."]\n'),
        (data / "modules.toml", MODULES),
        (data / "explained.toml", explained),
        (data / "list.toml", own),
    ):
        file.write_text(text)
    return folder


def run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the driver on another tree than its own."""
    command = [sys.executable, "-m", "tools.mutants", f"--root={folder}", "--package=product", "--jobs=1", *options]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("COV_", "PYTEST_"))}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100, check=False)


@pytest.mark.e2e
def test_what_every_test_run_notices_is_killed(tmp_path: Path) -> None:
    done = run(tree(tmp_path, own=OWN.format("test_a_limit")), "--sample=0")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (
        "killed   no limit: everything is allowed\n         by test_product.py::test_a_limit (assert not True"
        in done.stdout
    )
    assert [line.split() for line in done.stdout.splitlines()[-3:]] == [
        ["product.py", "3", "3", "100.0", "0", "0"],
        ["our", "own", "list", "1", "1", "100.0", "0", "0"],
        ["all", "4", "4", "100.0", "0", "0"],
    ]
    assert (tmp_path / "product.py").read_text() == CODE  # only copies are changed


@pytest.mark.e2e
def test_what_no_test_notices_has_survived_and_fails_the_run(tmp_path: Path) -> None:
    weak = HELD.replace("    assert not allowed(5)\n", "    assert not allowed(6)\n")
    done = run(tree(tmp_path, held=weak, own=OWN.format("test_that_holds_nothing")), "--sample=0")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "SURVIVED product.py:6 in allowed" in done.stdout
    assert "-    return count < LIMIT\n+    return count <= LIMIT\n" in done.stdout
    assert (
        "SURVIVED no limit: everything is allowed not noticed by test_product.py::test_that_holds_nothing"
        in done.stdout
    )


@pytest.mark.e2e
def test_a_survivor_that_is_explained_is_not_shown_and_is_not_killed_either(tmp_path: Path) -> None:
    weak = HELD.replace("    assert not allowed(5)\n", "    assert not allowed(6)\n")
    done = run(tree(tmp_path, held=weak, explained=EXPLAINED), "--sample=0")
    assert done.returncode == 1
    assert "SURVIVED product.py:6" not in done.stdout
    assert done.stdout.splitlines()[-1].split() == ["all", "3", "1", "33.3", "1", "1"]  # a limit of 6 is not explained


@pytest.mark.e2e
def test_tests_that_fail_without_a_mutant_judge_none(tmp_path: Path) -> None:
    done = run(tree(tmp_path, held=HELD.replace("allowed(4)", "allowed(9)")), "--sample=0")
    assert done.returncode == 2
    assert "mutants: tests fail without a mutant:" in done.stderr


MUTANT = Mutant("name", "file", "text", "diff", ("tests/test_a.py::test_b", "tests/test_c.py"), all_of_them=True)


@pytest.mark.parametrize(
    ("failed", "killed", "by"),
    [
        ([], False, "not noticed by tests/test_a.py::test_b, tests/test_c.py"),
        (["tests/test_a.py::test_b[x]"], False, "not noticed by tests/test_c.py"),
        (["tests/test_a.py::test_bb", "tests/test_c.py::test_d"], False, "not noticed by tests/test_a.py::test_b"),
        (["tests/test_a.py::test_b", "tests/test_c.py"], True, "tests/test_a.py::test_b (so); tests/test_c.py (so)"),
    ],
)
def test_a_mutant_of_the_list_is_killed_by_all_tests_that_it_names(failed: list[str], killed: bool, by: str) -> None:  # noqa: FBT001 - expected
    verdict = judge(MUTANT, answer(code=int(bool(failed)), failed=dict.fromkeys(failed, "so")))
    assert (verdict.killed, verdict.by) == (killed, by)


def answer(**more: Any) -> dict[str, Any]:  # noqa: ANN401 - a worker's
    return {"code": 0, "failed": {}, "output": "", **more}


def test_tests_that_do_not_end_have_noticed_it() -> None:
    assert judge(MUTANT, answer(code=None)).killed


def test_a_mutant_by_which_a_conftest_can_not_be_imported_is_noticed() -> None:
    said = "ImportError while loading conftest '/tmp/copy/tests/heal/conftest.py'.\nE   TypeError: no"
    assert judge(MUTANT, answer(code=4, output=said)).killed


def test_tests_that_pytest_can_not_run_judge_nothing() -> None:
    with pytest.raises(UnusableError, match="pytest can't run"):
        judge(MUTANT, answer(code=4))


def test_our_lists_are_of_this_code() -> None:
    assert len(listed(DATA / "list.toml", ROOT)) >= 40
    explained(DATA / "explained.toml", ROOT)
    for module in modules(DATA / "modules.toml"):
        assert all((ROOT / file).is_file() for file in (module.file, *module.tests))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("count < LIMIT", "count > LIMIT"), "product.py has its text 0 times"),
        (('becomes = "True"', 'becomes = "= ="'), "Python can't read it"),
        (("::test_a_limit", "::test_of_old"), "there is no test test_product.py::test_of_old"),
        (("test_product.py", "test_gone.py"), "there is no test_gone.py"),
    ],
)
def test_a_list_that_does_not_fit_the_code_is_an_error(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    folder = tree(tmp_path, own=OWN.format("test_a_limit").replace(*change))
    with pytest.raises(UnusableError, match=said):
        listed(folder / "tests" / "mutants" / "list.toml", folder)


def test_an_explanation_that_does_not_fit_the_code_is_an_error(tmp_path: Path) -> None:
    folder = tree(tmp_path, explained=EXPLAINED.replace("count < LIMIT", "count > LIMIT"))
    with pytest.raises(UnusableError, match=r"product\.py does not have"):
        explained(folder / "tests" / "mutants" / "explained.toml", folder)
