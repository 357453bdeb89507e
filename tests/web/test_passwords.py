"""Passwords: who comes in, what that costs, and that nothing that is remembered lets anybody else in."""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING

import bcrypt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.web.passwords import (
    CHECKS_AT_ONCE,
    MAX_WAITING,
    REMEMBERED,
    PasswordChecker,
    Users,
    credentials,
)
from tests.support.certificates import hashed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SECRET = "correct horse"


class Counting(PasswordChecker):
    """Writes down what is worked on."""

    def __init__(self) -> None:
        super().__init__()
        self.worked: list[tuple[bytes, bytes]] = []

    def fits(self, password: bytes, hashed: bytes) -> bool:
        self.worked.append((password, hashed))
        return super().fits(password, hashed)


@pytest.fixture
def checker() -> Iterator[Counting]:
    made = Counting()
    yield made
    made.close()


def basic(user: str | bytes, password: str | bytes) -> bytes:
    parts = [part.encode() if isinstance(part, str) else part for part in (user, password)]
    return b"Basic " + base64.b64encode(b":".join(parts))


def users(checker: PasswordChecker, hashes: Mapping[str, str] | None = None) -> Users:
    return Users(hashes or {"alice": hashed(SECRET)}, checker)


async def test_who_is_right_comes_in_and_costs_one_check(checker: Counting) -> None:
    for _ in range(5):
        assert await users(checker).may_enter(basic("alice", SECRET))
    assert len(checker.worked) == 1


async def test_who_is_wrong_costs_a_check_each_time(checker: Counting) -> None:
    for _ in range(3):
        assert not await users(checker).may_enter(basic("alice", "wrong"))
    assert len(checker.worked) == 3


@pytest.mark.parametrize("password", ["p:w", "", ":", "ü€😀", "x" * 200])
async def test_any_password_is_checked_to_the_byte(checker: Counting, password: str) -> None:
    known = users(checker, {"alice": hashed(password)})
    assert await known.may_enter(basic("alice", password))
    assert not await known.may_enter(basic("alice", f"y{password}"))


async def test_a_password_ends_at_its_72nd_byte_and_not_before(checker: Counting) -> None:
    known = users(checker, {"alice": hashed("x" * 72)})
    assert await known.may_enter(basic("alice", "x" * 72 + "whatever"))
    assert not await known.may_enter(basic("alice", "x" * 71))


async def test_a_zero_byte_does_not_end_a_password(checker: Counting) -> None:
    known = users(checker, {"alice": hashed("abc")})
    assert not await known.may_enter(basic("alice", "abc\0def"))


@pytest.mark.parametrize("prefix", ["2a", "2b", "2y"])
async def test_hashes_of_every_maker_are_taken(checker: Counting, prefix: str) -> None:
    known = users(checker, {"alice": hashed(SECRET).replace("2b", prefix)})
    assert await known.may_enter(basic("alice", SECRET))


async def test_no_split_of_user_and_password_passes_for_another(checker: Counting) -> None:
    """A cache whose key is user and password in a row would take the second for the first."""
    known = users(checker, {"a": hashed("b:c"), "a:b": hashed("other"), "ab": hashed("other"), "": hashed("other")})
    assert await known.may_enter(basic("a", "b:c"))
    worked = len(checker.worked)
    crafted = [("a:b", "c"), ("ab", ":c"), ("ab", "c"), ("", "ab:c"), ("", "a:b:c"), ("a\0", "b:c"), ("a", "b:c\0")]
    for user, password in crafted:
        # What comes as "a:b" and "c" is read as "a" and "b:c", as it was meant by whoever sent that.
        assert await known.may_enter(basic(user, password)) == (f"{user}:{password}" == "a:b:c")
    assert len(checker.worked) == worked + len(crafted) - 1


async def test_a_hash_as_part_of_a_name_is_no_way_in(checker: Counting) -> None:
    """CVE-2022-46146: whoever knew a hash could fill the cache so that its user's password was taken for right."""
    known = users(checker)
    made_up = "$2y$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi"
    for user, password in (("alice" + hashed(SECRET), "x"), (f"alice:{hashed(SECRET)}", "x"), ("alice" + made_up, "x")):
        assert not await known.may_enter(basic(user, password))
    assert not await known.may_enter(basic("alice", f"{hashed(SECRET)}x"))
    assert not await known.may_enter(basic("alice", "x"))


@given(st.binary(max_size=6), st.binary(max_size=6), st.binary(max_size=6), st.binary(max_size=6))
def test_no_two_are_remembered_as_one(user: bytes, password: bytes, other: bytes, another: bytes) -> None:
    same = (user, password) == (other, another)
    marks = {MARKS.mark(user, b"hash", password), MARKS.mark(other, b"hash", another)}
    assert len(marks) == (1 if same else 2)
    assert MARKS.mark(user, b"hash", password) != MARKS.mark(user, b"has", b"h" + password)


MARKS = PasswordChecker()


