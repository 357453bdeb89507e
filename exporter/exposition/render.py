"""Turns a fleet into bytes, doing only the work that a change asks for.

Kept between two polls of a target: the lines of each of its DIDs, and per family the joined and the compressed text of
the target. A poll renders the DIDs that changed, joins and compresses the families of its own target in which a line
changed, and copies what is kept of all others. Nothing here runs when somebody scrapes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from exporter.exposition.body import NOTHING, OPENMETRICS, TEXT, Bodies, Body
from exporter.exposition.deflate import EMPTY, Joined, Piece, compress, join
from exporter.exposition.families import (
    CONNECTION_INFO,
    DID_FAMILIES,
    FAMILIES,
    TARGET_FAMILIES,
    Family,
    render_connections,
    render_did,
    render_target,
    target_labels,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from exporter.model import Did, Target
    from exporter.snapshots import Fleet, TargetState

_DIDS = len(DID_FAMILIES)


@dataclass(slots=True)
class _Rendered:
    """What is kept of a target: a line block per DID and family, a piece per family."""

    lines: dict[str, tuple[Did, tuple[bytes, ...]]] = field(default_factory=dict)
    states: tuple[str, ...] = ()
    pieces: list[Piece] = field(default_factory=lambda: [EMPTY] * len(FAMILIES))


@dataclass(frozen=True, slots=True)
class _Own:
    """The exporter's own metrics in both formats, without OpenMetrics' end mark."""

    text: Piece = EMPTY
    openmetrics: Piece = EMPTY


class Exposition:
    """Holds the current answers to a scrape in `bodies`, which is replaced whole.

    One caller at a time may update; anyone may read `bodies` at any time.
    """

    def __init__(self, own: Callable[[], tuple[bytes, bytes]]) -> None:
        """`own` renders the exporter's own metrics, as text and as OpenMetrics without its end mark."""
        self.bodies: Bodies = NOTHING
        self._own = own
        self._own_pieces = _Own()
        self._targets: dict[Target, _Rendered] = {}
        self._headers = [
            (compress(family.header(openmetrics=False)), compress(family.header(openmetrics=True)))
            for family in FAMILIES
        ]
        self._joined: list[Joined] = [join(())] * len(FAMILIES)
        self._fleet_text = join(())
        self._fleet_openmetrics = join(())

    def update(self, fleet: Fleet, target: Target | None = None) -> None:
        """Render what a poll of `target` changed; `None` looks at every target.

        After a failure half-way, the next call renders everything anew.
        """
        try:
            self._update(fleet, target)
        except BaseException:
            self._targets.clear()
            self._joined = [join(())] * len(FAMILIES)
            raise

    def _update(self, fleet: Fleet, target: Target | None) -> None:
        changed: set[int] = set()
        for gone in self._targets.keys() - fleet.targets.keys():
            del self._targets[gone]
            changed.update(range(len(FAMILIES)))
        new_words = any(item.states != fleet.states.words for item in self._targets.values() if item.lines)
        complete = self._targets.keys() | {target} >= fleet.targets.keys()
        wanted = [target] if target and complete and not new_words else list(fleet.targets)
        for each in wanted:
            if each in fleet.targets:
                changed |= self._render(fleet.targets[each], fleet.states.words)
        connections = FAMILIES.index(CONNECTION_INFO)
        in_order = [self._targets[each].pieces for each in sorted(self._targets)]
        for index in changed:
            self._joined[index] = join(pieces[index] for pieces in in_order)
        text = render_connections(fleet)
        if b"".join(self._joined[connections].texts) != text:
            self._joined[connections] = join((compress(text),))
        self._fleet_text = self._assemble(0)
        self._fleet_openmetrics = self._assemble(1)
        self.refresh_own()

    def refresh_own(self) -> None:
        """Render the exporter's own metrics again, which change on their own."""
        text, openmetrics = self._own()
        self._own_pieces = _Own(compress(text), compress(openmetrics))
        self.bodies = Bodies(
            Body.of(TEXT, (self._fleet_text, self._own_pieces.text)),
            Body.of(OPENMETRICS, (self._fleet_openmetrics, self._own_pieces.openmetrics)),
        )

    def did_lines(self, target: Target, number: str) -> list[tuple[Family, bytes]]:
        """Return one DID's lines by family; none where it isn't shown."""
        rendered = self._targets.get(target)
        found = rendered.lines.get(number) if rendered else None
        return [(item.family, text) for item, text in zip(DID_FAMILIES, found[1], strict=True)] if found else []

    def _assemble(self, form: int) -> Joined:
        return join(
            piece
            for headers, joined in zip(self._headers, self._joined, strict=True)
            for piece in (headers[form], joined)
        )

    def _render(self, state: TargetState, words: tuple[str, ...]) -> set[int]:
        """Bring what is kept of a target up to date; return the indexes of the families that changed."""
        kept = self._targets.setdefault(state.target, _Rendered())
        changed = self._render_dids(kept, state, words)
        for index in changed:
            kept.pieces[index] = compress(b"".join(lines[index] for _, lines in kept.lines.values()))
        for index, item in enumerate(TARGET_FAMILIES, _DIDS):
            text = render_target(item, state)
            if text != kept.pieces[index].text:
                kept.pieces[index] = compress(text)
                changed.add(index)
        return changed

    def _render_dids(self, kept: _Rendered, state: TargetState, words: tuple[str, ...]) -> set[int]:
        dids = state.snapshot.dids if state.snapshot else {}
        same_words = kept.states == words
        before, owner = kept.lines, target_labels(state.target)
        lines: dict[str, tuple[Did, tuple[bytes, ...]]] = {}
        changed: set[int] = set()
        if before.keys() != dids.keys():
            changed.update(range(_DIDS))
        for number, did in dids.items():
            old = before.get(number)
            if old and old[0] is did and same_words:
                lines[number] = old
                continue
            rendered = tuple(render_did(item, did, owner, words) for item in DID_FAMILIES)
            lines[number] = (did, rendered)
            if old and len(changed) < _DIDS:
                changed.update(index for index in range(_DIDS) if rendered[index] != old[1][index])
        kept.lines, kept.states = lines, words
        return changed
