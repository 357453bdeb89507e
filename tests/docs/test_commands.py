"""docs/reference/commands.md and the parser say the same, and every command line that a page quotes parses."""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import shlex
from typing import TYPE_CHECKING, Any

import pytest

from exporter.cli.main import _parser
from tests.support.markdown import ROOT, blocks, codes, inline_code, pages, read, rows, section, sections

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = "docs/reference/commands.md"
ROOT_SECTION = "Without a command"
Flags = dict[str, str]  # default by name: of a flag, or of what has none
ENDS = re.compile(r"[|;&<>()]+")


def commands_of(parser: argparse.ArgumentParser, name: str = "") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    inner = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]  # noqa: SLF001
    if not inner or not name:
        yield name, parser
    for action in inner:
        for word, command in action.choices.items():
            yield from commands_of(command, f"{name} {word}".strip())


def flags_of(parser: argparse.ArgumentParser) -> Flags:
    found: Flags = {}
    for action in parser._actions:  # noqa: SLF001 - argparse shows them nowhere else
        if not isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for name in action.option_strings or [str(action.metavar)]:
                found[name] = "" if action.default in (None, argparse.SUPPRESS, False) else str(action.default)
    return found


def in_the_code() -> dict[str, Flags]:
    return {name or ROOT_SECTION: flags_of(parser) for name, parser in commands_of(_parser())}


def own_flags(text: str) -> dict[str, tuple[str, ...]]:
    """Return what a section's tables name, each with what stands in its default's backticks."""
    return {
        code.split("[")[0].split()[0]: tuple(codes(row["Default"]))
        for row in rows(text)
        if "Flag" in row
        for code in codes(row["Flag"])
    }


def in_the_docs(text: str) -> dict[str, dict[str, tuple[str, ...]]]:
    titles = {each.title.lower().replace(" ", "-"): each for each in sections(text)}
    commands = {}
    for each in sections(text):
        takes = re.search(r"^Takes the flags of: (.+)$", each.text, re.MULTILINE)
        if takes or each.title == ROOT_SECTION:
            flags: dict[str, tuple[str, ...]] = {}
            for anchor in re.findall(r"\(#([^)]+)\)", takes[1] if takes else ""):
                flags |= own_flags(titles[anchor].text)
            commands[each.title.strip("`")] = flags | own_flags(each.text)
    return commands


def differences(text: str) -> dict[str, tuple[Any, Any]]:
    """Return what code and page say differently: the code's word and the page's."""
    code, page = in_the_code(), in_the_docs(text)
    wrong: dict[str, tuple[Any, Any]] = {name: (name in code, name in page) for name in code.keys() ^ page.keys()}
    for name in code.keys() & page.keys():
        for flag in code[name].keys() | page[name].keys():
            default, said = code[name].get(flag), page[name].get(flag)
            if default is None or said is None or (default and default not in said):
                wrong[f"{name} {flag}"] = default, said
    listed = {codes(row["Command"])[0] for row in rows(text) if "Command" in row}
    return wrong | {f"list: {name}": (name in code, name in listed) for name in (code.keys() - {ROOT_SECTION}) ^ listed}


def quoted(text: str) -> Iterator[list[str]]:
    """Yield the words of every command line of ours that a page quotes, without the program."""
    commands = "|".join(name for name in in_the_code() if name != ROOT_SECTION)
    short = re.compile(rf"(?:{commands}) (?:--|NUMBER|\+\d).*", re.DOTALL)
    inline = [
        f"voicelink-exporter {code}" if short.fullmatch(code) else code  # a command with its flags, for short
        for code in inline_code(text)
        if short.fullmatch(code) or re.match(r"(?:\S*/)?voicelink-exporter [a-z-]", code)
    ]
    shell = [
        line
        for block in blocks(text)
        if block.info.split()[:1] in ([], ["sh"], ["console"], ["bash"], ["ini"])
        for line in block.text.replace("\\\n", " ").splitlines()
        if "voicelink-exporter" in line
    ]
    for line in [*inline, *shell]:
        words: list[str] = []
        ours = False
        lexer = shlex.shlex(line.removeprefix("ExecStart="), posix=True, punctuation_chars=True)
        lexer.wordchars += ":,+…$%@[]"
        for word in [*lexer, ";"]:
            if ENDS.fullmatch(word):
                if ours:
                    yield words
                words, ours = [], False
            elif ours:
                words.append(word)
            elif re.fullmatch(r"(?:\S*/)?voicelink-exporter", word):
                ours = True
            elif not re.fullmatch(r"\$|[A-Z_]+=\S*", word):  # some other program, which may name ours
                break


