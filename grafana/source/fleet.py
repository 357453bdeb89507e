"""voicelink-fleet: are our numbers ready, and if not, which ones and why."""

from __future__ import annotations

from typing import Final

from grafana.source.model import DID, FLEET, OURS, Dashboard, Panel, Query, Row
from grafana.source.panels import (
    BAD_ABOVE_ZERO,
    bars,
    coloured_text,
    graph,
    labels_listed,
    link_to_did,
    property_of,
    stat,
    steps,
    table,
    timeline,
    value_dropped,
    value_named,
)
from grafana.source.states import HealState, State, encoded, number_mappings, series_colours, text_mappings

OBJECTIVE: Final = 0.99  # as voicelink:ready:objective in the recording rules
BY_STATE: Final = "max by (job, account, connection, state)"  # once, however many replicas export it

TOTAL: Final = f"sum({BY_STATE} (voicelink_dids{{{FLEET}}}))"
READY: Final = f'(sum({BY_STATE} (voicelink_dids{{{FLEET},state="READY"}})) or 0 * {TOTAL})'
NOT_READY: Final = f"(max by ({DID}) (voicelink_did_ready{{{FLEET}}}) == 0)"
AGE: Final = f"time() - max by (job, account, connection) (voicelink_poll_last_success_timestamp_seconds{{{FLEET}}})"
RATIO_STEPS: Final = steps((None, "red"), (0.9, "orange"), (OBJECTIVE, "green"))


def _overview() -> Row:
    return Row(
        "Are the numbers ready for calls?",
        (
            stat(
                "Ready",
                f"Share of the numbers that calls can be made over right now. The objective is {OBJECTIVE:.0%}.",
                "percentunit",
                f"{READY} / {TOTAL}",
                thresholds=RATIO_STEPS,
                decimals=1,
                width=6,
                filled=True,
                empty="no numbers",
            ),
            stat(
                "Not ready",
                "Numbers that no call can be made over right now. They are listed below.",
                "none",
                f"{TOTAL} - {READY}",
                thresholds=BAD_ABOVE_ZERO,
                width=5,
                filled=True,
                empty="no numbers",
            ),
            stat("Numbers in all", "Numbers that are monitored.", "none", TOTAL, empty="none"),
            stat(
                "Age of the data",
                "How long ago the API last answered completely, for the connection where that is longest ago. What "
                "this dashboard shows is as old as that.",
                "s",
                f"max({AGE})",
                thresholds=steps((None, "green"), (180, "orange"), (300, "red")),
                decimals=0,
                width=5,
                empty="never polled",
            ),
            stat(
                "Firing alerts",
                "VoiceLink alerts that fire now, warnings and worse. The marks in the graphs show when they fired.",
                "none",
                f'count(ALERTS{{{OURS},job=~"$job",severity=~"warning|critical"}}) or vector(0)',
                thresholds=BAD_ABOVE_ZERO,
            ),
        ),
    )


def _over_time() -> Row:
    return Row(
        "Over time",
        (
            graph(
                "Numbers by state",
                "How many numbers are in which state. READY is good; every other state names what is wrong first.",
                "none",
                Query(expr=f'sum({BY_STATE} (voicelink_dids{{{FLEET},state="READY"}}))', legend="READY"),
                Query(
                    expr=f'sum by (state) ({BY_STATE} (voicelink_dids{{{FLEET},state!="READY"}}))', legend="{{state}}"
                ),
                width=9,
                stacked=True,
                colour=State.OTHER.value,
                overrides=tuple(series_colours(State)),
                empty="no numbers",
            ),
            graph(
                "Ready, against the objective",
                "Share of the numbers that are ready, and the share that is to be ready.",
                "percentunit",
                Query(expr=f"{READY} / {TOTAL}", legend="ready"),
                Query(expr=f"vector({OBJECTIVE})", legend="objective"),
                width=9,
                low=None,
                high=1,
                overrides=(
                    property_of("ready", color={"mode": "fixed", "fixedColor": "green"}, custom__lineWidth=2),
                    property_of(
                        "objective",
                        color={"mode": "fixed", "fixedColor": "text"},
                        custom__fillOpacity=0,
                        custom__lineStyle={"fill": "dash", "dash": [8, 6]},
                    ),
                ),
            ),
            bars(
                "What is wrong now",
                "How many numbers have which issue. One number can have several. The runbook says for each what to do.",
                "none",
                Query(
                    expr=f"sort_desc(count by (code) (max by ({DID}, code) (voicelink_did_issue{{{FLEET}}})))",
                    legend="{{code}}",
                    instant=True,
                ),
                colour="orange",
                width=6,
                height=8,
                empty="No number has an issue",
            ),
        ),
    )


