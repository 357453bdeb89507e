"""Phone numbers in one spelling: E.164, as the API's `phone_number` has it."""

from __future__ import annotations

import re
from functools import lru_cache

E164 = re.compile(r"\+[1-9][0-9]{4,14}", re.ASCII)
_DIGITS = re.compile(r"[1-9][0-9]{4,14}", re.ASCII)
_SPELLING = re.compile(r"\+?[0-9][0-9 ().-]*", re.ASCII)  # how people write numbers; letters are not digits here
MAX_LENGTH = 40  # no spelling of a number is longer; what is, isn't looked at


def to_e164(text: str) -> str | None:
    """Return the E.164 form of an international number, or `None` where it can't be one.

    `918011223344`, `+91 80 1122 3344` and `+918011223344` are one number. A number without its country code can't be
    told from one with, so what comes without `+` is read as if it had one. The length has to be possible there;
    whether the number is assigned is for the API to say.
    """
    stripped = text.strip()
    return _parse(stripped) if len(text) <= MAX_LENGTH and _SPELLING.fullmatch(stripped) else None


def canonical(text: str) -> str | None:
    """Return the identity of a number that the API names: as `to_e164`, but any digits of E.164's length will do.

    The API is the authority on which numbers there are, so one that numbering plans call impossible is still a number.
    """
    if E164.fullmatch(text):
        return text
    if _DIGITS.fullmatch(text):
        return f"+{text}"
    return to_e164(text)


@lru_cache(maxsize=4096)
def _parse(text: str) -> str | None:
    import phonenumbers  # noqa: PLC0415 - much to load, and the API spells its numbers so that nothing is to be parsed

    try:
        number = phonenumbers.parse(text if text.startswith("+") else f"+{text}")
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_possible_number(number) or number.extension:
        return None
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