def problem(words: list[str]) -> str:
    """Return what the parser says against a command line."""
    if not words or (words[0].startswith("-") and words[0] not in {"-h", "--help", "--version"}):
        words = ["serve", *words]
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            _parser().parse_args(words)
    except SystemExit as end:
        return said.getvalue() if end.code else ""
    return ""


def test_the_page_names_every_command_and_flag_with_its_default_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CONFIG_FILE", "WEB_CONFIG_FILE", "LOG_LEVEL", "LOG_FORMAT"):
        monkeypatch.delenv(f"VOICELINK_{name}", raising=False)
    assert differences(read(PAGE)) == {}


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("## `config-schema`", "## `schema`", {"config-schema", "schema"}),
        ("| `--force` |", "| `--hard` |", {"heal run --force", "heal run --hard"}),
        ("| `--yes` | no | Send without asking |\n", "", {"heal run --yes"}),
        ("| `--dids N` | `40` |", "| `--dids N` | `41` |", {"demo --dids"}),
        ("| `--seed N` | `1` |", "| `--seed N` | `2` |", {"simulate --seed", "demo --seed"}),
        ("| `--listen HOST:PORT` | `127.0.0.1:10881` |", "| `--listen HOST:PORT` | `:10881` |", {"simulate --listen"}),
        ("| [`poll`](#poll) | asks", "| [`ask`](#poll) | asks", {"list: poll", "list: ask"}),
        ("| `--version` |", "| `-V` |", {f"{ROOT_SECTION} --version", f"{ROOT_SECTION} -V"}),
    ],
)
def test_a_page_that_says_something_else_is_noticed(old: str, new: str, found: set[str]) -> None:
    text = read(PAGE)
    assert old in text
    assert set(differences(text.replace(old, new, 1))) - set(differences(text)) == found


@pytest.mark.parametrize("page", [page.relative_to(ROOT).as_posix() for page in pages()])
def test_every_command_line_that_a_page_quotes_parses(page: str) -> None:
    assert [(words, why) for words in quoted(read(page)) if (why := problem(words))] == []


def test_command_lines_are_found_and_wrong_ones_noticed() -> None:
    text = (
        "`heal run NUMBER --now`, `heal run` and `heal: false`, `poll failed`, `voicelink-exporter pol` and\n"
        "`/opt/bin/voicelink-exporter heal pause`, but not `voicelink-exporter`\n"
        "```sh\nA=b voicelink-exporter --web.port 1 | head\nvoicelink-exporter heal \\\n  plan --output yaml\n"
        'voicelink-exporter heal release 1 --reason "a b"; cp voicelink-exporter x\n```\n'
    )
    lines = list(quoted(text))
    assert lines == [
        ["heal", "run", "NUMBER", "--now"],
        ["pol"],
        ["heal", "pause"],
        ["--web.port", "1"],
        ["heal", "plan", "--output", "yaml"],
        ["heal", "release", "1", "--reason", "a b"],
    ]
    assert [bool(problem(line)) for line in lines] == [True, True, True, True, True, False]
    assert sum(len(list(quoted(page.read_text(encoding="utf-8")))) for page in pages()) > 20


def test_exit_codes_are_said_of_every_command() -> None:
    text = read(PAGE)
    silent = [
        name
        for name in in_the_code().keys() - {ROOT_SECTION, "simulate", "demo"}
        if "xits" not in section(text, f"`{name}`").text.replace("\n", " ")
    ]
    assert silent == []
