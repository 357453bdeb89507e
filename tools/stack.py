"""Runs the demo, Prometheus with the rules and Alertmanager on loopback, until Ctrl-C. Grafana is not part of it.

Prometheus and Alertmanager are the installed ones: Debian's packages prometheus and prometheus-alertmanager, or those
from prometheus.io. Nothing is kept: what they store is gone when this ends.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ruamel.yaml import YAML

if TYPE_CHECKING:
    from types import FrameType

ROOT: Final = Path(__file__).parent.parent
CONFIG: Final = ROOT / "config"
STOP_WITHIN: Final = 10.0  # seconds
Process = subprocess.Popen[bytes]


def main() -> int:
    """Run everything; return 0 when it was stopped, 1 when a part ended by itself, 2 when it could not start."""
    args = _parser().parse_args()
    alertmanager = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
    prometheus = shutil.which("prometheus")
    if not prometheus or not alertmanager:
        return _refuse("install prometheus and prometheus-alertmanager first; sh tools/install-system-programs does")
    ports = {"exporter": args.exporter, "Prometheus": args.prometheus, "Alertmanager": args.alertmanager}
    for name, port in ports.items():
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                return _refuse(f"port {port} is taken; choose another with --{name.lower()} PORT")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    with tempfile.TemporaryDirectory(prefix="voicelink-stack-") as name:
        folder = Path(name)
        _write_configuration(folder, args)
        commands = {
            "exporter": [sys.executable, "-m", "exporter", "demo", f"--web.listen-address=127.0.0.1:{args.exporter}"],
            "Prometheus": [
                prometheus,
                f"--config.file={folder}/prometheus.yml",
                f"--web.listen-address=127.0.0.1:{args.prometheus}",
                f"--storage.tsdb.path={folder}/prometheus",
                "--rules.alert.resend-delay=5s",
            ],
            "Alertmanager": [
                alertmanager,
                f"--config.file={folder}/alertmanager.yml",
                f"--web.listen-address=127.0.0.1:{args.alertmanager}",
                f"--storage.path={folder}/alertmanager",
                "--cluster.listen-address=",
            ],
        }
        return _run(commands, folder, ports)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, port in (("exporter", 10880), ("prometheus", 9090), ("alertmanager", 9093)):
        parser.add_argument(f"--{name}", type=int, default=port, metavar="PORT", help="on 127.0.0.1 (%(default)s)")
    return parser


def _refuse(words: str) -> int:
    print(f"stack: {words}", file=sys.stderr)  # noqa: T201
    return 2


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _write_configuration(folder: Path, args: argparse.Namespace) -> None:
    """Write the examples' configurations with our ports, and with receivers that tell nobody."""
    yaml = YAML()
    prometheus = yaml.load(CONFIG / "prometheus" / "stack.yml")
    prometheus["rule_files"] = [str(CONFIG / "prometheus" / "rules" / "voicelink-*.yml")]
    for part, port in (
        (prometheus["alerting"]["alertmanagers"][0], args.alertmanager),
        (prometheus["scrape_configs"][0], args.exporter),
    ):
        part["static_configs"][0]["targets"] = [f"127.0.0.1:{port}"]
    alertmanager = yaml.load(CONFIG / "alertmanager" / "alertmanager.yml")
    alertmanager["receivers"] = [{"name": receiver["name"]} for receiver in alertmanager["receivers"]]
    for name, content in (("prometheus", prometheus), ("alertmanager", alertmanager)):
        with (folder / f"{name}.yml").open("w", encoding="utf-8") as file:
            yaml.dump(content, file)


def _run(commands: dict[str, list[str]], folder: Path, ports: dict[str, int]) -> int:
    """Run commands, their output in files, until Ctrl-C or until one ends."""
    started: dict[str, Process] = {}
    code = 0
    with contextlib.ExitStack() as stack:
        stack.callback(_end, started)
        try:
            for name, command in commands.items():
                log = stack.enter_context((folder / f"{name}.log").open("wb"))
                # In a session of its own, so that Ctrl-C reaches it through us, once, and in order.
                started[name] = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)  # noqa: S603
            for name, port in ports.items():
                print(f"{name:13} http://127.0.0.1:{port}", flush=True)  # noqa: T201
            print("Ctrl-C ends it; alerts are on Prometheus' page /alerts", flush=True)  # noqa: T201
            while not (ended := [name for name, process in started.items() if process.poll() is not None]):
                time.sleep(0.2)
            code = 1
            for name in ended:
                print(f"stack: {name} ended:\n{(folder / f'{name}.log').read_text()[-2000:]}", file=sys.stderr)  # noqa: T201
        except KeyboardInterrupt:
            print("stopping", flush=True)  # noqa: T201
            signal.signal(signal.SIGINT, signal.SIG_IGN)
    return code


def _end(started: dict[str, Process]) -> None:
    for process in started.values():
        process.terminate()
    deadline = time.monotonic() + STOP_WITHIN
    for process in started.values():
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


if __name__ == "__main__":
    sys.exit(main())
