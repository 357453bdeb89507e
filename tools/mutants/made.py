"""Mutants that mutmut makes of a module, and which of them somebody explained."""

from __future__ import annotations

import ast
import random
import re
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mutmut.mutation.file_mutation import create_mutations, deep_replace

from tools.mutants.trials import Mutant, UnusableError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import libcst as cst

# mutmut's own way of running mutants can't switch between the variants of a decorated function, so it leaves those out.
# Ours can: what it takes for a comment doesn't keep it from such a function.
_DECORATOR: Final = re.compile(r"^( *)@(?!dataclass)", re.MULTILINE)
_HIDDEN: Final = "#hidden@"
AROUND: Final = 2  # lines that are shown around a change


@dataclass(frozen=True, slots=True)
class Module:
    """Module to be mutated, and the test files that hold it, the fastest first."""

    file: str
    tests: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Explained:
    """Mutant that changes nothing that could be noticed, and why."""

    file: str
    within: str
    before: str
    after: str
    why: str

    def is_of(self, mutant: Mutant) -> bool:
        """Whether this explains a mutant."""
        return (self.file, self.within, self.before, self.after) == (
            mutant.file,
            mutant.within,
            mutant.before,
            mutant.after,
        )


def modules(file: Path) -> list[Module]:
    """Read which modules are to be mutated."""
    return [Module(each["file"], tuple(each["tests"])) for each in tomllib.loads(file.read_text())["module"]]


def explained(file: Path, root: Path) -> list[Explained]:
    """Read which survivors are explained. Raises `UnusableError` where one names what is not there any more."""
    found = [
        Explained(each["file"], each["within"], _lines(each["before"]), _lines(each["after"]), each["why"])
        for each in tomllib.loads(file.read_text()).get("survivor", [])
    ]
    for each in found:
        if each.before not in _lines((root / each.file).read_text()):
            raise UnusableError(
                f"{file.name} explains a change of lines that {each.file} does not have:\n{each.before}"
            )
    return found


def sample(root: Path, chosen: list[Module], size: int, seed: int) -> list[Mutant]:
    """Return so many of the mutants of all modules, chosen by a seed; all of them where the size is 0."""
    made = [(module, *each) for module in chosen for each in _mutations(root / module.file)]
    if size and size < len(made):
        picked = sorted(random.Random(seed).sample(range(len(made)), size))  # noqa: S311 - a sample, no secret
        made = [made[index] for index in picked]
    mutants: dict[str, Mutant] = {}
    for module, tree, old, new in made:
        mutant = _mutant(module, (root / module.file).read_text(), _code(tree, old, new))
        if mutant:
            mutants.setdefault(mutant.file + mutant.text, mutant)
    return list(mutants.values())


def _mutations(file: Path) -> Iterator[tuple[cst.Module, cst.CSTNode, cst.CSTNode]]:
    text = file.read_text()
    if _HIDDEN in text:
        raise UnusableError(f"{file} contains {_HIDDEN}")
    tree, mutations, _, _ = create_mutations(str(file), _DECORATOR.sub(rf"\1{_HIDDEN}", text))
    for each in mutations:
        yield tree, each.original_node, each.mutated_node


def _code(tree: cst.Module, old: cst.CSTNode, new: cst.CSTNode) -> str:
    changed = deep_replace(tree, old, new)
    return str(getattr(changed, "code", "")).replace(_HIDDEN, "@")


def _mutant(module: Module, text: str, changed: str) -> Mutant | None:
    """Return a mutant; none where nothing is changed, or Python can't read it."""
    try:
        if ast.dump(ast.parse(text)) == ast.dump(ast.parse(changed)):
            return None
    except SyntaxError:
        return None
    return described(module.file, text, changed, module.tests)


def described(
    file: str, text: str, changed: str, tests: tuple[str, ...], *, name: str = "", all_of_them: bool = False
) -> Mutant:
    """Return a mutant with its diff, and where it is."""
    old, new = text.splitlines(), changed.splitlines()
    first = next(
        (at for at, (one, two) in enumerate(zip(old, new, strict=False)) if one != two), min(len(old), len(new))
    )
    rest = min(len(old), len(new)) - first
    same = next((at for at in range(rest) if old[-1 - at] != new[-1 - at]), rest)
    before, after = old[first : len(old) - same], new[first : len(new) - same]
    around = old[max(0, first - AROUND) : first], old[len(old) - same :][:AROUND]
    marked = [f" {line}" for line in around[0]]
    marked += [f"-{line}" for line in before] + [f"+{line}" for line in after]
    marked += [f" {line}" for line in around[1]]
    within = _within(ast.parse(text), first + 1)
    return Mutant(
        name or f"{file}:{first + 1}{f' in {within}' if within else ''}",
        file,
        changed,
        "\n".join(marked),
        tests,
        all_of_them,
        within,
        _lines("\n".join(before)),
        _lines("\n".join(after)),
    )


def _within(tree: ast.Module, line: int) -> str:
    """Return the name of the innermost function or class that a line belongs to, with those around it."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    around = [
        node for node in ast.walk(tree) if isinstance(node, kinds) and node.lineno <= line <= (node.end_lineno or 0)
    ]
    return ".".join(node.name for node in sorted(around, key=lambda node: node.lineno))


def _lines(text: str) -> str:
    """Return lines without their indentation."""
    return "\n".join(stripped for each in text.splitlines() if (stripped := each.strip()))
