"""voicelink-heal: what healing does, what holds it back and how well it works."""

from __future__ import annotations

from typing import Final

from grafana.source.model import ACCOUNT, DID, FLEET, Dashboard, Query, Row
from grafana.source.panels import (
    WARN_ABOVE_ZERO,
    coloured_text,
    graph,
    link_to_did,
    stat,
    steps,
    table,
    timeline,
    value_dropped,
)
from grafana.source.states import (
    CALM,
    HealState,
    Mode,
    Outcome,
    encoded,
    number_mappings,
    number_names,
    series_colours,
    text_mappings,
)

ONCE: Final = "max by (job, account, connection)"  # the ledger is shared: each replica exports the same number
ATTEMPTS: Final = f"sum(increase(voicelink_heal_attempts_total{{{FLEET}}}[$__range]))"
SUCCEEDED: Final = f'sum(increase(voicelink_heal_attempts_total{{{FLEET},outcome="succeeded"}}[$__range]))'
GUARDS: Final = number_names({0: ("open", CALM), 1: ("holds healing back", "orange")})


def _quantile(share: float, span: str) -> str:
    buckets = f"voicelink_heal_duration_seconds_bucket{{{FLEET}}}"
    return f"histogram_quantile({share}, sum by (le) (increase({buckets}[{span}])))"


def _now() -> Row:
    return Row(
        "Healing now",
        (
            stat(
                "Mode",
                "off: nothing is healed; observe: heals are decided and recorded, not sent; enforce: they are sent.",
                "none",
                encoded("voicelink_heal_mode", "mode", FLEET, "", Mode),
                mappings=number_mappings(Mode),
                filled=True,
                empty="unknown",
            ),
            stat(
                "Guards that hold",
                "How many guards hold healing back now. Which ones is shown below.",
                "none",
                f"sum(max by (guard) (voicelink_heal_blocked{{{FLEET}}}))",
                thresholds=WARN_ABOVE_ZERO,
                empty="unknown",
            ),
            stat(
                "In flight",
                "Heals that are claimed, sent or not yet verified.",
                "none",
                f"sum({ONCE} (voicelink_heal_in_flight{{{FLEET}}}))",
                empty="unknown",
            ),
            stat(
                "Quarantined",
                "Numbers that healing gave up on, until a person releases them or they stay well by themselves.",
                "none",
                f"sum({ONCE} (voicelink_heal_quarantined{{{FLEET}}}))",
                thresholds=WARN_ABOVE_ZERO,
                empty="unknown",
            ),
            stat(
                "Succeeded",
                "Share of the heals that ended in the time that is shown after which the issue was gone.",
                "percentunit",
                f"{SUCCEEDED} / ({ATTEMPTS} > 0)",
                thresholds=steps((None, "red"), (0.5, "orange"), (0.9, "green")),
                decimals=0,
                empty="no heals",
            ),
            stat(
                "Requests in the last hour",
                "Heal requests that were sent within the last hour. The guard max_per_hour stops them, by default at "
                "12 of an account.",
                "none",
                "round(sum(increase(voicelink_api_requests_total"
                f'{{{ACCOUNT},endpoint="voicelink/call-ready"}}[1h])) or vector(0))',
            ),
        ),
    )


def _results() -> Row:
    return Row(
        "Results",
        (
            graph(
                "Heals by outcome",
                "Heals that ended. succeeded: the polls saw the issue gone; failed and ambiguous: they still saw it; "
                "rejected: the API refused; not_sent: nothing reached the API.",
                "none",
                Query(
                    expr=f"sum by (outcome) (increase(voicelink_heal_attempts_total{{{FLEET}}}[$__rate_interval]))",
                    legend="{{outcome}}",
                ),
                bars=True,
                overrides=tuple(series_colours(Outcome)),
                empty="no data",
            ),
            graph(
                "Numbers in their heal",
                "How many numbers are where in their heal.",
                "none",
                Query(
                    expr=f"sum by (state) (max by ({DID}, state) (voicelink_did_heal_state{{{FLEET}}}))",
                    legend="{{state}}",
                ),
                stacked=True,
                overrides=tuple(series_colours(HealState)),
                empty="Nothing is being healed",
            ),
            stat(
                "Time to heal, half",
                "Half of the heals were done within this time, counted from the first sight of the broken number.",
                "s",
                _quantile(0.5, "$__range"),
                width=6,
                empty="no heals",
            ),
            stat(
                "Time to heal, 95 %",
                "95 % of the heals were done within this time, counted from the first sight of the broken number.",
                "s",
                _quantile(0.95, "$__range"),
                width=6,
                empty="no heals",
            ),
            stat(
                "Relapses",
                "Numbers that broke again soon after their heal, in the time that is shown.",
                "none",
                f"round(sum(increase(voicelink_heal_relapses_total{{{FLEET}}}[$__range])))",
                thresholds=WARN_ABOVE_ZERO,
                width=6,
                empty="unknown",
            ),
            stat(
                "Would have healed",
                "Heals that observe mode would have sent in the time that is shown.",
                "none",
                f"round(sum(increase(voicelink_heal_would_total{{{FLEET}}}[$__range])))",
                width=6,
                empty="unknown",
            ),
        ),
    )


def _held_back() -> Row:
    return Row(
        "What holds it back, and where",
        (
            timeline(
                "Guards",
                "When which guard held healing back. Windows, the time after a start and budgets pass by themselves; "
                "the rest waits for a person, and the runbook says what for.",
                Query(expr=f"max by (guard) (voicelink_heal_blocked{{{FLEET}}})", legend="{{guard}}"),
                GUARDS,
                height=11,
                empty="no data",
            ),
            table(
                "Numbers in their heal now",
                "Where each number is in its heal. Click a number to see its past.",
                Query(expr=f"max by ({DID}, state) (voicelink_did_heal_state{{{FLEET}}}) == 1", table=True),
                before=(value_dropped("A"),),
                columns={
                    "phone_number": "Number",
                    "state": "Healing",
                    "account": "Account",
                    "connection": "Connection",
                },
                overrides=(link_to_did(), coloured_text("state", text_mappings(HealState), 150)),
                empty="Nothing is being healed",
            ),
        ),
    )


def dashboard() -> Dashboard:
    """Return the dashboard."""
    return Dashboard(
        "voicelink-heal",
        "VoiceLink: healing",
        "What healing does, how well it works and what holds it back.",
        (_now(), _results(), _held_back()),
    )
