"""What outlives a restart: states of DIDs and the ledger of heals. The one place that knows SQLAlchemy."""

from exporter.store.archive import Archive
from exporter.store.store import Store

__all__ = ["Archive", "Store"]
