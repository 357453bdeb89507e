"""voicelink-did: one number, its past and its heals."""

from __future__ import annotations

from typing import Final

from grafana.source.model import FLEET, NUMBER, OURS, VARIABLES, Dashboard, Panel, Query, Row, Variable
from grafana.source.panels import coloured_text, property_of, stat, steps, table, timeline
from grafana.source.states import CALM, HealState, State, encoded, number_mappings, number_names

PICK: Final = Variable(
    "phone_number", "Number", f"label_values(voicelink_did_ready{{{FLEET}}}, phone_number)", several=False
)
STATE: Final = encoded("voicelink_did_state", "state", NUMBER, "", State)
SHARE_STEPS: Final = steps((None, "red"), (0.95, "orange"), (0.99, "green"))
ISSUE: Final = f"voicelink_did_issue{{{NUMBER}}}"
KNOWN: Final = f"max(voicelink_did_ready{{{NUMBER}}})"
PRESENT: Final = number_names({1: ("present", "red"), 0: ("absent", CALM)})
HEALING: Final = encoded("voicelink_did_heal_state", "state", NUMBER, "", HealState)


def _share(title: str, span: str) -> Panel:
    return stat(
        title,
        f"Share of the last {span} in which the number was ready, as far as Prometheus has seen it.",
        "percentunit",
        f"max(avg_over_time(voicelink_did_ready{{{NUMBER}}}[{span}]))",
        thresholds=SHARE_STEPS,
        decimals=2,
        width=3,
        empty="unknown",
    )


def _now() -> Row:
    changed = f"min(voicelink_did_state_changed_timestamp_seconds{{{NUMBER}}})"
    return Row(
        "$phone_number now",
        (
            stat(
                "State",
                "READY, or the first thing that is wrong.",
                "none",
                STATE,
                mappings=number_mappings(State),
                width=5,
                filled=True,
                empty="unknown",
            ),
            stat(
                "In this state for",
                "Time since the state last changed.",
                "s",
                f"time() - {changed}",
                width=3,
                empty="unknown",
            ),
            stat(
                "Since",
                "When the state last changed, or when the number was first seen.",
                "dateTimeAsIso",
                f"1000 * {changed}",
                empty="unknown",
            ),
            _share("Ready, 24 h", "24h"),
            _share("Ready, 7 d", "7d"),
            _share("Ready, 30 d", "30d"),
            stat(
                "Changes",
                "How often the state changed in the time that is shown.",
                "none",
                f"round(max(increase(voicelink_did_state_changes_total{{{NUMBER}}}[$__range])))",
                width=3,
                empty="unknown",
            ),
        ),
    )


def _past() -> Row:
    return Row(
        "Over time",
        (
            timeline(
                "State",
                "Which state the number was in. A gap is time without fresh data.",
                Query(expr=STATE, legend="state"),
                number_mappings(State),
                height=4,
                empty="no data of this number",
            ),
            timeline(
                "Issues",
                "Which issues the number had. The runbook says for each what to do.",
                Query(
                    expr=f"max by (code) ({ISSUE})\n"
                    f"or 0 * max by (code) (max_over_time({ISSUE}[$__range] @ end())) and on () {KNOWN}",
                    legend="{{code}}",
                ),
                PRESENT,
                height=5,
                empty="No issue in this time",
            ),
            timeline(
                "Healing",
                "What healing did about the number.",
                Query(expr=f"{HEALING}\nor 0 * {KNOWN} - 1", legend="healing"),
                [*number_mappings(HealState), *number_names({-1: ("left alone", CALM)})],
                height=4,
                empty="no data of this number",
            ),
        ),
    )


def _facts() -> Row:
    names = {
        "friendly_name": "Name",
        "did_id": "DID id",
        "did_status": "Status",
        "client_id": "Client",
        "agent_name": "Agent",
        "bot_name": "Bot",
        "routing_id": "Routing",
        "account": "Account",
        "connection": "Connection",
    }
    return Row(
        "What is known of it",
        (
            table(
                "At VoiceLink and Vocobase",
                "What the API tells of the number. An empty cell is something that it does not have.",
                Query(expr=f"max by ({', '.join(names)}) (voicelink_did_info{{{NUMBER}}})", table=True),
                columns=names,
                overrides=(property_of("connection", custom__width=320), property_of("account", custom__width=100)),
                height=4,
                empty="no data of this number",
            ),
            table(
                "Its alerts",
                "Alerts about this number, those that wait for their time to pass included.",
                Query(
                    expr='max by (alertname, alertstate, severity) (ALERTS{alertname=~"VoiceLink.+",job=~"$job",'
                    'account=~"$account",phone_number="$phone_number"})',
                    table=True,
                ),
                columns={"alertname": "Alert", "alertstate": "It is", "severity": "Severity"},
                overrides=(
                    coloured_text(
                        "severity",
                        [
                            {
                                "type": "value",
                                "options": {
                                    "critical": {"text": "critical", "color": "red", "index": 0},
                                    "warning": {"text": "warning", "color": "orange", "index": 1},
                                },
                            }
                        ],
                        150,
                    ),
                ),
                height=5,
                empty="No alert",
            ),
        ),
    )


def dashboard() -> Dashboard:
    """Return the dashboard."""
    return Dashboard(
        "voicelink-did",
        "VoiceLink: one number",
        "One phone number: its state, its past, its issues and its heals.",
        (_now(), _past(), _facts()),
        (*VARIABLES, PICK),
        alerts=f'{OURS},job=~"$job",phone_number="$phone_number"',
    )
