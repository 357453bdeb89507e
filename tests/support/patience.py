"""How long tests wait for what is to happen: one limit, that none comes near unless it never happens."""

from __future__ import annotations

import os
from typing import Final

# Seconds; more on a machine that has more to do than cores to do it with.
PATIENCE: Final = 60.0 * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
