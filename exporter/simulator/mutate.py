"""Faults in what an answer says: each changes a decoded copy of the answer, never the fleet."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING

from exporter.simulator.seeded import unit
from exporter.simulator.wire import dump

if TYPE_CHECKING:
    from collections.abc import Callable

    from exporter.simulator.faults import Fault

Object = dict[str, object]
IDENTITY = ("key", "phone_number", "did_number", "connection_id")
MARKUP = '<script>alert("1")</script>&\'\\\n{}\u2028'
STATES = ("PROVIDER_SUSPENDED", "KYC_PENDING", "not a code!", "x" * 200)


def mutate(body: bytes, endpoint: str, faults: list[Fault], seed: int) -> bytes:
    """Apply faults to the body of an answer that went well."""
    answer: object = json.loads(body)
    for fault in faults:
        if isinstance(answer, dict):
            answer = MUTATORS[fault.kind](answer, endpoint, fault, seed)
    return dump(answer)


def entries_of(answer: Object, endpoint: str) -> list[object]:
    """Return the list that an answer is about: the very list, so that changing it changes the answer."""
    data = answer.get("data")
    if endpoint == "call_ready" and isinstance(data, dict):
        return [data.get("readiness_before"), data.get("readiness")]
    names = {"sync": ("readiness",), "purchased": ("data",)}.get(endpoint, ("connections", "data"))
    while isinstance(data, dict):
        data = next((data[name] for name in names if name in data), None)
    return data if isinstance(data, list) else []


def _objects(answer: Object, endpoint: str) -> list[Object]:
    return [entry for entry in entries_of(answer, endpoint) if isinstance(entry, dict)]


def _wrong(value: object) -> object:
    """Return a value of another JSON type."""
    if isinstance(value, bool):
        return "perhaps"
    if isinstance(value, str):
        return {"unexpected": value}
    if isinstance(value, dict):
        return [1.5]
    return "unexpected"


def _wrong_types(answer: Object, endpoint: str, fault: Fault, _seed: int) -> object:
    level = fault.choice("level")
    if level == "root":
        return [answer]
    if level == "data":
        return answer | {"data": "unexpected"}
    data = answer.get("data")
    if level == "readiness":
        name = "data" if endpoint == "purchased" else "readiness"
        return answer | {"data": data | {name: {"0": 1}} if isinstance(data, dict) else {"0": 1}}
    if level == "entry":
        if endpoint == "call_ready" and isinstance(data, dict):
            data.update(readiness="unexpected", readiness_before=7)
        entries = entries_of(answer, endpoint)
        entries[:] = [[entry] for entry in entries]
    for entry in _objects(answer, endpoint):
        entry.update({name: _wrong(value) for name, value in entry.items()})
    return answer


def _null_fields(answer: Object, endpoint: str, fault: Fault, _seed: int) -> object:
    for entry in _objects(answer, endpoint):
        if fault.choice("level") == "entry":
            entry.update(dict.fromkeys(set(entry) - set(IDENTITY)))
        for value in entry.values():
            if isinstance(value, dict):
                value.update(dict.fromkeys(value))
    return answer


def _extra_fields(answer: Object, endpoint: str, _fault: Fault, _seed: int) -> object:
    extra: Object = {"x_new": {"deep": [1, {"deeper": None}]}, "x_null": None}
    for entry in _objects(answer, endpoint):
        for value in entry.values():
            if isinstance(value, dict):
                value.update(extra)
        entry.update(extra)
    data = answer.get("data")
    if isinstance(data, dict):
        data.update(extra)
    return answer | extra


def _unknown_states(answer: Object, endpoint: str, fault: Fault, _seed: int) -> object:
    for ordinal, entry in enumerate(_objects(answer, endpoint)):
        state = fault.state or STATES[ordinal % len(STATES)]
        entry.update(state=state, issues=[state])
    return answer


def _markup(answer: Object, endpoint: str, fault: Fault, _seed: int) -> object:
    text = fault.text or MARKUP
    kept = (*IDENTITY, *(("id", "status", "provider") if endpoint == "connections" else ()))

    def spoil(value: object, name: str = "") -> object:
        if isinstance(value, dict):
            return {key: spoil(inner, key) for key, inner in value.items()}
        if isinstance(value, list):
            return [spoil(inner) for inner in value]
        return value + text if isinstance(value, str) and name not in kept else value

    return spoil(answer)


def _many_codes(answer: Object, endpoint: str, fault: Fault, _seed: int) -> object:
    entries = _objects(answer, endpoint)
    for ordinal, entry in enumerate(entries):
        codes = [f"SIM_CODE_{number:06}" for number in range(ordinal, fault.codes, len(entries))]
        entry.update(state=codes[0] if codes else "READY", issues=codes)
    return answer


def _duplicates(answer: Object, endpoint: str, _fault: Fault, _seed: int) -> object:
    entries = entries_of(answer, endpoint)
    entries.extend(copy.deepcopy(entries))
    return answer


def _invalid_entry(answer: Object, endpoint: str, fault: Fault, _seed: int) -> object:
    """Put the invalid entries before the good ones."""
    variant = fault.choice("variant")
    bad: list[object] = []
    if variant in ("both", "number"):
        bad.append(42)
    if variant in ("both", "unnumbered"):
        bad.append({"state": "READY", "issues": [], "remote_did": None, "local_phone_number": None})
    entries_of(answer, endpoint)[:0] = bad
    return answer


def _partial(answer: Object, endpoint: str, fault: Fault, seed: int) -> object:
    entries = entries_of(answer, endpoint)
    count = round(len(entries) * fault.percent / 100)
    dropped = set(sorted(range(len(entries)), key=lambda ordinal: unit(seed, "partial", ordinal))[:count])
    entries[:] = [entry for ordinal, entry in enumerate(entries) if ordinal not in dropped]
    return answer


def _envelope(answer: Object, endpoint: str, fault: Fault, _seed: int) -> object:
    entries: object = entries_of(answer, endpoint)
    for name in reversed(fault.choice("shape").split(".")[1:]):
        entries = {name: entries}
    return answer | ({"data": entries} if endpoint == "connections" else {})


MUTATORS: dict[str, Callable[[Object, str, Fault, int], object]] = {
    "wrong_types": _wrong_types,
    "null_fields": _null_fields,
    "extra_fields": _extra_fields,
    "unknown_states": _unknown_states,
    "markup": _markup,
    "many_codes": _many_codes,
    "duplicates": _duplicates,
    "invalid_entry": _invalid_entry,
    "partial": _partial,
    "envelope": _envelope,
}
"""The kinds of fault that change what an answer says."""
