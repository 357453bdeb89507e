"""`demo`: the bundled stand-in of the API, with the exporter before it."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING, Final

from pydantic import SecretStr

from exporter.addresses import parse_address, parse_listen_address
from exporter.app import Options, serve
from exporter.cli.simulate import address_of, url_of
from exporter.config import Config, Settings
from exporter.config.web_file import load_web_file
from exporter.simulator import create_app
from exporter.web.listening import open_sockets
from exporter.web.server import Server

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from exporter.simulator import SimulatorOptions

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


async def demo(listen: Sequence[str], options: SimulatorOptions, *, web_file: Path | None = None) -> None:
    """Run the simulator and the exporter until SIGTERM or SIGINT. Raises `ConfigError` and `StartupError`."""
    addresses = [address_of(text, "--web.listen-address", parse_listen_address) for text in listen]
    sockets = open_sockets(parse_address("127.0.0.1:0"))
    with tempfile.TemporaryDirectory(prefix="voicelink-demo-") as folder:
        config = Config.model_validate(
            {
                "api": {"base_url": f"{url_of(sockets)}/api/v2", "requests_per_minute": 600},
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
