"""What outlives a restart: states of DIDs and the ledger of heals. The one place that knows SQLAlchemy."""

from exporter.store.store import Store

__all__ = ["Store"]
