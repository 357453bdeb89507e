"""The options and the flags."""

from __future__ import annotations

import argparse
from dataclasses import FrozenInstanceError, fields

import pytest

from exporter.simulator import Fault, SimulatorOptions, add_arguments, options_from
from exporter.simulator.faults import PARAMETERS


@pytest.fixture
def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="simulate", exit_on_error=False)
    add_arguments(parser)
    return parser


def test_without_flags_the_defaults(parser: argparse.ArgumentParser) -> None:
    assert options_from(parser.parse_args([])) == SimulatorOptions()


def test_every_flag(parser: argparse.ArgumentParser) -> None:
    line = (
        "--dids 5 --connections 2 --seed 9 --broken 0.5 --churn 2 --outage 30 --latency 0.1 --rate-limit 0 "
        "--retry-after --api-key a --api-key b --fault html --fault status:sync:status=503"
    )
    assert options_from(parser.parse_args(line.split())) == SimulatorOptions(
        dids=5,
        connections=2,
        seed=9,
        broken=0.5,
        churn=2,
        outage=30,
        latency=0.1,
        rate_limit=0,
        retry_after=True,
        api_keys=("a", "b"),
        faults=(Fault(kind="html"), Fault(kind="status", endpoint="sync", status=503)),
    )
    assert options_from(parser.parse_args(["--no-retry-after"])).retry_after is False


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--dids many", "'many' is not a number"),
        ("--dids -1", "dids must be from 0 to 1,000,000, not -1"),
        ("--connections 0", "connections must be from 1 to 10,000, not 0"),
        ("--broken 1.5", "broken must be from 0 to 1, not 1.5"),
        ("--churn nan", "churn must be from 0 to 3,600, not nan"),
        ("--fault nonsense", "unknown fault 'nonsense'"),
    ],
)
def test_a_wrong_flag_says_what_is_wrong(parser: argparse.ArgumentParser, line: str, said: str) -> None:
    flag, value = line.split()
    with pytest.raises(argparse.ArgumentError) as caught:
        parser.parse_args([f"{flag}={value}"])
    assert str(caught.value).startswith(f"argument {flag}: {said}")


def test_an_empty_key_is_refused(parser: argparse.ArgumentParser) -> None:
    with pytest.raises(ValueError, match="api_keys must not be empty strings"):
        options_from(parser.parse_args(["--api-key", ""]))


def test_the_help_names_every_fault_and_every_flag_has_a_text(parser: argparse.ArgumentParser) -> None:
    text = " ".join(parser.format_help().split())
    assert all(kind in text for kind in PARAMETERS)
    dests = {action.dest for action in parser._actions if action.help}  # noqa: SLF001 - argparse has no other list
    assert {item.name for item in fields(SimulatorOptions)} - dests == {"journal_size"}


def test_options_are_frozen() -> None:
    options = SimulatorOptions()
    with pytest.raises(FrozenInstanceError):
        options.dids = 1  # type: ignore[misc]
