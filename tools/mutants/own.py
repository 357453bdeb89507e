"""Our own list of mutants: what only races, crashes, clocks and the network show, which no library thinks of."""

from __future__ import annotations

import ast
import tomllib
from typing import TYPE_CHECKING

from tools.mutants.made import described
from tools.mutants.trials import Mutant, UnusableError

if TYPE_CHECKING:
    from pathlib import Path


def listed(file: Path, root: Path) -> list[Mutant]:
    """Read the list. Raises `UnusableError` where a text isn't found exactly once, or a test isn't there."""
    mutants = []
    for each in tomllib.loads(file.read_text())["mutant"]:
        text = (root / each["file"]).read_text()
        found = text.count(each["text"])
        if found != 1:
            raise UnusableError(f"“{each['name']}”: {each['file']} has its text {found} times:\n{each['text']}")
        changed = text.replace(each["text"], each["becomes"])
        try:
            ast.parse(changed)
        except SyntaxError as error:
            raise UnusableError(f"“{each['name']}”: Python can't read it: {error}") from None
        tests = tuple(each["tests"])
        for test in tests:
            _check(root, each["name"], test)
        mutants.append(
            described(each["file"], text, changed, tests, name=f"{each['name']}: {each['breaks']}", all_of_them=True)
        )
    return mutants


def _check(root: Path, name: str, test: str) -> None:
    file, *path = test.partition("[")[0].split("::")
    nodes: list[ast.stmt] = ast.parse((root / file).read_text()).body if (root / file).is_file() else []
    if not nodes:
        raise UnusableError(f"“{name}”: there is no {file}")
    for part in path:
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        inner = next((node for node in nodes if isinstance(node, kinds) and node.name == part), None)
        if inner is None:
            raise UnusableError(f"“{name}”: there is no test {test}")
        nodes = inner.body
