"""`simulate` and `demo`: the bundled stand-in of the API alone, and with the exporter before it."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING, Final, TypeVar

import structlog
from pydantic import SecretStr

from exporter.addresses import parse_address, parse_listen_address
from exporter.app import Options, run_until_stopped, serve
from exporter.config import Config, Settings
from exporter.config.web_file import load_web_file
from exporter.errors import StartupError
from exporter.simulator import create_app
from exporter.web import Server, open_sockets

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from socket import socket

    from exporter.simulator import SimulatorOptions

T = TypeVar("T")
KEY: Final = "rg_live_demo"
HEALING: Final = {  # the guards of a real fleet, at the pace of a demo
    "mode": "enforce",
    "confirm_polls": 3,
    "confirm_for": "5s",
    "verify_within": "30s",
    "probation": "1m",
    "backoff": {"initial": "20s", "max": "2m"},
    "max_per_hour": 600,
    "requests_per_minute": 60,
    "breaker": {"failures": 5, "open_for": "30s"},
}
log = structlog.stdlib.get_logger(__name__)


def _address(text: str, flag: str, parse: Callable[[str], T]) -> T:
    try:
        return parse(text)
    except ValueError as error:
        raise StartupError(f"{flag}: {error}") from None


def _url(sockets: Sequence[socket]) -> str:
    host, port = sockets[0].getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def simulate(listen: str, options: SimulatorOptions) -> None:
    """Run the simulator until SIGTERM or SIGINT. Raises `StartupError`."""
    sockets = open_sockets(_address(listen, "--listen", parse_address), "--listen")
    log.info("simulating", base_url=f"{_url(sockets)}/api/v2", dids=options.dids, connections=options.connections)
    await run_until_stopped([(Server(create_app(options)), sockets)])


async def demo(listen: Sequence[str], options: SimulatorOptions, *, web_file: Path | None = None) -> None:
    """Run the simulator and the exporter until SIGTERM or SIGINT. Raises `ConfigError` and `StartupError`."""
    addresses = [_address(text, "--web.listen-address", parse_listen_address) for text in listen]
    sockets = open_sockets(parse_address("127.0.0.1:0"))
    with tempfile.TemporaryDirectory(prefix="voicelink-demo-") as folder:
        config = Config.model_validate(
            {
                "api": {"base_url": f"{_url(sockets)}/api/v2", "requests_per_minute": 600},
                "accounts": [{"name": "demo", "api_key_env": "DEMO"}],
                "poll": {"interval": "1s", "jitter": "0s", "stale_after": "10s"},
                "heal": HEALING,
                "store": {"url": f"sqlite:///{folder}/demo.db"},
                "web": {"listen_address": addresses},
            }
        )
        simulator = (Server(create_app(options)), sockets)
        scheme = "https" if web_file and load_web_file(web_file).tls_server_config else "http"

        def started(address: str) -> None:
            print(f"The demo runs: open {scheme}://{address} in a browser. Ctrl-C ends it.", flush=True)  # noqa: T201

        daemon = Options(web_file=web_file, started=started)
        await serve(Settings(config, {"demo": SecretStr(KEY)}), daemon, beside=[simulator])
