"""The commands and their flags.

What a command needs is imported when it is called for: `--help` needs no web server.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from functools import partial
from typing import TYPE_CHECKING, Final

from exporter import __version__
from exporter.errors import ConfigError, ExporterError, StartupError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from exporter.config import Settings
    from exporter.simulator import SimulatorOptions

OK: Final = 0
NO: Final = 1
FAILED: Final = 2
LEVELS: Final = ("debug", "info", "warn", "error")
FORMATS: Final = ("logfmt", "json")
WHY: Final = "why, for those who read the ledger"
DEMO_ADDRESS: Final = "127.0.0.1:10880"
FLAG_KEYS: Final = {"web.listen_address": "listen_address"}  # configuration key to the flag's place in the namespace


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code: 0 fine, 1 the answer is "no", 2 it could not be done."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or (words[0].startswith("-") and words[0] not in {"-h", "--help", "--version"}):
        words.insert(0, "serve")
    args = _parser(words[0]).parse_args(words)
    try:
        _check_environment(args)
        run: Callable[[argparse.Namespace], int] = args.run
        code = run(args)
        print(end="", flush=True)  # noqa: T201 - a reader that went away shows here, not when Python ends
    except ConfigError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)  # noqa: T201
    except ExporterError as error:
        print(f"voicelink-exporter: {error}", file=sys.stderr)  # noqa: T201
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader went away, as head does
    except KeyboardInterrupt:
        pass
    else:
        return code
    return FAILED


def settings_of(args: argparse.Namespace, environ: Mapping[str, str] = os.environ, *, secrets: bool = True) -> Settings:
    """Load what the flags, the environment and the file say; without `secrets`, no keys. Raises `ConfigError`."""
    from exporter.config import load_settings

    given = {key: getattr(args, name, None) for key, name in FLAG_KEYS.items()}
    flags = {key: said[0] if len(said) == 1 else said for key, said in given.items() if said}
    return load_settings(_path(args.config_file), environ, flags, secrets=secrets)


def _check_environment(args: argparse.Namespace) -> None:
    """Check what argparse takes from the environment unchecked. Raises `ConfigError`."""
    said = (("VOICELINK_LOG_LEVEL", args.log_level, LEVELS), ("VOICELINK_LOG_FORMAT", args.log_format, FORMATS))
    problems = [
        f"{name}: has to be one of {', '.join(choices)}, not {value!r:.60}"
        for name, value, choices in said
        if value not in choices
    ]
    if problems:
        raise ConfigError(problems)


def _parser(chosen: str | None = None) -> argparse.ArgumentParser:
    """Return the parser. Where a command was `chosen`, the others have no flags: what those need isn't loaded."""
    parser = argparse.ArgumentParser(
        prog="voicelink-exporter",
        description="Prometheus exporter for the readiness of VoiceLink numbers behind Vocobase voice agents.",
        epilog="Without a command it serves. Exit codes: 0 fine, 1 the answer is no, 2 it could not be done.",
    )
    parser.add_argument("--version", action="version", version=f"voicelink-exporter {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, add, text in (
        ("serve", _add_serve, "poll the API and answer scrapes until SIGTERM"),
        ("check-config", _add_check_config, "name every problem of the configuration; 0 valid, 1 not"),
        ("config-schema", _add_config_schema, "print the JSON Schema of the configuration file"),
        ("poll", _add_poll, "poll every target once; 0 all ready, 1 some not, 2 could not tell"),
        ("heal", _add_heal, "what healing would do, what it did, and your word on it"),
        ("simulate", _add_simulate, "stand in for the API on this machine"),
        ("demo", _add_demo, "simulate and serve in one process on loopback"),
        ("healthcheck", _add_healthcheck, "0 when the daemon on the address is healthy"),
    ):
        command = commands.add_parser(name, help=text, description=_sentence(text))
        if chosen in (None, name):
            add(command)
    return parser


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _add_serve(parser: argparse.ArgumentParser) -> None:
    _runs(parser, _serve)
    _listening(parser)
    _lifecycle(parser)
    _sharding(parser)


def _add_check_config(parser: argparse.ArgumentParser) -> None:
    _runs(parser, _check_config)
    _web_file(parser)


def _add_config_schema(parser: argparse.ArgumentParser) -> None:
    _runs(parser, _config_schema)


def _add_poll(parser: argparse.ArgumentParser) -> None:
    _runs(parser, _poll)
    _output(parser)


def _add_simulate(parser: argparse.ArgumentParser) -> None:
    from exporter.simulator.options import add_arguments

    _runs(parser, _simulate)
    parser.add_argument(
        "--listen", default="127.0.0.1:10881", metavar="HOST:PORT", help="where to listen (%(default)s)"
    )
    add_arguments(parser)