async def test_a_new_hash_or_a_user_that_went_away_ends_what_was_remembered(checker: Counting) -> None:
    assert await users(checker).may_enter(basic("alice", SECRET))
    assert not await users(checker, {"alice": hashed("new")}).may_enter(basic("alice", SECRET))
    assert not await users(checker, {"bob": hashed("new")}).may_enter(basic("alice", SECRET))
    assert not await users(checker, {"bob": hashed(SECRET)}).may_enter(basic("alice", SECRET))


async def test_what_is_remembered_is_bounded_and_the_longest_unused_goes_first(checker: Counting) -> None:
    names = [f"user{number}" for number in range(REMEMBERED + 1)]
    known = users(checker, {name: hashed(SECRET) for name in names})
    for name in names:
        assert await known.may_enter(basic(name, SECRET))
        assert await known.may_enter(basic(names[0], SECRET))
    assert len(checker.worked) == len(names)
    assert await known.may_enter(basic(names[1], SECRET))
    assert len(checker.worked) == len(names) + 1


async def test_an_unknown_user_costs_the_work_of_a_known_one(checker: Counting) -> None:
    known = users(checker, {"alice": hashed(SECRET, 4), "bob": hashed(SECRET, 5), "carol": hashed(SECRET, 5)})
    for user in ("alice", "bob", *(f"nobody{number}" for number in range(60))):
        assert not await known.may_enter(basic(user, "wrong"))
    (_, alice), (_, bob), *others = checker.worked
    costs = [int(used.split(b"$")[2]) for _, used in others]
    assert (alice, bob) == (hashed(SECRET, 4).encode(), hashed(SECRET, 5).encode())
    assert len(costs) == 60
    assert 5 < costs.count(4) < 35  # a third of the users has it
    assert costs.count(4) + costs.count(5) == 60


async def test_what_an_unknown_user_costs_stays_the_same(checker: Counting) -> None:
    hashes = {"alice": hashed(SECRET, 4), "bob": hashed(SECRET, 5)}
    for _ in range(4):  # made anew each time, as after a restart
        for name in ("x", "y", "z"):
            assert not await users(checker, hashes).may_enter(basic(name, "wrong"))
    costs = [used.split(b"$")[2] for _, used in checker.worked]
    assert costs == costs[:3] * 4


async def test_a_hash_that_is_made_up_is_nobodys(checker: Counting) -> None:
    known = users(checker)
    assert not await known.may_enter(basic("nobody", SECRET))
    ((_, made_up),) = checker.worked
    assert made_up != hashed(SECRET).encode()
    assert bcrypt.checkpw(b"x", made_up) is False


async def test_few_are_checked_at_once_and_few_may_wait(checker: Counting) -> None:
    known = users(checker, {"alice": hashed(SECRET, 8)})
    tries = [known.may_enter(basic("alice", f"wrong{number}")) for number in range(100)]
    answers = await asyncio.gather(*tries)
    assert answers.count(False) == CHECKS_AT_ONCE + MAX_WAITING
    assert answers.count(None) == 100 - CHECKS_AT_ONCE - MAX_WAITING
    assert await known.may_enter(basic("alice", SECRET))


async def test_who_is_remembered_waits_for_nobody(checker: Counting) -> None:
    known = users(checker, {"alice": hashed(SECRET, 8)})
    assert await known.may_enter(basic("alice", SECRET))
    flood = [asyncio.create_task(known.may_enter(basic("alice", f"wrong{number}"))) for number in range(100)]
    await asyncio.sleep(0)
    assert await known.may_enter(basic("alice", SECRET))
    assert sum(not task.done() for task in flood) == CHECKS_AT_ONCE + MAX_WAITING
    await asyncio.gather(*flood)


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"Basic",
        b"Basic ",
        b"Bearer " + base64.b64encode(b"alice:x"),
        b"Basic alice:x",
        b"Basic " + base64.b64encode(b"alice"),
        b"Basic YWxpY2U6eA",  # its padding is missing
        b"Basic YWxp Y2U6eA==",
        b"Basic YWxpY2U6eA==, Basic YWxpY2U6eA==",
        b"Basic\xff YWxpY2U6eA==",
        b"BasicYWxpY2U6eA==",
    ],
)
async def test_what_names_no_user_and_password_costs_nothing(checker: Counting, header: bytes) -> None:
    assert not await users(checker).may_enter(header)
    assert checker.worked == []


@given(st.binary(max_size=40) | st.binary(max_size=20).map(lambda data: b"Basic " + base64.b64encode(data)))
def test_any_header_is_read_or_refused(header: bytes) -> None:
    found = credentials(header)
    assert found is None or b":" not in found[0]


@pytest.mark.parametrize("scheme", [b"Basic ", b"basic ", b"BASIC   "])
def test_how_the_scheme_is_written_does_not_matter(scheme: bytes) -> None:
    assert credentials(scheme + base64.b64encode(b"alice:b:c")) == (b"alice", b"b:c")
