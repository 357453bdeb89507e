"""The heal commands, beside a simulator and a store that they share with nobody."""

from __future__ import annotations

import json
import signal
import time
from typing import TYPE_CHECKING

import pytest

from exporter.accounts import credential
from tests.support.ledgers import open_store
from tests.support.processes import KEY, product, run, simulating, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.processes import Finished, Simulated

pytestmark = pytest.mark.e2e

FIRST, SECOND, THIRD = "+918011223344", "+918011223345", "+918011223346"
BROKEN = ["NO_BOT", "ROUTING_MISSING"]


@pytest.fixture
def simulator() -> Iterator[Simulated]:
    with simulating("--dids=20") as running:
        yield running


@pytest.fixture
def env(simulator: Simulated, tmp_path: Path) -> dict[str, str]:
    store = f"sqlite:///{tmp_path}/store.db"
    open_store(store).close()  # as a daemon has: no command makes one
    return {**simulator.env, "VOICELINK_STORE_URL": store, "VOICELINK_HEAL_VERIFY_WITHIN": "3s"}


def heal(env: dict[str, str], *words: str) -> Finished:
    return run("heal", *words, "--log.level=error", env=env)


def ledger(env: dict[str, str]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = json.loads(heal(env, "history", "--output=json").out)
    return rows


@pytest.mark.parametrize("command", [("poll",), ("heal", "plan")], ids=" ".join)
def test_a_pause_that_the_api_asked_a_daemon_for_holds_for_commands(
    simulator: Simulated, env: dict[str, str], command: tuple[str, ...]
) -> None:
    store, now = open_store(env["VOICELINK_STORE_URL"]), time.time()
    store.ledger.pause_key(credential(KEY), 4.0, now)
    store.close()
    assert run(*command, "--log.level=error", env=env).code == 0
    asked = [each["time"] for each in simulator.requests("connections") + simulator.requests("sync")]
    assert len(asked) == 2
    assert min(asked) >= now + 4.0


class TestPlan:
    def test_nothing_broken_is_fine(self, env: dict[str, str]) -> None:
        plan = heal(env, "plan")
        assert plan.code == 0
        assert "nothing is broken that healing is for" in plan.out
        assert "heal.mode is off: the daemon sends nothing" in plan.out

    def test_it_says_did_by_did_what_would_happen_and_writes_nothing(
        self, simulator: Simulated, env: dict[str, str]
    ) -> None:
        simulator.set_did(FIRST, issues=BROKEN)
        simulator.set_did(SECOND, issues=BROKEN, expired=True)
        simulator.set_did(THIRD, issues=["NO_VOCOBASE_AGENT"])
        plan = heal(env, "plan")
        assert plan.code == 1
        lines = {line.split()[1]: line for line in plan.out.splitlines() if "+9180" in line}
        assert "heal, once 3 complete polls over 2m confirm it" in lines[FIRST]
        assert "nothing: it is expired at VoiceLink; renew it there" in lines[SECOND]
        assert THIRD not in lines
        assert simulator.requests("call_ready") == []
        assert simulator.control("GET", "journal")["writes"] == {"syncs": 0, "imports": 0, "heals": 0}

    def test_json_holds_the_request_that_would_be_sent(self, simulator: Simulated, env: dict[str, str]) -> None:
        simulator.set_did(FIRST, issues=BROKEN)
        told = json.loads(heal(env, "plan", "--output=json").out)
        assert told["guards"] == []
        (did,) = told["dids"]
        assert did["phone_number"] == FIRST
        assert did["healable"] is True
        truth = simulator.control("GET", "fleet")["dids"][FIRST]
        assert did["body"] == {"did_id": truth["did_id"], "connection_id": truth["connection_id"]}

    def test_an_api_that_is_down_cannot_be_planned_for(self, simulator: Simulated, env: dict[str, str]) -> None:
        simulator.add_fault("status:*:status=401")
        plan = heal(env, "plan")
        assert plan.code == 2
        assert "so nothing is known of its numbers" in plan.err


class TestRun:
    def test_it_heals_prints_the_steps_and_waits_for_the_polls(self, simulator: Simulated, env: dict[str, str]) -> None:
        simulator.set_did(FIRST, issues=BROKEN)
        done = heal(env, "run", "91 80 1122 3344", "--yes")
        assert (done.code, done.err) == (0, f"store: {env['VOICELINK_STORE_URL'].removeprefix('sqlite:///')}\n")
        assert f"{FIRST}: answered with ready: true; the polls decide" in done.out
        assert "  ensure_bot: done" in done.out
        assert f"{FIRST}: healed" in done.out
        (row,) = ledger(env)
        assert (row["status"], row["outcome"], row["manual"]) == ("ended", "succeeded", True)
        assert "token" not in row
        assert len(simulator.requests("call_ready")) == 1

    def test_without_a_yes_nothing_is_sent(self, simulator: Simulated, env: dict[str, str]) -> None:
        simulator.set_did(FIRST, issues=BROKEN)
        done = heal(env, "run", "--all-healable")
        assert done.code == 1
        assert "Send 1 call-ready request(s) now? [y/N]" in done.out
        assert "nothing was sent" in done.out
        assert simulator.requests("call_ready") == []

    def test_a_did_that_is_fine_or_unknown_is_not_sent(self, simulator: Simulated, env: dict[str, str]) -> None:
        fine = heal(env, "run", FIRST, "--yes")
        assert (fine.code, fine.out) == (1, f"{FIRST}: not healed: it has none of the issues that healing is for\n")
        unknown = heal(env, "run", "+14155550123", "--yes")
        assert unknown.code == 2
        assert "not among the monitored DIDs: +14155550123" in unknown.err
        none = heal(env, "run", "--yes")
        assert none.code == 2
        assert "name the DIDs to heal, or say --all-healable" in none.err
        assert simulator.requests("call_ready") == []

    def test_a_pause_holds_it_back_and_only_force_passes(self, simulator: Simulated, env: dict[str, str]) -> None:
        simulator.set_did(FIRST, issues=BROKEN)
        assert heal(env, "pause", "--reason", "carrier maintenance").code == 0
        plan = heal(env, "plan")
        assert "guard paused: carrier maintenance; start again with heal resume" in plan.out
        held = heal(env, "run", FIRST, "--yes")
        assert held.code == 1
        assert f"{FIRST}: not healed: paused: carrier maintenance" in held.out
        assert simulator.requests("call_ready") == []
        assert heal(env, "run", FIRST, "--yes", "--force").code == 0
        assert len(simulator.requests("call_ready")) == 1
        assert heal(env, "resume").code == 0
        assert "guard paused" not in heal(env, "plan").out

    def test_ctrl_c_while_the_answer_is_waited_for(self, simulator: Simulated, env: dict[str, str]) -> None:
        simulator.set_did(FIRST, issues=BROKEN)
        simulator.add_fault("hang:call_ready")
        with product("heal", "run", FIRST, "--yes", env=env) as process:
            until(lambda: simulator.requests("call_ready"), "it sends")
            released = heal(env, "release", FIRST, "--reason", "now")
            assert (released.code, released.out[:46]) == (1, "the request of attempt 1 is under way (sent): ")
            process.send(signal.SIGINT)
            assert process.wait() == 2
        where = f"voicelink-exporter heal history {FIRST}"
        assert f"{FIRST}: interrupted; whether its request had left, and what becomes of it: {where}\n" in process.err
        assert [row["status"] for row in ledger(env)] == ["ambiguous"]

    def test_ctrl_c_while_the_polls_are_waited_for(self, simulator: Simulated, env: dict[str, str]) -> None:
        simulator.set_did(FIRST, issues=BROKEN)
        with product("heal", "run", FIRST, "--yes", env={**env, "VOICELINK_HEAL_VERIFY_WITHIN": "10m"}) as process:
            until(lambda: simulator.requests("call_ready"), "it sends")
            simulator.add_fault("hang:sync")  # so that nothing verifies it
            until(lambda: "answered with" in process.out, "it is answered")
            process.send(signal.SIGINT)
            assert process.wait() == 2
        assert f"{FIRST}: interrupted; the attempt stays open until the polls of a daemon decide" in process.err

    @pytest.mark.parametrize("words", [("release", FIRST), ("pause",)])
    def test_an_empty_reason_is_none(self, env: dict[str, str], words: tuple[str, ...]) -> None:
        done = heal(env, *words, "--reason", " ")
        assert done.code == 2
        assert done.err.endswith("error: argument --reason: has to say why\n")

    def test_a_refused_heal_is_quarantined_until_it_is_released(
        self, simulator: Simulated, env: dict[str, str]
    ) -> None:
        simulator.set_did(FIRST, issues=BROKEN)
        simulator.add_fault("status:call_ready:status=400,count=1")
        refused = heal(env, "run", FIRST, "--yes")
        assert refused.code == 1
        assert "the API refuses (400 VALIDATION_ERROR)" in refused.out
        assert "quarantined: the API refuses (400 VALIDATION_ERROR)" in heal(env, "plan").out
        assert heal(env, "run", FIRST, "--yes", "--force").code == 1
        assert len(simulator.requests("call_ready")) == 1
        released = heal(env, "release", FIRST, "--reason", "mended the client by hand")
        assert (released.code, released.out) == (
            0,
            "lifted quarantined: the API refuses (400 VALIDATION_ERROR)\n",
        )
        again = heal(env, "release", FIRST, "--reason", "twice")
        assert (again.code, again.out) == (1, "there is nothing to lift\n")
        assert heal(env, "run", FIRST, "--yes").code == 0

    def test_an_ambiguous_heal_is_never_sent_again_and_the_polls_decide(
        self, simulator: Simulated, env: dict[str, str]
    ) -> None:
        simulator.set_did(FIRST, issues=BROKEN)
        simulator.add_fault("act_then_fail:call_ready:status=500,count=1")
        done = heal(env, "run", FIRST, "--yes")
        assert done.code == 0
        assert "the API has a fault (500 INTERNAL_ERROR)" in done.out
        assert f"{FIRST}: healed" in done.out
        assert len(simulator.requests("call_ready")) == 1

    def test_what_the_polls_do_not_confirm_stays_open_for_the_daemon(
        self, simulator: Simulated, env: dict[str, str]
    ) -> None:
        simulator.set_did(FIRST, issues=BROKEN)
        simulator.add_fault("status:call_ready:status=500")
        done = heal(env, "run", FIRST, "--yes")
        assert done.code == 1
        assert f"{FIRST}: not repaired yet; the attempt stays open until the polls of a daemon decide" in done.out
        assert [row["status"] for row in ledger(env)] == ["ambiguous"]
        again = heal(env, "run", FIRST, "--yes", "--force")
        assert again.code == 1
        assert "attempt 1 on it is open" in again.out
        assert len(simulator.requests("call_ready")) == 1


class TestHistory:
    def test_an_empty_ledger_is_an_empty_table(self, env: dict[str, str]) -> None:
        told = heal(env, "history")
        assert told.code == 0
        assert "outcome" in told.out

    def test_it_shows_what_was_sent_and_can_be_asked_for_one_did(
        self, simulator: Simulated, env: dict[str, str]
    ) -> None:
        for number in (FIRST, SECOND):
            simulator.set_did(number, issues=BROKEN)
        assert heal(env, "run", "--all-healable", "--yes").code == 0
        both = heal(env, "history").out
        assert FIRST in both
        assert SECOND in both
        one = heal(env, "history", SECOND).out
        assert FIRST not in one
        assert "2 complete polls without the issue" in one

    def test_a_store_that_cannot_be_used_is_a_sentence(self, env: dict[str, str], tmp_path: Path) -> None:
        broken = tmp_path / "store.db"
        broken.write_text("this is no database " * 100)
        told = heal(env, "history")
        assert told.code == 2
        assert f"the store at {broken} does not answer: file is not a database" in told.err
