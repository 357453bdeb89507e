"""A seeded, living stand-in of the Vocobase VoiceLink API, for demos, tests and load.

    from exporter.simulator import SimulatorOptions, create_app, simulator_of

    app = create_app(SimulatorOptions(dids=20, broken=0.2, seed=7))  # a Starlette app: /api/v2 and /control
    simulator = simulator_of(app)  # the same object as app.state.simulator

It runs in process (`httpx.ASGITransport(app)`) or over real HTTP (uvicorn). Nothing here reads the wall clock or sleeps
but through `create_app(options, *, clock=time.time, sleep=asyncio.sleep)`.

Numbers are E.164 strings (`"+918011223344"` is the first, the others follow on); digits alone do as well.
DIDs are spread over the connections in equal blocks; `did_id` counts from 800, `client_id` from 415 (ten DIDs each).

`SimulatorOptions` (frozen, keyword-only; a value that makes no sense is a ValueError naming the option):
    dids=20, connections=1, seed=1, broken=0.0 (fraction), churn=0.0 (fraction an hour), outage=600.0 (mean seconds),
    latency=0.0 (seconds), rate_limit=60 (a key a minute; 0: none), retry_after=False, api_keys=() (any `rg_live_…`),
    faults=() (of `Fault`), journal_size=10_000
`add_arguments(parser)` and `options_from(args)` make a command line of it.

`Simulator`:
    options, elapsed() -> float (seconds since the start)
    connection_ids -> list[str]; numbers -> list[str] (E.164, those in the fleet)
    truth() -> dict[str, Truth]            (frozen: number, did_id, connection_id, client_id, state, issues, expired,
                                            imported, removed, agent_id, bot_name; `.ready`, `.as_json()`)
    requests(endpoint="") -> list[Seen]    (time, method, path, query, key, body, endpoint, connection_id, status);
                                            endpoint: sync, connections, call_ready, purchased, unknown
    clear_journal()
    writes -> Writes                       (syncs: sync requests with import_dids true, imports: local rows made,
                                            heals: call-ready requests that were carried out)
    set_did(number, *, issues=[…] | None, expired=bool, client_id=int | None, removed=bool, connection_id=str,
            imported=bool, friendly_name=str) -> Truth
        `issues` is all that is wrong from then on (DID_EXPIRED and DID_UNMAPPED included) and takes the DID off the
        schedule until `issues=None`; `client_id=None` unmaps it. NO_BOT, ROUTING_MISSING and, with an agent_id,
        NO_VOCOBASE_AGENT are repaired by call-ready; so is an unmapped DID with a client_id; nothing else is
    set_connection(connection_id, *, status=str)
    add_fault(Fault | str) -> int; faults() -> list[Fault]; clear_faults()
A number or connection it does not know is a KeyError; a wrong value a ValueError.

Faults, `KIND[:endpoint][:key=value,…]` as text, `Fault(kind="status", endpoint="sync", status=503)` in Python:
    every kind: endpoint=* (sync|connections|call_ready|purchased), probability=1.0, count (how many answers it spoils;
    none: all), after=0 (let that many pass first), connection (only that connection's requests)
    status: status=500, location, retry_after       latency: seconds=1         hang: seconds=300 (then it hangs up)
    drip: seconds=0.01, size=1 (bytes a piece)      truncate                   oversize: size=1048576 (bytes)
    html    not_json    duplicates    extra_fields                             partial: percent=50
    markup: text (what every string ends with)
    wrong_types: level=field (root|data|readiness|entry|field)                 null_fields: level=entry (entry|field)
    unknown_states: state                           many_codes: codes=100
    invalid_entry: variant=both (number|unnumbered) envelope: shape=data.connections (data|data.data)
    act_then_fail: then=status (status|hang), status=500, seconds=300
    Faults of content change a copy; duplicates, invalid_entry and partial leave call_ready's single entries alone.

Control, no part of the vendor's API and without a key (so keep the simulator on a private address):
    GET /control/journal            {"requests": [Seen as JSON], "writes": {"syncs", "imports", "heals"}}
    DELETE /control/journal         204
    GET /control/fleet              {"elapsed", "connections": [{"connection_id", "name", "status", "is_default"}],
                                     "dids": {number: Truth as JSON}}
    PUT /control/dids/{number}      any of the arguments of set_did as a JSON object; answers the Truth as JSON
    PUT /control/connections/{id}   {"status": "…"}; answers the connection
    GET /control/faults             {"faults": [spec text]}, those that can still strike
    POST /control/faults            takes {"kind": …, "endpoint": …, …} or {"fault": "spec"}; answers 201 {"id": n}
    DELETE /control/faults          204
    A refusal is 400 or 404 with the API's error envelope.
"""

from __future__ import annotations

from exporter.simulator.app import create_app, simulator_of
from exporter.simulator.faults import Fault, parse_fault
from exporter.simulator.journal import Seen
from exporter.simulator.options import SimulatorOptions, add_arguments, options_from
from exporter.simulator.simulator import DidChange, Simulator, Truth, Writes

__all__ = [
    "DidChange",
    "Fault",
    "Seen",
    "Simulator",
    "SimulatorOptions",
    "Truth",
    "Writes",
    "add_arguments",
    "create_app",
    "options_from",
    "parse_fault",
    "simulator_of",
]