def _add_demo(parser: argparse.ArgumentParser) -> None:
    from exporter.simulator.options import add_arguments

    _runs(parser, _demo)
    _listening(parser, DEMO_ADDRESS)
    add_arguments(parser)
    parser.set_defaults(dids=40, connections=2, broken=0.1, churn=20.0, outage=60.0, rate_limit=0)


def _add_healthcheck(parser: argparse.ArgumentParser) -> None:
    _runs(parser, _healthcheck)
    _listening(parser)


def _add_heal(parser: argparse.ArgumentParser) -> None:
    from exporter.model import Outcome

    actions = parser.add_subparsers(required=True, metavar="ACTION")
    plan = _action(actions, "plan", _heal_plan, "what enforce would do now, DID by DID, and why not where not")
    run = _action(actions, "run", _heal_run, "heal now, by hand, through the same ledger and claims")
    run.add_argument("numbers", nargs="*", metavar="NUMBER", help="the DIDs to heal, with their country code")
    run.add_argument("--all-healable", action="store_true", help="every DID that can be healed")
    run.add_argument("--yes", action="store_true", help="send without asking")
    run.add_argument("--force", action="store_true", help="pass the guards of the fleet, and a DID's backoff")
    history = _action(actions, "history", _heal_history, "the ledger: every heal, newest first")
    history.add_argument("number", nargs="?", metavar="NUMBER", help="of this DID alone")
    history.add_argument("--since", metavar="DURATION", help="those that were claimed in the last 24h, 7d, …")
    history.add_argument("--outcome", choices=[each.value for each in Outcome], help="those that ended so")
    history.add_argument("--limit", type=_limit, default=1000, metavar="N", help="at most so many rows (%(default)s)")
    release = _action(actions, "release", _heal_release, "lift a DID's quarantine or backoff; 1 when there is none")
    release.add_argument("number", metavar="NUMBER", help="the DID")
    pause = _action(actions, "pause", _heal_pause, "stop all automatic healing on every replica that shares the store")
    for each in (release, pause):
        each.add_argument("--reason", required=True, type=_reason, metavar="TEXT", help=WHY)
    for each in (plan, history):
        _output(each)
    resume = _action(actions, "resume", _heal_resume, "start automatic healing again, and lift what stopped an account")
    resume.add_argument("--reason", default="", metavar="TEXT", help=WHY)
    resume.add_argument(
        "--new-store",
        action="store_true",
        help="let the daemon go on with the store that is there now, or make one, when the one that it had is gone",
    )


def _reason(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("has to say why")
    return text


def _limit(text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,8}", text):
        raise argparse.ArgumentTypeError("has to be a whole number from 1")
    return int(text)


def _action(
    actions: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: Callable[[argparse.Namespace], int],
    text: str,
) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=text, description=_sentence(text))
    _runs(parser, run)
    return parser


def _runs(parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], int]) -> None:
    """Say what the parser's command runs, and give it the flags that every command takes."""
    parser.set_defaults(run=run)
    parser.add_argument(
        "--config.file",
        dest="config_file",
        metavar="FILE",
        default=os.environ.get("VOICELINK_CONFIG_FILE"),
        help="the configuration; without one VOCOBASE_API_KEY is enough",
    )
    parser.add_argument(
        "--log.level",
        dest="log_level",
        choices=LEVELS,
        default=os.environ.get("VOICELINK_LOG_LEVEL") or "info",
        help="the least that is logged (%(default)s)",
    )
    parser.add_argument(
        "--log.format",
        dest="log_format",
        choices=FORMATS,
        default=os.environ.get("VOICELINK_LOG_FORMAT") or "logfmt",
        help="how it is logged (%(default)s)",
    )


def _output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", choices=("table", "json"), default="table", help="how to print (%(default)s)")


def _listening(parser: argparse.ArgumentParser, default: str = ":10880") -> None:
    parser.add_argument(
        "--web.listen-address",
        dest="listen_address",
        metavar="ADDRESS",
        action="append",
        help=f"HOST:PORT or unix:/PATH, where the exporter listens ({default}); can be given several times",
    )
    _web_file(parser)


def _web_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--web.config.file",
        dest="web_file",
        metavar="FILE",
        default=os.environ.get("VOICELINK_WEB_CONFIG_FILE"),
        help="TLS, passwords and headers, in the format of Prometheus' exporter-toolkit; without one, none of them",
    )


def _lifecycle(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--web.enable-lifecycle",
        dest="lifecycle",
        action="store_true",
        help="let POST /-/reload read the configuration anew, as SIGHUP does",
    )


def _sharding(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--shard",
        metavar="N",
        default=os.environ.get("VOICELINK_SHARD") or "0",
        help="poll this part of the targets alone, counted from 0; or the name of a StatefulSet's pod (%(default)s)",
    )
    parser.add_argument(
        "--total-shards",
        metavar="M",
        default=os.environ.get("VOICELINK_TOTAL_SHARDS") or "1",
        help="how many parts there are (%(default)s)",
    )


def _set_up(args: argparse.Namespace) -> None:
    from exporter.logs import set_up_logging

    set_up_logging(args.log_level, args.log_format)