def _broken() -> Panel:
    def of_broken(metric: str) -> str:
        return f"{metric} and on ({DID}) {NOT_READY}"

    heal = f'max by ({DID}, heal) (label_replace(voicelink_did_heal_state{{{FLEET}}}, "heal", "$1", "state", "(.+)"))'
    return table(
        "Numbers that are not ready",
        "What is wrong with each number, for how long, and whether healing is on it. Click a number to see its past.",
        Query(expr=of_broken(f"max by ({DID}, state) (voicelink_did_state{{{FLEET}}}) == 1"), table=True),
        Query(expr=of_broken(f"max by ({DID}, code) (voicelink_did_issue{{{FLEET}}})"), table=True),
        Query(
            expr=of_broken(
                f"time() - min by ({DID}) (voicelink_did_state_changed_timestamp_seconds{{{FLEET}}})",
            ),
            table=True,
        ),
        Query(expr=of_broken(f"max by ({DID}) (avg_over_time(voicelink_did_ready{{{FLEET}}}[24h]))"), table=True),
        Query(
            expr=of_broken(f"round(max by ({DID}) (increase(voicelink_did_state_changes_total{{{FLEET}}}[24h])))"),
            table=True,
        ),
        Query(expr=of_broken(heal), table=True),
        before=(
            value_dropped("A"),
            labels_listed("B", "code"),
            *value_named("C", "for"),
            *value_named("D", "available"),
            *value_named("E", "changes"),
            value_dropped("F"),
        ),
        columns={
            "phone_number": "Number",
            "state": "State",
            "code (uniqueValues)": "Issues",
            "for": "For",
            "available": "Ready, 24 h",
            "changes": "Changes, 24 h",
            "heal": "Healing",
            "account": "Account",
            "connection": "Connection",
        },
        overrides=(
            link_to_did(),
            coloured_text("state", text_mappings(State), 190),
            property_of("code (uniqueValues)", custom__width=300),
            property_of("for", unit="s", decimals=0, custom__width=90),
            property_of("available", unit="percentunit", decimals=1, custom__width=100),
            property_of("changes", unit="none", custom__width=110),
            coloured_text("heal", text_mappings(HealState), 110),
            property_of("account", custom__width=80),
        ),
        sort="for",
        height=10,
        empty="Every number is ready",
    )


def _worst() -> Panel:
    share = f"max by ({DID}) (avg_over_time(voicelink_did_ready{{{FLEET}}}[$__range] @ end()))"
    now = encoded("voicelink_did_state", "state", FLEET, DID, State)
    return timeline(
        "The 50 least ready numbers of this time",
        "The state over time of the numbers that were ready for the smallest share of the time that is shown. Numbers "
        "that were ready all the time are left out.",
        Query(expr=f"{now}\nand on ({DID})\nbottomk(50, {share} < 1)", legend="{{phone_number}}"),
        number_mappings(State),
        height=16,
        page=25,
        empty="Every number was ready all the time",
    )


def _connections() -> Panel:
    place = "account, connection"
    sums = f"sum by ({place}) ({BY_STATE} (voicelink_dids{{{FLEET}}}))"
    ready = f'(sum by ({place}) ({BY_STATE} (voicelink_dids{{{FLEET},state="READY"}})) or 0 * {sums})'
    return table(
        "By connection",
        "How many numbers of each VoiceLink connection are ready.",
        Query(expr=ready, table=True),
        Query(expr=sums, table=True),
        Query(expr=f"{ready} / {sums}", table=True),
        Query(expr=f"max by ({place}, name, status) (voicelink_connection_info{{{FLEET}}})", table=True),
        before=(
            *value_named("A", "ready"),
            *value_named("B", "total"),
            *value_named("C", "ratio"),
            value_dropped("D"),
        ),
        columns={
            "name": "Name",
            "account": "Account",
            "connection": "Connection",
            "status": "Status",
            "ready": "Ready",
            "total": "In all",
            "ratio": "Share ready",
        },
        overrides=(
            property_of("account", custom__width=120),
            property_of("connection", custom__width=320),
            property_of("ready", unit="none"),
            property_of("total", unit="none"),
            property_of(
                "ratio",
                unit="percentunit",
                decimals=1,
                thresholds=RATIO_STEPS,
                custom__cellOptions={"type": "color-text"},
            ),
        ),
        height=6,
        empty="no connections",
    )


def dashboard() -> Dashboard:
    """Return the dashboard."""
    return Dashboard(
        "voicelink-fleet",
        "VoiceLink: the fleet",
        "Are our phone numbers ready for calls, and if not, which ones and why?",
        (
            _overview(),
            _over_time(),
            Row("Which numbers", (_broken(), _worst(), _connections())),
        ),
    )
