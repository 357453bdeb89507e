"""A number's states over time, to the percent; and times in words."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from exporter.store.records import Transition
from exporter.web.timeline import Piece, kind, pieces
from exporter.web.words import count, due, iso, span, utc

START, END = 1000.0, 2000.0


def change(at: float, new: str, *issues: str) -> Transition:
    return Transition("main", "default", "+918011223344", at, None, new, issues)


def shown(changes: list[Transition], now: tuple[str, float], until: float = END) -> list[tuple[str, float, float]]:
    return [(piece.state, piece.x, piece.width) for piece in pieces(changes, now, until=until, start=START, end=END)]


@pytest.mark.parametrize(
    ("changes", "now", "until", "found"),
    [
        ([], ("READY", 500.0), END, [("READY", 0, 100)]),
        ([], ("READY", 1250.0), END, [("", 0, 25), ("READY", 25, 75)]),
        ([change(500, "READY")], ("READY", 500.0), END, [("READY", 0, 100)]),
        ([change(1100, "READY")], ("READY", 1100.0), END, [("", 0, 10), ("READY", 10, 90)]),
        (
            [change(1500, "READY"), change(1200, "NO_BOT"), change(900, "READY")],
            ("READY", 1500.0),
            END,
            [("READY", 0, 20), ("NO_BOT", 20, 30), ("READY", 50, 50)],
        ),
        ([change(900, "READY")], ("READY", 900.0), 1600.0, [("READY", 0, 60), ("", 60, 40)]),
        ([change(900, "READY")], ("NO_BOT", 1800.0), END, [("READY", 0, 80), ("NO_BOT", 80, 20)]),
        ([change(1300, "READY")], ("NO_BOT", 1200.0), END, [("", 0, 30), ("NO_BOT", 30, 70)]),
        ([change(2500, "READY")], ("READY", 2500.0), 2600.0, [("", 0, 100)]),
        ([change(100, "READY")], ("READY", 100.0), 900.0, [("", 0, 100)]),
    ],
)
def test_the_pieces_fill_the_line_without_gaps(
    changes: list[Transition], now: tuple[str, float], until: float, found: list[tuple[str, float, float]]
) -> None:
    assert shown(changes, now, until) == found
    assert sum(width for _, _, width in found) == 100


def test_a_piece_says_what_was_wrong_and_how_it_is_drawn() -> None:
    found = pieces(
        [change(1000, "READY"), change(1999, "NO_BOT", "NO_BOT", "X")],
        ("NO_BOT", 1999),
        until=END,
        start=START,
        end=END,
    )
    assert found[1] == Piece("NO_BOT", 1999, 2000, 99.9, 0.1, ("NO_BOT", "X"))
    assert [(piece.kind, piece.drawn, piece.layer) for piece in found] == [("ok", 99.9, 1), ("bad", 0.3, 3)]
    assert Piece("", 0, 1, 0, 0.1).drawn == 0.1
    assert [kind(state) for state in ("READY", "MISSING", "OTHER", "", "KYC_PENDING")] == [
        *("ok", "gone", "bad", "unknown", "bad")
    ]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        *(
            (-5, "0 s"),
            (0, "0 s"),
            (0.4, "0 s"),
            (59.4, "59 s"),
            (60, "1 min"),
            (61, "1 min 1 s"),
            (3599, "59 min 59 s"),
        ),
        *(
            (3600, "1 h"),
            (3661, "1 h 1 min"),
            (86_400, "1 d"),
            (90_000, "1 d 1 h"),
            (86_460, "1 d"),
            (8_640_000, "100 d"),
        ),
    ],
)
def test_a_span_has_its_two_largest_units(seconds: float, words: str) -> None:
    assert span(seconds) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(61, "in 1 min 1 s"), (0.6, "in 1 s"), (0.5, "now"), (-4, "now"), (-61, "overdue for 1 min 1 s")],
)
def test_what_is_due_is_in_a_while_now_or_overdue(seconds: float, words: str) -> None:
    assert due(seconds) == words


def test_times_are_in_utc_and_counts_have_their_plural() -> None:
    india = datetime(2026, 11, 24, 20, 58, 16, 120_999, timezone(timedelta(hours=5, minutes=30)))
    assert utc(india) == "2026-11-24 15:28:16 UTC"
    assert iso(india) == "2026-11-24T15:28:16.120Z"
    assert (count(1, "page"), count(2, "page"), count(0, "entry", "entries")) == ("1 page", "2 pages", "0 entries")
    assert count(12_000, "number") == "12,000 numbers"