def _serve(args: argparse.Namespace) -> int:
    import asyncio

    from exporter.shards import parse_shard

    try:
        shard = parse_shard(args.shard, args.total_shards)
    except ValueError as error:
        raise StartupError(str(error)) from None
    settings = settings_of(args)
    _set_up(args)
    from exporter.app import Options, serve

    options = Options(partial(settings_of, args), lifecycle=args.lifecycle, shard=shard, web_file=_path(args.web_file))
    asyncio.run(serve(settings, options))
    return OK


def _check_config(args: argparse.Namespace) -> int:
    from exporter.config import suspicious

    problems: list[str] = []
    settings = None
    try:
        settings = settings_of(args)
    except ConfigError as error:
        problems += error.problems
    try:
        _check_web_file(args)
    except ConfigError as error:
        problems += error.problems
    if settings:
        problems += suspicious(settings)
    if problems or settings is None:
        print("\n".join(problems))  # noqa: T201
        return NO
    print("the configuration is valid")  # noqa: T201
    print(f"store: {settings.store_problem or settings.store}")  # noqa: T201
    return OK


def _check_web_file(args: argparse.Namespace) -> None:
    if args.web_file:
        from exporter.clock import SystemClock
        from exporter.web.security import Security

        Security(_path(args.web_file), SystemClock()).close()


def _config_schema(_: argparse.Namespace) -> int:
    from exporter.config.json_schema import json_schema

    print(json_schema(), end="")  # noqa: T201
    return OK


def _poll(args: argparse.Namespace) -> int:
    import asyncio

    settings = settings_of(args)
    _set_up(args)
    from exporter.cli.poll import poll_once

    return asyncio.run(poll_once(settings, args.output))


def _heal_plan(args: argparse.Namespace) -> int:
    import asyncio

    settings = settings_of(args)
    _set_up(args)
    from exporter.cli.heal import plan

    return asyncio.run(plan(settings, args.output))


def _heal_run(args: argparse.Namespace) -> int:
    import asyncio

    if not args.numbers and not args.all_healable:
        raise StartupError("heal run: name the DIDs to heal, or say --all-healable")
    settings = settings_of(args)
    _set_up(args)
    from exporter.cli.heal import Wanted, run

    wanted = Wanted(tuple(args.numbers), all_healable=args.all_healable, yes=args.yes, force=args.force)
    return asyncio.run(run(settings, wanted))


def _heal_history(args: argparse.Namespace) -> int:
    settings = settings_of(args, secrets=False)
    from exporter.cli.ledger import Filter, history

    return history(settings, Filter(args.number, args.since, args.outcome, args.limit), args.output)


def _heal_release(args: argparse.Namespace) -> int:
    settings = settings_of(args, secrets=False)
    from exporter.cli.ledger import release

    return release(settings, args.number, args.reason)


def _heal_pause(args: argparse.Namespace) -> int:
    settings = settings_of(args, secrets=False)
    from exporter.cli.ledger import pause

    return pause(settings, args.reason)


def _heal_resume(args: argparse.Namespace) -> int:
    settings = settings_of(args, secrets=False)
    from exporter.cli.ledger import resume

    return resume(settings, args.reason, new_store=args.new_store)


def _simulate(args: argparse.Namespace) -> int:
    import asyncio

    _set_up(args)
    from exporter.cli.simulate import simulate

    asyncio.run(simulate(args.listen, _simulator_options(args)))
    return OK


def _demo(args: argparse.Namespace) -> int:
    import asyncio

    _set_up(args)
    from exporter.cli.demo import demo

    asyncio.run(demo(args.listen_address or [DEMO_ADDRESS], _simulator_options(args), web_file=_path(args.web_file)))
    return OK


def _simulator_options(args: argparse.Namespace) -> SimulatorOptions:
    from exporter.simulator import options_from

    try:
        return options_from(args)
    except ValueError as error:
        raise StartupError(str(error)) from None


def _healthcheck(args: argparse.Namespace) -> int:
    from exporter.cli.health import why_unhealthy

    address = _address(args)
    problem = why_unhealthy(address, _path(args.web_file))
    if problem:
        print(  # noqa: T201
            f"voicelink-exporter: not healthy at {address}: {problem}. "
            "If the daemon listens elsewhere, name it with --web.listen-address",
            file=sys.stderr,
        )
    return NO if problem else OK


def _path(text: str | None) -> Path | None:
    from pathlib import Path

    return Path(text) if text else None


def _address(args: argparse.Namespace) -> str:
    """Return where the daemon listens first, without asking for its secrets where that can be told without."""
    said = args.listen_address or [os.environ.get("VOICELINK_WEB_LISTEN_ADDRESS", "").partition(",")[0].strip()]
    if said[0] or not args.config_file:
        return str(said[0] or ":10880")
    return str(settings_of(args).config.web.listen_address[0])
