"""Request budgets for tests of other things."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exporter.vocobase import RequestBudget

if TYPE_CHECKING:
    from tests.support.clock import ManualClock


class Unpaced(RequestBudget):
    """Counts requests as the product's does, but lets them leave at once, until it is `paced`."""

    paced = False

    @property
    def gap(self) -> float:
        return super().gap if self.paced else 0.0


def rested(per_minute: int, clock: ManualClock, *, heal_share: int = 0) -> RequestBudget:
    """Return a budget of which nothing is used, and whose first request need not wait."""
    with clock.earlier(60.0):
        return RequestBudget(per_minute, clock, heal_share=heal_share)
