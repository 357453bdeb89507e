"""Puts the simulator together as an ASGI app."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.routing import Route

from exporter.simulator.api import Api
from exporter.simulator.control import Control
from exporter.simulator.options import SimulatorOptions
from exporter.simulator.simulator import Simulator

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


def create_app(
    options: SimulatorOptions | None = None,
    *,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Starlette:
    """Make the app. `clock` tells Unix seconds; `sleep` waits for seconds, for latency and for hanging answers only."""
    simulator = Simulator(options or SimulatorOptions(), clock, sleep)
    app = Starlette(routes=[*Control(simulator).routes(), Route("/{path:path}", Api(simulator))])
    app.state.simulator = simulator
    return app


def simulator_of(app: Starlette) -> Simulator:
    """Return the simulator of an app that `create_app` made."""
    simulator = app.state.simulator
    if not isinstance(simulator, Simulator):
        raise TypeError("the app has no simulator")
    return simulator
