"""What tests of healing share."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def memory_path() -> Iterator[Path]:
    """Return a folder that is gone afterwards, in memory where the machine has such."""
    shared = Path("/dev/shm")  # noqa: S108 - the kernel's, and what is made in it is private
    with TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        yield Path(folder)
