"""Numbers in every spelling."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.numbers import E164, canonical, to_e164


@pytest.mark.parametrize(
    "text",
    ["918011223344", "+91 80 1122 3344", "+918011223344", " +91-80-1122-3344\n", "+91 (80) 11223344", "91 8011223344"],
)
def test_every_spelling_is_one_number(text: str) -> None:
    assert to_e164(text) == canonical(text) == "+918011223344"


@pytest.mark.parametrize(
    "text",
    [
        *("", "+", "0", "sales", "08011223344", "+9180", "+999 1234", "+918011223344 ext 5", "https://example.com/"),
        *("1" * 40, "+91" + "8" * 38, "\0", "\ud800", "+918011223344\n+918011223345"),
    ],
)
def test_what_is_no_number(text: str) -> None:
    assert to_e164(text) is None


@pytest.mark.parametrize(
    ("text", "number"),
    [("99912345", "+99912345"), ("+99912345", "+99912345"), ("123456789012345", "+123456789012345")],
)
def test_the_api_knows_best_which_numbers_there_are(text: str, number: str) -> None:
    assert to_e164(text) is None
    assert canonical(text) == number


@pytest.mark.parametrize("text", ["", "1234", "1234567890123456", "0123456789", "+0123456789", "a" * 50])
def test_what_not_even_the_api_can_call_a_number(text: str) -> None:
    assert canonical(text) is None


@given(st.text() | st.text("+0123456789 -()", max_size=45))
def test_any_text_is_a_number_in_one_spelling_or_none(text: str) -> None:
    for read in (to_e164, canonical):
        number = read(text)
        assert number is None or (E164.fullmatch(number) and canonical(number) == number)
