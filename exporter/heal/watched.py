"""What the controller holds of accounts and targets: by what they are healed, and what was seen of them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from exporter.heal.assess import Followed, restarted
from exporter.heal.policy import TargetView

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from exporter.config import Config
    from exporter.config.schema import Heal
    from exporter.heal import policy
    from exporter.model import Guard, Target
    from exporter.snapshots import Healing, Watch
    from exporter.store.records import Attempt, Counts, Look, Transition
    from exporter.vocobase import VocobaseClient


@dataclass(frozen=True, slots=True)
class Setup:
    """What an account is healed by. Replaced whole; what was decided by one is not sent by another."""

    heal: Heal
    client: VocobaseClient
    watch: Watch
    fingerprint: str

    @property
    def enabled(self) -> bool:
        """Whether anything is healed, or would be."""
        return self.heal.mode != "off"

    @property
    def observing(self) -> bool:
        """Whether what would be sent is only recorded."""
        return self.heal.mode == "observe"


@dataclass(slots=True)
class Seen:
    """What this process saw of a target so far."""

    view: TargetView
    healing: Healing
    polls: int = -1  # polls of the target, up to the last that was judged
    heard: float = 0.0  # when that one's answer was there, on the clock's `monotonic`
    complete: int = 0  # those of them that were complete
    followed: Mapping[str, Followed] = field(default_factory=dict)
    unwritten: list[Transition] = field(default_factory=list)
    gone: set[str] = field(default_factory=set)
    said: frozenset[Guard] = frozenset()
    held: tuple[policy.Held, ...] = ()  # what holds healing back, as of the last look
    whys: Mapping[str, str] = field(default_factory=dict)  # by number, what was decided about it and why

    def begin_anew(self, mode: str) -> None:
        """Forget what counts towards a heal, as a restart would; what was counted for the metrics stays."""
        self.view, self.held, self.whys = TargetView(self.view.target), (), {}
        self.followed = {number: restarted(followed) for number, followed in self.followed.items()}
        self.healing = replace(self.healing, mode=mode)


def setups_of(
    config: Config,
    clients: Mapping[str, VocobaseClient],
    watches: Mapping[str, Watch],
    fingerprints: Mapping[str, str],
) -> dict[str, Setup]:
    """Return by what each account is healed."""
    return {
        account: Setup(config.heal, client, watches[account], fingerprints[account])
        for account, client in clients.items()
    }


def open_here(look: Look, target: Target) -> list[Attempt]:
    """Return the open attempts on a target's DIDs."""
    return [each for each in look.account.open if each.connection == target.connection]


def unhealthy_of(dids: Iterable[Any], counts: Mapping[str, Counts], target: Target) -> int:
    """Count DIDs that are not ready, and those that a heal may still act on."""
    acted_on = {
        number
        for number, count in counts.items()
        if count.open and (count.open.account, count.open.connection) == (target.account, target.connection)
    }
    return len({did.number for did in dids if not did.ready} | acted_on)
