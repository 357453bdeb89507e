"""The Vocobase VoiceLink API: requests, their budget, and the meaning of the answers."""

from exporter.vocobase.budget import Place, Priority, RequestBudget, share_for_heals
from exporter.vocobase.client import RequestObserver, VocobaseClient, ssl_context
from exporter.vocobase.parse import parse_connections, parse_sync

__all__ = [
    "Place",
    "Priority",
    "RequestBudget",
    "RequestObserver",
    "VocobaseClient",
    "parse_connections",
    "parse_sync",
    "share_for_heals",
    "ssl_context",
]
